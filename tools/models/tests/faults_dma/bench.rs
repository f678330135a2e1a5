//! An engine and its driver on one thread, taking turns, on a clock that only waiting moves; and memory to copy, every byte of which is watched.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use drivers::DeviceError;
use drivers::bus::Clock;
use drivers::copy_engine::{CopyDevice, CopyDone, CopyEngine, CopyJob, CopyOutcome, EngineState};
use drivers::ioat::{self, Ioat};
use hugemem::{DmaArray, Iova, Region};
use models::card::{self, Chip, Control, Device, Function, Options, Time};
use models::ioat as chip;
use models::wire::Null;
use models::{Random, StepClock, watched_region};

/// The engine's name.
pub(crate) const NAME: &str = "dma7";
/// Longest that anything asked of the driver may take, by its own clock.
const LIMIT: Duration = Duration::from_secs(2);
/// What passes for the engine with each turn, and for the driver with each look.
pub(crate) const TURN: Duration = Duration::from_micros(100);
/// Bytes that one descriptor copies here.
pub(crate) const UNIT: u32 = 4096;
/// Bytes to copy from, and of each job's place.
const SOURCE: usize = 64 << 10;
const PLACE: usize = 20 << 10;
/// Jobs that have a place.
pub(crate) const PLACES: usize = 64;
/// What lies in front of and behind each target.
const GUARD: u8 = 0xc7;
/// What the caller writes to the target of a copy that failed: the engine must not write there any more.
const REDONE: u8 = 0x3d;

/// Memory to copy.
pub(crate) struct Field {
    bytes: DmaArray<AtomicU8>,
    pub(crate) region: Region,
}

impl Field {
    pub(crate) const BYTES: usize = SOURCE + PLACES * PLACE;

    pub(crate) fn new(region: Region) -> Self {
        let bytes = region.array::<AtomicU8>(Self::BYTES, 4096).unwrap();
        let mut random = Random::new(1);
        bytes.iter().take(SOURCE).for_each(|byte| byte.store(random.bits().to_le_bytes()[2], Ordering::Relaxed));
        let field = Self { bytes, region };
        field.fill(SOURCE..Self::BYTES, GUARD);
        field
    }

    fn fill(&self, range: std::ops::Range<usize>, value: u8) {
        self.bytes[range].iter().for_each(|byte| byte.store(value, Ordering::Relaxed));
    }

    fn address(&self, at: usize) -> Iova {
        self.bytes.iova_of(at).unwrap()
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes[at].load(Ordering::Relaxed)
    }
}

/// A job that is underway.
#[derive(Clone, Copy, Debug)]
struct Errand {
    token: u64,
    place: usize,
    source: usize,
    /// In its place.
    offset: usize,
    length: usize,
}

/// What became of jobs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Count {
    pub(crate) copied: u64,
    pub(crate) failed: u64,
    /// Called done, and the bytes are wrong.
    pub(crate) wrong: u64,
}

/// A user of one channel, who checks everything.
pub(crate) struct User {
    pub(crate) field: Field,
    errands: VecDeque<Errand>,
    /// Targets of failed copies, which must stay as the user left them.
    redone: Vec<Errand>,
    free: VecDeque<usize>,
    next: u64,
    random: Random,
    pub(crate) count: Count,
    /// Bytes may come late, for the engine says that copies are done before they are.
    pub(crate) lenient: bool,
    pub(crate) outcomes: Vec<CopyOutcome>,
}

impl User {
    pub(crate) fn new(field: Field, seed: u64) -> Self {
        let (errands, redone, free) = (VecDeque::new(), Vec::new(), (0..PLACES).collect());
        let (random, count) = (Random::new(seed), Count::default());
        Self { field, errands, redone, free, next: 0, random, count, lenient: false, outcomes: Vec::new() }
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.bits() >> 16).unwrap() % end
    }

    /// Pushes a copy of any length and alignment. `false` when the engine or the field has no room.
    pub(crate) fn push_any(&mut self, engine: &mut impl CopyEngine) -> bool {
        let length = match self.below(8) {
            0 => self.below(9),
            1 => self.below(4 * UNIT as usize),
            _ => self.below(1600),
        };
        let (source, offset) = (self.below(SOURCE - length), 64 + self.below(PLACE - 128 - length));
        self.push(engine, source, offset, length)
    }

    pub(crate) fn push(&mut self, engine: &mut impl CopyEngine, source: usize, offset: usize, length: usize) -> bool {
        let Some(place) = self.free.pop_front() else { return false };
        let (from, to) = (self.field.address(source), self.field.address(SOURCE + place * PLACE + offset));
        let job = CopyJob::new(from, to, u32::try_from(length).unwrap(), self.next).unwrap();
        if let Err(back) = engine.push(job) {
            assert_eq!(back, job);
            self.free.push_front(place);
            return false;
        }
        self.errands.push_back(Errand { token: self.next, place, source, offset, length });
        self.next += 1;
        true
    }

    /// Takes what came back.
    pub(crate) fn take(&mut self, done: &[CopyDone]) {
        for CopyDone { token, outcome } in done {
            let errand = self.errands.pop_front().expect("a job came back that was not underway");
            assert_eq!(*token, errand.token, "jobs come back in order, each once");
            self.outcomes.push(*outcome);
            match outcome {
                CopyOutcome::Copied => {
                    self.count.copied += 1;
                    self.count.wrong += u64::from(!self.is_copied(&errand));
                    self.clean(errand);
                }
                CopyOutcome::Failed(_) => {
                    self.count.failed += 1;
                    let start = SOURCE + errand.place * PLACE;
                    self.field.fill(start + errand.offset..start + errand.offset + errand.length, REDONE);
                    self.redone.push(errand);
                }
            }
        }
    }

    /// All bytes are there, and none close beside them.
    fn is_copied(&self, errand: &Errand) -> bool {
        let Errand { place, source, offset, length, .. } = *errand;
        (offset - 64..offset + length + 64).all(|at| {
            let inside = at >= offset && at < offset + length;
            let expected = if inside { self.field.byte(source + at - offset) } else { GUARD };
            self.field.byte(SOURCE + place * PLACE + at) == expected
        })
    }

    fn clean(&mut self, Errand { place, offset, length, .. }: Errand) {
        let start = SOURCE + place * PLACE + offset;
        self.field.fill(start..start + length, GUARD);
        self.free.push_back(place);
    }

    /// With no job underway: nothing was written anywhere that no job is to blame for.
    pub(crate) fn check_all(&mut self, what: &str) {
        self.check_redone();
        assert!(
            (SOURCE..Field::BYTES).all(|at| self.field.byte(at) == GUARD),
            "{what}: memory beside all jobs was written"
        );
    }

    /// Nothing was written to memory that was given back, nor beside it.
    pub(crate) fn check_redone(&mut self) {
        for errand in std::mem::take(&mut self.redone) {
            let Errand { place, offset, length, .. } = errand;
            let touched = (0..PLACE).find(|at| {
                let inside = *at >= offset && *at < offset + length;
                self.field.byte(SOURCE + place * PLACE + at) != if inside { REDONE } else { GUARD }
            });
            assert!(
                self.lenient || touched.is_none(),
                "{touched:?}: memory was written that had been given back: {errand:?}"
            );
            self.clean(errand);
        }
    }

    /// Forgets what a lie that no driver can see has left behind.
    pub(crate) fn forget(&mut self) {
        self.check_redone();
        self.field.fill(SOURCE..Field::BYTES, GUARD);
    }

    pub(crate) fn underway(&self) -> usize {
        self.errands.len()
    }

    /// Pushes `jobs` copies, some in each round, and waits for all to come back, letting `pass` time pass. `false` when the engine broke.
    pub(crate) fn run(&mut self, engine: &mut impl CopyEngine, jobs: usize, mut pass: impl FnMut()) -> bool {
        let mut done = Vec::with_capacity(16);
        let (mut left, mut turns) = (jobs, 0);
        while left > 0 || !self.errands.is_empty() {
            for _ in 0..self.below(7) {
                if left == 0 || !self.push_any(engine) {
                    break;
                }
                left -= 1;
            }
            engine.submit();
            pass();
            engine.complete(&mut done);
            self.take(&done);
            done.clear();
            assert_eq!(engine.underway(), self.errands.len());
            if engine.state() == EngineState::Broken && (left > 0 || self.errands.is_empty() || turns > 100_000) {
                // Whatever can be given back is.
                while engine.complete(&mut done) > 0 {
                    self.take(&done);
                    done.clear();
                }
                return false;
            }
            if self.free.is_empty() && self.errands.is_empty() {
                self.check_redone();
            }
            turns += 1;
            assert!(turns < 200_000, "{} jobs never come back ({:?})", self.errands.len(), engine.state());
        }
        true
    }
}

/// A kind of engine: its model and its driver.
pub(crate) trait Kind: 'static {
    /// The model, how it is to be, and what it can be told to do wrong.
    type Chip: Chip;
    type Config;
    type Planned;
    /// The driver.
    type Device: CopyDevice;

    fn chip(config: Self::Config) -> Self::Chip;
    fn set_faults(chip: &mut Self::Chip, faults: &[Self::Planned]);
    fn ring_memory() -> usize;
    fn open(function: Function<Self::Chip>, clock: Arc<dyn Clock>, rings: &Region)
    -> Result<Self::Device, DeviceError>;
}

/// I/OAT.
pub(crate) struct OfIoat;

impl OfIoat {
    fn config() -> ioat::Config {
        ioat::Config { depth: 32, interrupts: true, ..ioat::Config::default() }
    }
}

impl Kind for OfIoat {
    type Chip = chip::Ioat;
    type Config = chip::Config;
    type Planned = chip::Planned;
    type Device = Ioat<Function<chip::Ioat>>;

    fn chip(config: chip::Config) -> chip::Ioat {
        chip::Ioat::new(config)
    }

    fn set_faults(chip: &mut chip::Ioat, faults: &[chip::Planned]) {
        chip.set_faults(faults);
    }

    fn ring_memory() -> usize {
        Self::config().ring_memory()
    }

    fn open(
        function: Function<chip::Ioat>,
        clock: Arc<dyn Clock>,
        rings: &Region,
    ) -> Result<Self::Device, DeviceError> {
        Ioat::open(function, clock, rings, Self::config())
    }
}

/// An engine of I/OAT.
pub(crate) type Bench = Rig<OfIoat>;

/// An engine with its driver and the memory of both.
pub(crate) struct Rig<K: Kind> {
    pub(crate) control: Control<K::Chip>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) engine: K::Device,
    pub(crate) channel: Option<<K::Device as CopyDevice>::Engine>,
    pub(crate) user: User,
    watches: [(&'static str, Weak<()>); 2],
}

/// An engine with small descriptors that misbehaves in these ways.
pub(crate) fn chip(faults: Vec<chip::Planned>) -> chip::Config {
    chip::Config { longest: 12, faults, ..chip::Config::default() }
}

impl<K: Kind> Rig<K> {
    /// Opens and starts the engine; all memory must be back when that fails.
    pub(crate) fn open(config: K::Config) -> Result<Self, DeviceError> {
        let options = Options { time: Time::PerPoll(TURN), ..Options::named(NAME) };
        let (function, device) = card::new(options, K::chip(config), Null).unwrap();
        let control = device.control();
        let card: Arc<Mutex<Device<K::Chip, Null>>> = Arc::new(Mutex::new(device));
        let clock: Arc<dyn Clock> = Arc::new(StepClock::new(move || {
            card.lock().unwrap_or_else(PoisonError::into_inner).poll();
        }));
        let (rings, rings_watch) = watched_region(K::ring_memory(), Iova::new(0x20_0000));
        let (data, data_watch) = watched_region(Field::BYTES + 4096, Iova::new(0x4000_0000));
        let watches = [("rings", rings_watch), ("data", data_watch)];
        let opened = timed(&*clock, "open", || {
            let mut engine = K::open(function, Arc::clone(&clock), &rings)?;
            engine.map(&data).unwrap();
            let channel = engine.start()?.pop().map(|(channel, _)| channel);
            Ok((engine, channel))
        });
        drop(rings);
        match opened {
            Ok((engine, channel)) => {
                Ok(Self { control, clock, engine, channel, user: User::new(Field::new(data), 7), watches })
            }
            Err(error) => {
                drop((data, clock));
                assert_eq!((control.mapped(), control.enabled_vectors()), (0, 0));
                is_free(&watches);
                Err(error)
            }
        }
    }

    pub(crate) fn faults(&self, faults: &[K::Planned]) {
        self.control.with(|chip, _| K::set_faults(chip, faults));
    }

    /// Does so many jobs. `false` when the engine broke.
    pub(crate) fn run(&mut self, jobs: usize) -> bool {
        let (clock, channel) = (Arc::clone(&self.clock), self.channel.as_mut().unwrap());
        self.user.run(channel, jobs, || clock.pause(TURN))
    }

    /// Lets the engine work for so many turns.
    pub(crate) fn pass(&self, turns: usize) {
        (0..turns).for_each(|_| self.clock.pause(TURN));
    }

    pub(crate) fn stop(&mut self) -> Result<(), DeviceError> {
        let mut back = Vec::new();
        let (engine, channel, clock) = (&mut self.engine, self.channel.take().into_iter().collect(), &*self.clock);
        let outcome = timed(clock, "stop", || engine.stop(channel, &mut back));
        self.user.take(&back);
        outcome
    }

    pub(crate) fn start(&mut self) -> Result<(), DeviceError> {
        let (engine, clock) = (&mut self.engine, &*self.clock);
        self.channel = timed(clock, "start", || engine.start())?.pop().map(|(channel, _)| channel);
        Ok(())
    }

    /// The engine behaves from now on: whatever state it is in, stopping and starting mends it.
    pub(crate) fn recovers(&mut self, what: &str) {
        self.faults(&[]);
        self.stop().unwrap_or_else(|error| panic!("{what}: cannot be stopped: {error}"));
        assert_eq!(self.user.underway(), 0, "{what}: jobs stay with an engine that stopped");
        self.pass(50);
        self.user.check_redone();
        self.start().unwrap_or_else(|error| panic!("{what}: cannot be started: {error}"));
        self.user.count = Count::default();
        assert!(self.run(100), "{what}: broken although it behaves");
        assert_eq!(self.user.count, Count { copied: 100, ..Count::default() }, "{what}");
        self.engine.check().unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    /// Drops everything and checks that all memory, maps and vectors are back.
    pub(crate) fn end(self) {
        let Self { control, clock, engine, channel, user, watches } = self;
        drop(channel);
        timed(&*clock, "drop", || drop(engine));
        assert_eq!((control.mapped(), control.enabled_vectors()), (0, 0));
        drop((user, clock, control));
        is_free(&watches);
    }
}

fn is_free(watches: &[(&'static str, Weak<()>)]) {
    let held: Vec<_> = watches.iter().filter(|(_, watch)| watch.upgrade().is_some()).collect();
    assert!(held.is_empty(), "memory is still held: {held:?}");
}

/// Does something that the driver has to be done with in time.
fn timed<T>(clock: &dyn Clock, what: &str, work: impl FnOnce() -> T) -> T {
    let start = clock.now();
    let result = work();
    let took = clock.now() - start;
    assert!(took <= LIMIT, "{what} took {took:?}");
    result
}
