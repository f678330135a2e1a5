//! A small device behind a vfio-user server, and messages made by hand to speak to both ends.
//!
//! The bytes here are written down from the protocol's text and share no code with the crate.

#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub mod raw;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vfio::user::UserError;
use vfio::user::server::{
    BAR0, CONFIG, Device, DmaMap, Errno, InterruptKind, MessageDma, Region, Server, Shared, Stop,
};
use vfio::user::{Function, Options};

/// Long enough for a loaded machine; nothing waits for it that works.
pub const LONG: Duration = Duration::from_secs(60);
/// Bytes of BAR 0: a page by message, a shared page, and two more by message.
pub const WINDOW: u64 = 0x4000;
/// The shared page.
pub const PAGE: u64 = 0x1000;
/// A register that cannot be read.
pub const BROKEN: u64 = 0x800;
/// Interrupt vectors: more than descriptors fit into one message.
pub const VECTORS: u32 = 20;

/// What happened to the device.
#[derive(Default)]
pub struct State {
    pub registers: Vec<u8>,
    pub config: Vec<u8>,
    pub maps: Vec<DmaMap>,
    pub unmapped_all: usize,
    pub vectors: Vec<Option<OwnedFd>>,
    pub triggered: Vec<(InterruptKind, u32)>,
    pub masked: Vec<(u32, bool)>,
    pub resets: usize,
    pub dma: Option<MessageDma>,
    pub sessions: usize,
    /// Why sessions ended, in order.
    pub ends: Vec<Option<UserError>>,
}

/// The device.
pub struct Fake {
    state: Arc<Mutex<State>>,
    page: Arc<OwnedFd>,
}

/// A memfd of `len` bytes; sealed ones cannot shrink.
pub fn memory(len: u64, sealed: bool) -> OwnedFd {
    let file = File::from(memfd_create("fake", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
    file.set_len(len).unwrap();
    if sealed {
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    }
    file.into()
}

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Fake {
    fn regions(&self) -> Vec<Region> {
        let shared = Shared { file: Arc::clone(&self.page), offset: 0, areas: vec![(PAGE, PAGE)] };
        vec![
            Region { shared: Some(shared), ..Region::new(BAR0, WINDOW) },
            Region { writable: false, ..Region::new(BAR0 + 2, 0x1000) },
            Region::new(CONFIG, 256),
        ]
    }

    fn interrupt_count(&self, kind: InterruptKind) -> u32 {
        if kind == InterruptKind::Msix { VECTORS } else { 0 }
    }

    fn read(&mut self, region: u32, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        if region == BAR0 && offset == BROKEN {
            return Err(Errno::IO);
        }
        let state = self.state();
        let source = if region == CONFIG { &state.config } else { &state.registers };
        let start = usize::try_from(offset).unwrap();
        bytes.copy_from_slice(&source[start..start + bytes.len()]);
        Ok(())
    }

    fn write(&mut self, region: u32, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut state = self.state();
        let target = if region == CONFIG { &mut state.config } else { &mut state.registers };
        let start = usize::try_from(offset).unwrap();
        target[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn map(&mut self, map: DmaMap) -> Result<(), Errno> {
        self.state().maps.push(map);
        Ok(())
    }

    fn unmap(&mut self, iova: u64, len: u64) -> Result<(), Errno> {
        let last = iova + (len - 1);
        self.state().maps.retain(|map| map.iova < iova || map.iova > last);
        Ok(())
    }

    fn unmap_all(&mut self) {
        let mut state = self.state();
        state.maps.clear();
        state.unmapped_all += 1;
    }

    fn interrupts(&mut self, _: InterruptKind, first: u32, vectors: Vec<Option<OwnedFd>>) -> Result<(), Errno> {
        let mut state = self.state();
        for (place, vector) in state.vectors.iter_mut().skip(first as usize).zip(vectors) {
            *place = vector;
        }
        Ok(())
    }

    fn trigger(&mut self, kind: InterruptKind, vector: u32) -> Result<(), Errno> {
        self.state().triggered.push((kind, vector));
        Ok(())
    }

    fn mask(&mut self, _: InterruptKind, vector: u32, masked: bool) -> Result<(), Errno> {
        self.state().masked.push((vector, masked));
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Errno> {
        let mut state = self.state();
        state.resets += 1;
        state.config[4] = 0;
        Ok(())
    }

    fn connected(&mut self, dma: MessageDma) {
        let mut state = self.state();
        state.dma = Some(dma);
        state.sessions += 1;
    }

    fn disconnected(&mut self, reason: Option<&UserError>) {
        let mut state = self.state();
        state.maps.clear();
        state.vectors = (0..VECTORS).map(|_| None).collect();
        state.ends.push(reason.cloned());
    }
}

/// A server with the device, on a thread of its own.
pub struct Bed {
    pub path: PathBuf,
    pub state: Arc<Mutex<State>>,
    /// The shared page's memory, as the device sees it.
    pub page: File,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Bed {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.sock");
        let mut config = vec![0; 256];
        config[..16].copy_from_slice(&[0x34, 0x12, 0x78, 0x56, 0, 0, 0x10, 0, 3, 0, 0, 2, 0, 0, 0, 0]);
        config[0x2c..0x30].copy_from_slice(&[0xcd, 0xab, 1, 0]);
        let state = State {
            registers: vec![0; 0x4000],
            config,
            vectors: (0..VECTORS).map(|_| None).collect(),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let page = Arc::new(memory(WINDOW, true));
        let mut fake = Fake { state: Arc::clone(&state), page: Arc::clone(&page) };
        let page = File::from(page.try_clone().unwrap());
        let stop = Stop::new().unwrap();
        let server = Server::bind(&path).unwrap();
        let told = stop.clone();
        let thread = std::thread::spawn(move || server.serve(&mut fake, &told).unwrap());
        Self { path, state, page, stop, thread: Some(thread), _folder: folder }
    }

    pub fn connect(&self) -> Function {
        self.connect_with(Options { timeout: LONG, ..Options::default() })
    }

    pub fn connect_with(&self, options: Options) -> Function {
        Function::connect(&self.path, options).unwrap()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn dma(&self) -> MessageDma {
        self.state().dma.clone().unwrap()
    }

    /// Signals a vector.
    pub fn signal(&self, vector: usize) {
        let state = self.state();
        let event = state.vectors[vector].as_ref().expect("the vector is connected");
        rustix::io::write(event.as_fd(), &1_u64.to_ne_bytes()).unwrap();
    }

    /// The `u32` at an offset of BAR 0 as the device has it on the shared page.
    pub fn shared_word(&self, offset: u64) -> u32 {
        let mut raw = [0; 4];
        self.page.read_exact_at(&mut raw, offset).unwrap();
        u32::from_le_bytes(raw)
    }

    /// Ends the server, and with it the session.
    pub fn stop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server's thread has panicked");
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < LONG, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
