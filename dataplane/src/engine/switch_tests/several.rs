//! Several engines that pass packets on to each other.

use super::*;

const HOLD: Duration = Duration::from_millis(400);

/// Two engines, each with its load, that know each other.
fn start(world: &World, pipelines: Vec<Pipeline>, loads: [Load; 2], poll: Poll) -> Vec<Running> {
    let bells = [(); 2].map(|()| Arc::new(Bell::new().unwrap()));
    let parts = pipelines.into_iter().zip(peers(&bells)).zip(loads);
    let engines = parts.zip(bells.iter()).enumerate().map(|(number, (((pipeline, peers), load), bell))| {
        let load = Load { switching: Some(world.switching(pipeline, peers)), ..load };
        world.start(number, load, poll, HOLD, Arc::clone(bell))
    });
    engines.collect()
}

/// Stops them together. What they had, and what they counted.
fn stop(engines: Vec<Running>) -> (Vec<Finished>, Vec<SwitchStatistics>) {
    engines.iter().for_each(Running::ask_to_stop);
    let mut finished: Vec<Finished> = engines.into_iter().map(Running::stop).collect();
    assert!(finished.iter().all(|one| one.panic.is_none() && !one.unfinished), "{finished:?}");
    let statistics = finished.iter_mut().map(|one| one.switching.as_mut().unwrap().pipeline().statistics().clone());
    let statistics = statistics.collect();
    (finished, statistics)
}

#[test]
fn packets_are_passed_on_to_be_switched_and_to_be_sent_and_none_is_lost_between() {
    for poll in [Poll::Always, Poll::Adaptive] {
        let ports = [0, 1, 2].map(Port::new);
        let (mut world, pipelines) = World::new(2, &[1; 3]);
        let flows: Vec<u32> = (0..64).collect();
        let (some, others) = flows.split_at(32);
        world.learn(some, &ports[0], &ports[1]);
        world.learn(others, &ports[0], &ports[2]);
        world.learn(&[100], &ports[1], &ports[2]);
        world.learn(&[101], &ports[1], &ports[1]);
        // A machine whose packets are divided, and a port that is with the other engine.
        let machine = ports[0].input(ports[0].receiver(&flows, true)).spread(true);
        let first = Load { inputs: vec![machine], ..ports[2].exit() };
        let first = together([first, Load { outlets: vec![Outlet::to_engine(PortSlot(1), 1, 1)], ..Load::default() }]);
        let second = ports[1].load(&[100, 101]);
        let second =
            together([second, Load { outlets: vec![Outlet::to_engine(PortSlot(2), 2, 0)], ..Load::default() }]);
        let engines = start(&world, pipelines, [first, second], poll);
        // Bit by bit, so that they sleep in between, and then without end.
        for number in 1..=50 {
            ports[0].feed.supply(64);
            ports[1].feed.supply(2);
            wait_for("all to arrive", || ports[1].sink.taken() + ports[2].sink.taken() == number * 66);
        }
        assert_eq!(ports[1].sink.flows(), [some, &[101]].concat());
        assert_eq!(ports[2].sink.flows(), [others, &[100]].concat());
        ports[0].feed.supply(u64::MAX / 2);
        ports[1].feed.supply(u64::MAX / 2);
        let taken = ports[1].sink.taken();
        wait_for("traffic", || ports[1].sink.taken() > taken + 20_000);
        let (mut finished, statistics) = stop(engines);
        assert_conserved(&ports.each_ref(), &statistics);
        let [first, second] = [0, 1].map(|engine: usize| statistics[engine].flowing);
        assert!(first.matched > 0 && second.matched > 0 && first.passed_on > 0 && second.passed_on > 0);
        let receivers = finished.iter_mut().flat_map(|one| &mut one.receivers);
        assert!(receivers.map(|receiver| receiver.rx.underway()).all(|underway| underway == 0));
    }
}

#[test]
fn a_port_leaves_when_no_engine_has_its_packets() {
    let ports = [0, 1].map(Port::new);
    let (mut world, pipelines) = World::new(2, &[1; 2]);
    world.learn(&[1], &ports[0], &ports[1]);
    let machine = Load {
        inputs: vec![ports[0].input(ports[0].receiver(&[1], true))],
        outlets: vec![Outlet::to_engine(PortSlot(1), 1, 1)],
        ..Load::default()
    };
    ports[1].sink.room.store(0, Ordering::SeqCst);
    let mut engines = start(&world, pipelines, [machine, ports[1].exit()], Poll::Adaptive);
    ports[0].feed.supply(100);
    wait_for("packets", || ports[0].feed.is_used_up());
    // They wait with the other engine, which drops them in the end.
    let mut left = engines[0].remove(&[0]).unwrap();
    assert!(!left.unfinished && left.receivers[0].rx.underway() == 0);
    assert_eq!(ports[1].sent().counters.dropped(DropReason::Full), 100);
    // What leads to a port that leaves goes with it, and what comes for it is dropped.
    assert!(engines[1].remove(&[1]).unwrap().transmitters.len() == 1);
    let receiver = left.receivers.remove(0);
    engines[0].add(Load { inputs: vec![ports[0].input(receiver)], ..Load::default() }).unwrap();
    ports[0].feed.supply(10);
    wait_for("packets", || ports[0].feed.is_used_up());
    assert!(!engines[0].remove(&[0, 1]).unwrap().unfinished);
    let (_, statistics) = stop(engines);
    assert_eq!(dropped(&statistics[1], Reason::NoPort), 10);
    assert_conserved(&ports.each_ref(), &statistics);
}

#[test]
fn a_peer_that_has_ended_holds_up_nobody() {
    let ports = [0, 1].map(Port::new);
    let (mut world, pipelines) = World::new(2, &[1; 2]);
    world.learn(&[1], &ports[0], &ports[1]);
    let outlets = vec![Outlet::to_engine(PortSlot(1), 1, 1)];
    let first = Load { inputs: vec![ports[0].input(ports[0].receiver(&[1], true))], outlets, ..Load::default() };
    ports[1].sink.panics.store(true, Ordering::SeqCst);
    let mut engines = start(&world, pipelines, [first, ports[1].exit()], Poll::Adaptive);
    ports[0].feed.supply(1);
    wait_for("the panic", || engines[1].has_failed());
    let ended = engines.remove(1).stop();
    assert!(ended.panic.is_some());
    ports[0].feed.supply(5000);
    wait_for("packets", || ports[0].feed.is_used_up());
    let mut finished = engines.remove(0).stop();
    assert!(!finished.unfinished);
    let statistics = finished.switching.as_mut().unwrap().pipeline().statistics().clone();
    assert!(statistics.is_balanced());
    assert_eq!(dropped(&statistics, Reason::OutputFull), 5000);
}
