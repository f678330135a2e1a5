//! Which receive queue a frame goes to: receive-side scaling and automatic steering (sections 5.1.6.4.3 and 5.1.6.5.6).

use super::specification::hash;

/// Addresses and ports of a frame, as the hash wants them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowFields {
    bytes: [u8; 36],
    addresses: usize,
    ports: bool,
    /// The report when ports are hashed too, and when only addresses are.
    full: u16,
    plain: u16,
}

impl FlowFields {
    /// Parses Ethernet, one VLAN tag, IPv4 or IPv6, TCP or UDP. `None` for anything else.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let mut ip = 14;
        let mut kind = frame.get(12..14)?;
        if kind == [0x81, 0] {
            kind = frame.get(16..18)?;
            ip = 18;
        }
        let mut bytes = [0; 36];
        let (addresses, protocol, transport, full, plain);
        if kind == [0x08, 0] {
            let first = *frame.get(ip)?;
            if first >> 4 != 4 {
                return None;
            }
            protocol = *frame.get(ip + 9)?;
            bytes[..8].copy_from_slice(frame.get(ip + 12..ip + 20)?);
            addresses = 8;
            let fragmented = u16::from_be_bytes([*frame.get(ip + 6)?, *frame.get(ip + 7)?]) & 0x3fff != 0;
            transport = (!fragmented).then_some(ip + usize::from(first & 15) * 4);
            (full, plain) = (if protocol == 6 { hash::TCPV4 } else { hash::UDPV4 }, hash::IPV4);
        } else if kind == [0x86, 0xdd] {
            protocol = *frame.get(ip + 6)?;
            bytes[..32].copy_from_slice(frame.get(ip + 8..ip + 40)?);
            addresses = 32;
            transport = Some(ip + 40);
            (full, plain) = (if protocol == 6 { hash::TCPV6 } else { hash::UDPV6 }, hash::IPV6);
        } else {
            return None;
        }
        let ports = match transport.filter(|_| protocol == 6 || protocol == 17) {
            Some(at) => frame.get(at..at + 4),
            None => None,
        };
        if let Some(ports) = ports {
            bytes[addresses..addresses + 4].copy_from_slice(ports);
        }
        Some(Self { bytes, addresses, ports: ports.is_some(), full, plain })
    }

    /// The Toeplitz hash with `key` over what `types` enables, and what was hashed.
    pub(super) fn hash(&self, key: &[u8], types: u32) -> Option<(u32, u16)> {
        let enabled = |report: u16| types & (1 << (report - 1)) != 0;
        if self.ports && enabled(self.full) {
            return Some((toeplitz(key, &self.bytes[..self.addresses + 4]), self.full));
        }
        enabled(self.plain).then(|| (toeplitz(key, &self.bytes[..self.addresses]), self.plain))
    }

    /// A hash that both directions of a flow share, for automatic steering.
    pub(super) fn symmetric(&self) -> u32 {
        let half = self.addresses / 2;
        let sum = |bytes: &[u8]| {
            bytes.iter().fold(0_u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte).wrapping_mul(0x9e37_79b1))
        };
        let ends = sum(&self.bytes[..half]).wrapping_add(sum(&self.bytes[half..self.addresses]));
        let ports = sum(&self.bytes[self.addresses..self.addresses + 2])
            .wrapping_add(sum(&self.bytes[self.addresses + 2..self.addresses + 4]));
        (ends ^ ports).wrapping_mul(0x85eb_ca6b) >> 16
    }
}

fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let key_bit = |bit: usize| key.get(bit / 8).is_some_and(|byte| byte & (0x80 >> (bit % 8)) != 0);
    let mut window = (0..32).fold(0_u32, |window, bit| window << 1 | u32::from(key_bit(bit)));
    let mut result = 0;
    for (index, byte) in input.iter().enumerate() {
        for bit in 0..8 {
            if byte & (0x80 >> bit) != 0 {
                result ^= window;
            }
            window = window << 1 | u32::from(key_bit(index * 8 + bit + 32));
        }
    }
    result
}

/// Flows that automatic steering remembers.
const LEARNED: usize = 256;

/// How frames are spread over queue pairs.
#[derive(Clone, Debug)]
pub(super) struct Steering {
    /// Active queue pairs.
    pub(super) pairs: u16,
    /// Set by the RSS command.
    pub(super) rss: Option<Rss>,
    /// Hash types and key for reports without RSS.
    pub(super) report_types: u32,
    pub(super) key: Vec<u8>,
    learned: Vec<u16>,
}

/// What the RSS command set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rss {
    pub(super) types: u32,
    pub(super) table: Vec<u16>,
    pub(super) unclassified: u16,
    pub(super) transmit_queues: u16,
}

impl Default for Steering {
    fn default() -> Self {
        Self { pairs: 1, rss: None, report_types: 0, key: Vec::new(), learned: vec![u16::MAX; LEARNED] }
    }
}

impl Steering {
    /// Nothing has to be looked up: one pair, no hash.
    #[inline]
    pub(super) fn is_trivial(&self) -> bool {
        self.pairs == 1 && self.rss.is_none() && self.report_types == 0
    }

    /// The queue pair for a received frame, with its hash and what was hashed.
    pub(super) fn choose(&self, frame: &[u8]) -> (u16, u32, u16) {
        let fields = FlowFields::parse(frame);
        if let Some(rss) = &self.rss {
            let Some((value, report)) = fields.and_then(|fields| fields.hash(&self.key, rss.types)) else {
                return (rss.unclassified, 0, hash::NONE);
            };
            let index = value as usize & (rss.table.len().wrapping_sub(1));
            return (rss.table.get(index).copied().unwrap_or(rss.unclassified), value, report);
        }
        let (value, report) =
            fields.and_then(|fields| fields.hash(&self.key, self.report_types)).unwrap_or((0, hash::NONE));
        let flow = fields.map_or(0, |fields| fields.symmetric());
        let learned = self.learned.get(flow as usize % LEARNED).copied().filter(|pair| *pair < self.pairs);
        let spread = u16::try_from(flow % u32::from(self.pairs.max(1))).unwrap_or(0);
        (learned.unwrap_or(spread), value, report)
    }

    /// A frame of a flow was transmitted on `pair`: answers go there.
    pub(super) fn learn(&mut self, frame: &[u8], pair: u16) {
        if self.rss.is_some() || self.pairs == 1 {
            return;
        }
        let flow = FlowFields::parse(frame).map_or(0, |fields| fields.symmetric());
        if let Some(slot) = self.learned.get_mut(flow as usize % LEARNED) {
            *slot = pair;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The verification suite of Microsoft's RSS specification.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    fn tcp_v4(source: [u8; 4], source_port: u16, target: [u8; 4], target_port: u16) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[23] = 6;
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&target);
        frame[34..36].copy_from_slice(&source_port.to_be_bytes());
        frame[36..38].copy_from_slice(&target_port.to_be_bytes());
        frame
    }

    #[test]
    fn the_hash_agrees_with_the_published_vectors() {
        let frame = tcp_v4([66, 9, 149, 187], 2794, [161, 142, 100, 80], 1766);
        let fields = FlowFields::parse(&frame).unwrap();
        assert_eq!(fields.hash(&KEY, hash::SUPPORTED), Some((0x51cc_c178, hash::TCPV4)));
        assert_eq!(fields.hash(&KEY, 1), Some((0x323e_8fc2, hash::IPV4)));
        assert_eq!(fields.hash(&KEY, 0), None);
    }

    #[test]
    fn answers_to_a_transmitted_flow_come_back_on_its_pair() {
        let mut steering = Steering { pairs: 4, ..Steering::default() };
        steering.learn(&tcp_v4([10, 0, 0, 1], 1000, [10, 0, 0, 2], 80), 3);
        assert_eq!(steering.choose(&tcp_v4([10, 0, 0, 2], 80, [10, 0, 0, 1], 1000)).0, 3);
    }
}
