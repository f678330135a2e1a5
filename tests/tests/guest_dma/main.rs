//! Our drivers of copy engines in QEMU guests with an Intel IOMMU, on software engines, through the kernel's real VFIO.
//!
//! One guest has the stock Debian kernel, with VFIO's group interface (type1) and its own driver for the engine, and one has a small kernel with IOMMUFD, and
//! no driver. In both the conformance suite of copy engines runs first, after which neither the IOMMU nor the model may have anything on record. Then
//! memory is reached for that is not mapped, which both have to record, and in the end the engine is pulled out.

mod engine;
mod site;

use std::process::ExitCode;

use lab::cache::Kernel;
use lab::checks::Interface;
use lab::suite::Suite;

use crate::site::Site;

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    for (interface, kernel) in [(Interface::Type1, Kernel::Stock), (Interface::Iommufd, Kernel::Iommufd)] {
        let mut site = Site::new(kernel);
        for number in 0..site::ENGINES.len() {
            engine::all(&mut suite, &mut site, interface, number);
        }
        // Last, because an engine that was pulled out is gone for good.
        for number in 0..site::ENGINES.len() {
            engine::removal(&mut suite, &mut site, interface, number);
        }
    }
    suite.finish()
}
