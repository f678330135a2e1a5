//! Ports for tests of the forwarder.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dataplane::clock::CycleClock;
use dataplane::config::CoreList;
use dataplane::port::{GeneratorSpec, Port, PortControl, PortError, PortKind, PortQueue, PortSpec, Wake};
use drivers::nic::{Counters, LinkStatus, Offloads, RxQueue, TxQueue};
use hugemem::{Batch, Iova, PacketPool, Region};
use rustix::event::{EventfdFlags, eventfd};

/// All cores that the test may use.
pub(crate) fn cores() -> CoreList {
    CoreList::available().unwrap()
}

/// A pool of `count` buffers in ordinary memory.
pub(crate) fn pool(count: usize) -> PacketPool {
    let region = Region::on_heap(count * 2304 + 65_536, Iova::new(0x10_0000)).unwrap();
    region.packets(count, 2048).unwrap()
}

/// A generator port.
pub(crate) fn generator(name: &str, spec: &str) -> Port {
    let PortSpec::Generator(spec) = spec.parse().unwrap() else { panic!("{spec} is no generator") };
    generator_port(name, &spec)
}

fn generator_port(name: &str, spec: &GeneratorSpec) -> Port {
    let pools = (0..spec.queues.unwrap_or(1)).map(|_| pool(512)).collect();
    let (queues, control) = dataplane::port::generator::open(spec, CycleClock::calibrate(), pools);
    port(name, PortKind::Generator, queues, Box::new(control))
}

/// A null port.
pub(crate) fn null(name: &str) -> Port {
    let control = Box::new(dataplane::port::null::NullControl);
    port(name, PortKind::Null, vec![dataplane::port::null::queue()], control)
}

fn port(name: &str, kind: PortKind, queues: Vec<PortQueue>, control: Box<dyn PortControl>) -> Port {
    Port { name: name.into(), kind, mac: None, queues, control, notices: Vec::new() }
}

/// What a scripted port does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Its transmit queue never has room.
    Full,
    /// Its transmit queue takes one packet a call.
    OneAtATime,
    /// Its transmit queue panics.
    Panics,
    /// It has packets when the test supplies them, and can wake.
    Wakes,
}

/// The test's side of a scripted port.
pub(crate) struct Script {
    supplied: AtomicU64,
    wake: OwnedFd,
    armed: AtomicBool,
    was_armed: AtomicBool,
    ill: AtomicBool,
    incurable: AtomicBool,
    stopped: AtomicBool,
}

impl Script {
    /// Lets `packets` packets arrive.
    pub(crate) fn supply(&self, packets: u64) {
        self.supplied.fetch_add(packets, Ordering::SeqCst);
        if self.armed.load(Ordering::SeqCst) {
            rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).unwrap();
        }
    }

    /// Makes the next health check fail.
    pub(crate) fn fall_ill(&self) {
        self.ill.store(true, Ordering::SeqCst);
    }

    /// Makes the next health check fail, and the cure too.
    pub(crate) fn fall_ill_for_good(&self) {
        self.incurable.store(true, Ordering::SeqCst);
        self.fall_ill();
    }

    /// Whether the engine ever asked for a wake-up.
    pub(crate) fn was_armed(&self) -> bool {
        self.was_armed.load(Ordering::SeqCst)
    }

    /// Whether the port was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

struct ScriptedRx {
    script: Arc<Script>,
    taken: u64,
    pool: PacketPool,
    counters: Counters,
}

impl RxQueue for ScriptedRx {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let mut received = 0;
        while self.taken < self.script.supplied.load(Ordering::SeqCst) && batch.room() > 0 {
            let mut packet = self.pool.take().expect("buffers come home");
            packet.resize(64).unwrap();
            batch.push(packet).unwrap();
            self.taken += 1;
            received += 1;
        }
        self.counters.packets += received as u64;
        self.counters.bytes += 64 * received as u64;
        received
    }

    fn arm(&mut self) -> bool {
        self.script.armed.store(true, Ordering::SeqCst);
        self.script.was_armed.store(true, Ordering::SeqCst);
        self.taken == self.script.supplied.load(Ordering::SeqCst)
    }

    fn disarm(&mut self) {
        self.script.armed.store(false, Ordering::SeqCst);
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

struct ScriptedTx {
    behaviour: Behaviour,
    counters: Counters,
}

impl TxQueue for ScriptedTx {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let take = match self.behaviour {
            Behaviour::Full => 0,
            Behaviour::OneAtATime | Behaviour::Wakes => 1,
            Behaviour::Panics => panic!("scripted panic"),
        };
        for packet in batch.drain_front(take) {
            self.counters.packets += 1;
            self.counters.bytes += packet.len() as u64;
        }
        take
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

struct ScriptedControl {
    behaviour: Behaviour,
    script: Arc<Script>,
}

impl PortControl for ScriptedControl {
    fn link(&mut self) -> LinkStatus {
        LinkStatus { up: true, ..LinkStatus::default() }
    }

    fn offloads(&self) -> Offloads {
        Offloads::empty()
    }

    fn describe(&mut self) -> String {
        "scripted".into()
    }

    fn check(&mut self) -> Result<(), PortError> {
        if self.script.ill.swap(false, Ordering::SeqCst) {
            return Err(PortError::Device { port: "sick".into(), reason: "scripted illness".into() });
        }
        Ok(())
    }

    fn supply(&self) -> dataplane::port::Supply {
        // It receives nothing that the test does not supply.
        if self.behaviour == Behaviour::Wakes {
            dataplane::port::Supply::Endless
        } else {
            dataplane::port::Supply::Exhausted
        }
    }

    fn statistics(&mut self) -> Vec<(&'static str, u64)> {
        vec![("stops", self.script.is_stopped().into())]
    }

    fn stop(&mut self, queues: Vec<PortQueue>) -> Result<(), PortError> {
        assert_eq!(queues.len(), 1, "all queues come back");
        self.script.stopped.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn restart(&mut self, queues: Vec<PortQueue>, reason: PortError) -> Result<Vec<PortQueue>, PortError> {
        assert_eq!(queues.len(), 1, "all queues come back");
        if self.script.incurable.load(Ordering::SeqCst) {
            self.stop(queues)?;
            return Err(reason);
        }
        Ok(vec![queue(self.behaviour, &self.script)])
    }
}

fn queue(behaviour: Behaviour, script: &Arc<Script>) -> PortQueue {
    let rx = ScriptedRx { script: Arc::clone(script), taken: 0, pool: pool(64), counters: Counters::default() };
    let tx = ScriptedTx { behaviour, counters: Counters::default() };
    let wake = (behaviour == Behaviour::Wakes).then(|| Wake::event(script.wake.try_clone().unwrap()));
    PortQueue { rx: Box::new(rx), tx: Box::new(tx), wake, desk: None }
}

/// A port that does as `behaviour` says, and the test's side of it.
pub(crate) fn scripted(name: &str, behaviour: Behaviour) -> (Port, Arc<Script>) {
    let script = Arc::new(Script {
        supplied: AtomicU64::new(0),
        wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap(),
        armed: AtomicBool::new(false),
        was_armed: AtomicBool::new(false),
        ill: AtomicBool::new(false),
        incurable: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
    });
    let control = Box::new(ScriptedControl { behaviour, script: Arc::clone(&script) });
    (port(name, PortKind::Nic, vec![queue(behaviour, &script)], control), script)
}
