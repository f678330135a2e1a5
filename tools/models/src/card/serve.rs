//! A card on a vfio-user socket.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use drivers::bus::BusError;
use vfio::user::UserError;
use vfio::user::server::{self, CONFIG, DmaMap, Errno, InterruptKind, MessageDma, Region, Server, Stop};

use super::chip::{BlockWrite, Chip, WindowLayout};
use super::config_space;
use super::core::Shared;
use super::device::{Control, Device};
use super::options::Options;
use super::running::Moved;
use crate::memory::{Files, Permission};
use crate::wire::Wire;

/// A card that is served: one thread answers the client, another one moves the card on. Dropping it ends both.
pub struct Served<C> {
    shared: Arc<Shared<C>>,
    stop: Stop,
    session: Option<JoinHandle<Result<(), UserError>>>,
    mover: Option<JoinHandle<()>>,
    moved: Arc<Moved>,
}

impl<C> fmt::Debug for Served<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

/// Serves a card with `chip` on it, plugged into `wire`, to one client of `server` after the other.
///
/// # Errors
/// [`BusError::System`] when the system has no threads, descriptors or memory left.
pub fn serve<C: Chip, W: Wire + 'static>(
    server: Server,
    options: Options,
    chip: C,
    wire: W,
) -> Result<Served<C>, BusError> {
    let device = Device::new(options, chip, wire)?;
    let shared = Arc::clone(&device.shared);
    let failed = |action: &str, error: std::io::Error| BusError::System {
        device: shared.name.to_string(),
        action: action.to_owned(),
        reason: error.to_string(),
    };
    let stop = Stop::new().map_err(|error| failed("create an eventfd", error))?;
    let moved = Arc::<Moved>::default();
    let mut served = Served { shared: Arc::clone(&shared), stop, session: None, mover: None, moved };
    let moved = Arc::clone(&served.moved);
    let mover = Builder::new().name("card".to_owned()).spawn(move || drop(moved.keep(device)));
    served.mover = Some(mover.map_err(|error| failed("start the card's thread", error))?);
    let (mut socket, stop) = (Socket::new(Arc::clone(&shared)), served.stop.clone());
    let session = Builder::new().name("session".to_owned()).spawn(move || server.serve(&mut socket, &stop));
    served.session = Some(session.map_err(|error| failed("start the session's thread", error))?);
    Ok(served)
}

impl<C: Chip> Served<C> {
    /// A handle that looks into the card.
    #[must_use]
    pub fn control(&self) -> Control<C> {
        Control::new(Arc::clone(&self.shared))
    }

    /// Frames that the card has transmitted, and received or dropped, since it is served.
    #[must_use]
    pub fn moved(&self) -> (u64, u64) {
        self.moved.frames()
    }

    /// Whether it goes on: `false` once the socket, or the card itself, has failed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.is_finished())
            && self.mover.as_ref().is_some_and(|mover| !mover.is_finished())
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the socket failed before.
    pub fn stop(mut self) -> Result<(), UserError> {
        self.end()
    }
}

impl<C> Served<C> {
    fn end(&mut self) -> Result<(), UserError> {
        self.stop.stop();
        self.moved.end();
        // A thread that panicked has said so on stderr.
        let result = self.session.take().and_then(|session| session.join().ok()).unwrap_or(Ok(()));
        if let Some(mover) = self.mover.take() {
            let _panicked = mover.join();
        }
        result
    }
}

impl<C> Drop for Served<C> {
    fn drop(&mut self) {
        let _told_by_stop = self.end();
    }
}

/// The card as its client sees it. All calls come from the session's thread, which never waits for messages.
pub(super) struct Socket<C> {
    shared: Arc<Shared<C>>,
    files: Files,
    /// What the client wrote into the window of the MSI-X table. Nobody looks at it: a client connects eventfds instead.
    table: Vec<u8>,
}

impl<C: Chip> Socket<C> {
    pub(super) fn new(shared: Arc<Shared<C>>) -> Self {
        let table = shared.layout.windows.iter().find(|window| window.bar == shared.layout.msix_window);
        let table = vec![0; table.map_or(0, |window| window.bytes as usize)];
        Self { shared, files: Files::default(), table }
    }

    fn region(&self, window: &WindowLayout) -> Region {
        let registers = self.shared.windows.get(usize::from(window.bar)).and_then(Option::as_ref);
        let shared =
            registers.filter(|_| !window.trapped && !window.shared.is_empty()).map(|registers| server::Shared {
                file: registers.file(),
                offset: 0,
                areas: window
                    .shared
                    .iter()
                    .map(|range| (range.start.into(), (range.end - range.start).into()))
                    .collect(),
            });
        Region { shared, ..Region::new(window.bar.into(), window.bytes.into()) }
    }

    /// The bytes of the MSI-X window at `offset`, when that is what the region is.
    fn table(&mut self, region: u32, offset: u64, len: usize) -> Option<&mut [u8]> {
        let at = usize::try_from(offset).ok().filter(|_| region == u32::from(self.shared.layout.msix_window))?;
        self.table.get_mut(at..at.checked_add(len)?)
    }

    /// The window that a region is.
    fn window(&self, region: u32) -> Result<u8, Errno> {
        let found = self.shared.layout.windows.iter().find(|window| u32::from(window.bar) == region);
        found.map(|window| window.bar).ok_or(Errno::INVAL)
    }

    /// The word at `offset` is on a shared page.
    fn is_open(&self, bar: u8, offset: u32) -> bool {
        let registers = self.shared.windows.get(usize::from(bar)).and_then(Option::as_ref);
        registers.is_some_and(|registers| registers.is_open(offset, 8))
    }

    fn load(&self, bar: u8, offset: u32, bytes: u32) -> u64 {
        match self.shared.windows.get(usize::from(bar)).and_then(Option::as_ref) {
            Some(registers) if registers.is_open(offset, bytes) => registers.load(offset, bytes),
            _ => self.shared.load(bar, offset, bytes),
        }
    }

    fn store(&self, bar: u8, offset: u32, bytes: u32, value: u64) {
        match self.shared.windows.get(usize::from(bar)).and_then(Option::as_ref) {
            Some(registers) if registers.is_open(offset, bytes) => registers.store(offset, bytes, value),
            _ => self.shared.store(bar, offset, bytes, value),
        }
    }

    fn signal(&self, work: impl FnOnce(&mut super::Bus)) {
        let errands = {
            let mut core = self.shared.lock();
            work(&mut core.bus);
            core.bus.quick_errands()
        };
        self.shared.run(errands);
    }

    fn vector(&self, kind: InterruptKind, vector: u32) -> Result<u16, Errno> {
        let vector = u16::try_from(vector).map_err(|_| Errno::INVAL)?;
        if kind == InterruptKind::Msix && vector < self.shared.layout.vectors { Ok(vector) } else { Err(Errno::INVAL) }
    }
}

/// 64 bytes that were written at once, and where.
fn block(offset: u64, bytes: &[u8]) -> Option<(u32, [u64; 8])> {
    let at = u32::try_from(offset).ok().filter(|at| at.is_multiple_of(64) && bytes.len() == 64)?;
    let mut block = [0; 8];
    for (word, part) in block.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = part.try_into().map_or(0, u64::from_le_bytes);
    }
    Some((at, block))
}

/// The accesses that a driver's processor would make of one of `len` bytes: whole registers, at most 8 bytes, or 4 of something longer.
fn accesses(offset: u64, len: usize) -> impl Iterator<Item = (u32, usize)> {
    let longest = if len == 8 { 8 } else { 4 };
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = u32::try_from(offset).ok()?.checked_add(u32::try_from(done).ok()?)?;
        let rest = len.checked_sub(done).filter(|rest| *rest > 0)?;
        let aligned = 1_usize << at.trailing_zeros().min(3);
        let bytes = aligned.min(longest).min(1 << rest.ilog2());
        done += bytes;
        Some((at, bytes))
    })
}

impl<C: Chip> server::Device for Socket<C> {
    fn regions(&self) -> Vec<Region> {
        let windows = self.shared.layout.windows.iter().map(|window| self.region(window));
        windows.chain([Region::new(CONFIG, config_space::BYTES as u64)]).collect()
    }

    fn interrupt_count(&self, kind: InterruptKind) -> u32 {
        match kind {
            InterruptKind::Msix => self.shared.layout.vectors.into(),
            // For errors of the bus, of which there are none: emulators miss it otherwise.
            InterruptKind::Error => 1,
            _ => 0,
        }
    }

    fn read(&mut self, region: u32, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        if self.shared.is_gone() {
            bytes.fill(0xff);
        } else if region == CONFIG {
            let at = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
            self.shared.lock().read_config(at, bytes);
        } else if let Some(table) = self.table(region, offset, bytes.len()) {
            bytes.copy_from_slice(table);
        } else {
            let bar = self.window(region)?;
            let mut rest = bytes;
            for (at, len) in accesses(offset, rest.len()) {
                let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
                let value = self.load(bar, at, len_of(len)).to_le_bytes();
                part.copy_from_slice(value.get(..len).unwrap_or_default());
                rest = behind;
            }
        }
        Ok(())
    }

    fn write(&mut self, region: u32, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        if self.shared.is_gone() {
            return Ok(());
        }
        if region == CONFIG {
            let at = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
            self.shared.lock().write_config(at, bytes);
        } else if let Some(table) = self.table(region, offset, bytes.len()) {
            table.copy_from_slice(bytes);
        } else {
            let bar = self.window(region)?;
            if let Some((at, block)) = block(offset, bytes).filter(|(at, _)| !self.is_open(bar, *at)) {
                let taken = self.shared.store_block(bar, at, &block, BlockWrite::Either);
                return if taken { Ok(()) } else { Err(Errno::AGAIN) };
            }
            let mut rest = bytes;
            for (at, len) in accesses(offset, bytes.len()) {
                let (part, behind) = rest.split_at(len);
                let value = part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
                self.store(bar, at, len_of(len), value);
                rest = behind;
            }
        }
        Ok(())
    }

    fn map(&mut self, map: DmaMap) -> Result<(), Errno> {
        let permission = Permission { read: map.readable, write: map.writable };
        let file = match map.file {
            Some((file, offset)) => {
                let memory = self.files.open(file);
                Some((memory.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?, offset))
            }
            None => None,
        };
        let memory = &mut self.shared.lock().bus.memory;
        let mapped = match file {
            Some((file, offset)) => memory.map_file(map.iova, map.len, permission, file, offset),
            None => memory.map_messages(map.iova, map.len, permission),
        };
        if mapped { Ok(()) } else { Err(Errno::INVAL) }
    }

    /// No poll runs while the card is locked, so nothing here uses the memory once this returns. A message that is still on its way finds the
    /// client's own maps changed.
    fn unmap(&mut self, iova: u64, len: u64) -> Result<(), Errno> {
        let mut core = self.shared.lock();
        if !core.bus.memory.remove(iova, len) {
            return Err(Errno::INVAL);
        }
        core.bus.mail.forget(iova, len);
        Ok(())
    }

    fn unmap_all(&mut self) {
        let mut core = self.shared.lock();
        core.bus.memory.clear();
        core.bus.mail.clear();
    }

    fn interrupts(&mut self, kind: InterruptKind, first: u32, vectors: Vec<Option<OwnedFd>>) -> Result<(), Errno> {
        if kind != InterruptKind::Msix {
            let allowed = kind == InterruptKind::Error || vectors.iter().all(Option::is_none);
            return if allowed { Ok(()) } else { Err(Errno::INVAL) };
        }
        let first = usize::try_from(first).map_err(|_| Errno::INVAL)?;
        let mut core = self.shared.lock();
        for (vector, event) in core.bus.vectors.iter_mut().skip(first).zip(vectors) {
            vector.event = event.map(Arc::new);
        }
        Ok(())
    }

    fn trigger(&mut self, kind: InterruptKind, vector: u32) -> Result<(), Errno> {
        let vector = self.vector(kind, vector)?;
        self.signal(|bus| bus.signal(vector));
        Ok(())
    }

    fn mask(&mut self, kind: InterruptKind, vector: u32, masked: bool) -> Result<(), Errno> {
        let vector = self.vector(kind, vector)?;
        self.signal(|bus| bus.mask(vector, masked));
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Errno> {
        if self.shared.is_gone() {
            return Err(Errno::IO);
        }
        self.shared.lock().reset();
        Ok(())
    }

    fn connected(&mut self, dma: MessageDma) {
        self.shared.lock().bus.mail.connect(Some(Arc::new(dma)));
    }

    fn disconnected(&mut self, _reason: Option<&UserError>) {
        self.table.fill(0);
        self.shared.lock().unplug();
    }
}

/// Widths are small.
fn len_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_of_any_length_is_one_of_whole_registers() {
        let pieces = |offset, len| accesses(offset, len).collect::<Vec<_>>();
        assert_eq!(pieces(0x100, 4), [(0x100, 4)]);
        assert_eq!(pieces(0x108, 8), [(0x108, 8)]);
        assert_eq!(pieces(0x104, 8), [(0x104, 4), (0x108, 4)]);
        assert_eq!(pieces(0x10, 16), [(0x10, 4), (0x14, 4), (0x18, 4), (0x1c, 4)]);
        assert_eq!(pieces(0x11, 6), [(0x11, 1), (0x12, 2), (0x14, 2), (0x16, 1)]);
        assert_eq!(pieces(u64::from(u32::MAX) + 1, 4), []);
    }
}
