//! Our two ends of vhost-user against DPDK's, frame by frame.
//!
//! Its front-end: two `net_virtio_user` ports of testpmd are attached to `mirach run`, beside two emulated machines. What a machine
//! sends passes mirach, testpmd, which sends it on out of its other port, mirach again, and then the other machine:
//!
//!     machine 0 == mirach == virtio_user0  testpmd  virtio_user1 == mirach == machine 1
//!
//! Its back-end: the two machines, which are our own front-end, are attached to testpmd's `net_vhost` ports.
//!
//!     machine 0 == net_vhost0  testpmd  net_vhost1 == machine 1

mod backend;
mod frontend;
mod passages;

use std::process::ExitCode;

use lab::suite::Suite;

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    backend::all(&mut suite);
    frontend::all(&mut suite);
    suite.finish()
}
