//! Rules against slow models of their own: a million random pairs of rules and packet, and conversations between ports whose rules are random, with a flow
//! table that believes what it is told.

#![allow(clippy::unwrap_used, reason = "tests")]

mod conversations;
mod pairs;
mod reference;
