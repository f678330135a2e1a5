//! A work queue of the kernel's as a device: opening, starting, watching and stopping it.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drivers::DeviceError;
use drivers::bus::{Clock, wait_until};
use drivers::copy_engine::{CopyDevice, CopyDone, CopyJob, CopyOutcome, Started};
use drivers::dsa::{Queue, Record, Report, Shape};
use hugemem::{Iova, Region};
use vfio::{Sysfs, WorkQueue};

use super::channel::Channel;
use super::closing::Closing;
use super::portal::{Node, Opened, Opener, Way};
use super::views::{Views, shift};

/// How long a work queue may take for a descriptor that does nothing.
const PROBE_LIMIT: Duration = Duration::from_millis(200);
/// How long the kernel may take to drain and close a work queue.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_micros(50);
/// Most bytes in one copy that this driver makes use of.
const LONGEST: u64 = 1 << 31;

/// What can be chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Channels to use. A dedicated work queue has one; a shared one is opened so many times.
    pub channels: u8,
    /// Copies that may be underway on a channel: a power of two.
    pub depth: u16,
    /// Copies that travel together at most, where batches can be.
    pub batch: u16,
    /// How long a channel may have work and get none of it done, before it is taken to hang.
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { channels: 1, depth: 256, batch: 32, patience: Duration::from_millis(200) }
    }
}

impl Config {
    /// Bytes of memory for descriptors and records that suffice for this configuration.
    #[must_use]
    pub fn ring_memory(&self) -> usize {
        let shape = Shape { depth: self.depth, entries: 1, batch: 1, unit: 1, cache: false, shift: 0 };
        usize::from(self.channels.max(1)) * shape.memory() + 4096
    }
}

/// What was agreed on. Prints as one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The work queue.
    pub queue: WorkQueue,
    /// Channels in use.
    pub channels: u8,
    /// Copies that may be underway on a channel.
    pub depth: u16,
    /// How descriptors get there, once it was started.
    pub way: Option<Way>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue: WorkQueue { name, shared, size, .. }, channels, depth, way } = self;
        let kind = if *shared { "shared" } else { "dedicated" };
        write!(f, "Intel DSA by idxd, {name} ({kind}, {size} entries), {channels} channels, {depth} copies underway")?;
        f.write_str(match way {
            None => "",
            Some(Way::Mapped) => ", by a mapped portal",
            Some(Way::Written) => ", by system calls",
        })
    }
}

/// A work queue has no interrupts that reach processes.
#[derive(Debug)]
pub enum NoInterrupt {}

/// A work queue of the kernel's, to copy with.
pub struct Idxd {
    name: String,
    opener: Box<dyn Opener>,
    clock: Arc<dyn Clock>,
    summary: Summary,
    pub(super) views: Arc<Views>,
    /// Channels that are not handed out, and those of them that are not closed yet.
    home: Vec<Option<Channel>>,
    closing: Vec<(u8, Closing)>,
    reports: Vec<Arc<Report>>,
}

impl Idxd {
    /// Finds the work queue `path` (`/dev/dsa/wq0.0`) in `sysfs`, and takes memory for descriptors and records from `memory`, [`Config::ring_memory`] bytes
    /// at most. Opens nothing yet.
    ///
    /// # Errors
    /// When there is no such queue, it is not enabled or not for processes, or memory does not suffice.
    pub fn open(
        sysfs: &Sysfs,
        path: &Path,
        clock: Arc<dyn Clock>,
        memory: &Region,
        config: &Config,
    ) -> Result<Self, DeviceError> {
        let name = path.display().to_string();
        let unsupported = |reason: &str| DeviceError::Unsupported { device: name.clone(), reason: reason.to_owned() };
        let queue = WorkQueue::find(sysfs, &name).ok_or_else(|| {
            unsupported("the kernel's idxd driver has no such work queue; `mirach doctor` shows those that it has")
        })?;
        if queue.owner != "user" {
            return Err(unsupported(
                "the work queue is not for processes (type user); `mirach doctor` shows how to set one up",
            ));
        }
        if !queue.enabled {
            return Err(unsupported("the work queue is not enabled; `mirach doctor` shows how to enable it"));
        }
        let opener = Box::new(Node { path: path.to_owned(), shared: queue.shared });
        Self::with(name, queue, opener, clock, memory, config)
    }

    /// As [`Idxd::open`], for a work queue that `opener` opens: one that is played, in tests.
    ///
    /// # Errors
    /// When memory does not suffice.
    pub fn with(
        name: String,
        queue: WorkQueue,
        opener: Box<dyn Opener>,
        clock: Arc<dyn Clock>,
        memory: &Region,
        config: &Config,
    ) -> Result<Self, DeviceError> {
        let channels = if queue.shared { config.channels.max(1) } else { 1 };
        let views = Arc::<Views>::default();
        views.keep(memory);
        let shape = Shape {
            depth: config.depth,
            // Others put descriptors into a shared queue, too; it says when it is full.
            entries: queue.size.max(1),
            batch: queue.batch.min(config.batch.into()).max(1),
            unit: u32::try_from(queue.longest.clamp(4096, LONGEST)).unwrap_or(1 << 31),
            cache: false,
            shift: shift(memory),
        };
        let (mut home, mut reports) = (Vec::new(), Vec::new());
        for number in 0..channels {
            let lists =
                Queue::new(memory, shape).map_err(|source| DeviceError::Memory { device: name.clone(), source })?;
            let channel = Channel::new(number, lists, views.reader(), Arc::clone(&clock), config.patience);
            reports.push(Arc::clone(&channel.report));
            home.push(Some(channel));
        }
        let summary = Summary { queue, channels, depth: config.depth, way: None };
        Ok(Self { name, opener, clock, summary, views, home, closing: Vec::new(), reports })
    }

    /// What was agreed on.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What happened to each channel so far.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.reports.iter().map(|report| report.record()).collect()
    }

    fn bring_up(&mut self) -> Result<(), DeviceError> {
        self.bring_down()?;
        self.summary.way = None;
        for index in 0..self.home.len() {
            // A mapped page that takes nothing may still be one that takes it by a system call: a processor without the instruction, a portal without a PASID.
            let written = self.summary.way == Some(Way::Written);
            let way = match self.open_one(index, written) {
                Err(_) if !written => self.open_one(index, true),
                other => other,
            }?;
            self.summary.way = Some(way);
        }
        Ok(())
    }

    /// Opens one channel and has a descriptor that does nothing go through it.
    fn open_one(&mut self, index: usize, written: bool) -> Result<Way, DeviceError> {
        let Opened { portal, way } = self.opener.open(written).map_err(|error| self.refused(&error))?;
        let Some(channel) = self.home.get_mut(index).and_then(Option::as_mut) else { return Ok(way) };
        channel.queue.set_batches(way == Way::Mapped);
        channel.begin(portal);
        channel.probing = true;
        if probe(channel, &*self.clock) {
            channel.probing = false;
            return Ok(way);
        }
        let number = channel.number;
        self.closing.extend(channel.close().map(|closing| (number, closing)));
        self.settle()?;
        let reason = match way {
            Way::Mapped => "a descriptor that does nothing got no answer from its mapped portal",
            Way::Written => {
                "it does not take descriptors by write(), which Linux does from 6.9 on; without that, mirach needs CAP_SYS_RAWIO to map \
                 the portal: sudo setcap cap_sys_rawio+ep $(command -v mirach)"
            }
        };
        Err(DeviceError::Unsupported { device: self.name.clone(), reason: reason.to_owned() })
    }

    fn refused(&self, error: &io::Error) -> DeviceError {
        let cure = match error.kind() {
            io::ErrorKind::PermissionDenied => "give this user the file, or run as root",
            io::ErrorKind::ResourceBusy => "it is a dedicated one, and another process has it open",
            io::ErrorKind::NotFound => "enable the work queue: `mirach doctor` shows how",
            _ => "`mirach doctor` shows what it needs",
        };
        DeviceError::Request {
            device: self.name.clone(),
            reason: format!("cannot open the work queue: {error}; {cure}"),
        }
    }

    /// Closes what is at home.
    fn bring_down(&mut self) -> Result<(), DeviceError> {
        for channel in self.home.iter_mut().flatten() {
            let number = channel.number;
            self.closing.extend(channel.close().map(|closing| (number, closing)));
        }
        self.settle()
    }

    /// Waits for what is being closed. A channel that is closed has no job any more.
    fn settle(&mut self) -> Result<(), DeviceError> {
        let start = self.clock.now();
        self.closing.retain(|(number, closing)| {
            let left = CLOSE_LIMIT.saturating_sub(self.clock.now().saturating_sub(start));
            if !closing.wait(left) {
                return true;
            }
            if let Some(channel) = self.home.get_mut(usize::from(*number)).and_then(Option::as_mut) {
                channel.closed();
            }
            false
        });
        if self.closing.is_empty() {
            return Ok(());
        }
        let milliseconds = u64::try_from(CLOSE_LIMIT.as_millis()).unwrap_or(u64::MAX);
        Err(DeviceError::Timeout { device: self.name.clone(), what: "the kernel to drain a work queue", milliseconds })
    }
}

/// Whether a descriptor that does nothing goes through.
fn probe(channel: &mut Channel, clock: &dyn Clock) -> bool {
    let nothing = Iova::new(0);
    let Channel { queue, portal: Some(portal), report, .. } = channel else { return false };
    let Some(job) = CopyJob::new(nothing, nothing, 0, 0) else { return false };
    if queue.push(job).is_err() {
        return false;
    }
    let mut done = Vec::with_capacity(1);
    wait_until(clock, PROBE_LIMIT, STEP, || {
        queue.submit();
        queue.issue(portal);
        queue.look(report).is_err() || queue.tell(&mut done) > 0
    });
    done.iter().any(|done| done.outcome == CopyOutcome::Copied)
}

impl CopyDevice for Idxd {
    type Engine = Channel;
    type Interrupt = NoInterrupt;

    fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self) -> Result<Vec<Started<Self>>, DeviceError> {
        if self.home.iter().any(Option::is_none) {
            let reason = "its channels are in use already; stop it with all of them first".to_owned();
            return Err(DeviceError::Request { device: self.name.clone(), reason });
        }
        if let Err(error) = self.bring_up() {
            // The error that counts is the first.
            let _ = self.bring_down();
            return Err(error);
        }
        Ok(self.home.iter_mut().filter_map(Option::take).map(|channel| (channel, None)).collect())
    }

    /// A channel of another device is dropped.
    fn stop(&mut self, engines: Vec<Channel>, back: &mut Vec<CopyDone>) -> Result<(), DeviceError> {
        for channel in engines {
            let number = usize::from(channel.number);
            let is_own = self.reports.get(number).is_some_and(|own| Arc::ptr_eq(own, &channel.report));
            if let Some(place) = self.home.get_mut(number).filter(|_| is_own) {
                *place = Some(channel);
            }
        }
        let outcome = self.bring_down();
        for channel in self.home.iter_mut().flatten() {
            back.reserve(channel.queue.jobs());
            channel.queue.tell(back);
        }
        outcome
    }

    fn map(&mut self, region: &Region) -> Result<(), DeviceError> {
        self.views.map(region);
        Ok(())
    }

    fn unmap(&mut self, region: &Region) -> Result<(), DeviceError> {
        self.views.unmap(region);
        self.home.iter_mut().flatten().filter(|channel| channel.is_closed()).for_each(Channel::settle);
        self.views.sweep();
        Ok(())
    }

    fn check(&mut self) -> Result<(), DeviceError> {
        self.views.sweep();
        let sentence = (0_u8..).zip(&self.reports).find_map(|(number, report)| report.sentence(number));
        sentence.map_or(Ok(()), |reason| Err(DeviceError::Device { device: self.name.clone(), reason }))
    }
}

impl fmt::Debug for Idxd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idxd").field("name", &self.name).field("summary", &self.summary).finish_non_exhaustive()
    }
}
