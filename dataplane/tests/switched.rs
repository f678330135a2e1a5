//! Switched ports, and configurations that are applied, with ports that need neither hardware nor privileges.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::time::{Duration, Instant};

use dataplane::config::{CoreList, Desired};
use dataplane::forwarder::{Access, Applied, Forwarder, Stopped, apply, change, plan};
use dataplane::network::config::NetworkConfig;
use dataplane::stats::Statistics;

/// Waits for what has to happen, however busy the machine is.
fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A file with these ports, of which those named lie in the network `blue`.
fn file(ports: &[&str], switched: &[&str]) -> String {
    let mut text = format!("no-huge = true\nhold-milliseconds = 500\nports = [\n    {}\n]\n", quoted(ports));
    if !switched.is_empty() {
        text += "\n[[network]]\nname = \"blue\"\n";
    }
    for name in switched {
        text += &format!("\n[[port]]\nname = \"{name}\"\nnetwork = \"blue\"\nanti-spoofing = false\n");
    }
    text
}

fn quoted(ports: &[&str]) -> String {
    ports.iter().map(|port| format!("\"{port}\"")).collect::<Vec<_>>().join(",\n    ")
}

fn desired(text: &str) -> Desired {
    Desired::from_toml(text, Path::new("mirach.toml")).unwrap()
}

fn run(text: &str) -> Forwarder {
    let config = desired(text).check(&CoreList::available().unwrap()).unwrap();
    Forwarder::run(&config).unwrap().0
}

fn refused(forwarder: &mut Forwarder, text: &str) -> String {
    let desired = desired(text);
    let error = apply(forwarder, &desired).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

fn applied(forwarder: &mut Forwarder, text: &str) -> Vec<String> {
    let desired = desired(text);
    let planned = plan(forwarder, &desired).unwrap();
    let Applied { lines, .. } = apply(forwarder, &desired).unwrap();
    assert_eq!(planned.lines, lines, "what was planned is what was done");
    assert!(plan(forwarder, &desired).unwrap().lines.is_empty(), "it is so now");
    lines
}

/// Name, partner and networks of each port, and what is joined.
fn state(forwarder: &mut Forwarder) -> Vec<String> {
    let ports = forwarder.list().into_iter();
    let ports = ports.map(|port| format!("{} {:?} {} {:?}", port.name, port.partner, port.switched, port.networks));
    let joins = forwarder.joins();
    let joins = joins.iter().map(|join| join.ports.join(" <-> "));
    let mut all: Vec<String> = ports.chain(joins).collect();
    all.sort();
    all
}

fn stop(forwarder: Forwarder) -> Stopped {
    let stopped = forwarder.stop();
    assert!(stopped.problems.is_empty(), "{:?}", stopped.problems);
    assert_conserved(&stopped.statistics);
    stopped
}

/// Everything that was received or made was sent or dropped, exactly.
fn assert_conserved(statistics: &Statistics) {
    let (received, sent) = (statistics.received(), statistics.sent());
    let switch = statistics.switch.clone().unwrap_or_default();
    assert!(switch.is_balanced(), "{statistics:?}");
    let flowing = switch.flowing;
    let came = received.counters.packets + flowing.returned + flowing.copied + sent.cut;
    let went = sent.counters.packets + sent.counters.dropped_total() + switch.dropped() + flowing.raised + flowing.held;
    assert_eq!(came, went, "{statistics:?}");
}

/// With fewer queues than engines, as many, and more.
#[test]
fn two_generators_on_one_network_hear_each_other() {
    for queues in 1..=3 {
        let [a, b] = [("a", 4000), ("b", 3000)]
            .map(|(name, count)| format!("gen=20k,count={count},flows=4,queues={queues},name={name}"));
        let mut forwarder = run(&file(&[&a, &b], &["a", "b"]));
        assert_eq!(state(&mut forwarder), ["a None true [\"blue\"]", "b None true [\"blue\"]"]);
        wait_for("both sources end", || forwarder.is_exhausted());
        let stopped = stop(forwarder);
        let [Some(a), Some(b)] = &stopped.generators[..] else { panic!("two generators report") };
        assert_eq!((a.sent, b.sent), (4000, 3000));
        assert_eq!((a.corrupt, b.corrupt, a.foreign, b.foreign), (0, 0, 0, 0));
        assert_eq!((a.duplicates, b.duplicates), (0, 0));
        let dropped = stopped.statistics.sent().counters.dropped_total()
            + stopped.statistics.switch.as_ref().map_or(0, |switch| switch.dropped());
        assert_eq!(a.received + b.received + dropped, 7000, "{:?}", stopped.statistics);
        assert!(a.received > 0 && b.received > 0);
    }
}

#[test]
fn networks_do_not_hear_each_other_and_joined_ports_go_on_beside_them() {
    let ports = ["gen=20k,count=2000,name=a", "null,name=b", "null,name=c", "gen=20k,count=2000,name=d", "null,name=e"];
    let text = file(&ports, &["a", "b"]);
    let text =
        text + "[[network]]\nname = \"green\"\n[[port]]\nname = \"c\"\nnetwork = \"green\"\nanti-spoofing = false\n";
    let mut forwarder = run(&text);
    assert!(state(&mut forwarder).contains(&"d <-> e".to_owned()));
    wait_for("all sources end", || forwarder.is_exhausted());
    let stopped = stop(forwarder);
    let sent = |name: &str| {
        let port = stopped.statistics.ports.iter().find(|port| port.name == name).unwrap();
        port.tx_total().counters.packets
    };
    assert_eq!((sent("c"), sent("e")), (0, 2000));
    assert!(sent("b") > 0);
}

#[test]
fn a_file_is_applied_from_each_state_to_each() {
    const PORTS: [&str; 4] = ["null,name=a", "null,name=b", "gen=1000,name=c", "null,name=d"];
    let joined = file(&PORTS, &[]);
    let half = file(&PORTS, &["a", "b"]);
    let crossed = file(&["null,name=a", "null,name=d", "gen=1000,name=c", "null,name=b"], &[]);
    let all = file(
        &["null,name=a", "null,name=b", "gen=1000,name=c", "null,name=d", "null,name=e"],
        &["a", "b", "c", "d", "e"],
    );
    let nothing = file(&[], &[]);
    let states = [joined, half, crossed, all, nothing];
    let wanted: Vec<Vec<String>> = states.iter().map(|text| state(&mut run(text))).collect();
    for (from, _) in states.iter().enumerate() {
        for (to, _) in states.iter().enumerate() {
            let mut forwarder = run(&states[from]);
            let lines = applied(&mut forwarder, &states[to]);
            assert_eq!(state(&mut forwarder), wanted[to], "from {from} to {to}: {lines:?}");
            assert_eq!(lines.is_empty(), from == to, "from {from} to {to}: {lines:?}");
            stop(forwarder);
        }
    }
}

#[test]
fn what_is_done_is_said() {
    let mut forwarder = run(&file(&["null,name=a", "null,name=b"], &[]));
    let text = file(&["null,name=a", "null,name=b", "null"], &["a", "b", "null0"]);
    let lines = applied(&mut forwarder, &text);
    for line in ["+ port null0 (null)", "- join a <-> b", "+ network blue"] {
        assert!(lines.iter().any(|said| said.starts_with(line)), "{line}: {lines:?}");
    }
    let lines = applied(&mut forwarder, &file(&["null,name=a", "null,name=b"], &[]));
    for line in ["- port null0", "+ join a <-> b", "- network blue"] {
        assert!(lines.iter().any(|said| said.starts_with(line)), "{line}: {lines:?}");
    }
    stop(forwarder);
}

#[test]
fn whatever_fails_leaves_everything_as_it_was() {
    const PORTS: [&str; 5] = ["gen=5000,name=a", "null,name=b", "null,name=c", "gen=1000,name=d", "null,name=e"];
    let running = file(&PORTS, &["a", "b", "c"]);
    let mut forwarder = run(&running);
    let before = (state(&mut forwarder), forwarder.network());
    let switched = &["a", "b", "c"];
    let missing = [&PORTS[..], &["null,name=new", "pcap=/nonexistent/in.pcap,name=f"]].concat();
    // Each of them takes buffers when it is attached, and there are not enough for all.
    let many: Vec<String> = (0..64).map(|number| format!("null,name=n{number}")).collect();
    let many: Vec<&str> = PORTS.iter().copied().chain(many.iter().map(String::as_str)).collect();
    let names: Vec<&str> = many.iter().map(|port| port.rsplit('=').next().unwrap()).collect();
    let other = ["gen=6000,name=a", "null,name=b", "null,name=c", "gen=1000,name=d", "null,name=e"];
    for (text, place, words) in [
        (file(&missing, switched), "mirach.toml:10: ", "/nonexistent/in.pcap"),
        (file(&many, &names), "", "of packet memory do not suffice"),
        (file(&other, switched), "mirach.toml:4: ", "port `a` is open as `gen=5k,name=a`, and a port cannot change"),
        (file(&PORTS, &["a", "b"]), "mirach.toml:8: ", "port null,name=e is left over"),
        (file(&PORTS, switched).replace("500", "400"), "mirach.toml:2: ", "`hold-milliseconds` cannot change"),
        ("cores = 4095\n".to_owned() + &running, "mirach.toml:1: ", "`cores` cannot change"),
    ] {
        let error = refused(&mut forwarder, &text);
        assert!(error.starts_with(place) && error.contains(words), "{error}");
        assert_eq!((state(&mut forwarder), forwarder.network()), before, "{error}");
        assert!(plan(&mut forwarder, &desired(&running)).unwrap().lines.is_empty(), "{error}");
    }
    // And it works.
    for name in ["b", "c", "e"] {
        let sent = |forwarder: &Forwarder| forwarder.statistics_of(name).unwrap().tx_total().counters.packets;
        let so_far = sent(&forwarder);
        wait_for(name, || sent(&forwarder) > so_far);
    }
    stop(forwarder);
}

#[test]
fn ports_that_stand_in_no_file_stay_and_are_switched_when_a_network_names_them() {
    let mut forwarder = run(&file(&["gen=5000,name=a", "null,name=b"], &["a", "b", "later"]));
    forwarder.add(&"null,name=later".parse().unwrap(), None).unwrap();
    forwarder.add(&"null,name=one".parse().unwrap(), None).unwrap();
    forwarder.add(&"null,name=two".parse().unwrap(), Some("one")).unwrap();
    assert!(state(&mut forwarder).contains(&"later None true [\"blue\"]".to_owned()));
    let sent = |forwarder: &Forwarder| forwarder.statistics_of("later").unwrap().tx_total().counters.packets;
    wait_for("it gets what is for everybody", || sent(&forwarder) > 0);
    // It cannot be joined, and a port that is joined not be switched.
    let error = forwarder.add(&"null,name=x".parse().unwrap(), Some("later")).unwrap_err().to_string();
    assert!(error.contains("port `later` is switched"), "{error}");
    let before = state(&mut forwarder);
    let error = refused(&mut forwarder, &file(&["gen=5000,name=a", "null,name=b"], &["a", "b", "two"]));
    assert!(
        error.starts_with("mirach.toml:21: port `two` is joined to `one`") && error.contains("part them"),
        "{error}"
    );
    assert_eq!(state(&mut forwarder), before);
    // Without the section it is a port like any other.
    applied(&mut forwarder, &file(&["gen=5000,name=a", "null,name=b"], &["a", "b"]));
    let now = state(&mut forwarder);
    assert!(now.contains(&"later None false []".to_owned()) && now.contains(&"one <-> two".to_owned()), "{now:?}");
    forwarder.join("later", "one").unwrap_err();
    forwarder.delete("two").unwrap();
    forwarder.join("later", "one").unwrap();
    stop(forwarder);
}

#[test]
fn networks_are_edited_one_by_one() {
    let mut forwarder = run(&file(&[], &[]));
    forwarder.add(&"null,name=a".parse().unwrap(), None).unwrap();
    let blue = NetworkConfig { name: "blue".into(), ..NetworkConfig::default() };
    change(&mut forwarder, |network| {
        network.networks.push(blue);
        Ok(())
    })
    .unwrap();
    assert_eq!(state(&mut forwarder), ["a None false []"]);
    let error = change(&mut forwarder, |_| Err("no".to_owned())).unwrap_err().to_string();
    assert_eq!(error, "no");
    let port = || toml_port("a");
    change(&mut forwarder, |network| {
        network.ports.push(port());
        Ok(())
    })
    .unwrap();
    assert_eq!(state(&mut forwarder), ["a None true [\"blue\"]"]);
    let error = change(&mut forwarder, |network| {
        network.networks.clear();
        Ok(())
    });
    assert!(error.unwrap_err().to_string().contains("there is no network `blue`"));
    change(&mut forwarder, |network| {
        network.ports.clear();
        Ok(())
    })
    .unwrap();
    assert_eq!(state(&mut forwarder), ["a None false []"]);
    stop(forwarder);
}

#[test]
fn a_mirror_port_is_switched_and_gets_copies() {
    let [a, b] = ["a", "b"].map(|name| format!("gen=20k,count=3000,flows=4,name={name}"));
    // Before others begin to send, it is there.
    let ports = ["null,name=probe", a.as_str(), &b];
    let mirror = "\n[[mirror]]\nname = \"m\"\nport = \"a\"\nto = \"probe\"\n";
    let text = file(&ports, &["a", "b"]);
    let error = Desired::from_toml(&text, Path::new("mirach.toml")).unwrap().check(&CoreList::available().unwrap());
    assert!(error.unwrap_err().to_string().contains("left over"), "nothing names the first port");
    let mut forwarder = run(&(text.clone() + mirror));
    assert!(state(&mut forwarder).contains(&"probe None true [\"mirror\"]".to_owned()));
    wait_for("both sources end", || forwarder.is_exhausted());
    let stopped = stop(forwarder);
    let port = |name: &str| stopped.statistics.ports.iter().find(|port| port.name == name).unwrap();
    let dropped = stopped.statistics.switch.as_ref().map_or(0, |switch| switch.dropped())
        + stopped.statistics.sent().counters.dropped_total();
    let (got, mirrored) = (port("a").tx_total().counters.packets, port("probe").tx_total().counters.packets);
    assert!(mirrored + dropped >= 3000 + got && mirrored <= 6000, "{mirrored} of {got} + 3000, {dropped} dropped");
    for (wrong, reason) in [
        (mirror.replace("\"a\"", "\"x\""), "mirach.toml:24: no `[[port]]` puts `x` into a network"),
        (mirror.replace("probe", "b"), "mirach.toml:25: port `b` has packets of its own"),
        (mirror.replace("port", "network"), "mirach.toml:24: there is no network `a`"),
        (mirror.replace("port = \"a\"", ""), "say whose packets are copied"),
    ] {
        let error = Desired::from_toml(&(text.clone() + &wrong), Path::new("mirach.toml")).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

fn toml_port(name: &str) -> dataplane::network::config::PortConfig {
    let text = file(&[], &[name]);
    let network = text.split_once("\n[[network]]").map(|(_, rest)| format!("[[network]]{rest}")).unwrap();
    dataplane::network::Config::from_toml(&network, Path::new("port.toml")).unwrap().ports.remove(0)
}

#[test]
fn a_switched_port_comes_and_goes_while_others_go_on() {
    let mut forwarder = run(&file(&["gen=5000,name=a", "null,name=b", "null,name=c"], &["a", "b", "c"]));
    let sent = |forwarder: &Forwarder, name: &str| forwarder.statistics_of(name).unwrap().tx_total().counters.packets;
    for _ in 0..10 {
        assert!(forwarder.delete("c").unwrap().is_empty());
        let so_far = sent(&forwarder, "b");
        wait_for("the others go on", || sent(&forwarder, "b") > so_far);
        forwarder.add(&"null,name=c".parse().unwrap(), None).unwrap();
        wait_for("it is back", || sent(&forwarder, "c") > 0);
    }
    assert!(forwarder.delete("a").unwrap().is_empty());
    stop(forwarder);
}

/// A forwarder to which somebody else adds a pair of ports while an apply opens its own.
struct Disturbed {
    forwarder: Forwarder,
    left: usize,
}

impl Access for Disturbed {
    fn with<R>(&mut self, act: impl FnOnce(&mut Forwarder) -> R) -> R {
        self.left = self.left.saturating_sub(1);
        if self.left == 1 {
            self.forwarder.add(&"null,name=one".parse().unwrap(), None).unwrap();
            self.forwarder.add(&"null,name=two".parse().unwrap(), Some("one")).unwrap();
        }
        act(&mut self.forwarder)
    }
}

#[test]
fn what_others_join_while_ports_open_stays_joined() {
    for disturbed in 2..6 {
        let forwarder = run(&file(&["null,name=a", "null,name=b"], &[]));
        let mut access = Disturbed { forwarder, left: disturbed };
        let text = file(&["null,name=a", "null,name=b", "null,name=c"], &["a", "b", "c"]);
        apply(&mut access, &desired(&text)).unwrap();
        let mut forwarder = access.forwarder;
        let now = state(&mut forwarder);
        assert!(now.contains(&"one <-> two".to_owned()), "{disturbed}: {now:?}");
        assert!(now.contains(&"c None true [\"blue\"]".to_owned()), "{now:?}");
        stop(forwarder);
    }
}
