//! The pass over Ethernet, network and transport headers.

use super::{
    ETHERNET, Fragment, Headers, MOST_EXTENSIONS, MOST_TAGS, Malformed, NetworkKind, TransportKind, ether_type,
    protocol,
};

/// Bytes of an ARP packet for IPv4 on Ethernet.
const ARP: usize = 28;
/// Bytes of an IPv4 header without options.
const IPV4: usize = 20;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;
/// Longest IP packet once its fragments are together.
const MOST_TOTAL: usize = 65_535;

/// Numbers of IPv6 extension headers (IANA, "IPv6 Extension Header Types").
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HOST_IDENTITY: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// Reads the headers of a frame of `len` bytes that starts with the bytes `view`.
///
/// `view` may be a part of the frame (the first 128 bytes of a VM's); headers that go on behind it make the frame
/// [`Malformed::BeyondView`].
#[must_use]
#[inline]
pub fn parse(view: &[u8], len: usize) -> Headers {
    let mut headers = Headers::default();
    parse_into(&mut headers, view, len);
    headers
}

/// As [`parse`], into headers that are there already.
#[inline(always)]
pub(crate) fn parse_into(headers: &mut Headers, view: &[u8], len: usize) {
    match plain(view, len) {
        Some(plain) => *headers = plain,
        None => *headers = any(view, len),
    }
}

/// The headers of the most common frames, TCP and UDP in whole IPv4 packets without options or tags: all at fixed places. `None` for any
/// other frame, and for all with a fault: [`any`] knows these, and says the same of those that this one knows.
#[inline(always)]
fn plain(view: &[u8], len: usize) -> Option<Headers> {
    const TRANSPORT: usize = ETHERNET + IPV4;
    let first: &[u8; TRANSPORT + 8] = view.first_chunk()?;
    let is_plain = first[12..15] == [8, 0, 0x45] && be16(first[20], first[21]) & 0x3fff == 0;
    let end = ETHERNET + usize::from(be16(first[16], first[17]));
    if !is_plain || end > len {
        return None;
    }
    let (transport, header_len) = match first[23] {
        protocol::UDP => {
            let datagram = usize::from(be16(first[38], first[39]));
            if datagram < 8 || TRANSPORT + datagram > end {
                return None;
            }
            (TransportKind::Udp, 8)
        }
        protocol::TCP => {
            let tcp: &[u8; TRANSPORT + 20] = view.first_chunk()?;
            let header_len = tcp[46] >> 4 << 2;
            if header_len < 20 || TRANSPORT + usize::from(header_len) > end {
                return None;
            }
            (TransportKind::Tcp, header_len)
        }
        _ => return None,
    };
    const { assert!(TRANSPORT == 34 && ETHERNET == 14) };
    Some(Headers {
        ether_type: ether_type::IPV4,
        vlan: [0; MOST_TAGS],
        tags: 0,
        network: NetworkKind::Ipv4,
        fragment: Fragment::Whole,
        transport,
        protocol: first[23],
        ttl: first[22],
        network_at: 14,
        transport_at: 34,
        payload_at: 34 + u16::from(header_len),
        // Below 14 + 65,536.
        end: 14 + u32::from(be16(first[16], first[17])),
        malformed: None,
    })
}

/// The headers of any frame.
#[inline(never)]
pub(super) fn any(view: &[u8], len: usize) -> Headers {
    let mut headers = Headers::default();
    let view = View { bytes: view, end: len };
    if let Err(reason) = ethernet(&mut headers, view) {
        headers.malformed = Some(reason);
    }
    headers
}

/// The bytes at hand, and where what is being read ends.
#[derive(Clone, Copy)]
struct View<'a> {
    bytes: &'a [u8],
    end: usize,
}

impl<'a> View<'a> {
    /// The `N` bytes at `offset`.
    #[inline(always)]
    fn at<const N: usize>(self, offset: usize) -> Result<&'a [u8; N], Malformed> {
        if offset + N > self.end {
            return Err(Malformed::Truncated);
        }
        self.bytes.get(offset..).and_then(<[u8]>::first_chunk).ok_or(Malformed::BeyondView)
    }
}

/// An offset as it is kept. Offsets stay small: a view that is longer than this is cut short by the bounds on tags, extension headers
/// and their lengths.
#[inline(always)]
fn offset(at: usize) -> Result<u16, Malformed> {
    u16::try_from(at).map_err(|_| Malformed::BeyondView)
}

const fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[inline]
fn ethernet(headers: &mut Headers, view: View<'_>) -> Result<(), Malformed> {
    headers.end = u32::try_from(view.end).unwrap_or(u32::MAX);
    let first: &[u8; ETHERNET] = view.at(0).map_err(|_| Malformed::Runt)?;
    let mut at = ETHERNET;
    let mut kind = be16(first[12], first[13]);
    while let ether_type::VLAN | ether_type::PROVIDER_VLAN | ether_type::OLD_PROVIDER_VLAN = kind {
        headers.ether_type = kind;
        let Some(tag) = headers.vlan.get_mut(usize::from(headers.tags)) else {
            return Err(Malformed::TooManyTags);
        };
        let &[a, b, c, d] = view.at(at)?;
        *tag = be16(a, b);
        headers.tags += 1;
        kind = be16(c, d);
        at += 4;
    }
    const { assert!(MOST_TAGS < 255) };
    headers.ether_type = kind;
    headers.network_at = offset(at)?;
    headers.transport_at = headers.network_at;
    headers.payload_at = headers.network_at;
    match kind {
        ether_type::IPV4 => ipv4(headers, view, at),
        ether_type::IPV6 => ipv6(headers, view, at),
        ether_type::ARP => arp(headers, view, at),
        _ => Ok(()),
    }
}

/// RFC 826; hardware Ethernet, protocol IPv4.
fn arp(headers: &mut Headers, view: View<'_>, at: usize) -> Result<(), Malformed> {
    let packet: &[u8; ARP] = view.at(at)?;
    if packet[..6] != [0, 1, 8, 0, 6, 4] {
        return Err(Malformed::BadArp);
    }
    headers.network = NetworkKind::Arp;
    headers.protocol = packet[7];
    headers.payload_at = offset(at + ARP)?;
    headers.transport_at = headers.payload_at;
    Ok(())
}

/// RFC 791.
#[inline]
fn ipv4(headers: &mut Headers, view: View<'_>, at: usize) -> Result<(), Malformed> {
    let ip: &[u8; IPV4] = view.at(at)?;
    if ip[0] >> 4 != 4 {
        return Err(Malformed::BadVersion);
    }
    let header_len = usize::from(ip[0] & 15) * 4;
    if header_len < IPV4 {
        return Err(Malformed::BadHeaderLength);
    }
    let total = usize::from(be16(ip[2], ip[3]));
    if total < header_len || at + total > view.end {
        return Err(Malformed::BadTotalLength);
    }
    let payload = at + header_len;
    if payload > view.bytes.len() {
        return Err(Malformed::BeyondView);
    }
    headers.network = NetworkKind::Ipv4;
    headers.ttl = ip[8];
    headers.protocol = ip[9];
    let view = end_at(headers, view, at + total);
    let fragment = be16(ip[6], ip[7]);
    let (start, more) = (usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0);
    fragment_of(headers, start, more, total - header_len)?;
    transport(headers, view, payload)
}

/// RFC 8200.
fn ipv6(headers: &mut Headers, view: View<'_>, at: usize) -> Result<(), Malformed> {
    let ip: &[u8; IPV6] = view.at(at)?;
    if ip[0] >> 4 != 6 {
        return Err(Malformed::BadVersion);
    }
    let end = at + IPV6 + usize::from(be16(ip[4], ip[5]));
    if end > view.end {
        return Err(Malformed::BadTotalLength);
    }
    headers.network = NetworkKind::Ipv6;
    headers.ttl = ip[7];
    let view = end_at(headers, view, end);
    let mut next = ip[6];
    let mut at = at + IPV6;
    let mut fragmented = false;
    for count in 0.. {
        headers.protocol = next;
        let len = match next {
            extension::HOP_BY_HOP if count > 0 => return Err(Malformed::BadExtension),
            extension::FRAGMENT if fragmented => return Err(Malformed::BadExtension),
            extension::FRAGMENT => 8,
            extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::DESTINATION
            | extension::MOBILITY
            | extension::HOST_IDENTITY
            | extension::SHIM6
            | extension::AUTHENTICATION => {
                let &[_, units] = within(headers, view, at)?;
                match next {
                    // RFC 4302: in words of four bytes, less two; there are at least three.
                    extension::AUTHENTICATION if units == 0 => return Err(Malformed::BadExtension),
                    extension::AUTHENTICATION => (usize::from(units) + 2) * 4,
                    _ => (usize::from(units) + 1) * 8,
                }
            }
            _ => return transport(headers, view, at),
        };
        if count == MOST_EXTENSIONS {
            return Err(Malformed::TooManyExtensions);
        }
        if next == extension::FRAGMENT {
            let &[after, _, high, low, ..] = within::<8>(headers, view, at)?;
            fragmented = true;
            next = after;
            at += len;
            let field = be16(high, low);
            headers.protocol = next;
            fragment_of(headers, usize::from(field & 0xfff8), field & 1 != 0, view.end - at)?;
            if headers.fragment == Fragment::Later {
                return transport(headers, view, at);
            }
        } else {
            let &[after] = within(headers, view, at)?;
            next = after;
            at += len;
            if at > view.end {
                return Err(cut(headers));
            }
            if at > view.bytes.len() {
                return Err(Malformed::BeyondView);
            }
        }
    }
    Err(Malformed::TooManyExtensions)
}

/// The view of a packet that ends at `end`, which lies inside the view.
#[inline(always)]
fn end_at<'a>(headers: &mut Headers, view: View<'a>, end: usize) -> View<'a> {
    headers.end = u32::try_from(end).unwrap_or(u32::MAX);
    View { end, ..view }
}

/// What it means that an IP packet ends inside a header: of a first fragment, that it hides the rest.
#[inline]
fn cut(headers: &Headers) -> Malformed {
    if headers.fragment == Fragment::First { Malformed::TinyFragment } else { Malformed::Truncated }
}

/// The `N` bytes at `at` of the IP packet.
#[inline(always)]
fn within<'a, const N: usize>(headers: &Headers, view: View<'a>, at: usize) -> Result<&'a [u8; N], Malformed> {
    view.at(at).map_err(|reason| if reason == Malformed::Truncated { cut(headers) } else { reason })
}

/// Takes note of a fragment of `len` bytes that starts `start` bytes into the packet's payload.
#[inline(always)]
fn fragment_of(headers: &mut Headers, start: usize, more: bool, len: usize) -> Result<(), Malformed> {
    if start == 0 && !more {
        return Ok(());
    }
    headers.fragment = if start == 0 { Fragment::First } else { Fragment::Later };
    if start + len > MOST_TOTAL || len == 0 || (more && !len.is_multiple_of(8)) {
        return Err(Malformed::BadFragment);
    }
    // A fragment that starts inside the transport header would overwrite what rules were applied to.
    let least = if headers.protocol == protocol::TCP { 20 } else { 8 };
    if start > 0 && start < least { Err(Malformed::TinyFragment) } else { Ok(()) }
}

#[inline]
fn transport(headers: &mut Headers, view: View<'_>, at: usize) -> Result<(), Malformed> {
    headers.transport_at = offset(at)?;
    headers.payload_at = headers.transport_at;
    if headers.fragment == Fragment::Later {
        return Ok(());
    }
    let header_len = match (headers.protocol, headers.network) {
        (protocol::TCP, _) => {
            let tcp: &[u8; 20] = within(headers, view, at)?;
            let len = usize::from(tcp[12] >> 4) * 4;
            if len < 20 {
                return Err(Malformed::BadTcpLength);
            }
            if at + len > view.end {
                let cut = headers.fragment == Fragment::First;
                return Err(if cut { Malformed::TinyFragment } else { Malformed::BadTcpLength });
            }
            headers.transport = TransportKind::Tcp;
            len
        }
        (protocol::UDP, _) => {
            let udp: &[u8; 8] = within(headers, view, at)?;
            let len = usize::from(be16(udp[4], udp[5]));
            // The length of a first fragment counts the fragments that follow.
            if len < 8 || (headers.fragment == Fragment::Whole && at + len > view.end) {
                return Err(Malformed::BadUdpLength);
            }
            headers.transport = TransportKind::Udp;
            8
        }
        (protocol::SCTP, _) => {
            within::<12>(headers, view, at)?;
            headers.transport = TransportKind::Sctp;
            12
        }
        (protocol::ICMP, NetworkKind::Ipv4) => {
            within::<8>(headers, view, at)?;
            headers.transport = TransportKind::Icmp;
            8
        }
        (protocol::ICMPV6, NetworkKind::Ipv6) => {
            within::<8>(headers, view, at)?;
            headers.transport = TransportKind::Icmpv6;
            8
        }
        _ => 0,
    };
    headers.payload_at = offset(at + header_len)?;
    Ok(())
}
