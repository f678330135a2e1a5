//! Engine time, divided between slices that both want all of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use lab::hostile::{Descriptor, Format, LAYOUT_BUFFERS, Machine, Setup};
use lab::tenants::{Daemon, Ports, mac};
use lab::wait;
use serde_json::json;

/// Machines that send, each to a port that takes everything.
const PORTS: Ports<'_> = Ports { machines: &["gold0", "tin0"], hosts: &[] };
const TOML: &str = r#"
[[slice]]
name = "gold"
[[slice]]
name = "tin"
[[network]]
name = "gold"
slice = "gold"
[[network]]
name = "tin"
slice = "tin"
[[port]]
name = "gold0"
network = "gold"
macs = ["52:54:00:00:00:00"]
addresses = ["10.0.0.10"]
[[port]]
name = "tin0"
network = "tin"
macs = ["52:54:00:00:00:00"]
addresses = ["10.0.0.10"]
[[port]]
name = "gold1"
network = "gold"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11"]
[[port]]
name = "tin1"
network = "tin"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11"]
"#;
/// So often is counted.
const SAMPLES: u32 = 300;
/// Frames of one machine that are waited for each time; as many again are behind them.
const FRAMES: usize = 120;
/// So long it may take. Where this machine does other things for long, queues run empty meanwhile, and there is nothing to divide.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where a machine has the one frame that it sends again and again.
const BUFFER: u64 = LAYOUT_BUFFERS + (1 << 20);
/// TCP payload of a frame that is still to be cut, which takes an engine much longer than the machine that sends it.
const PAYLOAD: u32 = 64_000;
/// Partial checksum from byte 34 at 16, TCP over IPv4, headers of 54 bytes, segments of 1448.
const OFFLOAD: [u8; 12] = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];

/// Posts as many frames as there is room for; how many wait then.
fn fill(machine: &mut Machine) -> usize {
    machine.take();
    let Machine { rings: [_, ring], memory, .. } = machine;
    let frame = Descriptor { address: BUFFER, len: 12 + 54 + PAYLOAD, flags: 0 };
    while ring.free() > 0 && ring.post(memory, &[frame]) {}
    let waiting = ring.out();
    machine.kick(1);
    waiting
}

/// How many times as much of the first machine's frames is delivered while both have more.
fn ratio(machines: &mut [Machine; 2]) -> Result<f64> {
    let started = Instant::now();
    let (mut samples, mut sums) = (0, [0; 2]);
    while samples < SAMPLES {
        ensure!(started.elapsed() < PATIENCE, "{samples} times in {PATIENCE:?} both had more than was delivered");
        let before = machines.each_mut().map(fill);
        loop {
            let left = machines.each_mut().map(|machine| {
                machine.take();
                machine.rings[1].out()
            });
            if left.contains(&0) {
                break;
            }
            let done = [before[0] - left[0], before[1] - left[1]];
            if done.iter().any(|done| *done >= FRAMES) {
                samples += 1;
                sums = [sums[0] + done[0], sums[1] + done[1]];
                break;
            }
        }
    }
    let [first, second] = sums.map(|sum| u32::try_from(sum).map_or(0.0, f64::from));
    ensure!(second > 0.0, "nothing of the second is delivered");
    println!("  one slice gets {:.2} times as much as the other", first / second);
    Ok(first / second)
}

pub(crate) fn weighed() -> Result<()> {
    let daemon = Daemon::start(PORTS, TOML, &["--cores", "0", "--poll", "always"])?;
    for name in ["gold1", "tin1"] {
        daemon.call("port.add", json!({ "spec": format!("null,name={name}") }))?;
    }
    let mut frame = OFFLOAD.to_vec();
    let packet = PacketBuilder::ethernet2(mac(0), mac(1)).ipv4([10, 0, 0, 10], [10, 0, 0, 11], 64).tcp(7, 9, 1, 100);
    packet.write(&mut frame, &vec![0; usize::try_from(PAYLOAD)?])?;
    let attach = |name: &str| -> Result<Machine> {
        let machine = Machine::attach(&daemon.socket(name), Setup::new(Format::Split))?;
        machine.memory.write(BUFFER, &frame);
        Ok(machine)
    };
    let mut machines = [attach("gold0")?, attach("tin0")?];
    // The flows have to be known first.
    for name in ["gold1", "tin1"] {
        wait::until("what the machines send to be delivered", PATIENCE, || {
            machines.iter_mut().for_each(|machine| {
                fill(machine);
            });
            Ok((daemon.counter(name, "tx_packets")? > 1000).then_some(()))
        })?;
    }
    for (gold, tin, least, most) in [(1, 1, 0.6, 1.7), (4, 1, 2.0, 8.0), (1, 4, 0.12, 0.5)] {
        daemon.call("slice.set", json!({ "name": "gold", "share": gold }))?;
        daemon.call("slice.set", json!({ "name": "tin", "share": tin }))?;
        let ratio = ratio(&mut machines)?;
        ensure!((least..most).contains(&ratio), "with shares of {gold} and {tin} one gets {ratio} times as much");
    }
    drop(machines);
    daemon.end().map(drop)
}
