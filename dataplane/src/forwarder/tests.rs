#![allow(clippy::unwrap_used, reason = "tests")]
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use drivers::nic::{Counters, LinkStatus, Offloads, RxQueue};
use hugemem::Batch;
use serde_json::json;

mod switched;

use super::*;
use crate::control::{Client, ClientError, Methods, Server};
use crate::port::{PortControl, PortKind, PortQueue, null};

/// Something that waits until it is let go.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    /// Somebody waits.
    reached: AtomicBool,
}

impl Gate {
    fn pass(&self) {
        self.reached.store(true, Ordering::Release);
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.changed.wait(open).unwrap();
        }
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// A port that is sick when told to be, and whose restart waits at a gate.
struct Slow {
    sick: Arc<AtomicBool>,
    restart: Arc<Gate>,
}

impl PortControl for Slow {
    fn link(&mut self) -> LinkStatus {
        LinkStatus::default()
    }
    fn offloads(&self) -> Offloads {
        Offloads::empty()
    }
    fn describe(&mut self) -> String {
        "state UP".into()
    }
    fn check(&mut self) -> Result<(), PortError> {
        if self.sick.load(Ordering::Acquire) {
            return Err(PortError::Device { port: "slow".into(), reason: "is sick".into() });
        }
        Ok(())
    }
    fn stop(&mut self, _: Vec<PortQueue>) -> Result<(), PortError> {
        Ok(())
    }
    fn restart(&mut self, queues: Vec<PortQueue>, _: PortError) -> Result<Vec<PortQueue>, PortError> {
        self.restart.pass();
        self.sick.store(false, Ordering::Release);
        Ok(queues)
    }
}

/// A receive queue that holds its engine up at a gate.
struct Stuck(Arc<Gate>);

impl RxQueue for Stuck {
    fn receive(&mut self, _: &mut Batch) -> usize {
        self.0.pass();
        0
    }
    fn arm(&mut self) -> bool {
        false
    }
    fn counters(&self) -> Counters {
        Counters::default()
    }
}

fn port(name: &str, queue: PortQueue, control: Box<dyn PortControl>) -> Port {
    Port { name: name.into(), kind: PortKind::Null, mac: None, queues: vec![queue], control, notices: Vec::new() }
}

fn plain(name: &str) -> Port {
    port(name, null::queue(), Box::new(null::NullControl))
}

fn spec(text: &str) -> NamedSpec {
    text.parse().unwrap()
}

fn start(ports: Vec<Port>) -> Forwarder {
    Forwarder::start(EngineConfig::default(), &CoreList::available().unwrap(), ports).unwrap()
}

/// Waits for something that has to happen, however busy the machine is.
fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_port_that_takes_long_to_come_back_holds_up_nobody() {
    let (sick, restart) = (Arc::new(AtomicBool::new(true)), Arc::new(Gate::default()));
    let slow = Slow { sick: Arc::clone(&sick), restart: Arc::clone(&restart) };
    let mut forwarder = start(vec![port("slow", null::queue(), Box::new(slow)), plain("partner")]);
    assert_eq!(forwarder.tend(), Health::Well, "it has only begun");
    wait_for("it is at the gate", || restart.reached.load(Ordering::Acquire));
    let listing = forwarder.list();
    assert_eq!(
        (listing[0].facts.as_str(), listing[0].partner.as_deref()),
        ("state DOWN starting anew", Some("partner"))
    );
    assert!(forwarder.joins()[0].cores.is_empty(), "its queues are nowhere else");
    assert!(matches!(forwarder.join("slow", "partner"), Err(ForwarderError::Joined { .. })));
    forwarder.add(&spec("null,name=other"), None).unwrap();
    forwarder.delete("other").unwrap();
    assert_eq!(forwarder.tend(), Health::Well);
    restart.open();
    let mut health = Health::Well;
    wait_for("it is back", || {
        health = forwarder.collect();
        health != Health::Well
    });
    assert_eq!(health, Health::Changed { restarted: vec!["port `slow`: is sick".into()], lost: Vec::new() });
    assert!(!forwarder.joins()[0].cores.is_empty(), "its queues are with an engine again");
    assert!(forwarder.stop().problems.is_empty());
}

#[test]
fn what_is_away_can_be_deleted_and_left_behind() {
    for deleted in [true, false] {
        let restart = Arc::new(Gate::default());
        let slow = Slow { sick: Arc::new(AtomicBool::new(true)), restart: Arc::clone(&restart) };
        let mut forwarder = start(vec![port("slow", null::queue(), Box::new(slow)), plain("partner")]);
        assert_eq!(forwarder.tend(), Health::Well);
        if deleted {
            restart.open();
            assert!(forwarder.delete("slow").unwrap().is_empty());
            assert_eq!(forwarder.list().len(), 1);
        }
        // Nobody opens the gate: stopping does not wait for ever.
        assert!(forwarder.stop().problems.is_empty());
        restart.open();
    }
}

#[test]
fn an_engine_that_does_not_answer_is_asked_again() {
    let gate = Arc::new(Gate::default());
    let queue = PortQueue { rx: Box::new(Stuck(Arc::clone(&gate))), ..null::queue() };
    let stuck = port("stuck", queue, Box::new(null::NullControl));
    let mut forwarder = start(vec![stuck, plain("partner")]);
    wait_for("the engine is held up", || gate.reached.load(Ordering::Acquire));
    assert!(matches!(forwarder.delete("stuck"), Err(ForwarderError::Held { .. })));
    assert!(matches!(forwarder.join("stuck", "partner"), Err(ForwarderError::Held { .. })), "its queues are not here");
    assert_eq!(forwarder.check(), Health::Well, "that is no failure");
    gate.open();
    wait_for("the queues come back", || {
        assert_eq!(forwarder.check(), Health::Well);
        forwarder.delete("stuck").is_ok()
    });
    assert_eq!(forwarder.list().len(), 1);
    forwarder.add(&spec("null,name=next"), Some("partner")).unwrap();
    assert!(forwarder.stop().problems.is_empty());
}

#[test]
fn a_back_end_that_does_not_answer_delays_only_who_asked_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, socket) = (folder.path().join("control.sock"), folder.path().join("back-end.sock"));
    let listener = UnixListener::bind(&socket).unwrap();
    let shared = Arc::new(Mutex::new(start(vec![plain("left"), plain("right")])));
    let server = Server::start(&path, None, Methods::new(Arc::clone(&shared))).unwrap();
    let asking = {
        let (path, spec) = (path.clone(), format!("virtio-user={},name=late", socket.display()));
        std::thread::spawn(move || Client::connect(&path).unwrap().call("port.add", json!({ "spec": spec })))
    };
    let (mut back_end, _) = listener.accept().unwrap();
    // The handshake has begun, and is not answered.
    let mut client = Client::connect(&path).unwrap();
    let names = |value: &serde_json::Value| value["ports"].as_array().unwrap().len();
    assert_eq!(names(&client.call("port.list", json!({})).unwrap()), 2);
    client.call("port.add", json!({ "spec": "null,name=next" })).unwrap();
    let taken = client.call("port.add", json!({ "spec": "null,name=late" })).unwrap_err().to_string();
    assert!(taken.contains("there is a port `late` already"), "{taken}");
    assert_eq!(shared.lock().unwrap().tend(), Health::Well);
    assert_eq!(names(&client.call("port.stats", json!({})).unwrap()), 3);
    back_end.write_all(&[0xff; 64]).unwrap();
    let ClientError::Refused(error) = asking.join().unwrap().unwrap_err() else { panic!("it was answered") };
    assert!(error.message.contains("breaks the vhost-user protocol"), "{error}");
    client.call("port.add", json!({ "spec": "null,name=late" })).unwrap();

    // One is still asked for when the forwarder stops.
    let asking = {
        let (path, spec) = (path.clone(), format!("virtio-user={},name=last", socket.display()));
        std::thread::spawn(move || Client::connect(&path).unwrap().call("port.add", json!({ "spec": spec })))
    };
    let (mut back_end, _) = listener.accept().unwrap();
    drop(server);
    assert!(shared.lock().unwrap().halt().problems.is_empty());
    assert!(asking.join().unwrap().is_err());
    assert!(matches!(shared.lock().unwrap().add(&spec("null"), None), Err(ForwarderError::Stopping)));
    back_end.write_all(&[0xff; 64]).unwrap();
}
