//! The checks, by what they are about.

mod checksums;
mod counters;
mod filters;
mod interrupts;
mod jumbo;
mod lifecycle;
mod order;
mod pressure;
mod queues;
mod segmentation;
mod tags;

use super::{Check, Rig};

/// Every check, the basic ones first.
pub(super) fn all<R: Rig>() -> Vec<Check<R>> {
    vec![
        ("offloads-are-as-expected", lifecycle::offloads::<R>),
        ("frames-pass-both-ways-in-order", order::both_ways::<R>),
        ("short-frames-grow-by-zeroes-at-most", order::short_frames::<R>),
        ("chained-packets-are-sent-whole", order::chained::<R>),
        ("packets-that-cannot-be-sent-are-counted", order::unsendable::<R>),
        ("a-burst-beyond-the-ring-loses-nothing", pressure::large_burst::<R>),
        ("a-stalled-receiver-loses-nothing-unnamed", pressure::stalled_receiver::<R>),
        ("an-empty-pool-stalls-and-recovers", pressure::empty_pool::<R>),
        ("flows-use-all-queues-and-keep-to-one", queues::spread::<R>),
        ("both-directions-of-a-flow-hash-alike", queues::symmetric::<R>),
        ("the-hash-is-the-toeplitz-hash", queues::toeplitz::<R>),
        ("every-queue-sends", queues::every_queue_sends::<R>),
        ("transmit-checksums-equal-software", checksums::transmit::<R>),
        ("receive-checksum-verdicts-are-true", checksums::verdicts::<R>),
        ("verdicts-are-given", checksums::verdicts_are_given::<R>),
        ("tcp-over-ipv4-is-cut-as-in-software", segmentation::tcp_v4::<R>),
        ("tcp-over-ipv6-is-cut-as-in-software", segmentation::tcp_v6::<R>),
        ("congestion-marks-stay-on-the-first-segment", segmentation::congestion::<R>),
        ("udp-is-cut-as-in-software", segmentation::udp::<R>),
        ("cutting-that-was-not-asked-for-is-refused", segmentation::not_asked_for::<R>),
        ("jumbo-frames-cross-buffers", jumbo::frames::<R>),
        ("frames-beyond-the-mtu-are-dropped-and-counted", jumbo::too_long::<R>),
        ("a-receiver-drops-and-counts-what-exceeds-its-mtu", jumbo::too_long_for_receiver::<R>),
        ("tags-pass-unharmed", tags::pass::<R>),
        ("tags-are-put-in", tags::insert::<R>),
        ("tags-are-put-in-beside-other-offloads", tags::insert_with_offloads::<R>),
        ("tags-are-taken-out", tags::strip::<R>),
        ("vlans-are-filtered", tags::filter::<R>),
        ("only-own-and-broadcast-frames-arrive", filters::own::<R>),
        ("promiscuous-mode-lets-all-in-and-ends", filters::promiscuous::<R>),
        ("groups-are-filtered", filters::groups::<R>),
        ("further-addresses-arrive", filters::further_addresses::<R>),
        ("more-addresses-than-places-all-arrive", filters::many_addresses::<R>),
        ("the-filter-outlives-a-restart", filters::outlives_restart::<R>),
        ("another-address-can-be-set", filters::own_address::<R>),
        ("counters-are-exact", counters::exact::<R>),
        ("the-card-counts-too", counters::statistics::<R>),
        ("statistics-have-names", counters::names::<R>),
        ("no-wake-up-is-lost", interrupts::no_lost_wake_up::<R>),
        ("polling-is-not-interrupted", interrupts::quiet_while_polling::<R>),
        ("the-link-goes-down-and-comes-up", lifecycle::link::<R>),
        ("restarts-under-traffic-bring-all-buffers-home", lifecycle::restarts::<R>),
        ("a-second-driver-finds-the-card-usable", lifecycle::opened_again::<R>),
        ("dropped-while-running-it-leaves-nothing", lifecycle::dropped_while_running::<R>),
    ]
}
