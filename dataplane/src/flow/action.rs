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
    /// Their latency is sampled.
    pub sample: bool,
    /// They are copied to the mirror.
    pub mirror: bool,
    /// Number of the coprocessor that they pass, 0 for none.
    pub coprocessor: u16,
    /// Number of the slice whose quota the flow counts against.
    pub owner: u16,
    /// Number of the policy that it was decided by.
    pub generation: u32,
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
            sample: false,
            mirror: false,
            coprocessor: 0,
            owner: 0,
            generation: 0,
        }
    }
}

/// Words that an action packs into.
pub(super) const ACTION_WORDS: usize = 4;

const SOURCE: u8 = 1;
const DESTINATION: u8 = 1 << 1;
const TTL: u8 = 1 << 2;
const TRANSLATION: u8 = 1 << 3;
const SAMPLE: u8 = 1 << 4;
const MIRROR: u8 = 1 << 5;
const VLAN: u8 = 6;

impl From<&Action> for [u64; ACTION_WORDS] {
    fn from(action: &Action) -> Self {
        let (output, argument) = match action.output {
            Output::Drop(reason) => (0, u16::from(reason)),
            Output::Port(slot) => (1, slot),
            Output::Tunnel(template) => (2, template),
            Output::Replicate(set) => (3, set),
            Output::Up => (4, 0),
            Output::Local => (5, 0),
        };
        let rewrite = &action.rewrite;
        let (vlan, tag) = match rewrite.vlan {
            VlanRewrite::Keep => (0, 0),
            VlanRewrite::Push(tag) => (1, tag),
            VlanRewrite::Pop => (2, 0),
            VlanRewrite::Set(tag) => (3, tag),
        };
        let bit = |condition: bool, bit: u8| if condition { bit } else { 0 };
        let bits = bit(rewrite.source_mac.is_some(), SOURCE)
            | bit(rewrite.destination_mac.is_some(), DESTINATION)
            | bit(rewrite.decrement_ttl, TTL)
            | bit(rewrite.translation.is_some(), TRANSLATION)
            | bit(action.sample, SAMPLE)
            | bit(action.mirror, MIRROR)
            | vlan << VLAN;
        let [low, high] = argument.to_le_bytes();
        let [meter_low, meter_high] = action.meter.to_le_bytes();
        let [owner_low, owner_high] = action.owner.to_le_bytes();
        [
            u64::from_le_bytes([output, bits, low, high, meter_low, meter_high, owner_low, owner_high]),
            mac_and(rewrite.source_mac, action.coprocessor),
            mac_and(rewrite.destination_mac, tag),
            u64::from(action.generation) | u64::from(rewrite.translation.unwrap_or(0)) << 32,
        ]
    }
}

impl From<[u64; ACTION_WORDS]> for Action {
    #[inline]
    fn from([first, source, destination, last]: [u64; ACTION_WORDS]) -> Self {
        let [output, bits, low, high, meter_low, meter_high, owner_low, owner_high] = first.to_le_bytes();
        let argument = u16::from_le_bytes([low, high]);
        let (source_mac, coprocessor) = apart(source);
        let (destination_mac, tag) = apart(destination);
        let set = |bit| bits & bit != 0;
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let (generation, translation) = (last as u32, (last >> 32) as u32);
        Self {
            output: match output {
                0 => Output::Drop(low),
                1 => Output::Port(argument),
                2 => Output::Tunnel(argument),
                3 => Output::Replicate(argument),
                4 => Output::Up,
                _ => Output::Local,
            },
            rewrite: Rewrite {
                source_mac: set(SOURCE).then_some(source_mac),
                destination_mac: set(DESTINATION).then_some(destination_mac),
                vlan: match bits >> VLAN {
                    0 => VlanRewrite::Keep,
                    1 => VlanRewrite::Push(tag),
                    2 => VlanRewrite::Pop,
                    _ => VlanRewrite::Set(tag),
                },
                decrement_ttl: set(TTL),
                translation: set(TRANSLATION).then_some(translation),
            },
            meter: u16::from_le_bytes([meter_low, meter_high]),
            sample: set(SAMPLE),
            mirror: set(MIRROR),
            coprocessor,
            owner: u16::from_le_bytes([owner_low, owner_high]),
            generation,
        }
    }
}

fn mac_and(mac: Option<MacAddress>, number: u16) -> u64 {
    let MacAddress([a, b, c, d, e, f]) = mac.unwrap_or(MacAddress([0; 6]));
    let [low, high] = number.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, low, high])
}

#[inline]
fn apart(word: u64) -> (MacAddress, u16) {
    let [a, b, c, d, e, f, low, high] = word.to_le_bytes();
    (MacAddress([a, b, c, d, e, f]), u16::from_le_bytes([low, high]))
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
    use proptest::prelude::*;

    fn mac() -> impl Strategy<Value = Option<MacAddress>> {
        proptest::option::of(any::<[u8; 6]>().prop_map(MacAddress))
    }

    fn output() -> impl Strategy<Value = Output> {
        prop_oneof![
            any::<u8>().prop_map(Output::Drop),
            any::<u16>().prop_map(Output::Port),
            any::<u16>().prop_map(Output::Tunnel),
            any::<u16>().prop_map(Output::Replicate),
            Just(Output::Up),
            Just(Output::Local),
        ]
    }

    fn vlan() -> impl Strategy<Value = VlanRewrite> {
        prop_oneof![
            Just(VlanRewrite::Keep),
            any::<u16>().prop_map(VlanRewrite::Push),
            Just(VlanRewrite::Pop),
            any::<u16>().prop_map(VlanRewrite::Set),
        ]
    }

    proptest! {
        #[test]
        fn actions_come_out_as_they_went_in(
            output in output(), source_mac in mac(), destination_mac in mac(), vlan in vlan(),
            (decrement_ttl, sample, mirror) in any::<(bool, bool, bool)>(), translation in any::<Option<u32>>(),
            (meter, coprocessor, owner, generation) in any::<(u16, u16, u16, u32)>(),
        ) {
            let rewrite = Rewrite { source_mac, destination_mac, vlan, decrement_ttl, translation };
            let action = Action { output, rewrite, meter, sample, mirror, coprocessor, owner, generation };
            prop_assert_eq!(Action::from(<[u64; ACTION_WORDS]>::from(&action)), action);
        }
    }

    #[test]
    fn states_come_out_as_they_went_in() {
        for state in [FlowState::Active, FlowState::Pending(1), FlowState::Pending(u64::MAX)] {
            assert_eq!(FlowState::of(state.word()), state);
        }
    }
}
