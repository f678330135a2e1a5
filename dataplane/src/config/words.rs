//! Choices that are written as words.

use std::fmt;
use std::str::FromStr;

use hugemem::PageChoice;
use schemars::JsonSchema;
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};

/// How engines wait for packets.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// Poll without end: lowest latency, one core always busy.
    Always,
    /// Poll while there is work, sleep until an interrupt when there is none.
    #[default]
    Adaptive,
}

impl fmt::Display for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::Adaptive => "adaptive",
        })
    }
}

/// The text was no way of polling.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected `always` or `adaptive`")]
pub struct NotPoll;

impl FromStr for Poll {
    type Err = NotPoll;

    fn from_str(text: &str) -> Result<Self, NotPoll> {
        match text {
            "always" => Ok(Self::Always),
            "adaptive" => Ok(Self::Adaptive),
            _ => Err(NotPoll),
        }
    }
}

/// The order in which engines deliver the packets that wait for several ports.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// First to the port that has used the least processor time of late, so that a noisy one delays nobody but itself.
    #[default]
    LeastCpu,
    /// All at once, in the order in which they were received.
    Off,
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeastCpu => "least-cpu",
            Self::Off => "off",
        })
    }
}

/// The text was no scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected `least-cpu` or `off`")]
pub struct NotScheduler;

impl FromStr for Scheduler {
    type Err = NotScheduler;

    fn from_str(text: &str) -> Result<Self, NotScheduler> {
        match text {
            "least-cpu" => Ok(Self::LeastCpu),
            "off" => Ok(Self::Off),
            _ => Err(NotScheduler),
        }
    }
}

/// The size of the pages that packets lie in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSize(pub PageChoice);

/// The text was no page size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected `1G`, `2M` or `4K`")]
pub struct NotPageSize;

impl FromStr for PageSize {
    type Err = NotPageSize;

    fn from_str(text: &str) -> Result<Self, NotPageSize> {
        match text {
            "1G" => Ok(Self(PageChoice::Size1G)),
            "2M" => Ok(Self(PageChoice::Size2M)),
            "4K" => Ok(Self(PageChoice::Size4K)),
            _ => Err(NotPageSize),
        }
    }
}

impl<'de> Deserialize<'de> for PageSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"`1G`, `2M` or `4K`"))
    }
}
