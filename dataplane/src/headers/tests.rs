//! Tests of the header pass.
