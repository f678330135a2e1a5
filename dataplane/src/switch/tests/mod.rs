#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

mod capture;
mod conservation;
mod elements;
mod order;
mod trace;

use std::sync::Arc;

use drivers::nic::MacAddress;
use hugemem::{Batch, Iova, Packet, PacketPool, Region};

use super::*;
use crate::clock::CycleClock;
use crate::flow::{Action, Domain, FlowIndex, FlowKey, FlowState, Output, Writer};
use crate::headers::parse;
use crate::overlay::Terminations;

/// Cycles of a second in tests.
const SECOND: u64 = 1_000_000_000;

/// Port slots of every test layout: 0 to 3 are virtual machines, 4 is an underlay.
const UNDERLAY: PortSlot = PortSlot(4);

fn pool(count: usize) -> PacketPool {
    Region::on_heap(count * 2304 + 4096, Iova::new(0)).unwrap().packets(count, 2048).unwrap()
}

fn bell() -> Arc<crate::bell::Bell> {
    Arc::new(crate::bell::Bell::new().unwrap())
}

fn options() -> PipelineOptions {
    PipelineOptions { upcalls: 4096, ..PipelineOptions::new(8, CycleClock::with_rate(SECOND)) }
}

fn domain(slot: u16) -> Domain {
    Domain::port(100 + u32::from(slot))
}

fn layout() -> Layout {
    let facts = |slot| PortFacts {
        domain: domain(slot),
        underlay: PortSlot(slot) == UNDERLAY,
        mtu: 0,
        upcalls: 4000,
        share: 1,
    };
    let port = |slot| Some(facts(slot));
    Layout {
        ports: (0..5).map(port).collect(),
        tunnels: Vec::new(),
        sets: Vec::new(),
        terminations: Terminations::default(),
        mirrors: [None; MOST_MIRRORS],
        translations: Arc::new(NatTable::new(16)),
    }
}

/// A pipeline with its table, alone.
struct World {
    writer: Writer,
    pipeline: Pipeline,
    desk: Desk,
    outputs: Outputs,
    pool: PacketPool,
    now: u64,
}

impl World {
    fn new(layout: Layout) -> Self {
        Self::with(layout, &options())
    }

    fn with(layout: Layout, options: &PipelineOptions) -> Self {
        let (writer, mut readers) = Writer::new(1024, 1).unwrap();
        let (pipeline, desk) = Pipeline::new(readers.remove(0), Arc::new(layout), pool(2048), options);
        Self { writer, pipeline, desk, outputs: Outputs::new(8, 4096), pool: pool(8192), now: SECOND }
    }

    fn packet(&mut self, frame: &[u8]) -> Packet {
        let mut packet = self.pool.take().unwrap();
        packet.write(frame).unwrap();
        packet
    }

    /// Publishes the flow of `frame` from port slot `from`.
    fn learn(&mut self, frame: &[u8], from: u16, action: &Action) -> FlowIndex {
        self.writer.insert(&key(frame, from), action, FlowState::Active, self.now).unwrap()
    }

    fn run(&mut self, frames: &[&[u8]], from: u16) {
        let mut batch = Batch::new(frames.len());
        for frame in frames {
            let packet = self.packet(frame);
            batch.push(packet).unwrap();
        }
        self.pipeline.run(&mut batch, PortSlot(from), self.now, &mut self.outputs);
        assert!(batch.is_empty());
    }

    fn attend(&mut self) {
        while self.pipeline.attend(self.now, &mut self.outputs) {}
    }

    /// What came out since the last time, by port slot.
    fn sent(&mut self) -> Vec<(u16, Vec<u8>)> {
        let mut sent = Vec::new();
        self.outputs.drain(|port, batch| {
            for packet in batch.drain_front(usize::MAX) {
                let mut bytes = vec![0; packet.len()];
                crate::whole::read(&packet, 0, &mut bytes);
                sent.push((port.0, bytes));
            }
        });
        sent
    }

    fn drops(&self, reason: Reason) -> u64 {
        self.pipeline.statistics().drops[reason as usize]
    }

    fn ticket(&mut self) -> Ticket {
        match self.desk.next_event() {
            Some(Event::Upcall(ticket)) => ticket,
            other => panic!("no upcall but {other:?}"),
        }
    }

    #[track_caller]
    fn assert_balanced(&self) {
        assert!(self.pipeline.statistics().is_balanced(), "{:?}", self.pipeline.statistics().flowing);
    }
}

fn key(frame: &[u8], from: u16) -> FlowKey {
    FlowKey::of(&parse(frame, frame.len()), frame, domain(from))
}

const fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

fn to(port: u16) -> Action {
    Action::to(Output::Port(port))
}

/// The sum of RFC 1071, word by word.
fn slow_sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut total: u32 = words.sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Sum over transport header, payload and pseudo header of an IPv4 or IPv6 frame without tags and options: all ones when its checksum is right.
fn transport_sum(frame: &[u8]) -> u16 {
    let v4 = frame[12] == 8;
    let (addresses, at, protocol) = if v4 { (26..34, 34, frame[23]) } else { (22..54, 54, frame[20]) };
    let mut all = frame[addresses].to_vec();
    all.extend([0, protocol]);
    all.extend((frame.len() as u16 - at as u16).to_be_bytes());
    all.extend(&frame[at..]);
    slow_sum(&all)
}

/// A UDP datagram with right checksums.
fn udp(source: [u8; 4], destination: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = [mac(2).0, mac(1).0].concat();
    let len = 28 + payload.len() as u16;
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(source);
    frame.extend(destination);
    let sum = !slow_sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ports.0.to_be_bytes());
    frame.extend(ports.1.to_be_bytes());
    frame.extend((len - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    let sum = !transport_sum(&frame);
    frame[40..42].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// A datagram of flow `flow`, the `number`th, with both in its payload. Eight flows in a row differ in their ports alone.
fn numbered(flow: u32, number: u32) -> Vec<u8> {
    let [_, b, c, d] = (flow / 8).to_be_bytes();
    let payload = [flow.to_be_bytes(), number.to_be_bytes()].concat();
    udp([10, b, c, d], [11, 0, 0, 1], (1000 + (flow % 8) as u16, 2000), &payload)
}

/// Flow and number of a datagram.
fn number_of(frame: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
    (word(42), word(46))
}
