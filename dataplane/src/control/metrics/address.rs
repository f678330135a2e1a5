//! Where metrics are served.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Where metrics are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetricsAddress {
    /// On that TCP port.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

/// The text was no address to listen on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected an address and a port, such as 127.0.0.1:9100 or [::1]:9100, or the path of a Unix socket, with a /")]
pub struct NotMetricsAddress;

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}/metrics"),
            Self::Unix(path) => write!(f, "/metrics on {}", path.display()),
        }
    }
}

impl FromStr for MetricsAddress {
    type Err = NotMetricsAddress;

    fn from_str(text: &str) -> Result<Self, NotMetricsAddress> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| NotMetricsAddress)
    }
}

impl<'de> Deserialize<'de> for MetricsAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("`{text}`: {error}")))
    }
}
