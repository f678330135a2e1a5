//! What strikes between two questions: queues that hang, cards that reset themselves, interrupts and counters that lie.

use std::time::Duration;

use drivers::bus::Interrupt;
use drivers::nic::{Nic, NicError, RxQueue};
use models::ixgbe::{Doorbells, Fault};

use crate::bench::{Bench, Plan};
use crate::common::Watchdog;

fn open(plan: &Plan) -> Bench {
    let mut bench = Bench::open(plan).unwrap();
    bench.start().unwrap();
    bench
}

/// Lets a second pass on the driver's clock, then asks how the card is.
fn check_a_second_later(bench: &mut Bench) -> Result<(), NicError> {
    bench.clock.pause(Duration::from_secs(1));
    bench.check()
}

/// Packets that the card takes and never gives back: the queue is named when patience is over, not before.
#[test]
fn a_transmit_queue_that_hangs_is_named_in_time() {
    for fault in [Fault::TransmitHang, Fault::TransmitDoneNever] {
        let _watchdog = Watchdog::new(fault.to_string());
        let mut bench = open(&Plan::new(2, Doorbells::Shared));
        bench.control.with(|chip, _| chip.set_fault_after(Some(fault), 0));
        bench.send(1, 20);
        // However often it is asked: no time passes.
        (0..100).for_each(|_| bench.check().unwrap());
        let mut outcome = Vec::new();
        for _ in 0..12 {
            bench.held();
            outcome.push(check_a_second_later(&mut bench));
        }
        assert!(outcome[..4].iter().all(Result::is_ok), "{fault}: too early: {outcome:?}");
        for late in &outcome[8..] {
            let error = late.as_ref().expect_err("a queue that hangs is reported");
            assert!(error.to_string().contains("transmit queue 1 hangs"), "{error}");
        }
        bench.fault(None);
        bench.recovers("a queue that hangs");
    }
}

/// Frames that the card keeps to itself, while all else works: it is named when patience is over, not before.
#[test]
fn a_card_that_hands_out_nothing_is_named_in_time() {
    for fault in [Fault::DoneNever, Fault::DoneAhead] {
        let _watchdog = Watchdog::new(fault.to_string());
        let mut bench = open(&Plan::new(2, Doorbells::Shared));
        bench.control.with(|chip, _| chip.set_fault_after(Some(fault), 0));
        let mut outcome = Vec::new();
        for _ in 0..12 {
            bench.offer();
            bench.pass(2);
            assert_eq!(bench.receive().concat(), [0; 0]);
            outcome.push(check_a_second_later(&mut bench));
        }
        assert!(outcome[..4].iter().all(Result::is_ok), "{fault}: too early: {outcome:?}");
        for late in &outcome[8..] {
            let error = late.as_ref().expect_err("a card that hands out nothing is reported");
            assert!(error.to_string().contains("hands out nothing"), "{error}");
        }
        bench.fault(None);
        bench.recovers("a card that hands out nothing");
    }
}

/// A frame now and then, packets that nobody asks back, and a port at rest are no alarm.
#[test]
fn a_port_that_rests_is_not_taken_for_one_that_hangs() {
    let mut bench = open(&Plan::new(2, Doorbells::Shared));
    for round in 0..30 {
        bench.offer();
        bench.send(0, 2);
        bench.pass(2);
        // Every third frame is fetched late.
        if round % 3 != 0 {
            bench.receive();
        }
        for _ in 0..10 {
            check_a_second_later(&mut bench).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
        bench.receive();
        for _ in 0..10 {
            bench.held();
            bench.receive();
            check_a_second_later(&mut bench).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
    }
    assert_eq!((bench.held(), bench.count.received), (0, 30));
    bench.recovers("a port at rest");
}

/// The card resets itself under traffic, again and again: each time it is named at once, and stopping and starting mends it.
#[test]
fn a_card_that_resets_itself_under_traffic_is_started_anew() {
    for plan in Plan::all() {
        let mut bench = open(&plan);
        for round in 0..20 {
            bench.control.with(|chip, _| chip.set_fault_after(Some(Fault::ResetSpontaneous), round));
            bench.use_it().expect_err("a reset is noticed");
            bench.stop().unwrap();
            bench.fault(None);
            bench.settle();
            bench.start().unwrap();
            bench.settle();
            bench.use_it().unwrap();
            assert_eq!((bench.count.received, bench.waiting()), (bench.count.offered, 0), "round {round}");
        }
        bench.recovers("resets");
    }
}

/// No interrupt comes: whoever wakes up by a time-out finds the frames all the same.
#[test]
fn lost_interrupts_lose_no_frame() {
    let mut bench = open(&Plan::new(2, Doorbells::Shared));
    let arm = |bench: &mut Bench| bench.queues.iter_mut().all(|pair| pair.rx.arm());
    let wakes = |bench: &mut Bench| {
        let interrupts = bench.queues.iter_mut().filter_map(|pair| pair.interrupt.as_mut());
        interrupts.map(|interrupt| interrupt.wait(Duration::ZERO).unwrap()).filter(|woken| *woken).count()
    };
    for lost in [false, true] {
        bench.fault(lost.then_some(Fault::InterruptsLost));
        for round in 0..20 {
            assert!(arm(&mut bench), "nothing waits");
            let offered = bench.offer();
            bench.pass(3);
            assert_eq!(wakes(&mut bench), usize::from(!lost), "round {round}");
            assert!(!arm(&mut bench), "the frame that waits is seen: nobody goes to sleep over it");
            assert_eq!(bench.receive().concat(), [offered]);
        }
    }
    bench.fault(None);
    bench.recovers("lost interrupts");
}

/// Interrupts without end: each look finds what is there, and no more is done than there is.
#[test]
fn a_storm_of_interrupts_is_no_storm_of_work() {
    let mut bench = open(&Plan::new(2, Doorbells::Shared));
    bench.fault(Some(Fault::InterruptsStorm));
    let mut woken = 0;
    for round in 0..200 {
        let offered = (round % 5 == 0).then(|| bench.offer());
        bench.pass(2);
        for pair in &mut bench.queues {
            let interrupt = pair.interrupt.as_mut().unwrap();
            woken += usize::from(interrupt.wait(Duration::ZERO).unwrap());
            assert!(!interrupt.wait(Duration::ZERO).unwrap(), "many interrupts are one");
        }
        assert_eq!(bench.receive().concat(), offered.into_iter().collect::<Vec<_>>());
    }
    assert_eq!(woken, 400);
    assert!(bench.control.interrupts() >= 800, "{}", bench.control.interrupts());
    bench.fault(None);
    bench.recovers("a storm");
}

/// Counters that jump to their largest values neither panic nor go back, and count on afterwards.
#[test]
fn counters_that_jump_never_go_back() {
    let mut bench = open(&Plan::new(1, Doorbells::Trapped));
    for jumping in [false, true, false] {
        bench.fault(jumping.then_some(Fault::StatisticsJump));
        let before = bench.statistic("rx_good_packets");
        (0..3).for_each(|_| bench.use_it().unwrap());
        let counted = bench.statistic("rx_good_packets") - before;
        if jumping {
            assert!(counted >= u64::from(u32::MAX), "{counted}");
        } else {
            assert_eq!(counted, 36);
        }
    }
    // The same names, whatever happened; none is lost by a restart.
    let names = |bench: &mut Bench| bench.nic.statistics().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let before = names(&mut bench);
    bench.stop().unwrap();
    bench.counts_on();
    assert_eq!(names(&mut bench), before);
    bench.recovers("counters that jump");
}
