//! A machine with one queue pair: memory, rings and eventfds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::EventfdFlags;

use super::channel::{Channel, PLAIN, request, words32, words64};
use super::iommu::Iommu;
use super::memory::{Memory, Pages, USER};
use super::ring::{Descriptor, Format, Ring, WRITE};

/// Descriptors of a ring.
pub const SIZE: u16 = 256;
/// Buffers for frames lie from here on, [`STRIDE`] apart: those of ring 1 behind those of ring 0.
pub const LAYOUT_BUFFERS: u64 = 2 << 20;
/// Bytes of a buffer.
const STRIDE: u64 = 2048;
/// Bytes of memory: two huge pages for rings and tables and the buffers, and one to spare.
const MEMORY: u64 = 8 << 20;
/// Lengths of the frames that a machine sends by itself.
const FRAMES: [u32; 4] = [60, 1514, 200, 600];
/// Bytes in front of each frame.
const OFFLOAD_HEADER: u32 = 12;

/// Bits of features.
pub mod feature {
    #![expect(missing_docs, reason = "they are named as in the specifications")]
    pub const CSUM: u64 = 1;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const LOG_ALL: u64 = 1 << 26;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const PROTOCOL: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    pub const RING_PACKED: u64 = 1 << 34;
    /// Of the protocol: all that the back-end has, but the connection for its own requests.
    pub const ALL_OF_PROTOCOL: u64 = 0x1b21f;
    /// Of the protocol: that connection.
    pub const BACKEND_REQ: u64 = 1 << 5;
}

/// Where the areas of a ring lie, as offsets into the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Areas {
    /// Descriptors.
    pub descriptors: u64,
    /// Available ring, or the driver's event suppression.
    pub driver: u64,
    /// Used ring, or the device's event suppression.
    pub device: u64,
    /// Indirect tables, 16 KiB.
    pub tables: u64,
}

/// The areas of ring `number`.
#[must_use]
pub fn layout(number: u32) -> Areas {
    let base = 0x1_0000 * (1 + u64::from(number));
    Areas { descriptors: base, driver: base + 0x4000, device: base + 0x8000, tables: base + 0xc000 }
}

/// How a machine is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Layout of its rings.
    pub format: Format,
    /// Its pages.
    pub pages: Pages,
    /// Features of the device besides those that it always has.
    pub features: u64,
}

impl Setup {
    /// With small pages and the features that ring rules are about.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let features =
            feature::MRG_RXBUF | feature::INDIRECT_DESC | feature::CSUM | feature::HOST_TSO4 | feature::HOST_TSO6;
        Self { format, pages: Pages::Small, features }
    }

    fn all_features(self) -> u64 {
        let packed = if self.format == Format::Packed { feature::RING_PACKED } else { 0 };
        self.features | packed | feature::VERSION_1 | feature::PROTOCOL
    }

    /// The same, behind an IOMMU.
    #[must_use]
    pub fn behind_iommu(self) -> Self {
        Self { features: self.features | feature::ACCESS_PLATFORM, ..self }
    }

    fn is_behind_iommu(self) -> bool {
        self.features & feature::ACCESS_PLATFORM != 0
    }

    /// Where an empty ring stands.
    #[must_use]
    pub fn base(self) -> u32 {
        if self.format == Format::Packed { 0x8000_8000 } else { 0 }
    }
}

/// One message of a setup: request, body, descriptors.
pub type Step<'m> = (u32, Vec<u8>, Vec<BorrowedFd<'m>>);

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// Its VMM's connection.
    pub channel: Channel,
    /// Its memory.
    pub memory: Memory,
    /// The ring that it receives into, and the one that it sends from.
    pub rings: [Ring; 2],
    /// How it is set up.
    pub setup: Setup,
    /// Its IOMMU, when it is behind one.
    pub iommu: Option<Iommu>,
    kicks: [OwnedFd; 2],
    calls: [OwnedFd; 2],
    numbers: [u64; 2],
    /// Frames that it sent and received.
    pub sent: u64,
    /// Frames that it received.
    pub received: u64,
}

/// An eventfd that blocks.
fn event() -> Result<OwnedFd> {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an eventfd")
}

impl Machine {
    /// Connects to the back-end on `path`, and says nothing yet.
    ///
    /// # Errors
    /// Nobody listens, or there is no memory.
    pub fn connect(path: &Path, setup: Setup) -> Result<Self> {
        Ok(Self {
            channel: Channel::connect(path)?,
            memory: Memory::new(MEMORY, setup.pages)?,
            rings: [0, 1].map(|number| Ring::new(setup.format, number, SIZE)),
            setup,
            iommu: setup.is_behind_iommu().then(Iommu::new).transpose()?,
            kicks: [event()?, event()?],
            calls: [event()?, event()?],
            numbers: [0; 2],
            sent: 0,
            received: 0,
        })
    }

    /// Connects and sets everything up.
    ///
    /// # Errors
    /// The back-end does not take it.
    pub fn attach(path: &Path, setup: Setup) -> Result<Self> {
        let machine = Self::connect(path, setup)?;
        for step in machine.steps() {
            ensure!(machine.play(&step)?, "request {} was not taken", step.0);
        }
        machine.channel.must(request::SET_OWNER, &[], &[])?;
        Ok(machine)
    }

    /// The signals of ring `number` to the machine.
    #[must_use]
    pub fn call(&self, number: usize) -> BorrowedFd<'_> {
        let [first, second] = &self.calls;
        if number == 0 { first.as_fd() } else { second.as_fd() }
    }

    /// All that a front-end says until frames flow.
    #[must_use]
    pub fn steps(&self) -> Vec<Step<'_>> {
        use request as r;
        let more = if self.iommu.is_some() { feature::BACKEND_REQ } else { 0 };
        let mut steps: Vec<Step<'_>> = vec![
            (r::GET_FEATURES, vec![], vec![]),
            (r::GET_PROTOCOL_FEATURES, vec![], vec![]),
            (r::SET_PROTOCOL_FEATURES, words64(&[feature::ALL_OF_PROTOCOL | more]), vec![]),
            (r::GET_QUEUE_NUM, vec![], vec![]),
            (r::SET_OWNER, vec![], vec![]),
            (r::SET_FEATURES, words64(&[self.setup.all_features()]), vec![]),
        ];
        steps.extend(self.iommu.iter().map(|iommu| (r::SET_BACKEND_REQ_FD, vec![], vec![iommu.socket()])));
        steps.push((r::SET_MEM_TABLE, self.table(), vec![self.memory.file()]));
        for ((number, kick), call) in (0..).zip(&self.kicks).zip(&self.calls) {
            let index = words64(&[number]);
            let number = u32::try_from(number).unwrap_or(0);
            steps.extend([
                (r::SET_VRING_NUM, words32(&[number, SIZE.into()]), vec![]),
                (r::SET_VRING_BASE, words32(&[number, self.setup.base()]), vec![]),
                (r::SET_VRING_ADDR, addresses(number), vec![]),
                (r::SET_VRING_CALL, index.clone(), vec![call.as_fd()]),
                (r::SET_VRING_ERR, index.clone(), vec![call.as_fd()]),
                (r::SET_VRING_KICK, index, vec![kick.as_fd()]),
                (r::SET_VRING_ENABLE, words32(&[number, 1]), vec![]),
            ]);
        }
        steps
    }

    /// The table of its one region.
    #[must_use]
    pub fn table(&self) -> Vec<u8> {
        let mut body = words32(&[1, 0]);
        body.extend(words64(&[0, self.memory.size(), USER, 0]));
        body
    }

    /// Plays a step, and reads its answer where it has one. `false` when the back-end has ended the session.
    ///
    /// # Errors
    /// No answer comes.
    pub fn play(&self, step: &Step<'_>) -> Result<bool> {
        use request as r;
        let (number, body, files) = step;
        if !self.channel.send(*number, PLAIN, body, files)? {
            return Ok(false);
        }
        let asks = [r::GET_FEATURES, r::GET_PROTOCOL_FEATURES, r::GET_QUEUE_NUM];
        Ok(!asks.contains(number) || self.channel.receive()?.is_some())
    }

    /// The buffer at which the next chain of ring `number` is to begin.
    #[must_use]
    pub fn buffer(&self, number: usize) -> u64 {
        let place = self.numbers.get(number).copied().unwrap_or(0) % u64::from(SIZE);
        LAYOUT_BUFFERS + (number as u64 * u64::from(SIZE) + place) * STRIDE
    }

    fn step_buffer(&mut self, number: usize) -> u64 {
        let buffer = self.buffer(number);
        if let Some(next) = self.numbers.get_mut(number) {
            *next += 1;
        }
        buffer
    }

    /// Wakes the back-end.
    pub fn kick(&self, number: usize) {
        if let Some(kick) = self.kicks.get(number) {
            // A counter that is full wakes as well.
            let _ = rustix::io::write(kick, &1_u64.to_ne_bytes());
        }
    }

    /// Takes frames in and sends more, once, as a well-behaved machine.
    pub fn turn(&mut self) {
        self.translate();
        self.take();
        self.refill();
        let mut posted = false;
        while self.rings.get(1).is_some_and(|ring| ring.free() > 8 && ring.out() < 128) {
            let len = FRAMES.get(usize::try_from(self.sent % 4).unwrap_or(0)).copied().unwrap_or(60);
            posted |= self.send(len);
        }
        if posted {
            self.kick(1);
        }
    }

    /// Answers what its IOMMU is asked.
    fn translate(&mut self) {
        let Self { iommu: Some(iommu), channel, memory, .. } = self else { return };
        for reply in iommu.replies(memory.size()) {
            // The session may have ended, which is for others to notice.
            let _ = channel.tell(request::IOTLB_MSG, &reply, &[]);
        }
    }

    /// Takes back what both rings have used.
    pub fn take(&mut self) {
        let Self { rings: [receiving, sending], memory, .. } = self;
        self.received += receiving.collect(memory) as u64;
        sending.collect(memory);
    }

    /// Fills the receiving ring.
    pub fn refill(&mut self) {
        let mut posted = false;
        while self.rings.first().is_some_and(|ring| ring.free() > 8) {
            let address = self.step_buffer(0);
            let buffer = Descriptor { address, len: 2048, flags: WRITE };
            let Self { rings: [receiving, _], memory, .. } = self;
            if !receiving.post(memory, &[buffer]) {
                break;
            }
            posted = true;
        }
        if posted {
            self.kick(0);
        }
    }

    /// Sends a frame of `len` bytes, with an empty offload header, without a kick.
    pub fn send(&mut self, len: u32) -> bool {
        self.send_with([0; 12], &[0x5a; 12], len)
    }

    /// Sends a frame with this offload header and these first bytes, without a kick.
    pub fn send_with(&mut self, header: [u8; 12], first: &[u8], len: u32) -> bool {
        let address = self.step_buffer(1);
        let Self { rings: [_, sending], memory, .. } = self;
        memory.write(address, &header);
        memory.write(address + 12, first);
        let sent = sending.post(memory, &[Descriptor { address, len: OFFLOAD_HEADER + len, flags: 0 }]);
        self.sent += u64::from(sent);
        sent
    }

    /// Behaves well for a while, or until it has sent and received so many more frames.
    pub fn run(&mut self, time: Duration, frames: u64) {
        let until = Instant::now() + time;
        let (sent, received) = (self.sent + frames, self.received + frames);
        while Instant::now() < until && (self.sent < sent || self.received < received) {
            self.turn();
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Behaves well until frames went both ways: it is under load.
    ///
    /// # Errors
    /// They do not.
    pub fn load(&mut self) -> Result<()> {
        let (sent, received) = (self.sent, self.received);
        self.run(Duration::from_secs(30), 300);
        ensure!(
            self.sent >= sent + 300 && self.received >= received + 300,
            "no load: only {} frames were sent and {} received",
            self.sent - sent,
            self.received - received
        );
        Ok(())
    }
}

/// The body of a message that tells where ring `number` lies.
fn addresses(number: u32) -> Vec<u8> {
    let Areas { descriptors, driver, device, .. } = layout(number);
    let mut body = words32(&[number, 0]);
    body.extend(words64(&[USER + descriptors, USER + device, USER + driver, 0]));
    body
}
