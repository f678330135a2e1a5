//! An emulated virtual machine: a virtio-user port in this process, with its own memory, whose frames are numbered and checked.
//!
//! A [`Vm`] is driven by whoever has it: [`Vm::stage`] and [`Vm::flush`] send, [`Vm::receive`] takes in, and [`Vm::mend`] starts it
//! anew when its switch was. A [`Series`] says what is in a frame of a given number, and a [`Check`] whether what arrives is that.
//! [`Passage`] puts these together: frames go from one machine to another, with a bounded number of them on their way.

mod passage;
mod series;

use anyhow::{Context, Result, anyhow};
use dataplane::port::virtio_user::Device;
use dataplane::port::{PortControl, PortQueue, RingChoice, VirtioUserSpec};
use drivers::nic::Offloads;
use hugemem::{Batch, IovaSpace, MemoryRequest, Metadata, Packet, PacketPool};

pub use passage::{Passage, Passed};
pub use series::{Check, Content, Seen, Series};

/// Room of a buffer.
const ROOM: usize = 2048;
/// Buffers that each queue receives into.
const RECEIVING: usize = 1024;
/// Buffers for frames to send; the largest frame takes 32.
const SENDING: usize = 8192;
/// Bytes of memory for the rings.
const RINGS: usize = 4 << 20;
/// Packets that are sent or received at a time.
const BURST: usize = 32;

/// How a machine is attached.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The socket.
    pub socket: std::path::PathBuf,
    /// It makes the socket and listens; otherwise it connects.
    pub listens: bool,
    /// Layout of its rings.
    pub ring: RingChoice,
    /// Queue pairs.
    pub pairs: u16,
    /// Largest payload of a frame.
    pub mtu: Option<u16>,
}

/// A machine.
pub struct Vm {
    name: String,
    control: Box<dyn PortControl>,
    queues: Vec<PortQueue>,
    sources: PacketPool,
    staged: Vec<Batch>,
    arrived: Batch,
}

impl Vm {
    /// Attaches a machine; the switch has to be there within seconds, and so its socket when it is the one that listens.
    ///
    /// # Errors
    ///
    /// It is not, or has not what is asked for.
    pub fn attach(name: &str, plan: &Plan) -> Result<Self> {
        let spec = VirtioUserSpec {
            queues: Some(plan.pairs),
            server: plan.listens,
            ring: plan.ring,
            mtu: plan.mtu,
            ..VirtioUserSpec::new(&plan.socket)
        };
        let mut device = Device::open(name, &spec, Offloads::all())?;
        let mut space = IovaSpace::unlimited();
        space.intersect(&device.iova_ranges());
        let pairs = usize::from(plan.pairs);
        let buffers = pairs * RECEIVING + SENDING;
        let bytes = buffers * (ROOM + 2 * hugemem::HEADROOM) + (1 << 20);
        let mut allocate =
            |bytes| anyhow::Ok(MemoryRequest { bytes, ..MemoryRequest::default() }.allocate(&mut space)?.region);
        let packets = allocate(bytes)?;
        let rings = allocate(RINGS)?;
        device.map(&packets)?;
        let pools = (0..pairs).map(|_| packets.packets(RECEIVING, ROOM)).collect::<Result<Vec<_>, _>>()?;
        let sources = packets.packets(SENDING, ROOM)?;
        let port = device.start(&rings, pools)?;
        let count = port.queues.len();
        anyhow::ensure!(count == pairs, "{name} has {count} queue pairs instead of {pairs}: {:?}", port.notices);
        Ok(Self {
            name: name.to_owned(),
            control: port.control,
            queues: port.queues,
            sources,
            staged: (0..pairs).map(|_| Batch::new(BURST)).collect(),
            arrived: Batch::new(BURST),
        })
    }

    /// Facts about its port.
    pub fn describe(&mut self) -> String {
        self.control.describe()
    }

    /// How many queue pairs it has.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.staged.len()
    }

    /// Puts a frame aside to be sent on a queue. `false` when there is no room for one more.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub fn stage(&mut self, queue: usize, bytes: &[u8], metadata: Metadata) -> Result<bool> {
        let staged = self.staged.get_mut(queue).context("no such queue")?;
        if staged.room() == 0 || self.sources.available() <= bytes.len() / ROOM {
            return Ok(false);
        }
        let mut packet: Option<Packet> = None;
        for piece in bytes.chunks(ROOM) {
            let mut part = self.sources.take().context("a pool has fewer buffers than it says")?;
            part.write(piece)?;
            match &mut packet {
                None => packet = Some(part),
                Some(packet) => packet.append(part).map_err(|_| anyhow!("the frame is too long"))?,
            }
        }
        let mut packet = packet.context("a frame without bytes")?;
        *packet.metadata_mut() = metadata;
        staged.push(packet).map_err(|_| anyhow!("a batch has less room than it says"))?;
        Ok(true)
    }

    /// Sends what was put aside, as far as the rings take it, and takes sent buffers back; how many frames were taken.
    pub fn flush(&mut self) -> usize {
        let mut taken = 0;
        for (queue, staged) in self.queues.iter_mut().zip(&mut self.staged) {
            if staged.is_empty() {
                queue.tx.reclaim();
            } else {
                taken += queue.tx.transmit(staged);
            }
        }
        taken
    }

    /// Frames that were put aside and not taken yet.
    #[must_use]
    pub fn staged(&self) -> usize {
        self.staged.iter().map(Batch::len).sum()
    }

    /// Shows every frame that has arrived, once, to `each`; how many there were.
    ///
    /// # Errors
    ///
    /// Those of `each`.
    pub fn receive(&mut self, mut each: impl FnMut(&Packet) -> Result<()>) -> Result<usize> {
        let mut count = 0;
        for queue in &mut self.queues {
            count += queue.rx.receive(&mut self.arrived);
            let result = self.arrived.iter().try_for_each(&mut each);
            self.arrived.clear();
            result?;
        }
        Ok(count)
    }

    /// Looks whether the switch went away and is back, and starts the port anew then; whether it was.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn mend(&mut self) -> Result<bool> {
        let Err(reason) = self.control.check() else { return Ok(false) };
        let why = reason.to_string();
        let queues = std::mem::take(&mut self.queues);
        self.queues = self.control.restart(queues, reason).with_context(|| format!("{}: {why}", self.name))?;
        Ok(true)
    }

    /// Frames that its queues dropped, with the reasons: its own driver's, on either way.
    #[must_use]
    pub fn dropped(&self) -> Vec<(&'static str, u64)> {
        let all = self.queues.iter().flat_map(|queue| [queue.rx.counters(), queue.tx.counters()]);
        all.flat_map(|counters| drivers::nic::DropReason::ALL.map(|reason| (reason.name(), counters.dropped(reason))))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Detaches it.
    ///
    /// # Errors
    ///
    /// The switch does not let go of its memory.
    pub fn detach(mut self) -> Result<()> {
        let queues = std::mem::take(&mut self.queues);
        Ok(self.control.stop(queues)?)
    }
}
