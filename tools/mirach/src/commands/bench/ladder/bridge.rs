//! A bridge of the kernel's, by the old requests for it (linux/sockios.h), which need no library.

#![expect(unsafe_code, reason = "namespaces and bridges are made by system calls")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use rustix::thread::UnshareFlags;

// The C libraries disagree on the type of a request, so these are spelled out.
const SIOCGIFFLAGS: libc::Ioctl = 0x8913;
const SIOCSIFFLAGS: libc::Ioctl = 0x8914;
const SIOCBRADDBR: libc::Ioctl = 0x89a0;
const SIOCBRADDIF: libc::Ioctl = 0x89a2;

/// Moves the calling thread to a new network namespace.
pub(super) fn enter_new_namespace() -> Result<(), rustix::io::Errno> {
    // SAFETY: only tables of files can be missed by other threads, and these stay as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}

/// A bridge that is up. It goes with its namespace.
pub(super) struct Bridge {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Bridge {
    /// Makes one in the namespace of the calling thread.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let mut bridge = Self { socket, name: [0; libc::IFNAMSIZ] };
        // The last byte stays zero.
        for (to, from) in bridge.name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        // SAFETY: the request reads a name of at most so many bytes, the last of which is zero.
        let made = unsafe { libc::ioctl(bridge.socket.as_raw_fd(), SIOCBRADDBR, bridge.name.as_ptr()) };
        check(made)?;
        bridge.bring_up()?;
        Ok(bridge)
    }

    /// Puts an interface on it.
    pub(super) fn add(&self, interface: &str) -> io::Result<()> {
        let index = netdevice::name_to_index(&self.socket, interface)?;
        let index = libc::c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut request = self.request();
        request.ifr_ifru.ifru_ifindex = index;
        self.ask(SIOCBRADDIF, &mut request)
    }

    fn bring_up(&self) -> io::Result<()> {
        let mut request = self.request();
        self.ask(SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the kernel filled the flags in; every value of them is valid.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let up = libc::c_short::try_from(libc::IFF_UP).map_err(|_| io::ErrorKind::InvalidInput)?;
        request.ifr_ifru.ifru_flags = flags | up;
        self.ask(SIOCSIFFLAGS, &mut request)
    }

    fn request(&self) -> libc::ifreq {
        libc::ifreq { ifr_name: self.name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 } }
    }

    fn ask(&self, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: interface requests read and write one ifreq at the address given, and keep nothing.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), what, &raw mut *request) };
        check(result)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
