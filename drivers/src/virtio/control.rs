//! The control queue (virtio 1.3, section 5.1.6.5): one command at a time, each with a deadline.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;

use hugemem::{DmaArray, Iova, OutOfMemory, Region};

use super::config::Spreading;
use super::options::RingFormat;
use super::packed::Packed;
use super::queues::{Format, each};
use super::ring::{Addresses, Part, Parts, Ring};
use super::split::Split;
use super::transport::{Doorbell, Transport};
use crate::bus::{Clock, wait_until};
use crate::health::Fault;
use crate::nic::{MacAddress, NicError, RSS_KEY_LENGTH, ReceiveFilter};
use crate::stopped::Stopped;

/// Most descriptors of the control ring: one command takes two.
pub(super) const RING_SIZE: u16 = 16;
/// How long a device may take over a command. A software device serves it on a thread that others share.
const LIMIT: Duration = Duration::from_secs(3);
/// Bytes of the longest command, and behind them on a cache line of its own the answer.
const LONGEST: usize = 448;
const ANSWER: usize = LONGEST;
const MEMORY: usize = LONGEST + 64;
/// Most addresses of a kind that a filter names to the device: two tables fit in the longest command, and QEMU's device
/// has 64 places for both.
const MOST_ADDRESSES: u32 = 32;
/// The answer to a command that was carried out.
const DONE: u8 = 0;
/// What the answer holds until the device writes it: neither done (0) nor refused (1).
const PENDING: u8 = 0xff;

/// Hash types of this driver: TCP, UDP and anything else over IPv4 and IPv6, without extension headers (5.1.6.4.3.1).
const HASH_TYPES: u32 = 0x3f;
/// Entries of the indirection table that is asked for; a device has at least that many (5.1.4.1).
const TABLE_LENGTH: u16 = 128;

/// Class and command numbers.
#[derive(Clone, Copy, Debug)]
struct Code(u8, u8);

const RX_PROMISCUOUS: Code = Code(0, 0);
const RX_ALL_MULTICAST: Code = Code(0, 1);
const MAC_TABLE_SET: Code = Code(1, 0);
const MAC_ADDRESS_SET: Code = Code(1, 1);
const ANNOUNCE_ACKNOWLEDGE: Code = Code(3, 0);
const MQ_PAIRS_SET: Code = Code(4, 0);
const MQ_RSS_CONFIG: Code = Code(4, 1);
const MQ_HASH_CONFIG: Code = Code(4, 2);

/// A command on its way: what the device reads, and the byte that it writes.
#[derive(Clone, Copy, Debug)]
struct Command {
    command: Part,
    answer: Part,
}

impl Parts for Command {
    fn count(&self) -> usize {
        2
    }

    fn each(&self, mut visit: impl FnMut(Part)) {
        visit(self.command);
        visit(self.answer);
    }
}

/// The control queue.
#[derive(Debug)]
pub(super) struct Control<D> {
    format: Format<Split<Command>, Packed<Command>>,
    bytes: DmaArray<AtomicU8>,
    doorbell: Option<D>,
    /// A command was never answered: the device still holds the memory, so there is no next one until it is reset.
    stuck: bool,
}

impl<D: Doorbell> Control<D> {
    /// Takes memory for the queue.
    pub(super) fn new(memory: &Region, format: RingFormat, size: u16) -> Result<Self, OutOfMemory> {
        let format = match format {
            RingFormat::Split => Format::Split(Split::new(memory, size, false)?),
            RingFormat::Packed => Format::Packed(Packed::new(memory, size, false)?),
        };
        Ok(Self { format, bytes: memory.array(MEMORY, 64)?, doorbell: None, stuck: false })
    }

    /// Makes it as new, for a device that is stopped.
    pub(super) fn reset(&mut self, stopped: &Stopped, event_index: bool) {
        each!(&mut self.format, ring => ring.start(stopped, event_index, false));
        self.doorbell = None;
        self.stuck = false;
    }

    /// Connects it to its doorbell.
    pub(super) fn begin(&mut self, doorbell: D) {
        self.doorbell = Some(doorbell);
    }

    pub(super) fn addresses(&self) -> Addresses {
        each!(&self.format, ring => ring.addresses())
    }

    pub(super) fn size(&self) -> u16 {
        each!(&self.format, ring => ring.size())
    }

    /// Sets the receive mode (5.1.6.5.1) and the tables of addresses (5.1.6.5.2). A device without VLAN filter passes
    /// every VLAN.
    pub(super) fn set_filter(&mut self, to: &Link<'_, impl Transport>, filter: &ReceiveFilter) -> Result<(), NicError> {
        for (code, what, data) in filter_commands(filter) {
            self.run(to, code, what, &data)?;
        }
        Ok(())
    }

    /// Sets the Ethernet address (5.1.6.5.2).
    pub(super) fn set_mac(&mut self, to: &Link<'_, impl Transport>, mac: MacAddress) -> Result<(), NicError> {
        self.run(to, MAC_ADDRESS_SET, "to set the Ethernet address", &mac.0)
    }

    /// Tells the device that its request for an announcement was seen (5.1.6.5.4).
    pub(super) fn acknowledge_announcement(&mut self, to: &Link<'_, impl Transport>) -> Result<(), NicError> {
        self.run(to, ANNOUNCE_ACKNOWLEDGE, "to acknowledge an announcement", &[])
    }

    /// Makes the device use that many queue pairs, in its own way of spreading (5.1.6.5.6).
    pub(super) fn set_pairs(&mut self, to: &Link<'_, impl Transport>, pairs: u16) -> Result<(), NicError> {
        self.run(to, MQ_PAIRS_SET, "to use several queue pairs", &pairs.to_le_bytes())
    }

    /// Makes the device spread flows over that many queue pairs by their hash (5.1.6.5.7).
    pub(super) fn set_spreading(
        &mut self,
        to: &Link<'_, impl Transport>,
        pairs: u16,
        limits: Spreading,
        key: &[u8; RSS_KEY_LENGTH],
    ) -> Result<(), NicError> {
        let Some(command) = spreading(pairs, limits, key) else {
            return Err(to.transport.misbehaves("it offers RSS with an indirection table of no entries"));
        };
        self.run(to, MQ_RSS_CONFIG, "to spread flows by hash", &command)
    }

    /// Makes the device report hashes without spreading by them (5.1.6.5.6.4).
    pub(super) fn set_hashing(
        &mut self,
        to: &Link<'_, impl Transport>,
        limits: Spreading,
        key: &[u8; RSS_KEY_LENGTH],
    ) -> Result<(), NicError> {
        let mut command = (limits.hash_types & HASH_TYPES).to_le_bytes().to_vec();
        command.extend_from_slice(&[0; 8]);
        push_key(&mut command, limits, key);
        self.run(to, MQ_HASH_CONFIG, "to report hashes", &command)
    }

    /// Runs one command and waits for the answer.
    fn run(
        &mut self,
        to: &Link<'_, impl Transport>,
        code: Code,
        what: &'static str,
        data: &[u8],
    ) -> Result<(), NicError> {
        let transport = to.transport;
        let Some(doorbell) = self.doorbell.as_ref().filter(|_| !self.stuck) else {
            return Err(
                transport.timed_out("its control queue, which did not answer before; stop and start the port", LIMIT)
            );
        };
        let Code(class, command) = code;
        let len = 2 + data.len();
        if len > LONGEST {
            return Err(transport.refuses(alloc::format!("a control command of {len} bytes is too long")));
        }
        for (byte, value) in self.bytes.iter().zip([class, command].iter().chain(data)) {
            byte.store(*value, Ordering::Relaxed);
        }
        let (Some(answer), Some(answer_iova)) = (self.bytes.get(ANSWER), self.bytes.iova_of(ANSWER)) else {
            return Err(transport.refuses("its control queue has no memory"));
        };
        answer.store(PENDING, Ordering::Relaxed);
        let token = Command {
            command: part(self.bytes.iova(), u32::try_from(len).unwrap_or(0), false),
            answer: part(answer_iova, 1, true),
        };
        let outcome = each!(&mut self.format, ring => exchange(ring, token, doorbell, to.clock));
        match outcome {
            Ok(true) => {}
            Ok(false) => {
                self.stuck = true;
                return Err(transport.timed_out("the answer to a control command", LIMIT));
            }
            Err(fault) => {
                self.stuck = true;
                return Err(transport.misbehaves(alloc::format!("on its control queue, {}", fault.reason())));
            }
        }
        match answer.load(Ordering::Relaxed) {
            DONE => Ok(()),
            _ => Err(transport.refuses(alloc::format!("the device refuses {what}"))),
        }
    }
}

/// What a command needs beside the queue.
pub(super) struct Link<'a, T> {
    /// For messages.
    pub(super) transport: &'a T,
    /// For deadlines.
    pub(super) clock: &'a dyn Clock,
}

fn part(iova: Iova, len: u32, writable: bool) -> Part {
    Part { iova, len, writable }
}

/// Sends one command; `false` when the deadline came first.
fn exchange<R: Ring<Command>>(
    ring: &mut R,
    token: Command,
    doorbell: &impl Doorbell,
    clock: &dyn Clock,
) -> Result<bool, Fault> {
    if ring.post_parts(token).is_err() {
        return Ok(false);
    }
    if ring.publish() {
        doorbell.ring();
    }
    let mut outcome = Ok(false);
    wait_until(clock, LIMIT, Duration::from_micros(20), || {
        outcome = ring.poll().and_then(|()| ring.pop()).map(|returned| returned.is_some());
        outcome != Ok(false)
    });
    outcome
}

/// The commands that make a device receive what `filter` says. Wider modes come before the tables and narrower ones after:
/// what passes the old and the new filter is never missed.
fn filter_commands(filter: &ReceiveFilter) -> Vec<(Code, &'static str, Vec<u8>)> {
    let (unicast, multicast) = (table(&filter.unicast), table(&filter.multicast));
    let promiscuous = filter.promiscuous || unicast.is_none();
    let all_multicast = filter.all_multicast || multicast.is_none();
    let tables = [unicast, multicast].map(|table| table.unwrap_or_else(|| alloc::vec![0; 4])).concat();
    let modes = [
        (RX_PROMISCUOUS, "to change promiscuous mode", promiscuous),
        (RX_ALL_MULTICAST, "to change multicast mode", all_multicast),
    ];
    let chosen = |enabled| {
        let chosen = modes.into_iter().filter(move |(.., mode)| *mode == enabled);
        chosen.map(|(code, what, mode)| (code, what, alloc::vec![u8::from(mode)]))
    };
    let table = (MAC_TABLE_SET, "to take a table of addresses", tables);
    chosen(true).chain([table]).chain(chosen(false)).collect()
}

/// `struct virtio_net_ctrl_mac`: a count and the addresses. `None` when they are more than fit in half a command.
fn table(addresses: &[MacAddress]) -> Option<Vec<u8>> {
    let count = u32::try_from(addresses.len()).ok().filter(|count| *count <= MOST_ADDRESSES)?;
    let mut table = count.to_le_bytes().to_vec();
    table.extend(addresses.iter().flat_map(|address| address.0));
    Some(table)
}

/// The command that sets up spreading: `struct virtio_net_rss_config` (5.1.6.5.7.1). `None` when the device has no
/// table.
fn spreading(pairs: u16, limits: Spreading, key: &[u8; RSS_KEY_LENGTH]) -> Option<Vec<u8>> {
    let entries = 1_u16 << TABLE_LENGTH.min(limits.table_length).checked_ilog2()?;
    let pairs = pairs.max(1);
    let mut command = (limits.hash_types & HASH_TYPES).to_le_bytes().to_vec();
    // The mask, then the queue for what has no hash, then the table: queues are named by their pair.
    command.extend_from_slice(&entries.wrapping_sub(1).to_le_bytes());
    command.extend_from_slice(&0_u16.to_le_bytes());
    for entry in 0..entries {
        command.extend_from_slice(&(entry % pairs).to_le_bytes());
    }
    command.extend_from_slice(&pairs.to_le_bytes());
    push_key(&mut command, limits, key);
    Some(command)
}

/// The key's length and as much of the key as the device takes.
fn push_key(command: &mut Vec<u8>, limits: Spreading, key: &[u8; RSS_KEY_LENGTH]) {
    let key = key.get(..usize::from(limits.key_size)).unwrap_or(key);
    command.push(u8::try_from(key.len()).unwrap_or(0));
    command.extend_from_slice(key);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_spreading_command_has_the_layout_of_the_specification() {
        let limits = Spreading { key_size: 40, table_length: 300, hash_types: 0x1ff };
        let command = spreading(3, limits, &[9; RSS_KEY_LENGTH]).unwrap();
        assert_eq!(command[..8], [0x3f, 0, 0, 0, 127, 0, 0, 0]);
        assert_eq!(command[8..16], [0, 0, 1, 0, 2, 0, 0, 0]);
        assert_eq!(command[8 + 256..8 + 256 + 3], [3, 0, 40]);
        assert_eq!(command.len(), 8 + 256 + 3 + 40);
        assert!(command.len() + 2 <= LONGEST);
    }

    #[test]
    fn a_table_of_addresses_that_is_too_long_is_none() {
        let address = MacAddress([2, 0, 0, 0, 0, 7]);
        assert_eq!(table(&[address]).unwrap(), [1, 0, 0, 0, 2, 0, 0, 0, 0, 7]);
        assert_eq!(table(&[address; 33]), None);
        assert!(2 * table(&[address; 32]).unwrap().len() + 2 <= LONGEST);
    }

    #[test]
    fn a_device_is_told_to_receive_more_before_its_tables_change_and_less_after() {
        let codes = |filter| -> Vec<_> {
            filter_commands(&filter).into_iter().map(|(code, _, data)| (code.0, code.1, data)).collect()
        };
        let address = MacAddress([2, 0, 0, 0, 0, 7]);
        let empty = alloc::vec![0; 8];
        let (on, off) = (alloc::vec![1], alloc::vec![0]);
        let host = [(0, 1, on.clone()), (1, 0, empty.clone()), (0, 0, off.clone())];
        assert_eq!(codes(ReceiveFilter::host()), host);
        let everything = [(0, 0, on.clone()), (1, 0, empty), (0, 1, off.clone())];
        assert_eq!(codes(ReceiveFilter::everything()), everything);
        let many = ReceiveFilter {
            unicast: alloc::vec![address; 33],
            multicast: alloc::vec![address],
            ..ReceiveFilter::default()
        };
        let tables = alloc::vec![0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 7];
        assert_eq!(codes(many), [(0, 0, on), (1, 0, tables), (0, 1, off)], "too many addresses");
    }

    #[test]
    fn small_limits_are_kept_and_impossible_ones_refused() {
        let small = Spreading { key_size: 8, table_length: 5, hash_types: 1 };
        let command = spreading(2, small, &[9; RSS_KEY_LENGTH]).unwrap();
        assert_eq!(command[4..6], [3, 0]);
        assert_eq!(command.len(), 8 + 4 * 2 + 3 + 8);
        assert_eq!(spreading(2, Spreading::default(), &[9; RSS_KEY_LENGTH]), None);
    }
}
