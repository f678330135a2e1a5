//! Ports: what packets come from and go to.
//!
//! A [`PortSpec`] names a port; an [`Opener`] opens the ports of a forwarder, because they share memory that every network
//! card among them must reach. Each [`Port`] has queue pairs ([`PortQueue`], moved to engine threads) and a
//! control side ([`PortControl`], which stays with control). Queues and control share nothing but counters.
//!
//! Life cycle: [`Opener::open`] → queues go to engines → queues come back → [`PortControl::stop`].
//!
//! Kinds: [`nic`] (any driver), [`tap`], [`pcap`], [`generator`] and [`null`]. Joining ports and moving packets is the
//! engine's work.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use drivers::nic::{LinkStatus, MacAddress, NicError, Offloads, RxQueue, TxQueue};
use hugemem::Region;

use crate::copy::CopyDesk;

pub mod generator;
pub mod nic;
pub mod null;
pub mod open;
pub mod pcap;
mod pci;
mod spec;
pub mod tap;
pub mod vhost_user;
pub mod virtio_user;

pub use generator::GeneratorReport;
pub use open::{MemoryOptions, Opener, Ports};
pub use spec::{
    FrameSize, GeneratorSpec, MAXIMUM_FLOWS, MAXIMUM_FRAME, MAXIMUM_QUEUES, MINIMUM_FRAME, NamedSpec, NotPortName,
    NotRate, PcapSpec, PciName, PciSpec, PortName, PortSpec, Rate, RingChoice, SpecError, TapSpec, VfioChoice,
    VhostUserSpec, VirtioUserSpec,
};
pub use vhost_user::arguments as vmm_arguments;

/// An open port.
#[derive(Debug)]
pub struct Port {
    /// Its name in messages and statistics, unlike that of any other port opened with it.
    pub name: String,
    /// What it is.
    pub kind: PortKind,
    /// Its Ethernet address, if it has one. For a tap this is the address of the kernel's side.
    pub mac: Option<MacAddress>,
    /// Its queue pairs, at least one. Take them out to give them to engines.
    pub queues: Vec<PortQueue>,
    /// Its control side.
    pub control: Box<dyn PortControl>,
    /// What the user should know about how it was opened: a sentence each, with what to do.
    pub notices: Vec<String>,
}

/// Kind of a port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum PortKind {
    /// A network card behind our own driver.
    Nic,
    /// A Linux tap interface.
    Tap,
    /// Capture files.
    Pcap,
    /// Generator and checking sink.
    Generator,
    /// Nothing in, and nothing out.
    Null,
    /// A virtual machine or container on a vhost-user socket.
    VhostUser,
    /// Our own virtio-net driver on a vhost-user socket.
    VirtioUser,
}

impl PortKind {
    /// The kind as written in a spec.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nic => "pci",
            Self::Tap => "tap",
            Self::Pcap => "pcap",
            Self::Generator => "gen",
            Self::Null => "null",
            Self::VhostUser => "vhost-user",
            Self::VirtioUser => "virtio-user",
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One queue pair of a port. The halves may live on different threads.
pub struct PortQueue {
    /// The receive half.
    pub rx: Box<dyn RxQueue>,
    /// The transmit half.
    pub tx: Box<dyn TxQueue>,
    /// What to wait for while the receive half is armed; `None` when it can only be polled.
    pub wake: Option<Wake>,
    /// Where the transmit half leaves copies for a device, if it does.
    pub desk: Option<Arc<CopyDesk>>,
}

impl fmt::Debug for PortQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortQueue")
            .field("rx", &self.rx.counters())
            .field("tx", &self.tx.counters())
            .field("wake", &self.wake)
            .finish()
    }
}

/// A file descriptor that becomes readable when an armed receive queue has packets.
pub struct Wake {
    file: Box<dyn AsFd + Send>,
    signal: Signal,
}

/// How a pending signal is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Signal {
    /// By reading a counter.
    Event,
    /// By receiving packets.
    Level,
    /// By asking an epoll instance.
    Edges,
}

impl Wake {
    /// An eventfd: reading it takes the signal away.
    #[must_use]
    pub fn event(file: impl AsFd + Send + 'static) -> Self {
        Self { file: Box::new(file), signal: Signal::Event }
    }

    /// A descriptor that is readable for as long as packets wait, and is read by receiving them.
    #[must_use]
    pub fn level(file: impl AsFd + Send + 'static) -> Self {
        Self { file: Box::new(file), signal: Signal::Level }
    }

    /// An epoll instance that watches for edges (`EPOLLET`): asking it takes the signal away, and what it watches is never read.
    #[must_use]
    pub fn edges(epoll: impl AsFd + Send + 'static) -> Self {
        Self { file: Box::new(epoll), signal: Signal::Edges }
    }

    /// Takes a pending signal away, so that the next `poll(2)` sleeps. Never blocks.
    pub fn consume(&self) {
        // A failure leaves the signal pending: the engine then polls its queue once more than needed.
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match self.signal {
            Signal::Level => {}
            Signal::Event => {
                // The descriptor may be a blocking one: only read what is there.
                let mut ready = [rustix::event::PollFd::new(&self.file, rustix::event::PollFlags::IN)];
                if rustix::event::poll(&mut ready, Some(&now)) == Ok(1) {
                    let mut counter = [0; 8];
                    let _ = rustix::io::read(&self.file, &mut counter);
                }
            }
            Signal::Edges => {
                let mut events = [std::mem::MaybeUninit::<rustix::event::epoll::Event>::uninit(); 4];
                let _ = rustix::event::epoll::wait(&self.file, &mut events, Some(&now));
            }
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").field("fd", &self.file.as_fd()).field("signal", &self.signal).finish()
    }
}

/// Whether a port will have more packets to receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Supply {
    /// It does not end by itself.
    Endless,
    /// It will end, and has not yet.
    Remaining,
    /// Its last packet was received. What it handed out may still be underway in the forwarder.
    Exhausted,
}

/// The slow side of a port.
pub trait PortControl: Send {
    /// State of the link, read now.
    fn link(&mut self) -> LinkStatus;

    /// What the port does for packets that are sent on it, and has done for those received.
    fn offloads(&self) -> Offloads;

    /// One line of facts in the words of `ip -d link`, without the port's name: `mtu 1500 state UP link/ether ...`.
    fn describe(&mut self) -> String;

    /// Bytes of the longest IP packet that it takes now; `None` when nobody says.
    fn mtu(&mut self) -> Option<u16> {
        None
    }

    /// Asks the port to hand out only packets that a port with the offloads `peer` can send. Called before packets flow.
    ///
    /// # Errors
    /// When the system refuses.
    fn limit_offloads(&mut self, peer: Offloads) -> Result<(), PortError> {
        let _ = peer;
        Ok(())
    }

    /// Lets the port's device reach `region`, in which packets of other ports lie. Nothing to do for ports without one.
    ///
    /// # Errors
    /// When the device cannot.
    fn map(&mut self, region: &Region) -> Result<(), PortError> {
        let _ = region;
        Ok(())
    }

    /// Takes `region` away from the port's device again. No packet of it is with the port any more.
    ///
    /// # Errors
    /// When the system refuses.
    fn unmap(&mut self, region: &Region) -> Result<(), PortError> {
        let _ = region;
        Ok(())
    }

    /// Checks the port's health. Called about once a second.
    ///
    /// # Errors
    /// What is wrong. Where [`PortControl::restart`] may help, it is the cure.
    fn check(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    /// Whether receiving comes to an end.
    fn supply(&self) -> Supply {
        Supply::Endless
    }

    /// Counters of the device itself, by name, since it was opened; empty where there are none. Always the same names.
    fn statistics(&mut self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// What a generator and its sink have counted; `None` for other kinds.
    fn generator(&self) -> Option<GeneratorReport> {
        None
    }

    /// Stops the port for good, writes out what it held back and takes its queues back. Queues that are missing leak their
    /// buffers when a device may still use these; nothing else is lost.
    ///
    /// # Errors
    /// When the device does not confirm that it stopped, or data could not be written.
    fn stop(&mut self, queues: Vec<PortQueue>) -> Result<(), PortError>;

    /// Stops the port and starts it anew, with new queues; for a port whose [`PortControl::check`] failed with `reason`. Kinds that
    /// know no cure only stop.
    ///
    /// # Errors
    /// When it does not come up again; the port is stopped for good then.
    fn restart(&mut self, queues: Vec<PortQueue>, reason: PortError) -> Result<Vec<PortQueue>, PortError> {
        if let Err(error) = self.stop(queues) {
            tracing::warn!("{error}");
        }
        Err(reason)
    }
}

impl fmt::Debug for dyn PortControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortControl").field("offloads", &self.offloads()).field("supply", &self.supply()).finish()
    }
}

/// A port failed. The text names the port, the cause and what mends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The text names no port.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Two ports would use the same thing.
    #[error("port `{port}` uses {what}, which another port uses already; name it once")]
    Twice {
        /// The later port.
        port: String,
        /// What they share.
        what: String,
    },
    /// Two ports would have the same name.
    #[error("there is a port `{name}` already; give this one another name with name=")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A network card or its driver failed.
    #[error("port `{port}`: {source}")]
    Nic {
        /// The port.
        port: String,
        /// What failed.
        source: NicError,
    },
    /// A device could not be found, opened or used.
    #[error("port `{port}`: {reason}")]
    Device {
        /// The port.
        port: String,
        /// What failed and what mends it.
        reason: String,
    },
    /// The system refused a tap interface.
    #[error("port `{port}`: cannot {action}: {source}; {remedy}")]
    Tap {
        /// The port.
        port: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
        /// What mends it.
        remedy: String,
    },
    /// A VM's port cannot be opened, or its session failed.
    #[error("port `{port}`: {reason}")]
    VhostUser {
        /// The port.
        port: String,
        /// What failed and what mends it.
        reason: String,
    },
    /// A capture file cannot be read or written.
    #[error("port `{port}`: {path}: {reason}", path = path.display())]
    Capture {
        /// The port.
        port: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what mends it.
        reason: String,
    },
    /// The memory that was granted does not hold what the ports need.
    #[error(
        "{} of packet memory do not suffice: these ports need {} ({parts}); give `--memory {}` or more",
        size(*given), size(*needed), size(*needed)
    )]
    NotEnoughMemory {
        /// Bytes granted.
        given: usize,
        /// Bytes needed.
        needed: usize,
        /// What needs how much.
        parts: String,
    },
    /// Packet memory could not be had.
    #[error("packet memory for the ports: {0}")]
    Memory(#[from] hugemem::MemoryError),
    /// A piece of packet memory could not be had.
    #[error("packet memory for port `{port}`: {source}")]
    Pool {
        /// The port.
        port: String,
        /// What was asked for.
        source: hugemem::OutOfMemory,
    },
}

/// Bytes in the unit that `--memory` takes, rounded up to whole MiB.
fn size(bytes: usize) -> String {
    format!("{}M", bytes.div_ceil(1 << 20))
}

/// Link status as `ip link` words it.
fn state_word(link: LinkStatus) -> &'static str {
    if link.up { "UP" } else { "DOWN" }
}

#[cfg(test)]
mod tests;
