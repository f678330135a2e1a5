//! Cutting an IPv4 packet into fragments (RFC 791, section 3.2), when it is longer than what lies ahead carries and its sender allows that.

use hugemem::{Checksum, Metadata, Packet, PacketPool};

use crate::checksum;
use crate::headers::{Headers, NetworkKind};
use crate::whole;

/// The word of flags and offset: not to be fragmented, more fragments follow, and the offset in units of eight bytes.
const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Whether the sender of a packet with these headers allows that it is fragmented on the way. Routers never fragment IPv6 (RFC 8200, section 5).
pub(crate) fn is_allowed(packet: &Packet, headers: &Headers) -> bool {
    let mut word = [0; 2];
    let read = whole::read(packet, usize::from(headers.network_at) + 6, &mut word) == word.len();
    let is_ipv4 = headers.network == NetworkKind::Ipv4 && headers.malformed.is_none();
    is_ipv4 && read && u16::from_be_bytes(word) & DONT_FRAGMENT == 0
}

/// The packet in frames of at most `longest` bytes, Ethernet header included, in buffers of `pool`. Its own checksum, if that is partial, is completed first. `headers` are those of
/// `packet`, which is not to be cut into segments.
///
/// `None` when it cannot be fragmented, when not even eight bytes of payload fit, or when there are not enough buffers.
pub(crate) fn fragments(
    packet: &Packet,
    headers: &Headers,
    longest: usize,
    pool: &mut PacketPool,
) -> Option<Vec<Packet>> {
    let metadata = *packet.metadata();
    if !is_allowed(packet, headers) || metadata.segmentation.is_some() {
        return None;
    }
    let mut frame = vec![0; packet.len()];
    if whole::read(packet, 0, &mut frame) != frame.len() {
        return None;
    }
    if let Checksum::Partial { start, offset } = metadata.checksum
        && !checksum::complete(&mut frame, start, offset)
    {
        return None;
    }
    let network = usize::from(headers.network_at);
    let (ethernet, rest) = frame.split_at_checked(network)?;
    let ip = rest.get(..(headers.end as usize).checked_sub(network)?)?;
    let header_len = usize::from(ip.first()? & 0xf) * 4;
    let (header, payload) = ip.split_at_checked(header_len)?;
    let word = u16::from_be_bytes(*header.get(6..)?.first_chunk()?);
    let each = longest.checked_sub(network + header_len)? & !7;
    if each == 0 {
        return None;
    }
    let mut fragments = Vec::new();
    for (number, piece) in payload.chunks(each).enumerate() {
        let at = number * each;
        let mut header = header.to_vec();
        if number > 0 {
            blank(header.get_mut(20..)?);
        }
        let offset = u16::try_from(usize::from(word & OFFSET) + at / 8).ok().filter(|offset| *offset <= OFFSET)?;
        let more = if at + piece.len() < payload.len() { MORE } else { word & MORE };
        put(&mut header, 2, u16::try_from(header_len + piece.len()).ok()?.to_be_bytes())?;
        put(&mut header, 6, (offset | more).to_be_bytes())?;
        put(&mut header, 10, [0; 2])?;
        let sum = !checksum::fold(checksum::sum(&header));
        put(&mut header, 10, sum.to_ne_bytes())?;
        let bytes = [ethernet, &header, piece].concat();
        let made = whole::assemble(pool, bytes.len(), |at, into| {
            if let Some(part) = bytes.get(at..at + into.len()) {
                into.copy_from_slice(part);
            }
        });
        let mut fragment = made.ok()?;
        *fragment.metadata_mut() = Metadata { vlan: metadata.vlan, ..Metadata::default() };
        fragments.push(fragment);
    }
    Some(fragments)
}

fn put(header: &mut [u8], at: usize, word: [u8; 2]) -> Option<()> {
    header.get_mut(at..at + 2)?.copy_from_slice(&word);
    Some(())
}

/// Makes "no operation" of the options that only the first fragment has: those without the copied flag (RFC 791, section 3.1).
fn blank(options: &mut [u8]) {
    let mut at = 0;
    while let Some(kind) = options.get(at).copied().filter(|kind| *kind != 0) {
        let len = if kind == 1 { 1 } else { options.get(at + 1).map_or(0, |len| usize::from(*len)) };
        if kind != 1 && len < 2 {
            return;
        }
        if kind & 0x80 == 0
            && let Some(option) = options.get_mut(at..at + len)
        {
            option.fill(1);
        }
        at += len;
    }
}
