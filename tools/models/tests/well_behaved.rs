//! The virtio-net driver on an honest card: every ring format with every feature that changes the rings.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::virtio::{Bench, Plan};
use common::{Watchdog, frame};
use drivers::nic::{Nic, ReceiveFilter};
use models::virtio_net::{Config, Doorbells, Features, Frame, NetHeader, header_bits};

/// All combinations of `features` with both ring formats, and with doorbells needed or not.
fn matrix(features: &[Features], test: impl Fn(&Plan, &str)) {
    for packed in [false, true] {
        for choice in 0..1_usize << features.len() {
            for doorbells in [Doorbells::Needed, Doorbells::Suppressed] {
                let mut plan = Plan::new(packed);
                plan.card.doorbells = doorbells;
                for (bit, feature) in features.iter().enumerate() {
                    plan.card.features.set(*feature, choice & 1 << bit != 0);
                }
                let what = format!("packed {packed}, {doorbells:?}, without {:?}", features_without(features, choice));
                let _watchdog = Watchdog::new(what.clone());
                test(&plan, &what);
            }
        }
    }
}

fn features_without(features: &[Features], choice: usize) -> Features {
    let missing = features.iter().enumerate().filter(|(bit, _)| choice & 1 << bit == 0);
    missing.fold(Features::empty(), |all, (_, feature)| all | *feature)
}

fn started(plan: &Plan, what: &str) -> Bench {
    let mut bench = Bench::open(plan).unwrap_or_else(|error| panic!("{what}: {error}"));
    bench.start().unwrap_or_else(|error| panic!("{what}: {error}"));
    bench
}

fn ended(mut bench: Bench, what: &str) {
    bench.stop().unwrap_or_else(|error| panic!("{what}: {error}"));
    bench.was_honest();
    bench.memory.is_whole();
    bench.end();
}

#[test]
fn frames_pass_both_ways_byte_for_byte_and_in_order() {
    let features = [Features::EVENT_IDX, Features::INDIRECT_DESC, Features::MRG_RXBUF, Features::IN_ORDER];
    matrix(&features, |plan, what| {
        let mut bench = started(plan, what);
        let mut number = 0;
        // Several rounds of the ring, with bursts of 1 to 24 frames.
        for burst in [1, 2, 7, 24, 3, 24, 24, 1, 5, 24, 24, 24] {
            let frames: Vec<Vec<u8>> =
                (0..burst).map(|index| frame(number + index, 60 + (number + index) * 37 % 1455)).collect();
            number += burst;
            frames.iter().for_each(|bytes| bench.incoming(Frame::plain(bytes.clone())));
            let received = bench.receive(0);
            assert_eq!(received.len(), burst, "{what}");
            assert!(received.iter().zip(&frames).all(|(got, sent)| got.bytes == *sent), "{what}");
            let packets = frames.iter().map(|bytes| bench.packet(bytes)).collect();
            assert_eq!(bench.send(0, packets), burst, "{what}");
            let sent = bench.outgoing();
            assert_eq!(sent.len(), burst, "{what}");
            assert!(sent.iter().zip(&frames).all(|(got, sent)| got.bytes == *sent), "{what}");
        }
        ended(bench, what);
    });
}

#[test]
fn the_pool_is_whole_again_after_each_stop() {
    matrix(&[Features::IN_ORDER], |plan, what| {
        let mut bench = Bench::open(plan).unwrap();
        for round in 0..20 {
            bench.start().unwrap_or_else(|error| panic!("{what}, round {round}: {error}"));
            (0..40).for_each(|number| bench.incoming(Frame::plain(frame(number, 100))));
            // Some are delivered and not picked up when the device is stopped.
            assert_eq!(bench.receive(0).len(), 40, "{what}, round {round}");
            (0..20).for_each(|number| bench.incoming(Frame::plain(frame(number, 100))));
            bench.poll();
            let packets = (0..20).map(|number| bench.packet(&frame(number, 100))).collect();
            bench.send(0, packets);
            bench.stop().unwrap_or_else(|error| panic!("{what}, round {round}: {error}"));
            bench.clear_wire();
            assert_eq!(
                bench.memory.sources.available(),
                common::Memory::SENDABLE,
                "{what}, round {round}: a sent packet is still away"
            );
        }
        bench.was_honest();
        bench.end();
    });
}

#[test]
fn a_full_ring_is_served_when_there_is_room_again() {
    matrix(&[Features::EVENT_IDX], |plan, what| {
        let mut bench = started(plan, what);
        bench.card.lock().unwrap().wire_mut().room = 10;
        let packets: Vec<_> = (0..60).map(|number| bench.packet(&frame(number, 60))).collect();
        let mut batch = hugemem::Batch::new(64);
        packets.into_iter().for_each(|packet| batch.push(packet).unwrap());
        let mut seen = Vec::new();
        for _ in 0..100 {
            drivers::nic::TxQueue::transmit(&mut bench.queues[0].tx, &mut batch);
            bench.poll();
            drivers::nic::TxQueue::reclaim(&mut bench.queues[0].tx);
            seen.extend(bench.outgoing());
        }
        assert_eq!(seen.len(), 60, "{what}");
        assert!(seen.iter().enumerate().all(|(number, got)| got.bytes == frame(number, 60)), "{what}");
        ended(bench, what);
    });
}

#[test]
fn an_idle_queue_is_woken_by_its_interrupt() {
    use drivers::bus::Interrupt;
    use drivers::nic::RxQueue;
    matrix(&[Features::EVENT_IDX], |plan, what| {
        let mut bench = started(plan, what);
        for number in 0..70 {
            let mut interrupt = bench.queues[0].interrupt.take().unwrap_or_else(|| panic!("{what}: no interrupt"));
            while interrupt.wait(std::time::Duration::ZERO).unwrap() {}
            assert!(bench.queues[0].rx.arm(), "{what}: nothing is waiting");
            bench.incoming(Frame::plain(frame(number, 64)));
            bench.poll();
            assert!(interrupt.wait(std::time::Duration::ZERO).unwrap(), "{what}: frame {number} woke nobody");
            bench.queues[0].rx.disarm();
            bench.queues[0].interrupt = Some(interrupt);
            assert_eq!(bench.receive(0).len(), 1, "{what}");
        }
        ended(bench, what);
    });
}

#[test]
fn no_interrupt_comes_while_polling() {
    use drivers::bus::Interrupt;
    matrix(&[Features::EVENT_IDX], |plan, what| {
        let mut bench = started(plan, what);
        let mut interrupt = bench.queues[0].interrupt.take().unwrap();
        while interrupt.wait(std::time::Duration::ZERO).unwrap() {}
        for number in 0..100 {
            bench.incoming(Frame::plain(frame(number, 64)));
            assert_eq!(bench.receive(0).len(), 1, "{what}");
        }
        let mut interrupts = 0;
        while interrupt.wait(std::time::Duration::ZERO).unwrap() {
            interrupts += 1;
        }
        // With event indices one may slip through each time that the index comes round.
        assert!(interrupts <= 1, "{what}: {interrupts} interrupts");
        bench.queues[0].interrupt = Some(interrupt);
        ended(bench, what);
    });
}

#[test]
fn the_link_is_reported_as_it_changes() {
    for packed in [false, true] {
        let mut bench = started(&Plan::new(packed), "link");
        let link = bench.nic.link();
        assert_eq!((link.up, link.speed_mbps, link.full_duplex), (true, Some(10_000), Some(true)));
        bench.control.set_link(false);
        assert!(!bench.nic.link().up);
        bench.control.set_speed(25_000);
        bench.control.set_link(true);
        let link = bench.nic.link();
        assert_eq!((link.up, link.speed_mbps), (true, Some(25_000)));
        bench.control.set_speed(u32::MAX);
        assert_eq!(bench.nic.link().speed_mbps, None);
        bench.nic.check().unwrap();
        ended(bench, "link");
    }
}

#[test]
fn commands_reach_the_card() {
    matrix(&[Features::INDIRECT_DESC, Features::EVENT_IDX, Features::IN_ORDER], |plan, what| {
        let mut plan = plan.clone();
        plan.card.filtering = true;
        plan.driver.nic.filter = ReceiveFilter::host();
        plan.driver.nic.mac = Some(drivers::nic::MacAddress([2, 0x11, 0x22, 0x33, 0x44, 0x55]));
        let mut bench = started(&plan, what);
        assert_eq!(bench.control.mac().0, [2, 0x11, 0x22, 0x33, 0x44, 0x55], "{what}");
        assert_eq!(bench.nic.mac().0, [2, 0x11, 0x22, 0x33, 0x44, 0x55], "{what}");
        assert!(!bench.control.is_promiscuous(), "{what}");
        bench.incoming(Frame::plain(frame(0, 64)));
        assert_eq!(bench.receive(0).len(), 0, "{what}: a frame for another address");
        for enabled in [true, false, true, true, false, true] {
            bench
                .nic
                .set_filter(&ReceiveFilter { promiscuous: enabled, ..ReceiveFilter::host() })
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(bench.control.is_promiscuous(), enabled, "{what}");
        }
        bench.incoming(Frame::plain(frame(0, 64)));
        assert_eq!(bench.receive(0).len(), 1, "{what}");
        ended(bench, what);
    });
}

#[test]
fn several_queue_pairs_carry_their_own_traffic() {
    matrix(&[Features::RSS, Features::MQ], |plan, what| {
        let mut plan = plan.clone();
        plan.card.pairs = 4;
        plan.driver.nic.queue_pairs = 3;
        let multi = plan.card.features.intersects(Features::RSS | Features::MQ);
        let mut bench = started(&plan, what);
        let pairs = bench.queues.len();
        assert_eq!(pairs, if multi { 3 } else { 1 }, "{what}");
        assert_eq!(usize::from(bench.control.pairs()), pairs, "{what}");
        for pair in 0..pairs {
            let packets = (0..5).map(|number| bench.packet(&frame(number, 80))).collect();
            assert_eq!(bench.send(pair, packets), 5, "{what}");
            let sent = bench.outgoing();
            assert_eq!(sent.len(), 5, "{what}");
            assert!(sent.iter().all(|frame| frame.pair.map(usize::from) == Some(pair)), "{what}");
            for number in 0..5 {
                bench.incoming(Frame { pair: u16::try_from(pair).ok(), ..Frame::plain(frame(number, 90)) });
            }
            assert_eq!(bench.receive(pair).len(), 5, "{what}");
        }
        ended(bench, what);
    });
}

#[test]
fn flows_are_spread_by_the_hash_and_the_hash_is_reported() {
    for packed in [false, true] {
        let mut plan = Plan::new(packed);
        plan.card.pairs = 2;
        plan.card.features |= Features::HASH_REPORT;
        plan.driver.nic.queue_pairs = 2;
        let mut bench = started(&plan, "hash");
        assert!(bench.control.scales(), "receive-side scaling is on");
        for port in 0..32 {
            let mut bytes = frame(0, 60);
            bytes[12..14].copy_from_slice(&[8, 0]);
            bytes[14] = 0x45;
            bytes[20..22].copy_from_slice(&[0, 0]);
            bytes[23] = 17;
            bytes[34..36].copy_from_slice(&[4, port]);
            bench.incoming(Frame::plain(bytes));
        }
        bench.poll();
        let reports = bench.control.negotiated().contains(Features::HASH_REPORT);
        let mut counts = [0; 2];
        let mut batch = hugemem::Batch::new(64);
        for (pair, count) in counts.iter_mut().enumerate() {
            while drivers::nic::RxQueue::receive(&mut bench.queues[pair].rx, &mut batch) > 0 {
                *count += batch.len();
                assert!(!reports || batch.iter().all(|packet| packet.metadata().hash.is_some()), "packed {packed}");
                batch.clear();
            }
        }
        assert_eq!(counts[0] + counts[1], 32);
        assert!(counts.iter().all(|count| *count > 4), "{counts:?}");
        ended(bench, "hash");
    }
}

#[test]
fn large_frames_cross_buffers_both_ways() {
    for packed in [false, true] {
        for indirect in [false, true] {
            let what = format!("packed {packed}, indirect {indirect}");
            let _watchdog = Watchdog::new(what.clone());
            let mut plan = Plan::new(packed);
            plan.card.features.set(Features::INDIRECT_DESC, indirect);
            plan.driver.nic.ring_size = 64;
            let mut bench = started(&plan, &what);
            let large = bench.control.negotiated().contains(Features::GUEST_TSO4 | Features::MRG_RXBUF);
            assert!(large, "{what}: {:?}", bench.control.negotiated());
            for len in [1515, 2047, 2048, 2049, 9000, 65_549] {
                let large = large_frame(len);
                let bytes = large.bytes.clone();
                bench.incoming(large);
                bench.poll();
                let mut batch = hugemem::Batch::new(64);
                assert_eq!(
                    drivers::nic::RxQueue::receive(&mut bench.queues[0].rx, &mut batch),
                    1,
                    "{what}: {len} bytes"
                );
                let packet = batch.drain_front(1).next().unwrap();
                assert_eq!(common::look_at(&packet), bytes, "{what}: {len} bytes");
                let segmentation = packet.metadata().segmentation.unwrap();
                assert_eq!(segmentation.size, 1448);
                assert_eq!(packet.metadata().checksum, hugemem::Checksum::Partial { start: 34, offset: 16 });
                drop(batch);
                assert_eq!(bench.send(0, vec![packet]), 1);
                let sent = bench.outgoing();
                assert_eq!(sent.len(), 1, "{what}: {len} bytes were not sent");
                assert_eq!(sent[0].bytes, bytes, "{what}: {len} bytes");
                assert_eq!((sent[0].header.gso_type, sent[0].header.gso_size), (header_bits::GSO_TCPV4, 1448));
                assert_eq!((sent[0].header.checksum_start, sent[0].header.checksum_offset), (34, 16));
            }
            ended(bench, &what);
        }
    }
}

#[test]
fn a_large_frame_waits_for_more_buffers_than_are_left() {
    for packed in [false, true] {
        for doorbells in [Doorbells::Needed, Doorbells::Suppressed] {
            let what = format!("packed {packed}, {doorbells:?}");
            let _watchdog = Watchdog::new(what.clone());
            let mut plan = Plan::new(packed);
            plan.card.doorbells = doorbells;
            plan.driver.nic.ring_size = 64;
            let mut bench = started(&plan, &what);
            // Each takes more than half of the ring.
            let frames: Vec<Frame> = (0..6).map(|number| large_frame(65_000 + number)).collect();
            frames.iter().for_each(|large| bench.incoming(large.clone()));
            let received: Vec<Frame> = frames.iter().flat_map(|_| bench.receive(0)).collect();
            assert!(received.iter().map(|got| &got.bytes).eq(frames.iter().map(|sent| &sent.bytes)), "{what}");
            ended(bench, &what);
        }
    }
}

/// A frame of `len` bytes with the header of one that is to be cut into TCP segments.
fn large_frame(len: usize) -> Frame {
    let mut bytes = frame(len, len);
    tcp_v4(&mut bytes);
    let header = NetHeader {
        flags: header_bits::NEEDS_CSUM,
        gso_type: header_bits::GSO_TCPV4,
        header_len: 54,
        gso_size: 1448,
        checksum_start: 34,
        checksum_offset: 16,
        ..NetHeader::default()
    };
    Frame { header, pair: None, bytes }
}

/// Makes the frame look like TCP over IPv4 to whoever checks offloads.
fn tcp_v4(bytes: &mut [u8]) {
    let len = u16::try_from(bytes.len() - 14).unwrap_or(u16::MAX);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[16..18].copy_from_slice(&len.to_be_bytes());
    bytes[46] = 0x50;
}

#[test]
fn the_mtu_and_address_are_the_cards() {
    for packed in [false, true] {
        let mut plan = Plan::new(packed);
        plan.card.mtu = 1400;
        plan.driver.nic.mac = None;
        let bench = started(&plan, "mtu");
        assert_eq!(bench.nic.mtu(), 1400);
        assert_eq!(bench.nic.mac(), plan.card.mac);
        ended(bench, "mtu");
    }
}

#[test]
fn a_card_with_the_fewest_features_works() {
    for packed in [false, true] {
        let least = Features::VERSION_1 | Features::ACCESS_PLATFORM | Features::MAC;
        let mut plan = Plan::new(packed);
        plan.card =
            Config { features: least | if packed { Features::RING_PACKED } else { Features::empty() }, ..plan.card };
        let mut bench = started(&plan, "least");
        for number in 0..100 {
            bench.incoming(Frame::plain(frame(number, 60 + number)));
            assert_eq!(bench.receive(0)[0].bytes, frame(number, 60 + number));
            let packet = bench.packet(&frame(number, 60 + number));
            bench.send(0, vec![packet]);
            assert_eq!(bench.outgoing()[0].bytes, frame(number, 60 + number));
        }
        ended(bench, "least");
    }
}

#[test]
fn doorbells_may_be_anywhere() {
    for packed in [false, true] {
        for multiplier in [0, 4, 64, 4096] {
            let mut plan = Plan::new(packed);
            plan.card.notify_multiplier = multiplier;
            plan.card.doorbells = Doorbells::Needed;
            let mut bench = started(&plan, "doorbells");
            let packet = bench.packet(&frame(1, 60));
            bench.send(0, vec![packet]);
            assert_eq!(bench.outgoing().len(), 1, "multiplier {multiplier}");
            ended(bench, "doorbells");
        }
    }
}

#[test]
fn small_and_odd_queue_sizes_work() {
    for packed in [false, true] {
        for size in [2, 4, 8, 1024].into_iter().chain(packed.then_some(100)) {
            let what = format!("packed {packed}, size {size}");
            let _watchdog = Watchdog::new(what.clone());
            let mut plan = Plan::new(packed);
            plan.card.queue_size = size;
            plan.driver.nic.ring_size = 1024;
            plan.buffers = 1100;
            let mut bench = started(&plan, &what);
            for number in 0..50 {
                bench.incoming(Frame::plain(frame(number, 60)));
                assert_eq!(bench.receive(0).len(), 1, "{what}");
                let packet = bench.packet(&frame(number, 60));
                assert_eq!(bench.send(0, vec![packet]), 1, "{what}");
                assert_eq!(bench.outgoing().len(), 1, "{what}");
            }
            ended(bench, &what);
        }
    }
}

#[test]
fn a_card_that_would_bypass_the_iommu_is_refused() {
    let mut plan = Plan::new(false);
    plan.card.features.remove(Features::ACCESS_PLATFORM);
    let error = Bench::open(&plan).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("model"), "{error:?}");
}

#[test]
fn dropping_a_running_driver_stops_the_card() {
    for packed in [false, true] {
        let mut bench = started(&Plan::new(packed), "drop");
        bench.incoming(Frame::plain(frame(1, 60)));
        bench.receive(0);
        let control = bench.control.clone();
        bench.queues.clear();
        drop(bench);
        assert_eq!((control.status(), control.mapped_regions(), control.enabled_vectors()), (0, 0, 0));
        assert_eq!(control.faults(), vec![]);
    }
}

#[test]
fn a_forwarder_between_two_cards_on_another_thread_loses_nothing() {
    use drivers::nic::{RxQueue, TxQueue};
    use drivers::virtio::{self, RingChoice, VirtioNet};
    use models::virtio_net::{Traffic, TrafficPlan};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const FRAMES: u64 = 20_000;
    for packed in [false, true] {
        for doorbells in [Doorbells::Needed, Doorbells::Suppressed] {
            let what = format!("packed {packed}, {doorbells:?}");
            let _watchdog = Watchdog::new(what.clone());
            let plan = Plan::new(packed);
            let (one, two) = Traffic::pair(
                TrafficPlan { count: FRAMES, flows: 7, ..TrafficPlan::default() },
                TrafficPlan { count: FRAMES, flows: 3, frame_bytes: 1514, ..TrafficPlan::default() },
            );
            let counters = [one.counters(), two.counters()];
            let card = Config { doorbells, ..plan.card };
            let (first, mut first_card) = models::virtio_net::new(card.clone(), one);
            let (second, mut second_card) = models::virtio_net::new(card, two);
            let controls = [first_card.control(), second_card.control()];
            let ended = Arc::new(AtomicBool::new(false));
            let end = Arc::clone(&ended);
            let cards = std::thread::spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    if first_card.poll().is_idle() & second_card.poll().is_idle() {
                        std::thread::yield_now();
                    }
                }
            });
            let (memory, watch) = models::watched_region(8 << 20, hugemem::Iova::new(0x10_0000));
            let ring = if packed { RingChoice::Packed } else { RingChoice::Split };
            let mut nics: Vec<_> = [first, second]
                .into_iter()
                .map(|function| {
                    let pool = memory.packets(512, 2048).unwrap();
                    let config = virtio::Config { ring, ..virtio::Config::default() };
                    let clock = Arc::new(models::WallClock::default());
                    VirtioNet::open(function, clock, &memory, vec![pool], config).unwrap()
                })
                .collect();
            let mut pairs: Vec<_> = nics.iter_mut().map(|nic| nic.start().unwrap().remove(0)).collect();
            let mut batches = [hugemem::Batch::new(64), hugemem::Batch::new(64)];
            while counters.iter().any(|counters| counters.seen.load(Ordering::Relaxed) < FRAMES) {
                let mut moved = 0;
                for (from, batch) in batches.iter_mut().enumerate() {
                    moved += pairs[from].rx.receive(batch);
                    moved += pairs[1 - from].tx.transmit(batch);
                    pairs[1 - from].tx.reclaim();
                }
                if moved == 0 {
                    std::thread::yield_now();
                }
            }
            for (nic, pair) in nics.iter_mut().zip(pairs) {
                nic.check().unwrap_or_else(|error| panic!("{what}: {error}"));
                nic.stop(vec![(pair.rx, pair.tx)]).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            ended.store(true, Ordering::Relaxed);
            cards.join().unwrap();
            for (counters, control) in counters.iter().zip(controls) {
                assert_eq!(counters.seen.load(Ordering::Relaxed), FRAMES, "{what}");
                assert_eq!(counters.foreign.load(Ordering::Relaxed), 0, "{what}");
                assert_eq!(counters.disordered.load(Ordering::Relaxed), 0, "{what}");
                assert!(counters.latency.percentile(0.5).is_some());
                assert_eq!((control.violations(), control.faults()), (vec![], vec![]), "{what}");
            }
            drop((nics, batches, memory));
            assert!(watch.upgrade().is_none(), "{what}: a buffer was lost");
        }
    }
}
