//! Rules of rings, each broken on either ring: the queue is stopped and named, and the other one goes on.

use anyhow::{Result, ensure};
use lab::hostile::{Descriptor, Format, INDIRECT, Machine, NEXT, SIZE, Setup, WRITE, layout};
use lab::wait;

use crate::Offence;
use crate::scene::{Case, PATIENCE};

pub(crate) const ALL: &[(&str, Offence)] = &[
    ("available-index-jumps", index_jumps),
    ("available-index-goes-back", index_goes_back),
    ("descriptor-beyond-the-ring", beyond_the_ring),
    ("descriptor-is-offered-twice", offered_twice),
    ("cycle", cycle),
    ("chain-is-cut-off", cut_off),
    ("table-is-a-cycle-or-too-long", long_table),
    ("table-in-a-table", nested_table),
    ("table-of-a-length-that-cannot-be", table_lengths),
    ("table-outside-the-memory", table_outside),
    ("table-with-flags-that-cannot-be", table_flags),
    ("buffers-in-the-wrong-direction", directions),
    ("writable-before-readable", writable_first),
    ("buffer-outside-the-memory", outside),
    ("buffer-of-4-gib", huge_length),
    ("receive-buffer-too-short-for-a-header", runts),
    ("receive-buffers-too-short-in-sum", short_in_sum),
];

/// The address of a buffer that is as good as any.
pub(crate) fn buffer(machine: &Machine, ring: usize) -> u64 {
    machine.buffer(ring)
}

/// Waits until the machine has nothing on its way on the ring that it sends from.
pub(crate) fn finish_sending(machine: &mut Machine) -> Result<()> {
    wait::until("all frames are sent", PATIENCE, || {
        machine.take();
        Ok((machine.rings[1].out() == 0).then_some(()))
    })
}

/// Has `offend` break a ring of a machine under load, and sees that it is stopped for that, and the other one is not.
fn broken(
    case: &Case<'_>,
    format: Format,
    ring: usize,
    reason: &str,
    offend: impl FnOnce(&mut Machine) -> bool,
) -> Result<()> {
    let before = case.printed().len();
    let mut machine = case.scene.machine(Setup::new(format))?;
    ensure!(offend(&mut machine), "there was no room to break the ring");
    machine.kick(ring);
    case.says_since(before, &[&format!("queue {ring} is stopped"), reason])?;
    case.still_works(&mut machine, 1 - ring)
}

/// A chain of descriptors as they are, on the ring.
fn post(machine: &mut Machine, ring: usize, chain: &[Descriptor]) -> bool {
    let Machine { rings, memory, .. } = machine;
    rings[ring].post(memory, chain)
}

fn flags(ring: usize) -> u16 {
    if ring == 0 { WRITE } else { 0 }
}

/// Writes an indirect table for a ring, linked as tables are, and gives the descriptor that points to it.
pub(crate) fn table(machine: &Machine, ring: usize, entries: &[Descriptor]) -> Descriptor {
    let areas = layout(u32::try_from(ring).unwrap_or(0));
    for (index, entry) in (0_u16..).zip(entries) {
        let more = if usize::from(index) + 1 < entries.len() { NEXT } else { 0 };
        let entry = Descriptor { flags: entry.flags | more, ..*entry };
        machine.rings[ring].describe(&machine.memory, areas.tables + 16 * u64::from(index), entry, index + 1);
    }
    let len = u32::try_from(16 * entries.len()).unwrap_or(u32::MAX);
    Descriptor { address: areas.tables, len, flags: INDIRECT }
}

fn index_jumps(case: &Case<'_>, format: Format) -> Result<()> {
    for ring in [0, 1] {
        match format {
            Format::Split => broken(case, format, ring, "available index jumped", |machine| {
                let ring = &machine.rings[ring];
                ring.show(&machine.memory, ring.available().wrapping_add(SIZE + 1));
                true
            })?,
            // A packed ring has no index. What comes closest: the device finds the place taken, with nothing behind it.
            Format::Packed => broken(case, format, ring, "in part only", |machine| {
                let address = buffer(machine, ring);
                let part = Descriptor { address, len: 100, flags: flags(ring) | NEXT };
                let Machine { rings, memory, .. } = machine;
                rings[ring].post_as_is(memory, &[part])
            })?,
        }
    }
    Ok(())
}

fn index_goes_back(case: &Case<'_>, format: Format) -> Result<()> {
    if format == Format::Packed {
        // Turned flags: everything in the ring looks as if it were available again.
        let mut machine = case.scene.machine(Setup::new(format))?;
        finish_sending(&mut machine)?;
        for index in 0..SIZE {
            let word = machine.memory.word16(machine.rings[1].descriptor(index) + 14);
            word.fetch_xor(0x80, std::sync::atomic::Ordering::AcqRel);
        }
        machine.kick(1);
        return case.still_works(&mut machine, 0);
    }
    broken(case, format, 1, "available index jumped", |machine| {
        let ring = &machine.rings[1];
        ring.show(&machine.memory, ring.available().wrapping_sub(SIZE));
        true
    })
}

fn beyond_the_ring(case: &Case<'_>, format: Format) -> Result<()> {
    if format == Format::Packed {
        // Identifiers are the driver's own there: any is taken.
        let mut machine = case.scene.machine(Setup::new(format))?;
        let address = buffer(&machine, 1);
        let Machine { rings, memory, .. } = &mut machine;
        let place = rings[1].descriptor(rings[1].place());
        ensure!(rings[1].post(memory, &[Descriptor { address, len: 72, flags: 0 }]), "no room");
        memory.word16(place + 12).store(u16::MAX, std::sync::atomic::Ordering::Release);
        machine.kick(1);
        return case.still_works(&mut machine, 0);
    }
    for ring in [0, 1] {
        for head in [SIZE, u16::MAX] {
            broken(case, format, ring, "there is no descriptor", |machine| {
                let Machine { rings, memory, .. } = machine;
                rings[ring].offer(memory, head);
                rings[ring].show(memory, rings[ring].available());
                true
            })?;
        }
        broken(case, format, ring, "there is no descriptor", |machine| {
            let address = buffer(machine, ring);
            let Machine { rings, memory, .. } = machine;
            let head = rings[ring].place();
            let part = Descriptor { address, len: 100, flags: flags(ring) | NEXT };
            rings[ring].describe(memory, rings[ring].descriptor(head), part, SIZE);
            rings[ring].offer(memory, head);
            rings[ring].show(memory, rings[ring].available());
            true
        })?;
    }
    Ok(())
}

fn offered_twice(case: &Case<'_>, format: Format) -> Result<()> {
    // Whether the second is still in use when it is seen is a matter of luck, so anything may come of it.
    let mut machine = case.scene.machine(Setup::new(format))?;
    for _ in 0..16 {
        finish_sending(&mut machine)?;
        let address = buffer(&machine, 1);
        let Machine { rings: [_, ring], memory, .. } = &mut machine;
        let (head, part) = (ring.place(), Descriptor { address, len: 1526, flags: 0 });
        match format {
            Format::Split => {
                ring.describe(memory, ring.descriptor(head), part, 0);
                ring.offer(memory, head);
                ring.offer(memory, head);
                ring.show(memory, ring.available());
            }
            Format::Packed => {
                let (first, second) = (ring.descriptor(head), ring.descriptor((head + 1) % SIZE));
                ensure!(ring.post(memory, &[part]) && ring.post(memory, &[part]), "no room");
                let id = memory.word16(first + 12).load(std::sync::atomic::Ordering::Relaxed);
                memory.word16(second + 12).store(id, std::sync::atomic::Ordering::Release);
            }
        }
        machine.kick(1);
        std::thread::sleep(std::time::Duration::from_millis(2));
        if format == Format::Split {
            // Its count of used ones is wrong from here on.
            break;
        }
    }
    case.still_works(&mut machine, 0)
}

fn cycle(case: &Case<'_>, format: Format) -> Result<()> {
    match format {
        Format::Split => {
            for ring in [0, 1] {
                for length in [1, 2, 5] {
                    broken(case, format, ring, "longer than the ring", |machine| {
                        let address = buffer(machine, ring);
                        let Machine { rings, memory, .. } = machine;
                        let ring_flags = flags(ring);
                        let ring = &mut rings[ring];
                        let head = ring.place();
                        for step in 0..length {
                            let part = Descriptor { address, len: 100, flags: ring_flags | NEXT };
                            let next = (head + (step + 1) % length) % SIZE;
                            ring.describe(memory, ring.descriptor((head + step) % SIZE), part, next);
                        }
                        ring.offer(memory, head);
                        ring.show(memory, ring.available());
                        true
                    })?;
                }
            }
            Ok(())
        }
        Format::Packed => {
            let mut empty = Ok(());
            broken(case, format, 1, "longer than the ring", |machine| {
                empty = finish_sending(machine);
                let part = Descriptor { address: buffer(machine, 1), len: 10, flags: NEXT };
                let Machine { rings, memory, .. } = machine;
                rings[1].post_as_is(memory, &[part; SIZE as usize])
            })?;
            empty
        }
    }
}

fn cut_off(case: &Case<'_>, format: Format) -> Result<()> {
    for ring in [0, 1] {
        let reason = if format == Format::Packed { "in part only" } else { "stopped" };
        let offend = |machine: &mut Machine| {
            let address = buffer(machine, ring);
            let part = Descriptor { address, len: 100, flags: flags(ring) | NEXT };
            let Machine { rings, memory, .. } = machine;
            // In a split ring what follows is whatever lies there: the last of them names itself.
            if format == Format::Split {
                let last = (rings[ring].place() + 2) % SIZE;
                rings[ring].describe(memory, rings[ring].descriptor(last), part, last);
            }
            rings[ring].post_as_is(memory, &[part, part])
        };
        broken(case, format, ring, reason, offend)?;
    }
    Ok(())
}

fn long_table(case: &Case<'_>, format: Format) -> Result<()> {
    for ring in [0, 1] {
        broken(case, format, ring, "longer than the ring", |machine| {
            let part = Descriptor { address: buffer(machine, ring), len: 20, flags: flags(ring) };
            let table = table(machine, ring, &[part; SIZE as usize + 1]);
            post(machine, ring, &[table])
        })?;
        if format == Format::Packed {
            continue;
        }
        broken(case, format, ring, "longer than the ring", |machine| {
            let part = Descriptor { address: buffer(machine, ring), len: 20, flags: flags(ring) };
            let table = table(machine, ring, &[part; 2]);
            let part = Descriptor { flags: part.flags | NEXT, ..part };
            machine.rings[ring].describe(&machine.memory, table.address + 16, part, 0);
            post(machine, ring, &[table])
        })?;
        broken(case, format, ring, "there is no descriptor", |machine| {
            let part = Descriptor { address: buffer(machine, ring), len: 20, flags: flags(ring) };
            let table = table(machine, ring, &[part; 2]);
            let part = Descriptor { flags: part.flags | NEXT, ..part };
            machine.rings[ring].describe(&machine.memory, table.address + 16, part, 2);
            post(machine, ring, &[table])
        })?;
    }
    Ok(())
}

fn nested_table(case: &Case<'_>, format: Format) -> Result<()> {
    for ring in [0, 1] {
        broken(case, format, ring, "has an indirect table in it", |machine| {
            let part = Descriptor { address: buffer(machine, ring), len: 100, flags: flags(ring) };
            let inner = Descriptor { len: 16, flags: flags(ring) | INDIRECT, ..part };
            let table = table(machine, ring, &[part, inner]);
            post(machine, ring, &[table])
        })?;
    }
    Ok(())
}

fn table_lengths(case: &Case<'_>, format: Format) -> Result<()> {
    for ring in [0, 1] {
        for len in [0, 1, 15, 17, u32::MAX] {
            broken(case, format, ring, "no positive multiple of 16", |machine| {
                let part = Descriptor { address: buffer(machine, ring), len: 100, flags: flags(ring) };
                let table = Descriptor { len, ..table(machine, ring, &[part]) };
                post(machine, ring, &[table])
            })?;
        }
    }
    Ok(())
}

fn table_outside(case: &Case<'_>, format: Format) -> Result<()> {
    for ring in [0, 1] {
        for address in [8 << 20, (8 << 20) - 8, 1 << 40, u64::MAX - 15] {
            broken(case, format, ring, "not memory of the guest", |machine| {
                post(machine, ring, &[Descriptor { address, len: 32, flags: INDIRECT }])
            })?;
        }
    }
    Ok(())
}

fn table_flags(case: &Case<'_>, format: Format) -> Result<()> {
    for ring in [0, 1] {
        broken(case, format, ring, "which are not allowed", |machine| {
            let part = Descriptor { address: buffer(machine, ring), len: 100, flags: flags(ring) };
            let table = table(machine, ring, &[part]);
            post(machine, ring, &[table, part])
        })?;
    }
    Ok(())
}

fn directions(case: &Case<'_>, format: Format) -> Result<()> {
    broken(case, format, 0, "wrong direction", |machine| {
        let part = Descriptor { address: buffer(machine, 0), len: 1500, flags: 0 };
        post(machine, 0, &[part])
    })?;
    // Room to write to is a frame without a byte.
    let before = case.scene.counter(crate::scene::OFFENDER, "rx_bad_length")?;
    let mut machine = case.scene.machine(Setup::new(format))?;
    let part = Descriptor { address: buffer(&machine, 1), len: 1500, flags: WRITE };
    ensure!(post(&mut machine, 1, &[part]), "no room");
    machine.kick(1);
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)?;
    let dropped = case.scene.counter(crate::scene::OFFENDER, "rx_bad_length")? - before;
    ensure!(dropped == 1, "{dropped} frames instead of 1 were too short");
    Ok(())
}

fn writable_first(case: &Case<'_>, format: Format) -> Result<()> {
    for ring in [0, 1] {
        broken(case, format, ring, "wrong direction", |machine| {
            let part = Descriptor { address: buffer(machine, ring), len: 700, flags: 0 };
            post(machine, ring, &[Descriptor { flags: WRITE, ..part }, part])
        })?;
    }
    Ok(())
}

fn outside(case: &Case<'_>, format: Format) -> Result<()> {
    let end = 8 << 20;
    for ring in [0, 1] {
        // Of a buffer to write to only what a frame needs has to be there.
        let almost = if ring == 0 { end - 13 } else { end - 1499 };
        for address in [end, almost, 1 << 46, u64::MAX, u64::MAX - 13, u64::MAX - 700] {
            broken(case, format, ring, "not memory of the guest", |machine| {
                post(machine, ring, &[Descriptor { address, len: 1500, flags: flags(ring) }])
            })?;
        }
    }
    // At the very end is inside.
    let mut machine = case.scene.machine(Setup::new(format))?;
    for ring in [0, 1] {
        ensure!(
            post(&mut machine, ring, &[Descriptor { address: end - 1500, len: 1500, flags: flags(ring) }]),
            "no room"
        );
        machine.kick(ring);
        case.still_works(&mut machine, ring)?;
    }
    Ok(())
}

fn huge_length(case: &Case<'_>, format: Format) -> Result<()> {
    // As much of it is used as a frame needs.
    let mut machine = case.scene.machine(Setup::new(format))?;
    let address = buffer(&machine, 0);
    ensure!(post(&mut machine, 0, &[Descriptor { address, len: u32::MAX, flags: WRITE }]), "no room");
    machine.kick(0);
    case.still_works(&mut machine, 0)?;
    drop(machine);
    // No frame is that long, so nobody looks where it would lie.
    let before = case.scene.counter(crate::scene::OFFENDER, "rx_too_long")?;
    let mut machine = case.scene.machine(Setup::new(format))?;
    let address = buffer(&machine, 1);
    let part = Descriptor { address, len: u32::MAX, flags: 0 };
    ensure!(post(&mut machine, 1, &[part]) && post(&mut machine, 1, &[part, part]), "no room");
    machine.kick(1);
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)?;
    let dropped = case.scene.counter(crate::scene::OFFENDER, "rx_too_long")? - before;
    ensure!(dropped == 2, "{dropped} frames instead of 2 were too long");
    Ok(())
}

fn runts(case: &Case<'_>, format: Format) -> Result<()> {
    for len in [0, 1, 11] {
        broken(case, format, 0, "cannot hold the header", |machine| {
            let address = buffer(machine, 0);
            post(machine, 0, &[Descriptor { address, len, flags: WRITE }])
        })?;
    }
    Ok(())
}

fn short_in_sum(case: &Case<'_>, format: Format) -> Result<()> {
    broken(case, format, 0, "cannot hold the header", |machine| {
        let part = Descriptor { address: buffer(machine, 0), len: 3, flags: WRITE };
        post(machine, 0, &[part; 3])
    })?;
    // With mergeable buffers a short one is no offence, nor is a header in pieces.
    let mut machine = case.scene.machine(Setup::new(format))?;
    for len in [12, 13] {
        let address = buffer(&machine, 0);
        ensure!(post(&mut machine, 0, &[Descriptor { address, len, flags: WRITE }]), "no room");
        let part = Descriptor { address, len: 5, flags: WRITE };
        ensure!(post(&mut machine, 0, &[part, Descriptor { address: address + 5, len: 1990, ..part }]), "no room");
    }
    machine.kick(0);
    case.still_works(&mut machine, 0)?;
    case.still_works(&mut machine, 1)
}
