//! The proof that the IOMMU's faults are seen.

use std::time::Duration;

use lab::checks::forwarding::ends;
use lab::checks::{Case, Interface};
use lab::pair::Pair;
use lab::site::{DEVICES, Site};
use lab::suite::Suite;
use lab::traffic::ping;
use lab::wait;

/// DMA to an address that nothing is mapped at shows up, and does not keep the device from being used again.
pub(crate) fn dma(suite: &mut Suite, site: &mut Site, interface: Interface) {
    let prefix = interface.name();
    let case = Case { interface, rings: Some("split"), queues: 1 };
    let [device, _] = DEVICES;
    suite.check(&format!("{prefix}::stray-dma-is-seen"), || {
        let site = site.up()?;
        site.no_iommu_fault()?;
        // Twice: the kernel leaves out reports when there were many, which must not hide what comes after this check.
        for time in ["first", "second"] {
            wait::until(&format!("the {time} fault in the kernel's log"), Duration::from_secs(60), || {
                site.guest.must(&format!("stray-dma {device} {}", interface.name()))?;
                Ok((!site.guest.iommu_faults()?.is_empty()).then_some(()))
            })?;
            site.guest.must("dmesg -c > /dev/null")?;
        }
        Ok(())
    });
    suite.check(&format!("{prefix}::runs-after-stray-dma"), || {
        let site = site.up()?;
        case.start(site)?;
        ping(&site.pair.left, Pair::RIGHT, 50)?;
        ends(site)
    });
}
