//! A virtio network device: bringing it up, running its control commands, and stopping it (virtio 1.3, sections 3.1,
//! 3.3 and 5.1).

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use hugemem::{OutOfMemory, PacketPool, Region};

use super::config::DeviceConfig;
use super::control::{Control, Link};
use super::features::{self, Features, Wishes};
use super::header;
use super::options::{Config, Summary};
use super::pci::Pci;
use super::queues::{Rx, Tx};
use super::setup::{Plan, control_queue, greet, halt, local_mac, negotiate};
use super::transport::{QueueSetup, Status, Transport};
use crate::bus::{BusError, Clock, PciFunction};
use crate::health::{self, Health, Watch};
use crate::home::Home;
use crate::nic::{LinkStatus, MacAddress, Nic, NicError, Offloads, QueuePair, ReceiveFilter};
use crate::reach::{Mapper, Reach};

/// How long a device may take to reset itself.
const RESET_LIMIT: Duration = Duration::from_secs(3);
/// The same when the driver goes away and nobody can be told.
const LAST_RESET_LIMIT: Duration = Duration::from_millis(200);
/// Payload of a frame when the device does not say (5.1.4.1).
const USUAL_MTU: u16 = 1500;
/// What an Ethernet frame has beside its payload: header and two VLAN tags.
const ETHERNET: usize = 22;

/// A virtio network device, owned.
///
/// [`VirtioNet::open`] finds out what the device can do and takes all memory; [`Nic::start`] brings it up and hands out
/// queues; [`Nic::stop`] resets it and takes queues and buffers back, after which it can be started again. Dropping it
/// resets it and takes it off the bus.
pub struct VirtioNet<T: Transport> {
    clock: Arc<dyn Clock>,
    config: Config,
    features: Features,
    device: DeviceConfig,
    summary: Summary,
    health: Arc<Health>,
    /// Whether the device makes progress, by pair.
    watches: Vec<Watch>,
    home: Home<Rx<T::Doorbell>, Tx<T::Doorbell>>,
    control: Option<Control<T::Doorbell>>,
    running: bool,
    /// It has been started before.
    known: bool,
    reach: Reach,
    // Last, so that doorbells are let go of before the bus is.
    transport: T,
}

type Pairs<T> =
    Vec<QueuePair<Rx<<T as Transport>::Doorbell>, Tx<<T as Transport>::Doorbell>, <T as Transport>::Interrupt>>;

/// A transport as what memory is mapped for.
struct Memory<'a, T>(&'a mut T);

impl<T: Transport> Mapper for Memory<'_, T> {
    fn map(&mut self, region: &Region) -> Result<(), BusError> {
        self.0.map(region)
    }

    fn unmap(&mut self, region: &Region) -> Result<(), BusError> {
        self.0.unmap(region)
    }
}

impl<F: PciFunction> VirtioNet<Pci<F>> {
    /// Takes over a PCI device, as [`VirtioNet::over`].
    ///
    /// # Errors
    /// When the function is no network device of virtio 1.0 or later, would bypass the IOMMU, does not answer in time
    /// or breaks its rules, when the request cannot be met, or memory does not suffice.
    pub fn open(
        function: F,
        clock: Arc<dyn Clock>,
        memory: &Region,
        pools: Vec<PacketPool>,
        config: Config,
    ) -> Result<Self, NicError> {
        Self::over(Pci::open(function)?, clock, memory, pools, config)
    }

    /// The function that the device sits on.
    #[must_use]
    pub fn function(&self) -> &F {
        self.transport.function()
    }
}

impl<T: Transport> VirtioNet<T> {
    /// Takes over a device: resets it, settles features with it, and takes memory for its rings.
    ///
    /// Rings come from `memory`, [`Config::ring_memory`] bytes at most; receive buffers of queue pair `i` from
    /// `pools[i]`. Both are mapped for the device here. Regions of packets that are only sent are to be mapped with
    /// [`VirtioNet::map`]. There are as many queue pairs as the configuration asks for, the device has, and there are
    /// pools.
    ///
    /// # Errors
    /// When the device is none of virtio 1.0 or later, lacks what the transport requires, does not answer in time or
    /// breaks its rules, when the request cannot be met, or memory does not suffice.
    pub fn over(
        mut transport: T,
        clock: Arc<dyn Clock>,
        memory: &Region,
        pools: Vec<PacketPool>,
        config: Config,
    ) -> Result<Self, NicError> {
        halt(&mut transport, &*clock, RESET_LIMIT)?;
        let pairs_wanted = u16::try_from(pools.len()).unwrap_or(u16::MAX).min(config.nic.queue_pairs);
        if pairs_wanted == 0 {
            return Err(transport.refuses("a port needs at least one queue pair, and a packet pool for each"));
        }
        let wishes = Wishes {
            ring: config.ring,
            several_pairs: pairs_wanted > 1,
            switches_pairs: T::SWITCHES_PAIRS,
            required: T::REQUIRED,
            offloads: config.nic.offloads,
        };
        let (features, device) = negotiate(&mut transport, wishes)?;
        let plan = Plan::make(&mut transport, &config, features, &device, pairs_wanted)?;
        if config.nic.mac.is_some() && !features.contains(Features::CTRL_MAC_ADDR) {
            return Err(transport.refuses("the device cannot change its Ethernet address; leave mac= out"));
        }
        let mac = config.nic.mac.or(device.mac).unwrap_or_else(|| local_mac(transport.name()));
        let largest = device.mtu.unwrap_or(USUAL_MTU);
        let mtu = config.nic.mtu.unwrap_or(largest);
        if device.mtu.is_some() && mtu > largest {
            return Err(
                transport.refuses(alloc::format!("the device carries payloads of {largest} bytes; lower mtu={mtu}"))
            );
        }
        let mut reach = Reach::default();
        reach.map(&mut Memory(&mut transport), memory)?;
        for pool in pools.iter().take(plan.pairs.into()) {
            reach.map(&mut Memory(&mut transport), pool.region())?;
            let needed = usize::from(mtu) + ETHERNET;
            if pool.room() < needed && !features.contains(Features::MRG_RXBUF) {
                return Err(transport.refuses(alloc::format!(
                    "receive buffers of {} bytes cannot hold its frames of {needed}, and it does not merge buffers",
                    pool.room(),
                )));
            }
        }
        let health = Arc::new(Health::new(plan.pairs));
        let out_of_memory = |source: OutOfMemory| NicError::Memory { device: transport.name().to_string(), source };
        let mut receivers = Vec::new();
        let mut transmitters = Vec::new();
        let indirect = features.contains(Features::INDIRECT_DESC);
        for (pair, pool) in (0..plan.pairs).zip(pools) {
            let health = || Arc::clone(&health);
            let rx = Rx::new(memory, plan.format, plan.receive_size, pool, health(), pair).map_err(out_of_memory)?;
            let tx = Tx::new(memory, plan.format, plan.transmit_size, indirect, health(), pair);
            receivers.push(Some(rx));
            transmitters.push(Some(tx.map_err(out_of_memory)?));
        }
        let control = match plan.control_size {
            0 => None,
            size => Some(Control::new(memory, plan.format, size).map_err(out_of_memory)?),
        };
        let summary = Summary {
            features,
            ring: plan.format,
            queue_pairs: plan.pairs,
            device_queue_pairs: device.pairs,
            receive_ring_size: plan.receive_size,
            transmit_ring_size: plan.transmit_size,
            interrupts: config.nic.interrupts && transport.interrupt_count() >= plan.pairs,
            mac,
            mtu,
        };
        // Quiet until it is started.
        halt(&mut transport, &*clock, RESET_LIMIT)?;
        Ok(Self {
            clock,
            config,
            features,
            device,
            summary,
            health,
            watches: alloc::vec![Watch::default(); plan.pairs.into()],
            home: Home { receivers, transmitters },
            control,
            running: false,
            known: false,
            reach,
            transport,
        })
    }

    /// What driver and device agreed on.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Brings the device up, in the order of section 3.1.1. All queues are at home.
    fn bring_up(&mut self) -> Result<Vec<Option<T::Interrupt>>, NicError> {
        // Step 1: reset.
        let stopped = halt(&mut self.transport, &*self.clock, RESET_LIMIT)?;
        self.reach.restore(&mut Memory(&mut self.transport))?;
        self.health.clear();
        self.watches.fill(Watch::default());
        let limit = self.config.nic.mtu.or(self.device.mtu);
        let longest = limit.map_or(header::LONGEST, |mtu| usize::from(mtu) + ETHERNET);
        for rx in self.home.receivers.iter_mut().flatten() {
            rx.reset(&stopped, self.features);
        }
        for tx in self.home.transmitters.iter_mut().flatten() {
            tx.reset(&stopped, self.features, longest);
        }
        if let Some(control) = &mut self.control {
            control.reset(&stopped, self.features.contains(Features::EVENT_IDX));
        }
        // Steps 2 to 6. Rings and headers were laid out for what was settled when the device was opened.
        let offered = greet(&mut self.transport)?;
        if !offered.contains(self.features) {
            let lost = self.features - offered;
            return Err(self.transport.misbehaves(alloc::format!("it no longer offers what it did: {lost:?}")));
        }
        self.transport.accept(self.features)?;
        let device = DeviceConfig::read(&self.transport, self.features)?;
        if device.pairs != self.device.pairs || device.mtu != self.device.mtu {
            return Err(self.transport.misbehaves("its number of queue pairs or its MTU changed; open it again"));
        }
        self.device = device;
        // Step 7: queues, with vectors that must be enabled before they are named (4.1.5.1.2). The device may read
        // rings as soon as it is told that the driver is ready.
        let pairs = self.summary.queue_pairs;
        let wanted = self.config.nic.interrupts && self.transport.interrupt_count() >= pairs;
        let mut interrupts: Vec<_> =
            if wanted { self.transport.interrupts(pairs)?.into_iter().map(Some).collect() } else { Vec::new() };
        interrupts.resize_with(pairs.into(), || None);
        self.transport.open_memory()?;
        for ((rx, slot), number) in self.home.receivers.iter_mut().flatten().zip(&mut interrupts).zip(0..) {
            let interrupt = slot.as_ref().map(|_| number);
            let queue = QueueSetup { index: rx.queue(), size: rx.size(), addresses: rx.addresses(), interrupt };
            let (doorbell, accepted) = self.transport.enable(queue)?;
            if !accepted {
                // The device is out of vectors, so this queue can only be polled.
                *slot = None;
            }
            rx.begin(doorbell, slot.is_some());
        }
        for tx in self.home.transmitters.iter_mut().flatten() {
            let queue = QueueSetup { index: tx.queue(), size: tx.size(), addresses: tx.addresses(), interrupt: None };
            let (doorbell, _) = self.transport.enable(queue)?;
            tx.begin(doorbell);
        }
        if let Some(control) = &mut self.control {
            let index = control_queue(&self.transport, &self.device)?;
            let (size, addresses) = (control.size(), control.addresses());
            let (doorbell, _) = self.transport.enable(QueueSetup { index, size, addresses, interrupt: None })?;
            control.begin(doorbell);
        }
        self.summary.interrupts = interrupts.iter().all(Option::is_some);
        // Step 8.
        self.transport.add_status(Status::DRIVER_OK)?;
        let status = self.transport.status();
        if status.contains(Status::NEEDS_RESET) || !status.contains(Status::DRIVER_OK) {
            return Err(self.transport.misbehaves("it asks for a reset as soon as it is started"));
        }
        for rx in self.home.receivers.iter().flatten() {
            rx.kick();
        }
        self.configure()?;
        Ok(interrupts)
    }

    /// Sends the control commands that make the device what was asked for (5.1.5, 5.1.6.5).
    fn configure(&mut self) -> Result<(), NicError> {
        let Some(control) = &mut self.control else {
            return Ok(());
        };
        let link = Link { transport: &self.transport, clock: &*self.clock };
        let has = |feature| self.features.contains(feature);
        if let Some(mac) = self.config.nic.mac {
            control.set_mac(&link, mac)?;
        }
        if has(Features::CTRL_RX) {
            control.set_filter(&link, &self.config.nic.filter)?;
        }
        let pairs = self.summary.queue_pairs;
        if has(Features::RSS) {
            control.set_spreading(&link, pairs, self.device.spreading, &self.config.nic.rss_key)?;
        } else {
            if has(Features::HASH_REPORT) {
                control.set_hashing(&link, self.device.spreading, &self.config.nic.rss_key)?;
            }
            if has(Features::MQ) && pairs > 1 {
                control.set_pairs(&link, pairs)?;
            }
        }
        Ok(())
    }

    /// Whether the device still sends what it is given.
    fn check_progress(&mut self) -> Result<(), NicError> {
        let now = self.clock.now();
        let Some(pair) = health::first_hung(&mut self.watches, self.health.progress(), now) else {
            return Ok(());
        };
        if !self.link().up {
            // Nothing can leave: patience starts anew when it can.
            self.watches.fill(Watch::default());
            return Ok(());
        }
        Err(self.transport.misbehaves(health::hung(pair)))
    }

    /// Resets the device and takes back the buffers of all queues that are at home. Those of a device that does not
    /// reset come back too, when the bus can take the memory away from it.
    fn bring_down(&mut self) -> Result<(), NicError> {
        self.running = false;
        let halted = halt(&mut self.transport, &*self.clock, RESET_LIMIT);
        let (stopped, outcome) = match halted {
            Ok(stopped) => (Some(stopped), Ok(())),
            Err(error) => (self.reach.withdraw(&mut Memory(&mut self.transport)), Err(error)),
        };
        // Vectors are given back; that a bus has none to give back is no failure.
        let _ = self.transport.interrupts(0);
        let Some(stopped) = stopped else {
            return outcome;
        };
        for rx in self.home.receivers.iter_mut().flatten() {
            rx.reset(&stopped, self.features);
        }
        for tx in self.home.transmitters.iter_mut().flatten() {
            tx.reset(&stopped, self.features, 0);
        }
        if let Some(control) = &mut self.control {
            control.reset(&stopped, false);
        }
        outcome
    }
}

impl<T: Transport> Nic for VirtioNet<T> {
    type Rx = Rx<T::Doorbell>;
    type Tx = Tx<T::Doorbell>;
    type Interrupt = T::Interrupt;

    fn name(&self) -> &str {
        self.transport.name()
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
        DeviceConfig::read(&self.transport, self.features).map_or_else(|_| LinkStatus::default(), |device| device.link)
    }

    fn offloads(&self) -> Offloads {
        features::offloads(self.features)
    }

    fn start(&mut self) -> Result<Pairs<T>, NicError> {
        if self.running {
            return Err(self.transport.refuses("it is started already; stop it first"));
        }
        if let Some(pair) = self.home.missing() {
            return Err(self.transport.refuses(alloc::format!(
                "queue pair {pair} was not given back when it was stopped; open the device again"
            )));
        }
        let interrupts = match self.bring_up() {
            Ok(interrupts) => interrupts,
            Err(error) => {
                // What failed first is what counts.
                let down = self.bring_down();
                let away = T::COMES_BACK && self.known && down.is_ok() && self.transport.is_gone();
                if !away {
                    return Err(error);
                }
                // Its queues are handed out all the same, and neither send nor receive until it is back.
                (0..self.summary.queue_pairs).map(|_| None).collect()
            }
        };
        self.known = true;
        self.running = true;
        Ok(self.home.hand_out(interrupts))
    }

    fn stop(&mut self, queues: Vec<(Self::Rx, Self::Tx)>) -> Result<(), NicError> {
        self.home.take_back(queues, &self.health);
        self.bring_down()
    }

    fn map(&mut self, region: &Region) -> Result<(), NicError> {
        Ok(self.reach.map(&mut Memory(&mut self.transport), region)?)
    }

    fn unmap(&mut self, region: &Region) -> Result<(), NicError> {
        Ok(self.reach.unmap(&mut Memory(&mut self.transport), region)?)
    }

    fn set_filter(&mut self, filter: &ReceiveFilter) -> Result<(), NicError> {
        self.config.nic.filter = filter.clone();
        if T::PASSES_EVERYTHING && filter.promiscuous {
            return Ok(());
        }
        if !self.features.contains(Features::CTRL_RX) {
            return Err(self
                .transport
                .refuses("the device has no receive modes to choose from (VIRTIO_NET_F_CTRL_RX)"));
        }
        // Otherwise it is done at the next start.
        if let Some(control) = self.control.as_mut().filter(|_| self.running) {
            control.set_filter(&Link { transport: &self.transport, clock: &*self.clock }, filter)?;
        }
        match filter.vlans {
            Some(_) => Err(self.transport.refuses("the device cannot choose by VLAN; frames of all VLANs arrive")),
            None => Ok(()),
        }
    }

    fn check(&mut self) -> Result<(), NicError> {
        if !self.running {
            return Ok(());
        }
        if !self.transport.attend()? {
            return Ok(());
        }
        let status = self.transport.status();
        if status.contains(Status::NEEDS_RESET) {
            return Err(self.transport.misbehaves("it asks to be reset (DEVICE_NEEDS_RESET); stop and start the port"));
        }
        if !status.contains(Status::DRIVER_OK) {
            return Err(self.transport.misbehaves("it was reset by someone else; stop and start the port"));
        }
        if let Some(reason) = self.health.fault() {
            return Err(self.transport.misbehaves(reason));
        }
        self.check_progress()?;
        if self.features.contains(Features::GUEST_ANNOUNCE)
            && DeviceConfig::read(&self.transport, self.features)?.announce
            && let Some(control) = &mut self.control
        {
            // A port that forwards has no address of its own to announce; the acknowledgement is what the device waits
            // for.
            control.acknowledge_announcement(&Link { transport: &self.transport, clock: &*self.clock })?;
        }
        Ok(())
    }
}

impl<T: Transport> Drop for VirtioNet<T> {
    fn drop(&mut self) {
        // Nobody to tell; the bus resets the function once more before it unmaps memory.
        let _ = halt(&mut self.transport, &*self.clock, LAST_RESET_LIMIT);
    }
}

impl<T: Transport> fmt::Debug for VirtioNet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioNet")
            .field("name", &self.transport.name())
            .field("summary", &self.summary)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}
