//! Ports of virtual machines and containers, by vhost-user: the device side of virtio-net, in memory that the VMM shares.
//!
//! [`open`] gives a port that is there for as long as mirach wants, while VMs come and go. Three folders, and what they
//! share:
//!
//! - `session` speaks the vhost-user protocol with the VMM, on a thread of the port's own, and is the port's control side;
//! - `queue` is what engines poll: frames from the VM and to it, offload headers, counters;
//! - `ring` reads and writes the rings themselves, split and packed;
//! - `notify` signals the VM and is signalled by it, and [`guest`](crate::guest) is its memory.
//!
//! Directions: a port *receives* from the VM, out of the rings that its driver transmits on (those with odd numbers), and *transmits* to
//! it, into those that its driver receives on (even numbers). A frame from VM to VM is copied once: the first bytes of it are read and checked, the
//! rest is copied straight from one guest's memory into the other's.
//!
//! Nothing that a VM or its VMM does reaches farther than its own port.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub(super) mod notify;
mod queue;
mod ring;
mod session;

pub use session::{arguments, open, open_with};

/// Does what opening the first port does in any case, and what takes the kernel some ten milliseconds once the process has more than one thread.
pub fn prepare() {
    queue::prepare();
}
