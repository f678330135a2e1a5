use super::super::frames::{Recipe, UDP};
use super::super::mini::{DATA, DEXT, EOP, IFCS, IXSM, Mini, RS, SIZE, TSE, TXSM, VLE, at};
use crate::card::Options;
use crate::ixgbe::Config;

fn card() -> Mini {
    let mut mini = Mini::new(Config::default());
    mini.transmit_queue(0);
    mini
}

/// An advanced context descriptor for slot `slot`.
fn context(recipe: &Recipe, slot: u64, tag: u16, segment: u16) -> [u64; 2] {
    let link = recipe.network() as u64;
    let network = if recipe.version6 { 40 } else { 20 };
    let (kind, length) = if recipe.tcp { (1, 20) } else { (0, 8) };
    let low = network | link << 9 | u64::from(tag) << 16;
    let high = u64::from(!recipe.version6) << 10 | kind << 11 | 2 << 20 | DEXT | slot << 36 | length << 40;
    [low, high | u64::from(segment) << 48]
}

/// As a driver hands a frame over: pseudo header's sum in the checksum field.
fn prepared(recipe: &Recipe, segmented: bool) -> Vec<u8> {
    let mut frame = recipe.build();
    let length = if segmented { 0 } else { frame.len() - recipe.transport() };
    let at = recipe.checksum();
    frame[at..at + 2].copy_from_slice(&recipe.pseudo(length).to_be_bytes());
    if !recipe.version6 {
        frame[24 + recipe.network() - 14..26 + recipe.network() - 14].copy_from_slice(&[0, 0]);
    }
    frame
}

#[test]
fn frames_leave_byte_for_byte_over_many_rounds_of_the_ring() {
    for message_dma in [false, true] {
        let mut mini = Mini::with(Config::default(), Options { message_dma, ..Options::default() });
        mini.transmit_queue(0);
        mini.transmit_queue(127);
        for round in 0..60_u8 {
            let queue = if round % 2 == 0 { 0 } else { 127 };
            let frame: Vec<u8> = (0..60 + round).collect();
            // In two pieces, the second of which reports.
            let address = mini.store(&frame);
            let length = frame.len() as u64;
            let first = DATA | 20 | length << 46;
            let last = mini.put(queue, &[[address, first], [address + 20, DATA | EOP | RS | (length - 20)]]);
            assert!(!mini.is_done(last));
            let sent = (0..8).map(|_| mini.sent()).find(|sent| !sent.is_empty());
            assert_eq!(sent.unwrap(), [frame]);
            assert!(mini.is_done(last));
            let head = mini.get(at::transmit(queue) + 0x10);
            assert_eq!(head, 2 * (u32::from(round) / 2 + 1) % SIZE, "TDH");
        }
        mini.assert_honest();
    }
}

#[test]
fn legacy_descriptors_insert_checksum_and_tag() {
    let mut mini = card();
    let recipe = Recipe { tcp: true, ..UDP };
    let mut frame = prepared(&recipe, false);
    frame[24..26].copy_from_slice(&recipe.build()[24..26]);
    let address = mini.store(&frame);
    let (start, offset) = (recipe.transport() as u64, recipe.checksum() as u64);
    let command = EOP | IFCS | RS | 1 << 26 | VLE;
    let high = frame.len() as u64 | offset << 16 | command | start << 40 | 0x6123 << 48;
    let at = mini.put(0, &[[address, high]]);
    assert_eq!(mini.sent(), [Recipe { tag: Some(0x6123), ..recipe }.build()]);
    assert!(mini.is_done(at));
    assert_eq!(mini.read(at, 8), address.to_le_bytes(), "a legacy descriptor keeps its fields");
    // Without padding, a short frame would not be one.
    let address = mini.store(&[2; 20]);
    mini.put(0, &[[address, 20 | EOP | IFCS]]);
    assert_eq!(mini.sent(), [[[2; 20].as_slice(), &[0; 40]].concat()]);
    let offloads = mini.control.with(|chip, _| chip.offloads());
    assert_eq!((offloads.tx_checksums, offloads.tx_tags), (1, 1));
    mini.assert_honest();
}

#[test]
fn a_driver_may_bring_its_own_check_sequence() {
    let mut mini = card();
    let frame = [[2; 60].as_slice(), &[9; 4]].concat();
    let address = mini.store(&frame);
    mini.put(0, &[[address, 64 | EOP]]);
    assert_eq!(mini.sent(), [[2; 60]], "which the wire here does not have");
}

#[test]
fn checksums_follow_the_context_that_a_frame_names() {
    let mut mini = card();
    let (udp, tcp6) = (UDP, Recipe { tcp: true, version6: true, tag: Some(8), ..UDP });
    mini.put(0, &[context(&udp, 0, 0, 0), context(&tcp6, 1, 0x0fff, 0)]);
    assert_eq!(mini.sent(), Vec::<Vec<u8>>::new());
    assert_eq!(mini.get(at::transmit(0) + 0x10), 2, "contexts are taken at once");
    mini.send(0, &prepared(&udp, false), IXSM | TXSM);
    mini.send(0, &prepared(&tcp6, false), TXSM | 1 << 36);
    mini.send(0, &UDP.build(), 0);
    mini.send(0, &UDP.build(), VLE | 1 << 36);
    let tagged = Recipe { tag: Some(0x0fff), ..UDP }.build();
    assert_eq!(mini.sent(), [udp.build(), tcp6.build(), UDP.build(), tagged]);
    mini.assert_honest();
}

#[test]
fn segmentation_makes_whole_frames_and_bears_a_wire_that_stops() {
    for recipe in [
        Recipe { tcp: true, payload: 5000, ..UDP },
        Recipe { tcp: true, version6: true, payload: 5000, ..UDP },
        Recipe { payload: 5000, ..UDP },
    ] {
        let mut mini = card();
        let whole = prepared(&recipe, true);
        let header = recipe.transport() + if recipe.tcp { 20 } else { 8 };
        let address = mini.store(&whole);
        let rest = whole.len() - header;
        let command = DATA | TSE | VLE | TXSM | if recipe.version6 { 0 } else { IXSM };
        let first = command | header as u64 | (rest as u64) << 46;
        let last = DATA | EOP | RS | TSE | rest as u64;
        mini.device.wire_mut().room = 2;
        let at = mini.put(0, &[context(&recipe, 0, 0x0155, 1460), [address, first], [address + header as u64, last]]);
        let mut frames = mini.sent();
        assert_eq!(frames.len(), 2);
        assert!(!mini.is_done(at));
        frames.extend(mini.sent());
        assert!(mini.is_done(at));
        assert_eq!(frames.len(), 4);
        let tagged = Recipe { tag: Some(0x0155), ..recipe };
        let payload: Vec<u8> = frames
            .iter()
            .flat_map(|frame| {
                assert!(tagged.is_sound(frame));
                frame[header + 4..].to_vec()
            })
            .collect();
        assert_eq!(payload, recipe.build()[header..]);
        let offloads = mini.control.with(|chip, _| chip.offloads());
        assert_eq!((offloads.tx_segmentations, offloads.tx_tags), (1, 1));
        assert_eq!(mini.get(0x4080), 4, "GPTC counts segments");
        mini.assert_honest();
    }
}

#[test]
fn a_short_tcp_segment_is_padded() {
    let mut mini = card();
    let recipe = Recipe { tcp: true, payload: 1001, ..UDP };
    mini.put(0, &[context(&recipe, 0, 0, 1000)]);
    let whole = prepared(&recipe, true);
    let address = mini.store(&whole);
    let (length, payload) = (whole.len() as u64, 1001_u64);
    mini.put(0, &[[address, DATA | EOP | TSE | IXSM | TXSM | length | payload << 46]]);
    let sent = mini.sent();
    assert_eq!((sent[0].len(), sent[1].len()), (1054, 60));
    assert!(recipe.is_sound(&sent[1]));
}

#[test]
fn the_head_is_written_back_instead_of_descriptors() {
    let mut mini = card();
    let report = mini.allocate(4);
    mini.write(report, &[0xff; 4]);
    let page = at::transmit(0);
    mini.set(page + 0x28, 0);
    mini.device.poll();
    mini.set(page + 0x38, u32::try_from(report).unwrap() | 1);
    mini.set(page + 0x28, 1 << 25);
    let at = mini.send(0, &UDP.build(), 0);
    mini.send(0, &UDP.build(), 0);
    assert_eq!(mini.sent().len(), 2);
    assert_eq!(mini.read(report, 4), [2, 0, 0, 0]);
    assert!(!mini.is_done(at));
    mini.assert_honest();
}

#[test]
fn nothing_leaves_while_transmit_is_off_or_the_end_of_a_frame_is_missing() {
    let mut mini = card();
    mini.set(at::DMATXCTL, mini.get(at::DMATXCTL) & !1);
    mini.send(0, &UDP.build(), 0);
    assert_eq!(mini.sent(), Vec::<Vec<u8>>::new());
    mini.set(at::DMATXCTL, mini.get(at::DMATXCTL) | 1);
    assert_eq!(mini.sent(), [UDP.build()]);
    let address = mini.store(&[2; 80]);
    mini.put(0, &[[address, DATA | 20 | 80 << 46]]);
    assert_eq!(mini.sent(), Vec::<Vec<u8>>::new());
    mini.put(0, &[[address + 20, DATA | EOP | 60]]);
    assert_eq!(mini.sent(), [[2; 80]]);
    mini.assert_honest();
}

#[test]
fn descriptors_that_make_no_sense_hang_their_queue_and_no_other() {
    type Descriptors = fn(u64) -> Vec<[u64; 2]>;
    let recipe = Recipe { tcp: true, ..UDP };
    let good = |mini: &mut Mini| mini.store(&[2; 60]);
    let cases: [Descriptors; 8] = [
        |at| vec![[at, DATA | EOP | 60 | 61 << 46]],
        |at| vec![[at, DATA | EOP | 16 | 16 << 46]],
        |at| vec![[at, (DATA ^ 1 << 20) ^ 1 << 21 | 7 << 20 | EOP | 60]],
        |at| vec![[at, DATA | 60 | 60 << 46], [0, 2 << 20 | DEXT], [at, DATA | EOP | 60]],
        |at| vec![[at, DATA | 60 | 60 << 46], [at, EOP | IFCS | 60]],
        |at| vec![[at, DATA | EOP | TSE | IXSM | TXSM | 60 | 6 << 46]],
        |at| vec![[at, DATA | EOP | 60 | 60 << 46 | 1 << 42]],
        |at| vec![[at, DATA | EOP | TXSM | 60 | 60 << 46 | 1 << 36]],
    ];
    for (index, case) in cases.into_iter().enumerate() {
        let mut mini = card();
        mini.transmit_queue(1);
        // A context that cannot insert or segment anything.
        mini.put(0, &[context(&recipe, 0, 0, 0), [60 << 9, 2 << 20 | DEXT | 3 << 11 | 1 << 36]]);
        let at = good(&mut mini);
        mini.put(0, &case(at));
        mini.send(1, &UDP.build(), 0);
        assert_eq!(mini.sent(), [UDP.build()], "case {index}");
        assert_eq!(mini.control.violations().len(), 1, "case {index}: {:?}", mini.control.violations());
        mini.send(0, &UDP.build(), 0);
        assert_eq!(mini.sent(), Vec::<Vec<u8>>::new(), "it hangs until it is enabled again");
        mini.set(at::transmit(0) + 0x28, 0);
        mini.device.poll();
        mini.transmit_queue(0);
        mini.send(0, &UDP.build(), 0);
        assert_eq!(mini.sent(), [UDP.build()], "case {index}");
        assert_eq!(mini.control.faults(), vec![]);
    }
}

#[test]
fn memory_that_is_not_mapped_is_a_recorded_fault() {
    let mut mini = card();
    mini.put(0, &[[0x1000, DATA | EOP | 60 | 60 << 46]]);
    for _ in 0..3 {
        assert_eq!(mini.sent(), Vec::<Vec<u8>>::new());
    }
    assert_eq!((mini.control.fault_count(), mini.control.faults()[0].address), (1, 0x1000));
}

#[test]
fn random_descriptors_neither_panic_nor_stray() {
    let mut random = crate::Random::new(11);
    for round in 0..300 {
        let mut mini = card();
        mini.receive_queue(0, 0);
        for _ in 0..4 {
            let address = mini.store(&[7; 200]);
            let descriptors: Vec<[u64; 2]> = (0..3)
                .map(|_| {
                    // Lengths that fit what is there, and everything else at random.
                    let high = random.bits() & !0xffff | random.below(100) | if random.chance(200) { DEXT } else { 0 };
                    let kind = [2, 3][usize::try_from(random.below(2)).unwrap()] << 20;
                    let low = if kind == 2 << 20 { random.bits() } else { address };
                    [low, high & !(0xf << 20) | kind]
                })
                .collect();
            mini.put(0, &descriptors);
            mini.device.poll();
        }
        let stray = mini.control.faults();
        assert!(stray.iter().all(|fault| fault.bytes <= 100), "round {round}: {stray:?}");
    }
}

#[test]
fn statistics_are_exact() {
    let mut mini = card();
    mini.set(0x8600, 3);
    let group = [1, 0, 0x5e, 0, 0, 1];
    for (length, target) in [(60, [2; 6]), (61, [2; 6]), (200, [0xff; 6]), (500, group), (1000, [2; 6]), (1514, [2; 6])]
    {
        let mut frame = vec![0; length];
        frame[..6].copy_from_slice(&target);
        mini.send(0, &frame, 0);
    }
    assert_eq!(mini.sent().len(), 6);
    let bytes = 60 + 61 + 200 + 500 + 1000 + 1514;
    for register in (0x40d8..=0x40ec).step_by(4) {
        assert_eq!(mini.get(register), 1);
    }
    assert_eq!([0x4080, 0x40f0, 0x40f4, 0x40d4].map(|register| mini.get(register)), [6, 1, 1, 6]);
    assert_eq!(mini.octets(0x4090), bytes + 24, "GOTC");
    assert_eq!((mini.get(0x8680 + 4 * 3), mini.octets(0x8700 + 8 * 3)), (6, bytes));
}

#[test]
fn frames_come_back_in_loopback() {
    let mut mini = card();
    mini.receive_queue(0, 0);
    mini.set(at::HLREG0, mini.get(at::HLREG0) | 1 << 15);
    let stranger = Recipe { ports: [7, 7], ..UDP }.build();
    mini.device.wire_mut().incoming.push_back(stranger);
    mini.send(0, &UDP.build(), 0);
    assert_eq!(mini.sent(), Vec::<Vec<u8>>::new());
    assert_eq!(mini.received(0).unwrap().bytes, UDP.build());
    mini.device.poll();
    assert_eq!(mini.received(0), None, "the wire is not listened to");
}
