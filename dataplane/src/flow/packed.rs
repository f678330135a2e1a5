//! An action as it lies in the table, and as packets carry it through the pipeline.

use drivers::nic::MacAddress;

use super::action::{Action, Output, Rewrite, VlanRewrite};

/// Words that an action packs into.
pub(super) const ACTION_WORDS: usize = 4;

/// An action in four words, from the lowest bit on:
///
/// | word | bits 0..8 | 8..16 | 16..32 | 32..48 | 48..64 |
/// |---|---|---|---|---|---|
/// | 0 | output | flags | its argument | meter | owner |
/// | 1 | source MAC | | | | first coprocessor |
/// | 2 | destination MAC | | | | VLAN tag |
/// | 3 | mirror | | second coprocessor | translation | |
///
/// Whoever needs one part of it reads that; most packets only go to a port, which two comparisons tell ([`PackedAction::port_alone`]).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedAction(pub(super) [u64; ACTION_WORDS]);

const DROP: u8 = 0;
const PORT: u8 = 1;
const TUNNEL: u8 = 2;
const REPLICATE: u8 = 3;
const UP: u8 = 4;
const LOCAL: u8 = 5;

const SOURCE: u8 = 1;
const DESTINATION: u8 = 1 << 1;
const TTL: u8 = 1 << 2;
const TRANSLATION: u8 = 1 << 3;
const MIRROR: u8 = 1 << 4;
const VLAN: u8 = 6;

impl PackedAction {
    /// All packets go to control.
    pub(crate) const UP: Self = Self([UP as u64, 0, 0, 0]);

    /// Output, flags and meter.
    const NOT_PLAIN: u64 = 0x0000_ffff_0000_ffff;

    /// The slot of the port, when the packets go to one and nothing else is done to them.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the argument's bits")]
    pub(crate) const fn port_alone(&self) -> Option<u16> {
        let [first, second, ..] = self.0;
        let plain = first & Self::NOT_PLAIN == PORT as u64 && second >> 48 == 0;
        if plain { Some((first >> 16) as u16) } else { None }
    }

    const fn flags(&self) -> u8 {
        self.0[0].to_le_bytes()[1]
    }

    /// See [`Action::output`].
    #[inline]
    pub(crate) const fn output(&self) -> Output {
        let [output, _, low, high, ..] = self.0[0].to_le_bytes();
        let argument = u16::from_le_bytes([low, high]);
        match output {
            DROP => Output::Drop(low),
            PORT => Output::Port(argument),
            TUNNEL => Output::Tunnel(argument),
            REPLICATE => Output::Replicate(argument),
            UP => Output::Up,
            _ => Output::Local,
        }
    }

    /// Something in the packets is changed.
    #[inline]
    pub(crate) const fn changes(&self) -> bool {
        self.flags() & !MIRROR != 0
    }

    /// See [`Action::rewrite`].
    #[inline]
    pub(crate) fn rewrite(&self) -> Rewrite {
        let flags = self.flags();
        let (source_mac, _) = apart(self.0[1]);
        let (destination_mac, tag) = apart(self.0[2]);
        let set = |bit| flags & bit != 0;
        let translation = (self.0[3] >> 32) as u32;
        Rewrite {
            source_mac: set(SOURCE).then_some(source_mac),
            destination_mac: set(DESTINATION).then_some(destination_mac),
            vlan: match flags >> VLAN {
                0 => VlanRewrite::Keep,
                1 => VlanRewrite::Push(tag),
                2 => VlanRewrite::Pop,
                _ => VlanRewrite::Set(tag),
            },
            decrement_ttl: set(TTL),
            translation: set(TRANSLATION).then_some(translation),
        }
    }

    /// One hop is counted: the packet is routed.
    #[inline]
    pub(crate) const fn decrements_ttl(&self) -> bool {
        self.flags() & TTL != 0
    }

    /// See [`Action::meter`].
    #[inline]
    pub(crate) const fn meter(&self) -> u16 {
        let [_, _, _, _, low, high, _, _] = self.0[0].to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// See [`Action::mirror`].
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "its bits")]
    pub(crate) const fn mirror(&self) -> u16 {
        self.0[3] as u16
    }

    /// See [`Action::coprocessors`].
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "their bits")]
    pub(crate) const fn coprocessors(&self) -> [u16; 2] {
        [(self.0[1] >> 48) as u16, (self.0[3] >> 16) as u16]
    }

    /// See [`Action::owner`].
    #[inline]
    pub(crate) const fn owner(&self) -> u16 {
        (self.0[0] >> 48) as u16
    }
}

impl From<&Action> for PackedAction {
    fn from(action: &Action) -> Self {
        let (output, argument) = match action.output {
            Output::Drop(reason) => (DROP, u16::from(reason)),
            Output::Port(slot) => (PORT, slot),
            Output::Tunnel(template) => (TUNNEL, template),
            Output::Replicate(set) => (REPLICATE, set),
            Output::Up => (UP, 0),
            Output::Local => (LOCAL, 0),
        };
        let rewrite = &action.rewrite;
        let (vlan, tag) = match rewrite.vlan {
            VlanRewrite::Keep => (0, 0),
            VlanRewrite::Push(tag) => (1, tag),
            VlanRewrite::Pop => (2, 0),
            VlanRewrite::Set(tag) => (3, tag),
        };
        let bit = |condition: bool, bit: u8| if condition { bit } else { 0 };
        let flags = bit(rewrite.source_mac.is_some(), SOURCE)
            | bit(rewrite.destination_mac.is_some(), DESTINATION)
            | bit(rewrite.decrement_ttl, TTL)
            | bit(rewrite.translation.is_some(), TRANSLATION)
            | bit(action.mirror != 0, MIRROR)
            | vlan << VLAN;
        let [low, high] = argument.to_le_bytes();
        let [meter_low, meter_high] = action.meter.to_le_bytes();
        let [owner_low, owner_high] = action.owner.to_le_bytes();
        let [first, second] = match action.coprocessors {
            // The first one tells whether there is any.
            [0, alone] => [alone, 0],
            both => both,
        };
        Self([
            u64::from_le_bytes([output, flags, low, high, meter_low, meter_high, owner_low, owner_high]),
            mac_and(rewrite.source_mac, first),
            mac_and(rewrite.destination_mac, tag),
            u64::from(action.mirror) | u64::from(second) << 16 | u64::from(rewrite.translation.unwrap_or(0)) << 32,
        ])
    }
}

impl From<PackedAction> for Action {
    #[inline]
    fn from(packed: PackedAction) -> Self {
        Self {
            output: packed.output(),
            rewrite: packed.rewrite(),
            meter: packed.meter(),
            mirror: packed.mirror(),
            coprocessors: packed.coprocessors(),
            owner: packed.owner(),
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

impl std::fmt::Debug for PackedAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Action::from(*self).fmt(f)
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

    fn rewrite() -> impl Strategy<Value = Rewrite> {
        let any = (mac(), mac(), vlan(), any::<bool>(), any::<Option<u32>>()).prop_map(
            |(source_mac, destination_mac, vlan, decrement_ttl, translation)| Rewrite {
                source_mac,
                destination_mac,
                vlan,
                decrement_ttl,
                translation,
            },
        );
        prop_oneof![Just(Rewrite::default()), any]
    }

    fn numbers() -> impl Strategy<Value = (u16, u16)> {
        prop_oneof![Just((0, 0)), any::<(u16, u16)>()]
    }

    proptest! {
        #[test]
        fn actions_come_out_as_they_went_in(
            output in output(), rewrite in rewrite(), mirror in prop_oneof![Just(0), any::<u16>()], (meter, coprocessor) in numbers(),
            (owner, second) in any::<(u16, u16)>(),
        ) {
            let coprocessors = [coprocessor, if coprocessor == 0 { 0 } else { second }];
            let action = Action { output, rewrite, meter, mirror, coprocessors, owner };
            let packed = PackedAction::from(&action);
            prop_assert_eq!(Action::from(packed), action);
            let changes = rewrite != Rewrite::default();
            prop_assert_eq!(packed.changes(), changes);
            let plain = !changes && mirror == 0 && (meter, coprocessor) == (0, 0);
            prop_assert_eq!(packed.port_alone(), match output {
                Output::Port(slot) if plain => Some(slot),
                _ => None,
            });
        }
    }
}
