#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::{HashMap, VecDeque};

use hugemem::{Iova, PacketPool, Region};
use proptest::prelude::*;

use super::*;
use crate::flow::{FlowState, KeyFields, Output, Writer};

fn pool(count: usize) -> PacketPool {
    Region::on_heap(count * 512, Iova::new(0)).unwrap().packets(count, 64).unwrap()
}

/// Indices of a real table, some of which share a list.
fn indices(count: u16) -> Vec<FlowIndex> {
    let mut writer = Writer::new(4096, 1).unwrap().0;
    let mut made = (0..2100_u16).map(|number| {
        let fields = KeyFields {
            domain: Domain::port(number.into()),
            destination_mac: drivers::nic::MacAddress([0; 6]),
            source_mac: drivers::nic::MacAddress([0; 6]),
            vlans: [None; 2],
            ether_type: 0,
            addresses: None,
            protocol: 0,
            source_port: 0,
            destination_port: 0,
            later_fragment: false,
        };
        writer.insert(&FlowKey::from(&fields), &Action::to(Output::Up), FlowState::Active, 0).unwrap()
    });
    // Numbers 0, 1024, 2048 meet; then 1, 1025, 2049.
    let all: Vec<FlowIndex> = made.by_ref().collect();
    (0..count).map(|number| all[usize::from(number % 3) * 1024 + usize::from(number / 3)]).collect()
}

fn held(pool: &mut PacketPool, number: u64) -> Held {
    Held { packet: pool.take().unwrap(), from: PortSlot(0), domain: Domain::port(0), since: number }
}

proptest! {
    #[test]
    fn packets_come_out_in_the_order_of_their_flow(steps in prop::collection::vec((0_usize..9, 0_u8..3), 1..200)) {
        let mut pool = pool(64);
        let indices = indices(9);
        let mut hold = Hold::new(20, 6, 4, 1);
        let mut model: HashMap<usize, VecDeque<u64>> = HashMap::new();
        let mut number = 0;
        for (flow, step) in steps {
            let all: usize = model.values().map(VecDeque::len).sum();
            if step < 2 {
                let flows = model.values().filter(|queue| !queue.is_empty()).count();
                let is_new = model.get(&flow).is_none_or(VecDeque::is_empty);
                let fits = all < 20 && !(is_new && flows == 6);
                prop_assert_eq!(hold.has_room(indices[flow], PortSlot(0), 99), fits);
                prop_assert_eq!(hold.push(indices[flow], held(&mut pool, number), 99).is_ok(), fits);
                if fits {
                    model.entry(flow).or_default().push_back(number);
                }
                number += 1;
            } else {
                let expected = model.get_mut(&flow).and_then(VecDeque::pop_front);
                prop_assert_eq!(hold.pop(indices[flow]).map(|held| held.since), expected);
            }
            prop_assert_eq!(hold.len(), model.values().map(VecDeque::len).sum::<usize>());
        }
        for (flow, queue) in model {
            for expected in queue {
                prop_assert_eq!(hold.pop(indices[flow]).unwrap().since, expected);
            }
        }
        prop_assert_eq!(hold.len(), 0);
        prop_assert_eq!(pool.available(), 64);
    }
}

#[test]
fn flows_are_ripe_when_all_that_went_before_is_back() {
    let indices = indices(3);
    let mut hold = Hold::new(4, 4, 2, 1);
    assert!(hold.ripen(indices[0], 5) && hold.ripen(indices[1], 7));
    assert!(!hold.ripen(indices[2], 7));
    assert_eq!(hold.ripe(3), None);
    assert_eq!(hold.ripe(4), Some(indices[0]));
    hold.settled();
    assert_eq!(hold.ripe(5), None);
    assert_eq!(hold.ripe(6), Some(indices[1]));
}

#[test]
fn a_port_leaves_room_for_others() {
    let mut pool = pool(8);
    let indices = indices(2);
    let mut hold = Hold::new(8, 8, 2, 2);
    let of = |from, held: Held| Held { from: PortSlot(from), ..held };
    assert!((0..3).all(|_| hold.push(indices[0], of(0, held(&mut pool, 0)), 3).is_ok()));
    assert!(hold.push(indices[1], of(0, held(&mut pool, 0)), 3).is_err());
    assert!(hold.push(indices[0], of(1, held(&mut pool, 0)), 3).is_ok());
    assert!(hold.push(indices[0], of(2, held(&mut pool, 0)), 3).is_err());
    assert!(hold.pop(indices[0]).is_some());
    assert!(hold.push(indices[1], of(0, held(&mut pool, 0)), 3).is_ok());
}

#[test]
fn a_flow_that_waits_too_long_is_found() {
    let mut pool = pool(4);
    let indices = indices(2);
    let mut hold = Hold::new(4, 200, 2, 1);
    hold.push(indices[0], held(&mut pool, 100), 9).unwrap();
    hold.push(indices[1], held(&mut pool, 200), 9).unwrap();
    let expired = |hold: &mut Hold, now| (0..10).find_map(|_| hold.expired(now, 50));
    assert_eq!(expired(&mut hold, 150), None);
    assert_eq!(expired(&mut hold, 151), Some(indices[0]));
    assert!(hold.pop(indices[0]).is_some());
    assert_eq!(expired(&mut hold, 151), None);
    assert_eq!(expired(&mut hold, 251), Some(indices[1]));
}

#[test]
fn answers_count_up_to_the_first_that_is_missing() {
    let mut pool = pool(8);
    let key = FlowKey::of(&crate::headers::Headers::default(), &[], Domain::port(1));
    let (mut link, mut desk) = rings(8, 8, 1);
    for _ in 0..3 {
        let packet = pool.take().unwrap();
        link.raise(packet, (PortSlot(0), Domain::port(1)), key, Why::Miss, 0, 0).unwrap();
    }
    let mut tickets: Vec<Ticket> = Vec::new();
    while let Some(Event::Upcall(ticket)) = desk.next_event() {
        tickets.push(ticket);
    }
    let mut next = || {
        let answer = link.take().unwrap();
        link.accept(answer.handled, answer.settles);
        link.handled()
    };
    desk.dismiss(tickets.remove(1));
    assert_eq!(next(), 0);
    desk.dismiss(tickets.remove(0));
    assert_eq!(next(), 2);
    desk.inject(tickets.remove(0), Action::to(Output::Up), None);
    assert_eq!(next(), 3);
    assert_eq!(link.next(), 4);
}

#[test]
fn what_the_engine_has_no_room_for_waits_at_the_desk_in_order() {
    let (mut link, mut desk) = rings(8, 2, 1);
    for number in 1..=5 {
        desk.set_meter(number, Rate::default());
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        while let Some(answer) = link.take() {
            if let Order::Meter(number, _) = answer.order {
                seen.push(number);
            }
        }
        assert!(!desk.is_settled() || seen.len() == 5);
        let before = seen.len();
        assert_eq!(desk.flush(), before < 5, "it says whether the engine has to be woken");
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    assert!(desk.is_settled());
}

#[test]
fn activations_wait_for_the_engine_to_be_through_with_others() {
    let indices = indices(1);
    let (mut link, mut desk) = rings(1, 3 * ACTIVATIONS, 1);
    for _ in 0..2 * ACTIVATIONS {
        desk.activate(indices[0]);
    }
    let mut take = || std::iter::from_fn(|| link.take()).count();
    assert_eq!(take(), ACTIVATIONS);
    desk.flush();
    assert_eq!(take(), 0);
    link.settle();
    desk.flush();
    assert!(link.take().is_some() && link.take().is_none());
    assert!(!desk.is_settled());
}
