//! The switch as it runs: emulated machines and hosts in namespaces at the ports of one `mirach run --config`.
//!
//! Every frame that reaches anybody is looked at: it is of a stream that this one was to get, byte for byte and in order, or
//! the check fails. At the end of each check the sums of the switch have to be exact.

mod changes;
mod flows;
mod groups;
mod hostile;
mod learning;
mod limits;
mod ports;
mod routes;
mod shares;
mod slices;
mod spoofing;
mod tags;
mod tenants;

use std::process::ExitCode;

use lab::suite::Suite;

fn main() -> ExitCode {
    if let Some(result) = hostile::child() {
        return result;
    }
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    suite.check("addresses-are-learned-and-move", learning::learned);
    suite.check("addresses-that-are-given-need-no-learning", learning::given);
    suite.check("what-is-for-all-reaches-all-others-once", learning::for_all);
    suite.check("ports-that-no-network-names-are-joined-pairwise", learning::wired);
    suite.check("a-trunk-carries-networks-by-their-tags", tags::trunk);
    suite.check("tags-lead-nowhere-else", tags::hopping);
    suite.check("tenants-with-the-same-addresses-never-meet", tenants::machines);
    suite.check("hosts-with-the-same-addresses-never-meet", tenants::hosts);
    suite.check("spoofed-frames-never-leave", spoofing::spoofed);
    suite.check("what-is-the-senders-own-passes", spoofing::honest);
    suite.check("groups-let-answers-pass-and-nothing-else", groups::tcp);
    suite.check("groups-take-back-what-they-gave", groups::taken_back);
    suite.check("routes-lead-between-networks", routes::hosts);
    suite.check("a-router-tells-whose-time-ran-out", routes::expired);
    suite.check("a-router-takes-a-hop-and-changes-nothing-else", routes::every_byte);
    suite.check("neighbours-are-answered-for", routes::neighbours);
    suite.check("packets-a-second-are-limited", limits::packets);
    suite.check("bits-a-second-are-limited", limits::bits);
    suite.check("broadcasts-are-limited", limits::broadcasts);
    suite.check("slices-come-change-and-go-under-load", slices::changed);
    suite.check("slices-share-engine-time-as-they-are-told", shares::weighed);
    suite.check("a-slice-has-no-more-flows-than-its-quota", slices::quota);
    suite.check("first-packets-of-100000-flows-are-neither-lost-nor-reordered", flows::many);
    suite.check("first-packets-cross-from-engine-to-engine", flows::two_engines);
    suite.check("10000-new-flows-a-second-lose-nothing", flows::sustained);
    suite.check("rules-change-for-all-packets-at-once", changes::atomic);
    suite.check("changes-elsewhere-are-not-noticed", changes::elsewhere);
    suite.check("ports-come-and-go-under-load", ports::come_and_go);
    suite.check("garbage-hurts-nobody-else", hostile::garbage);
    suite.check("a-machine-that-is-killed-hurts-nobody-else", hostile::killed);
    suite.finish()
}
