//! The real binary between two virtio-net devices, in QEMU guests with an Intel IOMMU.
//!
//! Two guests serve all checks: the stock Debian kernel, which has VFIO's group interface (type1), and a small kernel
//! that has IOMMUFD too. Their devices offer packed rings and two queue pairs; which of them are used is what
//! `mirach run` is told. A third guest has devices that offer neither.

mod binding;
mod forwarding;
mod lifecycle;

use std::process::ExitCode;

use lab::cache::Kernel;
use lab::site::{Plan, Site};
use lab::suite::Suite;

/// VFIO's interfaces to user space, by the name that they have in a port's specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    Type1,
    Iommufd,
}

impl Interface {
    fn name(self) -> &'static str {
        match self {
            Self::Type1 => "type1",
            Self::Iommufd => "iommufd",
        }
    }
}

fn main() -> ExitCode {
    lab::leftovers::remove();
    let mut suite = Suite::from_arguments();
    for (interface, kernel) in [(Interface::Type1, Kernel::Stock), (Interface::Iommufd, Kernel::Iommufd)] {
        let mut site = Site::new(Plan { kernel, packed: true, queue_pairs: 2 });
        if interface == Interface::Type1 {
            // Without mirach: what fails here is the lab's own fault.
            forwarding::kernel_bridge(&mut suite, &mut site);
        }
        binding::bind(&mut suite, &mut site, interface);
        for rings in ["split", "packed"] {
            for queues in [1, 2] {
                forwarding::all(&mut suite, &mut site, forwarding::Case { interface, rings, queues });
            }
        }
        lifecycle::all(&mut suite, &mut site, interface);
        binding::stray_dma(&mut suite, &mut site, interface);
        binding::unbind(&mut suite, &mut site, interface);
    }
    let mut plain = Site::new(Plan { kernel: Kernel::Iommufd, packed: false, queue_pairs: 1 });
    forwarding::defaults(&mut suite, &mut plain);
    suite.finish()
}
