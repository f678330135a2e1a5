//! Frames that cannot be: each is dropped and counted by its reason, and the queue goes on.

use anyhow::{Result, ensure};
use lab::hostile::{Descriptor, Format, Machine, Setup};
use lab::wait;

use crate::Offence;
use crate::rings::{buffer, finish_sending, table};
use crate::scene::{Case, OFFENDER, PATIENCE};

pub(crate) const ALL: &[(&str, Offence)] = &[
    ("shorter-than-ethernet", short),
    ("longer-than-any", long),
    ("in-too-many-pieces", pieces),
    ("checksum-beyond-the-frame", checksums),
    ("segments-that-cannot-be", segments),
    ("header-length-that-lies", header_lengths),
    ("header-across-descriptors", scattered_header),
];

/// An offload header.
#[derive(Clone, Copy, Default)]
struct Header {
    flags: u8,
    kind: u8,
    header_len: u16,
    size: u16,
    start: u16,
    offset: u16,
}

impl Header {
    fn bytes(self) -> [u8; 12] {
        let [h0, h1] = self.header_len.to_le_bytes();
        let [s0, s1] = self.size.to_le_bytes();
        let [c0, c1] = self.start.to_le_bytes();
        let [o0, o1] = self.offset.to_le_bytes();
        [self.flags, self.kind, h0, h1, s0, s1, c0, c1, o0, o1, 0, 0]
    }
}

const CSUM: u8 = 1;
const TCP4: u8 = 1;
const TCP6: u8 = 4;

/// The beginning of a TCP segment over IPv4 in a frame of `len` bytes.
fn tcp(len: u16) -> [u8; 54] {
    let mut frame = [0; 54];
    let total = (len - 14).to_be_bytes();
    let head = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1,
        10, 0, 0, 2,
    ];
    frame[..head.len()].copy_from_slice(&head);
    frame[46] = 5 << 4;
    frame
}

/// Sends what `offend` posts and sees that so many frames were dropped for `reason`, and nothing else happened.
fn dropped(
    case: &Case<'_>,
    format: Format,
    reason: &str,
    offend: impl FnOnce(&mut Machine) -> Result<u64>,
) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    finish_sending(&mut machine)?;
    let before = case.scene.counter(OFFENDER, reason)?;
    let count = offend(&mut machine)?;
    machine.kick(1);
    finish_sending(&mut machine)?;
    let mut found = 0;
    let counted = wait::until("the drops", PATIENCE, || {
        found = case.scene.counter(OFFENDER, reason)? - before;
        Ok((found >= count).then_some(()))
    });
    ensure!(counted.is_ok() && found == count, "{found} instead of {count} frames were counted as {reason}");
    // A queue that a frame had stopped would not go on.
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)
}

fn post(machine: &mut Machine, chain: &[Descriptor]) -> Result<()> {
    let Machine { rings: [_, ring], memory, .. } = machine;
    ensure!(ring.post(memory, chain), "no room");
    Ok(())
}

fn headers(machine: &mut Machine, headers: &[Header], len: u16) -> Result<u64> {
    for header in headers {
        ensure!(machine.send_with(header.bytes(), &tcp(len), len.into()), "no room");
    }
    Ok(headers.len() as u64)
}

fn short(case: &Case<'_>, format: Format) -> Result<()> {
    dropped(case, format, "rx_bad_length", |machine| {
        let address = buffer(machine, 1);
        for len in [0, 1, 11, 12, 13, 25] {
            post(machine, &[Descriptor { address, len, flags: 0 }])?;
        }
        let nothing = Descriptor { address, len: 0, flags: 0 };
        post(machine, &[nothing; 5])?;
        post(machine, &[Descriptor { len: 12, ..nothing }, Descriptor { len: 13, ..nothing }])?;
        Ok(8)
    })
}

fn long(case: &Case<'_>, format: Format) -> Result<()> {
    dropped(case, format, "rx_too_long", |machine| {
        let address = lab::hostile::LAYOUT_BUFFERS;
        post(machine, &[Descriptor { address, len: 200_000, flags: 0 }])?;
        post(machine, &[Descriptor { address, len: 20_000, flags: 0 }; 5])?;
        Ok(2)
    })
}

fn pieces(case: &Case<'_>, format: Format) -> Result<()> {
    dropped(case, format, "rx_too_long", |machine| {
        let part = Descriptor { address: buffer(machine, 1), len: 20, flags: 0 };
        let table = table(machine, 1, &[part; 200]);
        post(machine, &[table])?;
        Ok(1)
    })
}

fn checksums(case: &Case<'_>, format: Format) -> Result<()> {
    let at = |start, offset| Header { flags: CSUM, start, offset, ..Header::default() };
    dropped(case, format, "rx_bad_header", |machine| {
        headers(
            machine,
            &[
                at(60, 0),
                at(59, 0),
                at(34, 26),
                at(0, 59),
                at(2000, 0),
                at(34, 60_000),
                at(65_535, 65_535),
                at(65_535, 1),
            ],
            60,
        )
    })
}

fn segments(case: &Case<'_>, format: Format) -> Result<()> {
    let good = Header { flags: CSUM, kind: TCP4, header_len: 54, size: 500, start: 34, offset: 16 };
    // UDP among them, which was not agreed on.
    let bad = [
        Header { size: 0, ..good },
        Header { kind: 2, ..good },
        Header { kind: 3, ..good },
        Header { kind: 5, ..good },
        Header { kind: 7, ..good },
        Header { start: 1400, ..good },
    ];
    dropped(case, format, "rx_bad_header", |machine| headers(machine, &bad, 1400))
}

fn header_lengths(case: &Case<'_>, format: Format) -> Result<()> {
    // It is a hint. Nothing may come of it but a frame or a drop.
    let mut machine = case.scene.machine(Setup::new(format))?;
    let good = Header { flags: CSUM, kind: TCP4, header_len: 54, size: 500, start: 34, offset: 16 };
    let lies = [0, 1, 13, 53, 55, 1399, 1400, 1401, u16::MAX].map(|header_len| Header { header_len, ..good });
    // What contradicts the frame only to those who look into it.
    let contradictions = [
        Header { flags: 0, ..good },
        Header { kind: TCP6, ..good },
        Header { kind: TCP4 | 0x80, ..good },
        Header { kind: 0x80, ..good },
        Header { start: 2, ..good },
        Header { size: 1, ..good },
        Header { size: u16::MAX, ..good },
    ];
    for header in lies.iter().chain(&contradictions) {
        ensure!(machine.send_with(header.bytes(), &tcp(1400), 1400), "no room");
        machine.kick(1);
        case.still_works(&mut machine, 1)?;
    }
    case.still_works(&mut machine, 0)
}

fn scattered_header(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    finish_sending(&mut machine)?;
    let before = case.scene.counter(OFFENDER, "rx_packets")?;
    let address = buffer(&machine, 1);
    machine.memory.write(address, &[0; 12]);
    for cuts in [[1, 11, 60], [5, 7, 60], [11, 1, 60], [11, 2, 59], [0, 12, 60], [12, 0, 60]] {
        let mut at = address;
        let chain = cuts.map(|len| {
            let part = Descriptor { address: at, len, flags: 0 };
            at += u64::from(len);
            part
        });
        post(&mut machine, &chain)?;
    }
    machine.kick(1);
    finish_sending(&mut machine)?;
    let passed = case.scene.counter(OFFENDER, "rx_packets")? - before;
    ensure!(passed == 6, "{passed} of 6 frames with a header in pieces passed");
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)
}
