//! Against spoofing: whether a packet's sender is who it says, in the frame, in the IP header, and in what ARP and neighbour discovery claim.

use std::net::{IpAddr, Ipv6Addr};

use super::config::{Mac, Protocol};
use super::topology::Attachment;
use crate::flow::FlowKey;
use crate::headers::{Headers, NetworkKind};

/// What neighbour discovery says (RFC 4861, section 4), of the types that matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Discovery {
    /// ICMPv6 type, 133 to 137.
    pub(super) kind: u8,
    /// The address that it is about; unspecified in router solicitations and advertisements.
    pub(super) target: Ipv6Addr,
    /// The sender's Ethernet address as an option says it: source's in solicitations, target's in advertisements.
    pub(super) claimed: Option<Mac>,
    /// Something in it makes no sense or is not to be seen.
    pub(super) unclear: bool,
}

/// ICMPv6 types of neighbour discovery.
const ROUTER_SOLICITATION: u8 = 133;
/// A question who has an address.
pub(super) const SOLICITATION: u8 = 135;
/// The answer.
pub(super) const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

impl Discovery {
    /// Reads a packet of neighbour discovery. `None` for any other packet.
    pub(super) fn read(key: &FlowKey, headers: &Headers, view: &[u8]) -> Option<Self> {
        let [kind, _] = key.source_port().to_be_bytes();
        let is_icmpv6 = key.network() == NetworkKind::Ipv6 && key.protocol() == Protocol::ICMPV6.0;
        if !is_icmpv6 || key.is_later_fragment() || !(ROUTER_SOLICITATION..=REDIRECT).contains(&kind) {
            return None;
        }
        let end = usize::try_from(headers.end).unwrap_or(usize::MAX).min(view.len());
        let message = view.get(usize::from(headers.transport_at)..end).unwrap_or_default();
        let mut found = Self { kind, target: Ipv6Addr::UNSPECIFIED, claimed: None, unclear: view.len() < end };
        // A packet that is longer than what can be seen might say more.
        found.unclear |= u64::from(headers.end) > view.len() as u64;
        // RFC 4861, sections 6.1.1 to 8.1: nobody outside the link can have sent it. RFC 6980: nor is it a fragment.
        found.unclear |= headers.ttl != 255 || headers.fragment != crate::headers::Fragment::Whole;
        let options_at = match kind {
            SOLICITATION | ADVERTISEMENT => {
                match message.get(8..24).and_then(<[u8]>::first_chunk::<16>) {
                    Some(target) => found.target = Ipv6Addr::from(*target),
                    None => found.unclear = true,
                }
                24
            }
            ROUTER_SOLICITATION => 8,
            // Only routers send the others.
            _ => return Some(found),
        };
        let wanted = if kind == ADVERTISEMENT { 2 } else { 1 };
        let mut options = message.get(options_at..).unwrap_or_default();
        while let [option, units, ..] = *options {
            let length = usize::from(units) * 8;
            let (Some(body), true) = (options.get(2..length), length > 0) else {
                found.unclear = true;
                break;
            };
            if option == wanted {
                match (body.first_chunk::<6>(), found.claimed) {
                    (Some(mac), None) => found.claimed = Some(Mac(*mac)),
                    _ => found.unclear = true,
                }
            }
            options = options.get(length..).unwrap_or_default();
        }
        Some(found)
    }
}

/// Why a packet is not its sender's, in words; `None` when nothing speaks against it.
pub(super) fn spoofed(attachment: &Attachment, key: &FlowKey, discovery: Option<&Discovery>) -> Option<String> {
    let mac = Mac(key.source_mac().0);
    if !attachment.config.macs.contains(&mac) {
        return Some(format!("{mac} is no Ethernet address of the port"));
    }
    let own = |address: IpAddr| attachment.owns(address);
    match key.network() {
        NetworkKind::Arp => {
            let [sender, _] = key.arp_hardware()?;
            if Mac(sender.0) != mac {
                return Some(format!("ARP says that {sender} sent it, and the frame says {mac}"));
            }
            // A probe asks before it has an address (RFC 5227, section 2.1.1).
            let address = key.source()?;
            (!own(address) && !address.is_unspecified())
                .then(|| format!("ARP claims {address}, which is not the port's"))
        }
        NetworkKind::Ipv4 | NetworkKind::Ipv6 => {
            let address = key.source()?;
            if let Some(discovery) = discovery {
                return spoofed_discovery(mac, address, discovery, &own);
            }
            let legal = own(address) || (address.is_unspecified() && may_be_unspecified(key));
            (!legal).then(|| format!("{address} is no address of the port"))
        }
        NetworkKind::None => None,
    }
}

fn spoofed_discovery(
    mac: Mac,
    address: IpAddr,
    discovery: &Discovery,
    own: &impl Fn(IpAddr) -> bool,
) -> Option<String> {
    let claims = |address: IpAddr| format!("neighbour discovery claims {address}, which is not the port's");
    if discovery.unclear {
        return Some("neighbour discovery that makes no sense".into());
    }
    if discovery.claimed.is_some_and(|claimed| claimed != mac) {
        return Some(format!("neighbour discovery claims another Ethernet address than {mac}"));
    }
    let target = IpAddr::V6(discovery.target);
    match discovery.kind {
        ROUTER_SOLICITATION if own(address) || address.is_unspecified() => None,
        // Who asks without an address asks whether it may have this one (RFC 4862, section 5.4.2).
        SOLICITATION if address.is_unspecified() => (!own(target)).then(|| claims(target)),
        SOLICITATION if own(address) => None,
        ADVERTISEMENT if !own(address) => Some(claims(address)),
        ADVERTISEMENT => (!own(target)).then(|| claims(target)),
        ROUTER_SOLICITATION | SOLICITATION => Some(claims(address)),
        _ => Some("only routers say that".into()),
    }
}

/// Whether a packet may come from nobody: DHCP's (RFC 2131, section 4.1), IGMP's, and multicast listeners' (RFC 3590).
fn may_be_unspecified(key: &FlowKey) -> bool {
    match key.network() {
        NetworkKind::Ipv4 if key.protocol() == Protocol::UDP.0 => {
            !key.is_later_fragment() && (key.source_port(), key.destination_port()) == (68, 67)
        }
        NetworkKind::Ipv4 => key.protocol() == 2,
        NetworkKind::Ipv6 if key.protocol() == Protocol::ICMPV6.0 && !key.is_later_fragment() => {
            let [kind, _] = key.source_port().to_be_bytes();
            matches!(kind, 131 | 132 | 143)
        }
        _ => false,
    }
}
