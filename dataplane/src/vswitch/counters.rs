//! What the thread counts of its own work.

use std::collections::BTreeMap;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What the thread counts of its own work.
        #[derive(Clone, Copy, Default, Debug)]
        pub(super) struct Counters {
            $($(#[$doc])* pub(super) $name: u64,)*
        }

        impl Counters {
            /// Names and numbers.
            pub(super) fn named(&self) -> BTreeMap<String, u64> {
                [$((stringify!($name).to_owned(), self.$name)),*].into()
            }
        }
    };
}

counters! {
    /// Packets that came up.
    upcalls,
    /// Those that somebody had decided on meanwhile.
    known,
    /// Those that were decided on.
    decided,
    /// Flows that were made, those of answers included.
    inserted,
    /// Flows that had no room.
    without_flow,
    /// Flows that made room for others.
    evicted,
    /// Flows that nobody used.
    expired,
    /// Questions for addresses that were answered, and pings.
    answered,
    /// Senders that were told that their packet did not get there.
    told,
    /// Packets that were too long and went in fragments.
    fragmented,
    /// Questions for addresses.
    asked,
    /// Packets that waited for an address or a change.
    waited,
    /// Packets that waited in vain.
    waited_in_vain,
    /// Answers and questions for which there was no memory.
    no_buffer,
    /// Packets on underlay ports that were not for a tunnel.
    underlay,
}
