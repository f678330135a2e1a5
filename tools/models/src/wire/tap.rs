//! A wire to an interface of the kernel (Documentation/networking/tuntap.rst in Linux).

#![expect(unsafe_code, reason = "a tap is made by an ioctl on a C structure")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::{Wire, WireError};

/// What the card transmits, the interface receives, and the other way round. Offloads are off: every frame is whole.
#[derive(Debug)]
pub struct Tap {
    queue: File,
    buffer: Box<[u8]>,
    /// Bytes of the frame in the buffer; 0 is none.
    len: usize,
}

/// The largest IP packet behind an Ethernet header with two VLAN tags.
const LONGEST: usize = 65_535 + 22;

impl Tap {
    /// Makes the tap `name` in the present network namespace, or attaches to one that nobody uses. It is gone with this value, unless it was
    /// made to stay.
    ///
    /// # Errors
    /// When the name is none, the interface is in use or not of this kind, or this process may not.
    pub fn open(name: &str) -> Result<Self, WireError> {
        let queue = attach(name).map_err(|source| WireError {
            wire: format!("tap {name}"),
            action: "attach to it",
            remedy: match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => "; run it as root or with CAP_NET_ADMIN",
                Some(libc::EBUSY) => "; another process uses it",
                Some(libc::ENOENT) => "; load the kernel module `tun`",
                Some(libc::EINVAL) => "; it must be a tap (not a tun) of one queue, or not exist",
                _ => "",
            },
            source,
        })?;
        Ok(Self { queue, buffer: vec![0; LONGEST].into(), len: 0 })
    }
}

fn attach(name: &str) -> io::Result<File> {
    let queue = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 } };
    // The last byte stays zero.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains(['/', ':', '%', ' ']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an interface name of 1 to 15 characters"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI);
    request.ifr_ifru.ifru_flags = flags.map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives until the call returns.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(queue) }
}

impl Wire for Tap {
    fn peek(&mut self) -> Option<&[u8]> {
        if self.len == 0 {
            // Nothing there, or the interface is down: for a card it is the same.
            self.len = self.queue.read(&mut self.buffer).unwrap_or(0);
        }
        self.buffer.get(..self.len).filter(|frame| !frame.is_empty())
    }

    fn advance(&mut self) {
        self.len = 0;
    }

    fn transmit(&mut self, frame: &[u8]) -> bool {
        // An interface that is down takes nothing: the frame is lost, as on a cable that nobody listens at.
        !matches!(self.queue.write(frame), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}
