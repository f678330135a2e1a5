//! One engine with a thread of its own.

use super::*;
use crate::switch::{Event, Ticket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const HOLD: Duration = Duration::from_millis(400);

fn bell() -> Arc<Bell> {
    Arc::new(Bell::new().unwrap())
}

fn statistics(finished: &mut Finished) -> SwitchStatistics {
    finished.switching.as_mut().unwrap().pipeline().statistics().clone()
}

#[test]
fn ports_come_and_go_under_load_and_the_sums_are_exact() {
    let ports = [0, 1, 2, 3].map(Port::new);
    let (mut world, switching) = World::of_one();
    world.learn(&[1, 5], &ports[0], &ports[1]);
    world.learn(&[2], &ports[0], &ports[2]);
    world.learn(&[3, 7], &ports[0], &ports[3]);
    world.learn(&[1], &ports[3], &ports[2]);
    let loads = [switching, ports[0].load(&[1, 2, 3, 5, 7]), ports[1].exit(), ports[2].exit()];
    let mut engine = world.start(0, together(loads), Poll::Always, HOLD, bell());
    ports[0].feed.supply(u64::MAX / 2);
    ports[3].feed.supply(u64::MAX / 2);
    let mut guest = ports[3].load(&[1]);
    for _ in 0..30 {
        let (taken, given) = (ports[3].sink.taken(), ports[3].feed.received.load(Ordering::SeqCst));
        engine.add(guest).unwrap();
        wait_for("traffic", || {
            ports[3].sink.taken() > taken + 100 && ports[3].feed.received.load(Ordering::SeqCst) > given + 100
        });
        let Finished { mut receivers, mut transmitters, unfinished, switching, .. } = engine.remove(&[3]).unwrap();
        assert!(!unfinished && switching.is_none());
        assert_eq!((receivers.len(), transmitters.len()), (1, 1));
        let (receiver, transmitter) = (receivers.remove(0), transmitters.remove(0));
        assert_eq!(ports[3].cells.read().rx_total().counters.packets, receiver.rx.counters().packets);
        assert_eq!(ports[3].sent().counters.packets, transmitter.tx.counters().packets);
        guest = Load {
            inputs: vec![ports[3].input(receiver)],
            senders: vec![ports[3].sender(transmitter)],
            outlets: vec![ports[3].outlet()],
            ..Load::default()
        };
        let others = ports[1].sink.taken();
        wait_for("the others' traffic", || ports[1].sink.taken() > others);
    }
    let mut finished = engine.stop();
    assert!(finished.panic.is_none() && !finished.unfinished, "{finished:?}");
    assert_eq!((finished.receivers.len(), finished.transmitters.len()), (1, 3));
    let statistics = statistics(&mut finished);
    assert!(dropped(&statistics, Reason::NoPort) > 0, "while there was no port 3");
    assert_conserved(&ports.each_ref(), &[statistics]);
}

#[test]
fn a_port_leaves_when_nobody_has_its_packets_any_more() {
    let ports = [0, 1].map(Port::new);
    let (mut world, switching) = World::of_one();
    world.learn(&[1], &ports[0], &ports[1]);
    let machine = Load { inputs: vec![ports[0].input(ports[0].receiver(&[1], true))], ..Load::default() };
    ports[1].sink.room.store(0, Ordering::SeqCst);
    let loads = [switching, machine, ports[1].exit()];
    let mut engine = world.start(0, together(loads), Poll::Adaptive, HOLD, bell());
    ports[0].feed.supply(100);
    wait_for("packets", || ports[0].feed.is_used_up());
    let mut left = engine.remove(&[0]).unwrap();
    assert!(!left.unfinished && left.transmitters.is_empty());
    assert_eq!(left.receivers[0].rx.underway(), 0, "they lay in memory that goes with the port");
    assert_eq!(ports[1].sent().counters.dropped(DropReason::Full), 100);
    // And once more, with somebody who takes them meanwhile.
    let receiver = left.receivers.remove(0);
    engine.add(Load { inputs: vec![ports[0].input(receiver)], ..Load::default() }).unwrap();
    ports[0].feed.supply(100);
    wait_for("packets", || ports[0].feed.is_used_up());
    ports[1].sink.room.store(u64::MAX, Ordering::SeqCst);
    let mut left = engine.remove(&[0]).unwrap();
    assert!(!left.unfinished && left.receivers[0].rx.underway() == 0);
    let mut finished = engine.stop();
    assert!(!finished.unfinished);
    assert_conserved(&ports.each_ref(), &[statistics(&mut finished)]);
}

#[test]
fn a_port_whose_queue_is_stuck_leaves_with_what_waits_dropped() {
    let ports = [0, 1].map(Port::new);
    let (mut world, switching) = World::of_one();
    world.learn(&[1], &ports[0], &ports[1]);
    ports[1].sink.room.store(0, Ordering::SeqCst);
    let loads = [switching, ports[0].load(&[1]), ports[1].exit()];
    // They may wait for longer than a port may take to leave.
    let mut engine = world.start(0, together(loads), Poll::Adaptive, Duration::from_secs(60), bell());
    ports[0].feed.supply(100);
    wait_for("packets", || ports[0].feed.is_used_up());
    let left = engine.remove(&[1]).unwrap();
    assert!(left.unfinished && left.receivers.is_empty() && left.transmitters.len() == 1);
    assert_eq!(ports[1].sent().counters.dropped(DropReason::Stopped), 100);
    let mut finished = engine.stop();
    assert_conserved(&ports.each_ref(), &[statistics(&mut finished)]);
}

/// Waits for the engine to have nothing to do with that port's packets any more.
fn wait_for_sleep(port: &Port) {
    wait_for("sleep", || port.feed.is_used_up() && port.feed.armed.load(Ordering::SeqCst));
}

/// The next packet that comes up. Control sleeps until there is one.
fn next_ticket(world: &mut World) -> Ticket {
    loop {
        world.bell.lie_down();
        if let Some(event) = world.desks[0].next_event() {
            world.bell.get_up();
            let Event::Upcall(ticket) = event else { panic!("{event:?}") };
            return ticket;
        }
        let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&*world.bell, PollFlags::IN)], Some(&limit)), Ok(1), "nobody called");
        world.bell.get_up();
    }
}

#[test]
fn a_sleeping_engine_wakes_for_what_control_sends() {
    let ports = [0, 1].map(Port::new);
    let (mut world, switching) = World::of_one();
    let loads = [switching, ports[0].load(&[1]), ports[1].exit()];
    let wakes = bell();
    let engine = world.start(0, together(loads), Poll::Adaptive, HOLD, Arc::clone(&wakes));
    // Were the bell not heard, each of these would wait for the end of a sleep of a second.
    let deadline = Instant::now() + Duration::from_secs(45);
    for number in 1..=100 {
        wait_for_sleep(&ports[0]);
        ports[0].feed.supply(1);
        let ticket = next_ticket(&mut world);
        wait_for_sleep(&ports[0]);
        world.desks[0].inject(ticket, action(&ports[1]), None);
        wakes.call();
        wait_for("the packet", || ports[1].sink.taken() == number);
    }
    assert!(Instant::now() < deadline, "it slept on");
    let mut finished = engine.stop();
    let statistics = statistics(&mut finished);
    assert_eq!((statistics.flowing.raised, statistics.flowing.returned), (100, 100));
    assert_conserved(&ports.each_ref(), &[statistics]);
}

#[test]
fn packets_that_wait_for_their_flow_go_on_in_order_when_it_is_there() {
    let ports = [0, 1].map(Port::new);
    let (mut world, switching) = World::of_one();
    let loads = [switching, ports[0].load(&[1]), ports[1].exit()];
    let wakes = bell();
    let engine = world.start(0, together(loads), Poll::Adaptive, HOLD, Arc::clone(&wakes));
    for number in 1..=20 {
        ports[0].feed.supply(1);
        let ticket = next_ticket(&mut world);
        let index = world.writer.insert(&ticket.key, &action(&ports[1]), FlowState::Pending(1), cycles()).unwrap();
        // These find a flow that is not there yet.
        ports[0].feed.supply(3);
        wait_for_sleep(&ports[0]);
        assert_eq!(ports[1].sink.taken(), 4 * (number - 1));
        world.desks[0].inject(ticket, action(&ports[1]), Some(index));
        world.desks[0].activate(index);
        wakes.call();
        wait_for("the packets", || ports[1].sink.taken() == 4 * number && world.desks[0].is_settled());
        world.writer.remove(index).unwrap();
    }
    let mut finished = engine.stop();
    let statistics = statistics(&mut finished);
    assert_eq!((statistics.flowing.raised, statistics.flowing.waited), (20, 60));
    assert_conserved(&ports.each_ref(), &[statistics]);
}

#[test]
fn a_panic_gives_everything_back() {
    let ports = [0, 1].map(Port::new);
    let (mut world, switching) = World::of_one();
    world.learn(&[1], &ports[0], &ports[1]);
    ports[1].sink.panics.store(true, Ordering::SeqCst);
    let loads = [switching, ports[0].load(&[1]), ports[1].exit()];
    let engine = world.start(0, together(loads), Poll::Adaptive, HOLD, bell());
    ports[0].feed.supply(10);
    wait_for("the panic", || engine.has_failed());
    let finished = engine.stop();
    assert_eq!(finished.panic.as_deref(), Some("the queue panics"));
    assert_eq!((finished.receivers.len(), finished.transmitters.len()), (1, 2));
    assert!(finished.switching.is_some());
    // The table's writer does not wait for it.
    let index = world.writer.flows(0).next().unwrap().0;
    assert!(world.writer.remove(index).is_some());
    world.writer.collect();
    assert_eq!(world.writer.usage().waiting, 0);
}
