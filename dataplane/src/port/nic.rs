//! A network card as a port: any driver's [`Nic`], its queues boxed.
//!
//! A driver needs its own queues back when it stops, to empty them. Engines only know boxes, so each box
//! holds its queue in a `Lodger` that sends it home to the control side when the box is dropped, wherever and for whatever reason.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drivers::nic::{
    Counters, LinkStatus, MacAddress, Nic, NicError, Offloads, QueuePair, ReceiveFilter, RxQueue, TxQueue,
};
use hugemem::{Batch, Region};

use super::{PortControl, PortError, PortQueue, Wake, state_word};

/// Where queues of one kind come back to, by their index.
type Home<Q> = Arc<Mutex<Vec<Option<Q>>>>;

fn lock<Q>(home: &Home<Q>) -> MutexGuard<'_, Vec<Option<Q>>> {
    // Nothing is half done while it is locked.
    home.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A queue that goes home when it is dropped.
struct Lodger<Q> {
    /// There until the drop.
    queue: Option<Q>,
    index: usize,
    home: Home<Q>,
}

impl<Q> Drop for Lodger<Q> {
    fn drop(&mut self) {
        if let Some(place) = lock(&self.home).get_mut(self.index) {
            *place = self.queue.take();
        }
    }
}

impl<Q: RxQueue> RxQueue for Lodger<Q> {
    #[inline]
    fn receive(&mut self, batch: &mut Batch) -> usize {
        self.queue.as_mut().map_or(0, |queue| queue.receive(batch))
    }

    fn arm(&mut self) -> bool {
        self.queue.as_mut().is_some_and(RxQueue::arm)
    }

    fn disarm(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.disarm();
        }
    }

    fn gives_foreign(&self) -> bool {
        self.queue.as_ref().is_some_and(RxQueue::gives_foreign)
    }

    fn underway(&mut self) -> usize {
        self.queue.as_mut().map_or(0, RxQueue::underway)
    }

    fn gives_large(&self) -> bool {
        self.queue.as_ref().is_some_and(RxQueue::gives_large)
    }

    fn counters(&self) -> Counters {
        self.queue.as_ref().map(RxQueue::counters).unwrap_or_default()
    }
}

impl<Q: TxQueue> TxQueue for Lodger<Q> {
    #[inline]
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        self.queue.as_mut().map_or(0, |queue| queue.transmit(batch))
    }

    #[inline]
    fn reclaim(&mut self) -> usize {
        self.queue.as_mut().map_or(0, TxQueue::reclaim)
    }

    fn takes_foreign(&self) -> bool {
        self.queue.as_ref().is_some_and(TxQueue::takes_foreign)
    }

    fn offloads(&self) -> Offloads {
        self.queue.as_ref().map_or(Offloads::empty(), TxQueue::offloads)
    }

    fn counters(&self) -> Counters {
        self.queue.as_ref().map(TxQueue::counters).unwrap_or_default()
    }
}

/// A network card, opened as a port.
#[derive(Debug)]
pub struct NicPort {
    /// Its queue pairs.
    pub queues: Vec<PortQueue>,
    /// Its control side.
    pub control: Box<dyn PortControl>,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// What it could not do as wished, a sentence each.
    pub notices: Vec<String>,
}

/// Control side of a network card.
pub struct NicControl<N: Nic> {
    name: String,
    nic: N,
    /// What drives the card and how, for [`PortControl::describe`].
    details: String,
    promiscuous: bool,
    /// What an engine is woken by.
    wake: fn(N::Interrupt) -> Wake,
    rx: Home<N::Rx>,
    tx: Home<N::Tx>,
}

/// Starts `nic` and makes a port of it. `details` say what drives the card and how, in words for the port's description.
///
/// # Errors
/// When the device does not start.
pub fn open<N>(name: &str, nic: N, promiscuous: bool, details: String) -> Result<NicPort, PortError>
where
    N: Nic + 'static,
    N::Interrupt: AsFd,
{
    open_with(name, nic, promiscuous, details, Wake::event)
}

/// As [`open`], for a card whose interrupts are no eventfds: `wake` says what they are.
///
/// # Errors
/// When the device does not start.
pub fn open_with<N>(
    name: &str,
    nic: N,
    promiscuous: bool,
    details: String,
    wake: fn(N::Interrupt) -> Wake,
) -> Result<NicPort, PortError>
where
    N: Nic + 'static,
    N::Interrupt: AsFd,
{
    let mac = nic.mac();
    let (rx, tx) = (Home::default(), Home::default());
    let mut control = NicControl { name: name.into(), nic, details, promiscuous, wake, rx, tx };
    let (queues, notices) = control.start()?;
    Ok(NicPort { queues, control: Box::new(control), mac, notices })
}

impl<N> NicControl<N>
where
    N: Nic,
    N::Interrupt: AsFd,
{
    fn failed(&self, source: NicError) -> PortError {
        PortError::Nic { port: self.name.clone(), source }
    }

    fn start(&mut self) -> Result<(Vec<PortQueue>, Vec<String>), PortError> {
        let pairs = self.nic.start().map_err(|error| self.failed(error))?;
        // New homes: a queue from before a restart must not come home to these.
        self.rx = Arc::new(Mutex::new(pairs.iter().map(|_| None).collect()));
        self.tx = Arc::new(Mutex::new(pairs.iter().map(|_| None).collect()));
        let queues = pairs.into_iter().enumerate().map(|(index, QueuePair { rx, tx, interrupt })| PortQueue {
            rx: Box::new(Lodger { queue: Some(rx), index, home: Arc::clone(&self.rx) }),
            tx: Box::new(Lodger { queue: Some(tx), index, home: Arc::clone(&self.tx) }),
            wake: interrupt.map(self.wake),
            desk: None,
        });
        let queues = queues.collect();
        let mut notices = Vec::new();
        let filter = if self.promiscuous { ReceiveFilter::everything() } else { ReceiveFilter::host() };
        if let Err(error) = self.nic.set_filter(&filter) {
            let effect = if self.promiscuous {
                "frames for other addresses may be missed"
            } else {
                "frames for other addresses may arrive"
            };
            notices.push(format!("port `{}`: cannot set promiscuous mode ({error}); {effect}", self.name));
        }
        Ok((queues, notices))
    }

    fn halt(&mut self, queues: Vec<PortQueue>) -> Result<(), PortError> {
        drop(queues);
        let mut rx = lock(&self.rx);
        let mut tx = lock(&self.tx);
        let pairs = rx.drain(..).zip(tx.drain(..)).filter_map(|(rx, tx)| rx.zip(tx)).collect();
        drop((rx, tx));
        self.nic.stop(pairs).map_err(|error| self.failed(error))
    }
}

impl<N> PortControl for NicControl<N>
where
    N: Nic,
    N::Interrupt: AsFd,
{
    fn link(&mut self) -> LinkStatus {
        self.nic.link()
    }

    fn offloads(&self) -> Offloads {
        self.nic.offloads()
    }

    fn describe(&mut self) -> String {
        let link = self.nic.link();
        let mut text = format!("mtu {} state {} link/ether {}", self.nic.mtu(), state_word(link), self.nic.mac());
        if let Some(speed) = link.speed_mbps {
            text += &format!(" speed {speed}Mb/s");
        }
        if let Some(full) = link.full_duplex {
            text += if full { " duplex full" } else { " duplex half" };
        }
        let queues = lock(&self.rx).len();
        text += &format!(
            " promiscuity {} numrxqueues {queues} numtxqueues {queues} {}{}",
            u8::from(self.promiscuous),
            self.details,
            offload_words(self.nic.offloads())
        );
        text
    }

    fn mtu(&mut self) -> Option<u16> {
        Some(self.nic.mtu())
    }

    fn map(&mut self, region: &Region) -> Result<(), PortError> {
        self.nic.map(region).map_err(|error| self.failed(error))
    }

    fn unmap(&mut self, region: &Region) -> Result<(), PortError> {
        self.nic.unmap(region).map_err(|error| self.failed(error))
    }

    fn check(&mut self) -> Result<(), PortError> {
        self.nic.check().map_err(|error| self.failed(error))
    }

    fn statistics(&mut self) -> Vec<(&'static str, u64)> {
        self.nic.statistics()
    }

    fn stop(&mut self, queues: Vec<PortQueue>) -> Result<(), PortError> {
        self.halt(queues)
    }

    fn restart(&mut self, queues: Vec<PortQueue>, _reason: PortError) -> Result<Vec<PortQueue>, PortError> {
        self.halt(queues)?;
        let (queues, notices) = self.start()?;
        for notice in notices {
            tracing::warn!("{notice}");
        }
        Ok(queues)
    }
}

/// ` offloads rx-checksum tso4`, or nothing.
pub(super) fn offload_words(offloads: Offloads) -> String {
    if offloads.is_empty() { String::new() } else { format!(" offloads {}", words(offloads)) }
}

/// `rx-checksum tso4`
pub(super) fn words(offloads: Offloads) -> String {
    let words: Vec<String> =
        offloads.iter_names().map(|(name, _)| name.to_ascii_lowercase().replace('_', "-")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use drivers::nic::DropReason;
    use std::os::fd::OwnedFd;

    /// A card whose queues count, so that they can be told apart.
    struct Fake {
        running: bool,
        starts: u64,
        back: Arc<Mutex<Vec<(u64, u64)>>>,
    }
    struct Queue(u64);
    impl RxQueue for Queue {
        fn receive(&mut self, _batch: &mut Batch) -> usize {
            7
        }
        fn arm(&mut self) -> bool {
            true
        }
        fn counters(&self) -> Counters {
            let mut counters = Counters::default();
            counters.packets = self.0;
            counters
        }
    }
    impl TxQueue for Queue {
        fn transmit(&mut self, _batch: &mut Batch) -> usize {
            8
        }
        fn reclaim(&mut self) -> usize {
            9
        }
        fn counters(&self) -> Counters {
            let mut counters = Counters::default();
            counters.packets = self.0;
            counters.drop_packets(DropReason::Full, 3);
            counters
        }
    }
    impl Nic for Fake {
        type Rx = Queue;
        type Tx = Queue;
        type Interrupt = OwnedFd;
        fn name(&self) -> &str {
            "fake"
        }
        fn mac(&self) -> MacAddress {
            MacAddress([2, 0, 0, 0, 0, 1])
        }
        fn mtu(&self) -> u16 {
            1500
        }
        fn link(&mut self) -> LinkStatus {
            LinkStatus { up: self.running, speed_mbps: Some(10_000), full_duplex: Some(true), flow_control: None }
        }
        fn offloads(&self) -> Offloads {
            Offloads::RX_CHECKSUM | Offloads::TSO4
        }
        fn start(&mut self) -> Result<Vec<QueuePair<Queue, Queue, OwnedFd>>, NicError> {
            assert!(!self.running, "it was stopped first");
            self.running = true;
            self.starts += 1;
            let first = self.starts * 10;
            Ok((0..2)
                .map(|index| QueuePair { rx: Queue(first + index), tx: Queue(first + index + 5), interrupt: None })
                .collect())
        }
        fn stop(&mut self, queues: Vec<(Queue, Queue)>) -> Result<(), NicError> {
            self.running = false;
            self.back.lock().unwrap().extend(queues.into_iter().map(|(rx, tx)| (rx.0, tx.0)));
            Ok(())
        }
        fn map(&mut self, _region: &Region) -> Result<(), NicError> {
            Ok(())
        }
        fn unmap(&mut self, _region: &Region) -> Result<(), NicError> {
            Ok(())
        }
        fn set_filter(&mut self, filter: &ReceiveFilter) -> Result<(), NicError> {
            let refused = NicError::Request { device: "fake".into(), reason: "it cannot".into() };
            if filter.promiscuous { Err(refused) } else { Ok(()) }
        }
        fn check(&mut self) -> Result<(), NicError> {
            Ok(())
        }
    }

    #[test]
    fn queues_come_back_to_the_driver_in_pairs_even_when_dropped_elsewhere() {
        let back = Arc::default();
        let fake = Fake { running: false, starts: 0, back: Arc::clone(&back) };
        let NicPort { mut queues, mut control, notices, .. } = open("a", fake, true, String::new()).unwrap();
        assert_eq!(
            notices,
            ["port `a`: cannot set promiscuous mode (fake: it cannot); frames for other addresses may be missed"]
        );
        let first = queues.remove(0);
        // The engine that had it ended.
        std::thread::spawn(move || drop(first)).join().unwrap();
        let ill = || PortError::Device { port: "a".into(), reason: "ill".into() };
        let stale = control.restart(queues, ill()).unwrap();
        assert_eq!(*back.lock().unwrap(), [(10, 15), (11, 16)]);
        back.lock().unwrap().clear();
        let queues = control.restart(Vec::new(), ill()).unwrap();
        assert_eq!(*back.lock().unwrap(), [], "queues that are elsewhere are not invented");
        drop(stale);
        control.stop(queues).unwrap();
        assert_eq!(*back.lock().unwrap(), [(30, 35), (31, 36)]);
    }

    #[test]
    fn a_boxed_queue_behaves_as_its_own() {
        let fake = Fake { running: false, starts: 0, back: Arc::default() };
        let NicPort { mut queues, mut control, notices, .. } = open("a", fake, false, "driver fake".into()).unwrap();
        assert!(notices.is_empty());
        let PortQueue { rx, tx, .. } = &mut queues[1];
        let mut batch = Batch::new(1);
        assert_eq!((rx.receive(&mut batch), rx.arm(), rx.counters().packets), (7, true, 11));
        assert_eq!((tx.transmit(&mut batch), tx.reclaim(), tx.counters().dropped_total()), (8, 9, 3));
        let text = "mtu 1500 state UP link/ether 02:00:00:00:00:01 speed 10000Mb/s duplex full promiscuity 0 \
                    numrxqueues 2 numtxqueues 2 driver fake offloads rx-checksum tso4";
        assert_eq!(control.describe(), text);
    }
}
