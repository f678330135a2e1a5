//! The chip as a driver sees it.

pub(super) mod frames;
