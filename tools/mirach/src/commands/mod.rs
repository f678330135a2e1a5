//! One module for each command.

pub(crate) mod bench;
pub(crate) mod bind;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod demo_machines;
pub(crate) mod device;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod port;
pub(crate) mod run;
