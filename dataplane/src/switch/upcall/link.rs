//! The engine's end of the rings.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hugemem::Packet;
use rtrb::{Consumer, Producer, PushError};

use super::{Answer, Back, RESERVED, Raised, Shared, Upcall, Why};
use crate::flow::{Domain, FlowKey};
use crate::switch::{PortSlot, Reason};

/// The engine's end of the rings.
pub(in crate::switch) struct Link {
    raise: Producer<Raised>,
    answers: Consumer<Answer>,
    shared: Arc<Shared>,
    /// Number of the next upcall; they count from 1.
    next: u64,
    handled: u64,
    /// Packets of each port that are with control.
    with_control: Box<[u16]>,
    /// Something was left for control since that was asked for last.
    news: bool,
}

impl Link {
    pub(super) fn new(raise: Producer<Raised>, answers: Consumer<Answer>, shared: Arc<Shared>, ports: usize) -> Self {
        Self {
            raise,
            answers,
            shared,
            next: 1,
            handled: 0,
            with_control: vec![0; ports].into_boxed_slice(),
            news: false,
        }
    }

    /// Number of the next upcall.
    pub(in crate::switch) fn next(&self) -> u64 {
        self.next
    }

    /// All upcalls up to this number are answered.
    pub(in crate::switch) fn handled(&self) -> u64 {
        self.handled
    }

    /// Whether a packet of `from`, which may have `quota` packets with control, can go up now.
    ///
    /// # Errors
    /// Why it cannot.
    #[inline]
    pub(in crate::switch) fn admits(&self, from: PortSlot, quota: u16) -> Result<(), Reason> {
        let count = self.with_control.get(usize::from(from.0)).ok_or(Reason::NoPort)?;
        if *count >= quota {
            return Err(Reason::UpcallQuota);
        }
        if self.raise.slots() > RESERVED {
            return Ok(());
        }
        Err(if self.raise.is_abandoned() { Reason::NoControl } else { Reason::UpcallFull })
    }

    /// Sends a packet up. [`Link::admits`] was asked before.
    ///
    /// # Errors
    /// Gives the packet back when there is no room.
    pub(in crate::switch) fn raise(
        &mut self,
        packet: Packet,
        (from, domain): (PortSlot, Domain),
        key: FlowKey,
        why: Why,
        since: u64,
        done: u16,
    ) -> Result<(), Packet> {
        let upcall = Upcall { sequence: self.next, packet, from, domain, key, why, since, done };
        if let Err(PushError::Full(Raised::Upcall(upcall))) = self.raise.push(Raised::Upcall(upcall)) {
            return Err(upcall.packet);
        }
        self.next += 1;
        self.news = true;
        if let Some(count) = self.with_control.get_mut(usize::from(from.0)) {
            *count = count.saturating_add(1);
        }
        Ok(())
    }

    /// There is room to give something back, so that an order may be taken that makes something unnecessary.
    pub(in crate::switch) fn can_give_back(&self) -> bool {
        !self.raise.is_full()
    }

    /// Gives back what control lent.
    pub(in crate::switch) fn give_back(&mut self, back: Back) {
        // There is always a place, which was looked for before the order was taken. Were there none, this thread would free it.
        let _ = self.raise.push(Raised::Back(back));
        self.news = true;
    }

    /// The next order, of which [`Link::accept`] takes note.
    pub(in crate::switch) fn take(&mut self) -> Option<Answer> {
        self.answers.pop().ok()
    }

    /// Looks at the next order and leaves it.
    pub(in crate::switch) fn peek(&self) -> Option<&Answer> {
        self.answers.peek().ok()
    }

    /// Takes note of what is answered with an order.
    pub(in crate::switch) fn accept(&mut self, handled: u64, settles: Option<PortSlot>) {
        self.handled = self.handled.max(handled);
        if let Some(count) = settles.and_then(|port| self.with_control.get_mut(usize::from(port.0))) {
            *count = count.saturating_sub(1);
        }
    }

    /// The engine is through with an activation.
    pub(in crate::switch) fn settle(&mut self) {
        let settled = self.shared.settled.load(Ordering::Relaxed);
        self.shared.settled.store(settled + 1, Ordering::Release);
        self.news = true;
    }

    /// Whether something was left for control since this was asked last.
    #[inline]
    pub(in crate::switch) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("next", &self.next).field("handled", &self.handled).finish_non_exhaustive()
    }
}
