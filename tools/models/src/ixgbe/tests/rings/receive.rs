use super::super::frames::{Recipe, UDP, sum};
use super::super::mini::{Got, Mini, SIZE, at};
use crate::card::Options;
use crate::ixgbe::{Config, Doorbells, Overrun};

fn status(got: &Got) -> u64 {
    got.high & 0xf_ffff
}

fn errors(got: &Got) -> u64 {
    got.high >> 20 & 0xfff
}

/// Bits of the extended status.
const DONE: u64 = 3;
const VP: u64 = 1 << 3;
const UDPCS: u64 = 1 << 4;
const L4CS: u64 = 1 << 5;
const IPCS: u64 = 1 << 6;
const PIF: u64 = 1 << 7;

#[test]
fn an_advanced_descriptor_tells_what_the_frame_is() {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue(0, 0);
    let cases = [
        (Recipe { tcp: false, ..UDP }, 0x21, DONE | UDPCS | L4CS | IPCS),
        (Recipe { tcp: true, ..UDP }, 0x11, DONE | L4CS | IPCS),
        (Recipe { tcp: false, version6: true, ..UDP }, 0x24, DONE | UDPCS | L4CS),
        (Recipe { tcp: true, version6: true, ..UDP }, 0x14, DONE | L4CS),
    ];
    for (recipe, kind, expected) in cases {
        let frame = recipe.build();
        let got = mini.exchange(0, &frame).unwrap();
        assert_eq!(got.bytes, frame);
        assert_eq!((status(&got), errors(&got), got.low >> 4 & 0x1fff), (expected, 0, kind));
        let mut bad = frame.clone();
        bad[60] ^= 1;
        assert_eq!(errors(&mini.exchange(0, &bad).unwrap()), 1 << 10, "L4E");
        if !recipe.version6 {
            let mut bad = frame;
            bad[22] -= 1;
            assert_eq!(errors(&mini.exchange(0, &bad).unwrap()), 1 << 11, "IPE");
        }
    }
    let mut unsummed = UDP.build();
    unsummed[40..42].copy_from_slice(&[0, 0]);
    let got = mini.exchange(0, &unsummed).unwrap();
    assert_eq!((status(&got), errors(&got)), (DONE | IPCS, 0), "a UDP checksum of zero is none");
    let got = mini.exchange(0, &[0x88; 60]).unwrap();
    assert_eq!((status(&got), got.low >> 4 & 0x1fff), (DONE, 0));
    assert_eq!(mini.get(0x4120), 6, "XEC counts bad checksums");
    mini.assert_honest();
}

#[test]
fn a_legacy_descriptor_keeps_its_buffer_and_has_status_and_errors() {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue_of(0, 1 << 30, 2, 8);
    let frame = Recipe { tag: Some(0x3045), ..UDP }.build();
    let got = mini.exchange(0, &frame).unwrap();
    assert_eq!(got.bytes, UDP.build(), "the tag was taken out");
    assert_eq!(got.high >> 48, 0x3045);
    assert_eq!(got.high >> 32 & 0xffff, DONE | VP | UDPCS | L4CS | IPCS);
    assert!(mini.read(got.low, got.bytes.len()) == got.bytes);
    let mut bad = UDP.build();
    bad[22] ^= 1;
    bad[60] ^= 1;
    assert_eq!(mini.exchange(0, &bad).unwrap().high >> 40 & 0xff, 0xc0, "IPE and TCPE");
    mini.assert_honest();
}

#[test]
fn frames_arrive_byte_for_byte_over_many_rounds_of_the_ring() {
    for message_dma in [false, true] {
        let mut mini = Mini::with(Config::default(), Options { message_dma, ..Options::default() });
        mini.receive_queue(0, 0);
        mini.receive_queue(127, 0);
        for round in 0..100_u8 {
            let frame: Vec<u8> = (0..60 + round).collect();
            mini.device.wire_mut().incoming.push_back(frame.clone());
            let got = (0..5).find_map(|_| {
                mini.device.poll();
                mini.received(0)
            });
            assert_eq!(got.unwrap().bytes, frame);
            mini.post(0, 1);
            assert_eq!(mini.get(at::receive(0) + 0x10), (u32::from(round) + 1) % SIZE, "RDH");
        }
        mini.assert_honest();
    }
}

#[test]
fn a_long_frame_fills_buffers_to_the_brim() {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue_of(0, 0, 1 << 25 | 1, SIZE - 1);
    mini.set(at::HLREG0, mini.get(at::HLREG0) | 4);
    mini.set(at::MAXFRS, 9018 << 16);
    let frame = Recipe { payload: 9000 - 28, ..UDP }.build();
    for _ in 0..3 {
        mini.device.wire_mut().incoming.push_back(frame.clone());
        mini.device.poll();
        let parts: Vec<Got> = std::iter::from_fn(|| mini.received(0)).collect();
        assert_eq!(parts.len(), 9);
        assert!(parts[..8].iter().all(|part| part.bytes.len() == 1024 && status(part) == 1));
        assert_eq!(status(&parts[8]), DONE | UDPCS | L4CS | IPCS);
        assert_eq!(parts.iter().flat_map(|part| part.bytes.clone()).collect::<Vec<u8>>(), frame);
        mini.post(0, 9);
    }
    // One byte more than MAXFRS, but a tag is free.
    assert_eq!(mini.exchange(0, &Recipe { payload: 9000 - 27, ..UDP }.build()), None);
    let tagged = Recipe { tag: Some(5), payload: 9000 - 28, ..UDP }.build();
    assert!(mini.exchange(0, &tagged).is_some());
    assert_eq!(mini.get(0x40ac), 1, "ROC");
    mini.assert_honest();
}

#[test]
fn ordinary_length_is_the_limit_without_jumbo_frames() {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue(0, 0);
    mini.set(at::MAXFRS, 9018 << 16);
    assert!(mini.exchange(0, &[0x88; 1514]).unwrap().is_last());
    assert_eq!(mini.exchange(0, &[0x88; 1515]), None);
    assert_eq!(mini.exchange(0, &[0x88; 13]), None);
    assert_eq!((mini.get(0x40ac), mini.get(0x40a4)), (1, 1), "ROC and RUC");
}

#[test]
fn a_length_field_that_says_too_much_is_an_error() {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue(0, 0);
    let mut frame = vec![0x88; 60];
    frame[12..14].copy_from_slice(&46_u16.to_be_bytes());
    assert!(mini.exchange(0, &frame).is_some());
    frame[13] = 47;
    assert_eq!(mini.exchange(0, &frame), None);
    assert_eq!((mini.get(0x4040), mini.get(0x4074)), (1, 1), "RLEC, GPRC");
    mini.set(at::FCTRL, 0x702);
    assert_eq!(errors(&mini.exchange(0, &frame).unwrap()), 1 << 9, "bad frames are stored, and marked");
    assert_eq!((mini.get(0x4040), mini.get(0x4074)), (1, 0));
}

#[test]
fn short_frames_are_padded_and_the_check_sequence_is_kept_on_request() {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue(0, 1 << 30);
    let got = mini.exchange(0, &[0x88; 20]).unwrap();
    assert_eq!(got.bytes, [[0x88; 20].as_slice(), &[0; 40]].concat());
    mini.set(at::HLREG0, mini.get(at::HLREG0) & !2);
    mini.set(at::RDRXCTL, mini.get(at::RDRXCTL) & !2);
    let mut frame = vec![0x88; 64];
    frame[12..16].copy_from_slice(&[0x81, 0, 0, 9]);
    let got = mini.exchange(0, &frame).unwrap();
    assert_eq!(got.bytes.len(), 64, "tag out, check sequence in");
    // The check sequence of data followed by itself leaves this residue (IEEE 802.3, clause 3.2.9).
    let mut whole = frame;
    whole.extend_from_slice(&got.bytes[60..]);
    let residue = whole.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    assert_eq!(residue, 0xdebb_20e3);
}

#[test]
fn tags_stay_unless_the_queue_strips_and_may_change_while_it_runs() {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue(0, 0);
    let frame = Recipe { tag: Some(0x2064), ..UDP }.build();
    let got = mini.exchange(0, &frame).unwrap();
    assert_eq!((got.bytes.as_slice(), status(&got) & VP, got.high >> 48), (frame.as_slice(), VP, 0));
    mini.set(at::receive(0) + 0x28, 1 << 25 | 1 << 30);
    let got = mini.exchange(0, &frame).unwrap();
    assert_eq!((got.bytes, got.high >> 48), (UDP.build(), 0x2064));
    // Double tags: the inner one is taken out.
    mini.set(at::CTRL_EXT, mini.get(at::CTRL_EXT) | 1 << 26);
    mini.set(0x5078, 0x88a8_0000);
    let mut double = frame.clone();
    double.splice(12..12, [0x88, 0xa8, 0, 7]);
    let got = mini.exchange(0, &double).unwrap();
    let mut expected = UDP.build();
    expected.splice(12..12, [0x88, 0xa8, 0, 7]);
    assert_eq!((status(&got) & 1 << 9, got.high >> 48, got.bytes), (1 << 9, 0x2064, expected));
    let offloads = mini.control.with(|chip, _| chip.offloads());
    assert_eq!((offloads.rx_tags, offloads.rx_checksums), (2, 3));
}

#[test]
fn scaling_spreads_by_the_table_and_reports_the_hash() {
    let mut mini = Mini::new(Config::default());
    for queue in 0..4 {
        mini.receive_queue(queue, 0);
    }
    for index in 0..10 {
        mini.set(at::RSSRK + 4 * index, 0x9e37_79b9_u32.wrapping_mul(index + 1));
    }
    for index in 0..32 {
        mini.set(at::RETA + 4 * index, 0x0302_0100);
    }
    mini.set(at::MRQC, 0x00f3_0001);
    let mut seen = [0; 4];
    for port in 0..32 {
        let frame = Recipe { ports: [port, 7], ..UDP }.build();
        mini.device.wire_mut().incoming.push_back(frame.clone());
        mini.device.poll();
        let queue = (0..4).find(|queue| {
            let got = mini.received(*queue);
            if let Some(got) = &got {
                assert_eq!((got.low >> 32) & 3, u64::from(*queue), "the hash picked the queue");
                assert_eq!((got.low & 15, &got.bytes), (7, &frame), "a UDP hash");
                mini.post(*queue, 1);
            }
            got.is_some()
        });
        seen[queue.unwrap() as usize] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    mini.assert_honest();
}

#[test]
fn a_hash_of_the_address_alone_is_marked_inexact() {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue(0, 0);
    mini.set(at::FCTRL, 0);
    let group = [[1, 0, 0x5e, 0x12, 0x34, 0x56].as_slice(), &[0; 54]].concat();
    assert_eq!(mini.exchange(0, &group), None);
    mini.set(0x5200 + 4 * (0x563 >> 5), 1 << (0x563 & 31));
    mini.set(0x5090, 4);
    assert_eq!(status(&mini.exchange(0, &group).unwrap()), DONE | PIF);
    assert_eq!((mini.get(0x41b0), mini.get(0x4074)), (2, 1), "one was filtered: RXNFGPC, GPRC");
}

#[test]
fn fragments_report_identification_and_sum() {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue(0, 0);
    mini.set(at::RXCSUM, 1 << 12);
    let mut frame = UDP.build();
    frame[20] = 0x20;
    let got = mini.exchange(0, &frame).unwrap();
    assert_eq!(got.low >> 32, u64::from(sum(&[&frame[34..]])) << 16 | 0x12fe);
    assert_eq!(status(&got) & (UDPCS | L4CS | 1 << 10), UDPCS | 1 << 10, "the first one says that there is a checksum");
    frame[21] = 0x10;
    assert_eq!(status(&mini.exchange(0, &frame).unwrap()) & (UDPCS | L4CS | 1 << 10), UDPCS);
}

#[test]
fn without_a_descriptor_frames_wait_or_are_dropped_and_counted() {
    let push = |mini: &mut Mini, count: u8| {
        for index in 0..count {
            mini.device.wire_mut().incoming.push_back(vec![0x88 + 4 * index; 60]);
        }
    };
    // Drop_En; which counter; frames that wait on the wire; frames dropped.
    for (overrun, drop, counter, waiting, dropped) in [
        (Overrun::AsConfigured, false, 0x3fa0, 3, 0),
        (Overrun::AsConfigured, true, 0x1430, 0, 3),
        (Overrun::Wait, true, 0x1430, 3, 0),
        (Overrun::Drop, false, 0x3fa0, 0, 3),
    ] {
        let mut mini = Mini::new(Config { overrun, doorbells: Doorbells::Trapped, ..Config::default() });
        let split = 1 << 25 | 2 | u32::from(drop) << 28;
        mini.receive_queue_of(0, 0, split, 2);
        push(&mut mini, 5);
        mini.device.poll();
        assert_eq!(mini.device.wire().incoming.len(), waiting);
        assert_eq!(mini.get(counter), dropped, "{overrun:?} {drop}");
        assert_eq!(std::iter::from_fn(|| mini.received(0)).count(), 2);
        mini.post(0, 5);
        mini.device.poll();
        assert_eq!(std::iter::from_fn(|| mini.received(0)).count(), waiting);
        mini.assert_honest();
    }
}

#[test]
fn statistics_are_exact() {
    let mut mini = Mini::new(Config { doorbells: Doorbells::Trapped, ..Config::default() });
    mini.receive_queue(0, 0);
    mini.set(0x2300, 5);
    let group = [1, 0, 0x5e, 0, 0, 1];
    for (length, target) in [(60, [2; 6]), (61, [2; 6]), (200, [0xff; 6]), (500, group), (1000, [2; 6]), (1514, [2; 6])]
    {
        let mut frame = vec![0; length];
        frame[..6].copy_from_slice(&target);
        frame[12] = 8;
        assert!(mini.exchange(0, &frame).is_some());
    }
    let bytes = 60 + 61 + 200 + 500 + 1000 + 1514;
    for (index, register) in (0x405c..=0x4070).step_by(4).enumerate() {
        assert_eq!(mini.get(register), 1, "size {index}");
    }
    assert_eq!([0x4074, 0x4078, 0x407c, 0x40d0].map(|register| mini.get(register)), [6, 1, 1, 6]);
    assert_eq!([0x4088, 0x40c0].map(|register| mini.octets(register)), [bytes + 24; 2], "GORC, TOR");
    // The queue counts in set 5, without check sequences.
    assert_eq!((mini.get(0x1030 + 5 * 0x40), mini.octets(0x1034 + 5 * 0x40)), (6, bytes));
    assert_eq!((mini.get(0x1030 + 5 * 0x40), mini.get(0x4074)), (0, 0), "reading clears");
}

#[test]
fn a_queue_follows_its_enable_bit() {
    let mut mini = Mini::new(Config { doorbells: Doorbells::Trapped, ..Config::default() });
    let control = at::receive(0) + 0x28;
    mini.receive_queue(0, 0);
    assert_eq!(mini.get(control) & 1 << 25, 0, "not yet");
    mini.device.poll();
    assert_ne!(mini.get(control) & 1 << 25, 0);
    assert!(mini.exchange(0, &[0x88; 60]).is_some());
    mini.set(control, 0);
    mini.device.poll();
    assert_eq!(mini.get(control) & 1 << 25, 0);
    assert_eq!(mini.exchange(0, &[0x88; 60]), None, "nobody is there to receive it");
    assert_eq!(mini.get(0x3fa0), 1, "RXMPC");
    mini.receive_queue(0, 0);
    assert!(mini.exchange(0, &[0x88; 60]).is_some());
    mini.assert_honest();
}

#[test]
fn rings_that_cannot_be_are_violations_and_do_not_run() {
    for (word, value) in [(0x08, 0), (0x08, 100), (0x08, 1 << 20), (0x00, 0x4000_0010), (0x14, 1 << 25), (0x10, SIZE)] {
        let mut mini = Mini::new(Config::default());
        mini.receive_queue(0, 0);
        mini.set(at::receive(0) + word, value);
        assert_eq!(mini.exchange(0, &[0x88; 60]), None);
        assert_eq!(mini.control.violations().len(), 1, "{word:#x}: {:?}", mini.control.violations());
    }
    let mut mini = Mini::new(Config::default());
    mini.receive_queue(0, 0);
    mini.set(at::receive(0) + 0x18, SIZE);
    assert_eq!(mini.exchange(0, &[0x88; 60]), None);
    assert_eq!(mini.control.violations().len(), 1, "a tail beyond the ring");
}

#[test]
fn a_ring_that_is_not_mapped_is_a_recorded_fault_and_hangs() {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue(0, 0);
    mini.set(at::receive(0), 0x2000_0000);
    for _ in 0..3 {
        assert_eq!(mini.exchange(0, &[0x88; 60]), None);
    }
    assert_eq!(mini.control.fault_count(), 1);
    assert_eq!(mini.control.violations(), Vec::<String>::new());
}
