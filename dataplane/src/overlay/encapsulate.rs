//! Into the tunnel.

use std::num::NonZeroU16;

use hugemem::{Checksum, Metadata, Packet, SegmentationKind};

use super::template::UDP;
use super::{Reason, Template, ecn};
use crate::checksum::{complement, fold, sum};
use crate::headers::ETHERNET;

/// Puts the outer headers of `template` in front of `packet`. The UDP source port is made of `flow_hash`, so that all routers on the way take a flow's
/// packets the same way: it has to stay the same for as long as the flow lives.
///
/// A VLAN tag that was taken out of the inner frame is put back into it. A partial checksum and a request for cutting stay, and mean the inner
/// frame ([`Metadata::inner`]); when the template wants UDP checksums and the inner one is complete, the outer one is left partial instead.
///
/// # Errors
/// Why it cannot go through the tunnel. No bytes were put in front of it then.
#[inline]
pub fn encapsulate(packet: &mut Packet, template: &Template, flow_hash: u32) -> Result<(), Reason> {
    insert_tag(packet)?;
    let metadata = *packet.metadata();
    let len = packet.len();
    if len < ETHERNET {
        return Err(Reason::Runt);
    }
    if longest(packet, &metadata)? > template.room {
        return Err(Reason::TooBig);
    }
    let shift = template.len;
    let (pending, outer_sum) = match metadata.checksum {
        _ if metadata.inner.is_some() => return Err(Reason::BadRequest),
        Checksum::Partial { start, offset } => {
            let summed = if template.checksum { completed_sum(packet.bytes(), start, offset)? } else { 0 };
            (true, summed)
        }
        _ => (false, 0),
    };
    let bytes = packet.bytes();
    let class = ecn::network(bytes).map_or(0, |network| network.class);
    let class = template.dscp.unwrap_or(class & !ecn::MASK) | (class & ecn::MASK);
    let place = packet.prepend(shift).ok_or(Reason::NoHeadroom)?;
    place.copy_from_slice(template.headers());
    let filled = fill(place, template, len, class, flow_hash, pending.then_some(outer_sum));
    // The template has all these headers.
    filled.ok_or(Reason::BadRequest)?;
    follow(packet, template, &metadata, pending)
}

/// What is known about the packet, now that it has outer headers.
#[inline]
fn follow(packet: &mut Packet, template: &Template, before: &Metadata, pending: bool) -> Result<(), Reason> {
    // Outer headers are short, and so is what is in front of a transport header; a sum that overflows was refused.
    let shift = u16::try_from(template.len).map_err(|_| Reason::BadRequest)?;
    let metadata = packet.metadata_mut();
    metadata.inner = NonZeroU16::new(shift).filter(|_| pending);
    metadata.checksum = match before.checksum {
        Checksum::Partial { start, offset } => Checksum::Partial { start: start.saturating_add(shift), offset },
        _ if template.checksum => {
            let start = u16::try_from(template.udp).map_err(|_| Reason::BadRequest)?;
            Checksum::Partial { start, offset: 6 }
        }
        _ => Checksum::Unknown,
    };
    if let Some(segmentation) = &mut metadata.segmentation
        && segmentation.header_len > 0
    {
        segmentation.header_len = segmentation.header_len.saturating_add(shift);
    }
    Ok(())
}

/// Fills in what differs from packet to packet. `inner` is the sum of a frame of `len` bytes, once its checksum is complete; `None` when
/// that of the datagram is to be completed by somebody else.
#[inline]
fn fill(
    headers: &mut [u8],
    template: &Template,
    len: usize,
    class: u8,
    flow_hash: u32,
    inner: Option<u64>,
) -> Option<()> {
    let (network, udp) = headers.split_at_mut_checked(template.udp)?;
    let network = network.get_mut(template.network..)?;
    // Of a packet that is still to be cut the lengths may be too large to say; each segment gets its own.
    let datagram = u16::try_from(udp.len() + len).unwrap_or(u16::MAX);
    if template.ipv4 {
        let header: &mut [u8; 20] = network.first_chunk_mut()?;
        let total = u16::try_from(header.len() + udp.len() + len).unwrap_or(u16::MAX).to_be_bytes();
        header[1] = class;
        header[2..4].copy_from_slice(&total);
        let checksum = !fold(template.header_sum + sum(&[0, class]) + sum(&total));
        header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    } else {
        let header: &mut [u8; 40] = network.first_chunk_mut()?;
        // The flow label serves the same routers as the source port (RFC 6438).
        let first = (6 << 28) | (u32::from(class) << 20) | (flow_hash & 0xf_ffff);
        header[..4].copy_from_slice(&first.to_be_bytes());
        header[4..6].copy_from_slice(&datagram.to_be_bytes());
    }
    let mixed = flow_hash ^ (flow_hash >> 16);
    // 49152 to 65535 (RFC 7348, section 5).
    let port = 0xc000 | u16::try_from(mixed & 0x3fff).ok()?;
    let datagram = datagram.to_be_bytes();
    udp.get_mut(..2)?.copy_from_slice(&port.to_be_bytes());
    udp.get_mut(4..6)?.copy_from_slice(&datagram);
    if template.checksum {
        let pseudo = template.pseudo_sum + sum(&datagram);
        let checksum = match inner {
            Some(inner) => complement(pseudo + sum(udp) + inner),
            None => fold(pseudo),
        };
        udp.get_mut(6..UDP)?.copy_from_slice(&checksum.to_ne_bytes());
    }
    Some(())
}

/// What `frame` will sum up to once its partial checksum is complete. From `start` on that is known without a look at the bytes: the complement
/// of what the field holds now.
#[inline]
pub(crate) fn completed_sum(frame: &[u8], start: u16, offset: u16) -> Result<u64, Reason> {
    let start = usize::from(start);
    let front = frame.get(..start).ok_or(Reason::BadRequest)?;
    let field = frame.get(start + usize::from(offset)..).and_then(<[u8]>::first_chunk).ok_or(Reason::BadRequest)?;
    let field = u16::from_ne_bytes(*field);
    if !offset.is_multiple_of(2) {
        // A checksum that adds nothing up.
        return Err(Reason::BadRequest);
    }
    // Where summing starts at an odd byte, all that follows weighs the other way round.
    let rest = if start.is_multiple_of(2) { !field } else { (!field).swap_bytes() };
    Ok(sum(front) + u64::from(rest))
}

/// Bytes of the longest frame that `packet` is on a wire: of its segments, when it is to be cut.
#[inline]
fn longest(packet: &Packet, metadata: &Metadata) -> Result<usize, Reason> {
    let Some(segmentation) = metadata.segmentation else { return Ok(packet.len()) };
    let Checksum::Partial { start, .. } = metadata.checksum else { return Err(Reason::BadRequest) };
    let start = usize::from(start);
    let transport = match segmentation.kind {
        SegmentationKind::Udp => UDP,
        SegmentationKind::TcpV4 | SegmentationKind::TcpV6 => {
            usize::from(packet.bytes().get(start + 12).ok_or(Reason::BadRequest)? >> 4) * 4
        }
    };
    Ok(packet.len().min(start + transport + usize::from(segmentation.size)))
}

/// Puts a tag that was taken out of the frame back into it.
#[inline]
fn insert_tag(packet: &mut Packet) -> Result<(), Reason> {
    let Some(tag) = packet.metadata().vlan else { return Ok(()) };
    if packet.bytes().len() < ETHERNET {
        return Err(Reason::Runt);
    }
    packet.prepend(4).ok_or(Reason::NoHeadroom)?;
    let bytes = packet.bytes_mut();
    bytes.copy_within(4..16, 0);
    let [high, low] = tag.to_be_bytes();
    bytes.get_mut(12..16).ok_or(Reason::Runt)?.copy_from_slice(&[0x81, 0, high, low]);
    let metadata = packet.metadata_mut();
    metadata.vlan = None;
    if let Checksum::Partial { start, .. } = &mut metadata.checksum {
        *start = start.saturating_add(4);
    }
    if let Some(segmentation) = &mut metadata.segmentation
        && segmentation.header_len > 0
    {
        segmentation.header_len = segmentation.header_len.saturating_add(4);
    }
    Ok(())
}
