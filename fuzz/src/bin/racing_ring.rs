//! Fuzzes rings that change between two reads.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dataplane::port::vhost_user::fuzz::racing_ring(bytes));
