//! Frames that a copy engine copies, and those behind them.

use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::bell::Bell;
use crate::copy::scripted::{Script, scripted};
use crate::copy::{Copier, CopyState, Copying};
use crate::guest::{MapOptions, testing};

/// Frames of so many bytes are left to the engine.
const LARGE: usize = 1024;
/// How long what another thread does may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two VMs, and an engine that follows a script.
struct World {
    script: Arc<Mutex<Script>>,
    copying: Arc<Copying>,
    copier: Option<Copier>,
    desk: Arc<CopyDesk>,
    from: From,
    to: To,
    files: [std::fs::File; 2],
}

/// A driver in memory that the engine reaches.
fn driver(copying: &Copying) -> (Driver, std::fs::File) {
    let size = (1 << 16) + BUFFERS * BUFFER;
    let file = testing::file(size);
    let options = MapOptions { reach: Some(copying.reach()), ..MapOptions::default() };
    let memory = Memory::empty().with(testing::spec(0, size), testing::handle(&file), &options).unwrap();
    assert_eq!(memory.reached_count(), 1);
    (Driver::at(memory, SIZE), file)
}

impl World {
    fn new() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        script.lock().unwrap().let_through = usize::MAX;
        let copying = scripted(&script, LARGE as u32);
        let copier = copying.copier(&Arc::new(Bell::new().unwrap()));
        let desk = copying.desk(None).unwrap();
        let (sender, sent) = driver(&copying);
        let (receiver, received) = driver(&copying);
        let from = from_vm(sender, USUAL);
        let attention = attention();
        let (queue, vring) = transmit_queue(Arc::clone(&attention), Some(Arc::clone(&desk)));
        vring.enable(true).unwrap();
        vring.start(config(&receiver, USUAL)).unwrap();
        let to = Half { queue, vring, driver: receiver, attention };
        let mut world = Self { script, copying, copier, desk, from, to, files: [sent, received] };
        world.round();
        world
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// What an engine does once a round.
    fn round(&mut self) {
        let Self { copier, desk, to, .. } = self;
        if let Some(copier) = copier
            && copier.round(1, |_| Some(&*desk))
        {
            to.queue.reclaim();
        }
    }

    /// Sends frames of these lengths, each told apart by its place.
    fn send(&mut self, lengths: &[usize]) -> usize {
        for (place, length) in lengths.iter().enumerate() {
            self.from.send(place as u16, place as u64, [0; HEADER], &frame(*length, place as u8));
        }
        forward(&mut self.from, &mut self.to)
    }

    fn expect(&mut self, frames: &[(usize, u8)]) {
        for (length, seed) in frames {
            let taken = self.to.take().map(|taken| taken.1);
            assert!(taken == Some(frame(*length, *seed)), "frame {seed}: {:?} bytes", taken.map(|taken| taken.len()));
        }
        assert!(self.to.take().is_none());
    }

    fn wait(&mut self, what: &str, mut until: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !until(self) {
            assert!(Instant::now() < deadline, "{what}");
            self.round();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

const MIXED: [usize; 6] = [60, 3000, 200, 1500, 1024, 1023];

fn mixed() -> Vec<(usize, u8)> {
    MIXED.iter().copied().zip(0..).collect()
}

#[test]
fn frames_come_in_order_whatever_is_done_first() {
    for reversed in [false, true] {
        let mut world = World::new();
        {
            let mut script = world.script();
            (script.reversed, script.let_through) = (reversed, 0);
        }
        world.to.offer(16, 3500);
        assert_eq!(world.send(&MIXED), 6);
        world.round();
        assert_eq!(world.script().seen, 3);
        // Nothing overtakes the first large frame, and that is not there.
        assert_eq!(world.to.driver.used_index(), 1);
        assert_eq!(world.from.queue.underway(), 5, "the sender's chains go back in order as well");
        for (done, used) in [(1, if reversed { 1 } else { 3 }), (1, if reversed { 1 } else { 4 }), (1, 6)] {
            world.script().let_through = done;
            world.round();
            assert_eq!(world.to.driver.used_index(), used, "reversed: {reversed}");
        }
        world.expect(&mixed());
        assert_eq!(world.to.counters().packets, 6);
        assert_eq!(world.to.counters().bytes, MIXED.iter().sum::<usize>() as u64);
        assert_eq!(world.desk.counts().copies, 3);
        assert_eq!(world.from.queue.underway(), 0);
    }
}

#[test]
fn frames_of_several_buffers_come_whole() {
    for mergeable in [true, false] {
        let mut world = World::new();
        if mergeable {
            world.to.offer(32, 600);
        } else {
            // One chain of many descriptors.
            let parts: Vec<_> = (0..8).map(|part| (world.to.driver.buffer(part), 600, WRITE)).collect();
            world.to.driver.offer_chain(0, &parts);
        }
        world.send(&[3000]);
        world.round();
        assert!(world.script().seen >= 5, "mergeable: {mergeable}");
        if mergeable {
            world.expect(&[(3000, 0)]);
        } else {
            let (_, written) = world.to.driver.take_used().unwrap();
            assert_eq!(written, 3012);
            let buffers = (0..6).flat_map(|part| world.to.driver.read(world.to.driver.buffer(part), 600));
            assert!(buffers.skip(HEADER).take(3000).collect::<Vec<_>>() == frame(3000, 0));
        }
    }
}

#[test]
fn a_copy_that_fails_is_done_by_the_cpu_wherever_it_stands() {
    for failing in 0..3 {
        let mut world = World::new();
        world.script().failing = vec![failing];
        world.to.offer(16, 3500);
        world.send(&MIXED);
        world.round();
        world.expect(&mixed());
        let counts = world.desk.counts();
        assert_eq!((counts.copies, counts.failed), (2, 1));
    }
}

#[test]
fn a_channel_that_breaks_loses_nothing_and_comes_back() {
    let mut world = World::new();
    world.script().let_through = 0;
    world.to.offer(24, 3500);
    world.send(&MIXED);
    world.round();
    world.script().broken = true;
    // Control stops the device before anybody copies again.
    world.wait("the copies are answered", |world| world.to.driver.used_index() == 6);
    assert_eq!(world.script().stops, 1);
    world.expect(&mixed());
    assert_eq!(world.desk.counts().failed, 3);
    world.wait("the device works again", |world| world.copying.state() == CopyState::Working);
    world.wait("the desk is open", |world| world.desk.threshold().is_some());
    world.script().let_through = usize::MAX;
    world.send(&[2000]);
    world.round();
    assert_eq!(world.desk.counts().copies, 1);
    world.expect(&[(2000, 0)]);
}

#[test]
fn while_the_device_is_away_the_cpu_copies() {
    let mut world = World::new();
    world.to.offer(24, 3500);
    {
        let mut script = world.script();
        (script.broken, script.absent) = (true, true);
    }
    world.send(&[2000]);
    world.wait("the first frame is there", |world| world.to.driver.used_index() == 1);
    world.wait("the desk is closed", |world| world.desk.threshold().is_none());
    let seen = world.script().seen;
    world.send(&MIXED);
    assert_eq!(world.to.driver.used_index(), 7);
    assert_eq!(world.script().seen, seen);
    // It was tried again, in vain.
    world.script().absent = false;
    world.wait("the device works again", |world| world.desk.threshold().is_some());
}

#[test]
fn stopping_waits_for_copies_and_lets_memory_go_afterwards() {
    let mut world = World::new();
    world.script().let_through = 0;
    world.to.offer(16, 3500);
    world.send(&[3000, 60]);
    world.round();
    let stopped = world.to.vring.stop(Duration::from_millis(1)).unwrap().unwrap();
    assert_eq!(stopped, Stopped { base: Base(0), leaked: true });
    let memory = Arc::downgrade(&world.to.driver.memory);
    let count = memory.strong_count();
    world.to.vring.sweep().unwrap();
    assert_eq!(memory.strong_count(), count, "it is still copied to");
    assert!(world.from.queue.underway() > 0);
    // A new ring: what comes waits until the old copies are answered.
    world.to.vring.start(config(&world.to.driver, USUAL)).unwrap();
    assert_eq!(world.send(&[100]), 1);
    assert_eq!(world.to.driver.used_index(), 0);
    world.script().let_through = 1;
    world.round();
    assert_eq!(world.to.driver.used_index(), 1);
    assert!(world.to.take().unwrap().1 == frame(100, 0));
    // The new ring has it as well.
    assert_eq!(memory.strong_count(), count + 1);
    world.to.vring.sweep().unwrap();
    assert_eq!(memory.strong_count(), count);
    assert_eq!(world.to.counters().dropped(DropReason::Stopped), 2);
}

#[test]
fn a_stop_that_waits_gives_all_chains_back() {
    let mut world = World::new();
    world.script().let_through = 0;
    world.to.offer(16, 3500);
    world.send(&[3000, 60]);
    world.round();
    let vring = world.to.vring.clone();
    let stopping = std::thread::spawn(move || vring.stop(PATIENCE).unwrap());
    world.script().let_through = usize::MAX;
    world.wait("the ring stops", |_| stopping.is_finished());
    assert_eq!(stopping.join().unwrap(), Some(Stopped { base: Base(2), leaked: false }));
    world.expect(&[(3000, 0), (60, 1)]);
}

#[test]
fn a_frame_from_memory_that_was_lost_is_not_shown() {
    let mut world = World::new();
    world.script().let_through = 0;
    world.to.offer(16, 3500);
    world.send(&[3000, 60]);
    world.round();
    world.files[0].set_len(0).unwrap();
    world.script().let_through = usize::MAX;
    world.round();
    assert_eq!(world.to.driver.take_used(), Some((0, 0)), "the chain comes back empty");
    assert!(world.to.take().unwrap().1 == frame(60, 1));
    assert_eq!(world.to.counters().dropped(DropReason::System), 1);
}

#[test]
fn a_receiver_whose_memory_is_lost_stops_alone() {
    let mut world = World::new();
    world.script().let_through = 0;
    world.to.offer(16, 3500);
    world.send(&[3000, 60]);
    world.round();
    world.files[1].set_len(0).unwrap();
    world.script().let_through = usize::MAX;
    world.round();
    assert_eq!(world.to.vring.fault(), Some(RingFault::MemoryLost));
    assert!(count(&world.to.attention) > 0);
    assert_eq!(world.from.queue.underway(), 0, "the sender has its chains again");
}

#[test]
fn more_than_can_be_underway_is_copied_by_the_cpu() {
    let mut world = World::new();
    world.script().let_through = 0;
    // Each frame is four copies of 512 bytes and one of the rest.
    for round in 0..10_u16 {
        for head in 0..8 {
            let head = round * 8 + head;
            world.to.driver.describe(head, world.to.driver.buffer(u64::from(head)), 3500, WRITE, 0);
            world.to.driver.offer(head);
        }
    }
    let lengths = [2000; 8];
    for _ in 0..10 {
        assert_eq!(world.send(&lengths), 8);
        world.round();
    }
    assert_eq!(world.script().seen, 64, "what the channel has room for");
    world.script().let_through = usize::MAX;
    world.wait("all are there", |world| world.to.driver.used_index() == 80);
    assert_eq!(world.desk.counts().copies, 80);
    for _ in 0..10 {
        for seed in 0..8 {
            assert!(world.to.take().unwrap().1 == frame(2000, seed));
        }
    }
}

#[test]
fn memory_is_reached_for_as_long_as_it_is_there() {
    let world = World::new();
    assert_eq!(world.script().windows(), 2);
    let script = Arc::clone(&world.script);
    let World { copying, copier, from, to, .. } = world;
    copying.take_back(copier.unwrap());
    drop(from);
    assert_eq!(script.lock().unwrap().windows(), 1);
    drop(to);
    assert_eq!(script.lock().unwrap().windows(), 0);
    drop(copying);
    assert_eq!(script.lock().unwrap().stops, 1);
}
