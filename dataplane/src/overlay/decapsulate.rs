//! Out of the tunnel.

use std::fmt;

use hugemem::{Checksum, Packet};

use super::{Addresses, Reason, TunnelKind, ecn};
use crate::checksum::{fold, pseudo_header, sum, sum_packet};
use crate::headers::{ETHERNET, Headers, NetworkKind, Tunnel, protocol, tunnel};

/// A tunnel that ends here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Termination {
    /// Its protocol.
    pub kind: TunnelKind,
    /// Virtual network identifier, 24 bits.
    pub vni: u32,
    /// Both ends.
    pub addresses: Addresses,
    /// Datagrams over IPv6 may come without a UDP checksum (RFC 6935, section 5). Over IPv4 they always may.
    pub zero_checksum: bool,
    /// What its frames arrive as.
    pub arrival: Arrival,
}

/// What a frame out of a tunnel arrives as. The numbers are control's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// The network inside.
    pub network: u32,
    /// The tunnel.
    pub tunnel: u32,
}

/// All tunnels that end here. It never changes: control makes another and hands that over.
#[derive(Default)]
pub struct Terminations(Box<[(Key, End)]>);

/// What a datagram has to say to be of a tunnel. In the order of memory, because nobody reads it but to compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    /// VNI, kind, and whether over IPv4.
    which: u32,
    remote: [u8; 16],
    local: [u8; 16],
}

#[derive(Clone, Copy, Debug)]
struct End {
    zero_checksum: bool,
    arrival: Arrival,
}

impl Key {
    fn new(kind: TunnelKind, vni: u32, ipv4: bool, remote: &[u8], local: &[u8]) -> Self {
        let kind = match kind {
            TunnelKind::Vxlan => 0,
            TunnelKind::Geneve => 1 << 24,
        };
        let which = (vni & 0xff_ffff) | kind | (u32::from(ipv4) << 25);
        let wide = |address: &[u8]| {
            let mut all = [0; 16];
            for (to, from) in all.iter_mut().zip(address) {
                *to = *from;
            }
            all
        };
        Self { which, remote: wide(remote), local: wide(local) }
    }
}

impl Terminations {
    /// All of these. When two are for the same datagrams, the first one counts.
    #[must_use]
    pub fn new(tunnels: impl IntoIterator<Item = Termination>) -> Self {
        let entry = |tunnel: Termination| {
            let Termination { kind, vni, addresses, zero_checksum, arrival } = tunnel;
            let key = match addresses {
                Addresses::V4 { local, remote } => Key::new(kind, vni, true, &remote.octets(), &local.octets()),
                Addresses::V6 { local, remote } => Key::new(kind, vni, false, &remote.octets(), &local.octets()),
            };
            (key, End { zero_checksum, arrival })
        };
        let mut all: Vec<(Key, End)> = tunnels.into_iter().map(entry).collect();
        // Stable, so that the first of equals stays.
        all.sort_by_key(|(key, _)| *key);
        all.dedup_by_key(|(key, _)| *key);
        Self(all.into_boxed_slice())
    }

    fn find(&self, key: &Key) -> Option<End> {
        let index = self.0.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        self.0.get(index).map(|(_, end)| *end)
    }
}

impl fmt::Debug for Terminations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminations").field("tunnels", &self.0.len()).finish()
    }
}

/// Takes the outer headers off `packet`, whose headers are `headers`, when it is of a tunnel that ends here. `None`, and nothing happens, when it is no datagram to a
/// tunnel's port at all.
///
/// Checked are the outer IPv4 and UDP checksums (unless the port did), all lengths, flags, and that such a tunnel ends here. Congestion that was met on the way is
/// noted in the inner packet. What is known about the inner frame's partial checksum and cutting stays; what was said about the outer one goes.
///
/// # Errors
/// Why it is to be dropped. It is unchanged then.
pub fn decapsulate(
    packet: &mut Packet,
    headers: &Headers,
    terminations: &Terminations,
) -> Result<Option<Arrival>, Reason> {
    let Some(tunnel) = tunnel(packet.bytes(), headers).map_err(|_| Reason::BadTunnel)? else { return Ok(None) };
    let outer = Outer::of(packet.bytes(), headers).ok_or(Reason::BadTunnel)?;
    let Tunnel { kind, vni, inner_at, .. } = tunnel;
    let end = terminations.find(&Key::new(kind, vni, outer.ipv4, outer.remote, outer.local));
    let End { zero_checksum, arrival } = end.ok_or(Reason::UnknownTunnel)?;
    if tunnel.control {
        return Err(Reason::ControlMessage);
    }
    if tunnel.critical {
        return Err(Reason::CriticalOption);
    }
    let metadata = *packet.metadata();
    if metadata.segmentation.is_some() && metadata.inner.is_none() {
        return Err(Reason::Uncut);
    }
    if outer.end < inner_at + ETHERNET {
        return Err(Reason::Runt);
    }
    outer.check(packet, zero_checksum || outer.ipv4)?;
    let class = outer.class;
    let (end, inner_start) = (outer.end, u16::try_from(inner_at).map_err(|_| Reason::BadTunnel)?);
    let inner = packet.bytes_mut().get_mut(inner_at..).ok_or(Reason::BadTunnel)?;
    if let Some(network) = ecn::network(inner) {
        let bits = ecn::combine(network.class, class)?;
        if bits != network.class & ecn::MASK {
            // What has no whole header is no packet of that protocol.
            ecn::mark(inner, network, bits);
        }
    }
    packet.truncate(end);
    if !packet.trim_front(inner_at) {
        return Err(Reason::BadTunnel);
    }
    let known = packet.metadata_mut();
    known.checksum = match metadata.checksum {
        Checksum::Partial { start, offset } if start >= inner_start => {
            Checksum::Partial { start: start - inner_start, offset }
        }
        _ => Checksum::Unknown,
    };
    if let Some(segmentation) = &mut known.segmentation {
        segmentation.header_len = segmentation.header_len.saturating_sub(inner_start);
    }
    known.inner = None;
    known.hash = None;
    known.vlan = None;
    Ok(Some(arrival))
}

/// The outer headers of a datagram to a tunnel's port.
struct Outer<'a> {
    ipv4: bool,
    remote: &'a [u8],
    local: &'a [u8],
    class: u8,
    /// Where the UDP header begins, and where its datagram ends.
    udp: usize,
    end: usize,
    /// What the UDP checksum field holds, in the order of memory.
    checksum: u16,
    /// The IPv4 header and the pseudo header sum up to this, without the length.
    header_sum: u64,
    pseudo_sum: u64,
}

impl<'a> Outer<'a> {
    fn of(bytes: &'a [u8], headers: &Headers) -> Option<Self> {
        let udp = usize::from(headers.transport_at);
        let network = bytes.get(usize::from(headers.network_at)..udp)?;
        let (ipv4, addresses, class) = match headers.network {
            NetworkKind::Ipv4 => (true, network.get(12..20)?, *network.get(1)?),
            NetworkKind::Ipv6 => {
                let [a, b] = *network.first_chunk()?;
                (false, network.get(8..40)?, (a << 4) | (b >> 4))
            }
            NetworkKind::None | NetworkKind::Arp => return None,
        };
        let [_, _, _, _, high, low, checksum @ ..] = *bytes.get(udp..)?.first_chunk::<8>()?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (remote, local) = addresses.split_at_checked(addresses.len() / 2)?;
        Some(Self {
            ipv4,
            remote,
            local,
            class,
            udp,
            end: udp + len,
            checksum: u16::from_ne_bytes(checksum),
            header_sum: if ipv4 { sum(network) } else { u16::MAX.into() },
            pseudo_sum: pseudo_header(addresses, protocol::UDP, len),
        })
    }

    /// Checks the checksums that nobody checked yet.
    fn check(&self, packet: &Packet, zero_allowed: bool) -> Result<(), Reason> {
        let verified = match packet.metadata().checksum {
            Checksum::Verified => true,
            // It never was on a wire.
            Checksum::Partial { start, .. } => usize::from(start) >= self.udp,
            Checksum::Unknown => false,
        };
        let right = if self.checksum == 0 {
            zero_allowed
        } else {
            verified || fold(self.pseudo_sum + u64::from(sum_packet(packet, self.udp, self.end))) == u16::MAX
        };
        // A sum over everything, checksum included, is all ones.
        let header = verified || fold(self.header_sum) == u16::MAX;
        if right && header { Ok(()) } else { Err(Reason::BadChecksum) }
    }
}
