//! What each element does.

use hugemem::Foreign;

use super::*;
use crate::flow::{Rewrite, VlanRewrite};
use crate::overlay::{Addresses, Arrival, Encapsulation, Termination, TunnelKind};

fn frame() -> Vec<u8> {
    udp([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"hello, world")
}

/// A tunnel from this host, and what ends it at the other.
fn tunnel(longest: u16) -> (TunnelTo, Termination) {
    let (local, remote) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let encapsulation = Encapsulation {
        kind: TunnelKind::Vxlan,
        vni: 77,
        addresses: Addresses::V4 { local, remote },
        source: mac(10),
        destination: mac(11),
        vlan: None,
        port: 4789,
        hop_limit: 64,
        dscp: None,
        checksum: false,
        mtu: 1600,
    };
    let termination = Termination {
        kind: TunnelKind::Vxlan,
        vni: 77,
        addresses: Addresses::V4 { local: remote, remote: local },
        zero_checksum: false,
        arrival: Arrival { network: 0, tunnel: 9 },
    };
    let tunnel = TunnelTo { template: encapsulation.template().unwrap(), port: UNDERLAY, longest };
    (tunnel, termination)
}

#[test]
fn a_known_flow_goes_to_its_port_and_is_counted() {
    let mut world = World::new(layout());
    let index = world.learn(&frame(), 0, &to(1));
    for size in 1..=128 {
        let frame = frame();
        world.run(&vec![frame.as_slice(); size], 0);
        assert_eq!(world.sent(), vec![(1, frame); size]);
    }
    let counts = world.writer.get(index).unwrap().counts;
    assert_eq!((counts.packets, counts.bytes), (8256, 8256 * frame().len() as u64));
    assert_eq!(world.pipeline.statistics().flowing.received, 8256);
    world.assert_balanced();
}

#[test]
fn a_batch_larger_than_the_pipelines_goes_through_in_pieces() {
    let mut world = World::new(layout());
    world.learn(&frame(), 0, &to(1));
    world.run(&vec![frame().as_slice(); 300], 0);
    assert_eq!(world.sent().len(), 300);
}

#[test]
fn the_same_frame_from_another_port_is_another_flow() {
    let mut world = World::new(layout());
    world.learn(&frame(), 0, &to(1));
    world.run(&[&frame()], 2);
    assert!(world.sent().is_empty());
    let ticket = world.ticket();
    assert_eq!((ticket.from, ticket.domain, ticket.why), (PortSlot(2), domain(2), Why::Miss));
    assert_eq!(ticket.key, key(&frame(), 2));
}

#[test]
fn what_makes_no_sense_is_dropped_by_name() {
    let mut world = World::new(layout());
    let mut bad = frame();
    bad[14] = 0x65;
    world.run(&[&bad, &[0; 5], &frame()], 0);
    assert_eq!(world.drops(Reason::Malformed), 2);
    let malformed = world.pipeline.statistics().malformed;
    assert_eq!(malformed[crate::headers::Malformed::Runt.number()], 1);
    assert_eq!(malformed[crate::headers::Malformed::BadVersion.number()], 1);
    world.assert_balanced();
}

#[test]
fn actions_that_drop_and_ports_that_are_gone_have_their_counters() {
    let mut world = World::new(layout());
    world.learn(&numbered(1, 0), 0, &Action::to(Output::Drop(Reason::NoRoute as u8)));
    world.learn(&numbered(2, 0), 0, &to(99));
    world.learn(&numbered(3, 0), 0, &Action::to(Output::Tunnel(5)));
    world.learn(&numbered(4, 0), 0, &Action::to(Output::Replicate(5)));
    for flow in 1..=4 {
        world.run(&[&numbered(flow, 0)], 0);
    }
    world.run(&[&frame()], 7);
    assert_eq!((world.drops(Reason::NoRoute), world.drops(Reason::NoPort)), (1, 4));
    world.assert_balanced();
}

#[test]
fn a_full_output_is_counted() {
    let mut world = World::new(layout());
    world.outputs = Outputs::new(2, 3);
    world.learn(&frame(), 0, &to(1));
    world.run(&[frame().as_slice(); 5], 0);
    assert_eq!((world.sent().len(), world.drops(Reason::OutputFull)), (3, 2));
    world.assert_balanced();
}

#[test]
fn control_sends_a_packet_back_and_makes_its_own() {
    let mut world = World::new(layout());
    world.run(&[&frame()], 0);
    let ticket = world.ticket();
    assert!(!world.desk.is_settled() || world.pipeline.statistics().flowing.raised == 1);
    world.desk.inject(ticket, to(3), None);
    let own = world.packet(&numbered(7, 7));
    world.desk.originate(own, PortSlot(0), domain(0), to(0));
    world.attend();
    let mut sent = world.sent();
    sent.sort();
    assert_eq!(sent, [(0, numbered(7, 7)), (3, frame())]);
    assert_eq!(world.pipeline.cells().with_control.snapshot().count(), 1);
    assert!(world.desk.is_settled());
    world.assert_balanced();
}

#[test]
fn some_actions_send_every_packet_up() {
    let mut world = World::new(layout());
    world.learn(&numbered(1, 0), 0, &Action::to(Output::Up));
    world.learn(&numbered(2, 0), 0, &Action::to(Output::Local));
    world.run(&[&numbered(1, 0), &numbered(2, 0)], 0);
    let (first, second) = (world.ticket(), world.ticket());
    assert_eq!((first.why, second.why), (Why::Asked, Why::Local));
    assert_eq!(first.packet.bytes(), numbered(1, 0));
}

#[test]
fn a_meter_lets_its_rate_through() {
    let mut world = World::new(layout());
    world.learn(&frame(), 0, &Action { meter: 3, ..to(1) });
    world.desk.set_meter(3, Rate { packets: 10, burst_packets: 4, ..Rate::default() });
    world.attend();
    world.run(&[frame().as_slice(); 10], 0);
    assert_eq!((world.sent().len(), world.drops(Reason::RateLimited)), (4, 6));
    world.now += SECOND / 5;
    world.run(&[frame().as_slice(); 10], 0);
    assert_eq!(world.sent().len(), 2);
    world.assert_balanced();
}

#[test]
fn routing_changes_addresses_and_counts_a_hop() {
    let mut world = World::new(layout());
    let rewrite = Rewrite {
        source_mac: Some(mac(8)),
        destination_mac: Some(mac(9)),
        decrement_ttl: true,
        vlan: VlanRewrite::Push(0x2005),
        ..Rewrite::default()
    };
    let action = Action { rewrite, ..to(1) };
    world.learn(&frame(), 0, &action);
    let mut last = numbered(1, 0);
    last[22] = 1;
    world.learn(&last, 0, &action);
    world.run(&[&frame(), &last], 0);
    let sent = world.sent().remove(0).1;
    assert_eq!(sent[..16], [&mac(9).0[..], &mac(8).0, &[0x81, 0, 0x20, 5]].concat());
    assert_eq!(sent[26], 63);
    assert_eq!(slow_sum(&sent[18..38]), 0xffff);
    assert_eq!(sent[18 + 20..], frame()[34..]);
    // It goes to control as it came.
    let ticket = world.ticket();
    assert_eq!(ticket.why, Why::TimeExceeded);
    assert_eq!(ticket.packet.bytes(), last);
}

#[test]
fn a_tag_in_the_metadata_counts_as_one_in_the_frame() {
    let mut world = World::new(layout());
    let mut tagged = frame();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    world.learn(&tagged, 0, &Action { rewrite: Rewrite { vlan: VlanRewrite::Pop, ..Rewrite::default() }, ..to(1) });
    let mut packet = world.packet(&frame());
    packet.metadata_mut().vlan = Some(7);
    let mut batch = Batch::new(1);
    batch.push(packet).unwrap();
    world.pipeline.run(&mut batch, PortSlot(0), 0, &mut world.outputs);
    world.run(&[&tagged, &frame()], 0);
    assert_eq!(world.sent(), vec![(1, frame()); 2]);
}

#[test]
fn a_frame_goes_through_a_tunnel_to_another_host() {
    let (tunnel, termination) = tunnel(1550);
    let mut here = World::new(Layout { tunnels: vec![tunnel], ..layout() });
    let mut there = World::new(Layout { terminations: crate::overlay::Terminations::new([termination]), ..layout() });
    here.learn(&frame(), 0, &Action::to(Output::Tunnel(0)));
    here.run(&[&frame()], 0);
    let (port, outer) = here.sent().remove(0);
    assert_eq!(port, UNDERLAY.0);
    assert_eq!(outer.len(), frame().len() + 50);
    let inner = FlowKey::of(&parse(&frame(), frame().len()), &frame(), Domain::tunnel(9));
    there.writer.insert(&inner, &to(2), FlowState::Active, 0).unwrap();
    let stray = numbered(1, 0);
    there.run(&[&outer, &stray], UNDERLAY.0);
    assert_eq!(there.sent(), [(2, frame())]);
    let ticket = there.ticket();
    assert_eq!((ticket.why, ticket.domain), (Why::Underlay, domain(4)));
    // The same from a virtual machine is an ordinary datagram.
    there.run(&[&outer], 0);
    assert_eq!(there.ticket().why, Why::Miss);
    // Nobody here ends that tunnel.
    here.run(&[&outer], UNDERLAY.0);
    assert_eq!(here.drops(Reason::UnknownTunnel), 1);
    here.assert_balanced();
    there.assert_balanced();
}

#[test]
fn what_does_not_fit_a_tunnel_goes_to_control() {
    let (tunnel, _) = tunnel(54);
    let mut world = World::new(Layout { tunnels: vec![tunnel], ..layout() });
    let long = udp([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"hello, world!");
    world.learn(&frame(), 0, &Action::to(Output::Tunnel(0)));
    world.run(&[&frame(), &long], 0);
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.ticket().why, Why::TooBig(54));
}

#[test]
fn a_set_gets_copies_and_who_sent_does_not() {
    let (tunnel, _) = tunnel(1550);
    let member = |target| Member { target, vlan: VlanRewrite::Keep };
    let tagged = Member { target: Target::Port(PortSlot(3)), vlan: VlanRewrite::Push(5) };
    let ports = [0, 1, 2].map(|slot| member(Target::Port(PortSlot(slot))));
    let set = [&ports[..], &[tagged, member(Target::Tunnel(0))]].concat();
    let only_sender = vec![member(Target::Port(PortSlot(0)))];
    let mut world = World::new(Layout {
        tunnels: vec![tunnel],
        sets: vec![set.into_boxed_slice(), only_sender.into_boxed_slice()],
        ..layout()
    });
    world.learn(&frame(), 0, &Action::to(Output::Replicate(0)));
    world.learn(&numbered(1, 0), 0, &Action::to(Output::Replicate(1)));
    world.run(&[&frame(), &numbered(1, 0)], 0);
    let sent = world.sent();
    let ports: Vec<_> = sent.iter().map(|(port, frame)| (*port, frame.len() - self::frame().len())).collect();
    assert_eq!(ports, [(1, 0), (2, 0), (3, 4), (4, 50)]);
    assert_eq!(sent[0].1, frame());
    assert_eq!(world.drops(Reason::Filtered), 1);
    assert_eq!(world.pipeline.statistics().flowing.copied, 3);
    world.assert_balanced();
}

/// Packets of one flow may have different actions in one batch: some come back from control with the one that was right when they came.
#[test]
fn copies_and_what_goes_to_one_port_keep_their_order() {
    let member = |slot| Member { target: Target::Port(PortSlot(slot)), vlan: VlanRewrite::Keep };
    let sets = vec![vec![member(1), member(2)].into_boxed_slice(), vec![member(2), member(1)].into_boxed_slice()];
    let mut world = World::new(Layout { sets, ..layout() });
    let outputs = [Output::Port(1), Output::Replicate(0), Output::Replicate(1), Output::Port(2), Output::Replicate(0)];
    let frames: Vec<_> = (0..5).map(|number| numbered(number, 0)).collect();
    for (frame, output) in frames.iter().zip(outputs) {
        world.learn(frame, 0, &Action::to(output));
    }
    world.run(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>(), 0);
    let sent = world.sent();
    let of = |port| sent.iter().filter(move |(to, _)| *to == port).map(|(_, frame)| frame.clone()).collect::<Vec<_>>();
    assert_eq!(of(1), [0, 1, 2, 4].map(|number: usize| frames[number].clone()));
    assert_eq!(of(2), [1, 2, 3, 4].map(|number: usize| frames[number].clone()));
    world.assert_balanced();
}

#[test]
fn copies_are_bounded_and_need_buffers() {
    let members: Vec<_> =
        (0..40).map(|_| Member { target: Target::Port(PortSlot(1)), vlan: VlanRewrite::Keep }).collect();
    let mut world = World::new(Layout { sets: vec![members.into_boxed_slice()], ..layout() });
    world.learn(&frame(), 0, &Action::to(Output::Replicate(0)));
    world.run(&vec![frame().as_slice(); 128], 0);
    assert_eq!(world.sent().len(), 1024 + 128);
    assert_eq!(world.drops(Reason::TooManyCopies), 39 * 128 - 1024);
    world.assert_balanced();
    // What came out before has gone home: the pool holds 2048.
    world.outputs = Outputs::new(8, 1 << 16);
    (0..3).for_each(|_| world.run(&vec![frame().as_slice(); 100], 0));
    assert_eq!(world.drops(Reason::NoBuffer), 1024);
    world.assert_balanced();
}

#[test]
fn mirrored_packets_are_copied_as_they_came() {
    let mirrors =
        std::array::from_fn(|number| [None, Some(PortSlot(3)), Some(PortSlot(2))].get(number).copied().flatten());
    let mut world = World::new(Layout { mirrors, ..layout() });
    world.outputs = Outputs::new(4, 5);
    let rewrite = Rewrite { destination_mac: Some(mac(9)), ..Rewrite::default() };
    // Number 0 and 5 have no port.
    world.learn(&frame(), 0, &Action { mirror: 0b10_0111, rewrite, ..to(1) });
    world.run(&[&frame()], 0);
    let mut sent = world.sent();
    sent.sort();
    assert_eq!(sent[1..], [(2, frame()), (3, frame())]);
    assert_eq!(sent[0].1[..6], mac(9).0);
    // Mirrors that are full lose copies, and nothing else is lost.
    world.learn(&numbered(1, 0), 0, &Action { mirror: 0b10, ..to(3) });
    world.learn(&numbered(2, 0), 0, &Action { mirror: 0b10, ..to(1) });
    let (first, second) = (numbered(1, 0), numbered(2, 0));
    world.run(&[&first, &first, &second, &second], 0);
    assert_eq!(world.drops(Reason::OutputFull), 1);
    assert_eq!(world.sent().iter().filter(|(port, _)| *port == 1).count(), 2);
    world.assert_balanced();
}

#[test]
fn one_packet_of_each_timed_batch_tells_how_long_it_took() {
    let mut world = World::new(layout());
    world.learn(&frame(), 0, &to(1));
    for _ in 0..65 {
        world.now = crate::clock::cycles();
        world.run(&[frame().as_slice(); 10], 0);
    }
    let through = world.pipeline.cells().through.snapshot();
    // Of 16 batches, the first one.
    assert_eq!(through.count(), 5);
    assert!(through.sum() > 0);
    let sample = world.pipeline.statistics().stages[Stage::Sample as usize];
    assert_eq!((sample.batches, sample.packets), (5, 5));
}

#[test]
fn a_coprocessor_gets_packets_once_and_gives_them_back() {
    let mut world = World::new(layout());
    let rewrite = Rewrite { decrement_ttl: true, ..Rewrite::default() };
    world.learn(&frame(), 0, &Action { coprocessors: [7, 0], meter: 1, rewrite, ..to(1) });
    let (rings, mut end) = CoprocessorRings::new(7, pool(4), bell());
    world.desk.attach_coprocessor(rings);
    world.desk.set_meter(1, Rate { packets: 1, burst_packets: 6, ..Rate::default() });
    world.attend();
    world.run(&[frame().as_slice(); 7], 0);
    assert!(world.sent().is_empty());
    assert_eq!((world.drops(Reason::RateLimited), world.drops(Reason::CoprocessorFull)), (1, 2));
    while let Ok(handed) = end.packets.pop() {
        assert_eq!(handed.packet.bytes(), frame());
        end.back.push(handed).unwrap();
    }
    world.attend();
    let sent = world.sent();
    assert_eq!(sent.len(), 4);
    assert_eq!(sent[0].1[22], 63);
    world.desk.detach_coprocessor(7);
    world.attend();
    assert!(matches!(world.desk.next_event(), Some(Event::Back(Back { coprocessor: Some(_), .. }))));
    world.run(&[&frame()], 0);
    world.assert_balanced();
}

#[test]
fn a_packet_that_outlives_its_batch_is_made_whole() {
    let mut world = World::new(layout());
    let frame = udp([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), &[7; 1000]);
    let payload: Vec<u8> = frame[128..].to_vec();
    let region = Region::on_heap(1 << 14, Iova::new(0)).unwrap();
    let mut pool = region.packets_with_foreign(2, 256, 2).unwrap();
    pool.sweep(|_| ());
    let mut packet = pool.take().unwrap();
    packet.write(&frame[..128]).unwrap();
    let address = std::ptr::NonNull::from(payload.as_slice()).cast();
    #[expect(unsafe_code, reason = "a piece of somebody else's memory")]
    // SAFETY: `payload` outlives the packet, and nobody writes to it.
    let piece = unsafe { Foreign::new(address, payload.len() as u32) };
    assert!(packet.attach(piece));
    let mut batch = Batch::new(1);
    batch.push(packet).unwrap();
    world.pipeline.run(&mut batch, PortSlot(0), 0, &mut world.outputs);
    let ticket = world.ticket();
    assert!(ticket.packet.foreign().is_empty());
    assert_eq!(ticket.packet.bytes(), frame);
    pool.sweep(|_| ());
    assert_eq!(pool.available(), 2);
}

#[test]
fn a_new_table_holds_from_one_batch_to_the_next() {
    let mut world = World::new(layout());
    world.learn(&frame(), 0, &to(1));
    world.writer.begin(1024).unwrap();
    while world.writer.step(100, |_, _| crate::flow::Fate::Go).unwrap() != crate::flow::Progress::Ready {}
    let change = world.writer.commit().unwrap();
    world.run(&[&frame()], 0);
    assert_eq!(world.sent().len(), 1);
    world.desk.adopt(Some(change.table.clone()), None);
    world.attend();
    world.run(&[&frame()], 0);
    assert!(world.sent().is_empty());
    assert!(matches!(world.desk.next_event(), Some(Event::Back(Back { table: Some(_), .. }))));
    assert_eq!(world.ticket().why, Why::Miss);
}

#[test]
fn an_explanation_goes_element_by_element() {
    let mut world = World::new(layout());
    let rewrite = Rewrite { source_mac: Some(mac(8)), decrement_ttl: true, ..Rewrite::default() };
    let index = world.learn(&frame(), 0, &Action { rewrite, ..to(1) });
    let packet = world.packet(&frame());
    let steps = world.pipeline.explain(packet, PortSlot(0), 0, &mut world.outputs);
    let text: Vec<String> = steps.iter().map(|step| format!("{}: {}", step.stage, step.text)).collect();
    assert_eq!(
        text,
        [
            "parse: IPv4, UDP 10.0.0.1:1 > 10.0.0.2:2, ttl 64",
            &format!("look up: flow {} knows it: to port slot 1", index.number()),
            "policy: the decision can be carried out",
            "rewrite: source 02:00:00:00:00:08, one hop less to live",
            "queue: it goes to port slot 1",
        ]
    );
    assert_eq!(world.writer.get(index).unwrap().counts.packets, 0);
    let packet = world.packet(&numbered(1, 1));
    let steps = world.pipeline.explain(packet, PortSlot(0), 0, &mut world.outputs);
    assert_eq!(steps[1].text, "it goes to control: no flow knows it");
    assert_eq!(steps.len(), 2);
}

#[test]
fn elements_count_what_reaches_them() {
    let mut world = World::new(layout());
    world.learn(&frame(), 0, &to(1));
    (0..32).for_each(|_| world.run(&[&frame(), &[0; 3]], 0));
    world.pipeline.publish();
    let statistics = world.pipeline.cells().read();
    assert_eq!(&statistics, world.pipeline.statistics());
    let stage = |stage: Stage| statistics.stages[stage as usize];
    assert_eq!((stage(Stage::Parse).packets, stage(Stage::LookUp).packets, stage(Stage::Meter).packets), (64, 32, 0));
    assert_eq!((stage(Stage::Parse).timed_packets, stage(Stage::Parse).batches), (4, 32));
    assert!(stage(Stage::Parse).cycles_per_packet().is_some() && stage(Stage::Meter).cycles_per_packet().is_none());
}
