//! Kernel mode: each monitor writes to a TAP and reads from it, and a Linux bridge joins the two TAPs.
//!
//! TAPs and bridge live in a network namespace that nobody else has. It goes with the last descriptor of the TAPs, however this process ends.

use anyhow::{Context, anyhow};
use dataplane::port::tap::{Tap, TapControl};
use dataplane::port::{PortControl, TapSpec};
use hugemem::IovaSpace;

use super::bridge::{self, Bridge};
use super::card::{Card, MachineMemory};
use super::modes::{Bed, Cores, Host};
use super::vmm::Monitor;

/// Names of the interfaces, in a namespace of their own.
const TAPS: [&str; 2] = ["vm0", "vm1"];
const BRIDGE: &str = "ladder";

/// Builds it.
pub(super) fn open(cores: &Cores) -> anyhow::Result<Bed> {
    // A thread that has moved to a namespace does not come back.
    let made = std::thread::Builder::new().name("namespace".to_owned()).spawn(make).context("cannot start a thread")?;
    let taps = made.join().map_err(|_| anyhow!("the thread that makes TAPs failed"))??;
    let (mut monitors, mut controls, mut cards) = (Vec::new(), Vec::new(), Vec::new());
    let mut space = IovaSpace::unlimited();
    for (index, tap) in taps.into_iter().enumerate() {
        let MachineMemory { sources, receiving, .. } = MachineMemory::new(&mut space)?;
        let (queues, control) = tap.start(vec![receiving]);
        let queue = queues.into_iter().next().context("a TAP without queues")?;
        let (monitor, card) = Monitor::start(index, cores.host(index), queue, sources)?;
        monitors.push(monitor);
        controls.push(control);
        cards.push(card);
    }
    let cards = <[Card; 2]>::try_from(cards).map_err(|_| anyhow!("there are two machines"))?;
    Ok(Bed { cards, host: Box::new(Kernel { monitors, controls }) })
}

/// Makes two TAPs and a bridge between them, in a new namespace that the calling thread is in from now on.
fn make() -> anyhow::Result<Vec<Tap>> {
    bridge::enter_new_namespace().map_err(|error| {
        let remedy = match error {
            rustix::io::Errno::PERM => "run it as root, or leave kernel mode out with --mode helper,direct",
            _ => "this kernel may lack network namespaces (CONFIG_NET_NS); leave kernel mode out with --mode helper,direct",
        };
        anyhow!("kernel mode: cannot make a network namespace: {error}; {remedy}")
    })?;
    // Router solicitations and the like would be frames that no machine sent. A kernel without IPv6 has no such file.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let bridge = Bridge::new(BRIDGE).map_err(|error| {
        anyhow!("kernel mode: cannot make a bridge: {error}; load it with: sudo modprobe bridge, or leave kernel mode out with --mode helper,direct")
    })?;
    TAPS.into_iter()
        .map(|name| {
            let tap = Tap::open(name, &TapSpec { name: name.to_owned(), queues: 1 }).context("kernel mode")?;
            bridge.add(name).with_context(|| format!("kernel mode: cannot put the TAP {name} on a bridge"))?;
            Ok(tap)
        })
        .collect()
}

/// Two monitors, TAPs and a bridge.
struct Kernel {
    monitors: Vec<Monitor>,
    controls: Vec<TapControl>,
}

impl Host for Kernel {
    fn tend(&mut self) -> anyhow::Result<()> {
        self.controls.iter_mut().try_for_each(PortControl::check)?;
        anyhow::ensure!(!self.monitors.iter().any(Monitor::has_failed), "a monitor failed");
        Ok(())
    }

    fn stop(mut self: Box<Self>, cards: [Card; 2]) -> anyhow::Result<()> {
        drop(cards);
        for (monitor, control) in self.monitors.iter_mut().zip(&mut self.controls) {
            let queue = monitor.stop().context("a monitor failed")?;
            control.stop(vec![queue])?;
        }
        Ok(())
    }
}
