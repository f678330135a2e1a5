//! The VMM's end of a vhost-user socket, byte by byte, so that it can do what no VMM would.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// Numbers of requests, from the vhost-user specification.
pub(crate) mod request {
    pub(crate) const GET_FEATURES: u32 = 1;
    pub(crate) const SET_FEATURES: u32 = 2;
    pub(crate) const SET_OWNER: u32 = 3;
    pub(crate) const RESET_OWNER: u32 = 4;
    pub(crate) const SET_MEM_TABLE: u32 = 5;
    pub(crate) const SET_LOG_BASE: u32 = 6;
    pub(crate) const SET_LOG_FD: u32 = 7;
    pub(crate) const SET_VRING_NUM: u32 = 8;
    pub(crate) const SET_VRING_ADDR: u32 = 9;
    pub(crate) const SET_VRING_BASE: u32 = 10;
    pub(crate) const GET_VRING_BASE: u32 = 11;
    pub(crate) const SET_VRING_KICK: u32 = 12;
    pub(crate) const SET_VRING_CALL: u32 = 13;
    pub(crate) const SET_VRING_ERR: u32 = 14;
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(crate) const GET_QUEUE_NUM: u32 = 17;
    pub(crate) const SET_VRING_ENABLE: u32 = 18;
    pub(crate) const SEND_RARP: u32 = 19;
    pub(crate) const NET_SET_MTU: u32 = 20;
    pub(crate) const SET_BACKEND_REQ_FD: u32 = 21;
    pub(crate) const IOTLB_MSG: u32 = 22;
    pub(crate) const GET_CONFIG: u32 = 24;
    pub(crate) const SET_CONFIG: u32 = 25;
    pub(crate) const POSTCOPY_ADVISE: u32 = 28;
    pub(crate) const GET_INFLIGHT_FD: u32 = 31;
    pub(crate) const SET_INFLIGHT_FD: u32 = 32;
    pub(crate) const RESET_DEVICE: u32 = 34;
    pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
    pub(crate) const ADD_MEM_REG: u32 = 37;
    pub(crate) const REM_MEM_REG: u32 = 38;
    pub(crate) const SET_STATUS: u32 = 39;
    pub(crate) const GET_STATUS: u32 = 40;
}

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const PACKED: u64 = 1 << 34;
pub(crate) const ACCESS_PLATFORM: u64 = 1 << 33;
pub(crate) const LOG_ALL: u64 = 1 << 26;
pub(crate) const PROTOCOL: u64 = 1 << 30;
/// Flags of a request, and the one that wants an answer.
pub(crate) const PLAIN: u32 = 1;
pub(crate) const NEED_REPLY: u32 = 1 | 8;

/// A message that came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) request: u32,
    pub(crate) flags: u32,
    pub(crate) body: Vec<u8>,
    pub(crate) file: Option<OwnedFd>,
}

impl Answer {
    pub(crate) fn number(&self) -> u64 {
        u64::from_ne_bytes(self.body.first_chunk().copied().expect("a reply of 8 bytes"))
    }
}

pub(crate) struct Vmm {
    pub(crate) socket: UnixStream,
}

pub(crate) fn words32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(crate) fn words64(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(crate) fn header(request: u32, flags: u32, size: usize) -> Vec<u8> {
    words32(&[request, flags, u32::try_from(size).unwrap()])
}

/// Memory of a VM.
pub(crate) fn memfd(len: u64) -> File {
    let file = File::from(rustix::fs::memfd_create("vm", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.set_len(len).unwrap();
    file
}

pub(crate) fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
}

impl Vmm {
    pub(crate) fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        // No answer ever takes so long.
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { socket }
    }

    /// Sends bytes as they are. `false` when the port has closed the connection.
    pub(crate) fn bytes(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let sent = rustix::net::sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
        sent == Ok(bytes.len())
    }

    pub(crate) fn send(&self, request: u32, flags: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> bool {
        let mut bytes = header(request, flags, body.len());
        bytes.extend(body);
        self.bytes(&bytes, files)
    }

    /// The next answer; `None` when the port closes the connection instead.
    pub(crate) fn receive(&self) -> Option<Answer> {
        let mut head = [0; 12];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
        match rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut head)], &mut control, flags) {
            Ok(message) if message.bytes == head.len() => {}
            Ok(message) => {
                assert_eq!(message.bytes, 0, "half an answer");
                return None;
            }
            Err(rustix::io::Errno::CONNRESET) => return None,
            Err(error) => panic!("no answer came: {error}"),
        }
        let mut files = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                files.extend(descriptors);
            }
        }
        let word = |index: usize| u32::from_ne_bytes(head[4 * index..4 * index + 4].try_into().unwrap());
        let mut body = vec![0; word(2) as usize];
        (&self.socket).read_exact(&mut body).unwrap();
        assert!(files.len() <= 1);
        Some(Answer { request: word(0), flags: word(1), body, file: files.pop() })
    }

    /// Asks for something that has a reply of its own.
    pub(crate) fn ask(&self, request: u32, body: &[u8]) -> Option<Answer> {
        if !self.send(request, PLAIN, body, &[]) {
            return None;
        }
        let answer = self.receive()?;
        assert_eq!((answer.request, answer.flags), (request, 1 | 4), "a reply to the request");
        Some(answer)
    }

    /// Tells something and wants to hear whether it worked: what was answered, 0 for yes.
    pub(crate) fn tell(&self, request: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> Option<u64> {
        if !self.send(request, NEED_REPLY, body, files) {
            return None;
        }
        let answer = self.receive()?;
        assert_eq!((answer.request, answer.flags), (request, 1 | 4), "a reply to the request");
        Some(answer.number())
    }

    /// Whether the port closes the connection, after whatever it still answers.
    pub(crate) fn is_closed(&self) -> bool {
        let mut scratch = [0; 4096];
        loop {
            match (&self.socket).read(&mut scratch) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Fills the socket until nothing more goes in at once.
    pub(crate) fn flood(&self, bytes: &[u8]) {
        self.socket.set_nonblocking(true).unwrap();
        let mut idle = 0;
        while idle < 20 {
            match (&self.socket).write(bytes) {
                Ok(_) => idle = 0,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    idle += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => break,
            }
        }
        self.socket.set_nonblocking(false).unwrap();
    }
}

/// Bytes of a VM's memory, which begins at 0 for the guest and at [`USER`] for the VMM.
pub(crate) const MEMORY: u64 = 1 << 20;
pub(crate) const USER: u64 = 0x7000_0000_0000;
/// Descriptors of its rings.
pub(crate) const SIZE: u32 = 8;

/// Where ring number `queue` lies: descriptor table, available ring, used ring, as offsets into the memory.
pub(crate) fn layout(queue: u32) -> [u64; 3] {
    let base = 0x1000 * (1 + u64::from(queue));
    [base, base + 0x400, base + 0x800]
}

/// A VM with memory and eventfds, ready to be set up.
pub(crate) struct Machine {
    pub(crate) vmm: Vmm,
    pub(crate) memory: File,
    pub(crate) kicks: Vec<OwnedFd>,
    pub(crate) calls: Vec<OwnedFd>,
}

/// One request of a setup.
pub(crate) type Step<'m> = (u32, Vec<u8>, Vec<BorrowedFd<'m>>);

impl Machine {
    pub(crate) fn connect(path: &Path, queues: usize) -> Self {
        let events = || (0..queues).map(|_| eventfd()).collect();
        Self { vmm: Vmm::connect(path), memory: memfd(MEMORY), kicks: events(), calls: events() }
    }

    /// Everything that a frontend says, in order, until frames flow.
    pub(crate) fn steps(&self, features: u64) -> Vec<Step<'_>> {
        use request as r;
        let mut steps: Vec<Step<'_>> = vec![
            (r::GET_FEATURES, vec![], vec![]),
            (r::GET_PROTOCOL_FEATURES, vec![], vec![]),
            (r::SET_PROTOCOL_FEATURES, words64(&[0x1b23f]), vec![]),
            (r::GET_QUEUE_NUM, vec![], vec![]),
            (r::GET_MAX_MEM_SLOTS, vec![], vec![]),
            (r::SET_OWNER, vec![], vec![]),
            (r::SET_FEATURES, words64(&[features | VERSION_1 | PROTOCOL]), vec![]),
            (r::SET_MEM_TABLE, self.table(), vec![self.memory.as_fd()]),
            (r::NET_SET_MTU, words64(&[9000]), vec![]),
        ];
        for (queue, (kick, call)) in (0..).zip(self.kicks.iter().zip(&self.calls)) {
            let [descriptors, available, used] = layout(queue).map(|offset| USER + offset);
            let mut addresses = words32(&[queue, 0]);
            addresses.extend(words64(&[descriptors, used, available, 0]));
            let index = words64(&[queue.into()]);
            let base = if features & PACKED == 0 { 0 } else { 0x8000_8000 };
            steps.extend([
                (r::SET_VRING_NUM, words32(&[queue, SIZE]), vec![]),
                (r::SET_VRING_BASE, words32(&[queue, base]), vec![]),
                (r::SET_VRING_ADDR, addresses, vec![]),
                (r::SET_VRING_CALL, index.clone(), vec![call.as_fd()]),
                (r::SET_VRING_ERR, index.clone(), vec![call.as_fd()]),
                (r::SET_VRING_KICK, index, vec![kick.as_fd()]),
                (r::SET_VRING_ENABLE, words32(&[queue, 1]), vec![]),
            ]);
        }
        steps
    }

    /// A table of one region.
    pub(crate) fn table(&self) -> Vec<u8> {
        let mut body = words32(&[1, 0]);
        body.extend(words64(&[0, MEMORY, USER, 0]));
        body
    }

    /// Plays a step, with its answer where it has one.
    pub(crate) fn play(&self, step: &Step<'_>) -> bool {
        use request as r;
        let (request, body, files) = step;
        let asks = [r::GET_FEATURES, r::GET_PROTOCOL_FEATURES, r::GET_QUEUE_NUM, r::GET_MAX_MEM_SLOTS];
        self.vmm.send(*request, PLAIN, body, files) && (!asks.contains(request) || self.vmm.receive().is_some())
    }

    /// Sets everything up.
    pub(crate) fn set_up(&self, features: u64) {
        for step in self.steps(features) {
            assert!(self.play(&step), "request {}", step.0);
        }
        assert_eq!(self.vmm.tell(request::SET_OWNER, &[], &[]), Some(0), "all of it was taken");
    }

    /// Makes a frame of `length` bytes available on the split ring with this odd number, in its first descriptor.
    pub(crate) fn transmit(&self, queue: u32, length: u32) {
        use std::os::unix::fs::FileExt;
        let [descriptors, available, _] = layout(queue);
        let buffer = 0x10000_u64;
        let mut descriptor = words64(&[buffer]);
        descriptor.extend(words32(&[12 + length, 0]));
        self.memory.write_all_at(&[0; 12], buffer).unwrap();
        self.memory.write_all_at(&vec![0x5a; length as usize], buffer + 12).unwrap();
        self.memory.write_all_at(&descriptor, descriptors).unwrap();
        self.memory.write_all_at(&[0, 0], available + 4).unwrap();
        self.memory.write_all_at(&[1, 0], available + 2).unwrap();
    }

    /// The used index of a split ring.
    pub(crate) fn used(&self, queue: u32) -> u16 {
        use std::os::unix::fs::FileExt;
        let mut index = [0; 2];
        self.memory.read_exact_at(&mut index, layout(queue)[2] + 2).unwrap();
        u16::from_le_bytes(index)
    }
}
