//! Round by round, in the test's own thread.

use super::*;
use crate::engine::round::{Pace, round};

struct Field {
    roster: Roster,
    pace: Pace,
    now: u64,
}

impl Field {
    fn new(world: &World, load: Load, hold: Duration) -> Self {
        let pace = Pace::new(&EngineConfig { hold, ..EngineConfig::default() }, world.clock);
        Self { roster: Roster::of(load, Counts::default()), pace, now: cycles() }
    }

    /// One round, as a long one would be or as a short one.
    fn round(&mut self, long: bool) {
        self.roster.long = long;
        round(&mut self.roster, &mut self.now, &self.pace);
        self.roster.publish();
    }

    fn statistics(&mut self) -> SwitchStatistics {
        self.roster.switching.as_mut().unwrap().pipeline().statistics().clone()
    }
}

#[test]
fn packets_go_where_their_flows_say_in_order() {
    for long in [false, true] {
        let ports = [0, 1, 2, 3].map(Port::new);
        let (mut world, switching) = World::of_one();
        world.learn(&[1, 4], &ports[0], &ports[1]);
        world.learn(&[2], &ports[0], &ports[2]);
        // Nobody has a queue of port 3.
        world.learn(&[3], &ports[0], &ports[3]);
        world.learn(&[1], &ports[1], &ports[0]);
        let loads = [switching, ports[0].load(&[1, 2, 3, 4]), ports[1].load(&[1]), ports[2].load(&[9])];
        let mut field = Field::new(&world, together(loads), Duration::from_secs(60));
        ports[0].feed.supply(4000);
        ports[1].feed.supply(500);
        for _ in 0..200 {
            field.round(long);
        }
        assert_eq!([1, 2].map(|port: usize| ports[port].sink.flows()), [vec![1, 4], vec![2]]);
        assert_eq!(ports.each_ref().map(|port| port.sink.taken()), [500, 2000, 1000, 0]);
        let statistics = field.statistics();
        assert_eq!(dropped(&statistics, Reason::NoPort), 1000);
        assert_conserved(&ports.each_ref(), &[statistics]);
    }
}

#[test]
fn a_full_queue_drops_its_own_packets_alone_and_keeps_the_first() {
    for long in [false, true] {
        let ports = [0, 1, 2].map(Port::new);
        let (mut world, switching) = World::of_one();
        world.learn(&[1], &ports[0], &ports[1]);
        world.learn(&[2], &ports[0], &ports[2]);
        let loads = [switching, ports[0].load(&[1, 2]), ports[1].exit(), ports[2].exit()];
        let mut field = Field::new(&world, together(loads), Duration::from_secs(60));
        ports[1].sink.room.store(10, Ordering::SeqCst);
        // More than wait in front of a queue, and fewer than the receive queue has buffers for.
        ports[0].feed.supply(1600);
        for _ in 0..100 {
            field.round(long);
        }
        assert_eq!((ports[1].sink.taken(), ports[2].sink.taken()), (10, 800));
        let full = ports[1].sent().counters.dropped(DropReason::Full);
        assert!(full > 0);
        ports[1].sink.room.store(u64::MAX, Ordering::SeqCst);
        for _ in 0..100 {
            field.round(long);
        }
        // Those that came first were kept, and are in order.
        assert_eq!(ports[1].sink.taken() + full, 800);
        assert!(ports[1].sink.next.lock().unwrap()[&1] < 800);
        let statistics = field.statistics();
        assert_conserved(&ports.each_ref(), &[statistics]);
    }
}

#[test]
fn packets_do_not_wait_for_ever() {
    let ports = [0, 1].map(Port::new);
    let (mut world, switching) = World::of_one();
    world.learn(&[1], &ports[0], &ports[1]);
    let loads = [switching, ports[0].load(&[1]), ports[1].exit()];
    let mut field = Field::new(&world, together(loads), Duration::from_millis(2));
    ports[1].sink.room.store(0, Ordering::SeqCst);
    ports[0].feed.supply(100);
    let mut rounds = 0;
    while ports[1].sent().counters.dropped(DropReason::Full) < 100 {
        field.round(false);
        rounds += 1;
        assert!(rounds < 100_000_000, "they wait");
    }
    assert!(rounds > 4, "they waited");
    // The next ones have time of their own.
    ports[0].feed.supply(10);
    field.round(false);
    field.round(false);
    ports[1].sink.room.store(u64::MAX, Ordering::SeqCst);
    field.round(false);
    assert_eq!(ports[1].sink.taken() + ports[1].sent().counters.dropped(DropReason::Full), 110);
    let statistics = field.statistics();
    assert_conserved(&ports.each_ref(), &[statistics]);
}

#[test]
fn what_no_device_reaches_is_made_whole_and_nothing_else() {
    for long in [false, true] {
        let ports = [0, 1, 2, 3].map(Port::new);
        let (mut world, switching) = World::of_one();
        for machine in [0, 1] {
            world.learn(&[1], &ports[machine], &ports[2]);
            world.learn(&[2], &ports[machine], &ports[3]);
        }
        // Port 0 is a machine, port 1 is none. Port 3 has no buffers to make anything of.
        let exits = [
            Load { inputs: vec![ports[0].input(ports[0].receiver(&[1, 2], true))], ..Load::default() },
            Load { inputs: vec![ports[1].input(ports[1].receiver(&[1, 2], false))], ..Load::default() },
            Load {
                senders: vec![
                    ports[2].sender(ports[2].transmitter(false, Some(pool(64)))),
                    ports[3].sender(ports[3].transmitter(false, None)),
                ],
                outlets: vec![ports[2].outlet(), ports[3].outlet()],
                ..switching
            },
        ];
        let mut field = Field::new(&world, together(exits), Duration::from_secs(60));
        ports[0].feed.supply(200);
        for _ in 0..50 {
            field.round(long);
        }
        assert_eq!(ports[2].sink.taken(), 100, "made whole");
        assert_eq!(ports[3].sent().counters.dropped(DropReason::NoBuffer), 100);
        // The numbers begin anew.
        ports.iter().for_each(|port| port.sink.next.lock().unwrap().clear());
        ports[1].feed.supply(200);
        for _ in 0..50 {
            field.round(long);
        }
        assert_eq!(ports[3].sink.taken(), 100, "as they are");
        let statistics = field.statistics();
        assert_conserved(&ports.each_ref(), &[statistics]);
        assert!(!field.roster.inputs[0].source.is_underway());
    }
}

#[test]
fn a_costly_outlet_delays_nobody_else() {
    let ports = [0, 1, 2].map(Port::new);
    let (mut world, switching) = World::of_one();
    world.learn(&[1], &ports[0], &ports[1]);
    world.learn(&[2], &ports[0], &ports[2]);
    let loads = [switching, ports[0].load(&[1, 2]), ports[1].exit(), ports[2].exit()];
    let mut field = Field::new(&world, together(loads), Duration::from_secs(60));
    // A packet takes as long as a round may.
    ports[1].sink.cost.store(world.clock.cycles_in(Duration::from_micros(50)), Ordering::SeqCst);
    // It is found out what it costs.
    ports[0].feed.supply(64);
    while ports[2].sink.taken() < 32 {
        field.round(true);
    }
    let before = ports[1].sink.taken();
    for number in 1..=50 {
        ports[0].feed.supply(32);
        field.round(true);
        assert_eq!(ports[2].sink.taken(), 32 + number * 16, "nothing waits for the costly one");
    }
    let costly = ports[1].sink.taken() - before;
    assert!((25..800).contains(&costly), "it gets its turn: {costly} packets");
}

#[test]
fn a_share_weighs() {
    let ports = [0, 1, 2].map(Port::new);
    let (mut world, mut pipelines) = World::new(1, &[1, 1, 4]);
    world.learn(&[1], &ports[0], &ports[1]);
    world.learn(&[2], &ports[0], &ports[2]);
    let switching = world.switching(pipelines.remove(0), Peers::default());
    let loads = [ports[0].load(&[1, 2]), ports[1].exit(), ports[2].exit()];
    let load = Load { switching: Some(switching), ..together(loads) };
    let mut field = Field::new(&world, load, Duration::from_secs(60));
    for port in &ports {
        port.sink.cost.store(world.clock.cycles_in(Duration::from_micros(20)), Ordering::SeqCst);
    }
    for _ in 0..600 {
        // There is always something for both.
        ports[0].feed.supply(32);
        field.round(true);
    }
    let charged = [1, 2].map(|port| field.roster.accounts.iter().find(|account| account.port == port).unwrap().used);
    let spent = [1, 2].map(|port: usize| ports[port].sink.spent.load(Ordering::SeqCst));
    assert!(charged[0] >= spent[0], "{charged:?} for {spent:?}");
    // A quarter, and what it takes beside sending.
    assert!((spent[1] / 5..spent[1] / 2).contains(&charged[1]), "{charged:?} for {spent:?}");
    assert!(ports.iter().skip(1).all(|port| port.sink.taken() > 0));
}
