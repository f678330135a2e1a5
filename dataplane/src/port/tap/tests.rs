//! These make real tap interfaces, which takes CAP_NET_ADMIN and `/dev/net/tun`. Packet sockets (CAP_NET_RAW) play the kernel's side.

#![expect(unsafe_code, reason = "packet sockets have no safe interface")]
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use drivers::nic::{DropReason, TxQueue};
use hugemem::{Batch, Checksum, Iova, Metadata, Packet, Region, Segmentation, SegmentationKind};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// EtherType for experiments (IEEE 802): no part of the kernel answers it.
const EXPERIMENT: u16 = 0x88b5;
const IPV4: u16 = 0x0800;
/// For everything that is awaited; a failure takes so long, a success does not.
const LIMIT: Duration = Duration::from_secs(10);

/// A spec with a name that no other test has.
fn spec(queues: u16) -> TapSpec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("mt{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    TapSpec { name, queues }
}

fn pool(buffers: usize) -> PacketPool {
    let region = Region::on_heap(buffers * 2048 + 4096, Iova::new(0)).unwrap();
    region.packets(buffers, 1920).unwrap()
}

fn opened(spec: &TapSpec) -> (Vec<PortQueue>, TapControl) {
    let tap = Tap::open("t", spec).unwrap_or_else(|error| panic!("this test needs a tap interface: {error}"));
    tap.start((0..spec.queues).map(|_| pool(256)).collect())
}

/// A packet socket on the kernel's side of a tap, for frames of one type.
struct Socket(OwnedFd);

impl Socket {
    fn new(interface: &str, protocol: u16, with_header: bool) -> Self {
        let socket = rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None).unwrap();
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET.try_into().unwrap(),
            sll_protocol: protocol.to_be(),
            sll_ifindex: rustix::net::netdevice::name_to_index(&socket, interface).unwrap().try_into().unwrap(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length: libc::socklen_t = size_of_val(&address).try_into().unwrap();
        // SAFETY: the address is a sockaddr_ll of that length, read during the call.
        let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(result, 0);
        if with_header {
            let one: libc::c_int = 1;
            let length: libc::socklen_t = size_of_val(&one).try_into().unwrap();
            // SAFETY: the option is an int of that length, read during the call.
            let result = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    libc::PACKET_VNET_HDR,
                    (&raw const one).cast(),
                    length,
                )
            };
            assert_eq!(result, 0);
        }
        Self(socket)
    }

    fn send(&self, bytes: &[u8]) {
        assert_eq!(rustix::net::send(&self.0, bytes, SendFlags::empty()).unwrap(), bytes.len());
    }

    fn receive(&self) -> Vec<u8> {
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let mut ready = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut ready, Some(&limit)).unwrap(), 1, "nothing came");
        let mut bytes = vec![0; 1 << 17];
        let (len, _) = rustix::net::recv(&self.0, &mut bytes[..], RecvFlags::empty()).unwrap();
        bytes.truncate(len);
        bytes
    }

    fn is_empty(&self) -> bool {
        rustix::net::recv(&self.0, &mut [0; 1][..], RecvFlags::DONTWAIT).is_err()
    }
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    packet.segments().flatten().copied().collect()
}

fn type_of(packet: &Packet) -> u16 {
    u16::from_be_bytes([packet.bytes()[12], packet.bytes()[13]])
}

/// Receives until `count` frames of the type came; the kernel sends others of its own accord.
fn receive(queues: &mut [PortQueue], ethertype: u16, count: usize) -> Vec<Packet> {
    let start = Instant::now();
    let mut batch = Batch::new(16);
    let mut found = Vec::new();
    while found.len() < count {
        assert!(start.elapsed() < LIMIT, "{} of {count} frames came", found.len());
        for queue in queues.iter_mut() {
            queue.rx.receive(&mut batch);
        }
        found.extend(batch.drain_front(usize::MAX).filter(|packet| type_of(packet) == ethertype));
    }
    assert_eq!(found.len(), count);
    found
}

fn frame(ethertype: u16, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| u8::try_from((at * 5 + len) % 251).unwrap()).collect();
    bytes[..12].copy_from_slice(&[2, 0x6d, 0, 0, 0, 9, 2, 0x6d, 0, 0, 0, 8]);
    bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
    bytes
}

/// One large TCP over IPv4 segment with its checksum to be completed, and what is to be known about it.
fn large_frame(len: usize) -> (Vec<u8>, [u8; 10], Metadata) {
    let mut bytes = frame(IPV4, len);
    let ip_len = u16::try_from(len - 14).unwrap();
    let [high, low] = ip_len.to_be_bytes();
    bytes[14..34].copy_from_slice(&[0x45, 0, high, low, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = |bytes: &[u8], more: u32| {
        let total: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let total = total + more;
        u16::try_from((total & 0xffff) + (total >> 16)).unwrap()
    };
    let header = !sum(&bytes[14..34], 0);
    bytes[24..26].copy_from_slice(&header.to_be_bytes());
    bytes[34..54].copy_from_slice(&[0x30, 0x39, 0x30, 0x3a, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let pseudo = sum(&bytes[26..34], 6 + u32::from(ip_len - 20));
    bytes[50..52].copy_from_slice(&pseudo.to_be_bytes());
    // struct virtio_net_hdr: needs checksum, TCP over IPv4, header 54, size 1448, checksum from 34 at 16.
    let mut header = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    for (place, value) in [(2, 54_u16), (4, 1448), (6, 34), (8, 16)] {
        header[place..place + 2].copy_from_slice(&value.to_ne_bytes());
    }
    let segmentation = Segmentation { kind: SegmentationKind::TcpV4, size: 1448, header_len: 54, ecn: false };
    let checksum = Checksum::Partial { start: 34, offset: 16 };
    (bytes, header, Metadata { checksum, segmentation: Some(segmentation), ..Metadata::default() })
}

/// Puts `bytes` into packets of `pool`, as many as it takes.
fn packet(pool: &mut PacketPool, bytes: &[u8]) -> Packet {
    let mut pieces = bytes.chunks(pool.room()).map(|piece| {
        let mut packet = pool.take().unwrap();
        packet.write(piece).unwrap();
        packet
    });
    let mut packet = pieces.next().unwrap();
    pieces.for_each(|piece| packet.append(piece).unwrap());
    packet
}

#[test]
fn frames_of_all_lengths_pass_both_ways_unchanged() {
    let spec = spec(1);
    let (mut queues, mut control) = opened(&spec);
    let socket = Socket::new(&spec.name, EXPERIMENT, false);
    let frames: Vec<_> = [60, 61, 64, 512, 1499, 1513, 1514].map(|len| frame(EXPERIMENT, len)).into();
    frames.iter().for_each(|frame| socket.send(frame));
    let received = receive(&mut queues, EXPERIMENT, frames.len());
    assert_eq!(received.iter().map(bytes_of).collect::<Vec<_>>(), frames);
    assert!(received.iter().all(|packet| *packet.metadata() == Metadata::default()));

    let mut batch = Batch::new(16);
    received.into_iter().for_each(|packet| batch.push(packet).unwrap());
    assert_eq!(queues[0].tx.transmit(&mut batch), frames.len());
    for frame in &frames {
        assert_eq!(socket.receive(), *frame);
    }
    let counters = queues[0].tx.counters();
    let bytes: usize = frames.iter().map(Vec::len).sum();
    assert_eq!((counters.packets, counters.bytes, counters.dropped_total()), (7, bytes as u64, 0));
    assert!(control.link().up);
    control.check().unwrap();
    control.stop(queues).unwrap();
    assert!(!control.link().up);
    assert_eq!(system::existing_flags(&spec.name), None, "it went with the port");
}

#[test]
fn large_segments_pass_both_ways_in_one_piece() {
    let spec = spec(1);
    let (mut queues, control) = opened(&spec);
    let socket = Socket::new(&spec.name, IPV4, true);
    // As large as the kernel lets a frame get, Ethernet header included.
    let (frame, header, metadata) = large_frame(65_535);
    socket.send(&[&header[..], &frame].concat());
    let received = receive(&mut queues, IPV4, 1);
    assert_eq!(received[0].segment_count(), frame.len().div_ceil(1920));
    assert_eq!(bytes_of(&received[0]), frame);
    assert_eq!(*received[0].metadata(), metadata);

    let mut batch = Batch::new(16);
    received.into_iter().for_each(|packet| batch.push(packet).unwrap());
    assert_eq!(queues[0].tx.transmit(&mut batch), 1);
    let echoed = socket.receive();
    assert_eq!(echoed[10..], frame);
    // The header's length is a hint that the kernel words as it likes.
    assert_eq!((&echoed[..2], &echoed[4..10]), (&header[..2], &header[4..10]));
    assert!(control.offloads().contains(Offloads::TSO4 | Offloads::LRO4));
}

#[test]
fn a_partner_without_offloads_gets_finished_frames() {
    let spec = spec(1);
    let (mut queues, mut control) = opened(&spec);
    control.limit_offloads(Offloads::empty()).unwrap();
    let socket = Socket::new(&spec.name, IPV4, true);
    let (frame, header, _) = large_frame(54 + 3 * 1448 + 100);
    socket.send(&[&header[..], &frame].concat());
    let received = receive(&mut queues, IPV4, 4);
    let mut payload = Vec::new();
    for packet in &received {
        assert_eq!(packet.metadata().segmentation, None);
        assert!(!matches!(packet.metadata().checksum, Checksum::Partial { .. }));
        let bytes = bytes_of(packet);
        let total: u32 = bytes[26..]
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
            .sum();
        let total = total + 6 + u32::try_from(bytes.len() - 34).unwrap();
        assert_eq!((total & 0xffff) + (total >> 16), 0xffff, "TCP checksum");
        payload.extend_from_slice(&bytes[54..]);
    }
    assert_eq!(payload, frame[54..]);
}

#[test]
fn a_full_queue_leaves_packets_as_they_were() {
    // A tap takes frames until the kernel's memory ends. A pair of sockets that keeps frames apart as well is soon full.
    let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let mut tx = TapTx::new(Arc::new(File::from(OwnedFd::from(near))), false);
    let mut pool = pool(2000);
    let mut batch = Batch::new(1000);
    let frames: Vec<_> = (1000..2000).map(|len| frame(EXPERIMENT, len)).collect();
    frames.iter().for_each(|frame| batch.push(packet(&mut pool, frame)).unwrap());
    let mut arrived = Vec::new();
    let mut bytes = vec![0; 4096];
    let mut turns = 0;
    while !batch.is_empty() {
        turns += 1;
        let waiting = batch.len();
        assert!(tx.transmit(&mut batch) > 0);
        assert_eq!(usize::try_from(tx.counters().packets).unwrap(), 1000 - batch.len());
        assert!(batch.len() < waiting);
        assert_eq!(tx.transmit(&mut batch), 0, "it is full or there is nothing left");
        while let Ok(len) = far.recv(&mut bytes) {
            arrived.push(bytes[PLAIN..len].to_vec());
        }
    }
    assert!(turns > 1, "it was never full");
    assert!(arrived == frames);
    assert_eq!((tx.counters().dropped_total(), pool.available()), (0, 2000));
}

#[test]
fn frames_for_an_interface_that_is_down_are_dropped_and_counted() {
    let spec = spec(1);
    let (mut queues, mut control) = opened(&spec);
    control.tap.interface.set_up(false).unwrap();
    assert!(!control.link().up);
    let mut pool = pool(40);
    let mut batch = Batch::new(4);
    batch.push(packet(&mut pool, &frame(EXPERIMENT, 60))).unwrap();
    // What cannot be sent at all is told apart.
    batch.push(packet(&mut pool, &[0; 13])).unwrap();
    let mut wrong = packet(&mut pool, &[0; 60]);
    wrong.metadata_mut().checksum = Checksum::Partial { start: 59, offset: 0 };
    batch.push(wrong).unwrap();
    assert_eq!(queues[0].tx.transmit(&mut batch), 3);
    let counters = queues[0].tx.counters();
    let dropped =
        [DropReason::System, DropReason::BadLength, DropReason::BadHeader].map(|reason| counters.dropped(reason));
    assert_eq!((counters.packets, dropped), (0, [1, 1, 1]));
    assert_eq!(pool.available(), 40);
    control.check().unwrap();
}

#[test]
fn several_queues_share_an_interface() {
    let spec = spec(3);
    let (mut queues, mut control) = opened(&spec);
    assert_eq!(queues.len(), 3);
    let socket = Socket::new(&spec.name, EXPERIMENT, false);
    (60..80).for_each(|len| socket.send(&frame(EXPERIMENT, len)));
    let mut lengths: Vec<_> = receive(&mut queues, EXPERIMENT, 20).iter().map(Packet::len).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, (60..80).collect::<Vec<_>>());
    let text = control.describe();
    assert!(text.contains("tun type tap pi off vnet_hdr on multi_queue on persist off numrxqueues 3"), "{text}");
    assert!(text.starts_with("mtu 1500 state UP link/ether "), "{text}");
}

#[test]
fn sleeping_ends_with_a_frame() {
    let spec = spec(1);
    let (mut queues, _control) = opened(&spec);
    let socket = Socket::new(&spec.name, EXPERIMENT, false);
    assert!(queues[0].rx.arm());
    socket.send(&frame(EXPERIMENT, 60));
    let wake = queues[0].wake.take().unwrap();
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut ready = [rustix::event::PollFd::new(&wake, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut ready, Some(&limit)).unwrap(), 1);
    wake.consume();
    receive(&mut queues, EXPERIMENT, 1);
}

#[test]
fn without_buffers_frames_wait_in_the_kernel() {
    let spec = spec(1);
    let tap = Tap::open("t", &spec).unwrap();
    let (mut queues, _control) = tap.start(vec![pool(36)]);
    let socket = Socket::new(&spec.name, EXPERIMENT, false);
    let frames: Vec<_> = (60..70).map(|len| frame(EXPERIMENT, len)).collect();
    frames.iter().for_each(|frame| socket.send(frame));
    // Each look finds room for a frame or two; none is lost.
    let mut found = Vec::new();
    let start = Instant::now();
    let mut batch = Batch::new(16);
    while found.len() < frames.len() {
        assert!(start.elapsed() < LIMIT);
        assert!(queues[0].rx.receive(&mut batch) <= 2);
        found.extend(batch.iter().filter(|packet| type_of(packet) == EXPERIMENT).map(bytes_of));
        batch.clear();
    }
    assert_eq!(found, frames);
    assert!(socket.is_empty());
}

#[test]
fn what_the_system_refuses_comes_with_its_remedy() {
    let error = Tap::open("t", &TapSpec { name: "lo".into(), queues: 1 }).unwrap_err().to_string();
    assert_eq!(
        error,
        "port `t`: cannot attach to the tap interface: Invalid argument (os error 22); an interface `lo` exists that is no \
         tap, or has other options; choose another name, or remove it with: sudo ip link del lo"
    );
    let spec = spec(1);
    let _held = Tap::open("t", &spec).unwrap();
    let error = Tap::open("t", &spec).unwrap_err().to_string();
    assert!(error.contains(&format!("another process uses `{}`; stop it", spec.name)), "{error}");
    let denied = io::Error::from_raw_os_error(libc::EPERM);
    assert_eq!(
        remedy(ATTACH, &denied, &TapSpec { name: "x".into(), queues: 2 }),
        "run it as root, or make the interface for your user beforehand with: sudo ip tuntap add dev x mode tap user $USER \
         vnet_hdr multi_queue && sudo ip link set dev x up"
    );
    let missing = io::Error::from_raw_os_error(libc::ENOENT);
    assert!(remedy(OPEN, &missing, &spec).ends_with("sudo modprobe tun"));
}

#[test]
fn an_interface_that_is_removed_is_reported() {
    let spec = spec(1);
    let (mut queues, mut control) = opened(&spec);
    let status = std::process::Command::new("ip").args(["link", "del", &spec.name]).status();
    assert!(status.expect("this test needs `ip` (package iproute2)").success());
    let mut batch = Batch::new(4);
    queues[0].rx.receive(&mut batch);
    let error = control.check().unwrap_err().to_string();
    assert!(error.contains("cannot receive from the tap interface"), "{error}");
}
