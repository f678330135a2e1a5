//! Moves frames from one virtual machine's queue to another's, on one thread: what callgrind counts in the two functions below is what
//! a packet from VM to VM costs in instructions, whatever the machine. `cargo xtask instructions` runs it and divides.
//!
//! `vm_instructions RING SIZE BURST BURSTS`, where RING is split or packed and SIZE the length of a frame in bytes; prints how many
//! packets were moved. The machines are virtio-user ports in the same process.

use std::error::Error;
use std::time::{Duration, Instant};

use dataplane::port::{MemoryOptions, NamedSpec, Opener, Port};
use drivers::nic::{RxQueue, TxQueue};
use hugemem::Batch;

/// How long ports may take to find each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is counted as receiving from a VM.
#[inline(never)]
fn counted_receive(rx: &mut dyn RxQueue, batch: &mut Batch) -> usize {
    rx.receive(batch)
}

/// What is counted as sending to a VM.
#[inline(never)]
fn counted_transmit(tx: &mut dyn TxQueue, batch: &mut Batch) -> usize {
    // Without this, both functions would be the same code, and the linker would make one of them.
    std::hint::black_box(tx.transmit(batch))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [ring, size, burst, bursts] = arguments.as_slice() else { return Err("give RING SIZE BURST BURSTS".into()) };
    let (burst, bursts): (usize, usize) = (burst.parse()?, bursts.parse()?);
    let folder = std::env::temp_dir().join(format!("vm-instructions-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let moved = forward(&folder.display().to_string(), ring, size, burst, bursts);
    // What is left in a folder for temporary files harms nobody.
    let _ = std::fs::remove_dir_all(&folder);
    println!("{}", moved?);
    Ok(())
}

/// Opens two machines, their ports and a source of frames, and moves `bursts` full bursts.
fn forward(folder: &str, ring: &str, size: &str, burst: usize, bursts: usize) -> Result<usize, Box<dyn Error>> {
    let specs = [
        format!("vhost-user={folder}/0,client=off"),
        format!("vhost-user={folder}/1,client=off"),
        format!("virtio-user={folder}/0,ring={ring}"),
        format!("virtio-user={folder}/1,ring={ring}"),
        format!("gen=max,size={size}"),
        "null".to_owned(),
    ];
    let specs = specs.iter().map(|spec| spec.parse()).collect::<Result<Vec<NamedSpec>, _>>()?;
    // The machines connect to ports that are there.
    let (listening, others) = specs.split_at(2);
    let mut opener = Opener::new(MemoryOptions::default());
    let mut ports = opener.open(listening, &[])?;
    ports.extend(opener.open(others, &[])?);
    let deadline = Instant::now() + PATIENCE;
    while !ports.iter_mut().take(2).all(|port| port.control.link().up) {
        if Instant::now() > deadline {
            return Err("the machines did not find their ports".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let moved = pump(&mut ports, burst, bursts);
    for port in ports {
        let Port { mut control, queues, .. } = port;
        control.stop(queues)?;
    }
    moved
}

fn pump(ports: &mut [Port], burst: usize, bursts: usize) -> Result<usize, Box<dyn Error>> {
    let [from, to, sender, receiver, source, sink] = ports else { return Err("six ports were asked for".into()) };
    let queue = |port: &mut Port| port.queues.pop().ok_or("a port has no queue");
    let (mut from, mut to) = (queue(from)?, queue(to)?);
    let (mut sender, mut receiver) = (queue(sender)?, queue(receiver)?);
    let (mut source, mut sink) = (queue(source)?, queue(sink)?);
    let mut batch = Batch::new(burst);
    let mut moved = 0;
    let mut outcome = Ok(());
    for _ in 0..bursts {
        source.rx.receive(&mut batch);
        sender.tx.transmit(&mut batch);
        batch.clear();
        let received = counted_receive(&mut *from.rx, &mut batch);
        if received < burst || counted_transmit(&mut *to.tx, &mut batch) < burst {
            outcome = Err(format!("a burst of {burst} was cut to {received}").into());
            break;
        }
        moved += received;
        receiver.rx.receive(&mut batch);
        sink.tx.transmit(&mut batch);
    }
    batch.clear();
    for (port, queue) in ports.iter_mut().zip([from, to, sender, receiver, source, sink]) {
        port.queues.push(queue);
    }
    outcome.map(|()| moved)
}
