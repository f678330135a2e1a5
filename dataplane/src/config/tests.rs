#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn cores() -> CoreList {
    "0-3".parse().unwrap()
}

fn parse(text: &str) -> Result<Settings, String> {
    Settings::from_toml(text, Path::new("mirach.toml")).map_err(|error| error.to_string())
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
    assert_eq!((config.memory, config.page, config.node), (DEFAULT_MEMORY, PageChoice::Auto, None));
    assert_eq!(config.control, ControlSocket::Usual);
    assert!(check("").unwrap().ports.is_empty(), "they can be added");
}

#[test]
fn numbers_may_stand_without_quotes() {
    let config = check("ports = [\"null\", \"null\"]\ncores = 2\nmemory = 8388608\n").unwrap();
    assert_eq!((config.cores.to_string().as_str(), config.memory), ("2", 8 << 20));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = parse("burst = 3\nbrust = 4\n").unwrap_err();
    assert!(error.contains("line 2") && error.contains("brust") && error.contains("mirach.toml"), "{error}");
}

#[test]
fn an_impossible_value_is_named_with_its_line() {
    for (text, words) in [
        ("ports = [\"gen=\"]", "gen"),
        ("cores = \"3-1\"", "1-3,8"),
        ("memory = \"lots\"", "64M"),
        ("memory = -1", "64M"),
        ("huge-page-size = \"3M\"", "`2M`"),
        ("poll = \"never\"", "adaptive"),
        ("scheduler = \"on\"", "least-cpu"),
        ("burst = \"x\"", "invalid type"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains("line 1") && error.contains(words), "{text}: {error}");
    }
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    for (text, words) in [
        ("control = \"none\"", "no ports are given"),
        ("ports = [\"null,name=a\", \"null,name=a\"]", "the name a is given to two ports"),
        ("ports = [\"vhost-user=/x\", \"vhost-user=/x,queues=2\"]", "port vhost-user=/x is given twice"),
        ("ports = [\"null\"]", "port null is left over"),
        ("ports = [\"tap=a\", \"tap=a,queues=2\"]", "port tap=a is given twice"),
        ("ports = [\"03:00.0\", \"0000:03:00.0,queues=2\"]", "0000:03:00.0 is given twice"),
        ("ports = [\"null\", \"null\"]\ncores = \"1,9\"", "core 9 is not available; this process may run on 0-3"),
        ("ports = [\"null\", \"null\"]\nburst = 0", "give 1 to 128"),
        ("ports = [\"null\", \"null\"]\nburst = 129", "give 1 to 128"),
        ("ports = [\"null\", \"null\"]\nhold-milliseconds = 501", "give at most 500"),
        ("ports = [\"null\", \"null\"]\nmemory = \"1K\"", "at least 4M"),
        ("ports = [\"null\", \"null\"]\nno-huge = true\nhuge-page-size = \"1G\"", "contradict"),
    ] {
        let error = check(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn generators_and_sinks_may_be_given_twice() {
    check(r#"ports = ["gen=max", "gen=max", "null", "null"]"#).unwrap();
}

#[test]
fn flags_lie_over_the_file() {
    let file = parse("ports = [\"null\", \"null\"]\nburst = 8\nhuge-page-size = \"1G\"\npoll = \"always\"").unwrap();
    let flags = Settings { burst: Some(16), no_huge: Some(true), ..Settings::default() };
    let config = flags.over(file).check(&cores()).unwrap();
    assert_eq!((config.engine.burst, config.engine.poll, config.page), (16, Poll::Always, PageChoice::Size4K));
    assert_eq!(config.ports.len(), 2);
}

#[test]
fn a_missing_file_is_named() {
    let error = Settings::from_file(Path::new("/nonexistent/mirach.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/mirach.toml"), "{error}");
}
