//! VMMs that do what none would: each case ends as it should, and leaves nothing behind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use hugemem::Batch;

use super::Station;
use super::vmm::{
    MEMORY, Machine, NEED_REPLY, PLAIN, PROTOCOL, USER, VERSION_1, Vmm, eventfd, header, memfd, request, words32,
    words64,
};

/// Sends one message and hopes for the end.
fn ends(station: &mut Station, what: &str, bytes: &[u8], files: &[BorrowedFd<'_>], expected: &str) {
    let vmm = station.connect();
    assert!(vmm.bytes(bytes, files));
    assert!(vmm.is_closed(), "{what}");
    drop(vmm);
    let end = station.settle();
    assert!(end.contains(expected), "{what}: {end}");
}

#[test]
fn messages_that_cannot_be_end_the_session() {
    let mut station = Station::open(1);
    let event = eventfd();
    let many: Vec<OwnedFd> = (0..33).map(|_| event.try_clone().unwrap()).collect();
    let files: Vec<BorrowedFd<'_>> = many.iter().map(AsFd::as_fd).collect();
    station.mark();
    let whole = |number: u32, flags: u32, body: &[u8]| [header(number, flags, body.len()), body.to_vec()].concat();
    let nothing: &[BorrowedFd<'_>] = &[];
    let cases: &[(&str, Vec<u8>, &[BorrowedFd<'_>], &str)] = &[
        ("version 0", header(1, 0, 0), nothing, "version 0"),
        ("version 3", header(1, 3, 0), nothing, "version 3"),
        ("a reply to nothing", header(1, 5, 0), nothing, "flags 0x5"),
        ("unknown flags", header(1, 0x8000_0001, 0), nothing, "flags 0x80000001"),
        ("request 0", header(0, 1, 0), nothing, "request 0 is unknown"),
        ("request 45", header(45, 1, 0), nothing, "request 45 is unknown"),
        ("request 4294967295", header(u32::MAX, 1, 0), nothing, "is unknown"),
        ("4 GiB of features", header(2, 1, u32::MAX as usize), nothing, "SET_FEATURES cannot have a body"),
        ("7 bytes of features", header(2, 1, 7), nothing, "SET_FEATURES cannot have a body"),
        ("nine regions", header(5, 1, 8 + 9 * 32), nothing, "SET_MEM_TABLE cannot have a body"),
        ("a configuration of 4 KiB", header(24, 1, 4096 + 12), nothing, "GET_CONFIG cannot have a body"),
        ("nine descriptors", whole(5, 1, &words32(&[0, 0])), &files[..9], "more than 8 file descriptors"),
        ("33 descriptors", whole(1, 1, &[]), &files, "file descriptors"),
        ("one too many", header(1, 1, 0), &files[..1], "GET_FEATURES came with more than 0"),
        ("two kicks", whole(12, 1, &words64(&[0])), &files[..2], "SET_VRING_KICK came with more than 1"),
        ("postcopy", header(request::POSTCOPY_ADVISE, 1, 0), nothing, "POSTCOPY_ADVISE is for something"),
        (
            "regions without files",
            whole(5, 1, &[words32(&[1, 0]), words64(&[0; 4])].concat()),
            nothing,
            "1 regions came with 0",
        ),
        ("more regions than bytes", whole(5, 1, &words32(&[u32::MAX, 0])), nothing, "a number of regions"),
        ("slots not agreed on", whole(37, 9, &words64(&[0; 5])), &files[..1], "CONFIGURE_MEM_SLOTS"),
        ("translations not agreed on", whole(22, 1, &[0; 32]), nothing, "IOTLB_MSG needs"),
        ("features not offered", whole(2, 1, &words64(&[1 << 63])), nothing, "0x8000000000000000 were not offered"),
        ("queue 200", whole(request::SET_VRING_NUM, 1, &words32(&[200, 8])), nothing, "there is no queue 200"),
        ("queue 4294967295", whole(request::GET_VRING_BASE, 1, &words32(&[u32::MAX, 0])), nothing, "there is no queue"),
        ("a kick that is none", whole(12, 1, &words64(&[1])), nothing, "came without its file descriptor"),
        ("a strange queue number", whole(12, 1, &words64(&[1 << 40])), nothing, "a queue of"),
    ];
    for (what, bytes, files, expected) in cases {
        ends(&mut station, what, bytes, files, expected);
    }
    station.serves();
    assert_eq!(station.statistic("vm_disconnects_breach"), cases.len() as u64);
    station.close();
}

#[test]
fn a_peer_that_wants_to_hear_is_refused_and_goes_on() {
    let mut station = Station::open(1);
    let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let folder = std::fs::File::open("/tmp").unwrap();
    let (event, short) = (eventfd(), memfd(4096));
    station.mark();
    let machine = station.machine();
    let vmm = &machine.vmm;
    let steps = machine.steps(0);
    let table = steps.iter().position(|step| step.0 == request::SET_MEM_TABLE).unwrap();
    assert!(steps[..table].iter().all(|step| machine.play(step)));

    let region = |guest, size, user, offset| [words32(&[1, 0]), words64(&[guest, size, user, offset])].concat();
    for (what, body, file) in [
        ("an eventfd", machine.table(), event.as_fd()),
        ("a socket", machine.table(), socket.as_fd()),
        ("/dev/zero", machine.table(), zero.as_fd()),
        ("a folder", machine.table(), folder.as_fd()),
        ("a file that is too short", machine.table(), short.as_fd()),
        ("no bytes", region(0, 0, USER, 0), machine.memory.as_fd()),
        ("the end of all addresses", region(u64::MAX - 0xfff, MEMORY, USER, 0), machine.memory.as_fd()),
        ("the end of the VMM's addresses", region(0, MEMORY, u64::MAX - 0xfff, 0), machine.memory.as_fd()),
        ("the end of all files", region(0, MEMORY, USER, u64::MAX - 0xfff), machine.memory.as_fd()),
        ("an offset behind the file", region(0, MEMORY, USER, MEMORY), machine.memory.as_fd()),
    ] {
        assert_eq!(vmm.tell(request::SET_MEM_TABLE, &body, &[file]), Some(1), "{what}");
    }
    let overlapping =
        [words32(&[2, 0]), words64(&[0, MEMORY, USER, 0, MEMORY - 4096, MEMORY, USER + MEMORY, 0])].concat();
    let both = [machine.memory.as_fd(), machine.memory.as_fd()];
    assert_eq!(vmm.tell(request::SET_MEM_TABLE, &overlapping, &both), Some(1));
    assert_eq!(station.statistic("vm_memory_regions"), 0, "nothing was mapped by any of them");

    assert!(steps[table..=table + 1].iter().all(|step| machine.play(step)));
    for size in [0, 3, 12, 32769, 65536, 65544, u32::MAX] {
        assert_eq!(vmm.tell(request::SET_VRING_NUM, &words32(&[0, size]), &[]), Some(1), "{size}");
    }
    assert_eq!(vmm.tell(request::SET_VRING_BASE, &words32(&[0, 65536]), &[]), Some(1));
    let addresses = |flags, descriptors, used, available| {
        [words32(&[0, flags]), words64(&[descriptors, used, available, 0])].concat()
    };
    for (what, body) in [
        ("flags", addresses(2, USER, USER, USER)),
        ("descriptors", addresses(0, USER + 8, USER, USER)),
        ("used", addresses(0, USER, USER + 2, USER)),
        ("available", addresses(0, USER, USER, USER + 1)),
    ] {
        assert_eq!(vmm.tell(request::SET_VRING_ADDR, &body, &[]), Some(1), "{what}");
    }
    // A ring that lies elsewhere cannot start.
    assert_eq!(vmm.tell(request::SET_VRING_NUM, &words32(&[0, 8]), &[]), Some(0));
    for at in [0, USER + MEMORY, USER + MEMORY - 64, u64::MAX - 0xf] {
        assert_eq!(vmm.tell(request::SET_VRING_ADDR, &addresses(0, at, USER, USER), &[]), Some(0));
        assert_eq!(vmm.tell(request::SET_VRING_KICK, &words64(&[0]), &[event.as_fd()]), Some(1), "{at:#x}");
    }
    for (number, file) in [
        (request::SET_VRING_KICK, socket.as_fd()),
        (request::SET_VRING_CALL, zero.as_fd()),
        (request::SET_VRING_ERR, machine.memory.as_fd()),
    ] {
        assert_eq!(vmm.tell(number, &words64(&[1]), &[file]), Some(1));
    }
    assert_eq!(vmm.tell(request::SET_VRING_ENABLE, &words32(&[0, 2]), &[]), Some(1));
    assert_eq!(vmm.tell(request::SET_VRING_ENABLE, &words32(&[2, 1]), &[]), Some(1));
    assert_eq!(vmm.tell(request::SET_BACKEND_REQ_FD, &[], &[event.as_fd()]), Some(1));

    // After all that it works.
    assert!(steps[table..].iter().all(|step| machine.play(step)));
    assert_eq!(vmm.tell(request::SET_OWNER, &[], &[]), Some(0));
    assert!(station.port.control.link().up);
    // And now its geometry is frozen.
    for (number, body) in [
        (request::SET_VRING_NUM, words32(&[1, 4])),
        (request::SET_VRING_BASE, words32(&[1, 4])),
        (request::SET_VRING_ADDR, [words32(&[1, 0]), words64(&[USER, USER, USER, 0])].concat()),
        (request::SET_FEATURES, words64(&[VERSION_1 | PROTOCOL | 1])),
    ] {
        assert_eq!(vmm.tell(number, &body, &[]), Some(1), "{number}");
    }
    assert!(station.port.control.link().up);
    drop(steps);
    drop(machine);
    assert!(station.settle().contains("closed"));
    station.close();
}

#[test]
fn memory_that_is_cut_off_ends_the_session() {
    let mut station = Station::open(1);
    let machine = station.machine();
    machine.set_up(0);
    machine.transmit(1, 800);
    machine.memory.set_len(0).unwrap();
    let mut batch = Batch::new(8);
    // The engine's poll runs into it.
    station.wait("the session ends", |station| {
        station.port.queues[0].rx.receive(&mut batch);
        batch.clear();
        station.statistic("vm_disconnects_memory_lost") == 1
    });
    assert!(machine.vmm.is_closed());
    drop(machine);
    assert!(station.settle().contains("took memory of its guest away"));
    station.serves();
    station.close();
}

#[test]
fn an_in_flight_region_that_is_cut_off_ends_the_session() {
    const LENGTH: u64 = 12288;
    let mut station = Station::open(1);
    let region = memfd(LENGTH);
    station.mark();
    let machine = station.machine();
    let steps = machine.steps(0);
    let table = steps.iter().position(|step| step.0 == request::SET_MEM_TABLE).unwrap();
    assert!(steps[..=table].iter().all(|step| machine.play(step)));
    // Two queues of 256 descriptors.
    let shape = [words64(&[LENGTH, 0]), words32(&[2 | 256 << 16, 0])].concat();
    assert_eq!(machine.vmm.tell(request::SET_INFLIGHT_FD, &shape, &[region.as_fd()]), Some(0));
    assert!(steps[table + 1..].iter().all(|step| machine.play(step)));
    assert_eq!(machine.vmm.tell(request::SET_OWNER, &[], &[]), Some(0));
    machine.transmit(1, 800);
    region.set_len(0).unwrap();
    let mut batch = Batch::new(8);
    station.wait("the session ends", |station| {
        station.port.queues[0].rx.receive(&mut batch);
        batch.clear();
        station.statistic("vm_disconnects_memory_lost") == 1
    });
    assert!(machine.vmm.is_closed());
    drop(steps);
    drop(machine);
    station.settle();
    station.serves();
    station.close();
}

#[test]
fn a_driver_of_before_virtio_1_is_refused() {
    let mut station = Station::open(1);
    let machine = station.machine();
    let steps = machine.steps(0);
    let (request, body, files) = steps.iter().find(|step| step.0 == request::SET_VRING_KICK).unwrap();
    for step in steps.iter().take_while(|step| step.0 != *request) {
        if step.0 == request::SET_FEATURES {
            assert_eq!(machine.vmm.tell(step.0, &words64(&[PROTOCOL]), &[]), Some(0));
        } else {
            assert!(machine.play(step));
        }
    }
    assert_eq!(machine.vmm.tell(*request, body, files), Some(1), "its frames would be shifted");
    assert!(machine.vmm.send(*request, PLAIN, body, files));
    assert!(machine.vmm.is_closed());
    drop(steps);
    drop(machine);
    let end = station.settle();
    assert!(end.contains("VIRTIO_F_VERSION_1"), "{end}");
    station.close();
}

#[test]
fn peers_that_stall_are_let_go() {
    let mut station = Station::open(1);
    // In the middle of a header, and of a body.
    for bytes in [header(2, 1, 8)[..5].to_vec(), [header(2, 1, 8), vec![0; 3]].concat()] {
        let vmm = station.connect();
        assert!(vmm.bytes(&bytes, &[]));
        assert!(vmm.is_closed());
        drop(vmm);
        let end = station.settle();
        assert!(end.contains("did not finish it within 5 s"), "{end}");
    }
    // Asks and does not read.
    let vmm = station.connect();
    vmm.flood(&header(request::GET_FEATURES, PLAIN, 0).repeat(64));
    station.wait("it is let go", |station| station.statistic("vm_disconnects_stalled") == 3);
    drop(vmm);
    assert!(station.settle().contains("does not read"));
    station.serves();
    station.close();
}

#[test]
fn others_wait_for_their_turn_and_a_port_stops_at_any_time() {
    let mut station = Station::open(1);
    let machine = station.machine();
    machine.set_up(0);
    let second = station.connect();
    assert!(second.send(request::GET_FEATURES, PLAIN, &[], &[]));
    second.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut byte = [0; 1];
    assert!(std::io::Read::read(&mut &second.socket, &mut byte).is_err(), "one at a time");
    second.socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    drop(machine);
    assert!(second.receive().is_some(), "its turn has come");
    drop(second);
    station.settle();
    // With a session, half a message, and answers that nobody reads.
    let machine = station.machine();
    machine.set_up(0);
    machine.vmm.flood(&header(request::GET_FEATURES, PLAIN, 0).repeat(64));
    station.close();
    assert!(machine.vmm.is_closed());
}

/// A generator of numbers that repeats itself: xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

#[test]
fn nonsense_of_all_kinds_leaves_nothing_behind() {
    let mut station = Station::open(2);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut batch = Batch::new(32);
    for round in 0..150 {
        let machine = station.machine();
        let steps = machine.steps(if round % 2 == 0 { 0 } else { super::vmm::PACKED });
        let strange = [machine.memory.as_fd(), machine.kicks[0].as_fd(), machine.vmm.socket.as_fd()];
        // A good beginning, then messages with bits turned, swapped, cut, or made up.
        let good = random.below(steps.len() + 1);
        if !steps[..good].iter().all(|step| machine.play(step)) {
            panic!("a good beginning");
        }
        for _ in 0..random.below(20) {
            let (number, body, files) = &steps[random.below(steps.len())];
            let (mut number, mut body, mut files) = (*number, body.clone(), files.clone());
            match random.below(5) {
                0 => number = u32::try_from(random.below(48)).unwrap(),
                1 => files = strange[..random.below(4)].to_vec(),
                2 => body = (0..random.below(64)).map(|_| random.next().to_le_bytes()[0]).collect(),
                _ => {}
            }
            if !body.is_empty() && random.below(2) == 0 {
                let place = random.below(body.len());
                body[place] ^= 1 << random.below(8);
            }
            let flags = if random.below(2) == 0 { NEED_REPLY } else { PLAIN };
            let mut bytes = header(number, flags, body.len());
            bytes.extend(&body);
            if random.below(8) == 0 {
                bytes.truncate(random.below(bytes.len()));
            }
            if bytes.is_empty() || !machine.vmm.bytes(&bytes, &files) {
                break;
            }
            for queue in &mut station.port.queues {
                queue.rx.receive(&mut batch);
                batch.clear();
            }
        }
        drop(steps);
        drop(machine);
        station.settle();
    }
    station.serves();
    station.close();
}

#[test]
fn a_bystander_notices_nothing() {
    let mut station = Station::open(1);
    let path = station.path.with_file_name("bystander.sock");
    let spec = dataplane::port::VhostUserSpec { client: false, ..dataplane::port::VhostUserSpec::new(&path) };
    let mut other = dataplane::port::vhost_user::open("vm1", &spec).unwrap();
    let neighbour = Machine::connect(&path, 2);
    neighbour.set_up(0);
    // One that never reads and one that never finishes do not keep others waiting.
    let (mute, slow): (Vmm, _) = (station.connect(), header(5, 1, 40));
    mute.flood(&header(request::GET_FEATURES, PLAIN, 0).repeat(64));
    mute.bytes(&slow, &[]);
    for _ in 0..1000 {
        assert!(neighbour.vmm.ask(request::GET_FEATURES, &[]).is_some());
    }
    assert!(other.control.link().up);
    drop(mute);
    drop(neighbour);
    other.control.stop(std::mem::take(&mut other.queues)).unwrap();
    drop(other);
    station.wait("it is let go", |station| !station.port.control.describe().contains(" peer "));
    station.close();
}
