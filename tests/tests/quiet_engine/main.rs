//! A loaded engine makes no system call but signals by eventfd, takes no lock, and neither takes nor gives back memory.
//!
//! The engine's thread of the real binary is traced while machines talk through it: as it is, while flows are new, and while
//! everything about the switch is changed and asked for. That a call would be seen is shown by an engine that sleeps.
//! Then it is followed instruction by instruction, and none may be of a lock, wanted by others or not.
//! Allocations are counted by the thread that makes them, with the forwarder in this process.

mod allocations;
mod calls;
mod code;
mod inside;
mod locks;
mod memory;
mod scene;
mod steps;

use std::process::ExitCode;

use lab::suite::Suite;

use scene::Load;

#[global_allocator]
static COUNTING: allocations::Counting = allocations::Counting;

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    suite.check("a-system-call-is-seen", calls::seen);
    for load in Load::ALL {
        suite.check(&format!("{}-make-no-system-call", load.name()), || calls::none(load));
    }
    suite.check("a-lock-is-seen", locks::seen);
    for load in Load::ALL {
        suite.check(&format!("{}-take-no-lock", load.name()), || locks::none(load));
    }
    suite.check("an-allocation-is-seen", memory::seen);
    for load in Load::ALL {
        suite.check(&format!("{}-allocate-nothing", load.name()), || memory::none(load));
    }
    suite.finish()
}
