//! Checks that the guests' suites share: `mirach` between two devices of a guest, whatever the devices are.
//!
//! [`binding`] takes the devices from the kernel and gives them back, [`forwarding`] passes traffic between the namespaces
//! behind them, and [`lifecycle`] ends and starts runs under load. A [`Case`] is how `mirach run` is told to use them.

pub mod binding;
pub mod forwarding;
pub mod lifecycle;

mod case;

pub use case::{Case, Interface, ports_say};
