//! Switched ports that fail.

use super::*;
use crate::config::Config;
use crate::network::config::{NetworkConfig, PortConfig};
use crate::port::{MemoryOptions, Opener};

/// A forwarder with these ports on one network.
fn switched(ports: Vec<Port>) -> Forwarder {
    let memory = MemoryOptions { page: hugemem::PageChoice::Size4K, ..MemoryOptions::default() };
    let config = Config::joined(EngineConfig::default(), &CoreList::available().unwrap(), &[], &memory);
    let mut forwarder = Forwarder::empty(config, Opener::new(memory));
    let names: Vec<String> = ports.iter().map(|port| port.name.clone()).collect();
    for port in ports {
        forwarder.insert(port, None, false);
    }
    change(&mut forwarder, |network| {
        network.networks.push(NetworkConfig { name: "blue".into(), ..NetworkConfig::default() });
        network.ports.extend(names.iter().map(|name| named(name)));
        Ok(())
    })
    .unwrap();
    assert!(forwarder.list().iter().all(|port| port.switched));
    forwarder
}

fn named(name: &str) -> PortConfig {
    serde_json::from_value(json!({ "name": name, "network": "blue", "anti-spoofing": false })).unwrap()
}

fn engaged(forwarder: &Forwarder, name: &str) -> bool {
    let id = forwarder.find(name).unwrap();
    forwarder.engines.iter().all(|serving| serving.bonds.iter().any(|bond| bond.contains(id)))
}

#[test]
fn one_that_fails_is_started_anew_and_the_others_go_on() {
    let (sick, restart) = (Arc::new(AtomicBool::new(false)), Arc::new(Gate::default()));
    let slow = Slow { sick: Arc::clone(&sick), restart: Arc::clone(&restart) };
    let mut forwarder = switched(vec![port("slow", null::queue(), Box::new(slow)), plain("other")]);
    sick.store(true, Ordering::Release);
    assert_eq!(forwarder.tend(), Health::Well, "it has only begun");
    wait_for("it is at the gate", || restart.reached.load(Ordering::Acquire));
    assert!(!engaged(&forwarder, "slow") && engaged(&forwarder, "other"));
    assert!(forwarder.list()[0].switched, "it will be again");
    // What names it now is applied while it is away.
    let error = change(&mut forwarder, |network| {
        network.ports.retain(|port| port.name != "slow");
        Ok(())
    });
    error.unwrap();
    let error = change(&mut forwarder, |network| {
        network.ports.push(named("slow"));
        Ok(())
    });
    assert!(error.unwrap_err().to_string().contains("is being started anew; try again in a moment"));
    assert!(engaged(&forwarder, "other"));
    restart.open();
    wait_for("it is back", || forwarder.collect() != Health::Well);
    change(&mut forwarder, |network| {
        network.ports.push(named("slow"));
        Ok(())
    })
    .unwrap();
    assert!(engaged(&forwarder, "slow"));
    sick.store(true, Ordering::Release);
    let health = forwarder.check();
    assert_eq!(health, Health::Changed { restarted: vec!["port `slow`: is sick".into()], lost: Vec::new() });
    assert!(engaged(&forwarder, "slow"), "it has its place in the switch still");
    assert!(forwarder.stop().problems.is_empty());
}

/// A port that fails for good when told to.
struct Doomed(Arc<AtomicBool>);

impl PortControl for Doomed {
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
        if self.0.load(Ordering::Acquire) {
            return Err(PortError::Device { port: "doomed".into(), reason: "is gone".into() });
        }
        Ok(())
    }
    fn stop(&mut self, _: Vec<PortQueue>) -> Result<(), PortError> {
        Ok(())
    }
}

#[test]
fn a_switch_that_lost_its_last_port_takes_others() {
    let gone = Arc::new(AtomicBool::new(false));
    let mut forwarder = switched(vec![port("doomed", null::queue(), Box::new(Doomed(Arc::clone(&gone))))]);
    gone.store(true, Ordering::Release);
    let health = forwarder.check();
    assert_eq!(health, Health::Changed { restarted: Vec::new(), lost: vec!["port `doomed`: is gone".into()] });
    let listing = forwarder.list();
    assert_eq!((listing[0].lost, listing[0].switched), (true, false));
    assert!(forwarder.bonds.is_empty() && forwarder.check() == Health::Well);
    assert!(forwarder.delete("doomed").unwrap().is_empty());
    forwarder.add(&spec("null,name=doomed"), None).unwrap();
    assert!(engaged(&forwarder, "doomed"), "the network names it still");
    assert_eq!(forwarder.stop().problems.len(), 1);
}

#[test]
fn an_engine_that_does_not_answer_gives_a_switched_port_back_later() {
    let gate = Arc::new(Gate::default());
    let queue = PortQueue { rx: Box::new(Stuck(Arc::clone(&gate))), ..null::queue() };
    let stuck = port("stuck", queue, Box::new(null::NullControl));
    let mut forwarder = switched(vec![stuck, plain("other")]);
    wait_for("the engine is held up", || gate.reached.load(Ordering::Acquire));
    assert!(matches!(forwarder.delete("stuck"), Err(ForwarderError::Held { .. })));
    assert_eq!(forwarder.check(), Health::Well, "that is no failure");
    gate.open();
    wait_for("the queues come back", || {
        assert_eq!(forwarder.check(), Health::Well);
        forwarder.delete("stuck").is_ok()
    });
    assert_eq!(forwarder.list().len(), 1);
    assert!(forwarder.engines.iter().all(|serving| serving.owed.is_empty()));
    assert!(forwarder.stop().problems.is_empty());
}
