#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![expect(unsafe_code, reason = "a device in software is given addresses")]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use drivers::bus::Clock;
use drivers::copy_engine::{CopyDevice, CopyDone, CopyEngine, CopyFailure, CopyJob, CopyOutcome, EngineState};
use drivers::dsa::Portal;
use hugemem::{DmaArray, Iova, Region};
use vfio::{Sysfs, WorkQueue};

use super::portal::Written;
use super::views::shift;
use super::{Config, Idxd, Opened, Opener, Way};

/// Bytes of each job's place, and their number.
const PLACE: usize = 8192;
const PLACES: usize = 64;

/// How the played device behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// It does everything at once.
    Honest,
    /// It does what it has when more comes or somebody waits, the last first.
    Backwards,
    /// It does nothing.
    Silent,
    /// It answers what no copy ends with.
    Lying,
    /// Every third copy faults on writing.
    Faulting,
}

/// A DSA that copies between addresses of this process.
#[derive(Default)]
struct Played {
    manner: Mutex<Option<Manner>>,
    waiting: Mutex<Vec<[u64; 8]>>,
    /// Blocks that came, batches among them, and copies.
    blocks: AtomicUsize,
    batches: AtomicUsize,
    copies: AtomicUsize,
}

impl Played {
    fn manner(&self) -> Manner {
        self.manner.lock().unwrap().unwrap_or(Manner::Honest)
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = Some(manner);
    }

    fn take(&self, block: [u64; 8]) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        match self.manner() {
            Manner::Silent => {}
            Manner::Backwards => self.waiting.lock().unwrap().push(block),
            _ => self.run(&block),
        }
    }

    /// Does what waits, the last first.
    fn work(&self) {
        while let Some(block) = { self.waiting.lock().unwrap().pop() } {
            self.run(&block);
        }
    }

    fn run(&self, block: &[u64; 8]) {
        let [head, record, source, target, size, ..] = *block;
        let count = usize::try_from(size & 0xffff_ffff).unwrap();
        let status = match head >> 56 {
            0 => 1,
            1 => {
                self.batches.fetch_add(1, Ordering::Relaxed);
                // SAFETY: the driver keeps the list in place until the batch is over.
                let list = unsafe { std::slice::from_raw_parts(address(source) as *const [u64; 8], count) };
                list.iter().rev().for_each(|block| self.run(block));
                5
            }
            3 => {
                let copies = self.copies.fetch_add(1, Ordering::Relaxed);
                match self.manner() {
                    Manner::Lying => 0x0f,
                    Manner::Faulting if copies.is_multiple_of(3) => 0x83,
                    _ => {
                        // SAFETY: both lie in regions that were mapped for the device.
                        unsafe { std::ptr::copy(address(source) as *const u8, address(target) as *mut u8, count) };
                        1
                    }
                }
            }
            other => panic!("operation {other}"),
        };
        // SAFETY: the driver keeps the record in place until it was written.
        unsafe { &*(address(record) as *const AtomicU64) }.store(status, Ordering::Release);
    }
}

fn address(word: u64) -> usize {
    usize::try_from(word).unwrap()
}

struct Page(Arc<Played>, Option<mpsc::Receiver<()>>);

impl Portal for Page {
    fn offer(&mut self, descriptors: &[[u64; 8]]) -> usize {
        descriptors.iter().for_each(|block| self.0.take(*block));
        descriptors.len()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // The kernel drains it, and may take its time.
        self.0.work();
        if let Some(gate) = self.1.take() {
            let _ = gate.recv();
        }
    }
}

/// A file that takes descriptors: what is written goes through a socket to the device, within the call.
struct Call {
    near: UnixStream,
    far: UnixStream,
    device: Arc<Played>,
}

impl Write for Call {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.near.write(bytes)?;
        for _ in 0..length / 64 {
            let mut block = [0; 64];
            self.far.read_exact(&mut block)?;
            let mut words = block.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
            self.device.take(std::array::from_fn(|_| words.next().unwrap()));
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A page that nothing comes of.
struct Dead;

impl Portal for Dead {
    fn offer(&mut self, descriptors: &[[u64; 8]]) -> usize {
        descriptors.len()
    }
}

/// Where a played work queue is: behind a page, or behind a socket; `None` for a way that the kernel refuses.
struct Doors {
    device: Arc<Played>,
    page: bool,
    /// The page is there, and nothing comes of it.
    dead: bool,
    socket: bool,
    /// The next page is not closed before this says so.
    gate: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

impl Opener for Doors {
    fn open(&mut self, written: bool) -> io::Result<Opened> {
        if self.dead && !written {
            return Ok(Opened { portal: Box::new(Dead), way: Way::Mapped });
        }
        if self.page && !written {
            let gate = self.gate.lock().unwrap().take();
            return Ok(Opened { portal: Box::new(Page(Arc::clone(&self.device), gate)), way: Way::Mapped });
        }
        if !self.socket {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (near, far) = UnixStream::pair()?;
        let call = Call { near, far, device: Arc::clone(&self.device) };
        Ok(Opened { portal: Box::new(Written(call)), way: Way::Written })
    }
}

/// A clock that waiting moves, and that has the device do its work.
struct Turns(Arc<Played>, AtomicU64);

impl Clock for Turns {
    fn now(&self) -> Duration {
        Duration::from_micros(self.1.load(Ordering::Relaxed))
    }

    fn pause(&self, _: Duration) {
        self.1.fetch_add(50, Ordering::Relaxed);
        self.0.work();
    }
}

struct Bench {
    played: Arc<Played>,
    clock: Arc<Turns>,
    device: Idxd,
    data: DmaArray<AtomicU8>,
    region: Region,
    gate: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

fn queue(shared: bool) -> WorkQueue {
    WorkQueue {
        name: "wq0.0".into(),
        node: "/dev/dsa/wq0.0".into(),
        device: "dsa0".into(),
        enabled: true,
        owner: "user".into(),
        shared,
        size: 8,
        batch: 16,
        longest: 4096,
    }
}

fn bench(page: bool, socket: bool) -> Bench {
    behind(page, false, socket)
}

fn behind(page: bool, dead: bool, socket: bool) -> Bench {
    let played = Arc::<Played>::default();
    let clock = Arc::new(Turns(Arc::clone(&played), AtomicU64::new(0)));
    let config = Config { depth: 32, ..Config::default() };
    let rings = Region::on_heap(config.ring_memory(), Iova::new(0x10_0000)).unwrap();
    let region = Region::on_heap(2 * PLACE * PLACES, Iova::new(0x4000_0000)).unwrap();
    let data = region.array::<AtomicU8>(2 * PLACE * PLACES, 4096).unwrap();
    data.iter().take(PLACE * PLACES).zip(0_u32..).for_each(|(byte, at)| {
        let value = at.wrapping_mul(0x9e37_79b1).to_le_bytes();
        byte.store(value[3], Ordering::Relaxed);
    });
    let gate = Arc::default();
    let doors = Doors { device: Arc::clone(&played), page, dead, socket, gate: Arc::clone(&gate) };
    let name = "/dev/dsa/wq0.0".to_owned();
    let mut device =
        Idxd::with(name, queue(false), Box::new(doors), Arc::clone(&clock) as Arc<dyn Clock>, &rings, &config).unwrap();
    device.map(&region).unwrap();
    Bench { played, clock, device, data, region, gate }
}

impl Bench {
    fn job(&self, place: usize, length: usize, token: u64) -> CopyJob {
        let (from, to) = (self.data.iova_of(place * PLACE + 3), self.data.iova_of((PLACES + place) * PLACE + 5));
        CopyJob::new(from.unwrap(), to.unwrap(), u32::try_from(length).unwrap(), token).unwrap()
    }

    fn is_copied(&self, place: usize, length: usize) -> bool {
        let byte = |at: usize| self.data[at].load(Ordering::Relaxed);
        let beside = byte((PLACES + place) * PLACE + 5 + length) == 0 && byte((PLACES + place) * PLACE + 4) == 0;
        beside && (0..length).all(|at| byte(place * PLACE + 3 + at) == byte((PLACES + place) * PLACE + 5 + at))
    }

    /// Lets time pass until nothing is underway.
    fn wait(&self, channel: &mut super::Channel) -> Vec<CopyDone> {
        let mut done = Vec::with_capacity(PLACES);
        for _ in 0..1_000_000 {
            channel.complete(&mut done);
            if channel.underway() == 0 || channel.state() == EngineState::Broken {
                return done;
            }
            self.clock.pause(Duration::ZERO);
        }
        panic!("{} jobs never come back", channel.underway());
    }
}

fn outcomes(done: &[CopyDone]) -> Vec<(u64, bool)> {
    done.iter().map(|done| (done.token, done.outcome == CopyOutcome::Copied)).collect()
}

#[test]
fn copies_go_by_every_way_and_come_back_in_order() {
    for (page, way) in [(true, Way::Mapped), (false, Way::Written)] {
        for manner in [Manner::Honest, Manner::Backwards] {
            let mut bench = bench(page, true);
            bench.played.set(manner);
            let (mut channel, _) = bench.device.start().unwrap().pop().unwrap();
            assert_eq!(bench.device.summary().way, Some(way));
            assert!(bench.device.summary().to_string().contains("wq0.0 (dedicated, 8 entries)"));
            let lengths = [0, 1, 63, 64, 1514, 4096, 4097, 8000];
            let mut token = 0;
            for round in 0..4 {
                for (index, length) in lengths.into_iter().enumerate() {
                    channel.push(bench.job(round * lengths.len() + index, length, token)).unwrap();
                    token += 1;
                }
                channel.submit();
                let done = bench.wait(&mut channel);
                let expected: Vec<_> = (token - 8..token).map(|token| (token, true)).collect();
                assert_eq!(outcomes(&done), expected, "{way:?} {manner:?}");
            }
            for (place, length) in lengths.into_iter().cycle().take(32).enumerate() {
                assert!(bench.is_copied(place, length), "{way:?} {manner:?}: {length} bytes");
            }
            // Kernels take no batches by write().
            assert_eq!(bench.played.batches.load(Ordering::Relaxed) > 0, page);
            assert_eq!(bench.device.records()[0].failures, 0);
            bench.device.stop(vec![channel], &mut Vec::new()).unwrap();
        }
    }
}

#[test]
fn a_page_that_does_not_answer_is_left_for_system_calls_and_a_queue_without_either_says_why() {
    let mut works_by_call = behind(false, true, true);
    works_by_call.device.start().unwrap();
    assert_eq!(works_by_call.device.summary().way, Some(Way::Written));
    let mut silent = bench(false, true);
    silent.played.set(Manner::Silent);
    let error = silent.device.start().expect_err("nobody answers").to_string();
    assert!(error.contains("/dev/dsa/wq0.0") && error.contains("CAP_SYS_RAWIO") && error.contains("6.9"), "{error}");
    // The descriptor that did nothing is nobody's job.
    silent.played.set(Manner::Honest);
    let (mut channel, _) = silent.device.start().unwrap().pop().unwrap();
    let mut done = Vec::with_capacity(4);
    assert_eq!((channel.underway(), channel.complete(&mut done)), (0, 0));
    let error = bench(false, false).device.start().expect_err("refused").to_string();
    assert!(error.contains("cannot open the work queue") && error.contains("run as root"), "{error}");
}

#[test]
fn what_lies_outside_of_mapped_memory_is_never_taken() {
    let mut bench = bench(true, false);
    let (mut channel, _) = bench.device.start().unwrap().pop().unwrap();
    let start = bench.region.iova();
    let length = u32::try_from(bench.region.len()).unwrap();
    let end = Iova::new(start.raw() + u64::from(length));
    let below = Iova::new(start.raw() - 1);
    for (source, target, length) in [
        (below, start, 1),
        (start, below, 1),
        (start, end, 1),
        (end, start, 1),
        (start, start, length + 1),
        (Iova::new(0), start, 4),
    ] {
        let job = CopyJob::new(source, target, length, 1).unwrap();
        assert_eq!(channel.push(job), Err(job), "{source:?} {target:?} {length}");
    }
    channel.push(CopyJob::new(start, end, 0, 2).unwrap()).unwrap();
    channel.push(bench.job(0, 10, 3)).unwrap();
    channel.submit();
    assert_eq!(outcomes(&bench.wait(&mut channel)), [(2, true), (3, true)]);
    bench.device.unmap(&bench.region.clone()).unwrap();
    let job = bench.job(0, 10, 4);
    assert_eq!(channel.push(job), Err(job), "taken away");
    bench.device.map(&bench.region.clone()).unwrap();
    channel.push(job).unwrap();
    bench.device.stop(vec![channel], &mut Vec::new()).unwrap();
}

#[test]
fn a_copy_that_faults_costs_itself_alone() {
    let mut bench = bench(true, false);
    bench.played.set(Manner::Faulting);
    let (mut channel, _) = bench.device.start().unwrap().pop().unwrap();
    (0..9).for_each(|place| channel.push(bench.job(place, 100, place as u64)).unwrap());
    channel.submit();
    let done = bench.wait(&mut channel);
    assert_eq!(done.iter().filter(|done| done.outcome == CopyOutcome::Failed(CopyFailure::Target)).count(), 3);
    assert_eq!(outcomes(&done).iter().map(|(token, _)| *token).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
    for done in &done {
        let place = usize::try_from(done.token).unwrap();
        assert!(done.outcome != CopyOutcome::Copied || bench.is_copied(place, 100));
    }
    assert_eq!((channel.state(), channel.record().failures, channel.record().faults), (EngineState::Working, 3, 3));
    bench.device.check().unwrap();
    bench.device.stop(vec![channel], &mut Vec::new()).unwrap();
}

#[test]
fn a_queue_that_hangs_or_lies_is_closed_before_its_jobs_come_back_and_works_again() {
    for manner in [Manner::Silent, Manner::Lying] {
        let mut bench = bench(true, false);
        let (mut channel, _) = bench.device.start().unwrap().pop().unwrap();
        bench.played.set(manner);
        (0..5).for_each(|place| channel.push(bench.job(place, 100, place as u64)).unwrap());
        channel.submit();
        let done = bench.wait(&mut channel);
        assert_eq!((done.len(), channel.underway(), channel.state(), channel.room()), (0, 5, EngineState::Broken, 0));
        let error = bench.device.check().expect_err("it is out of use").to_string();
        assert!(error.contains("channel 0 is out of use"), "{error}");
        let record = channel.record();
        assert_eq!((record.hangs, record.lies), if manner == Manner::Silent { (1, 0) } else { (0, 1) });
        bench.played.set(Manner::Honest);
        let mut back = Vec::new();
        bench.device.stop(vec![channel], &mut back).unwrap();
        assert_eq!(back.len(), 5);
        assert!(back.iter().all(|done| done.outcome == CopyOutcome::Failed(CopyFailure::Unproven)));
        let (mut channel, _) = bench.device.start().unwrap().pop().unwrap();
        bench.device.check().unwrap();
        channel.push(bench.job(9, 100, 9)).unwrap();
        channel.submit();
        assert_eq!(outcomes(&bench.wait(&mut channel)), [(9, true)]);
        bench.device.stop(vec![channel], &mut Vec::new()).unwrap();
    }
}

#[test]
fn a_kernel_that_does_not_drain_is_given_up_and_asked_again() {
    let mut bench = bench(true, false);
    let (open, gate) = mpsc::channel();
    *bench.gate.lock().unwrap() = Some(gate);
    let (mut channel, _) = bench.device.start().unwrap().pop().unwrap();
    bench.played.set(Manner::Backwards);
    channel.push(bench.job(0, 100, 7)).unwrap();
    channel.submit();
    let mut back = Vec::new();
    let error = bench.device.stop(vec![channel], &mut back).expect_err("it is not closed").to_string();
    assert!(error.contains("drain"), "{error}");
    assert_eq!(back, [], "the device may still write");
    assert!(bench.device.start().is_err());
    open.send(()).unwrap();
    bench.device.stop(Vec::new(), &mut back).unwrap();
    assert_eq!(outcomes(&back), [(7, true)], "what was done before it was closed is done");
    assert!(bench.is_copied(0, 100));
    bench.device.start().unwrap();
}

#[test]
fn memory_that_was_taken_away_goes_when_nothing_can_be_underway_to_it() {
    let mut bench = bench(true, false);
    let (mut channel, _) = bench.device.start().unwrap().pop().unwrap();
    bench.played.set(Manner::Backwards);
    let other = Region::on_heap(4096, Iova::new(0x9000_0000)).unwrap();
    assert_ne!(shift(&other), 0);
    let word = other.array::<AtomicU64>(1, 8).unwrap();
    let watch = Arc::clone(&bench.device.views);
    bench.device.map(&other).unwrap();
    channel.push(CopyJob::new(bench.data.iova(), word.iova(), 8, 1).unwrap()).unwrap();
    channel.submit();
    // Against the rules: a copy is underway.
    bench.device.unmap(&other).unwrap();
    bench.device.check().unwrap();
    assert_eq!(watch.withdrawn(), 1);
    assert_eq!(outcomes(&bench.wait(&mut channel)), [(1, true)]);
    channel.complete(&mut Vec::with_capacity(1));
    bench.device.check().unwrap();
    assert_eq!(watch.withdrawn(), 0);
    // A device that is stopped holds nothing back.
    bench.device.map(&other).unwrap();
    bench.device.stop(vec![channel], &mut Vec::new()).unwrap();
    bench.device.unmap(&other).unwrap();
    assert_eq!(watch.withdrawn(), 0);
}

/// The kernel's files, played by ordinary ones: a page that nobody reads, and a file that takes what is written.
#[test]
fn a_work_queue_is_found_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let (sysfs, path) = (Sysfs::under(folder.path()), folder.path().join("dev/dsa/wq0.0"));
    let rings = Region::on_heap(Config::default().ring_memory(), Iova::new(0x10_0000)).unwrap();
    let open = || {
        let clock = Arc::new(vfio::SystemClock::new());
        Idxd::open(&sysfs, &path, clock, &rings, &Config::default())
    };
    assert!(open().expect_err("nothing there").to_string().contains("no such work queue"));
    for (attribute, value) in [("state", "disabled"), ("type", "kernel"), ("mode", "dedicated"), ("size", "16")] {
        file(&format!("sys/bus/dsa/devices/wq0.0/{attribute}"), value);
    }
    assert!(open().expect_err("the kernel's").to_string().contains("not for processes"));
    file("sys/bus/dsa/devices/wq0.0/type", "user\n");
    assert!(open().expect_err("disabled").to_string().contains("not enabled"));
    file("sys/bus/dsa/devices/wq0.0/state", "enabled\n");
    let mut device = open().unwrap();
    assert!(device.start().expect_err("no file").to_string().contains("cannot open the work queue"));
    file("dev/dsa/wq0.0", &"\0".repeat(4096));
    let error = device.start().expect_err("a file is no device").to_string();
    assert!(error.contains("CAP_SYS_RAWIO"), "{error}");
    // It came as one descriptor that does nothing and wants an answer.
    let written = std::fs::read(&path).unwrap();
    assert_eq!((written[4] & 0xc, written[7]), (0xc, 0));
}
