//! Guests that break rules, and memory that goes away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;
use crate::port::vhost_user::ring::testing::{INDIRECT, NEXT};

/// A queue stopped for `fault`: the session is told once, the queue does nothing more, and a new start mends it.
fn stopped_and_mended<Q>(half: &Half<Q>, fault: RingFault) {
    assert_eq!(half.vring.fault(), Some(fault));
    assert_eq!(count(&half.attention), 1);
    let stopped = half.vring.stop(Duration::ZERO).unwrap().unwrap();
    assert!(!stopped.leaked);
    assert_eq!(half.vring.fault(), None);
    let fresh = Driver::at(Arc::clone(&half.driver.memory), SIZE);
    for word in &fresh.used[..] {
        word.store(0, Ordering::Relaxed);
    }
    for word in &fresh.available[..] {
        word.store(0, Ordering::Relaxed);
    }
    half.vring.start(config(&fresh, USUAL)).unwrap();
    assert_eq!(half.vring.fault(), None);
}

#[test]
fn a_guest_that_sends_from_nowhere_stops_its_queue_alone() {
    let (mut from, mut to) = pair(USUAL);
    let mut bystander = from_vm(Driver::new(SIZE, BUFFERS), USUAL);
    to.offer(16, 2000);
    from.send(0, 0, [0; HEADER], &frame(60, 1));
    from.driver.offer_chain(1, &[(1 << 40, 1000, 0)]);
    from.send(2, 2, [0; HEADER], &frame(60, 2));
    assert_eq!(forward(&mut from, &mut to), 1, "what came before is good");
    assert_eq!(forward(&mut from, &mut to), 0);
    assert_eq!(to.take().unwrap().1, frame(60, 1));
    bystander.send(0, 0, [0; HEADER], &frame(500, 3));
    assert_eq!(forward(&mut bystander, &mut to), 1);
    assert_eq!(to.take().unwrap().1, frame(500, 3));
    stopped_and_mended(&from, RingFault::BadAddress { address: 1 << 40, len: 1000 });
    // The ring is as new, for the driver as well.
    from.driver = Driver::at(Arc::clone(&from.driver.memory), SIZE);
    from.send(0, 0, [0; HEADER], &frame(60, 4));
    assert_eq!(forward(&mut from, &mut to), 1);
    assert_eq!(to.take().unwrap().1, frame(60, 4));
}

#[test]
fn a_guest_with_bad_receive_buffers_stops_its_queue_and_costs_nobody_else_a_frame() {
    type Offer = fn(&Driver) -> RingFault;
    let offers: [Offer; 5] = [
        |driver| {
            driver.offer_chain(0, &[(driver.buffer(0), 11, WRITE)]);
            RingFault::RuntBuffer { len: 11 }
        },
        |driver| {
            driver.offer_chain(0, &[(driver.buffer(0), 0, WRITE)]);
            RingFault::RuntBuffer { len: 0 }
        },
        |driver| {
            driver.offer_chain(4, &[(driver.buffer(0), 2000, 0)]);
            RingFault::Direction { head: 4 }
        },
        |driver| {
            driver.offer_chain(0, &[(1 << 41, 2000, WRITE)]);
            RingFault::BadAddress { address: 1 << 41, len: 312 }
        },
        |driver| {
            // The end of memory is in the middle of the buffer.
            let end = driver.buffer(BUFFERS);
            driver.offer_chain(0, &[(end - 100, 2000, WRITE)]);
            RingFault::BadAddress { address: end - 100, len: 312 }
        },
    ];
    for offer in offers {
        let (mut from, mut to) = pair(USUAL);
        let fault = offer(&to.driver);
        from.send(0, 0, [0; HEADER], &frame(300, 1));
        assert_eq!(forward(&mut from, &mut to), 0, "{fault:?}");
        assert_eq!(to.driver.used_index(), 0);
        stopped_and_mended(&to, fault);
    }
}

#[test]
fn frames_for_a_queue_that_stopped_are_dropped_and_counted() {
    let (mut from, mut to) = pair(USUAL);
    to.driver.offer(SIZE);
    from.send(0, 0, [0; HEADER], &frame(300, 1));
    let mut batch = Batch::new(4);
    from.receive(&mut batch);
    assert_eq!(to.queue.transmit(&mut batch), 0);
    assert_eq!(to.queue.transmit(&mut batch), 1);
    assert_eq!(to.counters().dropped(DropReason::Stopped), 1);
    from.receive(&mut batch);
    assert_eq!(from.driver.take_used(), Some((0, 0)));
}

#[test]
fn a_frame_whose_sender_loses_its_memory_on_the_way_is_dropped() {
    let (driver, file) = Driver::with_file(SIZE, BUFFERS);
    let mut from = from_vm(driver, USUAL);
    let mut bystander = from_vm(Driver::new(SIZE, BUFFERS), USUAL);
    let mut to = to_vm(Driver::new(SIZE, BUFFERS), USUAL);
    to.offer(16, 4000);
    from.send(0, 0, [0; HEADER], &frame(3000, 1));
    from.send(1, 1, [0; HEADER], &frame(3000, 2));
    bystander.send(0, 0, [0; HEADER], &frame(3000, 3));
    let mut batch = Batch::new(8);
    from.receive(&mut batch);
    bystander.receive(&mut batch);
    file.set_len(0).unwrap();
    assert_eq!(to.queue.transmit(&mut batch), 3);
    assert_eq!(to.counters().dropped(DropReason::System), 2);
    assert_eq!(to.take().unwrap().1, frame(3000, 3));
    assert_eq!(to.take(), None);
    assert_eq!(to.vring.fault(), None);
    // The sender's queue finds zeroes where its ring was.
    from.receive(&mut batch);
    assert!(batch.is_empty());
    assert_eq!(from.vring.fault(), Some(RingFault::MemoryLost));
    assert!(!from.vring.stop(Duration::from_secs(1)).unwrap().unwrap().leaked);
}

#[test]
fn a_receiver_that_loses_its_memory_stops() {
    let (driver, file) = Driver::with_file(SIZE, BUFFERS);
    let (mut from, _) = pair(USUAL);
    let mut to = to_vm(driver, USUAL);
    to.offer(16, 4000);
    for head in 0..3 {
        from.send(head, head.into(), [0; HEADER], &frame(3000, 1));
    }
    let mut batch = Batch::new(8);
    from.receive(&mut batch);
    file.set_len(1 << 16).unwrap();
    assert_eq!(to.queue.transmit(&mut batch), 0);
    assert_eq!(to.vring.fault(), Some(RingFault::MemoryLost));
    assert_eq!(to.counters().packets, 0);
    assert_eq!(count(&to.attention), 1);
}

/// A guest writes anything anywhere into its rings, tables and headers while they are polled: every word may change between two reads.
#[test]
fn rings_that_change_while_they_are_read_do_no_harm() {
    let stop = Arc::new(AtomicBool::new(false));
    let (mut from, mut to) = pair(USUAL | Features::CSUM | Features::HOST_TSO4 | Features::HOST_USO);
    let memories = [Arc::clone(&from.driver.memory), Arc::clone(&to.driver.memory)];
    let guest = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let drivers = memories.map(|memory| Driver::at(memory, SIZE));
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            let mut random = move |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            while !stop.load(Ordering::Relaxed) {
                for driver in &drivers {
                    let index = random(SIZE.into()) as u16;
                    let address = match random(8) {
                        0 => random(u64::MAX),
                        1 => driver.buffer(BUFFERS) - random(100),
                        _ => driver.buffer(random(BUFFERS)),
                    };
                    let flags = match random(8) {
                        0 => NEXT,
                        1 => INDIRECT,
                        2 => random(8) as u16,
                        _ => WRITE * random(2) as u16,
                    };
                    driver.describe(index, address, random(2000) as u32, flags, random(u64::from(SIZE) + 2) as u16);
                    let place = 2 + random(SIZE.into()) as usize;
                    driver.available[place].store(random(u64::from(SIZE) + 2) as u16, Ordering::Relaxed);
                    let ahead = driver.used_index().wrapping_add(random(u64::from(SIZE)) as u16);
                    driver.available[1]
                        .store(if random(64) == 0 { random(1 << 16) as u16 } else { ahead }, Ordering::Relaxed);
                    driver.table(driver.buffer(random(BUFFERS)), &[(address, 100, random(8) as u16, 1); 3]);
                }
            }
        })
    };
    let start = Instant::now();
    let (mut moved, mut restarts) = (0, 0);
    let mut batch = Batch::new(64);
    while start.elapsed() < Duration::from_millis(800) || moved == 0 || restarts < 20 {
        assert!(start.elapsed() < Duration::from_secs(60), "{moved} frames and {restarts} restarts");
        assert!(from.receive(&mut batch) <= 64);
        for packet in &batch {
            assert!((14..=65_557).contains(&packet.len()));
        }
        moved += to.queue.transmit(&mut batch);
        batch.clear();
        from.receive(&mut batch);
        batch.clear();
        for (vring, driver) in [(&from.vring, &from.driver), (&to.vring, &to.driver)] {
            if vring.fault().is_some() {
                vring.stop(Duration::from_secs(1)).unwrap();
                vring.start(config(driver, USUAL)).unwrap();
                restarts += 1;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    guest.join().unwrap();
    for counters in [from.queue.counters(), to.counters()] {
        assert!(counters.bytes >= counters.packets * 14);
    }
}
