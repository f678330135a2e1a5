//! What is done to the packets of a flow.

use drivers::nic::MacAddress;

/// Where the packets of a flow go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Nowhere, for a reason that whoever decides has numbered.
    Drop(u8),
    /// To the port in this slot.
    Port(u16),
    /// Into the tunnel of this template.
    Tunnel(u16),
    /// To each member of this set.
    Replicate(u16),
    /// To control, each of them.
    Up,
    /// To control, which answers itself (ARP, path MTU).
    Local,
}

/// What happens to VLAN tags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum VlanRewrite {
    /// Nothing.
    #[default]
    Keep,
    /// A tag with this tag control information is put in front.
    Push(u16),
    /// The outer tag is taken away.
    Pop,
    /// The outer tag gets this tag control information.
    Set(u16),
}

/// What is changed in the packets of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rewrite {
    /// New source MAC address.
    pub source_mac: Option<MacAddress>,
    /// New destination MAC address.
    pub destination_mac: Option<MacAddress>,
    /// What happens to VLAN tags.
    pub vlan: VlanRewrite,
    /// One hop is counted: the packet is routed.
    pub decrement_ttl: bool,
    /// Number of an entry in the table of address translations.
    pub translation: Option<u32>,
}

/// What is done to the packets of a flow. Fits into half a cache line of a flow's entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Action {
    /// Where they go.
    pub output: Output,
    /// What is changed in them.
    pub rewrite: Rewrite,
    /// Number of the meter that they pass, 0 for none.
    pub meter: u16,
    /// Ports that they are copied to, beside everything else: a bit for each number of these.
    pub mirror: u16,
    /// Numbers of the coprocessors that they pass, one after the other, 0 for none.
    pub coprocessors: [u16; 2],
    /// Number of the slice whose quota the flow counts against.
    pub owner: u16,
}

impl Action {
    /// An action with this output and nothing else.
    #[must_use]
    pub const fn to(output: Output) -> Self {
        Self {
            output,
            rewrite: Rewrite {
                source_mac: None,
                destination_mac: None,
                vlan: VlanRewrite::Keep,
                decrement_ttl: false,
                translation: None,
            },
            meter: 0,
            mirror: 0,
            coprocessors: [0; 2],
            owner: 0,
        }
    }
}

/// Whether packets of a flow may pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FlowState {
    /// They may.
    Active,
    /// The engines of these readers (bit `n`: reader `n`) hold them back till those that went to control before are through. No bit: as [`FlowState::Active`].
    Pending(u64),
}

impl FlowState {
    /// The packets of reader `number` may not pass.
    #[must_use]
    #[inline]
    pub const fn holds(self, number: usize) -> bool {
        match self {
            Self::Active => false,
            Self::Pending(readers) => number < 64 && readers >> number & 1 == 1,
        }
    }

    pub(super) const fn word(self) -> u64 {
        match self {
            Self::Active => 0,
            Self::Pending(readers) => readers,
        }
    }

    #[inline]
    pub(super) const fn of(word: u64) -> Self {
        if word == 0 { Self::Active } else { Self::Pending(word) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_out_as_they_went_in() {
        for state in [FlowState::Active, FlowState::Pending(1), FlowState::Pending(u64::MAX)] {
            assert_eq!(FlowState::of(state.word()), state);
        }
    }
}
