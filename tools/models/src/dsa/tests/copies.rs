//! What every operation does, alone and in a batch.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use drivers::bus::{Bar, Interrupt, PciFunction};

use super::mini::{BASE, BLOCK, CHECK, DATA, END, FENCE, INTERRUPT, LISTS, Mini, TOLD, VALID, at, command, operation};
use crate::card::Options;
use crate::dsa::Config;

fn started() -> Mini {
    Mini::lying(&[])
}

#[test]
fn copies_of_all_sizes_come_out_right() {
    for options in [Options::default(), Options { message_dma: true, ..Options::default() }] {
        let mut mini = Mini::with(Config::default(), options);
        mini.start(&[32]);
        mini.fill(DATA, 1 << 20, 3);
        for (number, (source, target, bytes)) in
            (0..).zip([(0, 0, 1), (7, 3, 64), (4095, 1, 2), (13, 4090, 9000), (5, 11, 70_000), (0, 0, 600_000)])
        {
            let (source, target) = (DATA + source, DATA + (2 << 20) + target);
            mini.put(target & !7, 0);
            mini.submit(0, &Mini::descriptor(number, operation::MOVE, TOLD, source, target, bytes));
            mini.settle();
            assert_eq!(mini.record(number), (1, 0, 0, 0, 0), "{bytes} bytes");
            assert_eq!(mini.bytes(source, bytes), mini.bytes(target, bytes), "{bytes} bytes");
        }
        assert!(mini.control.violations().is_empty());
    }
}

#[test]
fn copies_onto_themselves_are_moves() {
    for (from, to) in [(0, 100), (100, 0), (0, 5000), (70_000, 3), (3, 70_000), (0, 0)] {
        let mut mini = started();
        mini.fill(DATA, 1 << 19, 5);
        let before = mini.bytes(DATA + from, 200_000);
        mini.submit(0, &Mini::descriptor(0, operation::MOVE, TOLD, DATA + from, DATA + to, 200_000));
        mini.settle();
        assert_eq!(mini.status(0), 1);
        assert_eq!(mini.bytes(DATA + to, 200_000), before, "from {from} to {to}");
    }
}

#[test]
fn fills_repeat_their_pattern_and_both_destinations_get_a_dualcast() {
    let mut mini = started();
    let pattern: u64 = 0x0807_0605_0403_0201;
    mini.submit(0, &Mini::descriptor(0, operation::FILL, TOLD, pattern, DATA + 3, 9001));
    mini.fill(DATA + 0x1_0000, 6000, 1);
    let mut dualcast = Mini::descriptor(1, operation::DUALCAST, TOLD, DATA + 0x1_0000, DATA + 0x3_0010, 5000);
    dualcast[5] = DATA + 0x5_0010;
    mini.submit(0, &dualcast);
    mini.submit(0, &Mini::descriptor(2, operation::FLUSH, TOLD, 0, DATA, 5000));
    mini.settle();
    assert_eq!([0, 1, 2].map(|number| mini.status(number)), [1; 3]);
    let filled = mini.bytes(DATA + 3, 9001);
    assert!(filled.iter().zip(pattern.to_le_bytes().iter().cycle()).all(|(one, other)| one == other));
    assert_eq!(mini.bytes(DATA + 3 + 9001, 1), [0], "not a byte more");
    let source = mini.bytes(DATA + 0x1_0000, 5000);
    assert_eq!(mini.bytes(DATA + 0x3_0010, 5000), source);
    assert_eq!(mini.bytes(DATA + 0x5_0010, 5000), source);
    assert!(mini.is_clean());
}

#[test]
fn comparisons_tell_where_the_difference_is() {
    let mut mini = started();
    mini.fill(DATA, 0x8000, 9);
    mini.submit(0, &Mini::descriptor(0, operation::MOVE, TOLD, DATA, DATA + 0x1_0000, 0x8000));
    let compare = |number, flags| Mini::descriptor(number, operation::COMPARE, flags, DATA, DATA + 0x1_0000, 0x8000);
    mini.submit(0, &compare(1, TOLD));
    mini.submit(0, &compare(2, TOLD | CHECK));
    mini.settle();
    assert_eq!(mini.record(1), (1, 0, 0x8000, 0, 0));
    assert_eq!(mini.status(2), 1, "equality was expected");
    mini.put(DATA + 0x1_5000, 0);
    mini.submit(0, &compare(3, TOLD));
    mini.submit(0, &compare(4, TOLD | CHECK));
    mini.settle();
    let pattern = mini.get(DATA);
    mini.put(DATA + 8, pattern);
    let compared = Mini::descriptor(5, operation::COMPARE_PATTERN, TOLD, DATA, pattern, 16);
    mini.submit(0, &compared);
    mini.submit(0, &Mini::descriptor(6, operation::COMPARE_PATTERN, TOLD, DATA, pattern, 32));
    mini.settle();
    assert_eq!(mini.record(3), (1, 1, 0x5000, 0, 0));
    assert_eq!(mini.status(4), 2, "equality was expected");
    assert_eq!(mini.record(5), (1, 0, 16, 0, 0));
    let (status, result, count, ..) = mini.record(6);
    assert_eq!((status, result), (1, 1));
    assert!((16..24).contains(&count));
    assert!(mini.is_clean());
}

#[test]
fn a_batch_is_done_in_order_and_counts() {
    let mut mini = started();
    for count in [2, 3, 16, 200] {
        let list = mini.copies(10, count);
        let batch = mini.batch(1, &list);
        mini.put(Mini::place(1), 0);
        mini.submit(0, &batch);
        mini.settle();
        assert_eq!(mini.record(1), (1, 0, count, 0, 0));
        for number in 0..count {
            assert_eq!((mini.status(10 + number), mini.right(number)), (1, 100), "{number} of {count}");
            (0..13).for_each(|word| mini.put(Mini::target(number) + 8 * word, 0));
            mini.put(Mini::place(10 + number), 0);
        }
    }
    assert!(mini.is_clean());
}

#[test]
fn members_of_a_batch_fail_one_by_one() {
    let mut mini = started();
    let mut list = mini.copies(10, 5);
    list[2][2] = END;
    // Success needs no record.
    list[1][0] = operation::MOVE << 56 | VALID << 32;
    let batch = mini.batch(1, &list);
    mini.submit(0, &batch);
    mini.settle();
    assert_eq!(mini.record(1), (5, 0, 5, 0, 0), "all were done, and one of them has failed");
    assert_eq!((10..15).map(|number| mini.status(number)).collect::<Vec<_>>(), [1, 0, 3, 1, 1]);
    assert_eq!(mini.record(12).3, END);
    assert_eq!((0..5).map(|number| mini.right(number)).collect::<Vec<_>>(), [100, 100, 0, 100, 100]);
    // A fence goes no further.
    list[4][0] |= FENCE << 32;
    mini.put(Mini::place(14), 0);
    let batch = mini.batch(2, &list);
    mini.submit(0, &batch);
    mini.settle();
    assert_eq!(mini.record(2), (5, 0, 4, 0, 0));
    assert_eq!(mini.status(14), 0);
    assert_eq!(mini.control.fault_count(), 2);
}

#[test]
fn page_faults_have_an_address_and_the_bytes_before() {
    let mut mini = started();
    mini.fill(DATA, 1 << 16, 2);
    let submit = |mini: &mut Mini, descriptor| {
        mini.put(Mini::place(0), 0);
        mini.submit(0, &descriptor);
        mini.settle();
        mini.record(0)
    };
    let read = Mini::descriptor(0, operation::MOVE, TOLD, END - 5000, DATA, 6000);
    assert_eq!(submit(&mut mini, read), (0x03, 0, 5000, END, 0));
    assert_eq!(mini.bytes(END - 5000, 5000), mini.bytes(DATA, 5000), "as far as it goes");
    let write = Mini::descriptor(0, operation::MOVE, TOLD, DATA, END - 100, 6000);
    assert_eq!(submit(&mut mini, write), (0x83, 0, 100, END, 0));
    // A fill and a comparison, a page at a time.
    let fill = Mini::descriptor(0, operation::FILL, TOLD, 1, END - 5000, 6000);
    assert_eq!(submit(&mut mini, fill), (0x83, 0, 5000, END, 0));
    let compare = Mini::descriptor(0, operation::COMPARE, TOLD, END - 5000, END - 5000, 6000);
    assert_eq!(submit(&mut mini, compare), (0x03, 0, 5000, END, 0));
    // A move from its end tells that it was one.
    let backwards = Mini::descriptor(0, operation::MOVE, TOLD, END - 8192, END - 4096, 8192);
    let (status, result, count, ..) = submit(&mut mini, backwards);
    assert_eq!((status, result, count), (0x83, 1, 0));
    let flush = Mini::descriptor(0, operation::FLUSH, TOLD, 0, END, 64);
    assert_eq!(submit(&mut mini, flush).0, 0x03);
    // The list of a batch.
    let batch = Mini::descriptor(0, operation::BATCH, TOLD, END - 128, 0, 3);
    assert_eq!(submit(&mut mini, batch), (6, 0, 2, END, 0));
    assert_eq!(mini.control.fault_count(), 7);
    assert!(mini.control.violations().is_empty());
    // With permission to wait, the answer is that there is no page.
    let mini = &mut Mini::new(Config::default());
    mini.configure(&[8]);
    mini.bar.store(mini.queue(0) + 8, 0x53_u32);
    assert_eq!(mini.command(command::ENABLE_DEVICE, 0), 0);
    assert_eq!(mini.command(command::ENABLE_WQ, 0), 0);
    let read = Mini::descriptor(0, operation::MOVE, TOLD | BLOCK, END - 8, DATA, 16);
    assert_eq!(submit(mini, read), (0x04, 0, 8, END, 0));
}

#[test]
fn the_record_and_interrupts_are_as_asked() {
    let mut mini = started();
    let mut interrupts = mini.function.interrupts(3).unwrap();
    let copy = |flags: u64, vector: u64| {
        let mut copy = Mini::descriptor(0, operation::MOVE, flags, DATA, DATA + 4096, 8);
        copy[4] |= vector << 32;
        copy
    };
    let fired = |interrupt: &mut crate::EventInterrupt| interrupt.wait(Duration::ZERO).unwrap();
    for (flags, vector, status) in
        [(0, 0, 0), (VALID, 0, 0), (TOLD, 0, 1), (INTERRUPT, 2, 0), (INTERRUPT | TOLD, 1, 1), (INTERRUPT | TOLD, 0, 1)]
    {
        mini.put(Mini::place(0), 0);
        mini.submit(0, &copy(flags, vector));
        mini.settle();
        assert_eq!(mini.status(0), status, "{flags:#x}");
        for (number, interrupt) in (0..).zip(&mut interrupts) {
            assert_eq!(fired(interrupt), flags & INTERRUPT != 0 && number == vector, "{flags:#x}: vector {number}");
        }
    }
    // An error without a record is told by SWERR, and by the first vector.
    let mut wrong = copy(0, 0);
    wrong[4] = 0;
    mini.submit(1, &wrong);
    mini.settle();
    assert!(fired(&mut interrupts[0]));
    assert_eq!(mini.bar.load::<u32>(at::INTCAUSE), 1);
    mini.bar.store(at::INTCAUSE, 1_u32);
    assert_eq!(mini.bar.load::<u32>(at::INTCAUSE), 0);
    let (code, head, _) = mini.error();
    assert_eq!((code, head & 0xff, head >> 16 & 0xff, head >> 32 & 0xff), (0x13, 0xd, 1, 3));
    mini.submit(1, &wrong);
    mini.settle();
    assert_eq!(mini.error().1 & 3, 3, "there was another one");
    mini.bar.store(at::SWERR, 3_u32);
    assert_eq!(mini.error().1 & 3, 0);
    // A record that is not there.
    let mut wrong = copy(TOLD, 0);
    wrong[1] = END;
    mini.submit(0, &wrong);
    mini.settle();
    assert_eq!((mini.error().0, mini.error().2), (0x1a, END));
    assert_eq!(mini.control.fault_count(), 1);
}

#[test]
fn every_mistake_has_its_status() {
    let mut mini = started();
    let copy = Mini::descriptor(0, operation::MOVE, TOLD, DATA, DATA + 4096, 64);
    let with = |word: usize, bits: u64| {
        let mut copy = copy;
        copy[word] |= bits;
        copy
    };
    let make = |operation: u64, source, target, size| Mini::descriptor(0, operation, TOLD, source, target, size);
    let mut dualcast = make(operation::DUALCAST, DATA, DATA + 4096, 64);
    dualcast[5] = DATA + 8193;
    let mut overlapping = make(operation::DUALCAST, DATA, DATA + 4096, 64);
    overlapping[5] = DATA + 4096;
    for (descriptor, status, flags) in [
        (make(0x07, DATA, DATA, 64), 0x10, 0),
        (make(0x3f, 0, 0, 0), 0x10, 0),
        (with(0, FENCE << 32), 0x11, FENCE),
        (with(0, BLOCK << 32), 0x11, BLOCK),
        (with(0, 0x80_4040 << 32), 0x11, 0x80_4040),
        (with(0, 1 << 20), 0x12, 0),
        (with(4, 1 << 48), 0x12, 0),
        (with(5, 1), 0x12, 0),
        (with(7, 1), 0x12, 0),
        (make(operation::NOOP, 1, 0, 0), 0x12, 0),
        (make(operation::MOVE, DATA, DATA, 0), 0x13, 0),
        (make(operation::MOVE, DATA, DATA, 0x8000_0001), 0x13, 0),
        (make(operation::BATCH, LISTS, 0, 1), 0x14, 0),
        (make(operation::BATCH, LISTS, 0, 1025), 0x14, 0),
        (overlapping, 0x16, 0),
        (dualcast, 0x17, 0),
        (make(operation::BATCH, LISTS + 32, 0, 2), 0x18, 0),
        (with(4, 9 << 32), 0x01, 0),
        (
            {
                let mut copy = with(0, INTERRUPT << 32);
                copy[4] |= 9 << 32;
                copy
            },
            0x19,
            0,
        ),
    ] {
        mini.put(Mini::place(0), 0);
        mini.put(Mini::place(0) + 16, 0);
        mini.submit(0, &descriptor);
        mini.settle();
        let (found, _, count, _, wrong) = mini.record(0);
        assert_eq!((found, count, wrong), (status, 0, flags), "{descriptor:x?}");
    }
    // What has a place of its own in a batch has no batch in it, and does not drain.
    for inner in [operation::BATCH, operation::DRAIN] {
        let list =
            [Mini::descriptor(10, inner, TOLD, LISTS, 0, 2), Mini::descriptor(11, operation::NOOP, TOLD, 0, 0, 0)];
        let batch = mini.batch(1, &list);
        mini.submit(0, &batch);
        mini.settle();
        assert_eq!([1, 10, 11].map(|number| mini.status(number)), [5, 0x10, 1]);
    }
    assert!(mini.is_clean(), "{:?}", mini.control.violations());
    // A record that is not aligned.
    let mut unaligned = copy;
    unaligned[1] = BASE + 16;
    mini.submit(0, &unaligned);
    mini.settle();
    assert_eq!(mini.error().0, 0x1b);
}
