//! Ends under load, second runs on the same devices, and use without rights.

use std::time::Duration;

use crate::checks::forwarding::ends;
use crate::checks::{Case, Interface};
use crate::forwarder::{self, User};
use crate::pair::{INTERFACE, Pair};
use crate::site::{Booted, DEVICES, Site};
use crate::suite::Suite;
use crate::traffic::{load, ping, received_bytes, wait_for_path};
use crate::wait;
use anyhow::{Result, bail};

/// So much has to have passed before a run counts as loaded.
const LOAD_BYTES: u64 = 2 << 20;

/// Enough for the memory of the runs of this suite, which is mapped once for each device.
const LOCKABLE_KIB: u32 = 256 << 10;

/// All of them; best with two queue pairs, which have most to be torn down.
pub fn all(suite: &mut Suite, site: &mut Site, case: Case) {
    let interface = case.interface;
    let prefix = interface.name();
    suite.check(&format!("{prefix}::sigterm-under-load-then-a-second-run"), || {
        let site = site.up()?;
        loaded(site, case, ends)?;
        second_run(site, case)
    });
    suite.check(&format!("{prefix}::sigkill-under-load-then-a-second-run"), || {
        let site = site.up()?;
        loaded(site, case, |site| match forwarder::signal(&mut site.guest, "KILL")? {
            137 => Ok(()),
            other => bail!("mirach ended with status {other} after SIGKILL"),
        })?;
        second_run(site, case)
    });
    suite.check(&format!("{prefix}::runs-without-root"), || {
        let site = site.up()?;
        give_devices_to_plain_user(site, interface)?;
        forwarder::start(&mut site.guest, User::Plain { lockable_kib: LOCKABLE_KIB }, &case.arguments())?;
        let user = site.guest.must("stat -c %U /proc/$(cat /tmp/mirach.pid)")?;
        if user.trim() != "plain" {
            bail!("it runs as {}", user.trim());
        }
        case.took_effect(site)?;
        wait_for_path(&site.pair.left, Pair::RIGHT)?;
        ping(&site.pair.left, Pair::RIGHT, 50)?;
        ends(site)
    });
    suite.check(&format!("{prefix}::a-memory-lock-limit-that-is-too-low-is-named"), || {
        let site = site.up()?;
        let (status, printed) = forwarder::fail(&mut site.guest, User::Plain { lockable_kib: 64 }, &case.arguments())?;
        if status != 1 || !(printed.to_lowercase().contains("memlock") || printed.contains("ulimit -l")) {
            bail!("status {status}: {printed}");
        }
        Ok(())
    });
}

/// Starts mirach and a TCP stream, and calls `then` while the stream flows.
///
/// # Errors
///
/// Nothing flows, or `then` failed.
pub fn loaded(site: &mut Booted, case: Case, then: impl FnOnce(&mut Booted) -> Result<()>) -> Result<()> {
    case.start(site)?;
    let _streams = load(&site.pair.left, &site.pair.right, Pair::RIGHT)?;
    flows(site)?;
    then(site)
}

/// Waits until a stream that is there has passed some more.
///
/// # Errors
///
/// It stands still.
pub fn flows(site: &mut Booted) -> Result<()> {
    let before = received_bytes(&site.pair.right, INTERFACE)?;
    wait::until("a TCP stream through mirach", Duration::from_secs(60), || {
        Ok((received_bytes(&site.pair.right, INTERFACE)? > before + LOAD_BYTES).then_some(()))
    })
}

fn second_run(site: &mut Booted, case: Case) -> Result<()> {
    case.start(site)?;
    ping(&site.pair.left, Pair::RIGHT, 50)?;
    ends(site)
}

/// What an administrator does once, or a udev rule at each boot.
fn give_devices_to_plain_user(site: &mut Booted, interface: Interface) -> Result<()> {
    for device in DEVICES {
        match interface {
            Interface::Type1 => {
                let group = site.iommu_group(device)?;
                site.guest.must(&format!("chown plain /dev/vfio/{group}"))?;
            }
            Interface::Iommufd => {
                let directory = format!("/sys/bus/pci/devices/{device}/vfio-dev");
                site.guest.must(&format!("chown plain /dev/iommu /dev/vfio/devices/$(ls {directory})"))?;
            }
        }
    }
    Ok(())
}
