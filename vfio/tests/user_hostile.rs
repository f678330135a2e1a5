//! Peers that lie, stall and die: each can end its own session, and nothing else.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use drivers::bus::{Bar, BusError, PciFunction};
use hugemem::{Iova, Region};
use rustix::event::{EventfdFlags, eventfd};
use support::raw::{self, Incoming, Raw, longs, message, words};
use support::{Bed, LONG, memory, until};
use vfio::user::server::{DmaError, InterruptKind};
use vfio::user::{Function, Options, UserError};

const INVAL: u32 = 22;
const EXIST: u32 = 17;
const PERM: u32 = 1;
const NOSYS: u32 = 38;
const NOTSUP: u32 = 95;

/// A request about a region.
fn access(offset: u64, region: u32, count: u32, data: &[u8]) -> Vec<u8> {
    [longs(&[offset]), words(&[region, count]), data.to_vec()].concat()
}

fn map(flags: u32, offset: u64, iova: u64, len: u64) -> Vec<u8> {
    [words(&[32, flags]), longs(&[offset, iova, len])].concat()
}

fn unmap(flags: u32, iova: u64, len: u64) -> Vec<u8> {
    [words(&[24, flags]), longs(&[iova, len])].concat()
}

#[test]
fn bad_requests_are_refused_and_the_session_goes_on() {
    let bed = Bed::new();
    let mut client = Raw::connect(&bed.path);
    let region_info = |room: u32, index: u32| [words(&[room, 0, index, 0]), longs(&[0, 0])].concat();
    let table: &[(u16, Vec<u8>, u32)] = &[
        (raw::VERSION, raw::version(), INVAL),
        (raw::GET_INFO, vec![], INVAL),
        (raw::GET_INFO, words(&[8, 0, 0, 0]), INVAL),
        (raw::GET_REGION_INFO, words(&[32, 0, 0]), INVAL),
        (raw::GET_REGION_INFO, region_info(31, 0), INVAL),
        (raw::GET_REGION_INFO, region_info(32, 9), INVAL),
        (raw::GET_REGION_INFO, region_info(32, u32::MAX), INVAL),
        (raw::GET_REGION_IO_FDS, words(&[16, 0, 9, 0]), INVAL),
        (raw::GET_IRQ_INFO, words(&[16, 0, 5, 0]), INVAL),
        (raw::GET_IRQ_INFO, words(&[16, 0]), INVAL),
        (raw::REGION_READ, access(0, 0, 0, &[]), INVAL),
        (raw::REGION_READ, access(0x3ffd, 0, 4, &[]), INVAL),
        (raw::REGION_READ, access(u64::MAX, 0, 4, &[]), INVAL),
        (raw::REGION_READ, access(0, 0, u32::MAX, &[]), INVAL),
        (raw::REGION_READ, access(0, 1, 4, &[]), INVAL),
        (raw::REGION_READ, access(0, 77, 4, &[]), INVAL),
        (raw::REGION_READ, vec![1; 15], INVAL),
        (raw::REGION_WRITE, access(0, 0, 8, &[1; 4]), INVAL),
        (raw::REGION_WRITE, access(0, 0, 4, &[1; 8]), INVAL),
        (raw::REGION_WRITE, access(0, 2, 4, &[1; 4]), PERM),
        (raw::REGION_WRITE_MULTI, longs(&[u64::MAX]), INVAL),
        (raw::REGION_WRITE_MULTI, longs(&[1]), INVAL),
        (raw::REGION_WRITE_MULTI, [longs(&[1]), access(0, 0, 9, &[1; 8])].concat(), INVAL),
        (raw::DMA_MAP, vec![0; 31], INVAL),
        (raw::DMA_MAP, map(3, 0, 0x1000, 0), INVAL),
        (raw::DMA_MAP, map(3, 0, u64::MAX, 2), INVAL),
        (raw::DMA_MAP, map(0xff, 0, 0x1000, 0x1000), INVAL),
        (raw::DMA_MAP, map(3 | 4, 0, 0x1000, 0x1000), INVAL),
        (raw::DMA_UNMAP, vec![0; 23], INVAL),
        (raw::DMA_UNMAP, unmap(0, 0x1000, 0), INVAL),
        (raw::DMA_UNMAP, unmap(0, u64::MAX, 2), INVAL),
        (raw::DMA_UNMAP, unmap(1, 0x1000, 0x1000), NOTSUP),
        (raw::SET_IRQS, words(&[20, 0x21, 2, 0]), INVAL),
        (raw::SET_IRQS, words(&[20, 0x21, 5, 0, 1]), INVAL),
        (raw::SET_IRQS, words(&[20, 0x21, 2, 20, 1]), INVAL),
        (raw::SET_IRQS, words(&[20, 0x21, 2, u32::MAX, 2]), INVAL),
        (raw::SET_IRQS, words(&[20, 0x23, 2, 0, 1]), INVAL),
        (raw::SET_IRQS, words(&[20, 0x20, 2, 0, 1]), INVAL),
        (raw::SET_IRQS, words(&[20, 0x22, 2, 0, 4]), INVAL),
        (raw::SET_IRQS, words(&[20, 0x24, 2, 0, 0]), INVAL),
        (raw::SET_IRQS, words(&[20, 0x14, 2, 0, 1]), NOTSUP),
        (raw::DMA_READ, longs(&[0, 8]), INVAL),
        (14, vec![], NOTSUP),
        (16, words(&[8, 1 << 16 | 1]), NOTSUP),
        (17, words(&[8, 8]), NOTSUP),
        (18, words(&[8, 8]), NOTSUP),
        (0, vec![], NOSYS),
        (19, vec![7; 100], NOSYS),
        (u16::MAX, vec![7; 100_000], NOSYS),
    ];
    for (command, body, error) in table {
        assert_eq!(client.refusal(*command, body, &[]), *error, "command {command} {body:?}");
    }
    assert_eq!(client.refusal(raw::RESET, &[], &[]), 0);
    let state = bed.state();
    assert_eq!((state.sessions, state.maps.len(), state.ends.len()), (1, 0, 0));
}

#[test]
fn what_breaks_the_stream_ends_one_session_only() {
    let bed = Bed::new();
    let with_size = |size: u32| {
        let mut bytes = message(1, raw::RESET, 0, 0, &[]);
        bytes[4..8].copy_from_slice(&size.to_ne_bytes());
        bytes
    };
    let table = [
        with_size(0),
        with_size(15),
        with_size(u32::MAX),
        with_size(2 << 20),
        message(1, raw::RESET, 7, 0, &[]),
        // Not whole, and then the end.
        message(1, raw::RESET, 0, 0, &[])[..9].to_vec(),
        message(1, raw::REGION_READ, 0, 0, &access(0, 0, 4, &[]))[..20].to_vec(),
    ];
    for (round, bytes) in table.iter().enumerate() {
        let mut client = Raw::connect(&bed.path);
        client.send(bytes);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(client.receive().is_none(), "{bytes:?}");
        until("the session has ended", || bed.state().ends.len() == round + 1);
        assert!(matches!(bed.state().ends[round], Some(UserError::Protocol { .. })), "{bytes:?}");
    }
    // Before a version is agreed on there is no session.
    let early: &[Vec<u8>] = &[
        vec![],
        vec![1],
        message(1, raw::RESET, 0, 0, &[]),
        message(1, raw::VERSION, raw::NO_REPLY, 0, &raw::version()),
        message(1, raw::VERSION, raw::REPLY, 0, &raw::version()),
        message(1, raw::VERSION, 0, 0, &[9, 0, 0, 0]),
        message(1, raw::VERSION, 0, 0, b"\0\0\0\0{\"capabilities\":7"),
    ];
    for bytes in early {
        let mut client = Raw::new(UnixStream::connect(&bed.path).unwrap());
        client.send(bytes);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        while let Some(reply) = client.receive() {
            assert_eq!((reply.command, reply.error), (raw::VERSION, INVAL), "{bytes:?}");
        }
    }
    assert_eq!(bed.state().sessions, table.len());
    assert_eq!(bed.connect().id().vendor, 0x1234);
}

#[test]
fn replies_that_nobody_asked_for_are_dropped_and_requests_without_reply_get_none() {
    let bed = Bed::new();
    let mut client = Raw::connect(&bed.path);
    client.send(&message(4711, raw::DMA_READ, raw::REPLY, 0, &[1; 64]));
    client.send(&message(1, raw::RESET, raw::NO_REPLY, 0, &[]));
    client.send(&message(2, raw::REGION_WRITE, raw::NO_REPLY, 0, &access(0, 99, 4, &[0; 4])));
    client.send(&message(3, raw::REGION_WRITE, raw::NO_REPLY, 0, &access(8, 0, 4, &[5, 6, 7, 8])));
    let reply = client.ask(raw::REGION_READ, &access(8, 0, 4, &[]));
    assert_eq!(reply.body, access(8, 0, 4, &[5, 6, 7, 8]));
    assert_eq!(bed.state().resets, 1);
}

#[test]
fn maps_are_what_the_client_asked_for() {
    let bed = Bed::new();
    let mut client = Raw::connect(&bed.path);
    let sealed = memory(0x4000, true);
    let loose = memory(0x4000, false);
    let last_page = u64::MAX - 0xfff;
    assert_eq!(client.refusal(raw::DMA_MAP, &map(3, 0x1000, 0x10_0000, 0x2000), &[sealed.as_fd()]), 0);
    assert_eq!(client.refusal(raw::DMA_MAP, &map(1, 0, 0x20_0000, 0x1000), &[loose.as_fd()]), 0);
    assert_eq!(client.refusal(raw::DMA_MAP, &map(3, 0, last_page, 0x1000), &[]), 0);
    assert_eq!(client.refusal(raw::DMA_MAP, &map(3, 0x3000, 0x30_0000, 0x2000), &[sealed.as_fd()]), 0);
    {
        let state = bed.state();
        let seen: Vec<_> = state
            .maps
            .iter()
            .map(|map| (map.iova, map.len, map.writable, map.file.as_ref().map(|(_, offset)| *offset)))
            .collect();
        let expected = [
            (0x10_0000, 0x2000, true, Some(0x1000)),
            (0x20_0000, 0x1000, false, None),
            (last_page, 0x1000, true, None),
            (0x30_0000, 0x2000, true, None),
        ];
        assert_eq!(seen, expected, "only a sealed file that is long enough is passed on");
    }
    assert_eq!(client.refusal(raw::DMA_MAP, &map(3, 0, 0x10_1000, 0x1000), &[]), EXIST);
    assert_eq!(client.refusal(raw::DMA_MAP, &map(3, 0, 0x5000, 0x800), &[sealed.as_fd()]), INVAL);
    assert_eq!(client.refusal(raw::DMA_MAP, &map(3, u64::MAX - 0xfff, 0x5000, 0x1000), &[sealed.as_fd()]), INVAL);
    let two = [sealed.as_fd(), loose.as_fd()];
    assert_eq!(client.refusal(raw::DMA_MAP, &map(3, 0, 0x5000, 0x1000), &two), INVAL);
    assert_eq!(client.refusal(raw::DMA_MAP, &map(3 | 8, 0, 0x5000, 0x1000), &[sealed.as_fd()]), NOTSUP);
    assert_eq!(client.refusal(raw::DMA_UNMAP, &unmap(0, 0x10_1000, 0x1000), &[]), INVAL, "it would cut a map");
    assert_eq!(client.refusal(raw::DMA_UNMAP, &unmap(0, 0x5000, 0x1000), &[]), 0, "nothing is there");
    let request = unmap(0, 0x10_0000, 0x20_1000);
    assert_eq!(client.refusal(raw::DMA_UNMAP, &request, &[]), INVAL, "it would cut the last one");
    let request = unmap(0, 0x10_0000, 0x18_0000);
    assert_eq!(client.ask(raw::DMA_UNMAP, &request).body, request);
    assert_eq!(bed.state().maps.len(), 2);
    assert_eq!(client.refusal(raw::DMA_UNMAP, &unmap(0, 1 << 63, 1 << 63), &[]), 0);
    assert_eq!(bed.state().maps.len(), 1);
    assert_eq!(client.refusal(raw::DMA_UNMAP, &unmap(2, 0, 0), &[]), 0);
    assert_eq!(bed.state().maps.len(), 0);
    assert_eq!(bed.state().unmapped_all, 1);
}

#[test]
fn regions_and_interrupts_are_described_as_vfio_does() {
    let bed = Bed::new();
    let mut client = Raw::connect(&bed.path);
    assert_eq!(client.ask(raw::GET_INFO, &words(&[16, 0, 0, 0])).body, words(&[16, 3, 9, 5]));
    let question = |room: u32, index: u32| [words(&[room, 0, index, 0]), longs(&[0, 0])].concat();
    // Too little room for the list: how much is needed, and where the list would be.
    let short = client.ask(raw::GET_REGION_INFO, &question(32, 0)).body;
    assert_eq!(short, [words(&[64, 0xf, 0, 32]), longs(&[0x4000, 0])].concat());
    let full = client.ask(raw::GET_REGION_INFO, &question(64, 0)).body;
    let list = [words(&[1 << 16 | 1, 0, 1, 0]), longs(&[0x1000, 0x1000])].concat();
    assert_eq!(full, [short, list].concat());
    let config = client.ask(raw::GET_REGION_INFO, &question(32, 7)).body;
    assert_eq!(config, [words(&[32, 3, 7, 0]), longs(&[256, 0])].concat());
    let absent = client.ask(raw::GET_REGION_INFO, &question(32, 8)).body;
    assert_eq!(absent, [words(&[32, 0, 8, 0]), longs(&[0, 0])].concat());
    assert_eq!(client.ask(raw::GET_REGION_IO_FDS, &words(&[64, 0, 0, 0])).body, words(&[16, 0, 0, 0]));
    assert_eq!(client.ask(raw::GET_IRQ_INFO, &words(&[16, 0, 2, 0])).body, words(&[16, 1, 2, 20]));
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let events = [event.as_fd(); 3];
    assert_eq!(client.refusal(raw::SET_IRQS, &words(&[20, 0x24, 2, 4, 3]), &events), 0);
    assert_eq!(client.refusal(raw::SET_IRQS, &words(&[20, 0x24, 2, 4, 4]), &events), INVAL);
    assert_eq!(client.refusal(raw::SET_IRQS, &words(&[20, 0x24, 2, 5, 1]), &[]), 0);
    let booleans = [words(&[23, 0x22, 2, 4]), words(&[3]), vec![1, 0, 1]].concat();
    assert_eq!(client.refusal(raw::SET_IRQS, &booleans, &[]), 0);
    assert_eq!(client.refusal(raw::SET_IRQS, &words(&[20, 0x09, 2, 1, 2]), &[]), 0);
    assert_eq!(client.refusal(raw::SET_IRQS, &words(&[20, 0x11, 2, 1, 1]), &[]), 0);
    {
        let state = bed.state();
        let connected: Vec<_> = (0..20).filter(|index| state.vectors[*index].is_some()).collect();
        assert_eq!(connected, [4, 6]);
        assert_eq!(state.triggered, [(InterruptKind::Msix, 4), (InterruptKind::Msix, 6)]);
        assert_eq!(state.masked, [(1, true), (2, true), (1, false)]);
    }
    assert_eq!(client.refusal(raw::SET_IRQS, &words(&[20, 0x21, 2, 0, 0]), &[]), 0);
    assert!(bed.state().vectors.iter().all(Option::is_none));
    let writes = [longs(&[2]), access(0x20, 0, 4, &[1; 8]), access(0x28, 0, 8, &[2; 8]), vec![9; 50]].concat();
    assert_eq!(client.ask(raw::REGION_WRITE_MULTI, &writes).body, longs(&[2]));
    assert_eq!(bed.state().registers[0x20..0x30], [1, 1, 1, 1, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2]);
}

#[test]
fn too_many_descriptors_end_the_session() {
    let bed = Bed::new();
    let mut client = Raw::connect(&bed.path);
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    client.send_with(&message(1, raw::RESET, 0, 0, &[]), &[event.as_fd(); 40]);
    assert!(client.receive().is_none());
    until("the session has ended", || bed.state().ends.len() == 1);
    assert_eq!(bed.state().resets, 0);
}

#[test]
fn a_client_that_does_not_answer_or_dies_holds_nobody_up() {
    let bed = Bed::new();
    let mut client = Raw::connect(&bed.path);
    until("the session has begun", || bed.state().dma.is_some());
    let dma = bed.dma();
    let short = Duration::from_millis(20);
    assert_eq!(dma.read(0x1000, &mut [0; 8], short), Err(DmaError::TimedOut));
    let late = client.receive().unwrap();
    assert_eq!((late.command, late.body), (raw::DMA_READ, longs(&[0x1000, 8])));
    client.send(&message(late.id, raw::DMA_READ, raw::REPLY, 0, &[longs(&[0x1000, 8]), vec![1; 8]].concat()));
    // The client takes 4096 bytes at a time. The second piece comes short.
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut bytes = vec![0; 5000];
            (dma.read(0x1000, &mut bytes, LONG), bytes)
        });
        let first = client.receive().unwrap();
        assert_eq!(first.body, longs(&[0x1000, 4096]));
        client.send(&message(first.id, raw::DMA_READ, raw::REPLY, 0, &[first.body, vec![1; 4096]].concat()));
        let second = client.receive().unwrap();
        assert_eq!(second.body, longs(&[0x2000, 904]));
        client.send(&message(second.id, raw::DMA_READ, raw::REPLY, 0, &longs(&[0x2000, 0])));
        let (result, bytes) = reading.join().unwrap();
        assert!(matches!(result, Err(DmaError::Refused(_))));
        assert!(bytes[..4096].iter().all(|byte| *byte == 1));
    });
    // QEMU answers a write by the header alone.
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| dma.write(0x1000, &[7; 3], LONG));
        let request = client.receive().unwrap();
        assert_eq!(request.body, [longs(&[0x1000, 3]), vec![7; 3]].concat());
        client.send(&message(request.id, raw::DMA_WRITE, raw::REPLY, 0, &[]));
        assert_eq!(writing.join().unwrap(), Ok(()));
    });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| dma.read(0x1000, &mut [0; 8], LONG));
        client.receive().unwrap();
        client.stream.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(waiting.join().unwrap(), Err(DmaError::Gone));
    });
    until("the session has ended", || bed.state().ends.len() == 1);
    assert_eq!(bed.connect().id().vendor, 0x1234);
}

/// A made-up server for one client; `odd` requests are answered by `answer`, or by hanging up.
fn against(
    timeout: Duration,
    odd: impl Fn(&Incoming) -> bool + Send,
    answer: impl Fn(&Incoming) -> Option<Vec<u8>> + Send,
    client: impl FnOnce(Result<Function, BusError>),
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            raw::serve(Raw::new(stream), odd, answer);
        });
        client(Function::connect(&path, Options { timeout, ..Options::default() }));
    });
}

#[test]
fn a_server_that_answers_nonsense_is_a_removed_device() {
    let reply = |request: &Incoming, body: &[u8]| Some(message(request.id, request.command, raw::REPLY, 0, body));
    type Answer = fn(&Incoming) -> Option<Vec<u8>>;
    let hang_up: Answer = |_| None;
    let table: &[(u16, &str, Answer)] = &[
        (raw::VERSION, "hangs up", hang_up),
        (raw::VERSION, "empty", |request| Some(message(request.id, request.command, raw::REPLY, 0, &[]))),
        (raw::VERSION, "another version", |request| {
            Some(message(request.id, request.command, raw::REPLY, 0, &[1, 0, 0, 0]))
        }),
        (raw::VERSION, "another command", |request| Some(message(request.id, raw::RESET, raw::REPLY, 0, &[]))),
        (raw::VERSION, "bad size", |_| Some(vec![0; 16])),
        (raw::VERSION, "too long", |_| Some([words(&[1 << 16, u32::MAX, raw::REPLY, 0])].concat())),
        (raw::VERSION, "bad type", |request| Some(message(request.id, request.command, 9, 0, &[]))),
        (raw::GET_INFO, "hangs up", hang_up),
        (raw::GET_INFO, "empty", |request| Some(message(request.id, request.command, raw::REPLY, 0, &[]))),
        (raw::GET_IRQ_INFO, "short", |request| Some(message(request.id, request.command, raw::REPLY, 0, &[0; 15]))),
        (raw::GET_REGION_INFO, "short", |request| Some(message(request.id, request.command, raw::REPLY, 0, &[0; 31]))),
        (raw::GET_REGION_INFO, "endless", |request| {
            let body = [words(&[u32::MAX, 15, 7, 32]), longs(&[256, 0])].concat();
            Some(message(request.id, request.command, raw::REPLY, 0, &body))
        }),
        (raw::REGION_READ, "hangs up", hang_up),
        (raw::REGION_READ, "no data", |request| Some(message(request.id, request.command, raw::REPLY, 0, &[0; 4]))),
        (raw::REGION_READ, "more than was asked", |request| {
            Some(message(request.id, request.command, raw::REPLY, 0, &access(0, 7, 8, &[0; 8])))
        }),
        (raw::REGION_READ, "less than is said", |request| {
            Some(message(request.id, request.command, raw::REPLY, 0, &access(0, 7, 4, &[0; 2])))
        }),
    ];
    for (command, what, answer) in table {
        let odd = |request: &Incoming| request.command == *command;
        against(LONG, odd, answer, |function| {
            let error = function.unwrap_err();
            assert!(matches!(error, BusError::Gone { .. }), "{command} {what}: {error}");
        });
    }
    // An honest error or too few bytes are errors, and end nothing.
    for error in [0, 5] {
        let refuse =
            |request: &Incoming| Some(message(request.id, request.command, raw::REPLY | raw::ERROR, error, &[]));
        against(
            LONG,
            |request| request.command == raw::GET_INFO,
            refuse,
            |function| {
                let text = function.unwrap_err().to_string();
                assert!(text.contains("DEVICE_GET_INFO") && text.contains("Input/output error"), "{text}");
            },
        );
    }
    let short = move |request: &Incoming| reply(request, &access(0, 7, 2, &[0; 2]));
    against(
        LONG,
        |request| request.command == raw::REGION_READ,
        short,
        |function| {
            let text = function.unwrap_err().to_string();
            assert!(text.contains("4 bytes at 0x0 of region 7 wanted, 2 read"), "{text}");
        },
    );
}

#[test]
fn a_silent_server_costs_one_deadline() {
    let start = Instant::now();
    let silence = |request: &Incoming| request.command == raw::RESET;
    against(
        Duration::from_millis(300),
        silence,
        |_| Some(Vec::new()),
        |function| {
            let mut function = function.unwrap();
            let bar = function.bar(0).unwrap();
            assert_eq!(bar.load::<u32>(0), 0x1111_1111);
            let error = function.reset().unwrap_err();
            assert!(matches!(&error, BusError::Gone { reason, .. } if reason.contains("does not answer")), "{error}");
            for _ in 0..1000 {
                assert_eq!(bar.load::<u32>(0), u32::MAX);
                assert!(matches!(function.read_config(0), Err(BusError::Gone { .. })));
            }
        },
    );
    // A thousand deadlines would be ten minutes.
    assert!(start.elapsed() < LONG);
}

#[test]
fn a_server_that_dies_in_the_middle_is_a_removed_device() {
    let die = |request: &Incoming| request.command == raw::REGION_READ && request.body[8] == 0;
    against(
        LONG,
        die,
        |_| None,
        |function| {
            let mut function = function.unwrap();
            let region = Region::on_heap(4096, Iova::new(0x10_0000)).unwrap();
            function.map(&region).unwrap();
            let bar = function.bar(0).unwrap();
            assert_eq!(bar.load::<u32>(0), u32::MAX);
            assert!(matches!(function.read_config(0), Err(BusError::Gone { .. })));
            bar.store(0, 1_u32);
        },
    );
}

#[test]
fn a_server_cannot_make_the_client_touch_what_is_not_there() {
    // A register file that its owner can cut off under the client is not mapped; nor is a window so large, or of so many areas, that parting from it
    // would take more memory or mappings than there are.
    let sparse = |areas: u32| {
        let list = (0..areas).flat_map(|area| longs(&[u64::from(area) * 0x1000, 0x1000]));
        words(&[1 << 16 | 1, 0, areas, 0]).into_iter().chain(list).collect::<Vec<u8>>()
    };
    for (sealed, size, areas) in [(false, 0x1000, 0), (true, 1 << 45, 0), (true, 0x10_0000, 200)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loose.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let file = memory(size, sealed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                let sender = Raw::new(stream.try_clone().unwrap());
                let list = if areas > 0 { sparse(areas) } else { Vec::new() };
                let (flags, first) = if areas > 0 { (15, 32) } else { (7, 0) };
                let length = 32 + u32::try_from(list.len()).unwrap();
                let window = [words(&[length, flags, 0, first]), longs(&[size, 0]), list].concat();
                let shares = |request: &Incoming| {
                    let is_window = request.command == raw::GET_REGION_INFO && request.body[8] == 0;
                    if is_window {
                        let reply = message(request.id, request.command, raw::REPLY, 0, &window);
                        sender.send_with(&reply, &[file.as_fd()]);
                    }
                    is_window
                };
                raw::serve(Raw::new(stream), shares, |_| Some(Vec::new()));
            });
            let mut function = Function::connect(&path, Options::default()).unwrap();
            let bar = function.bar(0).unwrap();
            if !sealed {
                File::from(file.try_clone().unwrap()).set_len(0).unwrap();
            }
            assert_eq!(bar.load::<u32>(0), 0x1111_1111, "by message");
        });
    }
}

#[test]
fn stores_are_posted_to_a_server_that_shares_no_pages() {
    // It answers none of them.
    let store = |request: &Incoming| request.command == raw::REGION_WRITE && request.body[8] == 0;
    against(
        LONG,
        store,
        |_| Some(Vec::new()),
        |function| {
            let mut function = function.unwrap();
            let bar = function.bar(0).unwrap();
            bar.store(0, 1_u32);
            assert_eq!(bar.load::<u32>(0), 0x1111_1111);
        },
    );
}

#[test]
fn a_servers_bad_requests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("asks.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (stream, _) = listener.accept().unwrap();
            let asking = stream.try_clone().unwrap();
            // While the client waits for the answer to a reset, the server asks for memory.
            raw::serve(
                Raw::new(stream),
                |request| request.command == raw::RESET,
                |reset| {
                    let mut raw = Raw::new(asking.try_clone().unwrap());
                    let table: &[(u16, Vec<u8>, u32)] = &[
                        (raw::DMA_READ, longs(&[0x10_0000, 8]), 0),
                        (raw::DMA_READ, longs(&[0x10_0000]), INVAL),
                        (raw::DMA_READ, longs(&[0x10_0000, u64::MAX]), INVAL),
                        (raw::DMA_READ, longs(&[0x10_0000, 1 << 30]), INVAL),
                        (raw::DMA_READ, longs(&[0x10_0ff8, 16]), 14),
                        (raw::DMA_WRITE, longs(&[0x10_0000, 16, 1]), INVAL),
                        (raw::DMA_WRITE, longs(&[0x10_0000, 8, 1]), 0),
                        (raw::DMA_WRITE, longs(&[u64::MAX, 8, 1]), 14),
                        (raw::RESET, vec![], NOSYS),
                        (99, vec![1; 1000], NOSYS),
                    ];
                    for (command, body, error) in table {
                        assert_eq!(raw.refusal(*command, body, &[]), *error, "{command} {body:?}");
                    }
                    raw.send(&message(9, raw::DMA_WRITE, raw::NO_REPLY, 0, &longs(&[0x10_0010, 8, 42])));
                    Some(message(reset.id, raw::RESET, raw::REPLY, 0, &[]))
                },
            );
        });
        let mut function = Function::connect(&path, Options::default()).unwrap();
        let region = Region::on_heap(4096, Iova::new(0x10_0000)).unwrap();
        let words = region.array::<std::sync::atomic::AtomicU64>(3, 8).unwrap();
        function.map(&region).unwrap();
        function.reset().unwrap();
        assert_eq!(words[0].load(std::sync::atomic::Ordering::Acquire), 1);
        assert_eq!(words[2].load(std::sync::atomic::Ordering::Acquire), 42);
    });
}
