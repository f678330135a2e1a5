//! Tests of the frame, with a chip of a few registers.
