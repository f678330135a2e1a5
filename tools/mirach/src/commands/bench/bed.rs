//! What is measured: queues, where their packets come from and where they go.

use std::time::Duration;

use anyhow::{Context, bail};
use dataplane::clock::CycleClock;
use dataplane::port::open::BUFFER_ROOM;
use dataplane::port::{MemoryOptions, NamedSpec, Port, PortQueue, PortSpec, Ports, generator, null};
use hugemem::{HEADROOM, Iova, Region};

use super::measure::{Cost, Meter};
use crate::embedded::{Cards, Driver, Plan};

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Case {
    /// Receiving.
    Receive,
    /// Transmitting.
    Transmit,
    /// Receiving, then transmitting.
    Forward,
}

impl Case {
    /// Its name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Transmit => "transmit",
            Self::Forward => "forward",
        }
    }
}

/// Packets go from one queue to another, and some of the cases mean something.
struct Pass {
    from: usize,
    to: usize,
    cases: &'static [Case],
}

/// Queues to measure.
pub(crate) struct Bed {
    /// What it is called in reports.
    pub(crate) name: String,
    /// Bytes of its frames; 0 when others decide on that.
    pub(crate) frame_bytes: u16,
    queues: Vec<PortQueue>,
    passes: Vec<Pass>,
}

/// What to do with each bed.
pub(crate) type Visit<'a> = dyn FnMut(&mut Bed) -> anyhow::Result<()> + 'a;

const ALL: &[Case] = &[Case::Receive, Case::Transmit, Case::Forward];

impl Bed {
    /// Measures all cases with one burst, for about `limit` cycles each.
    pub(crate) fn run(&mut self, burst: usize, limit: u64, meter: &Meter) -> [Option<Cost>; 3] {
        let mut costs = [None; 3];
        for pass in &self.passes {
            let measured = if pass.from == pass.to {
                self.queues.get_mut(pass.from).map(|queue| meter.run(&mut *queue.rx, &mut *queue.tx, burst, limit))
            } else {
                match self.queues.get_disjoint_mut([pass.from, pass.to]) {
                    Ok([from, to]) => Some(meter.run(&mut *from.rx, &mut *to.tx, burst, limit)),
                    Err(_) => None,
                }
            };
            for case in pass.cases {
                costs[*case as usize] = measured.and_then(|measured| measured[*case as usize]);
            }
        }
        costs
    }
}

/// The forwarder's own floor: frames from a generator go to a port that discards them.
pub(crate) fn floor(sizes: &[u16], visit: &mut Visit<'_>) -> anyhow::Result<()> {
    for size in sizes {
        let spec = generator_spec(*size)?;
        let PortSpec::Generator(generator) = &spec else { continue };
        let region = Region::on_heap(1024 * (BUFFER_ROOM + HEADROOM) + 65_536, Iova::new(1 << 30))
            .context("cannot allocate packet memory")?;
        let pool = region.packets(1024, BUFFER_ROOM)?;
        let (mut queues, _control) = generator::open(generator, CycleClock::calibrate(), vec![pool]);
        queues.push(null::queue());
        let passes = vec![Pass { from: 0, to: 1, cases: ALL }];
        visit(&mut Bed { name: "generator to null".to_owned(), frame_bytes: *size, queues, passes })?;
    }
    Ok(())
}

/// A driver on two card models, which work on another core.
pub(crate) fn of_driver(
    driver: Driver,
    sizes: &[u16],
    core: Option<usize>,
    visit: &mut Visit<'_>,
) -> anyhow::Result<()> {
    for size in sizes {
        let plan = Plan { driver, frame_bytes: *size, queues: 1, window: 0, both_ways: false, core };
        let (cards, mut ports) = Cards::plug(plan)?;
        let queues: Vec<PortQueue> = ports.iter_mut().flat_map(|port| port.queues.drain(..)).collect();
        let passes = vec![Pass { from: 0, to: 1, cases: ALL }];
        let mut bed = Bed { name: driver.to_string(), frame_bytes: *size, queues, passes };
        cards.begin();
        let visited = visit(&mut bed);
        cards.drain(Duration::ZERO);
        stop(ports, bed.queues)?;
        visited?;
        let complaints = cards.complaints();
        if !complaints.is_empty() {
            bail!("the card models hold against the driver: {}", complaints.join("; "));
        }
    }
    Ok(())
}

/// Any port: what it receives is discarded, a generator feeds it, and it sends back what it receives.
pub(crate) fn of_port(spec: &PortSpec, sizes: &[u16], visit: &mut Visit<'_>) -> anyhow::Result<()> {
    // The generators share the port's packet memory, so a card can reach their frames.
    let mut specs = vec![spec.clone(), PortSpec::Null];
    for size in sizes {
        specs.extend([generator_spec(*size)?, PortSpec::Null]);
    }
    let specs: Vec<NamedSpec> = specs.into_iter().map(NamedSpec::from).collect();
    let mut ports = Ports::open(&specs, &MemoryOptions { bytes: 256 << 20, ..MemoryOptions::default() })?;
    for notice in ports.iter().flat_map(|port| &port.notices) {
        eprintln!("note: {notice}");
    }
    // One queue of each port, in the order of `specs`.
    let queues: Vec<PortQueue> = ports.iter_mut().filter_map(|port| port.queues.drain(..).next()).collect();
    let is_source = matches!(spec, PortSpec::Generator(_));
    let is_null = matches!(spec, PortSpec::Null);
    let mut bed = Bed { name: spec.to_string(), frame_bytes: 0, queues, passes: Vec::new() };
    let mut visited = Ok(());
    for (index, size) in sizes.iter().enumerate() {
        bed.frame_bytes = match spec {
            // A generator that is measured has a frame length of its own.
            PortSpec::Generator(generator) => generator.size.longest,
            _ => *size,
        };
        let feeder = 2 + 2 * index;
        bed.passes = if is_source {
            vec![Pass { from: 0, to: 1, cases: ALL }]
        } else if is_null {
            vec![Pass { from: feeder, to: 0, cases: &[Case::Transmit] }]
        } else {
            vec![
                Pass { from: feeder, to: 0, cases: &[Case::Transmit] },
                Pass { from: 0, to: 1, cases: &[Case::Receive] },
                Pass { from: 0, to: 0, cases: &[Case::Forward] },
            ]
        };
        visited = visit(&mut bed);
        if visited.is_err() || is_source {
            break;
        }
    }
    stop(ports, bed.queues)?;
    visited
}

fn generator_spec(size: u16) -> anyhow::Result<PortSpec> {
    Ok(format!("gen=max,size={size}").parse()?)
}

/// Stops ports, whose first queues are `queues`, in the same order.
fn stop(ports: Vec<Port>, queues: Vec<PortQueue>) -> anyhow::Result<()> {
    for (mut port, queue) in ports.into_iter().zip(queues) {
        port.control.stop(vec![queue])?;
    }
    Ok(())
}
