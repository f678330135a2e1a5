//! Cutting a large packet into segments, as a card would (virtio 1.3, section 5.1.6.2; 82599 datasheet, section 7.2.4).
//!
//! Each segment gets a copy of the headers: IPv4 identifications count up, the TCP sequence number moves on, FIN and PSH stay on the last segment and CWR
//! on the first, lengths are its own, and its transport checksum is left partial for whoever completes it.
//!
//! A packet in a tunnel is cut inside, and each segment gets outer headers of its own: the same bytes as if the inner packet had been cut first.

use drivers::nic::DropReason;
use hugemem::{Checksum, Metadata, Packet, PacketPool, Segmentation, SegmentationKind};

use super::Step;
use crate::checksum;
use crate::overlay::completed_sum;
use crate::whole;

/// Most bytes of headers, as with an 82599 (section 7.2.3.2.3).
const MOST_HEADERS: usize = 512;
const ETHERNET: usize = 14;
const TAG: usize = 4;
/// Shortest headers.
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const UDP: usize = 8;
/// TCP flags.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// How a packet is cut, and how far that is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Cut {
    /// Of a packet in a tunnel, the headers around the frame that is cut.
    outer: Option<Outer>,
    /// Where the network header begins, and where the transport header does.
    network: usize,
    transport: usize,
    /// Bytes of all headers.
    headers: usize,
    ipv4: bool,
    udp: bool,
    /// Payload of a segment, of all of them, and of those that are done.
    size: usize,
    payload: usize,
    done: usize,
    /// Segments that are done.
    index: u16,
}

/// The headers of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Outer {
    /// Where the network header begins, where the UDP header does, and where the frame inside.
    network: usize,
    transport: usize,
    inner: usize,
    ipv4: bool,
}

/// The next segment of `packet`.
pub(super) fn step(
    packet: &Packet,
    segmentation: Segmentation,
    state: &mut Option<Cut>,
    pool: &mut PacketPool,
) -> Step {
    let cut = match *state {
        Some(cut) => cut,
        None => match Cut::of(packet, segmentation) {
            Some(cut) => cut,
            None => return Step::Drop(DropReason::BadHeader),
        },
    };
    if cut.done >= cut.payload {
        return Step::Done;
    }
    let len = cut.size.min(cut.payload - cut.done);
    let mut copy = [0; MOST_HEADERS];
    let Some(headers) = copy.get_mut(..cut.headers) else { return Step::Drop(DropReason::BadHeader) };
    whole::read(packet, 0, headers);
    if cut.edit(headers, len).is_none() {
        return Step::Drop(DropReason::BadHeader);
    }
    let segment = whole::assemble(pool, cut.headers + len, |at, into| {
        let own = headers.get(at..).unwrap_or_default();
        let (front, rest) = into.split_at_mut(own.len().min(into.len()));
        front.copy_from_slice(own.get(..front.len()).unwrap_or_default());
        // Where the payload goes on: headers are in front of it in both frames.
        whole::read(packet, cut.done + at.max(cut.headers), rest);
    });
    match segment {
        Ok(mut segment) => {
            *segment.metadata_mut() = Metadata { segmentation: None, ..*packet.metadata() };
            *state = Some(Cut { done: cut.done + len, index: cut.index.wrapping_add(1), ..cut });
            Step::Piece(segment)
        }
        Err(shortage) => shortage.into(),
    }
}

impl Cut {
    /// `None` when the packet cannot be cut like that.
    fn of(packet: &Packet, segmentation: Segmentation) -> Option<Self> {
        let Checksum::Partial { start, offset } = packet.metadata().checksum else { return None };
        let mut front = [0; MOST_HEADERS];
        let known = whole::read(packet, 0, &mut front).min(MOST_HEADERS);
        let front = front.get(..known)?;
        let inner = packet.metadata().inner.map(|inner| usize::from(inner.get()));
        let outer = match inner {
            Some(inner) => Some(Outer::of(front, inner)?),
            None => None,
        };
        let begin = inner.unwrap_or(0);
        let (network, ipv4) = network_header(front.get(begin..)?)?;
        let network = begin + network;
        let transport = usize::from(start);
        let internet = transport.checked_sub(network)?;
        let udp = segmentation.kind == SegmentationKind::Udp;
        let fits = match segmentation.kind {
            SegmentationKind::TcpV4 => ipv4 && offset == 16,
            SegmentationKind::TcpV6 => !ipv4 && offset == 16,
            SegmentationKind::Udp => offset == 6,
        };
        // The length that the header of IPv4 states has to agree; IPv6 may have extensions.
        let agrees = if ipv4 {
            internet >= IPV4 && usize::from(front.get(network)? & 0xf) * 4 == internet
        } else {
            internet >= IPV6
        };
        let last = if udp { UDP } else { usize::from(*front.get(transport + 12)? >> 4) * 4 };
        let headers = transport + last;
        let payload = packet.len().checked_sub(headers).filter(|payload| *payload > 0)?;
        let size = usize::from(segmentation.size);
        let possible = fits && agrees && size > 0 && headers <= known && (udp || last >= TCP);
        possible.then_some(Self { outer, network, transport, headers, ipv4, udp, size, payload, done: 0, index: 0 })
    }

    /// Makes of the headers of the packet those of the next segment, with `len` bytes of payload. `None` when its length cannot be stated.
    fn edit(&self, headers: &mut [u8], len: usize) -> Option<()> {
        let (front, transport) = headers.split_at_mut_checked(self.transport)?;
        let network = front.get_mut(self.network..)?;
        let datagram = u16::try_from(transport.len() + len).ok()?;
        let protocol = if self.udp { 17 } else { 6 };
        let addresses = if self.ipv4 {
            let total = u16::try_from(network.len() + transport.len() + len).ok()?;
            put(network, 2, total.to_be_bytes())?;
            let identification = u16::from_be_bytes(*network.get(4..)?.first_chunk()?).wrapping_add(self.index);
            put(network, 4, identification.to_be_bytes())?;
            put(network, 10, [0; 2])?;
            let sum = checksum::fold(checksum::sum(network));
            put(network, 10, (!sum).to_ne_bytes())?;
            network.get(12..20)?
        } else {
            let length = u16::try_from(network.len() - IPV6 + transport.len() + len).ok()?;
            put(network, 4, length.to_be_bytes())?;
            network.get(8..40)?
        };
        if self.udp {
            put(transport, 4, datagram.to_be_bytes())?;
        } else {
            let sequence = u32::from_be_bytes(*transport.get(4..)?.first_chunk()?);
            // Payloads are shorter than 128 KiB.
            put(transport, 4, sequence.wrapping_add(u32::try_from(self.done).ok()?).to_be_bytes())?;
            let flags = transport.get_mut(13)?;
            if self.done + len < self.payload {
                *flags &= !(FIN | PSH);
            }
            if self.done > 0 {
                *flags &= !CWR;
            }
        }
        let pseudo = checksum::pseudo_header(addresses, protocol, datagram.into());
        let offset = if self.udp { 6 } else { 16 };
        put(transport, offset, checksum::fold(pseudo).to_ne_bytes())?;
        let Some(outer) = self.outer else { return Some(()) };
        let inner_transport = self.transport - outer.inner;
        outer.edit(headers, len, inner_transport, u16::try_from(offset).ok()?)
    }
}

impl Outer {
    /// The headers around the frame at `inner`. `None` when they are none of a tunnel over UDP.
    fn of(front: &[u8], inner: usize) -> Option<Self> {
        let (network, ipv4) = network_header(front)?;
        let header = front.get(network..)?;
        let (length, protocol) =
            if ipv4 { (usize::from(header.first()? & 0xf) * 4, *header.get(9)?) } else { (IPV6, *header.get(6)?) };
        let transport = network + length;
        (protocol == 17 && length >= IPV4 && transport + UDP <= inner).then_some(Self {
            network,
            transport,
            inner,
            ipv4,
        })
    }

    /// Makes of all headers those of a segment whose inner ones are done, with `len` bytes of payload. The checksum of the inner transport header, which starts
    /// at `start` of the inner frame, lies `offset` bytes into it.
    fn edit(&self, headers: &mut [u8], len: usize, start: usize, offset: u16) -> Option<()> {
        let (front, inner) = headers.split_at_mut_checked(self.inner)?;
        let frame = inner.len() + len;
        let (front, udp) = front.split_at_mut_checked(self.transport)?;
        let network = front.get_mut(self.network..)?;
        let datagram = u16::try_from(udp.len() + frame).ok()?;
        if self.ipv4 {
            let total = u16::try_from(network.len() + udp.len() + frame).ok()?;
            put(network, 2, total.to_be_bytes())?;
            put(network, 10, [0; 2])?;
            let sum = checksum::fold(checksum::sum(network));
            put(network, 10, (!sum).to_ne_bytes())?;
        } else {
            put(network, 4, datagram.to_be_bytes())?;
        }
        put(udp, 4, datagram.to_be_bytes())?;
        // None was wanted when there is none.
        if udp.get(6..UDP)? == [0; 2] {
            return Some(());
        }
        put(udp, 6, [0; 2])?;
        let addresses = network.get(if self.ipv4 { 12..20 } else { 8..40 })?;
        let summed = completed_sum(inner, u16::try_from(start).ok()?, offset).ok()?;
        let pseudo = checksum::pseudo_header(addresses, 17, datagram.into());
        put(udp, 6, checksum::complement(pseudo + checksum::sum(udp) + summed).to_ne_bytes())
    }
}

/// Where the IP header of `frame` begins, and whether it is one of IPv4.
fn network_header(frame: &[u8]) -> Option<(usize, bool)> {
    let mut network = ETHERNET;
    loop {
        match frame.get(network - 2..network)? {
            [0x08, 0x00] => return Some((network, true)),
            [0x86, 0xdd] => return Some((network, false)),
            // A tag, and at most one more.
            [0x81, 0x00] | [0x88, 0xa8] if network < ETHERNET + 2 * TAG => network += TAG,
            _ => return None,
        }
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value;
    Some(())
}
