//! Memory that is taken away while it is used.
