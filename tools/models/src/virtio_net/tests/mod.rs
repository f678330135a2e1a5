//! The model against a driver of a few lines, written from the specification like the model, but with numbers of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mini;

use drivers::bus::{Bar, Interrupt, PciFunction};
use hugemem::{Iova, Region};
use std::time::Duration;

use self::mini::{Mini, Part};
use super::{Config, Control, Device, Doorbells, Fault, Features, Frame, NetHeader, QueueWire, Traffic, TrafficPlan};

const BASE: Features = Features::VERSION_1.union(Features::ACCESS_PLATFORM);

fn config(packed: bool, extra: Features) -> Config {
    let features = if packed { Config::USUAL | Features::RING_PACKED } else { Config::USUAL };
    Config { features: features | extra, queue_size: 16, ..Config::default() }
}

fn card(packed: bool, wanted: Features) -> (Mini, Device<QueueWire>, Control) {
    card_with(config(packed, wanted), packed, wanted)
}

fn card_with(config: Config, packed: bool, wanted: Features) -> (Mini, Device<QueueWire>, Control) {
    let ring = if packed { Features::RING_PACKED } else { Features::empty() };
    let (function, device) = super::new(config, QueueWire::default());
    let control = device.control();
    (Mini::start(function, BASE | ring | wanted), device, control)
}

fn honest(control: &Control) {
    assert_eq!(control.violations(), Vec::<String>::new());
    assert_eq!(control.faults(), vec![]);
}

#[test]
fn frames_arrive_and_leave_byte_for_byte_over_many_rounds_of_the_ring() {
    for packed in [false, true] {
        for extra in
            [Features::empty(), Features::EVENT_IDX, Features::IN_ORDER, Features::EVENT_IDX | Features::IN_ORDER]
        {
            let (mut mini, mut device, control) = card(packed, extra);
            for round in 0..50_u8 {
                let frame: Vec<u8> = (0..60 + round).collect();
                let buffer = mini.write(&[0; 200]);
                mini.post(0, &[Part::out_to(buffer, 200)]);
                device.wire_mut().incoming.push_back(Frame::plain(frame.clone()));
                let mut sent = vec![0; 12];
                sent.extend(&frame);
                let out = mini.write(&sent);
                mini.post(1, &[Part::r#in(out, 12), Part::r#in(out + 12, frame.len())]);
                let work = device.poll();
                assert_eq!((work.received, work.transmitted), (1, 1), "packed {packed} {extra:?} round {round}");
                assert_eq!(mini.used(0), Some(12 + frame.len()));
                assert_eq!(mini.used(1), Some(0));
                let got = mini.read(buffer, 12 + frame.len());
                assert_eq!(got[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
                assert_eq!(got[12..], frame[..]);
                assert_eq!(device.wire_mut().outgoing.pop_front().unwrap().bytes, frame);
            }
            honest(&control);
        }
    }
}

#[test]
fn a_large_frame_fills_mergeable_buffers_to_the_brim() {
    for packed in [false, true] {
        let wanted = Features::MRG_RXBUF | Features::GUEST_CSUM | Features::GUEST_TSO4;
        let (mut mini, mut device, control) = card(packed, wanted);
        let header = NetHeader {
            flags: 1,
            gso_type: 1,
            gso_size: 1448,
            checksum_start: 34,
            checksum_offset: 16,
            ..NetHeader::default()
        };
        let bytes: Vec<u8> = (0..3000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        device.wire_mut().incoming.push_back(Frame { header, pair: None, bytes: bytes.clone() });
        let first = mini.write(&[0; 1024]);
        mini.post(0, &[Part::out_to(first, 1024)]);
        assert_eq!(device.poll().received, 0, "one buffer does not hold it, so it waits");
        assert_eq!(mini.used(0), None);
        let rest: Vec<u64> = (0..2).map(|_| mini.write(&[0; 1024])).collect();
        rest.iter().for_each(|buffer| mini.post(0, &[Part::out_to(*buffer, 1024)]));
        assert_eq!(device.poll().received, 1);
        assert_eq!([mini.used(0), mini.used(0), mini.used(0)], [Some(1024), Some(1024), Some(3012 - 2048)]);
        let mut got = mini.read(first, 1024);
        got.extend(mini.read(rest[0], 1024));
        got.extend(mini.read(rest[1], 3012 - 2048));
        assert_eq!(got[..12], header.bytes(3)[..12]);
        assert_eq!(got[12..], bytes[..]);
        honest(&control);
    }
}

#[test]
fn indirect_descriptors_are_followed() {
    for packed in [false, true] {
        let (mut mini, mut device, control) = card(packed, Features::INDIRECT_DESC);
        let out = mini.write(&[&[0; 12][..], b"one two three four five six"].concat());
        mini.post_indirect(1, &[Part::r#in(out, 12), Part::r#in(out + 12, 7), Part::r#in(out + 19, 20)]);
        assert_eq!(device.poll().transmitted, 1);
        assert_eq!(device.wire().outgoing[0].bytes, b"one two three four five six");
        assert_eq!(mini.used(1), Some(0));
        honest(&control);
    }
}

#[test]
fn commands_are_carried_out_or_refused() {
    for packed in [false, true] {
        let wanted = Features::CTRL_VQ | Features::CTRL_RX | Features::CTRL_MAC_ADDR | Features::MAC;
        let filtering = Config { filtering: true, ..config(packed, Features::empty()) };
        let (mut mini, mut device, control) = card_with(filtering, packed, wanted);
        assert!(!control.is_promiscuous());
        assert_eq!(mini.command(2, &[0, 0, 1], &mut device), Some(0));
        assert!(control.is_promiscuous());
        assert_eq!(mini.command(2, &[1, 1, 2, 4, 6, 8, 10, 12], &mut device), Some(0));
        assert_eq!(control.mac().0, [2, 4, 6, 8, 10, 12]);
        assert_eq!(mini.network_byte(5), 12);
        assert!(control.violations().is_empty());
        assert_eq!(mini.command(2, &[4, 0, 9, 0], &mut device), Some(1));
        assert_eq!(control.violations().len(), 1, "a multi-queue command without VIRTIO_NET_F_MQ");
    }
}

#[test]
fn receive_scaling_spreads_flows_by_the_table() {
    let several =
        Config { pairs: 2, features: Config::USUAL | Features::HASH_REPORT, ..config(false, Features::empty()) };
    let wanted = Features::CTRL_VQ | Features::RSS | Features::HASH_REPORT;
    let (mut mini, mut device, control) = card_with(several, false, wanted);
    let mut command = vec![4, 1, 0x3f, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 40];
    command.extend((0..40_u8).map(|n| n.wrapping_mul(37) ^ 0x5a));
    assert_eq!(mini.command(4, &command, &mut device), Some(0));
    assert!(control.scales());
    let mut seen = [0; 2];
    for port in 0..16 {
        let mut frame = vec![0; 60];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[23] = 17;
        frame[35] = port + 1;
        device.wire_mut().incoming.push_back(Frame::plain(frame));
    }
    let buffers: Vec<u64> = (0..32).map(|_| mini.write(&[0; 100])).collect();
    for (index, buffer) in buffers.iter().enumerate() {
        mini.post(2 * (index % 2), &[Part::out_to(*buffer, 100)]);
    }
    device.poll();
    for (pair, seen) in seen.iter_mut().enumerate() {
        while let Some(len) = mini.used(2 * pair) {
            assert_eq!(len, 80);
            *seen += 1;
        }
    }
    assert_eq!(seen.iter().sum::<i32>(), 16);
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert_ne!(mini.read(buffers[0] + 12, 4), [0; 4], "a hash is reported");
    honest(&control);
}

#[test]
fn a_queue_sleeps_until_its_doorbell_rings() {
    for packed in [false, true] {
        for extra in [Features::empty(), Features::EVENT_IDX] {
            let needed = Config { doorbells: Doorbells::Needed, ..config(packed, extra) };
            let (mut mini, mut device, control) = card_with(needed, packed, extra);
            device.poll();
            let out = mini.write(&[0; 72]);
            mini.post_silently(1, &[Part::r#in(out, 72)]);
            assert!(device.poll().is_idle(), "nobody rang");
            mini.ring_bell(1);
            assert_eq!(device.poll().transmitted, 1);
            honest(&control);
        }
    }
}

#[test]
fn interrupts_come_when_wanted_and_only_then() {
    for packed in [false, true] {
        let (mut mini, mut device, _) = card(packed, Features::empty());
        let out = mini.write(&[0; 72]);
        mini.post(1, &[Part::r#in(out, 72)]);
        device.poll();
        assert!(mini.interrupts[1].wait(Duration::ZERO).unwrap());
        assert!(!mini.interrupts[1].wait(Duration::ZERO).unwrap());
        mini.want_interrupts(1, false);
        mini.post(1, &[Part::r#in(out, 72)]);
        device.poll();
        assert!(!mini.interrupts[1].wait(Duration::ZERO).unwrap());
    }
}

#[test]
fn a_change_of_the_link_interrupts_and_moves_the_generation() {
    let (mut mini, device, control) = card(false, Features::STATUS);
    let before = mini.generation();
    assert_eq!(mini.network_byte(6), 1);
    assert_eq!(mini.generation(), before);
    device.control().set_link(false);
    assert!(mini.interrupts[2].wait(Duration::ZERO).unwrap());
    assert_eq!(mini.network_byte(6), 0);
    assert_ne!(mini.generation(), before);
    honest(&control);
}

#[test]
fn memory_that_is_not_mapped_is_refused_recorded_and_breaks_the_queue() {
    for packed in [false, true] {
        let (mut mini, mut device, control) = card(packed, Features::empty());
        mini.post(1, &[Part::r#in(0xdead_0000, 72)]);
        assert!(device.poll().is_idle());
        assert_eq!(control.faults()[0].address, 0xdead_0000);
        assert_eq!(control.status() & 64, 64, "needs reset");
        assert_eq!(mini.used(1), None);
    }
}

#[test]
fn an_unmapped_ring_is_a_fault() {
    let (mut mini, mut device, control) = card(false, Features::empty());
    device.poll();
    let region = mini.region.clone();
    mini.function.unmap(&region).unwrap();
    device.poll();
    assert!(control.fault_count() > 0);
    assert!(control.violations()[0].contains("unmapped"), "{:?}", control.violations());
}

#[test]
fn after_a_reset_nothing_is_touched() {
    let (mut mini, mut device, control) = card(false, Features::empty());
    let buffer = mini.write(&[0; 200]);
    mini.post(0, &[Part::out_to(buffer, 200)]);
    mini.reset();
    device.wire_mut().incoming.push_back(Frame::plain(vec![7; 60]));
    assert!(device.poll().is_idle());
    assert_eq!(mini.read(buffer, 200), vec![0; 200]);
    assert_eq!(control.status(), 0);
}

#[test]
fn a_driver_that_takes_what_was_not_offered_is_refused() {
    let (function, device) = super::new(Config { features: BASE, ..Config::default() }, QueueWire::default());
    let mini = Mini::start(function, BASE | Features::CSUM);
    assert!(!device.control().is_running());
    assert!(!device.control().violations().is_empty());
    drop(mini);
}

#[test]
fn a_removed_card_reads_all_ones() {
    let (mini, device, control) = card(false, Features::empty());
    control.remove();
    assert_eq!(mini.generation(), 0xff);
    assert_eq!(mini.function.read_config(0).unwrap(), u32::MAX);
    drop(device);
}

#[test]
fn dropping_the_function_gives_all_memory_back() {
    let (mini, mut device, control) = card(false, Features::empty());
    device.poll();
    let region = mini.region.clone();
    assert_eq!(control.mapped_regions(), 1);
    drop(mini);
    assert_eq!((control.mapped_regions(), control.enabled_vectors()), (0, 0));
    assert!(device.poll().is_idle());
    drop(region);
}

#[test]
fn a_register_outside_the_window_is_all_ones() {
    let (mut mini, _device, control) = card(false, Features::empty());
    let window = mini.function.bar(4).unwrap();
    assert_eq!(window.load::<u32>(0xffff_fffc), u32::MAX);
    assert_eq!(window.load::<u16>(0x101), u16::MAX);
    window.store::<u32>(0xffff_fffc, 0);
    assert!(mini.function.bar(0).is_err());
    honest(&control);
}

#[test]
fn a_map_outside_the_reported_ranges_is_refused() {
    let (mut mini, _device, _) = card(false, Features::empty());
    let region = Region::on_heap(4096, Iova::new(0xfee0_0000)).unwrap();
    assert!(mini.function.map(&region).is_err());
}

#[test]
fn lies_begin_after_some_honest_buffers_and_end_when_told() {
    for packed in [false, true] {
        let (mut mini, mut device, control) = card(packed, Features::empty());
        control.lie(Some(Fault::LengthHuge), None);
        let lengths = |mini: &mut Mini, device: &mut Device<QueueWire>| -> Vec<Option<usize>> {
            (0..8)
                .map(|_| {
                    let buffer = mini.write(&[0; 100]);
                    mini.post(0, &[Part::out_to(buffer, 100)]);
                    device.wire_mut().incoming.push_back(Frame::plain(vec![1; 60]));
                    device.poll();
                    mini.used(0)
                })
                .collect()
        };
        let lied = lengths(&mut mini, &mut device);
        assert_eq!(lied[..5], [Some(72); 5]);
        assert_eq!(lied[5..], [Some(u32::MAX as usize); 3]);
        control.lie(None, None);
        assert_eq!(lengths(&mut mini, &mut device), [Some(72); 8]);
    }
}

#[test]
fn traffic_that_comes_back_in_order_is_counted_as_such() {
    let (mut one, mut two) = Traffic::pair(
        TrafficPlan { count: 100, ..TrafficPlan::default() },
        TrafficPlan { count: 0, ..TrafficPlan::default() },
    );
    // A wire between the two wires: what one makes is transmitted to the other through a pretended card.
    let (mut mini, mut device, _) = card(false, Features::empty());
    use super::wire::Wire;
    let mut made = 0;
    while let Some(incoming) = one.peek() {
        let bytes = [&[0; 12][..], incoming.bytes].concat();
        one.advance();
        let out = mini.write(&bytes);
        mini.post(1, &[Part::r#in(out, bytes.len())]);
        device.poll();
        mini.used(1);
        made += 1;
    }
    assert_eq!(made, 100);
    assert!(two.peek().is_none());
    assert_eq!(device.wire().outgoing.len(), 100);
    assert_eq!(one.counters().made.load(std::sync::atomic::Ordering::Relaxed), 100);
}
