//! Ports that come and go while others' traffic goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dataplane::config::{CoreList, EngineConfig};
use dataplane::control::{Client, ClientError, Methods, Server, code};
use dataplane::forwarder::{Forwarder, ForwarderError, Stopped};
use dataplane::port::{MemoryOptions, NamedSpec, Port, Ports};
use hugemem::{Batch, PageChoice};
use serde_json::{Value, json};

/// Tests in this file count what the process has, so one runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn spec(text: &str) -> NamedSpec {
    text.parse().unwrap()
}

fn memory() -> MemoryOptions {
    MemoryOptions { page: PageChoice::Size4K, ..MemoryOptions::default() }
}

/// A forwarder between the bystanders `left` and `right`, which exchange frames all the time.
fn forwarder() -> Forwarder {
    let config = EngineConfig { hold: Duration::from_secs(60), ..EngineConfig::default() };
    let specs = ["gen=100k,name=left", "gen=100k,size=64-1514,name=right"].map(spec);
    Forwarder::open(config, &CoreList::available().unwrap(), &specs, &memory()).unwrap().0
}

/// The deadline only guards against hanging for ever.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn received(forwarder: &Forwarder, name: &str) -> u64 {
    forwarder.statistics_of(name).unwrap().rx_total().counters.packets
}

fn sent(forwarder: &Forwarder, name: &str) -> u64 {
    forwarder.statistics_of(name).unwrap().tx_total().counters.packets
}

/// The bystanders lost nothing, and every frame is accounted for.
fn assert_unharmed(stopped: &Stopped) {
    assert!(stopped.problems.is_empty(), "{:?}", stopped.problems);
    let [Some(left), Some(right)] = &stopped.generators[..2] else { panic!("two generators report") };
    assert!(left.sent > 0 && right.sent > 0);
    assert_eq!((left.received, right.received), (right.sent, left.sent));
    for report in [left, right] {
        assert_eq!((report.lost, report.reordered, report.duplicates, report.corrupt), (0, 0, 0, 0));
    }
}

/// Open files of this process, and threads of engines and machines. (Those of the tests come and go as they like.)
fn belongings() -> (usize, usize) {
    let names = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        // A thread may end meanwhile.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    let threads = names.filter(|name| name.starts_with("engine-") || name.starts_with("vm-")).count();
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), threads)
}

#[test]
fn ports_come_and_go_under_load_and_leave_nothing_behind() {
    let _alone = ALONE.lock().unwrap();
    let mut forwarder = forwarder();
    let turn = |forwarder: &mut Forwarder| {
        let source = forwarder.add(&spec("gen=max,name=source"), None).unwrap();
        let sink = forwarder.add(&spec("null"), Some(&source.name)).unwrap();
        assert_eq!((source.name.as_str(), sink.name.as_str()), ("source", "null0"));
        wait_for("new ports carry packets", || sent(forwarder, "null0") > 1000);
        assert!(forwarder.delete("source").unwrap().is_empty());
        assert_eq!(forwarder.list().last().unwrap().partner, None, "its partner stays, alone");
        assert!(forwarder.delete("null0").unwrap().is_empty());
    };
    turn(&mut forwarder);
    let before = belongings();
    for _ in 0..25 {
        turn(&mut forwarder);
    }
    assert_eq!(belongings(), before);
    // More memory than was granted has come and gone by now: 26 generators of 2.3 MiB each beside the two that stay.
    assert_eq!(forwarder.list().len(), 2);
    assert_unharmed(&forwarder.stop());
}

#[test]
fn a_port_whose_partner_goes_waits_for_another() {
    let _alone = ALONE.lock().unwrap();
    let mut forwarder = forwarder();
    forwarder.add(&spec("gen=max,count=30000,name=source"), None).unwrap();
    forwarder.add(&spec("null,name=first"), Some("source")).unwrap();
    wait_for("packets go to the first", || sent(&forwarder, "first") > 0);
    forwarder.delete("first").unwrap();
    let (held, joins) = (received(&forwarder, "source"), forwarder.joins().len());
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((received(&forwarder, "source"), joins), (held, 1), "nothing is received from a port alone");
    forwarder.add(&spec("null,name=second"), None).unwrap();
    forwarder.join("second", "source").unwrap();
    wait_for("the rest goes to the second", || received(&forwarder, "source") == 30_000);
    wait_for("all are accounted for", || sent(&forwarder, "second") >= 30_000 - held);
    assert_unharmed(&forwarder.stop());
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let _alone = ALONE.lock().unwrap();
    let mut forwarder = forwarder();
    let before = forwarder.list();
    let refused = |error: ForwarderError, words: &str| assert!(error.to_string().contains(words), "{words}: {error}");
    refused(forwarder.add(&spec("null,name=left"), None).unwrap_err(), "there is a port `left` already");
    refused(forwarder.add(&spec("null"), Some("left")).unwrap_err(), "`left` is joined to `right` already");
    refused(forwarder.add(&spec("null"), Some("nobody")).unwrap_err(), "there is no port `nobody`; ports: left, right");
    refused(forwarder.add(&spec("pcap=/nonexistent/in.pcap"), None).unwrap_err(), "/nonexistent/in.pcap");
    refused(forwarder.add(&spec("gen=1,queues=128"), None).unwrap_err(), "of packet memory do not suffice");
    refused(forwarder.delete("nobody").unwrap_err(), "there is no port `nobody`");
    refused(forwarder.join("left", "right").unwrap_err(), "joined");
    assert_eq!(forwarder.list().iter().map(|port| &port.name).collect::<Vec<_>>(), ["left", "right"]);
    assert_eq!(forwarder.list()[0].partner, before[0].partner);
    let alone = forwarder.add(&spec("null,name=alone"), None).unwrap();
    refused(forwarder.join("alone", "alone").unwrap_err(), "to itself");
    forwarder.delete(&alone.name).unwrap();
    wait_for("packets go both ways", || sent(&forwarder, "left") > 0 && sent(&forwarder, "right") > 0);
    assert_unharmed(&forwarder.stop());
}

#[test]
fn a_port_that_must_wait_for_cores_shares_them() {
    let _alone = ALONE.lock().unwrap();
    let core = CoreList::new(CoreList::available().unwrap().iter().next()).unwrap();
    let specs = ["gen=50k,name=left", "gen=50k,name=right"].map(spec);
    let (mut forwarder, _) = Forwarder::open(EngineConfig::default(), &core, &specs, &memory()).unwrap();
    forwarder.add(&spec("gen=max,count=5000,name=a"), None).unwrap();
    forwarder.add(&spec("gen=max,count=5000,name=b"), Some("a")).unwrap();
    assert_eq!(
        forwarder.joins().iter().map(|join| join.cores.clone()).collect::<Vec<_>>(),
        vec![core.iter().collect::<Vec<_>>(); 2]
    );
    wait_for("both pairs", || sent(&forwarder, "a") == 5000 && sent(&forwarder, "b") == 5000);
    // The engine goes with its last pair, and comes again with the next.
    for name in ["left", "right", "a", "b"] {
        forwarder.delete(name).unwrap();
    }
    assert!(forwarder.list().is_empty() && !forwarder.is_exhausted());
    forwarder.add(&spec("gen=max,count=100,name=a"), None).unwrap();
    forwarder.add(&spec("null,name=b"), Some("a")).unwrap();
    wait_for("the new pair", || sent(&forwarder, "b") == 100);
    assert!(forwarder.stop().problems.is_empty());
}

/// The driver's end of a vhost-user socket, and a generator: what a virtual machine is to the forwarder.
fn machine(socket: &Path) -> [Port; 2] {
    let specs = [spec(&format!("virtio-user={}", socket.display())), spec("gen=max")];
    <[_; 2]>::try_from(Ports::open(&specs, &memory()).unwrap()).unwrap_or_else(|_| panic!("two ports"))
}

#[test]
fn a_machine_comes_and_goes_under_its_own_load() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut forwarder = forwarder();
    let turn = |forwarder: &mut Forwarder| {
        let socket = folder.path().join("vm.sock");
        forwarder.add(&spec(&format!("vhost-user={},client=off,name=vm", socket.display())), None).unwrap();
        forwarder.add(&spec("gen=20k,name=peer"), Some("vm")).unwrap();
        let [mut card, mut source] = machine(&socket);
        let (mut outgoing, mut incoming) = (Batch::new(32), Batch::new(32));
        let mut exchange = || {
            if outgoing.is_empty() {
                source.queues[0].rx.receive(&mut outgoing);
            }
            card.queues[0].tx.transmit(&mut outgoing);
            card.queues[0].tx.reclaim();
            card.queues[0].rx.receive(&mut incoming);
            source.queues[0].tx.transmit(&mut incoming);
        };
        wait_for("frames go both ways", || {
            exchange();
            received(forwarder, "vm") > 1000 && sent(forwarder, "vm") > 100
        });
        // Its rings are full of frames when it goes.
        assert!(forwarder.delete("vm").unwrap().is_empty());
        assert!(!socket.exists());
        exchange();
        forwarder.delete("peer").unwrap();
        for Port { mut control, queues, .. } in [card, source] {
            // The other side is gone, so there is nobody to confirm anything.
            let _ = control.stop(queues);
        }
    };
    turn(&mut forwarder);
    let before = belongings();
    for _ in 0..5 {
        turn(&mut forwarder);
    }
    wait_for("files and threads are as they were", || belongings() == before);
    assert_unharmed(&forwarder.stop());
}

#[test]
fn a_forwarder_does_what_clients_ask_for() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let forwarder = Arc::new(Mutex::new(forwarder()));
    let server = Server::start(&path, None, Methods::new(Arc::clone(&forwarder))).unwrap();
    let mut client = Client::connect(&path).unwrap();

    let added = client.call("port.add", json!({ "spec": "gen=max,count=100,name=source" })).unwrap();
    assert_eq!(added, json!({ "name": "source", "notices": [], "vmm": null }));
    client.call("port.add", json!({ "spec": "null", "name": "sink", "join": "source" })).unwrap();
    let socket = folder.path().join("vm.sock");
    let machine = format!("vhost-user={}", socket.display());
    let added = client.call("port.add", json!({ "spec": machine, "name": "vm" })).unwrap();
    assert!(added["vmm"].to_string().contains("-netdev vhost-user"), "{added}");

    let ports = client.call("port.list", json!({})).unwrap();
    let names: Vec<&Value> = ports["ports"].as_array().unwrap().iter().map(|port| &port["name"]).collect();
    assert_eq!(names, ["left", "right", "source", "sink", "vm"]);
    assert_eq!((&ports["ports"][2]["join"], &ports["ports"][4]["join"]), (&json!("sink"), &Value::Null));
    assert_eq!(ports["ports"][4]["spec"], json!(format!("{machine},name=vm")));

    wait_for("the statistics show all frames", || {
        let stats = client.call("port.stats", json!({ "name": "sink" })).unwrap();
        stats["ports"][0]["counters"]["tx_packets"] == 100
    });
    let stats = client.call("port.stats", json!({})).unwrap();
    let shares: f64 = stats["ports"].as_array().unwrap().iter().filter_map(|port| port["cpu_share"].as_f64()).sum();
    assert!((shares - 1.0).abs() < 1e-6, "{stats}");

    for name in ["vm", "sink", "source"] {
        assert_eq!(client.call("port.del", json!({ "name": name })).unwrap()["name"], name);
    }
    for (method, params, expected) in [
        ("port.add", json!({ "spec": "gen=nothing" }), code::INVALID_PARAMS),
        ("port.add", json!({ "spec": "null", "name": "a b" }), code::INVALID_PARAMS),
        ("port.add", json!({ "spec": "null,name=a", "name": "b" }), code::INVALID_PARAMS),
        ("port.add", json!({ "spec": "null", "nmae": "b" }), code::INVALID_PARAMS),
        ("port.add", json!([]), code::INVALID_PARAMS),
        ("port.add", json!({ "spec": "null", "join": "left" }), code::FAILED),
        ("port.del", json!({ "name": "vm" }), code::FAILED),
        ("port.del", json!({}), code::INVALID_PARAMS),
        ("port.list", json!({ "name": "vm" }), code::INVALID_PARAMS),
        ("port.stats", json!({ "name": "vm" }), code::FAILED),
        ("port.up", json!({}), code::METHOD_NOT_FOUND),
    ] {
        match client.call(method, params.clone()).unwrap_err() {
            ClientError::Refused(error) => assert_eq!(error.code, expected, "{method} {params}: {error}"),
            error => panic!("{method} {params}: {error}"),
        }
    }
    drop((client, server));
    let forwarder = Arc::into_inner(forwarder).expect("nobody else has it").into_inner().unwrap();
    assert_unharmed(&forwarder.stop());
}
