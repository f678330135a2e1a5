//! What can be chosen for a card, whatever its chip.

use std::time::Duration;

use hugemem::IovaRange;

/// How time passes for a card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Time {
    /// As it does.
    #[default]
    Real,
    /// This much with each poll and not otherwise, so that every run of a test is the same.
    PerPoll(Duration),
}

/// What can be chosen for a card, whatever its chip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Name in messages.
    pub name: String,
    /// How time passes.
    pub time: Time,
    /// IOVAs that the IOMMU lets through.
    pub iova_ranges: Vec<IovaRange>,
    /// Every access to memory travels as if by message, as with a client that shares none.
    pub message_dma: bool,
}

impl Options {
    /// The usual ones, with a name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "card".to_owned(),
            time: Time::Real,
            iova_ranges: vec![
                IovaRange { first: 0, last: 0xfedf_ffff },
                IovaRange { first: 0xfef0_0000, last: (1 << 39) - 1 },
            ],
            message_dma: false,
        }
    }
}
