//! What users write about copy engines.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use drivers::bus::PciAddress;
use serde::{Deserialize, Deserializer};

/// A copy engine as the user names it: a PCI address, `vfio-user=SOCKET` or the path of a socket, the path of an idxd work queue, or `cpu`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DmaName {
    /// A device that is bound to vfio-pci.
    Address(PciAddress),
    /// A software model behind a socket, such as `mirach device ioat`.
    Socket(PathBuf),
    /// A work queue of the kernel's idxd driver.
    WorkQueue(PathBuf),
    /// A thread that copies.
    Cpu,
}

/// The text names no copy engine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{0}` names no copy engine: give a PCI address (0000:00:04.0), vfio-user=SOCKET, a work queue (/dev/dsa/wq0.0) or cpu"
)]
pub struct NotDmaName(String);

impl FromStr for DmaName {
    type Err = NotDmaName;

    fn from_str(text: &str) -> Result<Self, NotDmaName> {
        if text == "cpu" {
            return Ok(Self::Cpu);
        }
        if let Some(path) = text.strip_prefix("vfio-user=").filter(|path| !path.is_empty()) {
            return Ok(Self::Socket(path.into()));
        }
        if text.starts_with("/dev/dsa/") {
            return Ok(Self::WorkQueue(text.into()));
        }
        if text.starts_with('/') || text.starts_with("./") {
            return Ok(Self::Socket(text.into()));
        }
        text.parse().map(Self::Address).map_err(|_| NotDmaName(text.to_owned()))
    }
}

impl fmt::Display for DmaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(path) => write!(f, "vfio-user={}", path.display()),
            Self::WorkQueue(path) => path.display().fmt(f),
            Self::Cpu => f.write_str("cpu"),
        }
    }
}

/// From which length on frames to virtual machines are left to the copy engine.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Threshold {
    /// From where that costs the engine's core less than copying, as measured at the start.
    #[default]
    Auto,
    /// From so many bytes on, at least [`SMALLEST_THRESHOLD`].
    Bytes(u32),
    /// Never.
    Off,
}

/// Shorter frames are always copied by the CPU: their first bytes are in a buffer of ours.
pub const SMALLEST_THRESHOLD: u32 = 256;
/// Longest frame.
const LARGEST_THRESHOLD: u32 = 65_550;

/// The text is no threshold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("give auto, off, or bytes from 256 to 65550")]
pub struct NotThreshold;

impl FromStr for Threshold {
    type Err = NotThreshold;

    fn from_str(text: &str) -> Result<Self, NotThreshold> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            text => {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let bytes = text.parse().ok().filter(|_| digits);
                let bytes = bytes.filter(|bytes| (SMALLEST_THRESHOLD..=LARGEST_THRESHOLD).contains(bytes));
                bytes.map(Self::Bytes).ok_or(NotThreshold)
            }
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

impl<'de> Deserialize<'de> for DmaName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u32),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => bytes.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_print_as_they_are_read() {
        for text in ["0000:00:04.0", "vfio-user=/tmp/dma0.sock", "/dev/dsa/wq0.0", "cpu"] {
            assert_eq!(text.parse::<DmaName>().unwrap().to_string(), text);
        }
        assert_eq!("/tmp/dma0.sock".parse(), Ok(DmaName::Socket("/tmp/dma0.sock".into())));
        for text in ["", "gpu", "vfio-user=", "00:04"] {
            assert!(text.parse::<DmaName>().is_err(), "{text}");
        }
    }

    #[test]
    fn thresholds_are_lengths_that_frames_can_have() {
        for text in ["auto", "off", "256", "9000", "65550"] {
            assert_eq!(text.parse::<Threshold>().unwrap().to_string(), text);
        }
        for text in ["", "255", "65551", "+300", "always"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
