//! How many new flows a second the switch takes, and how long their first packets are underway: the switch's thread and one engine, with nothing around them.
//!
//! `switch_first_packets [FLOWS_A_SECOND] [SECONDS]` (10000 and 10 unless given) sends one packet of a new flow after the other at that rate, and then as fast as they are
//! answered, and prints what came through.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::bell::Bell;
use dataplane::clock::{CycleClock, cycles};
use dataplane::network::Config;
use dataplane::switch::{Outputs, Pipeline, PortSlot};
use dataplane::vswitch::{Attached, MOST_PORTS, Vswitch, VswitchOptions};
use hugemem::{Batch, Iova, OutOfMemory, PacketPool, Region};

/// Packets that may be underway when they are sent as fast as they are answered.
const UNDERWAY: u64 = 256;

/// Rules that ask for ports, so that each pair of ports is a flow.
const CONFIG: &str = r#"
network = [{ name = "net" }]
group = [{ name = "group", rules = [
    { direction = "in", action = "deny", protocol = "udp", ports = "1" }, { direction = "in", action = "allow" },
    { direction = "out", action = "allow" },
] }]
port = [
    { name = "a", network = "net", macs = ["02:00:00:00:00:01"], addresses = ["10.0.0.1"], groups = ["group"] },
    { name = "b", network = "net", macs = ["02:00:00:00:00:02"], addresses = ["10.0.0.2"], groups = ["group"] },
]
"#;

/// A datagram of 64 bytes from a to b.
const HEAD: [u8; 42] = [
    2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 0,
    0, 0, 0, 30, 0, 0,
];

fn pool(count: usize) -> Result<PacketPool, OutOfMemory> {
    Region::on_heap(count * 2304 + 4096, Iova::new(0))?.packets(count, 2048)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let rate: u64 = arguments.next().map_or(Ok(10_000), |rate| rate.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(10.0), |seconds| seconds.parse())?;
    let options = VswitchOptions { engines: 1, flows: 1 << 20, clock: CycleClock::calibrate() };
    let bells = vec![Arc::new(Bell::new()?)];
    let (vswitch, mut pipelines) = Vswitch::start(options, bells, vec![pool(4096)?], pool(1024)?)?;
    let pipeline = pipelines.pop().ok_or("one engine has one pipeline")?;
    let mut bench =
        Bench { vswitch, pipeline, outputs: Outputs::new(MOST_PORTS, 2048), pool: pool(8192)?, next: 0, came: 0 };
    let config = Config::from_toml(CONFIG, Path::new("config"))?;
    bench.ask(move |handle| handle.apply(config))?;
    let attached = |number| Attached { number, mtu: 1500, mac: None };
    let a = bench.ask(move |handle| handle.attach("a", attached(0)))?;
    bench.ask(move |handle| handle.attach("b", attached(1)))?;
    bench.run(a, Some(rate), Duration::from_secs_f64(seconds))?;
    bench.run(a, None, Duration::from_secs_f64(seconds))?;
    Ok(())
}

struct Bench {
    vswitch: Vswitch,
    pipeline: Pipeline,
    outputs: Outputs,
    pool: PacketPool,
    /// Number of the next flow, and packets that came through.
    next: u64,
    came: u64,
}

impl Bench {
    /// Asks the switch, and takes the engine's turns meanwhile.
    fn ask<T: Send + 'static>(&mut self, ask: impl FnOnce(dataplane::vswitch::Handle) -> T + Send + 'static) -> T {
        let handle = self.vswitch.handle();
        let thread = std::thread::spawn(move || ask(handle));
        while !thread.is_finished() {
            self.attend();
        }
        match thread.join() {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn attend(&mut self) {
        while self.pipeline.attend(cycles(), &mut self.outputs) {}
        let came = &mut self.came;
        self.outputs.drain(|_, batch| {
            *came += batch.len() as u64;
            batch.clear();
        });
    }

    /// Sends new flows, so many a second or as fast as they are answered.
    fn run(&mut self, from: PortSlot, rate: Option<u64>, duration: Duration) -> Result<(), Box<dyn Error>> {
        let (start, first, before) = (Instant::now(), self.next, self.came);
        let mut batch = Batch::new(32);
        while start.elapsed() < duration {
            let due = match rate {
                Some(rate) => {
                    let all = start.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000;
                    u64::try_from(all)? - (self.next - first)
                }
                None => UNDERWAY.saturating_sub(self.next - first - (self.came - before)),
            };
            for _ in 0..due.min(32) {
                let mut packet = self.pool.take().ok_or("no buffer")?;
                let mut frame = [0; 64];
                frame[..HEAD.len()].copy_from_slice(&HEAD);
                // Another pair of ports for each flow; never port 1, which the rules deny.
                let [source, destination] = [1024 + self.next / 60_000, 2000 + self.next % 60_000];
                frame[34..36].copy_from_slice(&u16::try_from(source)?.to_be_bytes());
                frame[36..38].copy_from_slice(&u16::try_from(destination)?.to_be_bytes());
                packet.write(&frame)?;
                let _ = batch.push(packet);
                self.next += 1;
            }
            if !batch.is_empty() {
                self.pipeline.run(&mut batch, from, cycles(), &mut self.outputs);
                self.vswitch.bell().call();
            }
            self.attend();
        }
        let took = start.elapsed().as_secs_f64();
        let patience = Instant::now();
        while self.came - before < self.next - first && patience.elapsed() < Duration::from_secs(2) {
            self.attend();
        }
        self.pipeline.publish();
        let statistics = self.ask(|handle| handle.statistics())?;
        let (sent, came) = (self.next - first, self.came - before);
        println!("{sent} flows in {took:.2} s, {:.0} a second: {} first packets lost", sent as f64 / took, sent - came);
        let with = &statistics.latency.with_control;
        println!(
            "with the switch's thread since the beginning: {} ns half of them, {} ns 99 of 100, {} ns at most; {} flows in the table",
            with.p50, with.p99, with.maximum, statistics.table.flows
        );
        Ok(())
    }
}
