//! Why a packet goes neither into nor out of a tunnel.

use std::fmt;

/// Why a packet goes neither into nor out of a tunnel. It is to be dropped and counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// It does not fit the network between hosts. Its sender can be told: [`super::mtu::too_big`].
    TooBig,
    /// There is no room in front of the frame for the outer headers.
    NoHeadroom,
    /// The offloads that the packet asks for contradict its bytes.
    BadRequest,
    /// It has no whole Ethernet header.
    Runt,
    /// The tunnel header makes no sense.
    BadTunnel,
    /// No tunnel from there ends here.
    UnknownTunnel,
    /// A control message (Geneve), of which none is known.
    ControlMessage,
    /// It has an option (Geneve) that must be understood, and is not.
    CriticalOption,
    /// The checksum of the outer headers is wrong, or is missing where there has to be one.
    BadChecksum,
    /// It is several datagrams that nobody cut apart.
    Uncut,
    /// The network between hosts marked congestion that the inner packet has no way to signal (RFC 6040, section 4.2).
    Congestion,
}

impl Reason {
    /// All reasons, in the order of [`Reason::number`].
    pub const ALL: [Self; 11] = [
        Self::TooBig,
        Self::NoHeadroom,
        Self::BadRequest,
        Self::Runt,
        Self::BadTunnel,
        Self::UnknownTunnel,
        Self::ControlMessage,
        Self::CriticalOption,
        Self::BadChecksum,
        Self::Uncut,
        Self::Congestion,
    ];

    /// Its place in [`Reason::ALL`], for arrays of counters.
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }

    /// The name that counters have.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooBig => "tunnel_too_big",
            Self::NoHeadroom => "tunnel_no_headroom",
            Self::BadRequest => "tunnel_bad_request",
            Self::Runt => "tunnel_runt",
            Self::BadTunnel => "tunnel_bad_header",
            Self::UnknownTunnel => "tunnel_unknown",
            Self::ControlMessage => "tunnel_control_message",
            Self::CriticalOption => "tunnel_critical_option",
            Self::BadChecksum => "tunnel_bad_checksum",
            Self::Uncut => "tunnel_uncut",
            Self::Congestion => "tunnel_congestion",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
