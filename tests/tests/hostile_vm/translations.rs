//! An IOMMU that lies, forgets, keeps silent or talks too much.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use lab::hostile::{
    CHUNK, Descriptor, Format, INVALIDATE, LAYOUT_BUFFERS, MISS, Machine, PLAIN, READ, READ_WRITE, SIZE, Setup, UPDATE,
    USER, WRITE, layout, request, translation,
};

use crate::Offence;
use crate::changes::Random;
use crate::scene::{Case, PATIENCE};

pub(crate) const ALL: &[(&str, Offence)] = &[
    ("that-cannot-be", impossible),
    ("nobody-asked-for-and-that-overlap", unasked),
    ("to-where-no-memory-is", beyond),
    ("that-only-allow-reading", read_only),
    ("invalidated-under-load", invalidated),
    ("are-not-told", silence),
    ("questions-are-never-read", unread),
    ("flood", flood),
    ("channel-of-garbage-and-then-none", garbage),
];

/// An address of no memory.
const ELSEWHERE: u64 = 1 << 40;
/// Bytes of the buffers of one ring.
const BUFFERS: u64 = SIZE as u64 * 2048;
/// All addresses but the last.
const ALL_ADDRESSES: [u64; 3] = [0, u64::MAX, 0];

fn machine(case: &Case<'_>, format: Format) -> Result<Machine> {
    let machine = case.scene.machine(Setup::new(format).behind_iommu())?;
    ensure!(questions(&machine) > 0, "nothing was asked: it is not behind its IOMMU");
    Ok(machine)
}

/// How often its IOMMU was asked.
fn questions(machine: &Machine) -> u64 {
    machine.iommu.as_ref().map_or(0, |iommu| iommu.questions)
}

fn works(case: &Case<'_>, machine: &mut Machine) -> Result<()> {
    case.still_works(machine, 1)?;
    case.still_works(machine, 0)
}

fn tell(machine: &Machine, words: [u64; 3], permission: u8, kind: u8) -> Result<()> {
    machine.channel.must(request::IOTLB_MSG, &translation(words, permission, kind), &[])
}

fn forget(machine: &Machine, iova: u64, size: u64) -> Result<()> {
    tell(machine, [iova, size, 0], 0, INVALIDATE)
}

fn impossible(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = machine(case, format)?;
    let good = [ELSEWHERE, 4096, USER];
    let strange = [
        (good, 0, UPDATE),
        (good, 4, UPDATE),
        (good, u8::MAX, UPDATE),
        (good, READ_WRITE, MISS),
        (good, READ_WRITE, 0),
        (good, READ_WRITE, 4),
        (good, READ_WRITE, u8::MAX),
        ([ELSEWHERE, 0, USER], READ_WRITE, UPDATE),
        ([u64::MAX - 4095, 8192, USER], READ_WRITE, UPDATE),
        ([ELSEWHERE, 8192, u64::MAX - 4095], READ_WRITE, UPDATE),
        ([ELSEWHERE, u64::MAX, 0], READ_WRITE, UPDATE),
    ];
    for (words, permission, kind) in strange {
        machine.turn();
        let taken = machine.channel.tell(request::IOTLB_MSG, &translation(words, permission, kind), &[])?;
        ensure!(taken == Some(false), "{words:x?}, permission {permission}, kind {kind}: {taken:?}");
    }
    case.says(&["a permission of"])?;
    works(case, &mut machine)
}

fn unasked(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = machine(case, format)?;
    for number in 0..100 {
        machine.turn();
        // Of pages that it never uses, each over a part of those before.
        tell(&machine, [ELSEWHERE + number * 1024, 4096 * (1 + number % 5), USER + number], READ_WRITE, UPDATE)?;
        // And, in pieces of any length, of the buffers that are in use, which takes the rest of what was told of them away.
        let at = LAYOUT_BUFFERS + number * 10_000;
        tell(&machine, [at, 100 + number, USER + at], READ_WRITE, UPDATE)?;
    }
    works(case, &mut machine)
}

fn beyond(case: &Case<'_>, format: Format) -> Result<()> {
    for (number, flags) in [(0, WRITE), (1, 0)] {
        let before = case.printed().len();
        let mut machine = machine(case, format)?;
        tell(&machine, [ELSEWHERE, 4096, USER + machine.memory.size()], READ_WRITE, UPDATE)?;
        let Machine { rings, memory, .. } = &mut machine;
        let descriptor = Descriptor { address: ELSEWHERE, len: 2048, flags };
        ensure!(rings[number].post(memory, &[descriptor]), "there is no room");
        machine.kick(number);
        let words = [&format!("queue {number} is stopped"), "not memory of the guest"];
        case.turn_until_said(&mut machine, before, &words)?;
        case.still_works(&mut machine, 1 - number)?;
    }
    Ok(())
}

/// Goes on until no more than nothing is received or sent in a while; fails when something still is after a long time.
fn stands_still(machine: &mut Machine, number: usize) -> Result<()> {
    let progress = |machine: &Machine| if number == 0 { machine.received } else { machine.sent };
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let before = progress(machine);
        let until = Instant::now() + Duration::from_millis(200);
        while Instant::now() < until {
            machine.turn();
            std::thread::sleep(Duration::from_micros(200));
        }
        if progress(machine) == before {
            return Ok(());
        }
    }
    bail!("ring {number} goes on")
}

fn read_only(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = machine(case, format)?;
    let allow = |machine: &mut Machine, permission| {
        machine.iommu.iter_mut().for_each(|iommu| iommu.permission = permission);
    };
    allow(&mut machine, READ);
    forget(&machine, LAYOUT_BUFFERS, BUFFERS)?;
    // It may not write there, and so nothing arrives; what it only reads goes on.
    stands_still(&mut machine, 0)?;
    forget(&machine, LAYOUT_BUFFERS + BUFFERS, BUFFERS)?;
    case.still_works(&mut machine, 1)?;
    ensure!(!case.has_said(0, &["is stopped"]), "that is no fault of the ring");
    allow(&mut machine, READ_WRITE);
    works(case, &mut machine)
}

fn invalidated(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = machine(case, format)?;
    let mut random = Random(3);
    for round in 0..150 {
        machine.turn();
        match round % 10 {
            0 => forget(&machine, 0, u64::MAX)?,
            1 => forget(&machine, USER + layout(round % 2).descriptors, 1)?,
            _ => forget(&machine, LAYOUT_BUFFERS + random.below(2 * BUFFERS), 1 + random.below(CHUNK))?,
        }
        machine.turn();
    }
    works(case, &mut machine)
}

fn silence(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = machine(case, format)?;
    let before = questions(&machine);
    machine.iommu.iter_mut().for_each(|iommu| iommu.answers = false);
    // First the buffers alone, then the rings as well.
    for (at, size) in [(LAYOUT_BUFFERS, 2 * BUFFERS), (0, u64::MAX)] {
        forget(&machine, at, size)?;
        stands_still(&mut machine, 0)?;
        stands_still(&mut machine, 1)?;
    }
    ensure!(questions(&machine) > before, "nothing was asked");
    // The others go on, which the law asks for; and so does this one when the answers come at last.
    machine.iommu.iter_mut().for_each(|iommu| iommu.answers = true);
    works(case, &mut machine)
}

fn unread(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = machine(case, format)?;
    let iommu = machine.iommu.take();
    let before = iommu.as_ref().map_or(0, |iommu| iommu.questions);
    // Each makes it ask anew, until no more questions go into the socket.
    for _ in 0..1000 {
        forget(&machine, 0, u64::MAX)?;
    }
    machine.iommu = iommu;
    works(case, &mut machine)?;
    ensure!(questions(&machine) > before + 100, "hardly anything was asked");
    Ok(())
}

fn flood(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = machine(case, format)?;
    for number in 0..10_000 {
        let page = translation([ELSEWHERE + number * 8192, 4096, USER], READ_WRITE, UPDATE);
        ensure!(machine.channel.send(request::IOTLB_MSG, PLAIN, &page, &[])?, "the session ended");
        if number % 100 == 0 {
            machine.turn();
        }
    }
    machine.channel.must(request::SET_OWNER, &[], &[])?;
    works(case, &mut machine)?;
    // One that is everywhere, and to where no memory is: every buffer is elsewhere then, and the queues end.
    machine.iommu.iter_mut().for_each(|iommu| iommu.answers = false);
    tell(&machine, ALL_ADDRESSES, READ_WRITE, UPDATE)?;
    case.turn_until_said(&mut machine, 0, &["is stopped", "not memory of the guest"])
}

fn garbage(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = machine(case, format)?;
    let mut random = Random(5);
    for _ in 0..50 {
        let bytes: Vec<u8> = (0..512).flat_map(|_| random.next().to_le_bytes()).collect();
        machine.iommu.iter_mut().for_each(|iommu| iommu.babble(&bytes));
        machine.turn();
    }
    works(case, &mut machine)?;
    // Nobody is there to be asked any more.
    machine.iommu = None;
    forget(&machine, LAYOUT_BUFFERS, 2 * BUFFERS)?;
    stands_still(&mut machine, 0)?;
    stands_still(&mut machine, 1)
}
