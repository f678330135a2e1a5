//! The control queue and the state that it sets (section 5.1.6.5).

use super::config::Config;
use super::core::Core;
use super::ring::Chain;
use super::specification::{Features, control, hash};
use super::steering::{Rss, Steering};

/// What makes the card a network card.
#[derive(Debug)]
pub(super) struct NetState {
    pub(super) mac: [u8; 6],
    pub(super) link_up: bool,
    pub(super) speed: u32,
    pub(super) promiscuous: bool,
    pub(super) all_multicast: bool,
    pub(super) no_broadcast: bool,
    pub(super) table: Vec<[u8; 6]>,
    pub(super) steering: Steering,
    /// Scratch for frames that take several buffers.
    pub(super) first: Chain,
    pub(super) used: Vec<(u16, u32, u16, u32)>,
}

impl NetState {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            mac: config.mac.0,
            link_up: config.link_up,
            speed: config.speed,
            promiscuous: !config.filtering,
            all_multicast: false,
            no_broadcast: false,
            table: Vec::new(),
            steering: Steering::default(),
            first: Chain::default(),
            used: Vec::new(),
        }
    }

    /// A device reset changes neither link nor speed.
    pub(super) fn reset(&mut self, config: &Config) {
        *self = Self { link_up: self.link_up, speed: self.speed, ..Self::new(config) };
    }

    /// The address filter lets the frame through (section 5.1.6.5.1).
    pub(super) fn accepts(&self, frame: &[u8]) -> bool {
        let Some(target) = frame.first_chunk::<6>() else { return false };
        if *target == [0xff; 6] {
            return !self.no_broadcast;
        }
        *target == self.mac || self.table.contains(target) || (target[0] & 1 == 1 && self.all_multicast)
    }

    /// Transmit queues that the driver may use.
    pub(super) fn transmit_queues(&self, features: Features) -> u16 {
        match &self.steering.rss {
            Some(rss) if features.contains(Features::RSS) => rss.transmit_queues,
            _ => self.steering.pairs,
        }
    }
}

/// Longest command that is read.
const COMMAND_LIMIT: usize = 1 << 16;

impl Core {
    /// Answers all waiting commands; returns how many.
    pub(super) fn serve_control(&mut self, index: usize) -> usize {
        let mut done = 0;
        loop {
            match self.serve_command(index) {
                Ok(true) => done += 1,
                Ok(false) => {
                    if !self.found_empty(index) {
                        return done;
                    }
                }
                Err(reason) => {
                    self.break_queue(index, reason);
                    return done;
                }
            }
        }
    }

    fn serve_command(&mut self, index: usize) -> Result<bool, &'static str> {
        let Some(queue) = self.queues.get_mut(index) else { return Ok(false) };
        let Some(ring) = &mut queue.ring else { return Ok(false) };
        let mut chain = std::mem::take(&mut queue.chain);
        let available = ring.peek(&self.memory, &mut chain)?;
        if available {
            ring.advance(&chain);
        }
        let result = if available { self.answer(index, &chain).map(|()| true) } else { Ok(false) };
        if let Some(queue) = self.queues.get_mut(index) {
            queue.chain = chain;
        }
        result
    }

    fn answer(&mut self, index: usize, chain: &Chain) -> Result<(), &'static str> {
        let command = chain.read_all(&self.memory, COMMAND_LIMIT).ok_or("a command is not mapped for the device")?;
        if chain.writable_len() == 0 {
            return Err("a command without room for an answer");
        }
        let [class, number, data @ ..] = &command[..] else { return Err("a command of less than two bytes") };
        let ack = if self.execute(*class, *number, data).is_some() { control::OK } else { control::ERROR };
        if ack == control::ERROR && self.trick.is_honest() {
            self.violation(format!("command {class}.{number} with {} bytes cannot be carried out", data.len()));
        }
        let Some((ack, len)) = self.trick.control_answer(ack) else { return Ok(()) };
        if !chain.write_at(&self.memory, 0, &[ack]) {
            return Err("a command's answer is not mapped for the device");
        }
        self.counters.commands += 1;
        let Some(queue) = self.queues.get_mut(index) else { return Ok(()) };
        let Some(ring) = &mut queue.ring else { return Ok(()) };
        if self.trick.chaos.is_some() {
            self.trick.complete(ring, chain.id, len, chain.slots, 1);
        } else {
            ring.complete(chain.id, len, chain.slots, 1);
        }
        self.publish(index);
        Ok(())
    }

    /// Carries a command out; `None` when it cannot be.
    fn execute(&mut self, class: u8, number: u8, data: &[u8]) -> Option<()> {
        let features = self.negotiated();
        let has = |feature| features.contains(feature).then_some(());
        match (class, number) {
            (control::RX, control::RX_PROMISCUOUS) => {
                has(Features::CTRL_RX)?;
                self.net.promiscuous = switch(data)?;
            }
            (control::RX, control::RX_ALL_MULTICAST) => {
                has(Features::CTRL_RX)?;
                self.net.all_multicast = switch(data)?;
            }
            (control::RX, control::RX_NO_BROADCAST) => {
                has(Features::CTRL_RX_EXTRA)?;
                self.net.no_broadcast = switch(data)?;
            }
            (control::RX, 2..=4) => {
                has(Features::CTRL_RX_EXTRA)?;
                switch(data)?;
            }
            (control::MAC, control::MAC_TABLE_SET) => {
                has(Features::CTRL_RX)?;
                let (mut table, rest) = addresses(data)?;
                let (groups, rest) = addresses(rest)?;
                rest.is_empty().then_some(())?;
                table.extend(groups);
                self.net.table = table;
            }
            (control::MAC, control::MAC_ADDRESS_SET) => {
                has(Features::CTRL_MAC_ADDR)?;
                self.net.mac = data.try_into().ok().filter(|mac: &[u8; 6]| mac[0] & 1 == 0)?;
                self.registers.configuration_changed();
            }
            (control::MQ, control::MQ_PAIRS_SET) => {
                has(Features::MQ)?;
                let pairs = u16::from_le_bytes(data.try_into().ok()?);
                (1..=self.config.pairs).contains(&pairs).then_some(())?;
                self.receive_queues_enabled(pairs)?;
                self.net.steering.pairs = pairs;
                self.net.steering.rss = None;
            }
            (control::MQ, control::MQ_RSS_CONFIG) => {
                has(Features::RSS)?;
                self.configure_rss(data)?;
            }
            (control::MQ, control::MQ_HASH_CONFIG) => {
                has(Features::HASH_REPORT)?;
                let types = u32::from_le_bytes(data.get(..4)?.try_into().ok()?);
                (types & !hash::SUPPORTED == 0).then_some(())?;
                let len = usize::from(*data.get(12)?);
                self.net.steering.key = data.get(13..).filter(|key| key.len() == len && len <= 40)?.to_vec();
                self.net.steering.report_types = types;
            }
            _ => return None,
        }
        Some(())
    }

    fn receive_queues_enabled(&self, pairs: u16) -> Option<()> {
        let enabled = |pair: u16| self.queues.get(2 * usize::from(pair)).is_some_and(|queue| queue.registers.enabled);
        (0..pairs).all(enabled).then_some(())
    }

    /// `struct virtio_net_rss_config` (section 5.1.6.5.7.1).
    fn configure_rss(&mut self, data: &[u8]) -> Option<()> {
        let word = |at: usize| Some(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?));
        let types = u32::from_le_bytes(data.get(..4)?.try_into().ok()?);
        let entries = usize::from(word(4)?) + 1;
        if types & !hash::SUPPORTED != 0 || !entries.is_power_of_two() || entries > 128 {
            return None;
        }
        let unclassified = word(6)?;
        let table: Vec<u16> = (0..entries).map(|entry| word(8 + 2 * entry)).collect::<Option<_>>()?;
        let rest = 8 + 2 * entries;
        let transmit_queues = word(rest)?;
        let len = usize::from(*data.get(rest + 2)?);
        let key = data.get(rest + 3..).filter(|key| key.len() == len && len <= 40)?;
        let highest = table.iter().copied().chain([unclassified]).max()?;
        if transmit_queues == 0 || transmit_queues > self.config.pairs || highest >= self.config.pairs {
            return None;
        }
        let enabled = |pair: &u16| self.queues.get(2 * usize::from(*pair)).is_some_and(|queue| queue.registers.enabled);
        if !table.iter().chain([&unclassified]).all(enabled) {
            return None;
        }
        self.net.steering.key = key.to_vec();
        self.net.steering.pairs = highest + 1;
        self.net.steering.rss = Some(Rss { types, table, unclassified, transmit_queues });
        Some(())
    }
}

/// One byte, 0 or 1.
fn switch(data: &[u8]) -> Option<bool> {
    match data {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

/// A counted table of addresses, and what follows it.
fn addresses(data: &[u8]) -> Option<(Vec<[u8; 6]>, &[u8])> {
    let (count, rest) = data.split_first_chunk::<4>()?;
    let bytes = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(6)?;
    let (table, rest) = rest.split_at_checked(bytes)?;
    Some((table.as_chunks::<6>().0.to_vec(), rest))
}
