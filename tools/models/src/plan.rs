//! When a copy engine lies, and in which ways together.

use std::fmt;
use std::str::FromStr;

use crate::{Random, UnknownFault};

/// The ways in which one kind of engine can lie.
pub trait Lie: Copy + Eq + fmt::Debug + fmt::Display + FromStr<Err = UnknownFault> {
    /// What is reported of a descriptor that does not succeed.
    type Error;

    /// The error that it ends a descriptor with, if it is one of those.
    fn error(self) -> Option<Self::Error>;

    /// When it strikes unless asked otherwise: from the start, after some honest descriptors, or once after those.
    fn usually(self) -> When;
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
/// `NAME@random:SEED:CHANCE` (of 256), each with `#CHANNEL` behind it or for all channels. What is a channel here is a work queue elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned<F> {
    /// The fault.
    pub fault: F,
    /// At which descriptors.
    pub when: When,
    /// On which channel; `None` is on all, whose descriptors count together.
    pub channel: Option<u8>,
}

impl<F: Lie> From<F> for Planned<F> {
    fn from(fault: F) -> Self {
        Self { fault, when: fault.usually(), channel: None }
    }
}

impl<F> Planned<F> {
    /// A fault that strikes as `when` says, on any channel.
    #[must_use]
    pub fn new(fault: F, when: When) -> Self {
        Self { fault, when, channel: None }
    }

    /// The same on one channel.
    #[must_use]
    pub fn on(self, channel: u8) -> Self {
        Self { channel: Some(channel), ..self }
    }
}

impl<F: fmt::Display> fmt::Display for Planned<F> {
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
        "`{0}` does not say when: give NAME, NAME@17, NAME@17+, NAME@every:8 or NAME@random:SEED:CHANCE, and #NUMBER of a channel or queue"
    )]
    When(String),
}

impl<F: Lie> FromStr for Planned<F> {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let wrong = || FaultError::When(text.to_owned());
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let (rest, channel) = match text.split_once('#') {
            Some((rest, channel)) => (rest, Some(channel.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let (name, when) = rest.split_once('@').map_or((rest, None), |(name, when)| (name, Some(when)));
        let fault: F = name.parse()?;
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
struct Running<F> {
    planned: Planned<F>,
    /// Descriptors of its channel so far.
    seen: u64,
    random: Random,
}

impl<F> Running<F> {
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
#[derive(Clone, Debug)]
pub(crate) struct Fate<F> {
    faults: Vec<F>,
}

impl<F: Lie> Fate<F> {
    pub(crate) fn has(&self, fault: F) -> bool {
        self.faults.contains(&fault)
    }

    /// The error that strikes at this descriptor, if any.
    pub(crate) fn error(&self) -> Option<(F, F::Error)> {
        self.faults.iter().find_map(|fault| Some((*fault, fault.error()?)))
    }
}

/// All faults that are planned.
#[derive(Debug)]
pub(crate) struct Tricks<F> {
    running: Vec<Running<F>>,
}

impl<F: Lie> Tricks<F> {
    pub(crate) fn new(faults: &[Planned<F>]) -> Self {
        let random = |when| if let When::Random { seed, .. } = when { seed } else { 1 };
        let start =
            |planned: &Planned<F>| Running { planned: *planned, seen: 0, random: Random::new(random(planned.when)) };
        Self { running: faults.iter().map(start).collect() }
    }

    /// Always tells the truth.
    #[inline]
    pub(crate) fn is_honest(&self) -> bool {
        self.running.is_empty()
    }

    /// A descriptor begins.
    #[inline]
    pub(crate) fn descriptor(&mut self, channel: u8) -> Option<Fate<F>> {
        if self.running.is_empty() {
            return None;
        }
        let struck = self.running.iter_mut().filter(|running| running.concerns(channel));
        let faults: Vec<F> = struck.filter_map(|running| running.strikes().then_some(running.planned.fault)).collect();
        (!faults.is_empty()).then_some(Fate { faults })
    }

    /// Lies in this way now, on this channel.
    pub(crate) fn is_on(&self, fault: F, channel: u8) -> bool {
        let lies =
            |running: &Running<F>| running.planned.fault == fault && running.concerns(channel) && running.has_begun();
        self.running.iter().any(lies)
    }

    /// Lies in this way now, on some channel.
    pub(crate) fn is(&self, fault: F) -> bool {
        self.running.iter().any(|running| running.planned.fault == fault && running.has_begun())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use crate::ioat::Fault;

    type Planned = super::Planned<Fault>;
    type Tricks = super::Tricks<Fault>;

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
