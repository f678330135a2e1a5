//! An engine that lies.

use std::time::Duration;

use drivers::bus::{Bar, BusError, Interrupt, PciFunction};

use super::mini::{ACTIVE, COMPLETE, DATA, HALTED, IDLE, INTERRUPT, Mini, RING, SUSPENDED, at};
use crate::DmaFault;
use crate::ioat::{Config, Errors, Fault, Planned, State, When};
use crate::memory::Access;
use crate::plan::Lie;

const SECOND: u64 = 1;

/// What the driver sees of a batch of five: completion, errors, and how much of each copy is right.
fn batch(mini: &mut Mini) -> (u64, u32, [usize; 5]) {
    mini.batch(5);
    mini.settle();
    (mini.completion(0), mini.errors(0), [0, 1, 2, 3, 4].map(|number| mini.right(number)))
}

/// After a halt: everything works again.
fn recovers(mini: &mut Mini) {
    mini.recover(0);
    assert_eq!(batch(mini), (Mini::descriptor(0, 4) | IDLE, 0, [100; 5]));
}

#[test]
fn each_error_halts_at_its_descriptor_and_the_channel_recovers() {
    let (second, third) = (Mini::descriptor(0, SECOND), Mini::descriptor(0, 2));
    for fault in Fault::ALL {
        let Some(error) = fault.error() else { continue };
        let (completion, moved) = match fault {
            Fault::HaltSilent => (second | ACTIVE, 0),
            Fault::CopyPartial | Fault::HaltPartial | Fault::ErrorChipsetIntegrity | Fault::ErrorEngineIntegrity => {
                (second | HALTED, 50)
            }
            Fault::ErrorCompletionAddress => (second | ACTIVE, 100),
            Fault::ErrorParityP | Fault::ErrorParityQ => (second | HALTED, 100),
            Fault::ErrorNextAddress | Fault::ErrorInterrupt => (third | HALTED, 100),
            // The state and the bit beside it.
            Fault::ErrorUnaffiliated => (second | HALTED | 8, 0),
            _ => (second | HALTED, 0),
        };
        let mut mini = Mini::struck(*fault);
        assert_eq!(batch(&mut mini), (completion, error.bits(), [100, 100, moved, 0, 0]), "{fault}");
        assert_eq!(mini.control.with(|chip, _| chip.channel(0)), Some((State::Halted, error)));
        recovers(&mut mini);
        assert!(mini.is_clean(), "{fault}: {:?}", mini.control.violations());
    }
}

#[test]
fn an_error_strikes_wherever_it_is_wanted() {
    for position in 0..5 {
        let mut mini = Mini::lying(&[Planned::new(Fault::CopyPartial, When::Once(position))]);
        let (completion, errors, right) = batch(&mut mini);
        let last = position.checked_sub(1).map_or(0, |last| Mini::descriptor(0, last));
        assert_eq!((completion, errors), (last | HALTED, 1 << 9));
        for (number, right) in (0..).zip(right) {
            let expected = if number < position {
                100
            } else if number == position {
                50
            } else {
                0
            };
            assert_eq!(right, expected, "{number} of {position}");
        }
    }
}

#[test]
fn errors_that_do_not_halt() {
    let last = Mini::descriptor(0, 4);
    let mut mini = Mini::struck(Fault::ErrorSoft);
    assert_eq!(batch(&mut mini), (last | IDLE | 0x10, 1 << 14, [100; 5]));
    // Without the wish to abort at any error.
    let mut mini = Mini::struck(Fault::ErrorUnaffiliated);
    mini.bar.store(at::CHANCTRL, 0x15_u16);
    assert_eq!(batch(&mut mini), (last | IDLE | 0x8, 1 << 15, [100; 5]));
}

#[test]
fn completions_come_late() {
    for fault in [Fault::CompleteLate, Fault::CompleteBurst] {
        let mut mini = Mini::lying(&[Planned::new(fault, When::From(0))]);
        mini.batch(5);
        // A millisecond is ten polls.
        for _ in 0..5 {
            mini.device.poll();
            assert_eq!((mini.completion(0), mini.status(0)), (0, ACTIVE), "{fault}");
        }
        assert_eq!(mini.right(4), 100, "copied long ago");
        mini.settle();
        assert_eq!(mini.completion(0), Mini::descriptor(0, 4) | IDLE);
        assert_eq!(mini.status(0), Mini::descriptor(0, 4) | IDLE);
    }
}

#[test]
fn a_burst_ends_after_sixteen() {
    let mut mini = Mini::lying(&[Planned::new(Fault::CompleteBurst, When::From(0))]);
    mini.fill(DATA, 64, 1);
    for _ in 0..RING - 1 {
        mini.push(0, 8, COMPLETE, DATA, DATA + 64);
    }
    mini.ring(0);
    mini.device.poll();
    assert_eq!(mini.completion(0), 0);
    mini.push(0, 8, COMPLETE, DATA, DATA + 64);
    mini.ring(0);
    mini.device.poll();
    assert_eq!(mini.completion(0), Mini::descriptor(0, 15) | IDLE);
}

#[test]
fn a_completion_comes_before_its_bytes() {
    let mut mini = Mini::struck(Fault::CompleteEarly);
    mini.batch(5);
    mini.device.poll();
    assert_eq!((mini.completion(0), mini.right(2)), (Mini::descriptor(0, 2) | ACTIVE, 0));
    mini.settle();
    assert_eq!((mini.completion(0), mini.right(2)), (Mini::descriptor(0, 4) | IDLE, 100));
}

#[test]
fn completions_say_what_is_not_so() {
    let (fourth, last) = (Mini::descriptor(0, 3), Mini::descriptor(0, 4));
    for (fault, written) in [
        (Fault::CompleteNever, fourth),
        (Fault::CompletionZero, 0),
        (Fault::CompletionWild, 0x7fff_ffff_ffc0),
        (Fault::CompletionStale, fourth),
        (Fault::CompletionAhead, Mini::descriptor(0, 5)),
        (Fault::CompletionOnes, u64::MAX),
        (Fault::CompletionState, last | 7),
    ] {
        let mut mini = Mini::lying(&[Planned::new(fault, When::Once(4))]);
        assert_eq!(batch(&mut mini), (written, 0, [100; 5]), "{fault}");
        assert_eq!(mini.status(0), last | IDLE, "the register tells the truth");
    }
}

#[test]
fn copies_that_are_not() {
    let last = Mini::descriptor(0, 4) | IDLE;
    assert_eq!(batch(&mut Mini::struck(Fault::CopySkipped)), (last, 0, [100, 100, 0, 100, 100]));
    assert_eq!(batch(&mut Mini::struck(Fault::CopyWrong)), (last, 0, [100, 100, 99, 100, 100]));
}

#[test]
fn a_channel_hangs_until_it_is_reset() {
    let mut mini = Mini::struck(Fault::Hang);
    assert_eq!(batch(&mut mini), (Mini::descriptor(0, SECOND), 0, [100, 100, 0, 0, 0]));
    assert_eq!(mini.status(0), Mini::descriptor(0, SECOND) | ACTIVE);
    recovers(&mut mini);
}

#[test]
fn a_channel_resets_itself() {
    let mut mini = Mini::struck(Fault::ResetSpontaneous);
    assert_eq!(batch(&mut mini), (Mini::descriptor(0, SECOND), 0, [100, 100, 0, 0, 0]));
    assert_eq!((mini.status(0), mini.bar.load::<u64>(at::CHANCMP)), (HALTED, 0));
    recovers(&mut mini);
}

#[test]
fn commands_without_effect() {
    let mini = Mini::lying(&[Fault::ResetNeverDone.into(), Fault::SuspendStuck.into()]);
    mini.bar.store(at::CHANCMD, 0x04_u8);
    assert_ne!(mini.status(0) & 7, SUSPENDED);
    mini.bar.store(at::CHANCMD, 0x20_u8);
    assert_eq!(mini.bar.load::<u8>(at::CHANCMD), 0x20);
    let mini = Mini::lying(&[Fault::ArmNever.into()]);
    assert_eq!(mini.status(0), HALTED);
    let mini = Mini::lying(&[Planned::new(Fault::StatusOnes, When::From(0))]);
    assert_eq!(mini.status(0), u64::MAX);
}

#[test]
fn wide_stores_lose_their_upper_half() {
    let mini = Mini::new(Config { faults: vec![Fault::StoreNarrow.into()], ..Config::default() });
    mini.bar.store(at::CHANCMP, 0x55_0000_0040_u64);
    assert_eq!(mini.bar.load::<u64>(at::CHANCMP), 0x40);
    mini.bar.store(at::CHANCMP + 4, 0x55_u32);
    assert_eq!(mini.bar.load::<u64>(at::CHANCMP), 0x55_0000_0040);
}

#[test]
fn memory_goes_and_comes_back() {
    let mut mini = Mini::lying(&[Planned::new(Fault::DmaRefused, When::From(5))]);
    assert_eq!(batch(&mut mini).2, [100; 5]);
    mini.push(0, 8, COMPLETE, DATA, DATA + 64);
    mini.ring(0);
    mini.settle();
    assert_eq!((mini.status(0) & 7, mini.errors(0)), (HALTED, 0x1100), "neither read nor reported");
    assert_ne!(mini.control.fault_count(), 0);
    mini.control.with(|chip, _| chip.set_faults(&[]));
    recovers(&mut mini);
}

#[test]
fn an_access_goes_astray() {
    let mut mini = Mini::struck(Fault::DmaStray);
    assert_eq!(batch(&mut mini).2, [100; 5]);
    assert_eq!(mini.control.faults(), [DmaFault { address: 0xdead_d000, bytes: 8, access: Access::Read }]);
}

#[test]
fn the_engine_goes() {
    let mut mini = Mini::struck(Fault::Removed);
    let (_, errors, right) = batch(&mut mini);
    assert_eq!((errors, mini.status(0), right), (u32::MAX, u64::MAX, [100, 100, 0, 0, 0]));
    assert_eq!(mini.bar.load::<u16>(at::DMACOUNT), u16::MAX);
    assert!(matches!(mini.function.reset(), Err(BusError::Gone { .. })));
    let mini = Mini::new(Config { faults: vec![Fault::Absent.into()], ..Config::default() });
    assert_eq!((mini.bar.load::<u8>(0), mini.function.read_config(0).unwrap()), (u8::MAX, u32::MAX));
}

#[test]
fn interrupts_are_lost_or_never_end() {
    for (fault, expected) in [(Fault::InterruptsLost, 0), (Fault::InterruptsStorm, 100)] {
        let mut mini = Mini::lying(&[fault.into()]);
        let mut interrupts = mini.function.interrupts(1).unwrap();
        mini.bar.store(0x03, 0x09_u8);
        mini.batch(5);
        for _ in 0..100 {
            mini.device.poll();
        }
        assert_eq!((mini.completion(0), mini.right(4)), (Mini::descriptor(0, 4) | IDLE, 100));
        assert_eq!(interrupts[0].wait(Duration::ZERO).unwrap(), expected > 0);
        assert_eq!(mini.control.interrupts(), expected);
    }
}

#[test]
fn what_the_engine_says_of_itself_is_wrong() {
    let lying = |fault: Fault| Mini::new(Config { faults: vec![fault.into()], ..Config::default() });
    assert_eq!(lying(Fault::ChannelsNone).bar.load::<u8>(0), 0);
    assert_eq!(lying(Fault::ChannelsMany).bar.load::<u8>(0), 31);
    assert_eq!(lying(Fault::LongestZero).bar.load::<u8>(1), 0);
    assert_eq!(lying(Fault::VersionOld).bar.load::<u8>(8), 0x20);
}

#[test]
fn faults_act_together_and_on_their_channel() {
    let plan = ["complete-late@0+#1", "copy-wrong@1", "error-read@3"].map(|text| text.parse().unwrap());
    let mut mini = Mini::new(Config { channels: 2, faults: plan.to_vec(), ..Config::default() });
    mini.start(0);
    mini.start(1);
    assert_eq!(batch(&mut mini), (Mini::descriptor(0, 2) | HALTED, 1 << 8, [100, 99, 100, 0, 0]));
    let at = mini.push(1, 8, COMPLETE, DATA, DATA + 64);
    mini.ring(1);
    mini.device.poll();
    assert_eq!((mini.completion(1), mini.get(DATA + 64)), (0, mini.get(DATA)));
    mini.settle();
    assert_eq!(mini.completion(1), at | IDLE);
}

#[test]
fn a_channel_halts_in_the_middle_of_a_long_copy() {
    let mut mini = Mini::new(Config::default());
    mini.start(0);
    mini.fill(DATA, 1 << 20, 1);
    mini.push(0, 1 << 20, COMPLETE | INTERRUPT, DATA, DATA + (1 << 20));
    mini.ring(0);
    mini.device.poll();
    mini.control.with(|chip, bus| chip.halt(bus, 0, Errors::READ));
    assert_eq!((mini.completion(0), mini.errors(0)), (HALTED, 1 << 8));
    assert_eq!((mini.get(DATA + (1 << 20)), mini.get(DATA + (2 << 20) - 8)), (mini.get(DATA), 0));
    recovers(&mut mini);
}

#[test]
fn random_faults_are_the_same_each_time() {
    let run = || {
        let planned = |fault, seed| Planned::new(fault, When::Random { seed, chance: 40 });
        let mut mini = Mini::lying(&[planned(Fault::CopyPartial, 3), planned(Fault::CompletionWild, 4)]);
        let mut seen = Vec::new();
        for _ in 0..20 {
            seen.push(batch(&mut mini));
            if mini.errors(0) != 0 {
                mini.recover(0);
            }
        }
        seen
    };
    let first = run();
    assert_eq!(first, run());
    assert!(first.iter().any(|seen| seen.1 != 0) && first.iter().any(|seen| seen.1 == 0));
}
