//! How fast the model is: two cards with the virtio-net driver and a forwarder of a few lines between them.
//!
//! `cargo run --release -p mirach-models --example rate [split|packed] [SECONDS] [BURST] [inline]`: one thread plays both cards, the
//! other one forwards from the first to the second. With `inline` one thread does both in turn and says what the cards' part
//! of it costs, which is what to look at when the machine is busy.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use drivers::bus::Clock;
use drivers::nic::{Nic, NicError, RxQueue, TxQueue};
use drivers::virtio::{self, Pci, RingChoice, VirtioNet};
use hugemem::{Batch, IovaSpace, MemoryRequest, PageChoice};
use models::StepClock;
use models::virtio_net::{self, Config, Features, Function, Traffic, TrafficPlan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let packed = arguments.next().as_deref() == Some("packed");
    let seconds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let burst = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let inline = arguments.next().is_some();
    let quiet = TrafficPlan { count: 0, ..TrafficPlan::default() };
    let (source, sink) = Traffic::pair(TrafficPlan::default(), quiet);
    let (made, seen) = (source.counters(), sink.counters());
    let mut space = IovaSpace::unlimited();
    let request = MemoryRequest { bytes: 16 << 20, page: PageChoice::Auto, node: None };
    let memory = request.allocate(&mut space)?.region;
    let (first, mut first_card) = virtio_net::new(config("first", packed), source);
    let (second, mut second_card) = virtio_net::new(config("second", packed), sink);
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let cards = Arc::new(Mutex::new(move || first_card.poll().is_idle() & second_card.poll().is_idle()));
    let play = move || cards.lock().unwrap_or_else(PoisonError::into_inner)();
    // While the driver waits for an answer, the cards get their turn.
    let waiting = play.clone();
    let clock = Arc::new(StepClock::new(move || {
        waiting();
    }));
    let mut first = open(first, clock.clone(), &memory, packed)?;
    let mut second = open(second, clock, &memory, packed)?;
    let mut receiving = first.start()?;
    let mut sending = second.start()?;
    let (Some(from), Some(to)) = (receiving.first_mut(), sending.first_mut()) else { return Ok(()) };
    let mut batch = Batch::new(burst);
    // On a machine with fewer free cores than threads, spinning would only keep the other thread from working.
    let mut forward = || {
        if from.rx.receive(&mut batch) == 0 && !inline {
            std::thread::yield_now();
        }
        to.tx.transmit(&mut batch);
    };
    let mut playing = Duration::ZERO;
    let start = Instant::now();
    let cards = if inline {
        while start.elapsed() < Duration::from_secs(seconds) {
            let before = Instant::now();
            play();
            playing += before.elapsed();
            forward();
        }
        None
    } else {
        let cards = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                if play() {
                    std::thread::yield_now();
                }
            }
        });
        while start.elapsed() < Duration::from_secs(seconds) {
            (0..1000).for_each(|_| forward());
        }
        Some(cards)
    };
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = |count: u64| count as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!(
        "{} rings, burst {burst}: {:.2} Mpps, {} disordered, {} foreign, p50 {:?} ns, p99 {:?} ns, {} made",
        if packed { "packed" } else { "split" },
        rate(seen.seen.load(Ordering::Relaxed)),
        seen.disordered.load(Ordering::Relaxed),
        seen.foreign.load(Ordering::Relaxed),
        seen.latency.percentile(0.5),
        seen.latency.percentile(0.99),
        made.made.load(Ordering::Relaxed),
    );
    if inline {
        #[expect(clippy::cast_precision_loss, reason = "a cost")]
        let each = playing.as_nanos() as f64 / made.made.load(Ordering::Relaxed) as f64;
        println!("the cards' part: {each:.1} ns a frame, in and out");
    }
    batch.clear();
    first.stop(receiving.into_iter().map(|pair| (pair.rx, pair.tx)).collect())?;
    second.stop(sending.into_iter().map(|pair| (pair.rx, pair.tx)).collect())?;
    ended.store(true, Ordering::Relaxed);
    if let Some(cards) = cards {
        cards.join().map_err(|_| "the thread that plays the cards panicked")?;
    }
    Ok(())
}

fn config(name: &str, packed: bool) -> Config {
    let features = if packed { Config::USUAL | Features::RING_PACKED } else { Config::USUAL };
    Config { name: name.to_owned(), features, ..Config::default() }
}

fn open(
    function: Function,
    clock: Arc<dyn Clock>,
    memory: &hugemem::Region,
    packed: bool,
) -> Result<VirtioNet<Pci<Function>>, NicError> {
    let ring = if packed { RingChoice::Packed } else { RingChoice::Split };
    let config = virtio::Config { ring, ..virtio::Config::default() };
    let pool = memory.packets(512, 2048).map_err(|source| NicError::Memory { device: "model".to_owned(), source })?;
    VirtioNet::open(function, clock, memory, vec![pool], config)
}
