//! Tap devices: a namespace's network interface, whose other end is a guest's virtio-net device.

#![expect(unsafe_code, reason = "the ioctl that attaches a queue to a tap device")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;

/// Opens the queues of a new tap device called `interface` in `namespace`; the device goes when all of them are closed.
///
/// Frames carry a virtio-net header, so that checksum and segmentation offloads reach the guest as they do in real use.
///
/// # Errors
///
/// Not root, no /dev/net/tun, or an interface of that name exists.
pub fn open(namespace: &Namespace, interface: &str, queues: usize) -> Result<Vec<File>> {
    namespace.enter(|| (0..queues).map(|_| open_queue(interface, queues > 1)).collect())
}

fn open_queue(interface: &str, of_several: bool) -> Result<File> {
    let queue = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun: load the kernel module `tun`")?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if of_several {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut name = [0; libc::IFNAMSIZ];
    if interface.len() >= name.len() || !interface.is_ascii() {
        bail!("`{interface}` is no name for an interface: at most 15 ASCII characters");
    }
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: libc::c_short::try_from(flags)? },
    };
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives until the call returns.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    if result < 0 {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("cannot make the tap {interface}"));
    }
    Ok(queue)
}
