//! The real binary between two virtio-net devices, in QEMU guests with an Intel IOMMU.
//!
//! Two guests serve all checks: the stock Debian kernel, which has VFIO's group interface (type1), and a small kernel
//! that has IOMMUFD too. Their devices offer packed rings and two queue pairs; which of them are used is what
//! `mirach run` is told. A third guest has devices that offer neither, and a fourth has huge pages of 1 GiB.

mod bus;
mod defaults;
mod idle;
mod pages;
mod stray;

use std::process::ExitCode;

use lab::cache::Kernel;
use lab::checks::{Case, Interface, binding, forwarding, lifecycle};
use lab::site::{Devices, Plan, Site};
use lab::suite::Suite;

/// A guest with this kernel, whose devices offer all that they can, and the programs that provoke faults.
fn plan(kernel: Kernel) -> Plan {
    let programs = &["mirach", "stray-dma", "exercise"];
    Plan { programs, ..Plan::new(kernel, Devices::VirtioNet { packed: true, queue_pairs: 2 }) }
}

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    for (interface, kernel) in [(Interface::Type1, Kernel::Stock), (Interface::Iommufd, Kernel::Iommufd)] {
        let mut site = Site::new(plan(kernel));
        if interface == Interface::Type1 {
            // Without mirach: what fails here is the lab's own fault.
            forwarding::kernel_bridge(&mut suite, &mut site, "lab::bridge");
        }
        binding::bind(&mut suite, &mut site, interface.name());
        for rings in ["split", "packed"] {
            for queues in [1, 2] {
                forwarding::all(&mut suite, &mut site, Case { interface, rings: Some(rings), queues });
            }
        }
        lifecycle::all(&mut suite, &mut site, Case { interface, rings: Some("packed"), queues: 2 });
        idle::all(&mut suite, &mut site, interface);
        if interface == Interface::Iommufd {
            pages::of_2m(&mut suite, &mut site);
        }
        bus::exercise(&mut suite, &mut site, interface);
        stray::dma(&mut suite, &mut site, interface);
        binding::unbind(&mut suite, &mut site, interface.name());
    }
    let small = plan(Kernel::Iommufd);
    let mut plain = Site::new(Plan { devices: Devices::VirtioNet { packed: false, queue_pairs: 1 }, ..small });
    defaults::all(&mut suite, &mut plain);
    drop(plain);
    let mut large = Site::new(Plan { memory_mib: pages::MEMORY_1G_MIB, parameters: pages::BOOT_1G, ..small });
    pages::of_1g(&mut suite, &mut large);
    suite.finish()
}
