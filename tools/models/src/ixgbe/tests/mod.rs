//! The chip as a driver sees it.
