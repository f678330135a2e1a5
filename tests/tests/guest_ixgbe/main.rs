//! The real binary between two software 82599 cards, in QEMU guests with an Intel IOMMU, and the conformance suite there.
//!
//! As for virtio-net, one guest has the stock Debian kernel, with VFIO's group interface (type1) and its own driver for the
//! cards, and one has a small kernel with IOMMUFD, and no driver. In both, each card's wire is a tap in a namespace. Then,
//! for each kind of card, a guest whose cards are joined runs the conformance suite through the kernel's VFIO.

mod conformance;
mod faults;

use std::process::ExitCode;

use lab::cache::Kernel;
use lab::checks::{Case, Interface, binding, forwarding, lifecycle};
use lab::site::{Devices, Plan, Site};
use lab::suite::Suite;

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    for (interface, kernel) in [(Interface::Type1, Kernel::Stock), (Interface::Iommufd, Kernel::Iommufd)] {
        let mut site = Site::new(Plan::new(kernel, Devices::Ixgbe));
        binding::bind(&mut suite, &mut site, interface.name());
        for queues in [1, 2] {
            forwarding::all(&mut suite, &mut site, Case { interface, rings: None, queues });
        }
        let case = Case { interface, rings: None, queues: 2 };
        lifecycle::all(&mut suite, &mut site, case);
        faults::all(&mut suite, &mut site, case);
        binding::unbind(&mut suite, &mut site, interface.name());
        // Last, because the model keeps its record.
        faults::stray_dma(&mut suite, &mut site, case);
    }
    let mut doomed = Site::new(Plan::new(Kernel::Iommufd, Devices::Ixgbe));
    faults::removal(&mut suite, &mut doomed, Case { interface: Interface::Iommufd, rings: None, queues: 2 });
    drop(doomed);
    // One interface each: the drivers know nothing of it, and the traffic above takes both.
    conformance::all(&mut suite, Kernel::Iommufd, Devices::IxgbeJoined, Interface::Iommufd);
    conformance::all(&mut suite, Kernel::Stock, Devices::VirtioNetJoined, Interface::Type1);
    suite.finish()
}
