//! One module for each command.

pub(crate) mod apply;
pub(crate) mod ask;
pub(crate) mod bench;
pub(crate) mod bind;
pub(crate) mod capture;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod demo_machines;
pub(crate) mod device;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod edit;
pub(crate) mod flows;
pub(crate) mod port;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod subscribe;
pub(crate) mod top;
pub(crate) mod trace;
pub(crate) mod why;
