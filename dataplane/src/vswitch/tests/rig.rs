//! A switch whose engines are the test's own thread: it takes pipelines round by round.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hugemem::{Batch, Iova, PacketPool, Region};

use crate::bell::Bell;
use crate::clock::{CycleClock, cycles};
use crate::network::Config;
use crate::switch::{Outputs, Pipeline, PortSlot, Reason};
use crate::vswitch::{Attached, Handle, MOST_PORTS, Vswitch, VswitchError, VswitchOptions};

/// How long anything may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn pool(count: usize) -> PacketPool {
    Region::on_heap(count * 2304 + 4096, Iova::new(0)).unwrap().packets(count, 2048).unwrap()
}

pub(super) fn config(text: &str) -> Config {
    Config::from_toml(text, Path::new("test.toml")).unwrap()
}

/// One engine, without a thread.
pub(super) struct Turn {
    pub(super) pipeline: Pipeline,
    outputs: Outputs,
    pool: PacketPool,
}

impl Turn {
    fn new(pipeline: Pipeline) -> Self {
        Self { pipeline, outputs: Outputs::new(MOST_PORTS, 2048), pool: pool(8192) }
    }

    /// One round without packets. Gives what came out, by port slot.
    pub(super) fn attend(&mut self) -> Vec<(PortSlot, Vec<u8>)> {
        while self.pipeline.attend(cycles(), &mut self.outputs) {}
        self.sent()
    }

    /// One round with these frames of a port.
    pub(super) fn run(&mut self, from: PortSlot, frames: &[&[u8]]) -> Vec<(PortSlot, Vec<u8>)> {
        let mut sent = self.attend();
        let mut batch = Batch::new(frames.len());
        for frame in frames {
            let mut packet = self.pool.take().expect("the test's pool is large enough");
            packet.write(frame).unwrap();
            batch.push(packet).unwrap();
        }
        self.pipeline.run(&mut batch, from, cycles(), &mut self.outputs);
        sent.extend(self.sent());
        sent
    }

    fn sent(&mut self) -> Vec<(PortSlot, Vec<u8>)> {
        let mut sent = Vec::new();
        self.outputs.drain(|port, batch| {
            for packet in batch.drain_front(usize::MAX) {
                let mut bytes = vec![0; packet.len()];
                crate::whole::read(&packet, 0, &mut bytes);
                sent.push((port, bytes));
            }
        });
        self.pipeline.publish();
        sent
    }

    pub(super) fn drops(&self, reason: Reason) -> u64 {
        self.pipeline.statistics().drops[reason as usize]
    }
}

/// A switch, and its engines in turns.
pub(super) struct Rig {
    pub(super) turns: Vec<Turn>,
    pub(super) handle: Handle,
    pub(super) vswitch: Option<Vswitch>,
    /// What came out and was not asked for yet.
    pub(super) sent: Vec<(PortSlot, Vec<u8>)>,
    next_number: usize,
}

impl Rig {
    pub(super) fn new(engines: usize) -> Self {
        Self::with_flows(engines, 1 << 17)
    }

    pub(super) fn with_flows(engines: usize, flows: u32) -> Self {
        let options = VswitchOptions { engines, flows, clock: CycleClock::calibrate() };
        let bells = (0..engines).map(|_| Arc::new(Bell::new().unwrap())).collect();
        let pools = (0..engines).map(|_| pool(4096)).collect();
        let (vswitch, pipelines) = Vswitch::start(options, bells, pools, pool(1024)).unwrap();
        let turns = pipelines.into_iter().map(Turn::new).collect();
        Self { turns, handle: vswitch.handle(), vswitch: Some(vswitch), sent: Vec::new(), next_number: 100 }
    }

    /// A switch that is configured so, with all ports that are named there attached.
    pub(super) fn configured(engines: usize, text: &str) -> Self {
        let mut rig = Self::new(engines);
        rig.apply(text).unwrap();
        let config = config(text);
        let mut names: Vec<String> = config.ports.iter().map(|port| port.name.clone()).collect();
        names.extend(config.underlay.iter().map(|underlay| underlay.port.clone()));
        names.sort();
        names.dedup();
        for name in names {
            rig.attach(&name).unwrap();
        }
        rig
    }

    /// Flows are forgotten when they were not used for so long, and all are looked at in so long.
    pub(super) fn set_idle(&self, idle: Duration, pass: Duration) {
        let set = self.handle.ask(move |state| {
            state.ageing.set_idle(idle, pass);
            Ok(())
        });
        set.unwrap();
    }

    /// Takes the engines' turns while somebody asks the switch.
    pub(super) fn asking<T: Send + 'static>(&mut self, ask: impl FnOnce(Handle) -> T + Send + 'static) -> T {
        let handle = self.handle.clone();
        let thread = std::thread::spawn(move || ask(handle));
        while !thread.is_finished() {
            self.round();
        }
        thread.join().unwrap()
    }

    pub(super) fn apply(&mut self, text: &str) -> Result<Vec<String>, VswitchError> {
        let config = config(text);
        self.asking(move |handle| handle.apply(config))
    }

    pub(super) fn attach(&mut self, name: &str) -> Result<PortSlot, VswitchError> {
        self.next_number += 1;
        let facts = Attached { number: self.next_number, mtu: 1500, mac: None };
        let name = name.to_owned();
        self.asking(move |handle| handle.attach(&name, facts))
    }

    pub(super) fn slot(&self, name: &str) -> PortSlot {
        let ports = self.handle.statistics().unwrap().ports;
        PortSlot(ports.iter().find(|port| port.name == name).expect("it is attached").slot)
    }

    /// One turn for each engine.
    pub(super) fn round(&mut self) {
        for turn in &mut self.turns {
            self.sent.extend(turn.attend());
        }
        self.vswitch.as_ref().inspect(|vswitch| vswitch.bell().call());
        std::thread::yield_now();
    }

    /// A frame comes from a port, at engine 0.
    pub(super) fn send(&mut self, port: &str, frame: &[u8]) {
        let slot = self.slot(port);
        self.send_at(0, slot, &[frame]);
    }

    pub(super) fn send_at(&mut self, engine: usize, from: PortSlot, frames: &[&[u8]]) {
        let sent = self.turns[engine].run(from, frames);
        self.sent.extend(sent);
        self.vswitch.as_ref().inspect(|vswitch| vswitch.bell().call());
    }

    /// Takes turns till this is true.
    #[track_caller]
    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
            self.round();
        }
    }

    /// The next frame that a port gets.
    #[track_caller]
    pub(super) fn next(&mut self, port: &str) -> Vec<u8> {
        let slot = self.slot(port);
        let mut found = None;
        self.until(&format!("a frame for {port}"), |rig| {
            let place = rig.sent.iter().position(|(to, _)| *to == slot);
            found = place.map(|place| rig.sent.remove(place).1);
            found.is_some()
        });
        found.unwrap()
    }

    /// Takes turns till nothing is on its way any more.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        self.until("everything is done", |rig| {
            let before = rig.sent.len();
            for turn in &mut rig.turns {
                rig.sent.extend(turn.attend());
            }
            let statistics = rig.handle.statistics().unwrap();
            let raised: u64 = rig.turns.iter().map(|turn| turn.pipeline.statistics().flowing.raised).sum();
            let pending = rig.turns.iter().any(|turn| turn.pipeline.is_waiting());
            let done = statistics.control["upcalls"] == raised && !pending && rig.sent.len() == before;
            quiet = if done { quiet + 1 } else { 0 };
            quiet > 3
        });
    }

    /// What came out, by the name of the port, in the order in which it did. Everything is done.
    pub(super) fn taken(&mut self) -> Vec<(String, Vec<u8>)> {
        self.settle();
        let ports = self.handle.statistics().unwrap().ports;
        let name = |slot: PortSlot| ports.iter().find(|port| port.slot == slot.0).map(|port| port.name.clone());
        self.sent.drain(..).map(|(slot, frame)| (name(slot).unwrap_or_else(|| slot.to_string()), frame)).collect()
    }

    /// Names of the ports that got something.
    pub(super) fn reached(&mut self) -> Vec<String> {
        let mut names: Vec<String> = self.taken().into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    pub(super) fn drops(&self, reason: Reason) -> u64 {
        self.turns.iter().map(|turn| turn.drops(reason)).sum()
    }

    #[track_caller]
    pub(super) fn assert_balanced(&self) {
        for turn in &self.turns {
            let statistics = turn.pipeline.statistics();
            assert!(statistics.is_balanced(), "{:?}", statistics.flowing);
        }
    }
}
