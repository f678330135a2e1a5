//! Streams of numbered datagrams over many flows: what is in each follows from its number, whatever a router makes of its headers.

use anyhow::{Context, Result, bail, ensure};

use super::Envelope;
use crate::conformance::frame::{Layout, pattern};

/// In front of what tells datagrams apart.
const MAGIC: [u8; 6] = *b"mirach";
/// Flows that differ in the source port alone.
const PORTS: u32 = 50_000;
/// UDP header.
const UDP: usize = 8;

/// Datagrams from one station to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    /// Tells it from all other streams, wherever they are.
    pub id: u16,
    /// The headers with which they are sent.
    pub sent: Envelope,
    /// The headers with which they arrive.
    pub seen: Envelope,
    /// Destination port of the first flows.
    pub port: u16,
    /// Flows.
    pub flows: u32,
    /// Flows that take turns.
    pub turns: u32,
    /// Datagrams of each flow, before those of later flows begin.
    pub each: u32,
    /// Bytes of payload, the fewest and the most.
    pub payload: (u16, u16),
}

impl Stream {
    /// Flows that take turns without end, to port 9, with short and long datagrams.
    #[must_use]
    pub fn new(id: u16, envelope: Envelope, flows: u32) -> Self {
        Self {
            id,
            sent: envelope,
            seen: envelope,
            port: 9,
            flows,
            turns: flows,
            each: u32::MAX,
            payload: (16, 1472 - 20),
        }
    }

    /// The flow of a datagram, and its place there.
    #[must_use]
    pub fn place(&self, number: u64) -> (u32, u32) {
        let turns = u64::from(self.turns.max(1));
        let block = turns * u64::from(self.each.max(1));
        let within = number % block;
        let flow = number / block * turns + within % turns;
        (u32::try_from(flow).unwrap_or(u32::MAX), u32::try_from(within / turns).unwrap_or(u32::MAX))
    }

    /// Datagrams of all flows together, unless they are without end.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::from(self.flows) * u64::from(self.each)
    }

    /// Source and destination port of a flow.
    fn ports(&self, flow: u32) -> (u16, u16) {
        let source = u16::try_from(flow % PORTS).unwrap_or(0) + 1024;
        (source, self.port.wrapping_add(u16::try_from(flow / PORTS).unwrap_or(0)))
    }

    /// Writes datagram `number` with these headers into `frame`.
    ///
    /// # Errors
    ///
    /// Its addresses do not fit together.
    pub fn write(&self, number: u64, envelope: &Envelope, frame: &mut Vec<u8>) -> Result<()> {
        let (shortest, longest) = self.payload;
        let span = u64::from(longest - shortest) + 1;
        let length = usize::from(shortest)
            + usize::try_from(number.wrapping_mul(0x9e37_79b9) >> 8 & 0xffff)? % usize::try_from(span)?;
        let mut payload = MAGIC.to_vec();
        payload.extend(self.id.to_be_bytes());
        payload.extend(number.to_be_bytes());
        let seed = u32::try_from(number & 0xffff_ffff)? ^ u32::from(self.id) << 16;
        payload.extend(pattern(seed, length.saturating_sub(payload.len())));
        let (flow, _) = self.place(number);
        envelope.udp(self.ports(flow), &payload, frame)
    }

    /// The stream and the number of a datagram; `None` for a frame that is none.
    #[must_use]
    pub fn mark(frame: &[u8]) -> Option<(u16, u64)> {
        let payload = frame.get(Layout::of(frame)?.transport + UDP..)?;
        let (id, rest) = payload.strip_prefix(&MAGIC)?.split_first_chunk::<2>()?;
        Some((u16::from_be_bytes(*id), u64::from_be_bytes(*rest.first_chunk::<8>()?)))
    }
}

/// What a receiver knows of a stream.
#[derive(Debug)]
pub struct Check {
    stream: Stream,
    /// Datagrams that arrived, each whole.
    pub received: u64,
    /// Datagrams that were passed over: each is lost, as order is kept.
    pub lost: u64,
    /// Datagrams may be lost.
    pub may_lose: bool,
    /// For each flow, the place that is due.
    next: Vec<u32>,
    expected: Vec<u8>,
}

impl Check {
    /// Of a stream that nothing has arrived of.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        let next = vec![0; usize::try_from(stream.flows).unwrap_or(0)];
        Self { stream, received: 0, lost: 0, may_lose: false, next, expected: Vec::new() }
    }

    /// Looks at a datagram of the stream.
    ///
    /// # Errors
    ///
    /// A byte is wrong, or it came twice or out of order, or one before it did not come and had to.
    pub fn accept(&mut self, number: u64, frame: &[u8]) -> Result<()> {
        let stream = self.stream;
        stream.write(number, &stream.seen, &mut self.expected)?;
        if frame != self.expected {
            let at = frame.iter().zip(&self.expected).position(|(is, due)| is != due);
            let around = at.map_or(0..0, |at| at..(at + 16).min(frame.len()).min(self.expected.len()));
            bail!(
                "datagram {number} of stream {} changed: {} of {} bytes, first difference at {at:?}: {:02x?} instead of {:02x?}",
                stream.id,
                frame.len(),
                self.expected.len(),
                frame.get(around.clone()),
                self.expected.get(around)
            );
        }
        let (flow, place) = stream.place(number);
        let next = self.next.get_mut(usize::try_from(flow)?).context("no such flow")?;
        ensure!(
            place >= *next,
            "stream {}, flow {flow}: datagram {place} came when {next} was due: twice, or out of order",
            stream.id
        );
        let missing = place - *next;
        ensure!(
            missing == 0 || self.may_lose,
            "stream {}, flow {flow}: datagram {place} came when {next} was due: {missing} were lost",
            stream.id
        );
        self.lost += u64::from(missing);
        *next = place + 1;
        self.received += 1;
        Ok(())
    }

    /// The first flows of which something is missing, with what is due.
    #[must_use]
    pub fn missing(&self) -> String {
        let short = self.next.iter().enumerate().filter(|(_, next)| **next < self.stream.each);
        let short: Vec<String> = short.take(8).map(|(flow, next)| format!("flow {flow} from {next}")).collect();
        format!("stream {}: {} arrived; {}", self.stream.id, self.received, short.join(", "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::tenants::mac;

    fn stream() -> Stream {
        let sent = Envelope::new((mac(1), "10.0.0.1"), (mac(2), "10.0.1.2")).unwrap();
        let seen = sent.routed(mac(9), mac(3)).tagged(7);
        Stream { seen, each: 3, turns: 4, ..Stream::new(5, sent, 100_000) }
    }

    #[test]
    fn flows_take_turns_in_groups() {
        let stream = stream();
        let places: Vec<_> = (0..14).map(|number| stream.place(number)).collect();
        assert_eq!(places[..6], [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1)]);
        assert_eq!(places[11..], [(3, 2), (4, 0), (5, 0)]);
        assert_eq!(stream.count(), 300_000);
        assert_eq!(stream.place(stream.count() - 1), (99_999, 2));
        assert_ne!(stream.ports(0), stream.ports(PORTS));
    }

    #[test]
    fn what_a_router_changes_is_expected_and_nothing_else() {
        let stream = stream();
        let (mut frame, mut check) = (Vec::new(), Check::new(stream));
        stream.write(0, &stream.sent, &mut frame).unwrap();
        assert_eq!(Stream::mark(&frame), Some((5, 0)));
        assert!(check.accept(0, &frame).is_err(), "it did not pass the router");
        stream.write(0, &stream.seen, &mut frame).unwrap();
        assert_eq!(Stream::mark(&frame), Some((5, 0)), "behind a tag");
        check.accept(0, &frame).unwrap();
        assert!(check.accept(0, &frame).is_err(), "twice");
        stream.write(8, &stream.seen, &mut frame).unwrap();
        assert!(check.accept(8, &frame).is_err(), "one before it is missing");
        check.may_lose = true;
        check.accept(8, &frame).unwrap();
        assert_eq!((check.received, check.lost), (2, 1));
        frame[60] ^= 1;
        assert!(check.accept(8, &frame).is_err());
    }
}
