#![allow(clippy::unwrap_used, reason = "tests")]
use core::time::Duration;
use std::string::ToString;
use std::sync::Arc;
use std::vec::Vec;

use hugemem::{Iova, Region};

use super::*;
use crate::ixgbe::fake::Fake;
use crate::nic;

const UP_AT_TEN_GIGABIT: u32 = 0x7000_0000;
const ENABLE: u32 = 1 << 25;

fn config(queue_pairs: u16) -> Config {
    Config { nic: nic::Config { queue_pairs, ..nic::Config::default() }, ..Config::default() }
}

fn open_with(fake: &Fake, config: Config) -> Result<Ixgbe<Fake>, NicError> {
    let region = Region::on_heap(16 << 20, Iova::new(0x1_7000_0000)).unwrap();
    let pools = (0..config.nic.queue_pairs).map(|_| region.packets(512, 2048).unwrap()).collect();
    let rings = Region::on_heap(config.ring_memory(), Iova::new(0x2_0000_0000)).unwrap();
    Ixgbe::open(fake.clone(), Arc::new(fake.clone()), &rings, pools, config)
}

fn open(fake: &Fake, pairs: u16) -> Ixgbe<Fake> {
    open_with(fake, config(pairs)).unwrap()
}

fn stop(nic: &mut Ixgbe<Fake>, queues: Pairs<Fake>) -> Result<(), NicError> {
    nic.stop(queues.into_iter().map(|pair| (pair.rx, pair.tx)).collect())
}

#[test]
fn a_card_comes_up_step_by_step_goes_down_quietly_and_comes_up_again() {
    let fake = Fake::new(0x10fb);
    let mut nic = open(&fake, 2);
    assert_eq!(nic.mac().to_string(), "00:11:22:33:44:55");
    assert!(nic.summary().to_string().contains("no module"), "{}", nic.summary());
    for _ in 0..2 {
        assert!(!fake.state().bus_master && fake.register(0x3000) == 0);
        let mut queues = nic.start().unwrap();
        assert!(fake.state().bus_master);
        assert_eq!(fake.register(0x3000) & 1, 1, "receiver");
        assert_eq!(fake.register(0x4a80) & 1, 1, "transmitter");
        for queue in [0x1000, 0x1040] {
            assert_eq!(fake.register(queue + 8), 256 * 16, "length");
            assert_eq!(fake.register(queue + 4), 2, "high half of the address");
            assert_eq!(fake.register(queue + 0x14), 2 | 4 << 8 | 1 << 25 | 1 << 28, "2 KiB, advanced, drop");
            assert_ne!(fake.register(queue + 0x28) & ENABLE, 0);
            assert_ne!(fake.register(queue + 0x18), 0, "buffers are there");
            assert_ne!(fake.register(queue + 0x5028) & ENABLE, 0);
        }
        assert_eq!(fake.register(0x1080 + 0x28), 0, "no third queue");
        assert_eq!(fake.register(0x4268), 1522 << 16);
        assert_eq!(fake.register(0x5818) & 0xf, 1);
        assert_eq!(fake.register(0x5c00), 0x0100_0100);
        let lent = 512 - queues[0].rx.pool().available();
        assert!(lent > 100, "{lent} buffers at the card");
        nic.check().unwrap();
        stop(&mut nic, queues).unwrap();
        assert_eq!(nic.home.receivers[0].as_mut().unwrap().pool().available(), 512);
    }
    drop(nic);
    assert_eq!(fake.register(0x3000) & 1, 0);
}

#[test]
fn interrupts_have_vectors_of_their_own_and_are_masked() {
    let fake = Fake::new(0x10fb);
    let mut config = config(3);
    config.nic.interrupts = true;
    let mut nic = open_with(&fake, config).unwrap();
    let mut queues = nic.start().unwrap();
    assert!(queues.iter().all(|pair| pair.interrupt.is_some()) && nic.summary().interrupts);
    assert_eq!((fake.register(0x900), fake.register(0x904)), (0x0081_0080, 0x0000_0082));
    assert_eq!((fake.register(0x810), fake.register(0x890)), (7, 7));
    assert_eq!(fake.register(0x820), 10 << 3 | 1 << 31);
    assert_eq!(fake.register(0x880), 0, "nobody asked yet");
    assert!(crate::nic::RxQueue::arm(&mut queues[2].rx));
    assert_eq!(fake.register(0x880), 4);
    crate::nic::RxQueue::disarm(&mut queues[2].rx);
    assert_eq!(fake.register(0x888), 4);
    stop(&mut nic, queues).unwrap();
}

#[test]
fn a_card_that_is_gone_is_named_at_once() {
    let fake = Fake::new(0x10fb);
    let mut nic = open(&fake, 1);
    let queues = nic.start().unwrap();
    fake.state().gone = true;
    let start = fake.now();
    for error in [nic.check().unwrap_err(), stop(&mut nic, queues).unwrap_err(), nic.start().unwrap_err()] {
        assert!(matches!(error, NicError::Bus(BusError::Gone { .. })), "{error}");
    }
    assert!(nic.statistics().iter().all(|(_, count)| *count == 0), "all ones are no counts");
    assert_eq!(nic.home.receivers[0].as_mut().unwrap().pool().available(), 512, "it reaches no memory any more");
    assert_eq!(fake.state().mapped.len(), 0);
    fake.state().gone = false;
    let queues = nic.start().unwrap();
    assert_eq!(fake.state().mapped.len(), 2);
    fake.state().gone = true;
    drop(queues);
    drop(nic);
    assert!(matches!(open_with(&fake, config(1)), Err(NicError::Bus(BusError::Gone { .. }))));
    assert!(fake.now() - start < Duration::from_millis(50), "{:?}", fake.now() - start);
}

#[test]
fn a_card_that_is_gone_keeps_its_buffers_until_the_bus_has_taken_all_memory_away() {
    let fake = Fake::new(0x10fb);
    let mut nic = open(&fake, 1);
    let queues = nic.start().unwrap();
    fake.state().gone = true;
    fake.state().stuck = Some(0x1_7000_0000);
    let free = |nic: &mut Ixgbe<Fake>| nic.home.receivers[0].as_mut().unwrap().pool().available();
    stop(&mut nic, queues).unwrap_err();
    assert_eq!(fake.state().mapped.len(), 1, "what can be taken away is");
    assert!(free(&mut nic) < 512);
    fake.state().stuck = None;
    nic.stop(Vec::new()).unwrap_err();
    assert_eq!((fake.state().mapped.len(), free(&mut nic)), (0, 512));
    // What is mapped meanwhile is taken away, too.
    let more = Region::on_heap(4096, Iova::new(0x3_0000_0000)).unwrap();
    nic.map(&more).unwrap();
    nic.stop(Vec::new()).unwrap_err();
    assert_eq!(fake.state().mapped.len(), 0);
    nic.unmap(&more).unwrap();
    fake.state().gone = false;
    let queues = nic.start().unwrap();
    assert_eq!(fake.state().mapped.len(), 2);
    stop(&mut nic, queues).unwrap();
}

#[test]
fn a_card_that_does_not_reset_is_reset_by_the_bus_or_refused() {
    let fake = Fake::new(0x10fb);
    let mut nic = open(&fake, 1);
    let queues = nic.start().unwrap();
    fake.state().never_resets = true;
    let before = fake.state().bus_resets;
    stop(&mut nic, queues).unwrap();
    assert_eq!(fake.state().bus_resets, before + 1);
    fake.state().no_bus_reset = true;
    let error = nic.start().unwrap_err().to_string();
    assert!(error.contains("fake") && error.contains("CTRL.RST"), "{error}");
    assert!(!fake.state().bus_master);
}

#[test]
fn requests_that_never_end_take_a_second_reset() {
    let fake = Fake::new(0x10fb);
    let mut nic = open(&fake, 1);
    let queues = nic.start().unwrap();
    let before = fake.state().resets;
    fake.state().pending = true;
    stop(&mut nic, queues).unwrap();
    assert_eq!(fake.state().resets, before + 2);
    assert_eq!(fake.state().emptied_at, Some(before), "before the first of them");
    assert_eq!((fake.register(0x4240) & 1 << 15, fake.register(0x11050)), (0, 0));
}

#[test]
fn a_damaged_nvm_and_a_card_that_is_never_ready_are_named() {
    let fake = Fake::new(0x10fb);
    fake.state().nvm.insert(7, 9);
    fake.state().nvm.insert(9, 2);
    let error = open_with(&fake, config(1)).unwrap_err().to_string();
    assert!(error.contains("NVM") && error.contains("0xbac5"), "{error}");
    // The section behind word 7: its length is not counted, its words are.
    fake.state().nvm.extend([(9, 1), (10, 5), (0x3f, 0xbaba - 9 - 1 - 5 - 5)]);
    open(&fake, 1);
    fake.state().never_ready = true;
    let error = open_with(&fake, config(1)).unwrap_err();
    assert!(matches!(&error, NicError::Timeout { what, .. } if what.contains("DMAIDONE")), "{error}");
}

#[test]
fn a_queue_that_does_not_come_up_leaves_everything_as_it_was() {
    let fake = Fake::new(0x10fb);
    let mut nic = open(&fake, 2);
    fake.state().dead_queues = true;
    let error = nic.start().unwrap_err();
    assert!(matches!(&error, NicError::Timeout { what, .. } if what.contains("TXDCTL")), "{error}");
    assert!(!fake.state().bus_master);
    fake.state().dead_queues = false;
    let queues = nic.start().unwrap();
    stop(&mut nic, queues).unwrap();
}

#[test]
fn what_happened_to_a_running_card_is_named() {
    let fake = Fake::new(0x10fb);
    let mut nic = open(&fake, 1);
    let faults: [(u32, u32, &str); 4] = [
        (0x3000, 0, "reset by someone else"),
        (0x4a80, 0, "transmitter"),
        (0x1028, 0, "queues turned itself off"),
        (0x800, 1 << 28, "memory has an error"),
    ];
    for (register, value, expected) in faults {
        let queues = nic.start().unwrap();
        nic.check().unwrap();
        fake.state().registers.insert(register, value);
        let error = nic.check().unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("stop and start"), "{error}");
        stop(&mut nic, queues).unwrap();
    }
}

#[test]
fn filters_are_exact_where_there_are_places_and_wider_where_not() {
    let fake = Fake::new(0x10fb);
    let mut nic = open(&fake, 1);
    let queues = nic.start().unwrap();
    let modes = || fake.register(0x5080) & 0x700;
    assert_eq!(modes(), 0x700, "everything");
    let station = |last| MacAddress([2, 0, 0, 0, 0, last]);
    let mut filter = ReceiveFilter {
        unicast: (0..127).map(station).collect(),
        multicast: [MacAddress([1, 0, 0x5e, 0, 0x10, 2])].into(),
        vlans: Some([0, 33, 4095].into()),
        ..ReceiveFilter::default()
    };
    nic.set_filter(&filter).unwrap();
    assert_eq!(modes(), 0x400, "broadcasts only");
    assert_eq!((fake.register(0xa200), fake.register(0xa204)), (0x3322_1100, 0x8000_5544));
    assert_eq!((fake.register(0xa5f8), fake.register(0xa5fc)), (2, 0x8000_7e00));
    assert_eq!(fake.register(0x5200 + 4), 1 << 1, "hash 0x021");
    assert_eq!((fake.register(0xa000), fake.register(0xa004), fake.register(0xa1fc)), (1, 2, 1 << 31));
    assert_ne!(fake.register(0x5088) & 1 << 30, 0);
    filter.unicast.push(station(200));
    filter.vlans = None;
    nic.set_filter(&filter).unwrap();
    assert_eq!(modes(), 0x600, "too many");
    assert_eq!(fake.register(0xa5fc), 0);
    assert_eq!(fake.register(0x5088) & 1 << 30, 0);
    filter.vlans = Some([4096].into());
    assert!(matches!(nic.set_filter(&filter), Err(NicError::Request { .. })));
    // Nothing that passes before and after is missed meanwhile: wider before the tables change, narrower after.
    let last = |register| fake.state().stores.iter().rposition(|offset| *offset == register).unwrap();
    let first = |register| fake.state().stores.iter().position(|offset| *offset == register).unwrap();
    for (vlans, early) in [(Some([7].into()), false), (None, true)] {
        fake.state().stores.clear();
        nic.set_filter(&ReceiveFilter { vlans, ..ReceiveFilter::default() }).unwrap();
        assert_eq!(last(0x5088) < first(0xa000), early);
        assert!(first(0x5080) < first(0xa200) && last(0x5080) > last(0xa1fc));
    }
    nic.set_filter(&ReceiveFilter::host()).unwrap();
    assert_eq!((modes(), fake.register(0xa20c)), (0x500, 0));
    stop(&mut nic, queues).unwrap();
    // Also after it was stopped and started.
    let queues = nic.start().unwrap();
    assert_eq!(modes(), 0x500);
    stop(&mut nic, queues).unwrap();
}

#[test]
fn counters_are_summed_up_and_kept_over_a_restart() {
    let fake = Fake::new(0x10fb);
    let count = |fake: &Fake, counts: &[(u32, u32)]| fake.state().counters.extend(counts.iter().copied());
    let mut nic = open(&fake, 1);
    let value =
        |nic: &mut Ixgbe<Fake>, name: &str| nic.statistics().into_iter().find(|(found, _)| *found == name).unwrap().1;
    let queues = nic.start().unwrap();
    count(&fake, &[(0x4074, u32::MAX), (0x4088, 5), (0x408c, 0xf), (0x3fa0, 2), (0x3fbc, 3)]);
    nic.check().unwrap();
    count(&fake, &[(0x4074, 2), (0x4000, 1)]);
    assert_eq!(value(&mut nic, "rx_good_packets"), u64::from(u32::MAX) + 2);
    assert_eq!(value(&mut nic, "rx_good_bytes"), 0xf_0000_0005);
    assert_eq!(value(&mut nic, "rx_missed_errors"), 5);
    count(&fake, &[(0x4000, 10)]);
    stop(&mut nic, queues).unwrap();
    assert_eq!(value(&mut nic, "rx_crc_errors"), 11, "read before the reset cleared it");
    let queues = nic.start().unwrap();
    assert_eq!(value(&mut nic, "rx_crc_errors"), 11);
    stop(&mut nic, queues).unwrap();
}

/// Good packets received (GPRC), counted up each time that the card is asked; `true` when `check` complains.
fn alarm_within(nic: &mut Ixgbe<Fake>, fake: &Fake, queues: &mut Pairs<Fake>, seconds: u32, coming: bool) -> bool {
    let mut batch = hugemem::Batch::new(8);
    (0..seconds).any(|_| {
        if coming {
            fake.state().registers.insert(0x4074, 1);
        }
        fake.pause(Duration::from_secs(1));
        queues.iter_mut().for_each(|pair| assert_eq!(crate::nic::RxQueue::receive(&mut pair.rx, &mut batch), 0));
        nic.check().is_err_and(|error| {
            assert!(error.to_string().contains("hands out nothing"), "{error}");
            true
        })
    })
}

#[test]
fn a_card_that_counts_packets_and_hands_out_none_is_named_and_a_quiet_one_is_not() {
    let fake = Fake::new(0x10fb);
    let mut nic = open(&fake, 2);
    for _ in 0..2 {
        let mut queues = nic.start().unwrap();
        assert!(!alarm_within(&mut nic, &fake, &mut queues, 60, false), "a quiet wire");
        assert!(!alarm_within(&mut nic, &fake, &mut queues, 5, true), "too early");
        assert!(alarm_within(&mut nic, &fake, &mut queues, 4, true));
        stop(&mut nic, queues).unwrap();
    }
    // What goes to the management firmware is counted as good, too.
    let mut queues = nic.start().unwrap();
    let mut batch = hugemem::Batch::new(8);
    for _ in 0..60 {
        fake.state().counters.extend([(0x4074, 3), (0x40b4, 2), (0x3fa0, 1)]);
        fake.pause(Duration::from_secs(1));
        queues.iter_mut().for_each(|pair| assert_eq!(crate::nic::RxQueue::receive(&mut pair.rx, &mut batch), 0));
        nic.check().unwrap();
    }
    stop(&mut nic, queues).unwrap();
    // A queue that nobody asks may have it all.
    let mut queues = nic.start().unwrap();
    let rest = queues.split_off(1);
    assert!(!alarm_within(&mut nic, &fake, &mut queues, 60, true), "nobody looks at the second queue");
    queues.extend(rest);
    stop(&mut nic, queues).unwrap();
}

#[test]
fn pause_frames_follow_the_link() {
    let fake = Fake::new(0x10fb);
    let wanted = FlowControl { rx: true, tx: true };
    let mut nic = open_with(&fake, Config { flow_control: wanted, ..config(2) }).unwrap();
    let queues = nic.start().unwrap();
    let told = || (fake.register(0x3d00) & 8 != 0, fake.register(0x4294) & 8 != 0, fake.register(0x1014) >> 28 & 1);
    assert_eq!(nic.link(), LinkStatus::default());
    assert_eq!(told(), (false, false, 1), "down: nobody waits for anybody");
    fake.state().links = UP_AT_TEN_GIGABIT;
    nic.check().unwrap();
    let up = LinkStatus { up: true, speed_mbps: Some(10_000), full_duplex: Some(true), flow_control: Some(wanted) };
    assert_eq!(nic.link(), up);
    assert_eq!(told(), (true, true, 0));
    let (low, high) = (fake.register(0x3220), fake.register(0x3260));
    assert_eq!((low >> 31, high >> 31), (1, 1));
    assert!((low & 0x7ffff) < (high & 0x7ffff) && high & 0x7ffff < 512 * 1024 - 2 * 1522, "{low:#x} {high:#x}");
    stop(&mut nic, queues).unwrap();
}

#[test]
fn a_copper_card_starts_its_phy_and_one_without_is_refused() {
    let fake = Fake::new(0x1528);
    let error = open_with(&fake, config(1)).unwrap_err().to_string();
    assert!(error.contains("PHY"), "{error}");
    // Identifier, asleep, and a partner that does symmetric pause.
    fake.state().phy = [((1, 2), 0x0154), ((1, 0), 1 << 11), ((7, 0x13), 1 << 10)].into();
    let wanted = FlowControl { rx: true, tx: false };
    let mut nic = open_with(&fake, Config { flow_control: wanted, ..config(1) }).unwrap();
    assert_eq!(fake.state().phy[&(1, 0)], 0, "awake");
    assert_eq!(fake.state().phy[&(7, 0x10)], 3 << 10);
    assert_eq!(fake.state().phy[&(7, 0)], 1 << 12 | 1 << 9);
    let queues = nic.start().unwrap();
    assert_eq!(fake.register(0x3c00), 384 << 10);
    fake.state().links = 0x6000_0000;
    let link = nic.link();
    assert_eq!((link.speed_mbps, link.flow_control), (Some(1000), Some(wanted)));
    // All semaphores are given back.
    assert_eq!((fake.register(0x10140) & 3, fake.register(0x10160)), (0, 0));
    stop(&mut nic, queues).unwrap();
}

#[test]
fn a_semaphore_whose_holder_died_is_taken_over() {
    let fake = Fake::new(0x1528);
    fake.state().phy = [((1, 2), 0x0154)].into();
    let nic = open(&fake, 1);
    // The firmware's bit of the PHY.
    fake.state().registers.insert(0x10160, 1 << 6);
    let start = fake.now();
    drop(super::super::semaphore::take(&nic.card, super::super::semaphore::Resource::Phy).unwrap());
    let waited = fake.now() - start;
    assert!((Duration::from_secs(1)..Duration::from_secs(2)).contains(&waited), "{waited:?}");
    assert_eq!(fake.register(0x10160), 1 << 6, "what is not ours stays");
    // The other port's driver died with the lock.
    fake.state().registers.insert(0x10140, 1);
    drop(super::super::semaphore::take(&nic.card, super::super::semaphore::Resource::Mac).unwrap());
    assert_eq!(fake.register(0x10140) & 3, 0);
    drop(nic);
}

#[test]
fn impossible_requests_are_refused() {
    let fake = Fake::new(0x10fb);
    let with = |change: &dyn Fn(&mut nic::Config)| {
        let mut config = config(1);
        change(&mut config.nic);
        open_with(&fake, config).map(|nic| nic.mtu())
    };
    for mtu in [67, 9711] {
        let error = with(&|nic| nic.mtu = Some(mtu)).unwrap_err();
        assert!(error.to_string().contains("9710"), "{error}");
    }
    assert_eq!(with(&|nic| nic.mtu = Some(9710)).unwrap(), 9710);
    assert!(matches!(with(&|nic| nic.mac = Some(MacAddress([1; 6]))), Err(NicError::Request { .. })));
    assert!(matches!(with(&|nic| nic.queue_pairs = 0), Err(NicError::Request { .. })));
    assert!(matches!(open_with(&Fake::new(0x100e), config(1)), Err(NicError::Unsupported { .. })));
    let mut nic = open(&fake, 1);
    let queues = nic.start().unwrap();
    assert!(matches!(nic.start(), Err(NicError::Request { .. })));
    drop(queues);
    nic.stop(Vec::new()).unwrap();
    assert!(nic.start().unwrap_err().to_string().contains("not given back"));
}
