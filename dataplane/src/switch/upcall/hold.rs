//! Packets that wait for their flow: control has decided on it, but packets of it that went up before may still be on their way back.

use std::collections::VecDeque;
use std::fmt;

use hugemem::Packet;

use crate::flow::{Domain, FlowIndex};
use crate::switch::PortSlot;

/// No cell, or no flow.
const NONE: u16 = u16::MAX;
/// Lists by which flows are found; a power of two.
const LISTS: usize = 1024;

/// A packet that waits.
#[derive(Debug)]
pub(in crate::switch) struct Held {
    /// The packet, whole.
    pub(in crate::switch) packet: Packet,
    /// Where it came from.
    pub(in crate::switch) from: PortSlot,
    /// Its domain, as in its key.
    pub(in crate::switch) domain: Domain,
    /// Cycle at which it came.
    pub(in crate::switch) since: u64,
}

struct Cell {
    held: Option<Held>,
    next: u16,
}

#[derive(Clone, Copy)]
struct Flow {
    /// The flow; `None` when this place is free.
    index: Option<FlowIndex>,
    first: u16,
    last: u16,
    /// Next flow of the list, or next free one.
    next: u16,
    /// Cycle at which its first packet came.
    since: u64,
}

/// Packets that wait, in order for each flow. Bounded, and made once.
pub(in crate::switch) struct Hold {
    cells: Box<[Cell]>,
    free_cell: u16,
    flows: Box<[Flow]>,
    free_flow: u16,
    lists: Box<[u16; LISTS]>,
    /// Flows that control has finished with, and the upcall before which all that came back has to have.
    ripe: VecDeque<(FlowIndex, u64)>,
    ripe_room: usize,
    count: usize,
    /// Packets of each port that wait.
    by_port: Box<[u16]>,
    /// Where [`Hold::expired`] goes on.
    hand: usize,
}

impl Hold {
    /// Room for `packets` packets of `flows` flows, and for `activations` that wait. Packets come from `ports` ports.
    pub(in crate::switch) fn new(packets: u16, flows: u16, activations: usize, ports: u16) -> Self {
        let next = |number: u16, count: u16| if number + 1 < count { number + 1 } else { NONE };
        let (packets, flows) = (packets.min(NONE - 1), flows.min(NONE - 1));
        Self {
            cells: (0..packets).map(|number| Cell { held: None, next: next(number, packets) }).collect(),
            free_cell: if packets == 0 { NONE } else { 0 },
            flows: (0..flows)
                .map(|number| Flow { index: None, first: NONE, last: NONE, next: next(number, flows), since: 0 })
                .collect(),
            free_flow: if flows == 0 { NONE } else { 0 },
            lists: Box::new([NONE; LISTS]),
            ripe: VecDeque::with_capacity(activations),
            ripe_room: activations,
            count: 0,
            by_port: vec![0; usize::from(ports)].into_boxed_slice(),
            hand: 0,
        }
    }

    /// Packets that wait.
    pub(in crate::switch) fn len(&self) -> usize {
        self.count
    }

    fn list(index: FlowIndex) -> usize {
        index.number() as usize % LISTS
    }

    /// Number of the flow in its list, and of the one before it.
    fn find(&self, index: FlowIndex) -> Option<(u16, u16)> {
        let mut before = NONE;
        let mut number = *self.lists.get(Self::list(index))?;
        while let Some(flow) = self.flows.get(usize::from(number)) {
            if flow.index == Some(index) {
                return Some((number, before));
            }
            before = number;
            number = flow.next;
        }
        None
    }

    /// Whether there is room for a packet of the flow from this port, which may have `quota` packets here.
    pub(in crate::switch) fn has_room(&self, index: FlowIndex, from: PortSlot, quota: u16) -> bool {
        let allowed = self.by_port.get(usize::from(from.0)).is_some_and(|count| *count < quota);
        allowed && self.free_cell != NONE && (self.free_flow != NONE || self.find(index).is_some())
    }

    /// Puts a packet behind those of the flow. Its port may have `quota` packets here.
    ///
    /// # Errors
    /// Gives the packet back when there is no room.
    pub(in crate::switch) fn push(&mut self, index: FlowIndex, held: Held, quota: u16) -> Result<(), Held> {
        let port = usize::from(held.from.0);
        if self.by_port.get(port).is_none_or(|count| *count >= quota) {
            return Err(held);
        }
        let number = match self.find(index) {
            Some((number, _)) => number,
            None => match self.enter(index, held.since) {
                Some(number) => number,
                None => return Err(held),
            },
        };
        let place = self.free_cell;
        let Some(cell) = self.cells.get_mut(usize::from(place)) else {
            self.leave_if_empty(index);
            return Err(held);
        };
        self.free_cell = std::mem::replace(&mut cell.next, NONE);
        cell.held = Some(held);
        self.count += 1;
        if let Some(count) = self.by_port.get_mut(port) {
            *count += 1;
        }
        let Some(flow) = self.flows.get_mut(usize::from(number)) else { return Ok(()) };
        let last = std::mem::replace(&mut flow.last, place);
        if last == NONE {
            flow.first = place;
        } else if let Some(cell) = self.cells.get_mut(usize::from(last)) {
            cell.next = place;
        }
        Ok(())
    }

    fn enter(&mut self, index: FlowIndex, since: u64) -> Option<u16> {
        let number = self.free_flow;
        let flow = self.flows.get_mut(usize::from(number))?;
        let list = self.lists.get_mut(Self::list(index))?;
        self.free_flow = flow.next;
        *flow = Flow { index: Some(index), first: NONE, last: NONE, next: *list, since };
        *list = number;
        Some(number)
    }

    /// Takes the flow's first packet.
    pub(in crate::switch) fn pop(&mut self, index: FlowIndex) -> Option<Held> {
        let (number, _) = self.find(index)?;
        let flow = self.flows.get_mut(usize::from(number))?;
        let place = flow.first;
        let held = self.cells.get_mut(usize::from(place)).and_then(|cell| {
            flow.first = std::mem::replace(&mut cell.next, self.free_cell);
            self.free_cell = place;
            cell.held.take()
        });
        if flow.first == NONE {
            flow.last = NONE;
            self.leave_if_empty(index);
        }
        if let Some(held) = &held {
            self.count -= 1;
            if let Some(count) = self.by_port.get_mut(usize::from(held.from.0)) {
                *count -= 1;
            }
        }
        held
    }

    fn leave_if_empty(&mut self, index: FlowIndex) {
        let Some((number, before)) = self.find(index) else { return };
        let Some(flow) = self.flows.get_mut(usize::from(number)).filter(|flow| flow.first == NONE) else { return };
        let next = std::mem::replace(&mut flow.next, self.free_flow);
        flow.index = None;
        self.free_flow = number;
        if let Some(before) = self.flows.get_mut(usize::from(before)) {
            before.next = next;
        } else if let Some(list) = self.lists.get_mut(Self::list(index)) {
            *list = next;
        }
    }

    /// Control has finished with a flow. What went up before upcall `barrier` may still come back, and goes first. `false` when too many
    /// flows wait for that already.
    #[must_use]
    pub(in crate::switch) fn ripen(&mut self, index: FlowIndex, barrier: u64) -> bool {
        let room = self.ripe.len() < self.ripe_room;
        if room {
            self.ripe.push_back((index, barrier));
        }
        room
    }

    /// The next flow whose packets may go, now that all upcalls up to `handled` are answered. The same one again until [`Hold::settled`].
    pub(in crate::switch) fn ripe(&self, handled: u64) -> Option<FlowIndex> {
        self.ripe.front().filter(|(_, barrier)| *barrier <= handled + 1).map(|(index, _)| *index)
    }

    /// The flow that [`Hold::ripe`] gave has no packets any more.
    pub(in crate::switch) fn settled(&mut self) {
        self.ripe.pop_front();
    }

    /// A flow whose first packet came more than `limit` cycles before `now`. Looks at some flows in each call, and at all in time.
    pub(in crate::switch) fn expired(&mut self, now: u64, limit: u64) -> Option<FlowIndex> {
        for _ in 0..64.min(self.flows.len()) {
            self.hand = if self.hand + 1 < self.flows.len() { self.hand + 1 } else { 0 };
            if let Some(flow) = self.flows.get(self.hand)
                && flow.index.is_some()
                && now.saturating_sub(flow.since) > limit
            {
                return flow.index;
            }
        }
        None
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("packets", &self.count).field("ripe", &self.ripe.len()).finish_non_exhaustive()
    }
}
