//! The virtio-net driver on a card that lies: whatever the card does, the driver neither panics nor hangs nor lends it what is
//! not its own, says what is wrong in a typed error or counts a drop, and works again once the card is honest.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::virtio::{Bench, Pair, Plan};
use common::{ROOM, Watchdog, frame};
use drivers::nic::{Nic, NicError, ReceiveFilter, RxQueue, TxQueue};
use hugemem::Batch;
use models::virtio_net::{Doorbells, Fault, Features, Frame};

/// Frames and commands in both directions, without any expectation of what comes through. Returns what the driver reports.
fn use_the_card(bench: &mut Bench) -> Result<(), NicError> {
    let mut result = Ok(());
    for round in 0..12 {
        for number in 0..4 {
            bench.incoming(Frame::plain(frame(number, 60 + number * 400)));
        }
        for pair in 0..bench.queues.len() {
            for received in bench.receive(pair) {
                assert!(received.bytes.len() <= 64 * ROOM);
            }
            let free = bench.memory.sources.available();
            let packets = (0..4.min(free)).map(|number| bench.packet(&frame(number, 60 + number * 400))).collect();
            bench.send(pair, packets);
            if round % 4 == 0 && bench.queues[pair].rx.arm() {
                bench.queues[pair].rx.disarm();
            }
        }
        let _link = bench.nic.link();
        if round % 5 == 0 {
            result = result
                .and(bench.nic.set_filter(&ReceiveFilter { promiscuous: round % 2 == 0, ..ReceiveFilter::default() }));
        }
        result = result.and(bench.nic.check());
    }
    bench.memory.is_whole();
    result
}

/// Frames pass byte for byte, as on any honest card.
fn works(bench: &mut Bench, what: &str) {
    bench.clear_wire();
    for number in 0..100 {
        bench.incoming(Frame::plain(frame(number, 60 + number)));
        let received = bench.receive(0);
        assert_eq!(received.len(), 1, "{what}: nothing is received after the card became honest");
        assert_eq!(received[0].bytes, frame(number, 60 + number), "{what}");
        let packet = bench.packet(&frame(number, 60 + number));
        assert_eq!(bench.send(0, vec![packet]), 1, "{what}: nothing is sent after the card became honest");
        assert_eq!(bench.outgoing()[0].bytes, frame(number, 60 + number), "{what}");
    }
    bench.nic.check().unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// An error says which device and what is wrong with it.
fn speaks_up(error: &NicError, what: &str) {
    let text = error.to_string();
    assert!(text.contains("model") && text.len() > 20, "{what}: {text:?} says too little");
}

fn dropped(bench: &Bench) -> u64 {
    let total = |pair: &Pair| pair.rx.counters().dropped_total() + pair.tx.counters().dropped_total();
    bench.queues.iter().map(total).sum()
}

/// What is read once, when the card is opened: a card that lied then has to be opened again.
fn is_read_at_opening(fault: Fault) -> bool {
    matches!(fault, Fault::NotifyOffsetHuge)
}

/// The card becomes honest: the driver recovers with stop and start, and in the end nothing is lost.
fn recovers(mut bench: Bench, what: &str) {
    bench.control.lie(None, None);
    bench.clear_wire();
    bench.stop().unwrap_or_else(|error| panic!("{what}: the honest card cannot be stopped: {error}"));
    bench.start().unwrap_or_else(|error| panic!("{what}: the honest card cannot be started: {error}"));
    works(&mut bench, what);
    bench.stop().unwrap_or_else(|error| panic!("{what}: {error}"));
    bench.memory.is_whole();
    bench.end();
}

/// What the driver has to do about a fault of a card in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    /// An error from `check`, a command or `stop`, or a counted drop.
    Says,
    /// It may as well go on: the fault hurts only what the card does itself, or only starts.
    Bears,
}

fn answer(fault: Fault, plan: &Plan) -> Answer {
    match fault {
        // Nobody looks at the number of buffers when there can be but one.
        Fault::NumBuffersHuge if !plan.card.features.contains(Features::MRG_RXBUF) => Answer::Bears,
        Fault::UsedIdOutOfRange
        | Fault::UsedIdTwice
        | Fault::UsedIndexJumps
        | Fault::LengthTooBig
        | Fault::LengthHuge
        | Fault::LengthTooSmall
        | Fault::LengthZero
        | Fault::NeedsReset
        | Fault::Removed
        | Fault::Absent
        | Fault::NumBuffersHuge
        | Fault::HeaderSegmentation
        | Fault::HeaderChecksum
        | Fault::ResetNeverDone
        | Fault::ControlNeverAnswers
        | Fault::ControlGarbage
        | Fault::ControlRefuses => Answer::Says,
        _ => Answer::Bears,
    }
}

/// Lies with which no card can be driven: opening or starting has to fail.
fn is_refused(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::FeaturesNone
            | Fault::FeaturesRefused
            | Fault::QueueSizeZero
            | Fault::QueueSizeHuge
            | Fault::QueuesNone
            | Fault::QueueNeverEnabled
            | Fault::CapabilityOutside
            | Fault::CapabilityBarWrong
            | Fault::CapabilityLengthZero
            | Fault::CapabilitiesMissing
            | Fault::CapabilityPointerWild
            | Fault::NotifyOffsetHuge
            | Fault::ResetNeverDone
            | Fault::Absent
            | Fault::GenerationNeverSettles
            | Fault::ControlNeverAnswers
            | Fault::ControlGarbage
            | Fault::ControlRefuses
            | Fault::MtuZero
            | Fault::PairsZero
            | Fault::PairsHuge
    )
}

/// The card lies from the start: opening or starting may fail, with a reason.
fn lies_from_the_start(fault: Fault, packed: bool, mut plan: Plan) {
    let what = format!("{fault} from the start, packed {packed}");
    let _watchdog = Watchdog::new(what.clone());
    plan.card.fault = Some(fault);
    let mut bench = match Bench::open(&plan) {
        Ok(bench) => bench,
        // That all memory is back was checked in there.
        Err(error) => return speaks_up(&error, &what),
    };
    let mut failed = false;
    for _ in 0..2 {
        match bench.start() {
            Ok(()) => {
                if let Err(error) = use_the_card(&mut bench) {
                    speaks_up(&error, &what);
                }
                if let Err(error) = bench.stop() {
                    speaks_up(&error, &what);
                }
            }
            Err(error) => {
                failed = true;
                speaks_up(&error, &what);
            }
        }
    }
    assert_eq!(bench.control.fault_count(), 0, "{what}: {:?}", bench.control.faults());
    assert!(failed || !is_refused(fault), "{what}: the driver takes such a card");
    if failed {
        // A failed start leaves the queues with the driver.
        assert!(bench.queues.is_empty());
    }
    if is_read_at_opening(fault) {
        assert!(failed, "{what}: starts with a lie");
        bench.end();
    } else {
        recovers(bench, &what);
    }
}

/// The card begins to lie under traffic.
fn lies_in_the_middle(fault: Fault, packed: bool, plan: &Plan) {
    let what = format!("{fault} in the middle, packed {packed}");
    let _watchdog = Watchdog::new(what.clone());
    let mut bench = Bench::open(plan).unwrap();
    bench.start().unwrap();
    use_the_card(&mut bench).unwrap_or_else(|error| panic!("{what}: before the lie: {error}"));
    bench.clear_wire();
    let before = dropped(&bench);
    bench.control.lie(Some(fault), None);
    let used = use_the_card(&mut bench);
    let drops = dropped(&bench) - before;
    let received: u64 = bench.queues.iter().map(|pair| pair.rx.counters().packets).sum();
    let stopped = bench.stop();
    for error in [&used, &stopped].into_iter().filter_map(|result| result.as_ref().err()) {
        speaks_up(error, &what);
    }
    if fault == Fault::UsedIndexJumps && !packed {
        // Whoever believed the index would read entries of old, and take buffers that the card still holds.
        assert!(received <= bench.control.counters().received, "{what}: more frames than there were");
    }
    if answer(fault, plan) == Answer::Says {
        assert!(used.is_err() || stopped.is_err() || drops > 0, "{what}: the driver says nothing about it");
    }
    if fault != Fault::RingOverwritten {
        // (A card that writes nonsense into the ring may read it back and follow it.)
        assert_eq!(bench.control.fault_count(), 0, "{what}: {:?}", bench.control.faults());
    }
    // A start on the card that still lies either fails with a reason or gives queues that can be used and stopped.
    match bench.start() {
        Ok(()) => {
            let used = use_the_card(&mut bench);
            let stopped = bench.stop();
            for error in [used, stopped].into_iter().filter_map(Result::err) {
                speaks_up(&error, &what);
            }
        }
        Err(error) => speaks_up(&error, &what),
    }
    recovers(bench, &what);
}

/// A driver that is dropped in the midst of it all gives everything back, but what the device may still write to.
fn is_dropped_in_the_middle(fault: Fault, packed: bool, plan: &Plan) {
    let what = format!("{fault}, dropped, packed {packed}");
    let _watchdog = Watchdog::new(what);
    let mut bench = Bench::open(plan).unwrap();
    bench.start().unwrap();
    bench.control.lie(Some(fault), None);
    let _reported = use_the_card(&mut bench);
    let control = bench.control.clone();
    bench.queues.clear();
    drop(bench);
    assert_eq!((control.mapped_regions(), control.enabled_vectors()), (0, 0));
}

fn survives(fault: Fault, packed: bool) {
    let plan = Plan::new(packed);
    lies_from_the_start(fault, packed, plan.clone());
    lies_in_the_middle(fault, packed, &plan);
    is_dropped_in_the_middle(fault, packed, &plan);
    // Once more with several queue pairs, doorbells that matter, and used entries in order.
    let mut several = plan;
    several.card.pairs = 2;
    several.driver.nic.queue_pairs = 2;
    several.card.doorbells = Doorbells::Needed;
    several.card.features |= Features::IN_ORDER;
    lies_from_the_start(fault, packed, several.clone());
    lies_in_the_middle(fault, packed, &several);
    // And with nothing but what every card has, where each receive buffer holds a whole frame.
    let mut plain = Plan::new(packed);
    let least = Features::VERSION_1
        | Features::ACCESS_PLATFORM
        | Features::MAC
        | Features::RING_PACKED
        | Features::CTRL_VQ
        | Features::CTRL_RX;
    plain.card.features &= least;
    lies_in_the_middle(fault, packed, &plain);
}

macro_rules! faults {
    ($($test:ident: $fault:ident,)*) => {
        mod split {
            $(#[test]
            fn $test() {
                super::survives(super::Fault::$fault, false);
            })*
        }

        mod packed {
            $(#[test]
            fn $test() {
                super::survives(super::Fault::$fault, true);
            })*
        }

        #[test]
        fn every_fault_is_tried() {
            let tried = [$(Fault::$fault),*];
            for fault in Fault::ALL {
                assert!(tried.contains(fault), "{fault} is not tried");
            }
        }
    };
}

faults! {
    used_id_out_of_range: UsedIdOutOfRange,
    used_id_not_outstanding: UsedIdNotOutstanding,
    used_id_twice: UsedIdTwice,
    length_too_big: LengthTooBig,
    length_huge: LengthHuge,
    length_too_small: LengthTooSmall,
    length_zero: LengthZero,
    used_index_jumps: UsedIndexJumps,
    used_index_backwards: UsedIndexBackwards,
    done_never: DoneNever,
    needs_reset: NeedsReset,
    features_change: FeaturesChange,
    features_none: FeaturesNone,
    queue_size_changes: QueueSizeChanges,
    queue_size_zero: QueueSizeZero,
    queue_size_odd: QueueSizeOdd,
    queue_size_huge: QueueSizeHuge,
    queues_none: QueuesNone,
    queue_never_enabled: QueueNeverEnabled,
    capability_loop: CapabilityLoop,
    capability_pointer_wild: CapabilityPointerWild,
    capability_outside: CapabilityOutside,
    capability_bar_wrong: CapabilityBarWrong,
    capability_length_zero: CapabilityLengthZero,
    capabilities_missing: CapabilitiesMissing,
    notify_offset_huge: NotifyOffsetHuge,
    num_buffers_zero: NumBuffersZero,
    num_buffers_huge: NumBuffersHuge,
    num_buffers_more: NumBuffersMore,
    header_segmentation: HeaderSegmentation,
    header_checksum: HeaderChecksum,
    reset_never_done: ResetNeverDone,
    features_refused: FeaturesRefused,
    removed: Removed,
    absent: Absent,
    generation_never_settles: GenerationNeverSettles,
    control_never_answers: ControlNeverAnswers,
    control_garbage: ControlGarbage,
    control_refuses: ControlRefuses,
    vector_refused: VectorRefused,
    interrupts_lost: InterruptsLost,
    interrupts_storm: InterruptsStorm,
    ring_overwritten: RingOverwritten,
    mtu_zero: MtuZero,
    pairs_zero: PairsZero,
    pairs_huge: PairsHuge,
    mac_group: MacGroup,
}

mod chaos {
    //! A card that answers at random, for a fixed list of seeds.

    use super::{Bench, Doorbells, Plan, Watchdog, recovers, use_the_card};
    use models::virtio_net::{Chaos, Features};

    const SEEDS: u64 = 400;

    fn plan(seed: u64, packed: bool) -> Plan {
        let mut plan = Plan::new(packed);
        plan.driver.nic.ring_size = 16;
        plan.buffers = 24;
        // The seed also chooses what kind of card it is.
        if seed & 1 != 0 {
            plan.card.doorbells = Doorbells::Needed;
        }
        for (bit, feature) in [Features::MRG_RXBUF, Features::EVENT_IDX, Features::INDIRECT_DESC, Features::IN_ORDER]
            .into_iter()
            .enumerate()
        {
            plan.card.features.set(feature, seed >> (bit + 1) & 1 != 0);
        }
        plan
    }

    /// Registers at random from the first access on. `true` when the driver took the card for one.
    fn from_the_start(chaos: Chaos, packed: bool) -> bool {
        let mut plan = plan(chaos.seed, packed);
        plan.card.chaos = Some(chaos);
        let Ok(mut bench) = Bench::open(&plan) else { return false };
        let mut carried = false;
        for _ in 0..2 {
            if bench.start().is_ok() {
                carried = true;
                let _reported = use_the_card(&mut bench);
                let _stopped = bench.stop();
            }
        }
        bench.control.lie(None, None);
        // What was read at random when it was opened may make it useless, but must not lose anything.
        let _stopped = bench.stop();
        bench.end();
        carried
    }

    /// Honest at first, then at random, then honest again.
    fn in_the_middle(chaos: Chaos, packed: bool) {
        let what = format!("{chaos:?}, packed {packed}");
        let mut bench = Bench::open(&plan(chaos.seed, packed)).unwrap();
        bench.start().unwrap();
        bench.control.lie(None, Some(chaos));
        let _reported = use_the_card(&mut bench);
        let _stopped = bench.stop();
        if bench.start().is_ok() {
            let _reported = use_the_card(&mut bench);
        }
        recovers(bench, &what);
    }

    /// Returns how many cards got as far as carrying traffic.
    fn run(registers: u8, rings: u8) -> usize {
        let watchdog = Watchdog::new("chaos".to_owned());
        let mut carried = 0;
        for packed in [false, true] {
            for seed in 0..SEEDS {
                let chaos = Chaos { seed, registers, rings };
                watchdog.next(format!("{chaos:?}, packed {packed}"));
                carried += usize::from(from_the_start(chaos, packed));
                in_the_middle(chaos, packed);
            }
        }
        carried
    }

    #[test]
    fn every_register_at_random() {
        run(255, 0);
    }

    #[test]
    fn some_registers_at_random() {
        assert!(run(16, 0) >= 100, "too few cards get as far as traffic");
    }

    #[test]
    fn few_registers_at_random() {
        assert!(run(2, 0) >= 400, "too few cards get as far as traffic");
    }

    #[test]
    fn used_entries_at_random() {
        assert!(run(0, 64) >= 100, "too few cards get as far as traffic");
    }

    #[test]
    fn few_used_entries_at_random() {
        assert!(run(0, 8) >= 400, "too few cards get as far as traffic");
    }

    #[test]
    fn everything_at_random() {
        assert!(run(4, 32) >= 100, "too few cards get as far as traffic");
    }
}

/// Transmit and receive queues keep their promises after the card is gone: nothing blocks, nothing panics.
#[test]
fn queues_of_a_card_that_was_pulled_out_are_harmless() {
    for packed in [false, true] {
        let mut bench = Bench::open(&Plan::new(packed)).unwrap();
        bench.start().unwrap();
        bench.control.remove();
        let mut batch = Batch::new(64);
        for number in 0..500 {
            if bench.memory.sources.available() > 0 {
                let packet = bench.packet(&frame(number, 60));
                let _full = batch.push(packet);
            }
            bench.queues[0].tx.transmit(&mut batch);
            bench.queues[0].tx.reclaim();
            bench.queues[0].rx.arm();
            assert_eq!(bench.receive(0).len(), 0);
        }
        drop(batch);
        speaks_up(&bench.nic.check().unwrap_err(), "pulled out");
        recovers(bench, "pulled out");
    }
}

/// Lets a second pass on the driver's clock, then asks how the card is.
fn check_a_second_later(bench: &mut Bench) -> Result<(), NicError> {
    bench.clock.pause(Duration::from_secs(1));
    bench.nic.check()
}

/// Packets that the card takes and never gives back: the queue is named after some seconds, and a restart cures it.
#[test]
fn a_transmit_queue_that_hangs_is_named() {
    for packed in [false, true] {
        let _watchdog = Watchdog::new(format!("hanging queue, packed {packed}"));
        let mut plan = Plan::new(packed);
        plan.card.pairs = 2;
        plan.driver.nic.queue_pairs = 2;
        let mut bench = Bench::open(&plan).unwrap();
        bench.start().unwrap();
        bench.control.lie(Some(Fault::DoneNever), None);
        let send = |bench: &mut Bench, number| {
            let packet = bench.packet(&frame(number, 60));
            bench.send(1, vec![packet]);
        };
        (0..20).for_each(|number| send(&mut bench, number));
        // However often it is asked: no time passes.
        (0..1000).for_each(|_| bench.nic.check().unwrap());
        let mut outcome = Vec::new();
        for _ in 0..12 {
            bench.queues[1].tx.reclaim();
            outcome.push(check_a_second_later(&mut bench));
        }
        assert!(outcome[..4].iter().all(Result::is_ok), "packed {packed}: too early: {outcome:?}");
        for late in &outcome[8..] {
            let error = late.as_ref().expect_err("a queue that hangs is reported");
            assert!(matches!(error, NicError::Device { .. }), "{error}");
            assert!(error.to_string().contains("transmit queue 1 hangs"), "{error}");
        }
        recovers(bench, "hanging queue");
    }
}

/// Packets that the card has long finished and that nobody asked back are no hang, and neither is an idle queue.
#[test]
fn a_transmit_queue_that_rests_is_not_taken_for_one_that_hangs() {
    for packed in [false, true] {
        let mut bench = Bench::open(&Plan::new(packed)).unwrap();
        bench.start().unwrap();
        for round in 0..30 {
            let mut batch = Batch::new(4);
            for number in 0..3 {
                batch.push(bench.packet(&frame(number, 60))).unwrap();
            }
            // The look for finished packets comes before the card had its turn.
            bench.queues[0].tx.transmit(&mut batch);
            bench.queues[0].tx.reclaim();
            for _ in 0..20 {
                check_a_second_later(&mut bench).unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
        }
        assert_eq!(bench.queues[0].tx.reclaim(), 0);
        for _ in 0..20 {
            bench.queues[0].tx.reclaim();
            check_a_second_later(&mut bench).unwrap();
        }
        recovers(bench, "resting queue");
    }
}
