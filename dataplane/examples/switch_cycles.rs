//! What the switch's pipeline costs a packet, alone: known flows from one port to another, no queues, no copies.
//!
//! `switch_cycles [FLOWS...]` (1, 1000 and 100000 unless given) prints a table: cycles a packet by batch size, for each number of flows, and then
//! what each element takes of it at batches of 32.

use std::error::Error;
use std::sync::Arc;

use dataplane::clock::{CycleClock, cycles};
use dataplane::flow::{Action, Domain, FlowKey, FlowState, Output, Reader, Writer};
use dataplane::headers::parse;
use dataplane::overlay::Terminations;
use dataplane::switch::{Layout, NatTable, Outputs, Pipeline, PipelineOptions, PortFacts, PortSlot, Stage};
use hugemem::{Batch, Iova, PacketPool, Region};

/// Packets of one measurement, and how often it is made: the fastest counts.
const PACKETS: usize = 1 << 18;
const TURNS: usize = 5;
const SIZES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

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

fn main() -> Result<(), Box<dyn Error>> {
    let given = std::env::args().skip(1).map(|flows| flows.parse()).collect::<Result<Vec<u32>, _>>()?;
    let counts = if given.is_empty() { vec![1, 1000, 100_000] } else { given };
    let clock = CycleClock::calibrate();
    println!("cycles a packet at {} MHz", clock.cycles_per_second() / 1_000_000);
    print!("{:>10}", "flows");
    SIZES.iter().for_each(|size| print!("{size:>8}"));
    println!("{:>8}", "gain");
    for flows in counts {
        let mut bench = Bench::new(flows, clock)?;
        print!("{flows:>10}");
        let mut costs = Vec::new();
        for size in SIZES {
            let cost = bench.measure(size)?;
            costs.push(cost);
            print!("{cost:>8.1}");
        }
        let fastest = costs.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{:>7.2}x", costs.first().map_or(0.0, |first| first / fastest));
        bench.elements(flows, clock)?;
    }
    Ok(())
}

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
    fn new(flows: u32, clock: CycleClock) -> Result<Self, Box<dyn Error>> {
        let (mut writer, mut readers) = Writer::new(flows.max(1024), 1)?;
        for flow in 0..flows {
            let mut frame = FRAME;
            frame[26..30].copy_from_slice(&source(flow));
            let key = FlowKey::of(&parse(&frame, frame.len()), &frame, DOMAIN);
            writer.insert(&key, &Action::to(Output::Port(1)), FlowState::Active, 0)?;
        }
        let reader = readers.pop().ok_or("a table without reader")?;
        let pipeline = Self::pipeline(reader, clock)?;
        let pool = Region::on_heap(1 << 20, Iova::new(0))?.packets(256, 2048)?;
        Ok(Self { pipeline, outputs: Outputs::new(2, 256), pool, flows, _writer: writer })
    }

    fn pipeline(reader: Reader, clock: CycleClock) -> Result<Pipeline, Box<dyn Error>> {
        let facts = PortFacts { domain: DOMAIN, underlay: false, upcalls: 8, share: 1 };
        let layout = Layout {
            ports: vec![Some(facts), None],
            tunnels: Vec::new(),
            sets: Vec::new(),
            terminations: Terminations::default(),
            oldest_generation: 0,
            mirror: None,
            translations: Arc::new(NatTable::new(0)),
        };
        let pool = Region::on_heap(1 << 18, Iova::new(0))?.packets(64, 2048)?;
        Ok(Pipeline::new(reader, Arc::new(layout), pool, &PipelineOptions::new(2, clock)).0)
    }

    /// Cycles a packet in batches of `size`.
    fn measure(&mut self, size: usize) -> Result<f64, Box<dyn Error>> {
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
        if batch.len() != size {
            return Err(format!("{} of {size} packets came out", batch.len()).into());
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        Ok(best as f64 / PACKETS as f64)
    }

    /// Prints what each element takes.
    fn elements(self, flows: u32, clock: CycleClock) -> Result<(), Box<dyn Error>> {
        drop(self);
        let mut fresh = Self::new(flows, clock)?;
        fresh.measure(32)?;
        let stages = fresh.pipeline.statistics().stages;
        for (stage, statistics) in Stage::ALL.iter().zip(stages) {
            if let Some(cost) = statistics.cycles_per_packet() {
                println!("{:>24} {cost:>6.1}", stage.name());
            }
        }
        Ok(())
    }
}
