//! The forwarder: ports, engines, statistics and configuration.
//!
//! A [`port::Port`] is anything that packets come from and go to: a network card behind our own driver, a tap device, a
//! capture file, a generator. A [`forwarder::Forwarder`] joins ports pairwise and runs one [`engine`] thread per core.
//! Control (the thread that called [`forwarder::Forwarder::start`]) keeps everything that is slow: opening and stopping
//! devices, reading statistics, messages. Engines own their queues and their counters, and nothing else is shared.

pub mod bell;
mod checksum;
pub mod clock;
pub mod config;
pub mod control;
pub mod coprocessor;
pub mod copy;
pub mod engine;
pub mod flow;
pub mod forwarder;
pub mod guest;
pub mod headers;
pub mod histogram;
pub mod network;
pub mod overlay;
pub mod port;
mod socket;
pub mod stats;
pub mod switch;
pub mod vswitch;
mod whole;
