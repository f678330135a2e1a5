//! The real binary between two virtio-net devices, in QEMU guests with an Intel IOMMU.
//!
//! Two guests serve all checks: the stock Debian kernel, which has VFIO's group interface (type1), and a small kernel
//! that has IOMMUFD too. Their devices offer packed rings and two queue pairs; which of them are used is what
//! `mirach run` is told. A third guest has devices that offer neither, and a fourth has huge pages of 1 GiB.

mod binding;
mod bus;
mod forwarding;
mod idle;
mod lifecycle;
mod pages;

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
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    for (interface, kernel) in [(Interface::Type1, Kernel::Stock), (Interface::Iommufd, Kernel::Iommufd)] {
        let mut site = Site::new(Plan::new(kernel));
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
        idle::all(&mut suite, &mut site, interface);
        if interface == Interface::Iommufd {
            pages::of_2m(&mut suite, &mut site);
        }
        bus::exercise(&mut suite, &mut site, interface);
        binding::stray_dma(&mut suite, &mut site, interface);
        binding::unbind(&mut suite, &mut site, interface);
    }
    let small = Plan::new(Kernel::Iommufd);
    let mut plain = Site::new(Plan { packed: false, queue_pairs: 1, ..small });
    forwarding::defaults(&mut suite, &mut plain);
    drop(plain);
    let mut large = Site::new(Plan { memory_mib: pages::MEMORY_1G_MIB, parameters: pages::BOOT_1G, ..small });
    pages::of_1g(&mut suite, &mut large);
    suite.finish()
}
