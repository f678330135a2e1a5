//! A batch on its way through the pipeline, and what is known about each of its packets.

use hugemem::{Batch, Packet};

use super::outputs::PortSlot;
use super::reason::Reason;
use super::set::{MOST, Set};
use super::upcall::Why;
use crate::flow::{Action, Domain, FlowIndex, Output};
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
    pub(super) action: Action,
    /// Its flow.
    pub(super) index: Option<FlowIndex>,
    /// What becomes of it.
    pub(super) verdict: Verdict,
    /// Where it came from.
    pub(super) from: PortSlot,
    /// Where it came from, as its key says it.
    pub(super) domain: Domain,
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
        action: Action::to(Output::Up),
        index: None,
        verdict: Verdict::Open,
        from: PortSlot(0),
        domain: Domain::port(0),
        hash: 0,
    };
}

/// Which packets of the batch want what, from their actions.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Wants {
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
    /// Their latency is sampled.
    pub(super) sample: Set,
}

/// A batch on its way through the pipeline. Packets stay in their places until the end.
#[derive(Debug)]
pub(super) struct Slots {
    /// The packets.
    pub(super) packets: Batch,
    slots: Box<[Slot; MOST]>,
    /// Packets that have not been dropped, sent up or put to wait.
    pub(super) live: Set,
    /// Packets that had been held or with control: nothing of their flow may go before them, so they are not held again.
    pub(super) returned: Set,
    /// Packets whose action came with them.
    pub(super) decided: Set,
    /// Packets that may be in tunnels that end here.
    pub(super) underlay: Set,
    /// What their actions ask for.
    pub(super) wants: Wants,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            packets: Batch::new(MOST),
            slots: Box::new([Slot::EMPTY; MOST]),
            live: Set::EMPTY,
            returned: Set::EMPTY,
            decided: Set::EMPTY,
            underlay: Set::EMPTY,
            wants: Wants::default(),
        }
    }

    /// Forgets what was known about the batch before.
    pub(super) fn begin(&mut self) {
        self.live = Set::EMPTY;
        self.returned = Set::EMPTY;
        self.decided = Set::EMPTY;
        self.underlay = Set::EMPTY;
        self.wants = Wants::default();
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

    /// Adds a packet, of which nothing is known yet. `None` when there is no room, and the packet is gone.
    #[inline]
    pub(super) fn add(&mut self, packet: Packet, from: PortSlot, domain: Domain) -> Option<usize> {
        let place = self.packets.len();
        self.packets.push(packet).ok()?;
        self.live.insert(place);
        let slot = self.get_mut(place);
        slot.verdict = Verdict::Open;
        slot.index = None;
        slot.from = from;
        slot.domain = domain;
        Some(place)
    }

    /// Takes all packets out, with what is known about them.
    #[inline]
    pub(super) fn drain(&mut self, mut each: impl FnMut(&Slot, Packet)) {
        for (packet, slot) in self.packets.drain_front(MOST).zip(self.slots.iter()) {
            each(slot, packet);
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
    #[inline]
    pub(super) fn act(&mut self, place: usize, action: Action, index: Option<FlowIndex>) {
        let slot = self.get_mut(place);
        slot.action = action;
        slot.index = index;
        slot.verdict = match action.output {
            Output::Port(port) => Verdict::Port(PortSlot(port)),
            Output::Replicate(set) => Verdict::Replicate(set),
            Output::Drop(code) => Verdict::Drop(Reason::of_code(code)),
            Output::Up => Verdict::Up(Why::Asked),
            Output::Local => Verdict::Up(Why::Local),
            Output::Tunnel(_) => Verdict::Open,
        };
        let rewrite = &action.rewrite;
        let changes = rewrite.source_mac.is_some()
            | rewrite.destination_mac.is_some()
            | (rewrite.vlan != crate::flow::VlanRewrite::Keep)
            | rewrite.decrement_ttl
            | rewrite.translation.is_some();
        let wants = &mut self.wants;
        wants.meter.insert_if(place, action.meter != 0);
        wants.coprocessor.insert_if(place, action.coprocessor != 0);
        wants.mirror.insert_if(place, action.mirror);
        wants.rewrite.insert_if(place, changes);
        wants.tunnel.insert_if(place, matches!(action.output, Output::Tunnel(_)));
        wants.replicate.insert_if(place, matches!(action.output, Output::Replicate(_)));
        wants.sample.insert_if(place, action.sample);
    }
}
