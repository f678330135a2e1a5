//! Raw sockets: whole Ethernet frames in and out of one interface.

#![expect(unsafe_code, reason = "binding to an interface takes an address that only libc knows")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice::name_to_index, recv, send,
    socket_with,
};

use crate::namespace::Namespace;

/// Room for what arrives while the receiving thread does not run.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;

/// A packet socket on one interface.
pub struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket on `interface` in `namespace`; [`Self::receive`] waits for at most `patience`.
    ///
    /// # Errors
    ///
    /// Not root, or no such interface.
    pub fn open(namespace: &Namespace, interface: &str, patience: Duration) -> Result<Self> {
        namespace
            .enter(|| Self::open_here(interface, patience))
            .with_context(|| format!("cannot open a packet socket on {interface} in {}", namespace.name()))
    }

    fn open_here(interface: &str, patience: Duration) -> Result<Self> {
        let all = u16::try_from(libc::ETH_P_ALL)?.to_be();
        // Without a protocol it receives nothing before it is bound to its interface.
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None::<Protocol>)?;
        set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
        let index = name_to_index(&socket, interface)?;
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET)?,
            sll_protocol: all,
            sll_ifindex: i32::try_from(index)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = u32::try_from(size_of::<libc::sockaddr_ll>())?;
        // SAFETY: the address is a whole `sockaddr_ll` of the length that is given, and is only read.
        let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        if result < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Self { socket })
    }

    /// Sends one frame; false when the interface has no room for it at the moment.
    ///
    /// # Errors
    ///
    /// The interface is gone or down.
    pub fn send(&self, frame: &[u8]) -> Result<bool> {
        match send(&self.socket, frame, SendFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::NOBUFS | Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error).context("cannot send a frame"),
        }
    }

    /// Receives one frame into `buffer` and returns its length; none when the patience ran out.
    ///
    /// # Errors
    ///
    /// The interface is gone or down.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match recv(&self.socket, buffer, RecvFlags::empty()) {
            Ok((length, _)) => Ok(Some(length)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error).context("cannot receive a frame"),
        }
    }
}
