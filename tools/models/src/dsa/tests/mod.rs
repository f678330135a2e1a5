//! The device by itself, and a driver of a few lines.

mod commands;
mod copies;
mod faults;
mod mini;
mod portals;
mod served;
