//! Shared work queues, which say when they are full.

use drivers::bus::Clock;
use drivers::copy_engine::{CopyDevice, CopyEngine, CopyFailure, CopyOutcome, EngineState};
use drivers::dsa::{self, Dsa};
use hugemem::Iova;
use models::card::{self, Options, Time};
use models::dsa::{Config, Dsa as Chip, Fault, Planned, When};
use models::wire::Null;
use models::{StepClock, watched_region};
use std::sync::{Arc, Mutex};

use super::{chip, config};
use crate::bench::{Count, Field, NAME, TURN, User};
use crate::common::Watchdog;

#[test]
fn a_shared_queue_that_is_full_is_offered_the_same_again() {
    let _watchdog = Watchdog::new("a shared queue".to_owned());
    let options = Options { time: Time::PerPoll(TURN), ..Options::named(NAME) };
    let shape = Config { shared_needs_pasid: false, entries: 2, queues: 1, ..chip(Vec::new()) };
    let (function, device) = card::new(options, Chip::new(shape), Null).unwrap();
    let control = device.control();
    let card = Mutex::new(device);
    let clock: Arc<dyn Clock> = Arc::new(StepClock::new(move || {
        card.lock().unwrap().poll();
    }));
    let config = dsa::Config { shared: true, batch: 1, ..config() };
    let (rings, _) = watched_region(config.ring_memory(), Iova::new(0x20_0000));
    let (data, _) = watched_region(Field::BYTES + 4096, Iova::new(0x4000_0000));
    let mut engine = Dsa::open(function, Arc::clone(&clock), &rings, config).unwrap();
    engine.map(&data).unwrap();
    let mut user = User::new(Field::new(data), 5);
    let (mut channel, _) = engine.start().unwrap().pop().unwrap();
    let pass = || clock.pause(TURN);
    assert!(user.run(&mut channel, 500, pass));
    assert_eq!(user.count, Count { copied: 500, ..Count::default() });
    // Now it takes nothing for a while, and then for too long.
    control.with(|chip, _| chip.set_faults(&[Planned::new(Fault::PortalRetry, When::From(0))]));
    (0..4).for_each(|index| assert!(user.push(&mut channel, index, 64, 200)));
    channel.submit();
    let mut done = Vec::with_capacity(8);
    for _ in 0..100 {
        pass();
        channel.complete(&mut done);
    }
    assert_eq!((done.len(), channel.underway()), (0, 4));
    assert!(channel.record().retries > 50, "{:?}", channel.record());
    control.with(|chip, _| chip.set_faults(&[]));
    for _ in 0..100 {
        pass();
        channel.complete(&mut done);
    }
    assert_eq!(done.len(), 4);
    user.take(&done);
    done.clear();
    control.with(|chip, _| chip.set_faults(&[Planned::new(Fault::PortalRetry, When::From(0))]));
    (0..4).for_each(|index| assert!(user.push(&mut channel, index, 64, 200)));
    channel.submit();
    for _ in 0..5000 {
        pass();
        channel.complete(&mut done);
    }
    assert_eq!(done.len(), 4);
    assert!(done.iter().all(|done| done.outcome == CopyOutcome::Failed(CopyFailure::Refused)));
    user.take(&done);
    assert_eq!((channel.state(), user.count.wrong), (EngineState::Working, 0), "another user may have filled it");
    control.with(|chip, _| chip.set_faults(&[]));
    user.count = Count::default();
    assert!(user.run(&mut channel, 100, pass));
    assert_eq!(user.count, Count { copied: 100, ..Count::default() });
    engine.stop(vec![channel], &mut Vec::new()).unwrap();
    user.check_all("a shared queue");
    assert_eq!(control.violations(), [""; 0]);
}
