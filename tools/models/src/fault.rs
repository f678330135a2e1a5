//! What the faults of all models have in common: each has a name.

/// Declares the ways in which a model can lie: an enum whose variants parse from and print as their names.
macro_rules! named_faults {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)*) => {
        /// One way in which a device breaks the rules. Parses from and prints as its name.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Fault {
            /// Every fault there is.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl std::fmt::Display for Fault {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for Fault {
            type Err = $crate::UnknownFault;

            fn from_str(name: &str) -> Result<Self, $crate::UnknownFault> {
                let found = Self::ALL.iter().find(|fault| fault.name() == name);
                let unknown = || {
                    let known: Vec<&str> = Self::ALL.iter().map(|fault| fault.name()).collect();
                    $crate::UnknownFault { name: name.to_owned(), known: known.join(", ") }
                };
                found.copied().ok_or_else(unknown)
            }
        }
    };
}
pub(crate) use named_faults;

/// The text names no fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{name}` is no fault of this card; these are: {known}")]
pub struct UnknownFault {
    /// The text.
    pub name: String,
    /// The names of all faults, with commas between them.
    pub known: String,
}

/// A device that answers at random.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chaos {
    /// Where the random numbers start.
    pub seed: u64,
    /// How many of 256 register reads are answered at random.
    pub registers: u8,
    /// How many of 256 answers in ring memory are random.
    pub rings: u8,
}
