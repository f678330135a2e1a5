//! VXLAN (RFC 7348) and Geneve (RFC 8926) behind a UDP header.

use super::{Fragment, Headers, TransportKind};

/// UDP destination port of VXLAN (RFC 7348, section 8).
pub const VXLAN_PORT: u16 = 4789;
/// UDP destination port of Geneve (RFC 8926, section 3.3).
pub const GENEVE_PORT: u16 = 6081;

/// Protocol type of a Geneve packet that holds an Ethernet frame.
const ETHERNET_BRIDGED: u16 = 0x6558;

/// Which tunnel it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TunnelKind {
    /// VXLAN.
    Vxlan,
    /// Geneve.
    Geneve,
}

/// What a tunnel header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// Which tunnel it is.
    pub kind: TunnelKind,
    /// Virtual network identifier, 24 bits.
    pub vni: u32,
    /// Where the inner frame starts, in bytes from the outer frame's first.
    pub inner_at: usize,
    /// Geneve: a control message, no traffic of the network.
    pub control: bool,
    /// Geneve: some option has to be understood by who ends the tunnel. Nothing here understands any.
    pub critical: bool,
    /// Bytes of Geneve options in front of the inner frame; 0 for VXLAN.
    pub options: u8,
}

/// What is wrong with a tunnel header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadTunnel {
    /// The UDP datagram ends inside the tunnel header.
    #[error("the tunnel header is cut short")]
    Truncated,
    /// The tunnel header goes on behind the bytes that were given to look at.
    #[error("the tunnel header goes on behind what was looked at")]
    BeyondView,
    /// A datagram in fragments, whose tunnel header is not all there is.
    #[error("the tunnel's datagram is in fragments")]
    Fragmented,
    /// VXLAN without a valid network identifier.
    #[error("the VXLAN header has no valid network identifier")]
    NoIdentifier,
    /// A Geneve version that is not 0.
    #[error("the Geneve version is unknown")]
    BadVersion,
    /// Geneve that holds no Ethernet frame.
    #[error("the Geneve packet holds no Ethernet frame")]
    NotEthernet,
}

/// The tunnel header of a frame whose bytes from the first on are `view` and whose headers are `headers`: `None` when it
/// is no datagram to a tunnel's UDP port.
///
/// # Errors
/// When it is one but makes no sense.
#[inline]
pub fn tunnel(view: &[u8], headers: &Headers) -> Result<Option<Tunnel>, BadTunnel> {
    if headers.transport != TransportKind::Udp || headers.malformed.is_some() {
        return Ok(None);
    }
    let udp: Option<&[u8; 8]> = view.get(usize::from(headers.transport_at)..).and_then(<[u8]>::first_chunk);
    let Some(&[_, _, port_high, port_low, len_high, len_low, _, _]) = udp else {
        return Ok(None);
    };
    let kind = match u16::from_be_bytes([port_high, port_low]) {
        VXLAN_PORT => TunnelKind::Vxlan,
        GENEVE_PORT => TunnelKind::Geneve,
        _ => return Ok(None),
    };
    if headers.fragment != Fragment::Whole {
        return Err(BadTunnel::Fragmented);
    }
    let at = usize::from(headers.payload_at);
    let room = usize::from(u16::from_be_bytes([len_high, len_low])).saturating_sub(8);
    if room < 8 {
        return Err(BadTunnel::Truncated);
    }
    let header: &[u8; 8] = view.get(at..).and_then(<[u8]>::first_chunk).ok_or(BadTunnel::BeyondView)?;
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    match kind {
        TunnelKind::Vxlan if header[0] & 0x08 == 0 => Err(BadTunnel::NoIdentifier),
        TunnelKind::Vxlan => {
            Ok(Some(Tunnel { kind, vni, inner_at: at + 8, control: false, critical: false, options: 0 }))
        }
        TunnelKind::Geneve => {
            if header[0] >> 6 != 0 {
                return Err(BadTunnel::BadVersion);
            }
            if u16::from_be_bytes([header[2], header[3]]) != ETHERNET_BRIDGED {
                return Err(BadTunnel::NotEthernet);
            }
            let options = (header[0] & 0x3f) * 4;
            let len = 8 + usize::from(options);
            if len > room {
                return Err(BadTunnel::Truncated);
            }
            let (control, critical) = (header[1] & 0x80 != 0, header[1] & 0x40 != 0);
            Ok(Some(Tunnel { kind, vni, inner_at: at + len, control, critical, options }))
        }
    }
}
