//! Lists of processor cores: `1-3,8`.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::number::NumberOrText;

/// Cores as Linux numbers them, at least one, ascending, each once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoreList(Vec<usize>);

/// The text was no list of cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected cores such as 1-3,8")]
pub struct NotCoreList;

/// No machine has more; keeps a slip of the pen from filling memory.
const MOST: usize = 4096;

impl CoreList {
    /// The given cores, sorted. `None` when there are none.
    #[must_use]
    pub fn new(cores: impl IntoIterator<Item = usize>) -> Option<Self> {
        let mut cores: Vec<usize> = cores.into_iter().collect();
        cores.sort_unstable();
        cores.dedup();
        (!cores.is_empty()).then_some(Self(cores))
    }

    /// The cores that this thread may run on.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn available() -> std::io::Result<Self> {
        let set = rustix::thread::sched_getaffinity(None)?;
        let cores = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
        Self::new(cores).ok_or_else(|| std::io::Error::other("the system names no core to run on"))
    }

    /// The cores, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// How many there are, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a list is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `core` is in the list.
    #[must_use]
    pub fn contains(&self, core: usize) -> bool {
        self.0.binary_search(&core).is_ok()
    }

    /// All but the first, which is left to control and the system; all when there is only one.
    #[must_use]
    pub fn without_first(&self) -> Self {
        match self.0.split_first() {
            Some((_, rest)) if !rest.is_empty() => Self(rest.to_vec()),
            _ => self.clone(),
        }
    }
}

impl FromStr for CoreList {
    type Err = NotCoreList;

    fn from_str(text: &str) -> Result<Self, NotCoreList> {
        let number = |text: &str| -> Result<usize, NotCoreList> {
            if !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(NotCoreList);
            }
            text.parse().ok().filter(|core| *core < MOST).ok_or(NotCoreList)
        };
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(NotCoreList);
            }
            cores.extend(first..=last);
        }
        Self::new(cores).ok_or(NotCoreList)
    }
}

impl TryFrom<u64> for CoreList {
    type Error = NotCoreList;

    fn try_from(core: u64) -> Result<Self, NotCoreList> {
        let core = usize::try_from(core).ok().filter(|core| *core < MOST).ok_or(NotCoreList)?;
        Ok(Self(vec![core]))
    }
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cores = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = cores.next() {
            let mut last = first;
            while let Some(next) = cores.next_if(|next| *next == last + 1) {
                last = next;
            }
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for CoreList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText("cores such as \"1-3,8\"", PhantomData))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lists_read_back_what_they_print() {
        for text in ["0", "1-3,8", "0-1", "2,4,6"] {
            assert_eq!(text.parse::<CoreList>().unwrap().to_string(), text);
        }
        assert_eq!("8,3,1-3".parse::<CoreList>().unwrap().to_string(), "1-3,8");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", ",", "1,", "-1", "3-1", "1-", "a", "1 ,2", "0x3", "0-99999999"] {
            assert_eq!(text.parse::<CoreList>(), Err(NotCoreList), "{text}");
        }
    }

    #[test]
    fn the_first_core_is_left_to_control_when_there_are_more() {
        assert_eq!(CoreList::new([0, 1, 2]).unwrap().without_first(), CoreList::new([1, 2]).unwrap());
        assert_eq!(CoreList::new([5]).unwrap().without_first(), CoreList::new([5]).unwrap());
        assert_eq!(CoreList::new([]), None);
    }
}
