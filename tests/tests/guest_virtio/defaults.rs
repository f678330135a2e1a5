//! Devices that offer little, used without options.

use lab::checks::forwarding::{By, ends, traffic};
use lab::checks::ports_say;
use lab::forwarder::{self, User};
use lab::site::{DEVICES, Site};
use lab::suite::Suite;

/// Devices that offer neither packed rings nor several queues, and a run with no options.
pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    let prefix = "defaults::split-only";
    suite.check(&format!("{prefix}::bind"), || {
        site.up()?.guest.must(&format!("mirach bind {}", DEVICES.join(" "))).map(drop)
    });
    suite.check(&format!("{prefix}::starts"), || {
        let [left, right] = DEVICES.map(|device| format!("--port {device}"));
        forwarder::start(&mut site.up()?.guest, User::Root, &format!("{left} {right} --memory 32M"))
    });
    suite.check(&format!("{prefix}::takes-split-rings-and-the-newer-interface"), || {
        ports_say(site.up()?, "ring split vfio iommufd")
    });
    traffic(suite, site, prefix, By::Mirach { queues: 1 });
    suite.check(&format!("{prefix}::ends-on-sigterm"), || ends(site.up()?));
}
