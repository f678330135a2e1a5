//! Where the control socket is.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Where requests to a running forwarder are taken.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum ControlSocket {
    /// At the usual place, and nowhere when that is taken.
    #[default]
    Usual,
    /// There and nowhere else.
    At(PathBuf),
    /// Nowhere.
    None,
}

impl ControlSocket {
    /// The usual place: `/run/mirach/control.sock` for root, `mirach/control.sock` in `$XDG_RUNTIME_DIR` for others. `None` when that is
    /// not set.
    #[must_use]
    pub fn usual() -> Option<PathBuf> {
        if rustix::process::geteuid().is_root() {
            return Some("/run/mirach/control.sock".into());
        }
        let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute())?;
        Some(folder.join("mirach/control.sock"))
    }
}

impl FromStr for ControlSocket {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "none" { Self::None } else { Self::At(text.into()) })
    }
}

impl<'de> Deserialize<'de> for ControlSocket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let Ok(socket) = text.parse();
        Ok(socket)
    }
}
