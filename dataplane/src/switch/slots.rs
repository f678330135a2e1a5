//! A batch on its way through the pipeline, and what is known about each of its packets.

use hugemem::{Batch, Packet};

use super::copy::Due;
use super::elements::MOST_COPIES;
use super::outputs::PortSlot;
use super::reason::Reason;
use super::set::{MOST, Set};
use super::upcall::Why;
use crate::flow::{Domain, FlowIndex, FlowKey, Output, PackedAction};
use crate::headers::Headers;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Not known yet.
    Open,
    /// It goes to a port.
    Port(PortSlot),
    /// It is copied to all of a set.
    Replicate(u16),
    /// It goes to a coprocessor.
    Coprocessor(u16),
    /// It goes to control.
    Up(Why),
    /// It waits for its flow.
    Hold(FlowIndex),
    /// It is dropped.
    Drop(Reason),
}

/// What is known about one packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// What its headers say.
    pub(super) headers: Headers,
    /// What is done to it.
    pub(super) action: PackedAction,
    /// Its flow.
    pub(super) index: Option<FlowIndex>,
    /// What becomes of it.
    pub(super) verdict: Verdict,
    /// Where it came from.
    pub(super) from: PortSlot,
    /// Where it came from, as its key says it.
    pub(super) domain: Domain,
    /// The coprocessor that gave it back, where one did.
    pub(super) done: u16,
    /// Names its flow, the same for all its packets.
    pub(super) hash: u32,
}

impl Slot {
    const EMPTY: Self = Self {
        headers: Headers {
            ether_type: 0,
            vlan: [0; 2],
            tags: 0,
            network: crate::headers::NetworkKind::None,
            fragment: crate::headers::Fragment::Whole,
            transport: crate::headers::TransportKind::None,
            protocol: 0,
            ttl: 0,
            network_at: 0,
            transport_at: 0,
            payload_at: 0,
            end: 0,
            malformed: None,
        },
        action: PackedAction::UP,
        index: None,
        verdict: Verdict::Open,
        from: PortSlot(0),
        domain: Domain::port(0),
        done: 0,
        hash: 0,
    };

    /// It is of another packet from now on, of which nothing is known yet.
    #[inline(always)]
    fn enter(&mut self, from: PortSlot, domain: Domain) {
        self.verdict = Verdict::Open;
        self.index = None;
        self.from = from;
        self.domain = domain;
    }
}

/// Which packets of the batch want what, from their actions.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Wants {
    /// They go no further: they are dropped, or go to control.
    pub(super) end: Set,
    /// They pass a meter.
    pub(super) meter: Set,
    /// They pass a coprocessor.
    pub(super) coprocessor: Set,
    /// They are mirrored.
    pub(super) mirror: Set,
    /// Something in them is changed.
    pub(super) rewrite: Set,
    /// They go into a tunnel.
    pub(super) tunnel: Set,
    /// They go to a set of destinations.
    pub(super) replicate: Set,
}

/// A batch on its way through the pipeline. Packets stay in their places until the end.
#[derive(Debug)]
pub(super) struct Slots {
    /// The packets.
    pub(super) packets: Batch,
    /// Copies of them, in the order of their places.
    pub(super) copies: Vec<Due>,
    slots: Box<[Slot; MOST]>,
    /// Their keys, made where their headers are read.
    keys: Box<[FlowKey; MOST]>,
    /// Packets that have not been dropped, sent up or put to wait.
    pub(super) live: Set,
    /// Packets that had been held or with control: nothing of their flow may go before them, so they are not held again.
    pub(super) returned: Set,
    /// Packets that coprocessors gave back.
    pub(super) resumed: Set,
    /// Packets whose action came with them.
    pub(super) decided: Set,
    /// Packets that may be in tunnels that end here.
    pub(super) underlay: Set,
    /// What their actions ask for.
    pub(super) wants: Wants,
    /// Packets whose latency is noted.
    pub(super) sampled: Set,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            packets: Batch::new(MOST),
            copies: Vec::with_capacity(MOST_COPIES),
            slots: Box::new([Slot::EMPTY; MOST]),
            keys: Box::new([FlowKey::NONE; MOST]),
            live: Set::EMPTY,
            returned: Set::EMPTY,
            resumed: Set::EMPTY,
            decided: Set::EMPTY,
            underlay: Set::EMPTY,
            wants: Wants::default(),
            sampled: Set::EMPTY,
        }
    }

    /// Forgets what was known about the batch before.
    pub(super) fn begin(&mut self) {
        self.live = Set::EMPTY;
        self.returned = Set::EMPTY;
        self.resumed = Set::EMPTY;
        self.decided = Set::EMPTY;
        self.underlay = Set::EMPTY;
        self.wants = Wants::default();
        self.sampled = Set::EMPTY;
    }

    /// What is known about the packet in `place`.
    #[inline]
    #[must_use]
    pub(super) fn get(&self, place: usize) -> &Slot {
        // Places are below 128, and so is the mask: no branch.
        #[expect(clippy::indexing_slicing, reason = "the index is masked to the array's length")]
        &self.slots[place % MOST]
    }

    /// What is known about the packet in `place`, to change.
    #[inline]
    pub(super) fn get_mut(&mut self, place: usize) -> &mut Slot {
        #[expect(clippy::indexing_slicing, reason = "the index is masked to the array's length")]
        &mut self.slots[place % MOST]
    }

    /// The keys of all places.
    #[inline]
    #[must_use]
    pub(super) fn keys(&self) -> &[FlowKey; MOST] {
        &self.keys
    }

    /// The key of the packet in `place`.
    #[inline]
    #[must_use]
    pub(super) fn key(&self, place: usize) -> &FlowKey {
        #[expect(clippy::indexing_slicing, reason = "the index is masked to the array's length")]
        &self.keys[place % MOST]
    }

    /// The packet in `place`, what is known about it, and its key. `None` where there is no packet.
    #[inline(always)]
    pub(super) fn at_mut(&mut self, place: usize) -> Option<(&mut Packet, &mut Slot, &mut FlowKey)> {
        let packet = self.packets.as_mut_slice().get_mut(place)?;
        #[expect(clippy::indexing_slicing, reason = "the index is masked to the array's length")]
        let known = (&mut self.slots[place % MOST], &mut self.keys[place % MOST]);
        Some((packet, known.0, known.1))
    }

    /// Takes packets out of `batch`, as many as there is room for, of which nothing is known yet.
    #[inline]
    pub(super) fn fill(&mut self, batch: &mut Batch, from: PortSlot, domain: Domain) {
        let before = self.packets.len();
        self.packets.take_from(batch);
        let after = self.packets.len();
        self.live = self.live.or(Set::first(after).without(Set::first(before)));
        for slot in self.slots.get_mut(before..after).unwrap_or_default() {
            slot.enter(from, domain);
        }
    }

    /// Adds a packet, of which nothing is known yet. `None` when there is no room, and the packet is gone.
    #[inline]
    pub(super) fn add(&mut self, packet: Packet, from: PortSlot, domain: Domain) -> Option<usize> {
        let place = self.packets.len();
        self.packets.push(packet).ok()?;
        self.live.insert(place);
        self.get_mut(place).enter(from, domain);
        Some(place)
    }

    /// Takes all packets out, with what is known about them.
    #[inline]
    pub(super) fn drain(&mut self, mut each: impl FnMut(&mut Slot, &FlowKey, Packet)) {
        for ((packet, slot), key) in self.packets.drain_front(MOST).zip(self.slots.iter_mut()).zip(self.keys.iter()) {
            each(slot, key, packet);
        }
    }

    /// Settles what becomes of the packet in `place`: no element but the last looks at it any more.
    #[inline]
    pub(super) fn settle(&mut self, place: usize, verdict: Verdict) {
        self.get_mut(place).verdict = verdict;
        self.live.remove(place);
    }

    /// The packet in `place` is to be dropped.
    #[inline]
    pub(super) fn drop(&mut self, place: usize, reason: Reason) {
        self.settle(place, Verdict::Drop(reason));
    }

    /// Takes note of the action of the packet in `place`.
    #[inline(always)]
    pub(super) fn act(&mut self, place: usize, action: PackedAction, index: Option<FlowIndex>) {
        let slot = self.get_mut(place);
        slot.action = action;
        slot.index = index;
        match action.port_alone() {
            Some(port) => slot.verdict = Verdict::Port(PortSlot(port)),
            None => self.act_further(place),
        }
    }

    /// Takes note of an action that is more than to send the packet to a port.
    #[inline(never)]
    fn act_further(&mut self, place: usize) {
        let action = self.get(place).action;
        let output = action.output();
        let wants = &mut self.wants;
        let verdict = match output {
            Output::Port(port) => Verdict::Port(PortSlot(port)),
            Output::Replicate(set) => {
                wants.replicate.insert(place);
                Verdict::Replicate(set)
            }
            Output::Tunnel(_) => {
                wants.tunnel.insert(place);
                Verdict::Open
            }
            Output::Drop(_) | Output::Up | Output::Local => {
                wants.end.insert(place);
                match output {
                    Output::Drop(code) => Verdict::Drop(Reason::of_code(code)),
                    Output::Local => Verdict::Up(Why::Local),
                    _ => Verdict::Up(Why::Asked),
                }
            }
        };
        for (set, wanted) in [
            (&mut wants.meter, action.meter() != 0),
            (&mut wants.coprocessor, action.coprocessors() != [0; 2]),
            (&mut wants.mirror, action.mirror() != 0),
            (&mut wants.rewrite, action.changes()),
        ] {
            if wanted {
                set.insert(place);
            }
        }
        self.get_mut(place).verdict = verdict;
    }
}
