//! The data path: which queues run, and what a poll does for them.

use std::collections::VecDeque;

use super::count::{Counts, Offloaded, wire_bytes};
use super::fault::{Fault, Trick};
use super::interrupts::{Interrupts, cause};
use super::queue::{ENABLE, Page, QUEUES, Word};
use super::receive::{Inlet, Outcome, Receiver};
use super::registers::{self, Register, Registers};
use super::statistics::Statistics;
use super::steering::{Rejected, Steering};
use super::transmit::{Outlet, Sender, Settings, Workshop};
use crate::card::{Bus, Hint, Work};
use crate::wire::Wire;

/// What happens to frames from the wire while the driver has no descriptor for them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Overrun {
    /// As SRRCTL.Drop_En has it: they are dropped (and counted in QPRDC), or wait on the wire and hold back those behind them.
    #[default]
    AsConfigured,
    /// They wait on the wire, whatever the driver configured: nothing is lost.
    Wait,
    /// They are dropped, whatever the driver configured, and counted in QPRDC with Drop_En, else in RXMPC.
    Drop,
}

/// What the data path needs of the rest of the chip.
pub(super) struct Rest<'poll> {
    pub(super) registers: &'poll Registers,
    pub(super) statistics: &'poll mut Statistics,
    pub(super) interrupts: &'poll mut Interrupts,
    pub(super) trick: &'poll mut Trick,
    pub(super) link_up: bool,
    /// The driver's accesses to queue pages call the chip, so that counters on them can be cleared by reading.
    pub(super) trapped: bool,
    pub(super) overrun: Overrun,
}

/// Queues that do not run and are looked at in each busy poll.
const LOOKED_AT: u8 = 16;

/// The queues of one direction.
#[derive(Debug)]
struct Queues<Q> {
    /// Those that run.
    running: Vec<Option<Box<Q>>>,
    mask: u128,
    /// Those that are enabled and hang.
    broken: u128,
    /// Where the next look begins.
    next: u8,
}

impl<Q> Queues<Q> {
    fn new() -> Self {
        Self { running: (0..QUEUES).map(|_| None).collect(), mask: 0, broken: 0, next: 0 }
    }

    fn get(&mut self, queue: u8) -> Option<&mut Q> {
        self.running.get_mut(usize::from(queue))?.as_deref_mut()
    }

    fn start(&mut self, queue: u8, started: Result<Q, &'static str>) -> Result<(), &'static str> {
        let running = started.map(|started| {
            if let Some(slot) = self.running.get_mut(usize::from(queue)) {
                *slot = Some(Box::new(started));
            }
            self.mask |= 1 << queue;
        });
        if running.is_err() {
            self.broken |= 1 << queue;
        }
        running
    }

    fn stop(&mut self, queue: u8) {
        if let Some(slot) = self.running.get_mut(usize::from(queue)) {
            *slot = None;
        }
        self.mask &= !(1 << queue);
        self.broken &= !(1 << queue);
    }

    fn hang(&mut self, queue: u8) {
        self.stop(queue);
        self.broken |= 1 << queue;
    }

    /// Queues to look at now: all that run or hang, and a few or all of the others.
    fn look(&mut self, all: bool) -> u128 {
        if all {
            return u128::MAX;
        }
        let few = ((1_u128 << LOOKED_AT) - 1) << self.next;
        self.next = (self.next + LOOKED_AT) % QUEUES;
        self.mask | self.broken | few
    }
}

/// Calls for each queue of a mask.
fn each(mut mask: u128, mut call: impl FnMut(u8)) {
    while mask != 0 {
        let queue = u8::try_from(mask.trailing_zeros()).unwrap_or(0);
        mask &= mask - 1;
        call(queue);
    }
}

/// What became of a frame from the wire.
#[derive(PartialEq, Eq)]
enum Taken {
    Done,
    Waits,
}

/// Rings and frames.
#[derive(Debug)]
pub(super) struct DataPath {
    receivers: Queues<Receiver>,
    senders: Queues<Sender>,
    steering: Option<Steering>,
    settings: Option<Settings>,
    counts: Counts,
    scratch: Vec<u8>,
    workshop: Workshop,
    looped: VecDeque<Vec<u8>>,
    /// The last poll moved no frame: time to look at all queues.
    idle: bool,
}

impl DataPath {
    /// No queue runs.
    pub(super) fn new() -> Self {
        Self {
            receivers: Queues::new(),
            senders: Queues::new(),
            steering: None,
            settings: None,
            counts: Counts::default(),
            scratch: Vec::with_capacity(1 << 14),
            workshop: Workshop::default(),
            looped: VecDeque::new(),
            idle: true,
        }
    }

    /// A reset of the chip: queue registers have their first values (sections 8.2.3.8 and 8.2.3.9), and nothing runs.
    pub(super) fn reset(&mut self, bus: &mut Bus) {
        // Buffers of 2 KiB with headers of 256 bytes.
        const SPLIT: u32 = 0x0402;
        for queue in 0..QUEUES {
            Page::receive(queue).reset(bus, &[(Word::Split, SPLIT)]);
            Page::transmit(queue).reset(bus, &[]);
        }
        let offloaded = self.counts.offloaded;
        *self = Self::new();
        self.counts.offloaded = offloaded;
    }

    /// What was done for the driver since power on.
    pub(super) fn offloaded(&self) -> Offloaded {
        self.counts.offloaded
    }

    /// A register outside the queue pages changed. Those that decide about frames are read again at the next poll; others, which
    /// drivers write under traffic, cost nothing.
    pub(super) fn stored(&mut self, offset: u32) {
        use registers as r;

        const READ: [Register; 21] = [
            r::CTRL_EXT,
            r::HLREG0,
            r::MAXFRS,
            r::RXCSUM,
            r::EXVET,
            r::FCTRL,
            r::VLNCTRL,
            r::MCSTCTRL,
            r::MRQC,
            r::DMATXCTL,
            r::DTXTCPFLGL,
            r::DTXTCPFLGH,
            r::RQSMR,
            r::TQSM,
            r::MTA,
            r::PFUTA,
            r::VFTA,
            r::RAL,
            r::RAH,
            r::RETA,
            r::RSSRK,
        ];
        if READ.iter().any(|register| register.index(offset).is_some()) {
            self.steering = None;
            self.settings = None;
        }
    }

    /// What the driver reads from a queue page that is not shared: RXDCTL.ENABLE and TXDCTL.ENABLE follow what the queue does.
    pub(super) fn view(&self, offset: u32, value: u32) -> u32 {
        let runs = match Page::of_control(offset) {
            None => return value,
            Some((false, queue)) => (self.receivers.mask | self.receivers.broken) >> queue & 1 != 0,
            Some((true, queue)) => (self.senders.mask | self.senders.broken) >> queue & 1 != 0,
        };
        if runs { value | ENABLE } else { value & !ENABLE }
    }

    /// Does what there is to do.
    pub(super) fn poll(&mut self, mut rest: Rest<'_>, bus: &mut Bus, wire: &mut dyn Wire, budget: usize) -> Work {
        let mut work = Work { other: self.follow(bus, rest.trick), ..Work::default() };
        self.read_registers(bus, rest.registers);
        // CTRL bit 2: the driver wants no more requests on the bus.
        let quiet = rest.registers.get(registers::CTRL.offset) & 1 << 2 != 0;
        if bus.is_master() && !quiet && rest.link_up {
            work.transmitted = self.transmit(&mut rest, bus, wire, budget);
            work.received = self.receive(&mut rest, bus, wire, budget);
            if self.counts.missed != 0 {
                rest.interrupts.other(cause::RECEIVE_MISS);
            }
        }
        self.idle = work.transmitted | work.received == 0;
        if !self.idle {
            self.counts.flush(rest.statistics);
            if rest.trick.is(Fault::DmaStray) {
                let _stray = bus.read(&mut Hint::default(), 0xdead_d000, &mut [0; 8]);
            }
        }
        work
    }

    fn read_registers(&mut self, bus: &mut Bus, registers: &Registers) {
        if self.settings.is_none() {
            self.settings = Some(Settings::new(registers));
        }
        if self.steering.is_none() {
            let (steering, complaint) = Steering::new(registers);
            self.steering = Some(steering);
            if let Some(complaint) = complaint {
                bus.violation(complaint);
            }
        }
    }

    /// The driver has looked at the register at `offset`. A driver that waits for a queue sees it follow by its next look, however late the next
    /// poll is.
    pub(super) fn looked_at(&mut self, bus: &mut Bus, trick: &Trick, offset: u32) {
        if Page::of_control(offset).is_some() {
            self.idle = true;
            let _changed = self.follow(bus, trick);
        }
    }

    /// Starts and stops queues as their registers say; `true` when one did.
    fn follow(&mut self, bus: &mut Bus, trick: &Trick) -> bool {
        let never = trick.is(Fault::QueueEnableNever);
        let mut changed = false;
        each(self.receivers.look(self.idle), |queue| {
            changed |= follow_receiver(&mut self.receivers, bus, queue, never)
        });
        let senders = &mut self.senders;
        each(senders.look(self.idle), |queue| {
            let page = Page::transmit(queue);
            let known = (senders.mask | senders.broken) >> queue & 1 != 0;
            let enabled = enabled(bus, page, never);
            if known && (!enabled || senders.get(queue).is_some_and(|sender| sender.is_stale(bus))) {
                senders.stop(queue);
                changed = true;
            }
            if enabled && (senders.mask | senders.broken) >> queue & 1 == 0 {
                changed = true;
                if let Err(reason) = senders.start(queue, Sender::new(bus, queue)) {
                    bus.violation(format!("transmit queue {queue} was enabled with {reason}"));
                }
            }
        });
        changed
    }

    fn transmit(&mut self, rest: &mut Rest<'_>, bus: &mut Bus, wire: &mut dyn Wire, budget: usize) -> u32 {
        let Some(settings) = self.settings.as_ref().filter(|settings| settings.enabled) else { return 0 };
        let (senders, counts, workshop) = (&mut self.senders, &mut self.counts, &mut self.workshop);
        let looped = settings.loops.then_some(&mut self.looped);
        let mut outlet = Outlet { wire, looped, sent: &mut counts.sent, offloaded: &mut counts.offloaded };
        let (mut total, mut reports) = (0, 0_u128);
        each(senders.mask, |queue| {
            let Some(sender) = senders.get(queue) else { return };
            match sender.run(bus, settings, rest.trick, &mut outlet, workshop, budget) {
                Ok((sent, reported)) => {
                    total += sent;
                    reports |= u128::from(reported) << queue;
                    let set = u32::from(settings.statistics.get(usize::from(queue)).copied().unwrap_or(0));
                    sender.sent.flush(rest.statistics, registers::QPTC.at(set), registers::QBTC_L.at(set));
                }
                Err(reason) => {
                    if !reason.is_empty() {
                        bus.violation(format!("transmit queue {queue} hangs: {reason}"));
                    }
                    senders.hang(queue);
                }
            }
        });
        if reports != 0 {
            rest.interrupts.transmit(reports);
        }
        u32::try_from(total).unwrap_or(u32::MAX)
    }

    fn receive(&mut self, rest: &mut Rest<'_>, bus: &mut Bus, wire: &mut dyn Wire, budget: usize) -> u32 {
        let enabled = rest.registers.get(registers::RXCTRL.offset) & 1 != 0;
        let loops = self.settings.as_ref().is_some_and(|settings| settings.loops);
        let (mut done, mut touched) = (0, 0_u128);
        if enabled {
            while done < budget
                && let Some(frame) = self.looped.pop_front()
            {
                if self.take(&frame, rest, bus, &mut touched) == Taken::Waits {
                    self.looped.push_front(frame);
                    break;
                }
                done += 1;
            }
        }
        while done < budget
            && let Some(frame) = wire.peek()
        {
            // A MAC in loopback does not listen to the wire.
            let drops = loops || (!enabled && rest.overrun == Overrun::Drop);
            if !drops && (!enabled || self.take(frame, rest, bus, &mut touched) == Taken::Waits) {
                break;
            }
            wire.advance();
            done += 1;
        }
        if touched != 0 {
            self.settle(rest, bus, touched);
        }
        u32::try_from(done).unwrap_or(u32::MAX)
    }

    /// Receives a frame, drops it, or leaves it for later.
    #[inline]
    fn take(&mut self, frame: &[u8], rest: &mut Rest<'_>, bus: &mut Bus, touched: &mut u128) -> Taken {
        let Some(steering) = &self.steering else { return Taken::Waits };
        let counts = &mut self.counts;
        let parsed = steering.parse(frame);
        let accepted = match steering.judge(frame, &parsed) {
            Ok(accepted) => accepted,
            Err(rejected) => {
                counts.arrived.add(wire_bytes(frame));
                match rejected {
                    Rejected::Undersize => counts.undersize += 1,
                    Rejected::Oversize => counts.oversize += 1,
                    Rejected::BadLength => counts.bad_length += 1,
                    Rejected::Filtered => counts.unfiltered.add(wire_bytes(frame)),
                }
                return Taken::Done;
            }
        };
        let queue = if rest.trick.is_honest() { accepted.queue } else { rest.trick.queue(accepted.queue) };
        if self.receivers.mask >> queue & 1 == 0 {
            let never = rest.trick.is(Fault::QueueEnableNever);
            follow_receiver(&mut self.receivers, bus, queue, never);
        }
        let outcome = match self.receivers.get(queue) {
            // Nobody is there to receive it.
            None => {
                counts.missed += 1;
                None
            }
            Some(receiver) => {
                let inlet = Inlet {
                    steering,
                    trick: rest.trick,
                    scratch: &mut self.scratch,
                    bad_checksums: &mut counts.bad_checksums,
                    offloaded: &mut counts.offloaded,
                };
                let outcome = receiver.deliver(bus, inlet, frame, &parsed, accepted);
                let drops = match rest.overrun {
                    Overrun::AsConfigured => receiver.drops,
                    Overrun::Wait => false,
                    Overrun::Drop => true,
                };
                if outcome == Outcome::Later || (outcome == Outcome::NoDescriptor && !drops) {
                    return Taken::Waits;
                }
                *touched |= 1 << queue;
                if outcome == Outcome::NoDescriptor && receiver.drops {
                    receiver.dropped += 1;
                } else if outcome != Outcome::Delivered {
                    counts.missed += 1;
                    rest.interrupts.other(cause::RECEIVE_MISS);
                }
                Some(outcome)
            }
        };
        if let Some(Outcome::Wrong(reason)) = outcome {
            if !reason.is_empty() {
                bus.violation(format!("receive queue {queue} hangs: {reason}"));
            }
            self.receivers.hang(queue);
        }
        counts.arrived.add(wire_bytes(frame));
        if accepted.bad {
            counts.bad_length += 1;
        } else {
            counts.unfiltered.add(wire_bytes(frame));
            counts.received.add(frame);
        }
        rest.trick.count(1);
        Taken::Done
    }

    /// Shows the driver what queues received.
    fn settle(&mut self, rest: &mut Rest<'_>, bus: &mut Bus, touched: u128) {
        let Some(steering) = &self.steering else { return };
        let (receivers, counts) = (&mut self.receivers, &mut self.counts);
        let mut filled = 0_u128;
        each(touched, |queue| {
            let Some(receiver) = receivers.get(queue) else { return };
            receiver.show(bus, rest.trick);
            counts.delivered.frames += receiver.delivered.frames;
            counts.delivered.bytes += receiver.delivered.bytes;
            filled |= u128::from(receiver.delivered.frames != 0) << queue;
            let dropped = std::mem::take(&mut receiver.dropped);
            if rest.trapped {
                let set = u32::from(steering.statistics.get(usize::from(queue)).copied().unwrap_or(0));
                receiver.delivered.flush(rest.statistics, registers::QPRC.at(set), registers::QBRC_L.at(set));
                rest.statistics.add(registers::QPRDC.at(set), dropped);
            }
            receiver.delivered = super::count::Amount::default();
        });
        if filled != 0 {
            rest.interrupts.receive(filled);
        }
    }
}

fn enabled(bus: &mut Bus, page: Page, never: bool) -> bool {
    let enabled = page.is_enabled(bus);
    if never && enabled {
        let control = page.get(bus, Word::Control);
        page.set(bus, Word::Control, control & !ENABLE);
    }
    enabled && !never
}

/// Starts or stops a receive queue as its registers say; `true` when it did.
fn follow_receiver(receivers: &mut Queues<Receiver>, bus: &mut Bus, queue: u8, never: bool) -> bool {
    let page = Page::receive(queue);
    let enabled = enabled(bus, page, never);
    let mut changed = false;
    let known = (receivers.mask | receivers.broken) >> queue & 1 != 0;
    if known && (!enabled || receivers.get(queue).is_some_and(|receiver| receiver.is_stale(bus))) {
        receivers.stop(queue);
        changed = true;
    }
    if !enabled {
        return changed;
    }
    if let Some(receiver) = receivers.get(queue) {
        receiver.control(page.get(bus, Word::Control));
    } else if receivers.broken >> queue & 1 == 0 {
        changed = true;
        if let Err(reason) = receivers.start(queue, Receiver::new(bus, queue)) {
            bus.violation(format!("receive queue {queue} was enabled with {reason}"));
        }
    }
    changed
}
