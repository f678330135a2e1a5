//! Where regions are for the processor, and so for a device that shares its addresses.
//!
//! Control changes the table; channels look at it with one load for each call and take it anew when it changed. A region that was taken away stays in
//! place until no channel can have copies underway that began before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use drivers::copy_engine::CopyJob;
use hugemem::{Iova, Region};

/// One region.
#[derive(Clone)]
struct View {
    start: u64,
    end: u64,
    /// What turns an IOVA into a virtual address.
    shift: u64,
    region: Region,
}

/// What is added to a region's IOVAs to get virtual addresses.
pub(super) fn shift(region: &Region) -> u64 {
    (region.as_ptr().addr() as u64).wrapping_sub(region.iova().raw())
}

/// The regions that a device may reach, by IOVA.
#[derive(Clone, Default)]
pub(super) struct Table(Arc<[View]>);

impl Table {
    fn find(&self, at: Iova, length: u32) -> Option<Iova> {
        let Self(views) = self;
        let index = views.partition_point(|view| view.start <= at.raw()).checked_sub(1)?;
        let view = views.get(index)?;
        let end = at.raw().checked_add(length.into())?;
        (end <= view.end).then(|| Iova::new(at.raw().wrapping_add(view.shift)))
    }

    /// The job with virtual addresses; `None` when an end of it lies outside of all regions.
    pub(super) fn translate(&self, job: CopyJob) -> Option<CopyJob> {
        let (source, target) = (self.find(job.source(), job.length())?, self.find(job.target(), job.length())?);
        CopyJob::new(source, target, job.length(), job.token())
    }
}

/// The table that is in force, shared by control and channels.
#[derive(Default)]
pub(super) struct Views {
    /// Changes with the table.
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    table: Table,
    /// Regions that were taken away, with the version in which they were not there any more.
    withdrawn: Vec<(u64, Region)>,
    /// Memory for descriptors and records.
    rings: Option<Region>,
    /// For each channel, the version that all of its copies began with or after.
    settled: Vec<Arc<AtomicU64>>,
}

impl Views {
    /// Keeps memory in place for as long as the device may write to it.
    pub(super) fn keep(&self, rings: &Region) {
        self.lock().rings = Some(rings.clone());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a region. A second time does nothing.
    pub(super) fn map(&self, region: &Region) {
        let mut state = self.lock();
        let Table(views) = &state.table;
        if views.iter().any(|view| view.region.id() == region.id()) {
            return;
        }
        let start = region.iova().raw();
        let view = View { start, end: start + region.len() as u64, shift: shift(region), region: region.clone() };
        let mut views: Vec<View> = views.iter().cloned().chain([view]).collect();
        views.sort_by_key(|view| view.start);
        self.publish(&mut state, views);
    }

    /// Takes a region away.
    pub(super) fn unmap(&self, region: &Region) {
        let mut state = self.lock();
        let Table(views) = &state.table;
        let views = views.iter().filter(|view| view.region.id() != region.id()).cloned().collect();
        self.publish(&mut state, views);
        let version = self.version.load(Ordering::Relaxed);
        state.withdrawn.push((version, region.clone()));
        sweep(&mut state);
    }

    fn publish(&self, state: &mut State, views: Vec<View>) {
        state.table = Table(views.into());
        // Release: who sees the version finds the table behind the lock anyway; this keeps the two in order for `withdrawn`.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Lets go of regions that nothing can be underway to any more.
    pub(super) fn sweep(&self) {
        sweep(&mut self.lock());
    }

    /// Regions that were taken away and are still held.
    #[cfg(test)]
    pub(super) fn withdrawn(&self) -> usize {
        self.lock().withdrawn.len()
    }

    /// A channel's own copy of the table.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        let mut state = self.lock();
        let version = self.version.load(Ordering::Acquire);
        let settled = Arc::new(AtomicU64::new(version));
        state.settled.push(Arc::clone(&settled));
        Reader { views: Arc::clone(self), version, table: state.table.clone(), settled }
    }
}

fn sweep(state: &mut State) {
    // A channel that is gone holds nothing back: its file was closed first.
    state.settled.retain(|settled| Arc::strong_count(settled) > 1);
    let oldest = state.settled.iter().map(|settled| settled.load(Ordering::Acquire)).min().unwrap_or(u64::MAX);
    state.withdrawn.retain(|(version, _)| *version > oldest);
}

/// A channel's view of the table.
pub(super) struct Reader {
    views: Arc<Views>,
    version: u64,
    table: Table,
    settled: Arc<AtomicU64>,
}

impl Reader {
    /// The table as it is now. `idle`: the channel has nothing underway. `None` while control changes it.
    #[inline]
    pub(super) fn table(&mut self, idle: bool) -> Option<&Table> {
        if self.views.version.load(Ordering::Acquire) != self.version {
            let state = self.views.state.try_lock().ok()?;
            self.version = self.views.version.load(Ordering::Acquire);
            self.table = state.table.clone();
        }
        if idle && self.settled.load(Ordering::Relaxed) != self.version {
            self.settled.store(self.version, Ordering::Release);
        }
        Some(&self.table)
    }

    /// What must stay in place while the channel's file is open.
    pub(super) fn views(&self) -> Arc<Views> {
        Arc::clone(&self.views)
    }
}
