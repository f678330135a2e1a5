//! Two open cards with their queues and memory, and how packets get from one to the other.

use anyhow::{Context, Result, anyhow, bail, ensure};
use drivers::nic::{Config, Counters, Nic, Offloads, QueuePair, RxQueue, TxQueue};
use hugemem::{Batch, Checksum, Metadata, Packet, PacketPool};

use super::frame;
use super::patience::Wait;
use super::rig::Rig;
use super::segment::segments;

/// Room of each buffer.
pub(super) const ROOM: usize = 2048;
/// An address that is nobody's.
pub(super) const STRANGER: [u8; 6] = [0x02, 0x6d, 0x69, 0x72, 0x00, 0xfe];
/// Everybody's.
pub(super) const BROADCAST: [u8; 6] = [0xff; 6];
/// Length of the frame that ends a delivery; no other frame has its bytes.
const LAST: usize = 77;

/// A driver's queue pairs.
pub(super) type Pairs<N> = Vec<QueuePair<<N as Nic>::Rx, <N as Nic>::Tx, <N as Nic>::Interrupt>>;

/// How one side is set up.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) config: Config,
    /// Receive buffers of each queue pair.
    pub(super) buffers: usize,
    /// Packets that it can have underway.
    pub(super) sources: usize,
}

impl Default for Plan {
    /// One queue pair of 256 descriptors that receives everything, for frames of 1514 bytes whose tags stay where they are.
    fn default() -> Self {
        let offloads = Offloads::all() - Offloads::VLAN_STRIP;
        Self { config: Config { mtu: Some(1500), offloads, ..Config::default() }, buffers: 512, sources: 1024 }
    }
}

impl Plan {
    /// The default with a change.
    pub(super) fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut plan = Self::default();
        change(&mut plan);
        plan
    }
}

/// One card.
pub(super) struct Side<N: Nic> {
    pub(super) nic: N,
    pub(super) queues: Pairs<N>,
    /// Where packets to send come from.
    pub(super) sources: PacketPool,
    scratch: Batch,
}

/// A frame as it came.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    /// On which queue pair.
    pub(super) queue: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) metadata: Metadata,
}

impl Arrived {
    fn new(queue: usize, packet: &Packet) -> Self {
        let mut bytes = vec![0; packet.len()];
        let copied = packet.copy_to(0, &mut bytes);
        bytes.truncate(copied);
        Self { queue, bytes, metadata: *packet.metadata() }
    }

    /// The frames as a wire has them: what the cable left to be done is done in software.
    pub(super) fn settled(&self) -> Result<Vec<Vec<u8>>> {
        if let Some(segmentation) = self.metadata.segmentation {
            return segments(&self.bytes, segmentation.size);
        }
        let mut bytes = self.bytes.clone();
        if let Checksum::Partial { start, offset } = self.metadata.checksum {
            frame::complete(&mut bytes, start, offset)?;
        }
        Ok(vec![bytes])
    }
}

impl<N: Nic> Side<N> {
    fn open<R: Rig<Nic = N>>(rig: &mut R, side: usize, plan: Plan) -> Result<Self> {
        let pairs = usize::from(plan.config.queue_pairs);
        let buffers = pairs * plan.buffers + plan.sources;
        let bytes = rig.ring_memory(&plan.config) + buffers * (ROOM + 192) + (64 << 10);
        let memory = rig.memory(side, bytes)?;
        let pools = (0..pairs).map(|_| memory.packets(plan.buffers, ROOM)).collect::<Result<Vec<_>, _>>()?;
        let sources = memory.packets(plan.sources, ROOM)?;
        let nic = rig.open(side, plan.config.clone(), &memory, pools).with_context(|| format!("open side {side}"))?;
        Ok(Self { nic, queues: Vec::new(), sources, scratch: Batch::new(64) })
    }

    pub(super) fn start(&mut self) -> Result<()> {
        self.queues = self.nic.start()?;
        ensure!(!self.queues.is_empty(), "a card without queues");
        Ok(())
    }

    /// Stops the card with all its queues.
    pub(super) fn stop(&mut self) -> Result<()> {
        let queues = self.queues.drain(..).map(|pair| (pair.rx, pair.tx)).collect();
        Ok(self.nic.stop(queues)?)
    }

    pub(super) fn mac(&self) -> [u8; 6] {
        self.nic.mac().0
    }

    /// A packet with these bytes, in as many buffers as that takes.
    pub(super) fn packet(&mut self, bytes: &[u8]) -> Result<Packet> {
        self.packet_in_pieces(bytes, std::iter::repeat(ROOM))
    }

    /// A packet with these bytes in pieces of these sizes; the last takes what is left, as far as it goes.
    pub(super) fn packet_in_pieces(&mut self, bytes: &[u8], sizes: impl IntoIterator<Item = usize>) -> Result<Packet> {
        let mut rest = bytes;
        let mut packet: Option<Packet> = None;
        for size in sizes {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            let mut part = self.sources.take().context("the suite has no packet left: sent ones do not come back")?;
            part.write(piece)?;
            match &mut packet {
                None => packet = Some(part),
                Some(packet) => packet.append(part).map_err(|_| anyhow!("the packet is too long"))?,
            }
            if rest.is_empty() {
                break;
            }
        }
        ensure!(rest.is_empty(), "{} bytes do not fit into the pieces", bytes.len());
        packet.context("a packet in no pieces")
    }

    /// Everything that has been received, on all queues, once.
    pub(super) fn receive(&mut self) -> Vec<Arrived> {
        let mut all = Vec::new();
        for (queue, pair) in self.queues.iter_mut().enumerate() {
            pair.rx.receive(&mut self.scratch);
            all.extend(self.scratch.iter().map(|packet| Arrived::new(queue, packet)));
            self.scratch.clear();
        }
        all
    }

    /// Takes sent packets back; how many are still underway.
    pub(super) fn reclaim(&mut self) -> usize {
        self.queues.iter_mut().map(|pair| pair.tx.reclaim()).sum()
    }

    /// The sum over all queues: what was received, and what was sent.
    pub(super) fn counters(&self) -> (Counters, Counters) {
        fn sum(all: impl Iterator<Item = Counters>) -> Counters {
            all.fold(Counters::default(), |mut sum, one| {
                sum.packets += one.packets;
                sum.bytes += one.bytes;
                for reason in drivers::nic::DropReason::ALL {
                    sum.drop_packets(reason, one.dropped(reason));
                }
                sum
            })
        }
        (sum(self.queues.iter().map(|pair| pair.rx.counters())), sum(self.queues.iter().map(|pair| pair.tx.counters())))
    }

    /// A counter of the card itself; `None` when it has none of that name.
    pub(super) fn statistic(&mut self, name: &str) -> Option<u64> {
        self.nic.statistics().into_iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Frames that the card itself says to have lost on their way to its queues.
    pub(super) fn missed(&mut self) -> u64 {
        const NAMES: [&str; 2] = ["rx_missed_errors", "rx_no_buffer_count"];
        self.nic
            .statistics()
            .iter()
            .filter(|(name, _)| NAMES.contains(name))
            .map(|(_, value)| value)
            .max()
            .copied()
            .unwrap_or(0)
    }
}

/// Two cards, open and started.
pub(super) struct Bench<'rig, R: Rig> {
    pub(super) rig: &'rig mut R,
    pub(super) sides: [Side<R::Nic>; 2],
    deliveries: u32,
}

impl<'rig, R: Rig> Bench<'rig, R> {
    /// Opens and starts both cards with the same plan, and waits for the link.
    pub(super) fn new(rig: &'rig mut R, plan: &Plan) -> Result<Self> {
        Self::with(rig, plan.clone(), plan.clone())
    }

    /// Opens and starts both cards, and waits for the link.
    pub(super) fn with(rig: &'rig mut R, first: Plan, second: Plan) -> Result<Self> {
        rig.prepare()?;
        let sides = [Side::open(rig, 0, first)?, Side::open(rig, 1, second)?];
        let mut bench = Self { rig, sides, deliveries: 0 };
        for side in &mut bench.sides {
            side.start()?;
        }
        bench.await_link(true)?;
        Ok(bench)
    }

    /// Waits until both cards see the link up, or down.
    pub(super) fn await_link(&mut self, up: bool) -> Result<()> {
        let mut wait = Wait::new();
        while self.sides.iter_mut().any(|side| side.nic.link().up != up) {
            wait.idle(|| format!("the link did not come {}", if up { "up" } else { "down" }))?;
        }
        Ok(())
    }

    /// Both cards are healthy, take all buffers back, have nothing against their drivers, and leave nothing behind.
    pub(super) fn close(self) -> Result<()> {
        let Self { rig, sides, .. } = self;
        let mut sides = sides;
        for (number, side) in sides.iter_mut().enumerate() {
            side.nic.check().with_context(|| format!("side {number} is not healthy at the end"))?;
            side.stop().with_context(|| format!("stop side {number}"))?;
        }
        for (number, side) in sides.iter_mut().enumerate() {
            let (here, all) = (side.sources.available(), side.sources.capacity());
            ensure!(here == all, "side {number}: {} of {all} packets to send did not come back", all - here);
        }
        let complaints = rig.complaints()?;
        ensure!(complaints.is_empty(), "the cards complain: {}", complaints.join("; "));
        drop(sides);
        let leftovers = rig.leftovers()?;
        ensure!(leftovers.is_empty(), "left behind: {}", leftovers.join("; "));
        Ok(())
    }

    /// Sends packets on a queue of a side, all of them, receiving on the other side meanwhile.
    pub(super) fn send(&mut self, from: usize, queue: usize, packets: Vec<Packet>) -> Result<Vec<Arrived>> {
        let mut arrived = Vec::new();
        let mut batch = Batch::new(packets.len());
        for packet in packets {
            batch.push(packet).map_err(|_| anyhow!("the batch is full"))?;
        }
        let mut wait = Wait::new();
        while !batch.is_empty() {
            let taken = self.side(from).queues[queue].tx.transmit(&mut batch);
            let came = self.side(1 - from).receive();
            if taken > 0 || !came.is_empty() {
                wait.progress();
            }
            arrived.extend(came);
            wait.idle(|| format!("{} packets stay in the batch: the queue stays full", batch.len()))?;
        }
        Ok(arrived)
    }

    pub(super) fn side(&mut self, side: usize) -> &mut Side<R::Nic> {
        &mut self.sides[side]
    }

    /// Sends packets on queue 0 of a side and gives all that arrives on the other one, in order. A last frame for
    /// everybody shows that there is nothing more to wait for: both sides have one queue pair.
    pub(super) fn deliver(&mut self, from: usize, packets: Vec<Packet>) -> Result<Vec<Arrived>> {
        self.deliveries += 1;
        let last = frame::experiment(BROADCAST, STRANGER, 0x1a57_0000 + self.deliveries, LAST);
        let mut arrived = self.send(from, 0, packets)?;
        let ending = self.side(from).packet(&last)?;
        arrived.extend(self.send(from, 0, vec![ending])?);
        let mut wait = Wait::new();
        while arrived.last().is_none_or(|frame| frame.bytes != last) {
            let more = self.side(1 - from).receive();
            if !more.is_empty() {
                wait.progress();
            }
            arrived.extend(more);
            self.side(from).reclaim();
            wait.idle(|| format!("the last frame did not arrive after {} others", arrived.len()))?;
        }
        arrived.pop();
        Ok(arrived)
    }

    /// As [`Bench::deliver`] for frames with nothing to be done about them.
    pub(super) fn deliver_frames(&mut self, from: usize, frames: &[Vec<u8>]) -> Result<Vec<Arrived>> {
        let packets = frames.iter().map(|bytes| self.sides[from].packet(bytes)).collect::<Result<_>>()?;
        self.deliver(from, packets)
    }

    /// Sends packets on a queue of a side until `count` frames have arrived on whichever queue of the other one.
    pub(super) fn spread(
        &mut self,
        from: usize,
        queue: usize,
        packets: Vec<Packet>,
        count: usize,
    ) -> Result<Vec<Arrived>> {
        let mut arrived = self.send(from, queue, packets)?;
        let mut wait = Wait::new();
        while arrived.len() < count {
            let more = self.side(1 - from).receive();
            if !more.is_empty() {
                wait.progress();
            }
            arrived.extend(more);
            self.side(from).reclaim();
            wait.idle(|| format!("{} of {count} frames arrived", arrived.len()))?;
        }
        ensure!(arrived.len() == count, "{} frames arrived instead of {count}", arrived.len());
        Ok(arrived)
    }
}

/// What arrived is what was sent, but for the zeroes that fill up what is shorter than Ethernet's 60 bytes.
pub(super) fn same_frames(arrived: &[Arrived], sent: &[Vec<u8>]) -> Result<()> {
    let mut frames = Vec::new();
    for one in arrived {
        frames.extend(one.settled()?);
    }
    same_bytes(&frames, sent)
}

/// The same for frames whose checksums and segments are settled.
pub(super) fn same_bytes(frames: &[Vec<u8>], expected: &[Vec<u8>]) -> Result<()> {
    let full = |frame: &Vec<u8>| {
        let mut frame = frame.clone();
        frame.resize(frame.len().max(60), 0);
        frame
    };
    for (number, (frame, expected)) in frames.iter().map(full).zip(expected.iter().map(full)).enumerate() {
        if frame != expected {
            let at = frame.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(frame.len().min(expected.len()));
            bail!(
                "frame {number} has {} bytes instead of {}, the first difference is at {at}: {:02x?} instead of {:02x?}",
                frame.len(),
                expected.len(),
                frame.get(at..).map(|rest| &rest[..rest.len().min(8)]),
                expected.get(at..).map(|rest| &rest[..rest.len().min(8)]),
            );
        }
    }
    ensure!(frames.len() == expected.len(), "{} frames instead of {}", frames.len(), expected.len());
    Ok(())
}
