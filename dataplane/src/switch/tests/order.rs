//! First packets are neither lost nor overtaken.

use std::collections::{HashMap, VecDeque};

use super::*;

/// A small generator of numbers that repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Engines, control, and what flows have sent and got.
struct Scene {
    writer: Writer,
    engines: Vec<(Pipeline, Desk, Outputs)>,
    pool: PacketPool,
    random: Random,
    /// Activations that control puts off: the flow, and the time.
    late: VecDeque<(FlowIndex, u64)>,
    now: u64,
    next: HashMap<u32, u32>,
    got: u64,
    wide: bool,
}

impl Scene {
    fn new(engines: usize, seed: u64, wide: bool) -> Self {
        let (writer, readers) = Writer::new(200_000, engines).unwrap();
        let engines = readers.into_iter().map(|reader| {
            let (pipeline, desk) = Pipeline::new(reader, Arc::new(layout()), pool(8192), &options());
            (pipeline, desk, Outputs::new(8, 16384))
        });
        Self {
            writer,
            engines: engines.collect(),
            pool: pool(8192),
            random: Random(seed),
            late: VecDeque::new(),
            now: SECOND,
            next: HashMap::new(),
            got: 0,
            wide,
        }
    }

    /// Packets of an engine that are neither out nor dropped.
    fn underway(&self, engine: usize) -> u64 {
        let flowing = self.engines[engine].0.statistics().flowing;
        flowing.raised - flowing.returned + flowing.held
    }

    fn send(&mut self, engine: usize, packets: &[(u32, u32)]) {
        let mut batch = Batch::new(128);
        for (flow, number) in packets {
            let mut packet = self.pool.take().unwrap();
            packet.write(&numbered(*flow, *number)).unwrap();
            batch.push(packet).unwrap();
        }
        let (pipeline, _, outputs) = &mut self.engines[engine];
        while pipeline.attend(self.now, outputs) {}
        pipeline.run(&mut batch, PortSlot(0), self.now, outputs);
        self.collect(engine);
    }

    fn attend(&mut self, engine: usize) {
        let (pipeline, _, outputs) = &mut self.engines[engine];
        while pipeline.attend(self.now, outputs) {}
        self.collect(engine);
    }

    /// Looks at what came out: nothing is missing before anything.
    fn collect(&mut self, engine: usize) {
        let Self { engines, next, got, .. } = self;
        engines[engine].2.drain(|port, batch| {
            assert_eq!(port, PortSlot(1));
            for packet in batch.drain_front(usize::MAX) {
                let (flow, number) = number_of(packet.bytes());
                let expected = next.entry(flow).or_default();
                assert_eq!(number, *expected, "of flow {flow}");
                *expected += 1;
                *got += 1;
            }
        });
    }

    /// Control works on up to `most` things, and puts off what it can.
    fn control(&mut self, most: u64) {
        let Self { writer, engines, random, late, now, wide, .. } = self;
        let all = (1_u64 << engines.len()) - 1;
        for (engine, (_, desk, _)) in engines.iter_mut().enumerate() {
            for _ in 0..random.below(most + 1) {
                let Some(Event::Upcall(ticket)) = desk.next_event() else { break };
                assert_eq!(ticket.why, Why::Miss);
                let key = if *wide { ticket.key.wide() } else { ticket.key };
                let (index, new) = match writer.find(&key) {
                    Some(index) => (index, false),
                    None => {
                        let state = FlowState::Pending(if *wide { all } else { 1 << engine });
                        (writer.insert(&key, &to(1), state, 0).unwrap(), true)
                    }
                };
                desk.inject(ticket, to(1), Some(index));
                if new {
                    late.push_back((index, *now + random.below(40)));
                }
            }
        }
        while late.front().is_some_and(|(_, when)| when <= now) {
            let (index, _) = late.pop_front().unwrap();
            for (_, desk, _) in engines.iter_mut() {
                desk.activate(index);
            }
        }
        engines.iter_mut().for_each(|(_, desk, _)| {
            desk.flush();
        });
    }

    /// Sends `each` packets of each of `flows` flows, some flows at a time, and checks that all arrive.
    fn play(&mut self, flows: u32, each: u32, window: usize) {
        let mut open: Vec<(u32, u32)> = Vec::new();
        let mut fresh = 0;
        while fresh < flows || !open.is_empty() || self.got < u64::from(flows) * u64::from(each) {
            self.now += 1;
            while open.len() < window && fresh < flows {
                open.push((fresh, 0));
                fresh += 1;
            }
            for engine in 0..self.engines.len() {
                let mut packets = Vec::new();
                if self.underway(engine) < 2000 && self.random.below(4) > 0 {
                    for _ in 0..=self.random.below(128) {
                        if open.is_empty() {
                            break;
                        }
                        let place = self.random.below(open.len() as u64) as usize;
                        // A flow comes to one engine.
                        if open[place].0 as usize % self.engines.len() != engine {
                            continue;
                        }
                        packets.push(open[place]);
                        open[place].1 += 1;
                        if open[place].1 == each {
                            open.swap_remove(place);
                        }
                    }
                }
                self.send(engine, &packets);
            }
            if self.random.below(3) == 0 {
                self.control(200);
            }
            assert!(self.now < SECOND + 1_000_000, "packets are lost: {} came", self.got);
        }
        for round in 0..100 {
            self.now += 1;
            self.control(10);
            for engine in 0..self.engines.len() {
                self.attend(engine);
            }
            if round > 50 {
                assert!(self.engines.iter().all(|(_, desk, _)| desk.is_settled()));
            }
        }
        for (pipeline, ..) in &self.engines {
            assert!(pipeline.statistics().is_balanced(), "{:?}", pipeline.statistics().flowing);
            assert_eq!(pipeline.statistics().dropped(), 0);
            assert!(!pipeline.is_waiting());
        }
        let is_active = |(_, flow): (_, crate::flow::Flow)| flow.state == FlowState::Active;
        assert!(self.writer.flows(0).all(is_active));
    }
}

#[test]
fn no_packet_of_a_hundred_thousand_new_flows_is_lost_or_overtaken() {
    let mut scene = Scene::new(1, 0x1234_5678_9abc_def1, false);
    scene.play(100_000, 4, 300);
    let flowing = scene.engines[0].0.statistics().flowing;
    // Otherwise nothing was tried.
    assert!(flowing.waited > 1000 && flowing.raised > 100_000 && flowing.matched > 10_000, "{flowing:?}");
}

#[test]
fn two_engines_keep_the_order_of_flows_that_share_a_wide_one() {
    // Eight narrow flows make a wide one, every other of them on the same engine.
    let mut scene = Scene::new(2, 77, true);
    scene.play(20_000, 6, 100);
    assert!(scene.engines.iter().all(|(pipeline, ..)| pipeline.statistics().flowing.waited > 100));
}

/// Ends the other thread also when this one panics.
struct Ends<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn order_holds_across_threads() {
    let (writer, mut readers) = Writer::new(20_000, 1).unwrap();
    let (mut pipeline, mut desk) = Pipeline::new(readers.remove(0), Arc::new(layout()), pool(8192), &options());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let _end = Ends(&stop);
        scope.spawn(|| {
            let mut writer = writer;
            let mut random = Random(5);
            while !stop.load(relaxed) {
                if let Some(Event::Upcall(ticket)) = desk.next_event() {
                    let found = writer.find(&ticket.key);
                    let key = ticket.key;
                    let index = found.unwrap_or_else(|| writer.insert(&key, &to(1), FlowState::Pending(1), 0).unwrap());
                    desk.inject(ticket, to(1), Some(index));
                    if found.is_none() {
                        desk.activate(index);
                    }
                } else {
                    std::thread::yield_now();
                }
                desk.flush();
                for _ in 0..random.below(300) {
                    std::hint::spin_loop();
                }
            }
        });
        let mut pool = pool(8192);
        let mut outputs = Outputs::new(2, 16384);
        let mut next: HashMap<u32, u32> = HashMap::new();
        let mut batch = Batch::new(32);
        let (flows, each) = (5_000_u32, 6_u32);
        let (mut sent, mut got) = (0, 0);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while got < flows * each {
            assert!(std::time::Instant::now() < end, "packets are lost: {got} of {sent} came");
            let flowing = pipeline.statistics().flowing;
            while batch.room() > 0 && sent < flows * each && flowing.raised - flowing.returned + flowing.held < 2000 {
                // Sixteen flows take turns.
                let (turn, group) = (sent % 16, sent / 16);
                let mut packet = pool.take().unwrap();
                packet.write(&numbered(group / each * 16 + turn, group % each)).unwrap();
                batch.push(packet).unwrap();
                sent += 1;
            }
            let now = crate::clock::cycles();
            while pipeline.attend(now, &mut outputs) {}
            pipeline.run(&mut batch, PortSlot(0), now, &mut outputs);
            outputs.drain(|_, batch| {
                for packet in batch.drain_front(usize::MAX) {
                    let (flow, number) = number_of(packet.bytes());
                    let expected = next.entry(flow).or_default();
                    assert_eq!(number, *expected, "of flow {flow}");
                    *expected += 1;
                    got += 1;
                }
            });
        }
    });
    assert!(pipeline.statistics().is_balanced());
    assert_eq!(pipeline.statistics().dropped(), 0);
}

#[test]
fn what_finds_no_place_to_wait_is_counted() {
    let mut options = options();
    options.held = 4;
    let mut world = World::with(layout(), &options);
    let frame = numbered(1, 0);
    let index = world.writer.insert(&key(&frame, 0), &to(1), FlowState::Pending(1), 0).unwrap();
    world.run(&[frame.as_slice(); 10], 0);
    assert_eq!(world.drops(Reason::HoldFull), 6);
    world.desk.activate(index);
    world.attend();
    assert_eq!(world.sent().len(), 4);
    assert!(world.desk.is_settled());
    world.run(&[&frame], 0);
    assert_eq!(world.sent().len(), 1);
    world.assert_balanced();
}

#[test]
fn a_flow_pending_elsewhere_is_not_held_here() {
    let mut world = World::new(layout());
    let frame = numbered(1, 0);
    world.writer.insert(&key(&frame, 0), &to(1), FlowState::Pending(0b10), 0).unwrap();
    world.run(&[&frame], 0);
    assert_eq!(world.sent().len(), 1);
}

#[test]
fn what_waits_for_too_long_is_dropped() {
    let mut world = World::new(layout());
    let frame = numbered(1, 0);
    world.writer.insert(&key(&frame, 0), &to(1), FlowState::Pending(1), 0).unwrap();
    world.run(&[frame.as_slice(); 3], 0);
    world.now += SECOND / 2;
    (0..100).for_each(|_| world.attend());
    assert_eq!(world.drops(Reason::HoldTimeout), 0);
    world.now += SECOND;
    (0..100).for_each(|_| world.attend());
    assert_eq!(world.drops(Reason::HoldTimeout), 3);
    assert!(!world.pipeline.is_waiting());
    world.assert_balanced();
}

#[test]
fn a_port_cannot_fill_control_for_others() {
    let mut layout = layout();
    layout.ports[0] = Some(PortFacts { domain: domain(0), underlay: false, mtu: 0, upcalls: 5, share: 1 });
    let mut world = World::new(layout);
    let frames: Vec<Vec<u8>> = (0..20).map(|flow| numbered(flow, 0)).collect();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    world.run(&frames, 0);
    world.run(&frames, 1);
    assert_eq!(world.drops(Reason::UpcallQuota), 15);
    assert_eq!(world.pipeline.statistics().flowing.raised, 25);
    // An answer makes room for another one.
    let ticket = world.ticket();
    world.desk.dismiss(ticket);
    world.attend();
    world.run(&frames[..2], 0);
    assert_eq!(world.drops(Reason::UpcallQuota), 16);
    world.assert_balanced();
}

#[test]
fn without_control_packets_are_dropped_and_counted() {
    let mut options = options();
    options.upcalls = 2;
    let mut world = World::with(layout(), &options);
    let frame = numbered(1, 0);
    world.run(&[frame.as_slice(); 5], 0);
    assert_eq!(world.drops(Reason::UpcallFull), 3);
    let World { pipeline, desk, outputs, pool, .. } = &mut world;
    drop(std::mem::replace(
        desk,
        Pipeline::new(Writer::new(64, 1).unwrap().1.remove(0), Arc::new(layout()), self::pool(8), &self::options()).1,
    ));
    let mut batch = Batch::new(1);
    let mut packet = pool.take().unwrap();
    packet.write(&frame).unwrap();
    batch.push(packet).unwrap();
    pipeline.run(&mut batch, PortSlot(0), SECOND, outputs);
    assert_eq!(world.drops(Reason::NoControl), 1);
    world.assert_balanced();
}
