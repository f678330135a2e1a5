//! Traces.

use super::*;

fn tracer(filter: TraceFilter) -> (Box<Tracer>, Trace) {
    Tracer::new(&TraceRequest { number: 7, from: PortSlot(0), filter, interval: SECOND, room: 4 })
}

fn told(world: &World, trace: &mut Trace) -> Vec<(bool, Vec<String>)> {
    let packets = std::iter::from_fn(|| trace.packets.pop().ok());
    let words = |traced: Traced| {
        let steps = traced.explained(world.pipeline.layout());
        (traced.came_back, steps.iter().map(|step| format!("{}: {}", step.stage, step.text)).collect())
    };
    packets.map(words).collect()
}

#[test]
fn some_packets_of_a_port_are_followed_as_they_pass() {
    let mut world = World::new(layout());
    world.learn(&numbered(1, 0), 0, &to(1));
    world.learn(&numbered(1, 0), 2, &to(1));
    let (begun, mut trace) = tracer(TraceFilter::default());
    world.desk.begin_trace(begun);
    world.attend();
    // One a second, of this port.
    for _ in 0..3 {
        world.run(&[numbered(1, 0).as_slice(); 5], 0);
        world.run(&[numbered(1, 0).as_slice(); 5], 2);
    }
    let seen = told(&world, &mut trace);
    let [(false, steps)] = &seen[..] else { panic!("{seen:?}") };
    let expected = [
        "parse: IPv4, UDP 10.0.0.0:1001 > 11.0.0.1:2000, ttl 64",
        "look up: flow 0 knows it: to port slot 1",
        "policy: the decision can be carried out",
        "queue: it goes to port slot 1",
    ];
    let steps: Vec<_> = steps.iter().filter(|step| !step.starts_with("sample")).collect();
    assert_eq!(steps, expected);
    // Whether it was followed or not, each packet went its way.
    assert_eq!(world.sent().len(), 30);
    world.now += SECOND;
    world.outputs = Outputs::new(1, 100);
    world.run(&[&numbered(1, 0)], 0);
    let seen = told(&world, &mut trace);
    assert_eq!(seen[0].1.last().unwrap(), &format!("queue: it is dropped: {}", Reason::NoPort), "what really happened");
    world.desk.end_capture(7);
    world.attend();
    let tracer = std::iter::from_fn(|| world.desk.next_event()).find_map(|event| match event {
        Event::Back(Back { tracer, .. }) => tracer,
        Event::Upcall(_) => None,
    });
    drop(tracer.unwrap());
    assert!(trace.packets.is_abandoned());
    world.assert_balanced();
}

#[test]
fn a_packet_is_followed_to_control_and_back() {
    let mut world = World::new(layout());
    let filter = TraceFilter { address: Some([10, 0, 0, 3].into()), protocol: Some(17), port: Some(1003) };
    let (begun, mut trace) = tracer(filter);
    world.desk.begin_trace(begun);
    world.attend();
    // Flow 27 is the one from 10.0.0.3:1003.
    world.run(&[&numbered(1, 0), &numbered(26, 0), &numbered(27, 0)], 0);
    let _ = (world.desk.next_event(), world.desk.next_event());
    let ticket = world.ticket();
    assert_eq!(ticket.packet.bytes(), numbered(27, 0));
    world.desk.inject(ticket, to(3), None);
    world.attend();
    let seen = told(&world, &mut trace);
    let [(false, up), (true, back)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(up.last().unwrap(), "look up: it goes to control: no flow knows it");
    assert_eq!(back.last().unwrap(), "queue: it goes to port slot 3");
    assert_eq!(trace.counters.missed(), 0);
    // A reader that does not keep up misses some.
    for second in 0..10 {
        world.now += SECOND * (second + 1);
        world.run(&[&numbered(27, 0)], 0);
    }
    assert_eq!((told(&world, &mut trace).len(), trace.counters.missed()), (4, 6));
}
