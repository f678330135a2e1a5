//! Why the switch dropped a packet.

use crate::overlay;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal: $sentence:literal;)*) => {
        /// Why the switch dropped a packet. The number is what an action carries, and the place of the counter.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* #[doc = $sentence] $name,)*
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The counter's name: `rate_limited` appears as `switch_drop_rate_limited`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What happened, as a sentence without its full stop.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

reasons! {
    Denied = "denied": "a rule denies it";
    Spoofed = "spoofed": "its sender's address is not the port's";
    NoRoute = "no_route": "nobody knows where its destination is";
    Isolated = "isolated": "its network has no such port";
    Filtered = "filtered": "it is for nobody, by its address";
    BroadcastLimited = "broadcast_limited": "broadcasts exceed the port's limit";
    SliceFull = "slice_full": "its slice has as many flows as it may";
    TableFull = "table_full": "the flow table has no room";
    Malformed = "malformed": "its headers make no sense";
    RateLimited = "rate_limited": "a rate limit is used up";
    Expired = "expired": "its time to live ran out";
    BadTunnel = "bad_tunnel": "the tunnel header makes no sense";
    UnknownTunnel = "unknown_tunnel": "no network here has that tunnel and peer";
    TunnelOption = "tunnel_option": "its tunnel header asks for what is not known here";
    BadChecksum = "bad_checksum": "the checksum of its tunnel is wrong or missing";
    Uncut = "uncut": "it is several datagrams of a tunnel that nobody cut apart";
    Congestion = "congestion": "the network between hosts is congested, and it cannot signal that";
    BadRequest = "bad_request": "the offloads that it asks for contradict its bytes";
    TooLong = "too_long": "it is longer than the path carries";
    NoHeadroom = "no_headroom": "there is no room for a header in front of it";
    CannotRewrite = "cannot_rewrite": "it lacks the header that was to be rewritten";
    NoPort = "no_port": "the port it was for is gone";
    OutputFull = "output_full": "the queue of the port it was for is full";
    NoBuffer = "no_buffer": "there was no buffer for a copy";
    MemoryLost = "memory_lost": "the guest memory that it lay in is lost";
    TooManyCopies = "too_many_copies": "one batch asked for too many copies";
    UpcallQuota = "upcall_quota": "its port has too many packets with control";
    UpcallFull = "upcall_full": "control does not keep up";
    HoldFull = "hold_full": "too many packets wait for their flow";
    HoldTimeout = "hold_timeout": "it waited for its flow for too long";
    NoControl = "no_control": "control has ended";
    CoprocessorFull = "coprocessor_full": "the coprocessor does not keep up";
    Refused = "refused": "control did not want it";
}

impl Reason {
    /// The reason that an action carries as `code`; [`Reason::Denied`] for a number that is none.
    #[inline]
    #[must_use]
    pub fn of_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(Self::Denied)
    }

    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();
}

impl From<overlay::Reason> for Reason {
    fn from(reason: overlay::Reason) -> Self {
        match reason {
            overlay::Reason::TooBig => Self::TooLong,
            overlay::Reason::NoHeadroom => Self::NoHeadroom,
            overlay::Reason::BadRequest => Self::BadRequest,
            overlay::Reason::Runt => Self::Malformed,
            overlay::Reason::BadTunnel => Self::BadTunnel,
            overlay::Reason::UnknownTunnel => Self::UnknownTunnel,
            overlay::Reason::ControlMessage | overlay::Reason::CriticalOption => Self::TunnelOption,
            overlay::Reason::BadChecksum => Self::BadChecksum,
            overlay::Reason::Uncut => Self::Uncut,
            overlay::Reason::Congestion => Self::Congestion,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_number_of_its_reason() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
            assert_eq!(Reason::of_code(*reason as u8), *reason);
        }
        assert_eq!(Reason::of_code(u8::MAX), Reason::Denied);
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::COUNT);
    }
}
