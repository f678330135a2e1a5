//! Whatever packets and actions there are, every packet is accounted for and every buffer comes home.

use proptest::prelude::*;

use super::*;
use crate::flow::{Rewrite, VlanRewrite};

fn output() -> impl Strategy<Value = Output> {
    prop_oneof![
        4 => (0_u16..7).prop_map(Output::Port),
        1 => any::<u8>().prop_map(Output::Drop),
        1 => (0_u16..2).prop_map(Output::Tunnel),
        2 => (0_u16..3).prop_map(Output::Replicate),
        1 => Just(Output::Up),
        1 => Just(Output::Local),
    ]
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    let vlan = prop_oneof![
        4 => Just(VlanRewrite::Keep),
        1 => any::<u16>().prop_map(VlanRewrite::Push),
        1 => Just(VlanRewrite::Pop),
        1 => any::<u16>().prop_map(VlanRewrite::Set),
    ];
    (any::<bool>(), any::<bool>(), vlan, any::<bool>(), prop::option::of(0_u32..3)).prop_map(
        |(source, destination, vlan, decrement_ttl, translation)| Rewrite {
            source_mac: source.then_some(mac(5)),
            destination_mac: destination.then_some(mac(6)),
            vlan,
            decrement_ttl,
            translation,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    (output(), rewrite(), 0_u16..3, 0_u16..4, (0_u16..2, 0_u16..2)).prop_map(
        |(output, rewrite, meter, mirror, coprocessors)| Action {
            output,
            rewrite,
            meter,
            mirror,
            coprocessors: coprocessors.into(),
            owner: 0,
        },
    )
}

fn member() -> impl Strategy<Value = Member> {
    let target =
        prop_oneof![(0_u16..7).prop_map(|slot| Target::Port(PortSlot(slot))), (0_u16..2).prop_map(Target::Tunnel)];
    let vlan = prop_oneof![Just(VlanRewrite::Keep), Just(VlanRewrite::Pop), Just(VlanRewrite::Push(3))];
    (target, vlan).prop_map(|(target, vlan)| Member { target, vlan })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_packet_is_accounted_for(
        actions in prop::collection::vec((action(), any::<bool>()), 1..8),
        sets in prop::collection::vec(prop::collection::vec(member(), 0..5), 0..3),
        batches in prop::collection::vec((prop::collection::vec((0_u32..10, any::<u8>()), 1..140), 0_u16..6), 1..6),
        answers in prop::collection::vec((0_u8..3, action()), 20),
    ) {
        let layout = Layout {
            sets: sets.into_iter().map(Vec::into_boxed_slice).collect(),
            mirrors: std::array::from_fn(|number| (number == 0).then_some(PortSlot(1))),
            ..layout()
        };
        let mut world = World::new(layout);
        world.outputs = Outputs::new(6, 100);
        world.desk.set_meter(1, Rate { packets: 1, burst_packets: 10, ..Rate::default() });
        let (rings, mut coprocessor) = CoprocessorRings::new(1, pool(16), bell());
        world.desk.attach_coprocessor(rings);
        let mut flows = Vec::new();
        for (flow, (action, pending)) in actions.iter().enumerate() {
            let state = if *pending { FlowState::Pending(1) } else { FlowState::Active };
            let key = key(&numbered(flow as u32, 0), 0);
            flows.push(world.writer.insert(&key, action, state, 0).unwrap());
        }
        let mut answers = answers.into_iter().cycle();
        for (packets, from) in batches {
            let frames: Vec<Vec<u8>> = packets.iter().map(|(flow, damage)| {
                let mut frame = numbered(*flow, 0);
                if *damage < 40 {
                    frame[usize::from(*damage)] ^= 0xff;
                }
                frame
            }).collect();
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            world.run(&frames, from);
            prop_assert!(world.pipeline.statistics().is_balanced());
            while let Some(event) = world.desk.next_event() {
                let Event::Upcall(ticket) = event else { continue };
                match answers.next().unwrap() {
                    (0, _) => world.desk.dismiss(ticket),
                    (1, _) => drop(world.desk.keep(ticket)),
                    (_, action) => world.desk.inject(ticket, action, None),
                }
            }
            while let Ok(handed) = coprocessor.packets.pop() {
                let _ = coprocessor.back.push(handed);
            }
            if let Some(flow) = flows.pop() {
                world.desk.activate(flow);
            }
            world.attend();
            prop_assert!(world.pipeline.statistics().is_balanced());
            world.sent();
        }
        // All that went out, up, aside and to waiting comes back to the pools.
        flows.into_iter().for_each(|flow| world.desk.activate(flow));
        while let Some(event) = world.desk.next_event() {
            if let Event::Upcall(ticket) = event {
                world.desk.dismiss(ticket);
            }
        }
        world.attend();
        world.sent();
        while let Some(event) = world.desk.next_event() {
            if let Event::Upcall(ticket) = event {
                world.desk.dismiss(ticket);
            }
        }
        while coprocessor.packets.pop().is_ok() {}
        world.attend();
        world.sent();
        prop_assert!(!world.pipeline.is_waiting());
        prop_assert_eq!(world.pool.available(), world.pool.capacity());
    }
}
