//! QEMU guests whose virtio-net devices are served by vhost-user.
//!
//! Two guests with stock Linux have ten links between them, one for each point of the matrix of ring formats, queue pairs,
//! offloads and socket roles, and some that differ at their ends; all of them go through one `mirach run`. A third guest runs
//! DPDK's testpmd on its devices, one of them behind an IOMMU, and a fourth is moved to another QEMU while packets flow.
//!
//! `MIRACH_LAB_SWITCH=testpmd` puts DPDK in the place of mirach: what fails then too is the lab's own fault, or QEMU's.

mod matrix;
mod migration;
mod network;
mod ordeals;
mod testpmd;

use std::process::ExitCode;

use lab::suite::Suite;

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    let mut network = network::Lazy::default();
    matrix::all(&mut suite, &mut network);
    ordeals::all(&mut suite, &mut network);
    testpmd::all(&mut suite, &mut network);
    migration::all(&mut suite, &mut network);
    suite.check("the-switch-ends-well", || network.end());
    suite.finish()
}
