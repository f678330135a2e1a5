//! Captures.

use super::*;

fn request(points: &[Point]) -> CaptureRequest {
    CaptureRequest { number: 1, points: points.to_vec(), port: None, domains: None, bytes: 20 }
}

#[test]
fn packets_are_captured_where_asked_with_the_reason_of_drops() {
    let mut world = World::new(layout());
    let rewrite = crate::flow::Rewrite { source_mac: Some(mac(8)), ..Default::default() };
    world.learn(&numbered(1, 0), 0, &Action { rewrite, ..to(1) });
    world.learn(&numbered(2, 0), 0, &Action::to(Output::Drop(Reason::NoRoute as u8)));
    let points = [Point::Receive, Point::After(Stage::Rewrite), Point::Drop];
    let (tap, mut capture) = Tap::new(&request(&points), pool(16));
    world.desk.begin_capture(tap);
    world.attend();
    world.run(&[&numbered(1, 0), &numbered(2, 0)], 0);
    let mut seen = Vec::new();
    while let Ok(captured) = capture.packets.pop() {
        assert_eq!((captured.packet.len(), captured.len, captured.from), (20, 50, PortSlot(0)));
        seen.push((captured.point, captured.packet.bytes()[11], captured.reason));
    }
    assert_eq!(
        seen,
        [
            (Point::Receive, 1, None),
            (Point::Receive, 1, None),
            (Point::After(Stage::Rewrite), 8, None),
            (Point::Drop, 1, Some(Reason::NoRoute)),
        ]
    );
    assert_eq!((capture.counters.taken(), capture.counters.missed()), (4, 0));
}

#[test]
fn what_comes_back_is_not_received_again() {
    let mut world = World::new(layout());
    let points = [Point::Receive, Point::After(Stage::Parse), Point::After(Stage::LookUp), Point::Deliver];
    let (tap, mut capture) = Tap::new(&request(&points), pool(64));
    world.desk.begin_capture(tap);
    world.attend();
    // One that control decides on, and one behind it that waits for that.
    world.run(&[&numbered(1, 0)], 0);
    let ticket = world.ticket();
    let index = world.writer.insert(&key(&numbered(1, 0), 0), &to(1), FlowState::Pending(1), world.now).unwrap();
    world.run(&[&numbered(1, 1)], 0);
    world.desk.inject(ticket, to(1), Some(index));
    world.desk.activate(index);
    // And one that nobody sent.
    let made = world.packet(&numbered(9, 9));
    world.desk.originate(made, PortSlot(0), domain(0), to(0));
    world.attend();
    assert_eq!(world.sent().len(), 3);
    let mut seen = Vec::new();
    while let Ok(captured) = capture.packets.pop() {
        seen.push(captured.point);
    }
    let times = |point| seen.iter().filter(|other| **other == point).count();
    assert_eq!(points.map(times), [2, 2, 3, 3], "{seen:?}");
}

#[test]
fn a_writer_that_does_not_keep_up_loses_captures_and_nothing_else() {
    let mut world = World::new(layout());
    world.learn(&numbered(1, 0), 0, &to(1));
    let (tap, mut capture) = Tap::new(&request(&[Point::Receive]), pool(5));
    world.desk.begin_capture(tap);
    world.attend();
    world.run(&[numbered(1, 0).as_slice(); 12], 0);
    assert_eq!(world.sent().len(), 12);
    assert_eq!((capture.counters.taken(), capture.counters.missed()), (5, 7));
    world.desk.end_capture(1);
    world.attend();
    let Some(Event::Back(Back { tap: Some(tap), .. })) = world.desk.next_event() else { panic!("no tap") };
    assert_eq!(tap.number(), 1);
    drop(tap);
    assert!(capture.packets.is_abandoned());
    assert!(std::iter::from_fn(|| capture.packets.pop().ok()).count() == 5);
    world.run(&[&numbered(1, 0)], 0);
    assert_eq!(capture.counters.taken(), 5);
}

#[test]
fn a_capture_can_be_of_one_port_and_there_is_room_for_some() {
    let mut world = World::new(layout());
    let mut captures = Vec::new();
    for number in 0..=MOST_TAPS as u32 {
        let port = Some(PortSlot(number as u16));
        let (tap, capture) = Tap::new(&CaptureRequest { number, port, ..request(&[Point::Receive]) }, pool(5));
        world.desk.begin_capture(tap);
        captures.push(capture);
    }
    world.attend();
    let Some(Event::Back(Back { tap: Some(tap), .. })) = world.desk.next_event() else { panic!("no tap") };
    assert_eq!(tap.number(), MOST_TAPS as u32);
    world.run(&[&numbered(1, 0)], 2);
    let taken: Vec<u64> = captures.iter().map(|capture| capture.counters.taken()).collect();
    assert_eq!(taken, [0, 0, 1, 0, 0]);
}

#[test]
fn packets_of_other_domains_take_no_room() {
    let mut world = World::new(layout());
    let domains = Some(vec![domain(2), domain(1)]);
    let (tap, capture) = Tap::new(&CaptureRequest { domains, ..request(&[Point::Receive]) }, pool(2));
    world.desk.begin_capture(tap);
    world.attend();
    for port in [0, 1, 0, 2, 0] {
        world.run(&[&numbered(1, 0)], port);
    }
    assert_eq!((capture.counters.taken(), capture.counters.missed()), (2, 0));
}

#[test]
fn what_leaves_is_captured_where_it_goes_copies_too() {
    let port = |port| Member { target: Target::Port(PortSlot(port)), vlan: crate::flow::VlanRewrite::Keep };
    let sets = vec![vec![port(0), port(1), port(2), port(7)].into()];
    let mut world = World::new(Layout { sets, ..layout() });
    // Of port 7, which is in the set and has no room.
    world.outputs = Outputs::new(4, 4096);
    world.learn(&numbered(1, 0), 0, &to(2));
    world.learn(&numbered(2, 0), 0, &Action::to(Output::Replicate(0)));
    world.learn(&numbered(3, 0), 0, &Action::to(Output::Drop(Reason::NoRoute as u8)));
    world.learn(&numbered(4, 0), 0, &to(6));
    let points = [Point::Deliver, Point::Drop];
    let (tap, mut all) = Tap::new(&request(&points), pool(16));
    world.desk.begin_capture(tap);
    let (tap, mut of_one) =
        Tap::new(&CaptureRequest { number: 2, port: Some(PortSlot(1)), ..request(&points) }, pool(16));
    world.desk.begin_capture(tap);
    world.attend();
    world.run(&[&numbered(1, 0), &numbered(2, 0), &numbered(3, 0), &numbered(4, 0)], 0);
    let seen = |capture: &mut Capture| {
        let mut seen = Vec::new();
        while let Ok(captured) = capture.packets.pop() {
            assert_eq!(captured.from, PortSlot(0));
            seen.push((captured.to.map(|port| port.0), captured.reason));
        }
        seen.sort_by_key(|(to, reason)| (*to, reason.map(|reason| reason as u8)));
        seen
    };
    let expected = [
        (None, Some(Reason::NoRoute)),
        // These two were on their way.
        (None, Some(Reason::NoPort)),
        (None, Some(Reason::NoPort)),
        (Some(1), None),
        (Some(2), None),
        (Some(2), None),
        (Some(6), None),
        (Some(7), None),
    ];
    assert_eq!(seen(&mut all), expected);
    assert_eq!(seen(&mut of_one), [(Some(1), None)]);
    world.assert_balanced();
}
