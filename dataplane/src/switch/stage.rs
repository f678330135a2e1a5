//! The elements of the pipeline by name, in their order.

use std::fmt;

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// An element of the pipeline.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Stage {
            $($(#[$doc])* $name,)*
        }

        impl Stage {
            /// All elements, in the order in which packets pass them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name that users know.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

stages! {
    /// Takes the headers of tunnels off what came from other hosts.
    Decapsulate = "decapsulate";
    /// Reads headers and makes keys.
    Parse = "parse";
    /// Finds the flow and its action.
    LookUp = "look up";
    /// Checks that the decision can be carried out.
    Policy = "policy";
    /// Applies rate limits.
    Meter = "meter";
    /// Hands packets to coprocessors.
    Coprocessor = "coprocessor";
    /// Copies packets to mirror ports.
    Mirror = "mirror";
    /// Changes addresses, tags, time to live.
    Rewrite = "rewrite";
    /// Puts the headers of tunnels in front.
    Encapsulate = "encapsulate";
    /// Copies packets for several destinations.
    Replicate = "replicate";
    /// Notes how long packets took.
    Sample = "sample";
    /// Puts packets on the queue of their destination, sends them up, or lets them wait.
    Queue = "queue";
}

impl Stage {
    /// Number of elements.
    pub const COUNT: usize = Self::ALL.len();
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
