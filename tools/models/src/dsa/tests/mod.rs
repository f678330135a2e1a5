//! The device by itself, and a driver of a few lines.

mod copies;
mod mini;
