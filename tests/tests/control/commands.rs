//! Every command that asks a running mirach, for people and for programs.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::scene::{close, set};

/// Commands that only ask, and what is to be seen in their answers.
const QUESTIONS: &[(&[&str], &str)] = &[
    (&["port", "list"], "vm0"),
    (&["port", "stats"], "vm1"),
    (&["port", "stats", "vm0"], "vm0"),
    (&["flows"], "vm0"),
    (&["flows", "--port", "vm1", "--protocol", "udp", "--sort", "bytes", "--most", "5"], "vm1"),
    (&["show", "graph"], "look up"),
    (&["show", "networks"], "red"),
    (&["show", "ports"], "vm0"),
    (&["show", "slices"], "gold"),
    (&["show", "groups"], "some"),
    (&["show", "routes"], "10.1.0.0/24"),
    (&["show", "config"], "gold"),
    (&["why", "vm0", "udp", "10.0.0.10:5", "to", "10.0.0.11:9"], "vm1"),
    (&["top", "--once", "--interval", "0.2"], "vm0"),
    (&["subscribe", "ports", "--interval", "0.1", "--count", "2"], "vm0"),
];

/// Commands that change something, each with the one that takes it back.
const CHANGES: &[(&[&str], &[&str])] = &[
    (&["port", "add", "null,name=nothing"], &["port", "del", "nothing"]),
    (&["set", "slice", "silver", "flows=700"], &["unset", "slice", "silver"]),
    (&["set", "network", "green", "vni=300", "routers=10.3.0.1/24"], &["unset", "network", "green"]),
    (
        &["set", "group", "web", "rules=[{ direction = \"in\", action = \"allow\", protocol = \"tcp\", ports = 80 }]"],
        &["unset", "group", "web"],
    ),
    (&["set", "route", "blue", "10.0.0.0/24", "to=red"], &["unset", "route", "blue", "10.0.0.0/24"]),
    (&["set", "port", "later", "network=blue", "anti-spoofing=false"], &["unset", "port", "later"]),
];

pub(crate) fn every_one() -> Result<()> {
    let (daemon, mut crowd) = set(&[])?;
    crowd.busy(|| {
        for (words, word) in QUESTIONS {
            let text = daemon.say(words)?;
            ensure!(text.contains(word), "{words:?} does not show {word}: {text}");
            ensure!(words.contains(&"subscribe") || !text.starts_with('{'), "{words:?} speaks JSON to people: {text}");
            let json = daemon.say(&[words, &["--json"][..]].concat())?;
            ensure!(json.contains(word), "{words:?} --json does not show {word}: {json}");
            for line in json.lines() {
                serde_json::from_str::<Value>(line).with_context(|| format!("{words:?}: no JSON: {line}"))?;
            }
        }
        let config = |what: &str| -> Result<Value> {
            Ok(daemon.call("config.get", json!({})).context(what.to_owned())?["config"].clone())
        };
        let before = config("before")?;
        for (there, back) in CHANGES {
            for json in [&[][..], &["--json"]] {
                let said = daemon.say(&[there, json].concat())?;
                ensure!(!said.trim().is_empty(), "{there:?} says nothing");
                ensure!(there.contains(&"add") || config("changed")? != before, "{there:?} changed nothing");
                let again = daemon.command(&[back, json].concat())?;
                ensure!(again.status.success(), "{back:?}: {}", String::from_utf8_lossy(&again.stderr));
                ensure!(config("again")? == before, "{back:?} did not take it back");
                let twice = daemon.command(&[back, json].concat())?;
                ensure!(!twice.status.success() && !twice.stderr.is_empty(), "{back:?} was done twice");
            }
        }
        // What it says of itself can be applied again, and changes nothing.
        let text = daemon.say(&["show", "config"])?;
        let file = daemon.path("shown.toml");
        std::fs::write(&file, text)?;
        let said = daemon.say(&["apply", &file.display().to_string()])?;
        ensure!(
            !said.lines().any(|line| line.starts_with(['+', '-', '~'])),
            "it does not show what is in force: {said}"
        );
        ensure!(config("shown")? == before, "it does not show what is in force");
        for words in [&["schema"][..], &["schema", "--config"]] {
            let output = std::process::Command::new(lab::binaries::host()?).args(words).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(output.status.success(), "{words:?}");
            serde_json::from_str::<Value>(&text).with_context(|| format!("{words:?}: {text}"))?;
        }
        Ok(())
    })?;
    close(daemon, crowd)
}
