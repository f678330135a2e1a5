//! What a packet asks of the card beside being sent: checksums, cutting into segments, VLAN tags (82599 datasheet,
//! sections 7.2.4 and 7.2.5).
//!
//! The card is told about headers by contexts, of which it keeps two for each queue. A packet whose context is
//! there already needs no descriptor for it.

use hugemem::{Checksum, Metadata, Packet, Segmentation, SegmentationKind};

use super::descriptor::{Context, data};
use super::options::TransmitSetup;
use crate::checksum;
use crate::nic::{DropReason, Offloads};

/// Bytes of an Ethernet header, of a VLAN tag, of the shortest IPv4 header and of the IPv6 header.
const ETHERNET: usize = 14;
const TAG: usize = 4;
const IPV4: u16 = 20;
const IPV6: u16 = 40;
/// Most bytes of packet that PAYLEN can say.
const MOST_PAYLOAD: usize = (1 << 18) - 1;
/// All headers of a packet that is cut together are shorter, an inserted tag included (7.2.3.2.3).
const MOST_HEADERS: usize = 512;

/// What has to be in the descriptors of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Plan {
    /// What the card has to know about its headers; `None` when nothing.
    pub(super) context: Option<Context>,
    /// Bits for the upper word of each of its data descriptors.
    pub(super) command: u64,
    /// PAYLEN: bytes of the packet, or of its payload when it is cut.
    pub(super) payload: usize,
}

/// What `packet` needs. Prepares its headers where the card expects that, and completes checksums that the card cannot.
///
/// # Errors
/// Why the packet cannot be sent; it is to be dropped.
pub(super) fn plan(packet: &mut Packet, setup: TransmitSetup) -> Result<Plan, DropReason> {
    let Metadata { checksum, segmentation, vlan, .. } = *packet.metadata();
    if vlan.is_some() && !setup.offloads.contains(Offloads::VLAN_INSERT) {
        return Err(DropReason::NoOffload);
    }
    let mut plan = match (segmentation, checksum) {
        (None, _) if packet.len() > setup.longest => return Err(DropReason::TooLong),
        (None, Checksum::Partial { start, offset }) => complete(packet, start, offset, setup.offloads)?,
        (None, _) => Plan { payload: packet.len(), ..Plan::default() },
        (Some(segmentation), Checksum::Partial { start, offset }) => cut(packet, segmentation, start, offset, setup)?,
        // Cutting implies that each segment gets a checksum of its own.
        (Some(_), _) => return Err(DropReason::BadHeader),
    };
    if let Some(tag) = vlan {
        let untagged = Context { mac_length: 14, ..Context::default() };
        plan.context = Some(Context { vlan: tag, ..plan.context.unwrap_or(untagged) });
        plan.command |= data::VLE;
    }
    if plan.context.is_some() {
        plan.command |= data::CC;
    }
    Ok(plan)
}

/// Where the IP header of a packet lies, and how long it is if the transport header is at `start`.
struct Network {
    mac_length: u8,
    ip_length: u16,
    ipv4: bool,
}

impl Network {
    /// `None` when it is no IP header, or lies where a context cannot say so.
    fn of(packet: &Packet, start: u16) -> Option<Self> {
        let bytes = packet.bytes();
        let mut mac_length = ETHERNET;
        let ipv4 = loop {
            match bytes.get(mac_length - 2..mac_length)? {
                [0x08, 0x00] => break true,
                [0x86, 0xdd] => break false,
                // A tag, and at most one more.
                [0x81, 0x00] | [0x88, 0xa8] if mac_length < ETHERNET + 2 * TAG => mac_length += TAG,
                _ => return None,
            }
        };
        let ip_length = start.checked_sub(u16::try_from(mac_length).ok()?)?;
        let shortest = if ipv4 { IPV4 } else { IPV6 };
        let mac_length = u8::try_from(mac_length).ok()?;
        (shortest..=Context::LONGEST_IP).contains(&ip_length).then_some(Self { mac_length, ip_length, ipv4 })
    }

    fn context(&self) -> Context {
        let Self { mac_length, ip_length, ipv4 } = *self;
        Context { mac_length, ip_length, ipv4, ..Context::default() }
    }
}

/// Has the checksum of the transport header completed: by the card where it knows the protocol by the place of the
/// field, else here.
fn complete(packet: &mut Packet, start: u16, offset: u16, offloads: Offloads) -> Result<Plan, DropReason> {
    let payload = packet.len();
    let tcp = match offset {
        16 => Some(true),
        6 => Some(false),
        _ => None,
    };
    // The card knows no tunnels.
    let plain = packet.metadata().inner.is_none();
    let inside = usize::from(start) + usize::from(offset) + 2 <= payload;
    if let Some(tcp) = tcp.filter(|_| plain && inside && offloads.contains(Offloads::TX_CHECKSUM))
        && let Some(network) = Network::of(packet, start)
    {
        let context = Context { tcp, ..network.context() };
        return Ok(Plan { context: Some(context), command: data::TXSM, payload });
    }
    if checksum::complete(packet, start, offset) {
        Ok(Plan { payload, ..Plan::default() })
    } else {
        Err(DropReason::BadHeader)
    }
}

/// Has the packet cut into segments (7.2.4). The headers have to lie in the first buffer.
fn cut(
    packet: &mut Packet,
    segmentation: Segmentation,
    start: u16,
    offset: u16,
    setup: TransmitSetup,
) -> Result<Plan, DropReason> {
    let Segmentation { kind, size, ecn, .. } = segmentation;
    let needed = match kind {
        SegmentationKind::TcpV4 => Offloads::TSO4,
        SegmentationKind::TcpV6 => Offloads::TSO6,
        SegmentationKind::Udp => Offloads::USO,
    };
    let ecn = if ecn { Offloads::TSO_ECN } else { Offloads::empty() };
    if !setup.offloads.contains(needed | ecn) || packet.metadata().inner.is_some() {
        return Err(DropReason::NoOffload);
    }
    let length = packet.len();
    let transport_length = transport_length(packet, kind, start, offset).ok_or(DropReason::BadHeader)?;
    let headers = usize::from(start) + usize::from(transport_length);
    let payload = length.checked_sub(headers).filter(|payload| *payload > 0).ok_or(DropReason::BadHeader)?;
    let network = Network::of(packet, start).ok_or(DropReason::BadHeader)?;
    let tag = if packet.metadata().vlan.is_some() { TAG } else { 0 };
    if size == 0 || headers + tag >= MOST_HEADERS {
        return Err(DropReason::BadHeader);
    }
    if headers + usize::from(size) > setup.longest || payload > MOST_PAYLOAD {
        return Err(DropReason::TooLong);
    }
    let tcp = kind != SegmentationKind::Udp;
    let fits = match kind {
        SegmentationKind::TcpV4 => network.ipv4,
        SegmentationKind::TcpV6 => !network.ipv4,
        SegmentationKind::Udp => true,
    };
    if !fits || !prepare_headers(packet, &network, start, offset) {
        return Err(DropReason::BadHeader);
    }
    let context = Context { tcp, transport_length, segment: size, ..network.context() };
    let ip_checksum = if network.ipv4 { data::IXSM } else { 0 };
    Ok(Plan { context: Some(context), command: data::TSE | data::TXSM | ip_checksum, payload })
}

/// Length of the transport header at `start`, whose checksum field is `offset` bytes into it.
fn transport_length(packet: &Packet, kind: SegmentationKind, start: u16, offset: u16) -> Option<u8> {
    match kind {
        SegmentationKind::Udp => (offset == 6).then_some(8),
        SegmentationKind::TcpV4 | SegmentationKind::TcpV6 => {
            let data_offset = packet.bytes().get(usize::from(start) + 12)?;
            let length = (data_offset >> 4) * 4;
            (offset == 16 && length >= 20).then_some(length)
        }
    }
}

/// Makes the headers what the card builds those of each segment from (7.2.4.5): no length and no checksum in the IP
/// header, and in the transport header the sum of a pseudo header without length. `false`, with nothing changed, when
/// they are no such headers or lie outside the first buffer.
fn prepare_headers(packet: &mut Packet, network: &Network, start: u16, offset: u16) -> bool {
    let Ok(length) = u32::try_from(packet.len() - usize::from(start)) else { return false };
    let network_start = usize::from(network.mac_length);
    let Some((ip, transport)) = packet
        .bytes_mut()
        .get_mut(network_start..)
        .and_then(|bytes| bytes.split_at_mut_checked(network.ip_length.into()))
    else {
        return false;
    };
    let Some(field) = transport.get_mut(offset.into()..).and_then(|rest| rest.first_chunk_mut::<2>()) else {
        return false;
    };
    match (network.ipv4, ip) {
        (true, [version, _, high, low, _, _, _, _, _, _, sum_high, sum_low, ..])
            if *version >> 4 == 4 && u16::from(*version & 0xf) * 4 == network.ip_length =>
        {
            for byte in [high, low, sum_high, sum_low] {
                *byte = 0;
            }
        }
        (false, [version, _, _, _, high, low, ..]) if *version >> 4 == 6 => {
            for byte in [high, low] {
                *byte = 0;
            }
        }
        _ => return false,
    }
    *field = checksum::subtract(u16::from_be_bytes(*field), length).to_be_bytes();
    true
}

/// The contexts that the card keeps for a queue (7.2.3.2.3).
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Contexts {
    known: [Option<Context>; 2],
    /// The one to be replaced next.
    oldest: u8,
}

impl Contexts {
    /// The number of `context`, and whether the card has to be told first.
    pub(super) fn place(&mut self, context: Context) -> (u8, bool) {
        for (place, index) in self.known.iter().zip(0..) {
            if *place == Some(context) {
                self.oldest = index ^ 1;
                return (index, false);
            }
        }
        let index = self.oldest;
        if let Some(place) = self.known.get_mut(usize::from(index)) {
            *place = Some(context);
        }
        self.oldest = index ^ 1;
        (index, true)
    }
}
