#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use super::*;

fn cores() -> CoreList {
    "0-3".parse().unwrap()
}

fn parse(text: &str) -> Result<Desired, String> {
    Desired::from_toml(text, Path::new("mirach.toml")).map_err(|bad| bad.to_string())
}

fn check(text: &str) -> Result<Config, String> {
    parse(text)?.check(&cores()).map_err(|error| error.to_string())
}

#[test]
fn a_file_says_all_that_flags_can() {
    let config = check(
        r#"
        ports = ["0000:00:03.0,queues=2", "tap=tap0"]
        cores = "1-2"
        memory = "128M"
        huge-page-size = "2M"
        node = 1
        poll = "always"
        burst = 32
        seconds = 5
        hold-milliseconds = 7
        scheduler = "off"
        control = "/run/mirach/other.sock"
        json = true
        "#,
    )
    .unwrap();
    assert_eq!(config.ports[0].to_string(), "0000:00:03.0,queues=2");
    assert_eq!(config.cores.to_string(), "1-2");
    assert_eq!((config.memory, config.page, config.node), (128 << 20, PageChoice::Size2M, Some(1)));
    let hold = Duration::from_millis(7);
    assert_eq!(config.engine, EngineConfig { burst: 32, poll: Poll::Always, hold, scheduler: Scheduler::Off });
    assert_eq!(config.control, ControlSocket::At("/run/mirach/other.sock".into()));
    assert_eq!(config.duration, Some(Duration::from_secs(5)));
}

#[test]
fn defaults_leave_the_first_core_to_control() {
    let config = check(r#"ports = ["null", "null"]"#).unwrap();
    assert_eq!(config.cores.to_string(), "1-3");
    assert_eq!(config.engine, EngineConfig::default());
    let memory = DEFAULT_MEMORY + 3 * DEFAULT_SWITCH_MEMORY;
    assert_eq!((config.memory, config.page, config.node), (memory, PageChoice::Auto, None), "networks may come");
    assert_eq!(config.control, ControlSocket::Usual);
    assert!(check("").unwrap().ports.is_empty(), "they can be added");
}

#[test]
fn numbers_may_stand_without_quotes() {
    let config = check("ports = [\"null\", \"null\"]\ncores = 2\nmemory = 8388608\n").unwrap();
    assert_eq!((config.cores.to_string().as_str(), config.memory), ("2", 8 << 20));
}

/// Two tenants' networks beside two ports that are joined.
const WHOLE: &str = r#"
ports = [
    "null,name=a",
    "tap=tap0",
    "null",
    "gen=1000,queues=2",
]
burst = 8

[[network]]
name = "blue"

[[port]]
name = "a"
network = "blue"
anti-spoofing = false

[underlay]
port = "tap0"
addresses = ["192.0.2.1/24"]
"#;

#[test]
fn ports_that_sections_name_are_switched_and_the_others_joined() {
    let config = check(WHOLE).unwrap();
    assert_eq!(config.names, ["a", "tap0", "null0", "gen0"]);
    assert_eq!(config.pairs, [[2, 3]]);
    assert_eq!((config.network.networks.len(), config.engine.burst, config.flows), (1, 8, DEFAULT_FLOWS));
    assert_eq!(config.memory, DEFAULT_MEMORY + 3 * DEFAULT_SWITCH_MEMORY, "engines hold packets");
    assert!(
        check("[[port]]\nname = \"later\"\nnetwork = \"n\"\nanti-spoofing = false\n[[network]]\nname = \"n\"").is_ok()
    );
}

/// What is replaced in [`WHOLE`], by what, words of the reason, and the text at whose line the error is.
const BAD: &[(&str, &str, &str, &str)] = &[
    // No TOML, unknown keys, wrong types.
    ("burst = 8", "burst = ", "string values must be quoted", "burst = "),
    ("burst = 8", "burst = 8\nburst = 9", "duplicate key", "burst = 9"),
    ("burst = 8", "brust = 8", "there is no key `brust`; keys: burst, control, ", "brust"),
    ("[underlay]", "[overlay]", "sections: group, mirror, network, ", "[overlay]"),
    ("burst = 8", "burst = \"x\"", "expected usize", "burst"),
    ("burst = 8", "poll = \"never\"", "adaptive", "poll"),
    ("burst = 8", "scheduler = \"on\"", "least-cpu", "scheduler"),
    ("burst = 8", "json = 1", "expected a boolean", "json"),
    ("burst = 8", "cores = \"3-1\"", "1-3,8", "cores"),
    ("burst = 8", "memory = \"lots\"", "64M", "memory"),
    ("burst = 8", "memory = -1", "64M", "memory"),
    ("burst = 8", "huge-page-size = \"3M\"", "`2M`", "huge-page-size"),
    ("burst = 8", "flows = -1", "u32", "flows"),
    ("    \"tap=tap0\",", "    \"tap=\",", "tap", "    \"tap=\""),
    ("    \"tap=tap0\",", "    7,", "expected a port", "    7,"),
    ("    \"gen=1000,queues=2\",", "    \"gen=1000,queue=2\",", "queue", "    \"gen="),
    // Impossible values.
    ("burst = 8", "burst = 0", "give 1 to 128", "burst"),
    ("burst = 8", "burst = 129", "give 1 to 128", "burst"),
    ("burst = 8", "cores = \"1,9\"", "core 9 is not available; this process may run on 0-3", "cores"),
    ("burst = 8", "hold-milliseconds = 501", "give at most 500", "hold-milliseconds"),
    ("burst = 8", "memory = \"1K\"", "at least 4M", "memory"),
    ("burst = 8", "flows = 0", "give 1 to 16777216", "flows"),
    ("burst = 8", "huge-page-size = \"1G\"\nno-huge = true", "contradict", "no-huge"),
    // Ports that cannot be beside each other.
    ("\"null\",", "\"null,name=a\",", "the name a is given to two ports", "    \"null,name=a\",\n    \"gen"),
    ("\"null\",", "\"null,name=tap0\",", "the name tap0 is given to two ports", "    \"null,name=tap0\",\n    \"gen"),
    ("\"null\",", "\"tap=tap0,queues=2,name=b\",", "tap interface tap0 is given twice", "    \"tap=tap0,queues"),
    ("    \"null\",\n", "", "1 ports that no section names cannot be joined pairwise, port gen=1k", "    \"gen="),
    // Sections that do not fit together.
    ("network = \"blue\"", "network = \"bleu\"", "there is no network `bleu`", "network = \"bleu"),
    ("name = \"a\"\nnetwork", "name = \"tap0\"\nnetwork", "underlay", "name = \"tap0\""),
    ("anti-spoofing = false", "", "anti-spoofing = false", "[[port]]\nname"),
    ("192.0.2.1/24", "192.0.2.1/33", "192.0.2.1/33", "addresses"),
];

#[test]
fn a_bad_file_is_named_with_its_line_and_the_reason() {
    for (old, new, words, place) in BAD {
        assert!(WHOLE.contains(old), "{old}");
        let text = WHOLE.replacen(old, new, 1);
        let error = check(&text).expect_err(new);
        let start = text.find(place).unwrap_or_else(|| panic!("{place}"));
        // A place of two lines says which one is meant by the second.
        let first = 1 + text[..start].matches('\n').count();
        let mut lines = first..=first + place.matches('\n').count();
        assert!(
            lines.any(|line| error.starts_with(&format!("mirach.toml:{line}: "))),
            "{new}: {error}, expected at {place}"
        );
        assert!(error.contains(words) && !error.contains('\n'), "{new}: {error}");
    }
}

#[test]
fn what_only_flags_say_has_no_line() {
    let flags = Settings { burst: Some(0), ..Settings::default() };
    for below in [Desired::default(), parse("burst = 7").unwrap()] {
        let error = below.under(flags.clone()).check(&cores()).unwrap_err().to_string();
        assert_eq!(error, "a burst of 0 packets is not possible; give 1 to 128");
    }
    let none = Settings { control: Some(ControlSocket::None), ..Settings::default() };
    let error = Desired::from_flags(none).check(&cores()).unwrap_err().to_string();
    assert!(error.starts_with("no ports are given"), "{error}");
}

#[test]
fn what_would_have_to_change_while_it_runs_is_named_with_its_line() {
    let running = check("ports = [\"null\", \"null\"]\ncores = \"1-2\"\nmemory = \"64M\"").unwrap();
    let against = |text: &str| parse(text).unwrap().check_against(&running).map_err(|error| error.to_string());
    assert!(against("cores = \"1-2\"\nburst = 64\nports = [\"null\", \"gen=1\", \"null\", \"null\"]").is_ok());
    assert!(against("").unwrap().ports.is_empty(), "what is not said stays");
    for (key, said) in [
        ("cores", "1"),
        ("memory", "\"1G\""),
        ("huge-page-size", "\"2M\""),
        ("no-huge", "true"),
        ("node", "1"),
        ("poll", "\"always\""),
        ("burst", "3"),
        ("scheduler", "\"off\""),
        ("hold-milliseconds", "7"),
        ("flows", "5"),
        ("control", "\"/x\""),
        ("control-group", "\"users\""),
        ("seconds", "7"),
    ] {
        let error = against(&format!("# first\n\n{key} = {said}")).unwrap_err();
        let start = format!("mirach.toml:3: `{key}` cannot change while mirach runs (it runs with ");
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn the_schema_has_keys_and_sections() {
    let schema = serde_json::to_value(schema()).unwrap();
    for key in ["ports", "cores", "hold-milliseconds", "flows", "underlay", "slice", "network", "port", "tunnel"] {
        assert!(schema["properties"][key].is_object(), "{key}: {schema}");
    }
    assert!(schema["$defs"]["PortConfig"].is_object() && schema["$defs"]["Poll"].is_object(), "{schema}");
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn generators_and_sinks_may_be_given_twice() {
    check(r#"ports = ["gen=max", "gen=max", "null", "null"]"#).unwrap();
}

#[test]
fn flags_lie_over_the_file() {
    let file = parse("ports = [\"null\", \"null\"]\nburst = 8\nhuge-page-size = \"1G\"\npoll = \"always\"").unwrap();
    let flags = Settings { burst: Some(16), no_huge: Some(true), ..Settings::default() };
    let config = file.under(flags).check(&cores()).unwrap();
    assert_eq!((config.engine.burst, config.engine.poll, config.page), (16, Poll::Always, PageChoice::Size4K));
    assert_eq!(config.ports.len(), 2);
}

#[test]
fn a_missing_file_is_named() {
    let error = Desired::read(Path::new("/nonexistent/mirach.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/mirach.toml"), "{error}");
}
