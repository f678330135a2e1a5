//! The checks, by what they are about.

mod copies;
mod ends;
mod order;
mod restarts;
mod sleep;
mod strays;
mod threads;

use super::rig::Rig;
use crate::conformance::Check;

pub use ends::await_removal;

/// Every check that leaves nothing on record, the basic ones first.
pub(super) fn all<R: Rig>() -> Vec<Check<R>> {
    vec![
        ("all-lengths-and-alignments-are-copied", copies::lengths::<R>),
        ("pages-are-crossed", copies::pages::<R>),
        ("regions-that-are-neighbours-are-crossed", copies::neighbours::<R>),
        ("the-longest-job-is-done-and-no-longer-one-taken", copies::longest::<R>),
        ("jobs-come-back-in-order-and-once", order::many::<R>),
        ("nothing-starts-before-it-is-submitted", order::nothing_before_submit::<R>),
        ("a-full-engine-hands-jobs-back", order::full::<R>),
        ("tokens-are-the-callers-own", order::tokens::<R>),
        ("memory-comes-and-goes-while-copies-run", threads::memory_comes_and_goes::<R>),
        ("all-engines-work-at-the-same-time", threads::all_engines::<R>),
        ("a-sleeper-is-woken", sleep::woken::<R>),
        ("a-device-that-is-stopped-gives-all-jobs-back", restarts::under_load::<R>),
        ("a-second-driver-finds-the-device-usable", restarts::opened_again::<R>),
        ("a-dropped-engine-keeps-the-device-from-starting", ends::dropped_engine::<R>),
        ("dropped-while-it-copies-it-writes-no-more", ends::dropped_while_copying::<R>),
        ("a-device-that-is-pulled-out-gives-all-jobs-back", ends::removed::<R>),
        ("a-device-that-falls-silent-is-gone", ends::silent::<R>),
    ]
}

/// The checks that reach for memory that is not mapped.
pub(super) fn strays<R: Rig>() -> Vec<Check<R>> {
    vec![
        ("a-source-that-is-not-mapped-fails-its-own-job-alone", strays::sources::<R>),
        ("a-target-that-is-not-mapped-fails-its-own-job-alone", strays::targets::<R>),
    ]
}
