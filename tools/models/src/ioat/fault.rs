//! Ways in which the engine can lie, each with a name, and when it does.

use std::fmt;
use std::str::FromStr;

use super::errors::Errors;
use crate::Random;
pub use crate::fault::UnknownFault;

crate::fault::named_faults! {
    /// Completions are written a millisecond after the copies.
    CompleteLate = "complete-late",
    /// Completions are gathered: one write and one interrupt for sixteen descriptors, or for what there is after a millisecond.
    CompleteBurst = "complete-burst",
    /// The completion is written before the bytes.
    CompleteEarly = "complete-early",
    /// The completion is not written.
    CompleteNever = "complete-never",
    /// The completion names address 0.
    CompletionZero = "completion-zero",
    /// The completion names an address far away from all descriptors.
    CompletionWild = "completion-wild",
    /// The completion names the descriptor that was completed before.
    CompletionStale = "completion-stale",
    /// The completion names the descriptor after the one that is done, submitted or not.
    CompletionAhead = "completion-ahead",
    /// The completion is all ones.
    CompletionOnes = "completion-ones",
    /// The completion has a reserved number as its state.
    CompletionState = "completion-state",
    /// A copy is reported done and nothing was copied.
    CopySkipped = "copy-skipped",
    /// The last byte of a copy is wrong.
    CopyWrong = "copy-wrong",
    /// Half of a copy is done, then the channel halts with a write error.
    CopyPartial = "copy-partial",
    /// The channel halts: illegal source address.
    ErrorSourceAddress = "error-source-address",
    /// The channel halts: illegal destination address.
    ErrorTargetAddress = "error-destination-address",
    /// The channel halts after the copy: illegal next descriptor address.
    ErrorNextAddress = "error-next-address",
    /// The channel halts: descriptor error.
    ErrorDescriptor = "error-descriptor",
    /// The channel halts: illegal chain address.
    ErrorChainAddress = "error-chain-address",
    /// The channel halts: invalid command.
    ErrorCommand = "error-command",
    /// The channel halts after half of the copy: data integrity error of the chipset.
    ErrorChipsetIntegrity = "error-chipset-integrity",
    /// The channel halts after half of the copy: data integrity error of the engine.
    ErrorEngineIntegrity = "error-engine-integrity",
    /// The channel halts: read error.
    ErrorRead = "error-read",
    /// The channel halts: write error.
    ErrorWrite = "error-write",
    /// The channel halts: illegal control field.
    ErrorControl = "error-control",
    /// The channel halts: illegal length.
    ErrorLength = "error-length",
    /// The channel halts after the copy, without a completion: illegal completion address.
    ErrorCompletionAddress = "error-completion-address",
    /// The channel halts after the completion: interrupts are not configured.
    ErrorInterrupt = "error-interrupt",
    /// A soft error is reported and nothing is wrong.
    ErrorSoft = "error-soft",
    /// An error that belongs to no channel; it halts one that is to abort at any error.
    ErrorUnaffiliated = "error-unaffiliated",
    /// The channel halts after the copy: P parity or CRC.
    ErrorParityP = "error-parity-p",
    /// The channel halts after the copy: Q parity.
    ErrorParityQ = "error-parity-q",
    /// The channel halts: descriptor count.
    ErrorCount = "error-count",
    /// The channel halts with a bit that is not defined.
    ErrorReserved = "error-reserved",
    /// The channel halts and reports no error.
    Halt = "halt",
    /// The channel halts in the middle of a copy and reports no error.
    HaltPartial = "halt-partial",
    /// The channel halts and neither writes nor interrupts.
    HaltSilent = "halt-silent",
    /// The channel stays active and does nothing any more, until a reset.
    Hang = "hang",
    /// The channel is never suspended.
    SuspendStuck = "suspend-stuck",
    /// A reset never ends.
    ResetNeverDone = "reset-never-done",
    /// The channel stays halted whatever is written.
    ArmNever = "arm-never",
    /// The channel resets itself.
    ResetSpontaneous = "reset-spontaneous",
    /// CHANSTS reads all ones.
    StatusOnes = "status-ones",
    /// Stores of 64 bits write the lower half alone.
    StoreNarrow = "store-narrow",
    /// All memory is gone for the engine.
    DmaRefused = "dma-refused",
    /// The engine also reads at 0xdeadd000, where nothing is mapped.
    DmaStray = "dma-stray",
    /// The engine is pulled out: all ones from every register.
    Removed = "removed",
    /// The engine does not answer from the start.
    Absent = "absent",
    /// Interrupts do not arrive.
    InterruptsLost = "interrupts-lost",
    /// Interrupts arrive all the time.
    InterruptsStorm = "interrupts-storm",
    /// CHANCNT is 0.
    ChannelsNone = "channels-none",
    /// CHANCNT is 31, and the registers of most are reserved.
    ChannelsMany = "channels-many",
    /// XFERCAP is 0.
    LongestZero = "longest-zero",
    /// CBVER is 2.0.
    VersionOld = "version-old",
}

/// Descriptors before a fault that needs some strikes, unless asked otherwise.
const HONEST: u64 = 5;

impl Fault {
    /// The error that halts the channel, if it is one of those.
    #[must_use]
    pub fn error(self) -> Option<Errors> {
        Some(match self {
            Self::ErrorSourceAddress => Errors::SOURCE_ADDRESS,
            Self::ErrorTargetAddress => Errors::TARGET_ADDRESS,
            Self::ErrorNextAddress => Errors::NEXT_ADDRESS,
            Self::ErrorDescriptor => Errors::DESCRIPTOR,
            Self::ErrorChainAddress => Errors::CHAIN_ADDRESS,
            Self::ErrorCommand => Errors::COMMAND,
            Self::ErrorChipsetIntegrity => Errors::CHIPSET_INTEGRITY,
            Self::ErrorEngineIntegrity => Errors::ENGINE_INTEGRITY,
            Self::ErrorRead => Errors::READ,
            Self::ErrorWrite | Self::CopyPartial => Errors::WRITE,
            Self::ErrorControl => Errors::CONTROL,
            Self::ErrorLength => Errors::LENGTH,
            Self::ErrorCompletionAddress => Errors::COMPLETION_ADDRESS,
            Self::ErrorInterrupt => Errors::INTERRUPT,
            Self::ErrorUnaffiliated => Errors::UNAFFILIATED,
            Self::ErrorParityP => Errors::PARITY_P,
            Self::ErrorParityQ => Errors::PARITY_Q,
            Self::ErrorCount => Errors::COUNT,
            Self::ErrorReserved => Errors::RESERVED,
            Self::Halt | Self::HaltPartial | Self::HaltSilent => Errors::empty(),
            _ => return None,
        })
    }

    /// When it strikes unless asked otherwise: from the start, after some honest descriptors, or once after those.
    #[must_use]
    pub fn usually(self) -> When {
        match self {
            Self::SuspendStuck
            | Self::ResetNeverDone
            | Self::ArmNever
            | Self::StoreNarrow
            | Self::Absent
            | Self::InterruptsLost
            | Self::InterruptsStorm
            | Self::ChannelsNone
            | Self::ChannelsMany
            | Self::LongestZero
            | Self::VersionOld => When::From(0),
            Self::Hang | Self::ErrorSoft | Self::ResetSpontaneous => When::Once(HONEST),
            _ if self.error().is_some() => When::Once(HONEST),
            _ => When::From(HONEST),
        }
    }
}

/// At which descriptors a fault strikes; the first one since the fault was set is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At this one.
    Once(u64),
    /// From this one on.
    From(u64),
    /// At each whose number is one less than a multiple of this.
    Every(u64),
    /// At random ones.
    Random {
        /// Where the random numbers start.
        seed: u64,
        /// How many of 256.
        chance: u8,
    },
}

/// A fault, and when and where it strikes. Parses from `NAME`, `NAME@17` (once, at that descriptor), `NAME@17+` (from there on), `NAME@every:8`,
/// `NAME@random:SEED:CHANCE` (of 256), each with `#CHANNEL` behind it or for all channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    /// The fault.
    pub fault: Fault,
    /// At which descriptors.
    pub when: When,
    /// On which channel; `None` is on all, whose descriptors count together.
    pub channel: Option<u8>,
}

impl From<Fault> for Planned {
    fn from(fault: Fault) -> Self {
        Self { fault, when: fault.usually(), channel: None }
    }
}

impl Planned {
    /// A fault that strikes as `when` says, on any channel.
    #[must_use]
    pub fn new(fault: Fault, when: When) -> Self {
        Self { fault, when, channel: None }
    }

    /// The same on one channel.
    #[must_use]
    pub fn on(self, channel: u8) -> Self {
        Self { channel: Some(channel), ..self }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            When::Once(at) => write!(f, "{}@{at}", self.fault)?,
            When::From(at) => write!(f, "{}@{at}+", self.fault)?,
            When::Every(step) => write!(f, "{}@every:{step}", self.fault)?,
            When::Random { seed, chance } => write!(f, "{}@random:{seed}:{chance}", self.fault)?,
        }
        self.channel.map_or(Ok(()), |channel| write!(f, "#{channel}"))
    }
}

/// The text says no fault and time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FaultError {
    /// The name is none.
    #[error(transparent)]
    Name(#[from] UnknownFault),
    /// The rest is wrong.
    #[error(
        "`{0}` does not say when: give NAME, NAME@17, NAME@17+, NAME@every:8 or NAME@random:SEED:CHANCE, and #CHANNEL"
    )]
    When(String),
}

impl FromStr for Planned {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let wrong = || FaultError::When(text.to_owned());
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let (rest, channel) = match text.split_once('#') {
            Some((rest, channel)) => (rest, Some(channel.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let (name, when) = rest.split_once('@').map_or((rest, None), |(name, when)| (name, Some(when)));
        let fault: Fault = name.parse()?;
        let when = match when {
            None => fault.usually(),
            Some(when) => {
                if let Some(step) = when.strip_prefix("every:") {
                    When::Every(number(step).and_then(|step| if step == 0 { Err(wrong()) } else { Ok(step) })?)
                } else if let Some(random) = when.strip_prefix("random:") {
                    let (seed, chance) = random.split_once(':').ok_or_else(wrong)?;
                    When::Random { seed: number(seed)?, chance: chance.parse().map_err(|_| wrong())? }
                } else if let Some(from) = when.strip_suffix('+') {
                    When::From(number(from)?)
                } else {
                    When::Once(number(when)?)
                }
            }
        };
        Ok(Self { fault, when, channel })
    }
}

/// A planned fault and where it is in its plan.
#[derive(Debug)]
struct Running {
    planned: Planned,
    /// Descriptors of its channel so far.
    seen: u64,
    random: Random,
}

impl Running {
    fn concerns(&self, channel: u8) -> bool {
        self.planned.channel.is_none_or(|own| own == channel)
    }

    /// A descriptor of its channel begins: whether it strikes there.
    fn strikes(&mut self) -> bool {
        let at = self.seen;
        self.seen = self.seen.saturating_add(1);
        match self.planned.when {
            When::Once(number) => at == number,
            When::From(number) => at >= number,
            When::Every(step) => at % step.max(1) == step.max(1) - 1,
            When::Random { chance, .. } => self.random.chance(chance),
        }
    }

    /// For what has to do with no descriptor.
    fn has_begun(&self) -> bool {
        match self.planned.when {
            When::Once(number) | When::From(number) => self.seen >= number,
            When::Every(_) | When::Random { .. } => true,
        }
    }
}

/// What is to become of one descriptor, when it is not the truth.
#[derive(Clone, Default, Debug)]
pub(super) struct Fate {
    faults: Vec<Fault>,
}

impl Fate {
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// The error that strikes at this descriptor, if any.
    pub(super) fn error(&self) -> Option<(Fault, Errors)> {
        self.faults.iter().find_map(|fault| Some((*fault, fault.error()?)))
    }
}

/// All faults that are planned.
#[derive(Debug, Default)]
pub(super) struct Tricks {
    running: Vec<Running>,
}

impl Tricks {
    pub(super) fn new(faults: &[Planned]) -> Self {
        let random = |when| if let When::Random { seed, .. } = when { seed } else { 1 };
        let start =
            |planned: &Planned| Running { planned: *planned, seen: 0, random: Random::new(random(planned.when)) };
        Self { running: faults.iter().map(start).collect() }
    }

    /// Always tells the truth.
    #[inline]
    pub(super) fn is_honest(&self) -> bool {
        self.running.is_empty()
    }

    /// A descriptor begins.
    #[inline]
    pub(super) fn descriptor(&mut self, channel: u8) -> Option<Fate> {
        if self.running.is_empty() {
            return None;
        }
        let struck = self.running.iter_mut().filter(|running| running.concerns(channel));
        let faults: Vec<Fault> =
            struck.filter_map(|running| running.strikes().then_some(running.planned.fault)).collect();
        (!faults.is_empty()).then_some(Fate { faults })
    }

    /// Lies in this way now, on this channel.
    pub(super) fn is_on(&self, fault: Fault, channel: u8) -> bool {
        let lies =
            |running: &Running| running.planned.fault == fault && running.concerns(channel) && running.has_begun();
        self.running.iter().any(lies)
    }

    /// Lies in this way now, on some channel.
    pub(super) fn is(&self, fault: Fault) -> bool {
        self.running.iter().any(|running| running.planned.fault == fault && running.has_begun())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_documentation_lists_every_fault() {
        let page = include_str!("../../../../docs/copy-engine.md");
        for fault in Fault::ALL {
            assert!(page.contains(&format!("| `{fault}` |")), "{fault}");
        }
    }

    #[test]
    fn every_fault_reads_back_from_its_name_and_plan() {
        for fault in Fault::ALL {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), *fault);
            assert_eq!(fault.to_string().parse::<Planned>().unwrap(), Planned::from(*fault));
        }
        for when in ["@17", "@17+", "@every:8", "@random:7:20"] {
            for channel in ["", "#3"] {
                let text = format!("error-read{when}{channel}");
                assert_eq!(text.parse::<Planned>().unwrap().to_string(), text);
            }
        }
        for text in ["honest", "halt@", "halt@x", "halt@every:0", "halt@random:1", "halt#", "halt#-1", "halt@+"] {
            assert!(text.parse::<Planned>().is_err(), "{text}");
        }
    }

    #[test]
    fn faults_strike_as_planned_and_together() {
        let plan: Vec<Planned> = ["halt@2", "copy-wrong@3+", "error-read@every:3#1", "complete-late"]
            .map(|text| text.parse().unwrap())
            .into();
        let mut tricks = Tricks::new(&plan);
        let mut struck = |channel| tricks.descriptor(channel).map_or(Vec::new(), |fate| fate.faults);
        assert_eq!([struck(0), struck(0)], [vec![], vec![]]);
        assert_eq!(struck(0), [Fault::Halt]);
        assert_eq!([struck(1), struck(1)], [vec![Fault::CopyWrong], vec![Fault::CopyWrong]]);
        assert_eq!(struck(1), [Fault::CopyWrong, Fault::ErrorRead, Fault::CompleteLate]);
        let random = || {
            let mut tricks = Tricks::new(&["halt@random:9:64".parse().unwrap()]);
            (0..1000).map(|_| tricks.descriptor(0).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(random(), random());
        let count = random().iter().filter(|struck| **struck).count();
        assert!((150..350).contains(&count), "{count}");
    }
}
