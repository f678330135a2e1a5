//! The second way to an Intel DSA device: the character device of the kernel's `idxd` driver, for machines on which Linux keeps the device from VFIO.
//!
//! [`Idxd::open`] finds a work queue that an administrator set up for processes (`/dev/dsa/wq0.0`) and makes a [`CopyDevice`] of it, as the drivers in
//! [`drivers`] make one of a PCI function. What goes through the queue, and what is believed of its answers, is
//! [`drivers::dsa::Queue`], the same as over VFIO. What differs:
//!
//! - Addresses. The kernel binds the queue to this process's address space (PASID, shared virtual addressing), so the device sees what the processor
//!   sees, and all of it. Jobs carry IOVAs as everywhere; `views` turns those of regions that were mapped with [`CopyDevice::map`] into virtual
//!   addresses, and a job that reaches outside of them is never taken. So the device touches nothing that was not meant for it.
//! - The portal. Where the kernel lets the process map it (CAP_SYS_RAWIO on devices with the weakness of INTEL-SA-01084), a submission is one store:
//!   MOVDIR64B into a dedicated queue, ENQCMD into a shared one. Otherwise it is a system call (`write`, from Linux 6.9 on), which carries
//!   several copies and no batches.
//! - Mending. The device's registers are the kernel's. A queue that hangs or lies is out of use; stopping closes its file, for which the kernel waits
//!   until the queue is drained; only then do jobs come back. That wait is made on a thread of its own, so that it can be given up.
//!
//! Before a queue is used, one descriptor that does nothing goes through it: kernels and devices that refuse are found out at the start.
//!
//! Life cycle: [`Idxd::open`] → `start` → `stop` → dropped.
//!
//! [`CopyDevice`]: drivers::copy_engine::CopyDevice
//! [`CopyDevice::map`]: drivers::copy_engine::CopyDevice::map

mod channel;
mod closing;
mod device;
mod portal;
#[cfg(test)]
mod tests;
mod views;

pub use channel::Channel;
pub use device::{Config, Idxd, NoInterrupt, Summary};
pub use portal::{Opened, Opener, Way};
