//! Fuzzes split rings.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dataplane::port::vhost_user::fuzz::split_ring(bytes));
