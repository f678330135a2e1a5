//! What the switch's pipeline costs a packet, alone: known flows from one port to another, no queues, no copies.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dataplane::clock::{CycleClock, cycles};
use dataplane::flow::{Action, Domain, FlowKey, FlowState, Output, Reader, Writer};
use dataplane::headers::parse;
use dataplane::overlay::Terminations;
use dataplane::switch::{Layout, NatTable, Outputs, Pipeline, PipelineOptions, PortFacts, PortSlot, Stage};
use hugemem::{Batch, Iova, PacketPool, Region};

use super::BATCHES;

/// Packets of one measurement, and how often it is made: the fastest counts.
const PACKETS: usize = 1 << 18;
const TURNS: usize = 5;
/// The batch in which elements are timed.
const TIMED: usize = 32;

/// What a packet costs with a number of flows.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) flows: u32,
    /// Sizes of batches, and cycles a packet.
    pub(super) batches: Vec<(usize, f64)>,
    /// What elements take of it in batches of 32, in cycles a packet.
    pub(super) elements: Vec<(&'static str, f64)>,
}

impl Sweep {
    /// How many times as fast the best batch is as packets one by one.
    pub(super) fn gain(&self) -> f64 {
        let fastest = self.batches.iter().map(|(_, cycles)| *cycles).fold(f64::INFINITY, f64::min);
        self.batches.first().map_or(f64::NAN, |(_, first)| first / fastest)
    }
}

/// Measures batches of all sizes with so many flows, which come one after the other in an order that no cache foresees.
pub(super) fn sweep(flows: u32, clock: CycleClock) -> Result<Sweep> {
    let mut bench = Bench::new(flows, clock)?;
    let batches = BATCHES.iter().map(|size| Ok((*size, bench.measure(*size)?))).collect::<Result<_>>()?;
    drop(bench);
    let mut fresh = Bench::new(flows, clock)?;
    fresh.measure(TIMED)?;
    let stages = fresh.pipeline.statistics().stages;
    let elements = Stage::ALL.iter().zip(stages);
    let elements = elements.filter_map(|(stage, statistics)| Some((stage.name(), statistics.cycles_per_packet()?)));
    Ok(Sweep { flows, batches, elements: elements.collect() })
}

const DOMAIN: Domain = Domain::port(1);

/// A datagram of 64 bytes; bytes 26 to 29 are the source address, by which flows differ. Checksums are not looked at.
const FRAME: [u8; 64] = {
    let mut frame = [0; 64];
    let head = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 0, 11, 0, 0, 1,
        3, 232, 7, 208, 0, 30,
    ];
    let mut at = 0;
    while at < head.len() {
        frame[at] = head[at];
        at += 1;
    }
    frame
};

struct Bench {
    pipeline: Pipeline,
    outputs: Outputs,
    pool: PacketPool,
    flows: u32,
    /// Keeps the table writable for as long as it is read.
    _writer: Writer,
}

fn source(flow: u32) -> [u8; 4] {
    let [_, b, c, d] = flow.to_be_bytes();
    [10, b, c, d]
}

impl Bench {
    fn new(flows: u32, clock: CycleClock) -> Result<Self> {
        let (mut writer, mut readers) = Writer::new(flows.max(1024), 1)?;
        for flow in 0..flows {
            let mut frame = FRAME;
            frame[26..30].copy_from_slice(&source(flow));
            let key = FlowKey::of(&parse(&frame, frame.len()), &frame, DOMAIN);
            writer.insert(&key, &Action::to(Output::Port(1)), FlowState::Active, 0)?;
        }
        let reader = readers.pop().context("a table with one reader has none")?;
        let pipeline = Self::pipeline(reader, clock)?;
        let pool = Region::on_heap(1 << 20, Iova::new(0))?.packets(256, 2048)?;
        Ok(Self { pipeline, outputs: Outputs::new(2, 256), pool, flows, _writer: writer })
    }

    fn pipeline(reader: Reader, clock: CycleClock) -> Result<Pipeline> {
        let facts = PortFacts { domain: DOMAIN, underlay: false, mtu: 0, upcalls: 8, share: 1 };
        let layout = Layout {
            ports: vec![Some(facts), None],
            tunnels: Vec::new(),
            sets: Vec::new(),
            terminations: Terminations::default(),
            mirrors: [None; dataplane::switch::MOST_MIRRORS],
            translations: Arc::new(NatTable::new(0)),
        };
        let pool = Region::on_heap(1 << 18, Iova::new(0))?.packets(64, 2048)?;
        Ok(Pipeline::new(reader, Arc::new(layout), pool, &PipelineOptions::new(2, clock)).0)
    }

    /// Cycles a packet in batches of `size`.
    fn measure(&mut self, size: usize) -> Result<f64> {
        let mut batch = Batch::new(size);
        while let Some(mut packet) = (batch.room() > 0).then(|| self.pool.take()).flatten() {
            packet.write(&FRAME)?;
            if batch.push(packet).is_err() {
                break;
            }
        }
        let mut best = u64::MAX;
        let mut flow = 0_u32;
        for _ in 0..TURNS {
            let mut spent = 0;
            for _ in 0..PACKETS / size {
                for packet in batch.iter_mut() {
                    // A step that visits all flows in an order that no cache foresees.
                    flow = (flow.wrapping_add(0x9e37_79b1)) % self.flows;
                    if let Some(place) = packet.bytes_mut().get_mut(26..30) {
                        place.copy_from_slice(&source(flow));
                    }
                }
                let start = cycles();
                self.pipeline.run(&mut batch, PortSlot(0), start, &mut self.outputs);
                spent += cycles().saturating_sub(start);
                self.outputs.drain(|_, sent| {
                    for packet in sent.drain_front(size) {
                        // There is room: it came from there.
                        let _ = batch.push(packet);
                    }
                });
            }
            best = best.min(spent);
        }
        ensure!(batch.len() == size, "{} of {size} packets came out", batch.len());
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        Ok(best as f64 / PACKETS as f64)
    }
}
