//! What the session changes while traffic goes on.

use super::*;
use crate::guest::{GuestAddress, Iotlb, MapOptions, Permission, Translation, testing};
use crate::port::vhost_user::notify::Notifier;

#[test]
fn a_ring_is_started_once_and_takes_nothing_before_it_is_enabled() {
    let (mut from, mut to) = pair(USUAL);
    to.offer(8, 2000);
    assert_eq!(from.vring.start(config(&from.driver, USUAL)), Err(RingError::Running));
    from.vring.enable(false).unwrap();
    from.send(0, 0, [0; HEADER], &frame(60, 1));
    assert_eq!(forward(&mut from, &mut to), 0);
    assert!(from.vring.is_running() && !from.vring.is_enabled());
    from.vring.enable(true).unwrap();
    assert_eq!(forward(&mut from, &mut to), 1);
    assert!(from.vring.stop(STOP_LIMIT).unwrap().is_some());
    assert!(from.vring.stop(STOP_LIMIT).unwrap().is_none());
    assert_eq!(forward(&mut from, &mut to), 0);
}

#[test]
fn stopping_waits_for_frames_that_are_underway() {
    let (mut from, _) = pair(USUAL);
    for head in 0..3 {
        from.send(head, head.into(), [0; HEADER], &frame(300, 0));
    }
    let mut batch = Batch::new(8);
    assert_eq!(from.receive(&mut batch), 3);
    let memory = Arc::downgrade(&from.driver.memory);
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        drop(batch);
    });
    let stopped = from.vring.stop(Duration::from_secs(20)).unwrap();
    assert_eq!(stopped, Some(Stopped { base: Base(3), leaked: false }));
    later.join().unwrap();
    assert_eq!(from.driver.used_index(), 3);
    drop(from);
    assert_eq!(memory.strong_count(), 0, "the memory is let go");
}

#[test]
fn memory_stays_when_frames_do_not_come_home_and_they_come_again_after_a_start() {
    let (mut from, mut to) = pair(USUAL);
    to.offer(8, 2000);
    for head in 0..2 {
        from.send(head, head.into(), [0; HEADER], &frame(300, head as u8));
    }
    let mut batch = Batch::new(1);
    from.receive(&mut batch);
    let stopped = from.vring.stop(Duration::from_millis(1)).unwrap();
    assert_eq!(stopped, Some(Stopped { base: Base(0), leaked: true }));
    let memory = Arc::downgrade(&from.driver.memory);
    from.vring.start(config(&from.driver, USUAL)).unwrap();
    assert_eq!(forward(&mut from, &mut to), 2);
    // The late frame is good still.
    assert_eq!(to.queue.transmit(&mut batch), 1);
    for seed in [0, 1, 0] {
        assert_eq!(to.take().unwrap().1, frame(300, seed));
    }
    from.receive(&mut batch);
    assert_eq!(from.driver.used_index(), 2);
    drop(from);
    assert_eq!(memory.strong_count(), 0, "all frames are home");
}

#[test]
fn memory_is_let_go_when_the_last_late_frame_is_home() {
    let (mut from, _) = pair(USUAL);
    let other = pair(USUAL).0;
    let mut late: Vec<Batch> = Vec::new();
    for (head, seed) in [(0, 1), (1, 2)] {
        from.send(head, head.into(), [0; HEADER], &frame(300, seed));
        let mut batch = Batch::new(1);
        assert_eq!(from.receive(&mut batch), 1);
        late.push(batch);
    }
    let memory = Arc::downgrade(&from.driver.memory);
    let stopped = from.vring.stop(Duration::ZERO).unwrap().unwrap();
    assert!(stopped.leaked);
    // The ring lives on in other memory.
    from.vring.start(config(&other.driver, USUAL)).unwrap();
    let held = Arc::strong_count(&from.driver.memory);
    let mut batch = Batch::new(4);
    for expected in [held, held - 1] {
        late.pop();
        // Its buffer is home, and goes out again before anybody looks.
        from.receive(&mut batch);
        other.send(0, 0, [0; HEADER], &frame(300, 7));
        from.receive(&mut batch);
        from.vring.sweep().unwrap();
        assert_eq!(memory.strong_count(), expected);
    }
    from.vring.sweep().unwrap();
    // One that is never seen again keeps its memory for good.
    assert!(from.vring.stop(Duration::ZERO).unwrap().unwrap().leaked);
    let memory = Arc::downgrade(&other.driver.memory);
    drop((from, other));
    assert!(memory.strong_count() > 0, "nobody may map anything else there");
    assert!(!batch.is_empty());
}

#[test]
fn a_queue_moves_over_to_new_memory_without_losing_its_place() {
    let (mut from, mut to) = pair(USUAL);
    to.offer(8, 2000);
    from.send(0, 0, [0; HEADER], &frame(300, 1));
    assert_eq!(forward(&mut from, &mut to), 1);
    let (extra, _) = (testing::spec(1 << 30, 1 << 16), ());
    let file = testing::file(1 << 16);
    let larger = from.driver.memory.with(extra, testing::handle(&file), &MapOptions::default()).unwrap();
    assert_eq!(from.vring.set_memory(Arc::clone(&larger), None), Ok(true));
    let place = 1 << 30;
    larger
        .pieces(GuestAddress(place), 312, crate::guest::Access::Write, |piece| {
            piece.copy_out(&[&[0; HEADER][..], &frame(300, 2)].concat());
        })
        .unwrap();
    from.driver.offer_chain(1, &[(place, 312, 0)]);
    let mut batch = Batch::new(4);
    assert_eq!(from.receive(&mut batch), 1);
    // Taking the region away waits for the frame that lies in it.
    let smaller = larger.without(extra).unwrap();
    let weak = Arc::downgrade(&larger);
    drop(larger);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| from.vring.set_memory(Arc::clone(&smaller), Some(Duration::from_secs(20))));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        to.queue.transmit(&mut batch);
        assert_eq!(waiting.join().unwrap(), Ok(true));
    });
    assert_eq!(weak.strong_count(), 0);
    assert_eq!(to.take().unwrap().1, frame(300, 1));
    assert_eq!(to.take().unwrap().1, frame(300, 2));
    from.driver.offer_chain(2, &[(place, 312, 0)]);
    assert_eq!(from.receive(&mut batch), 0);
    assert_eq!(from.vring.fault(), Some(RingFault::BadAddress { address: place, len: 312 }));
}

#[test]
fn memory_without_the_ring_stops_it() {
    let (from, _) = pair(USUAL);
    let fault = from.vring.set_memory(Memory::empty(), Some(STOP_LIMIT));
    assert!(matches!(fault, Err(RingError::Fault(RingFault::BadAddress { .. }))), "{fault:?}");
    assert!(from.vring.fault().is_some());
    assert!(from.vring.stop(STOP_LIMIT).unwrap().is_some());
}

#[test]
fn a_queue_behind_an_iommu_waits_for_translations() {
    let driver = Driver::new(SIZE, BUFFERS);
    let iotlb = Arc::new(Iotlb::new());
    let translated = driver.memory.with_iotlb(Some(Arc::clone(&iotlb)));
    let map = |iova, user, size| {
        assert!(iotlb.update(Translation { iova, user, size, permission: Permission::ReadWrite }));
    };
    // The rings are known, at the same addresses as the frontend's; buffers are not.
    let user = driver.addresses().descriptors;
    map(user, user, 1 << 16);
    let (mut queue, vring) = transmit_queue(attention(), None);
    vring.enable(true).unwrap();
    vring.start(RingConfig { memory: Arc::clone(&translated), ..config(&driver, USUAL) }).unwrap();
    let (mut from, _) = pair(USUAL);
    from.send(0, 0, [0; HEADER], &frame(3000, 5));
    let mut batch = Batch::new(4);
    from.receive(&mut batch);
    let iova = 0x7000_0000;
    driver.offer_chain(0, &[(iova, 4000, WRITE)]);
    assert_eq!(queue.transmit(&mut batch), 0);
    let miss = RingFault::Miss { address: iova, access: crate::guest::Access::Write };
    assert_eq!(vring.fault(), Some(miss));
    assert_eq!(queue.transmit(&mut batch), 0, "the frame waits");
    // Two pages that are not next to each other.
    map(iova, driver.buffer(9) + (4 << 30), 1000);
    map(iova + 1000, driver.buffer(3) + (4 << 30), 3000);
    assert_eq!(vring.set_memory(translated, None), Ok(true));
    assert_eq!(queue.transmit(&mut batch), 1);
    assert_eq!(driver.used_index(), 1);
    let arrived = [driver.read(driver.buffer(9), 1000), driver.read(driver.buffer(3), 2012)].concat();
    assert_eq!(arrived[HEADER..], frame(3000, 5));
}

#[test]
fn a_guest_is_signalled_once_a_batch_and_only_when_it_asks() {
    let notifier = Notifier::new().unwrap();
    let (mut from, mut to) = pair(USUAL);
    let (mine, theirs) = (attention(), attention());
    for (vring, event) in [(&from.vring, &theirs), (&to.vring, &mine)] {
        let call = Call::new(event.try_clone().unwrap(), Arc::clone(&notifier)).unwrap();
        vring.set_call(Some(call)).unwrap();
    }
    // A new event gets a signal at once: one to the event before may be lost.
    assert_eq!((count(&mine), count(&theirs)), (1, 1));
    to.offer(40, 2000);
    let send =
        |from: &From, count| (0..count).for_each(|head: u16| from.send(head, head.into(), [0; HEADER], &frame(60, 0)));
    send(&from, 32);
    assert_eq!(forward(&mut from, &mut to), 32);
    from.receive(&mut Batch::new(1));
    assert_eq!((count(&mine), count(&theirs)), (1, 1));
    to.driver.silence();
    from.driver.silence();
    send(&from, 4);
    assert_eq!(forward(&mut from, &mut to), 4);
    from.receive(&mut Batch::new(1));
    assert_eq!((count(&mine), count(&theirs)), (0, 0));
    // The wish came at the very moment of the batch before: rest shows it.
    to.driver.listen(None);
    assert_eq!((to.queue.reclaim(), count(&mine)), (0, 1));
    assert_eq!((to.queue.reclaim(), count(&mine)), (0, 0));
}

#[test]
fn a_long_batch_meets_fewer_buffers_than_frames() {
    let (mut from, mut to) = pair(USUAL);
    to.offer(37, 2000);
    for head in 0..64_u16 {
        from.send(head, head.into(), [0; HEADER], &frame(60, u8::try_from(head).unwrap()));
    }
    let mut batch = Batch::new(64);
    while from.queue.receive(&mut batch) > 0 {}
    assert_eq!(batch.len(), 64);
    assert_eq!(to.queue.transmit(&mut batch), 37);
    assert_eq!((to.driver.used_index(), batch.len()), (37, 27));
    for index in 0..37_u16 {
        let arrived = to.driver.read(to.driver.buffer(index.into()), HEADER + 60);
        assert_eq!(arrived[HEADER..], frame(60, u8::try_from(index).unwrap()), "buffer {index} is filled once");
    }
    assert!(to.vring.fault().is_none());
}

#[test]
fn an_engine_sleeps_only_when_nothing_is_there_and_kicks_are_on() {
    let (mut from, _) = pair(USUAL);
    assert!(from.driver.is_kick_off());
    assert!(from.queue.arm());
    assert!(!from.driver.is_kick_off());
    from.queue.disarm();
    assert!(from.driver.is_kick_off());
    from.send(0, 0, [0; HEADER], &frame(60, 0));
    assert!(!from.queue.arm());
    assert!(from.driver.is_kick_off());
    let mut batch = Batch::new(1);
    from.receive(&mut batch);
    assert!(!from.queue.arm(), "its buffer is still to be given back");
    batch.clear();
    assert!(from.queue.arm());
    assert_eq!(from.driver.used_index(), 1);
    // A ring that starts while the engine sleeps has kicks on.
    from.vring.stop(STOP_LIMIT).unwrap();
    from.vring.start(config(&from.driver, USUAL)).unwrap();
    assert!(!from.driver.is_kick_off());
}

#[test]
fn an_engine_does_not_sleep_on_a_queue_that_is_never_kicked() {
    let (mut from, _) = pair(USUAL);
    from.vring.set_polled(true).unwrap();
    assert!(!from.queue.arm());
    assert!(from.driver.is_kick_off(), "the guest is not asked for kicks that nobody hears");
    from.vring.stop(STOP_LIMIT).unwrap();
    assert!(from.queue.arm(), "there is nothing to miss");
    from.queue.disarm();
    from.vring.start(config(&from.driver, USUAL)).unwrap();
    assert!(!from.queue.arm());
    from.vring.set_polled(false).unwrap();
    assert!(from.queue.arm());
}

#[test]
fn what_is_written_during_migration_is_logged() {
    let (mut from, mut to) = pair(USUAL);
    let file = testing::file(4096);
    let log = crate::guest::DirtyLog::new(testing::handle(&file), 0, 4096, &MapOptions::default()).unwrap();
    let used = to.driver.used.guest().0;
    to.vring.set_log(Some(RingLog { log, used: Some(used) })).unwrap();
    to.driver.offer_chain(0, &[(to.driver.buffer(2), 100, WRITE), (to.driver.buffer(5), 4000, WRITE)]);
    to.driver.offer_chain(2, &[(to.driver.buffer(7), 4000, WRITE)]);
    from.send(0, 0, [0; HEADER], &frame(300, 1));
    from.send(1, 1, [0; HEADER], &frame(300, 1));
    assert_eq!(forward(&mut from, &mut to), 2);
    let mut bits = [0; 16];
    std::os::unix::fs::FileExt::read_at(&file, &mut bits, 0).unwrap();
    let dirty: Vec<u64> =
        (0..128).filter(|page| bits[page / 8] & 1 << (page % 8) != 0).map(|page| page as u64).collect();
    let page = |address: u64| address / 4096;
    let mut expected =
        vec![page(used), page(to.driver.buffer(2)), page(to.driver.buffer(5)), page(to.driver.buffer(7))];
    expected.dedup();
    assert_eq!(dirty, expected);
}
