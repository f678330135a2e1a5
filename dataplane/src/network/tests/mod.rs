#![allow(clippy::unwrap_used, reason = "tests")]

mod apply;
mod learning;
mod routes;
mod spoofing;
mod state;
mod tenants;
mod world;
