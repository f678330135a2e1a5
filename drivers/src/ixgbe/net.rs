//! A card: taking it over, bringing it up, watching it and stopping it (4.6.3).

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use hugemem::{PacketPool, Region};

use super::card::Card;
use super::device;
use super::filters::{self, VLANS};
use super::interrupts::{self, Vector};
use super::link::Link;
use super::nvm;
use super::options::{
    Config, LARGEST_MTU, OFFLOADS, ReceiveSetup, SMALLEST_MTU, Summary, TransmitSetup, USUAL_MTU, longest, ring_size,
};
use super::receive::Rx;
use super::registers::{EICR, QUEUES, eicr};
use super::reset::{halt, quiesce, ready};
use super::rss;
use super::setup;
use super::statistics::Statistics;
use super::transmit::Tx;
use super::vigil::Vigil;
use crate::bus::{Bar, BusError, Clock, PciFunction, PciId};
use crate::health::Health;
use crate::home::Home;
use crate::nic::{FlowControl, LinkStatus, MacAddress, Nic, NicError, Offloads, QueuePair, ReceiveFilter};
use crate::reach::Reach;

/// How long a card may take to reset itself.
const RESET_LIMIT: Duration = Duration::from_secs(1);
/// The same when the driver goes away and nobody can be told.
const LAST_RESET_LIMIT: Duration = Duration::from_millis(200);
/// Least room of a receive buffer.
const LEAST_ROOM: usize = 1024;
/// Looks into a cage take a while: one for so many calls of [`Nic::check`].
const LOOK_EVERY: u32 = 5;

/// A card, owned.
///
/// [`Ixgbe::open`] finds out what it is and takes all memory; [`Nic::start`] brings it up and hands out queues;
/// [`Nic::stop`] resets it and takes queues and buffers back, after which it can be started again. Dropping it resets it and
/// takes it off the bus.
pub struct Ixgbe<F: PciFunction> {
    card: Card<F::Bar>,
    config: Config,
    summary: Summary,
    link: Link,
    /// Questions while the link was down.
    looks: u32,
    statistics: Statistics,
    health: Arc<Health>,
    vigil: Vigil,
    home: Home<Rx<F::Bar>, Tx<F::Bar>>,
    running: bool,
    reach: Reach,
    // Last, so that doorbells and registers are let go of before the function is.
    function: F,
}

type Pairs<F> = Vec<QueuePair<Rx<<F as PciFunction>::Bar>, Tx<<F as PciFunction>::Bar>, <F as PciFunction>::Interrupt>>;

impl<F: PciFunction> Ixgbe<F> {
    /// Takes over a card: resets it, checks its NVM, and takes memory for its rings.
    ///
    /// Rings come from `memory`, [`Config::ring_memory`] bytes at most; receive buffers of queue pair `i` from
    /// `pools[i]`. Both are mapped for the card here. Regions of packets that are only sent are to be mapped with
    /// [`Ixgbe::map`]. There are as many queue pairs as the configuration asks for, the card has (16), and there are
    /// pools.
    ///
    /// # Errors
    /// When the function is no such card, does not answer in time or has a damaged NVM, when the request cannot be met, or
    /// memory does not suffice.
    pub fn open(
        mut function: F,
        clock: Arc<dyn Clock>,
        memory: &Region,
        pools: Vec<PacketPool>,
        config: Config,
    ) -> Result<Self, NicError> {
        let Some(kind) = device::kind(function.id()) else {
            let PciId { vendor, device, .. } = function.id();
            return Err(NicError::Unsupported {
                device: function.name().to_string(),
                reason: alloc::format!(
                    "{vendor:04x}:{device:04x} is no Intel 82599, X540 or X550 (8086:10fb, 8086:1528, 8086:1563 and kin)"
                ),
            });
        };
        // Whatever the last owner left behind.
        match function.reset() {
            Ok(()) | Err(BusError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let card = Card::find(&mut function, kind, clock)?;
        let pairs = u16::try_from(pools.len()).unwrap_or(u16::MAX).min(config.nic.queue_pairs);
        let most = u16::try_from(QUEUES).unwrap_or(u16::MAX);
        let pairs = pairs.min(most);
        if pairs == 0 {
            return Err(card.refuses("a port needs at least one queue pair, and a packet pool for each"));
        }
        let mtu = config.nic.mtu.unwrap_or(USUAL_MTU);
        if !(SMALLEST_MTU..=LARGEST_MTU).contains(&mtu) {
            return Err(card.refuses(alloc::format!(
                "the card carries payloads of {SMALLEST_MTU} to {LARGEST_MTU} bytes, not of {mtu}; change mtu={mtu}"
            )));
        }
        check_vlans(&card, &config.nic.filter)?;
        halt(&mut function, &card, RESET_LIMIT)?;
        ready(&card)?;
        nvm::verify(&card)?;
        Statistics::discard(&card);
        let mac = match config.nic.mac {
            Some(MacAddress([first, ..])) if first & 1 != 0 => {
                return Err(card.refuses("the Ethernet address asked for is one of a group; choose one of a station"));
            }
            Some(mac) => mac,
            None => filters::permanent(&card)
                .ok_or_else(|| card.misbehaves("its NVM holds no Ethernet address; choose one with mac="))?,
        };
        let mut reach = Reach::default();
        reach.map(&mut function, memory)?;
        for pool in pools.iter().take(pairs.into()) {
            reach.map(&mut function, pool.region())?;
            if pool.room() < LEAST_ROOM {
                return Err(card.refuses(alloc::format!(
                    "receive buffers have room for {} bytes and need room for {LEAST_ROOM}",
                    pool.room(),
                )));
            }
        }
        let size = ring_size(config.nic.ring_size);
        let health = Arc::new(Health::new(pairs));
        let mut receivers = Vec::new();
        let mut transmitters = Vec::new();
        for (pair, pool) in (0..pairs).zip(pools) {
            let rx = Rx::new(memory, size, pool, Arc::clone(&health), pair);
            receivers.push(Some(rx.map_err(|error| card.out_of_memory(error))?));
            let tx = Tx::new(memory, size, Arc::clone(&health), pair);
            transmitters.push(Some(tx.map_err(|error| card.out_of_memory(error))?));
        }
        let summary = Summary {
            family: kind.family,
            medium: kind.medium,
            module: None,
            offloads: config.nic.offloads & OFFLOADS,
            queue_pairs: pairs,
            device_queue_pairs: most,
            receive_ring_size: size,
            transmit_ring_size: size,
            interrupts: config.nic.interrupts && function.interrupt_count() >= pairs,
            mac,
            mtu,
        };
        let mut nic = Self {
            card,
            config,
            summary,
            link: Link::default(),
            looks: 0,
            statistics: Statistics::new(),
            health,
            vigil: Vigil::new(pairs),
            home: Home { receivers, transmitters },
            running: false,
            reach,
            function,
        };
        // So that the link can train, and is known, before the port starts.
        nic.start_link()?;
        Ok(nic)
    }

    /// What driver and card agreed on.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The function that the card sits on.
    #[must_use]
    pub fn function(&self) -> &F {
        &self.function
    }

    fn start_link(&mut self) -> Result<(), NicError> {
        self.link = Link::start(&self.card, self.config.flow_control)?;
        self.summary.module = self.link.module;
        Ok(())
    }

    fn pairs(&self) -> u32 {
        self.summary.queue_pairs.into()
    }

    /// Stops the card and takes back the buffers of all queues that are at home. Those of a card that does not stop come
    /// back too, when the bus can take the memory away from it.
    fn empty(&mut self) -> Result<(), NicError> {
        // The reset clears what was counted, so nothing may be counted meanwhile.
        quiesce(&self.card);
        self.statistics.gather(&self.card);
        let halted = halt(&mut self.function, &self.card, RESET_LIMIT);
        let (stopped, outcome) = match halted {
            Ok(stopped) => (Some(stopped), Ok(())),
            Err(error) => (self.reach.withdraw(&mut self.function), Err(error)),
        };
        let Some(stopped) = stopped else {
            return outcome;
        };
        let Summary { offloads, mtu, .. } = self.summary;
        let longest = longest(mtu);
        for rx in self.home.receivers.iter_mut().flatten() {
            rx.reset(&stopped, ReceiveSetup { offloads, longest });
        }
        for tx in self.home.transmitters.iter_mut().flatten() {
            tx.reset(&stopped, TransmitSetup { offloads, longest });
        }
        outcome
    }

    /// Brings the card up, in the order of section 4.6.3. All queues are at home.
    fn bring_up(&mut self) -> Result<Vec<Option<F::Interrupt>>, NicError> {
        self.empty()?;
        self.reach.restore(&mut self.function)?;
        self.health.clear();
        self.vigil.restart(&self.statistics);
        ready(&self.card)?;
        self.start_link()?;
        let pairs = self.pairs();
        let Summary { offloads, mtu, mac, queue_pairs, .. } = self.summary;
        // Receive side (4.6.7).
        setup::receive_side(&self.card, mtu);
        filters::set(&self.card, mac, &self.config.nic.filter);
        if offloads.contains(Offloads::RSS) || pairs > 1 {
            rss::spread(&self.card, pairs, &self.config.nic.rss_key);
        } else {
            rss::off(&self.card);
        }
        // Interrupts (4.6.3.1), masked until somebody wants to sleep.
        let wanted = self.config.nic.interrupts && self.function.interrupt_count() >= queue_pairs;
        let mut handles: Vec<_> =
            if wanted { self.function.interrupts(queue_pairs)?.into_iter().map(Some).collect() } else { Vec::new() };
        handles.resize_with(queue_pairs.into(), || None);
        self.summary.interrupts = handles.iter().all(Option::is_some);
        interrupts::set_up(&self.card, if wanted { pairs } else { 0 }, self.config.interrupt_interval);
        self.function.set_bus_master(true)?;
        // Queues: those that send first, so that none is missing when frames come.
        setup::transmit_side(&self.card);
        for (tx, index) in self.home.transmitters.iter_mut().flatten().zip(0..) {
            let doorbell = setup::transmit_queue(&self.card, index, (tx.address(), tx.size()))?;
            tx.begin(doorbell);
        }
        let strip = offloads.contains(Offloads::VLAN_STRIP);
        for ((rx, handle), index) in self.home.receivers.iter_mut().flatten().zip(&handles).zip(0..) {
            let ring = (rx.address(), rx.size());
            let doorbell = setup::receive_queue(&self.card, index, ring, rx.buffer_kib(), strip)?;
            let vector = handle.as_ref().map(|_| Vector::new(self.card.bar.clone(), index));
            rx.begin(doorbell, vector);
        }
        // Until the link comes up and says better.
        super::flow::apply(&self.card, FlowControl::default(), longest(mtu), pairs);
        setup::receiver_on(&self.card)?;
        self.card.present()?;
        Ok(handles)
    }

    /// Resets the card and takes back the buffers of all queues that are at home.
    fn bring_down(&mut self) -> Result<(), NicError> {
        self.running = false;
        let stopped = self.empty();
        // Vectors are given back; that a bus has none to give back is no failure.
        let _ = self.function.interrupts(0);
        stopped
    }

    fn ask_link(&mut self) -> Result<LinkStatus, NicError> {
        let pairs = self.pairs();
        self.link.ask(&self.card, longest(self.summary.mtu), pairs)
    }
}

/// Refuses VLANs that cannot be.
fn check_vlans<B: Bar>(card: &Card<B>, filter: &ReceiveFilter) -> Result<(), NicError> {
    match filter.vlans.iter().flatten().find(|vlan| **vlan >= VLANS) {
        Some(vlan) => Err(card.refuses(alloc::format!("{vlan} is no VLAN; they are 0 to 4095"))),
        None => Ok(()),
    }
}

impl<F: PciFunction> Nic for Ixgbe<F> {
    type Rx = Rx<F::Bar>;
    type Tx = Tx<F::Bar>;
    type Interrupt = F::Interrupt;

    fn name(&self) -> &str {
        self.function.name()
    }

    fn mac(&self) -> MacAddress {
        self.summary.mac
    }

    fn mtu(&self) -> u16 {
        self.summary.mtu
    }

    fn link(&mut self) -> LinkStatus {
        if !self.running {
            return LinkStatus::default();
        }
        self.ask_link().unwrap_or_default()
    }

    fn offloads(&self) -> Offloads {
        self.summary.offloads
    }

    fn start(&mut self) -> Result<Pairs<F>, NicError> {
        if self.running {
            return Err(self.card.refuses("it is started already; stop it first"));
        }
        if let Some(pair) = self.home.missing() {
            return Err(self.card.refuses(alloc::format!(
                "queue pair {pair} was not given back when it was stopped; open the device again"
            )));
        }
        let interrupts = match self.bring_up() {
            Ok(interrupts) => interrupts,
            Err(error) => {
                // What failed first is what counts.
                let _ = self.bring_down();
                return Err(error);
            }
        };
        self.running = true;
        Ok(self.home.hand_out(interrupts))
    }

    fn stop(&mut self, queues: Vec<(Self::Rx, Self::Tx)>) -> Result<(), NicError> {
        self.home.take_back(queues, &self.health);
        self.bring_down()
    }

    fn map(&mut self, region: &Region) -> Result<(), NicError> {
        Ok(self.reach.map(&mut self.function, region)?)
    }

    fn unmap(&mut self, region: &Region) -> Result<(), NicError> {
        Ok(self.reach.unmap(&mut self.function, region)?)
    }

    fn set_filter(&mut self, filter: &ReceiveFilter) -> Result<(), NicError> {
        check_vlans(&self.card, filter)?;
        self.config.nic.filter = filter.clone();
        // Otherwise it is done at the next start.
        if self.running {
            filters::set(&self.card, self.summary.mac, filter);
            self.card.present()?;
        }
        Ok(())
    }

    fn statistics(&mut self) -> Vec<(&'static str, u64)> {
        if self.running {
            self.statistics.gather(&self.card);
        }
        self.statistics.list()
    }

    fn check(&mut self) -> Result<(), NicError> {
        if !self.running {
            return Ok(());
        }
        self.card.present()?;
        if let Some(reason) = setup::upset(&self.card, self.pairs()) {
            // All ones look like bits that are set, and a card that goes away between two looks like one that was reset.
            self.card.present()?;
            return Err(self.card.misbehaves(alloc::format!("{reason}; stop and start the port")));
        }
        if self.card.load(&EICR) & eicr::ECC != 0 {
            self.card.present()?;
            return Err(self.card.misbehaves("its memory has an error that it cannot mend; stop and start the port"));
        }
        if let Some(reason) = self.health.fault() {
            return Err(self.card.misbehaves(reason));
        }
        self.vigil.look(&self.health);
        self.statistics.gather(&self.card);
        let status = self.ask_link()?;
        if !status.up {
            self.looks = self.looks.wrapping_add(1);
            if self.looks.is_multiple_of(LOOK_EVERY) {
                self.link.look(&self.card)?;
                self.summary.module = self.link.module;
            }
        }
        let hangs = self.vigil.ask(&self.health, &self.statistics, status.up, self.card.now());
        hangs.map_or(Ok(()), |reason| Err(self.card.misbehaves(reason)))
    }
}

impl<F: PciFunction> Drop for Ixgbe<F> {
    fn drop(&mut self) {
        // Nobody to tell; the bus resets the function once more before it unmaps memory.
        let _ = halt(&mut self.function, &self.card, LAST_RESET_LIMIT);
    }
}

impl<F: PciFunction> fmt::Debug for Ixgbe<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ixgbe")
            .field("name", &self.function.name())
            .field("summary", &self.summary)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
