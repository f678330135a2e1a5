//! What the user wants of the switch: networks, ports, rules, routes, tunnels, slices.
//!
//! A [`Config`] comes from a TOML file ([`Config::from_toml`], errors with file, line and reason) or from the API, and
//! is checked as a whole ([`Config::check`]) before anything is touched. Its schema is what [`schema`] gives.
//!
//! ```toml
//! [underlay]
//! addresses = ["192.0.2.1/24"]
//! port = "uplink"
//!
//! [[slice]]
//! name = "gold"
//! flows = 100000
//! bits-per-second = "10G"
//!
//! [[network]]
//! name = "red"
//! vni = 100
//! slice = "gold"
//! routers = ["10.0.0.1/24"]
//!
//! [[group]]
//! name = "web"
//! rules = [
//!     { direction = "in", action = "allow", protocol = "tcp", ports = "80" },
//!     { direction = "out", action = "allow" },
//! ]
//!
//! [[port]]
//! name = "vm0"
//! network = "red"
//! macs = ["52:54:00:00:00:01"]
//! addresses = ["10.0.0.2"]
//! groups = ["web"]
//!
//! [[tunnel]]
//! network = "red"
//! remote = "192.0.2.7"
//! ```

mod check;
mod file;
mod model;
mod values;

pub use check::Problem;
pub use file::Bad;
pub(crate) use file::Document;
pub use model::{
    Config, CoprocessorConfig, Direction, GroupConfig, MirrorConfig, MirrorDirection, NetworkConfig, PortConfig,
    RouteConfig, Router, RuleAction, RuleConfig, ShapeConfig, SliceConfig, Station, TunnelConfig, TunnelKind,
    UnderlayConfig,
};
pub use values::{BitRate, Mac, NotValue, PortRange, Prefix, Protocol};

/// The JSON schema of a [`Config`].
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Config)
}

#[cfg(test)]
mod tests;
