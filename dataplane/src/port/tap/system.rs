//! What the kernel is asked about tap interfaces: `/dev/net/tun` and interface requests (`netdevice(7)`,
//! Documentation/networking/tuntap.rst in Linux).

#![expect(unsafe_code, reason = "interface requests are ioctls on a C structure")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use drivers::nic::MacAddress;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

const DEVICE: &str = "/dev/net/tun";

// Interface requests (linux/sockios.h). The C libraries disagree on the type of a request, so these are spelled out.
const SIOCGIFFLAGS: libc::Ioctl = 0x8913;
const SIOCSIFFLAGS: libc::Ioctl = 0x8914;
const SIOCGIFMTU: libc::Ioctl = 0x8921;
const SIOCGIFHWADDR: libc::Ioctl = 0x8927;

/// Offloads that whoever reads the tap can take (`TUN_F_*` in linux/if_tun.h).
pub(super) mod reader {
    pub(in super::super) const CSUM: u32 = 0x01;
    pub(in super::super) const TSO4: u32 = 0x02;
    pub(in super::super) const TSO6: u32 = 0x04;
    pub(in super::super) const TSO_ECN: u32 = 0x08;
    pub(in super::super) const USO: u32 = 0x20 | 0x40;
}

/// One request on `file`, whose argument is an `int` in memory.
fn set_int(file: impl AsFd, request: libc::Ioctl, value: libc::c_int) -> io::Result<()> {
    // SAFETY: these requests read one int at the address given, and keep nothing.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request, &raw const value) };
    check(result)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens the device from which taps are made, for use without blocking.
pub(super) fn open_device() -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)
}

/// Makes `file` a queue of the tap `name`, which is created unless it exists.
pub(super) fn attach(file: &File, name: &str, multi_queue: bool) -> io::Result<()> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let flags = if multi_queue { flags | libc::IFF_MULTI_QUEUE } else { flags };
    let mut request = named(name)?;
    request.ifr_ifru.ifru_flags = flags.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    ask(file, libc::TUNSETIFF, &mut request)?;
    // On machines of both byte orders the header is that of virtio 1.
    set_int(file, libc::TUNSETVNETLE, 1)
}

/// Sets the length of the header in front of every frame.
pub(super) fn set_header_len(file: impl AsFd, len: usize) -> io::Result<()> {
    set_int(file, libc::TUNSETVNETHDRSZ, len.try_into().map_err(|_| io::ErrorKind::InvalidInput)?)
}

/// Says which offloads (see [`reader`]) frames that are read may need.
pub(super) fn set_offloads(file: impl AsFd, offloads: u32) -> io::Result<()> {
    // SAFETY: this request takes its argument as a value and touches no memory of ours.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) };
    check(result)
}

/// Flags with which an existing tun or tap interface was made; `None` when there is none of that name.
pub(super) fn existing_flags(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/tun_flags")).ok()?;
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

/// A request about the interface `name`.
fn named(name: &str) -> io::Result<libc::ifreq> {
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 } };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn ask(file: impl AsFd, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: interface requests read and write one ifreq at the address given, and keep nothing.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), what, &raw mut *request) };
    check(result)
}

/// A network interface of the kernel.
#[derive(Debug)]
pub(super) struct Interface {
    socket: OwnedFd,
    name: String,
}

impl Interface {
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, name: name.into() })
    }

    fn flags(&self) -> io::Result<libc::c_short> {
        let mut request = named(&self.name)?;
        ask(&self.socket, SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the kernel filled the flags in; every value of them is valid.
        Ok(unsafe { request.ifr_ifru.ifru_flags })
    }

    /// Whether frames can pass: it is up and has somebody on the other side.
    pub(super) fn running(&self) -> io::Result<bool> {
        let needed = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(libc::c_int::from(self.flags()?) & needed == needed)
    }

    /// Brings it up or takes it down; asks for no right when it is so already.
    pub(super) fn set_up(&self, up: bool) -> io::Result<()> {
        let flags = self.flags()?;
        let bit = libc::c_short::try_from(libc::IFF_UP).map_err(|_| io::ErrorKind::InvalidInput)?;
        let wanted = if up { flags | bit } else { flags & !bit };
        if flags == wanted {
            return Ok(());
        }
        let mut request = named(&self.name)?;
        request.ifr_ifru.ifru_flags = wanted;
        ask(&self.socket, SIOCSIFFLAGS, &mut request)
    }

    pub(super) fn mtu(&self) -> io::Result<i32> {
        let mut request = named(&self.name)?;
        ask(&self.socket, SIOCGIFMTU, &mut request)?;
        // SAFETY: the kernel filled the MTU in; every value of it is valid.
        Ok(unsafe { request.ifr_ifru.ifru_mtu })
    }

    pub(super) fn mac(&self) -> io::Result<MacAddress> {
        let mut request = named(&self.name)?;
        ask(&self.socket, SIOCGIFHWADDR, &mut request)?;
        // SAFETY: the kernel filled the address in; every value of its bytes is valid.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mut mac = MacAddress::default();
        for (to, from) in mac.0.iter_mut().zip(address.sa_data) {
            [*to] = from.to_ne_bytes();
        }
        Ok(mac)
    }
}
