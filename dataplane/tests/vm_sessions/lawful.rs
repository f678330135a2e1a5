//! VMMs that do what the specification says.

use std::os::fd::AsFd;
use std::time::Duration;

use hugemem::Batch;

use super::Station;
use super::vmm::{
    ACCESS_PLATFORM, LOG_ALL, MEMORY, Machine, NEED_REPLY, PACKED, PLAIN, PROTOCOL, USER, VERSION_1, eventfd, layout,
    memfd, request, words32, words64,
};

#[test]
fn a_session_brings_the_link_up_and_its_end_takes_it_down() {
    let mut station = Station::open(2);
    for features in [0, PACKED] {
        let machine = station.machine();
        machine.set_up(features);
        station.wait("the link comes up", |station| station.port.control.link().up);
        let text = station.port.control.describe();
        let ring = if features == 0 { "ring split" } else { "ring packed" };
        assert!(text.contains("mtu 9000 state UP") && text.contains(ring) && text.contains("active 2"), "{text}");
        assert!(text.contains(&format!("peer {}", std::process::id())), "{text}");
        drop(machine);
        assert!(station.settle().contains("closed the connection"));
        assert!(!station.port.control.link().up);
    }
    station.close();
}

#[test]
fn peers_that_leave_at_any_moment_leave_nothing_behind() {
    let mut station = Station::open(1);
    let count = station.machine().steps(0).len();
    station.settle();
    for last in 0..=count {
        for cut in [0, 4, 12, 15] {
            let machine = station.machine();
            let steps = machine.steps(if last % 2 == 0 { 0 } else { PACKED });
            for step in steps.iter().take(last) {
                assert!(machine.play(step));
            }
            let Some((number, body, files)) = steps.get(last) else { continue };
            let mut bytes = super::vmm::header(*number, PLAIN, body.len());
            bytes.extend(body);
            if bytes.len() > cut {
                assert!(machine.vmm.bytes(&bytes[..cut], if cut > 0 { files } else { &[] }));
            }
            drop(steps);
            drop(machine);
            station.settle();
        }
    }
    station.serves();
    station.close();
}

#[test]
fn a_ring_that_is_stopped_waits_for_its_frames_and_says_where_it_stands() {
    let mut station = Station::open(1);
    let machine = station.machine();
    machine.set_up(0);
    machine.transmit(1, 500);
    let mut batch = Batch::new(8);
    station.wait("the frame arrives", |station| station.port.queues[0].rx.receive(&mut batch) == 1);
    // It hangs in the VM's memory, and so the ring cannot stop yet.
    assert!(machine.vmm.send(request::GET_VRING_BASE, PLAIN, &words32(&[1, 0]), &[]));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(machine.used(1), 0);
    drop(batch);
    let answer = machine.vmm.receive().unwrap();
    assert_eq!((answer.request, answer.body), (request::GET_VRING_BASE, words32(&[1, 1])));
    assert_eq!(machine.used(1), 1, "given back before the answer");
    assert_eq!(station.statistic("vm_leaked_mappings"), 0);
    // It goes on where it was.
    for (number, body, file) in [
        (request::SET_VRING_BASE, words32(&[1, 1]), None),
        (request::SET_VRING_KICK, words64(&[1]), Some(machine.kicks[1].as_fd())),
    ] {
        assert_eq!(machine.vmm.tell(number, &body, file.as_slice()), Some(0));
    }
    assert!(station.port.control.link().up);
    drop(machine);
    station.settle();
    station.close();
}

#[test]
fn regions_come_and_go_while_rings_run() {
    let mut station = Station::open(1);
    let machine = station.machine();
    machine.set_up(0);
    let (more, slot) = (memfd(MEMORY), |guest: u64, user: u64| words64(&[0, guest, MEMORY, user, 0]));
    let vmm = &machine.vmm;
    let high = slot(1 << 30, USER + (1 << 30));
    assert_eq!(vmm.tell(request::ADD_MEM_REG, &high, &[more.as_fd()]), Some(0));
    station.wait("two regions", |station| station.statistic("vm_memory_regions") == 2);
    assert_eq!(vmm.tell(request::ADD_MEM_REG, &high, &[more.as_fd()]), Some(1), "there is one already");
    assert_eq!(vmm.tell(request::REM_MEM_REG, &high, &[]), Some(0));
    assert_eq!(vmm.tell(request::REM_MEM_REG, &high, &[]), Some(1), "it is gone");
    // VMMs exchange regions in pieces: meanwhile the rings have nowhere to be, and wait.
    let low = slot(0, USER);
    assert_eq!(vmm.tell(request::REM_MEM_REG, &low, &[]), Some(0));
    assert_eq!(vmm.tell(request::ADD_MEM_REG, &low, &[machine.memory.as_fd()]), Some(0));
    machine.transmit(1, 100);
    let mut batch = Batch::new(8);
    station.wait("a frame arrives", |station| station.port.queues[0].rx.receive(&mut batch) == 1);
    drop(batch);
    // The whole table anew.
    assert_eq!(vmm.tell(request::SET_MEM_TABLE, &machine.table(), &[machine.memory.as_fd()]), Some(0));
    assert!(station.port.control.link().up);
    drop((machine, more));
    station.settle();
    station.close();
}

#[test]
fn requests_are_answered_as_specified() {
    let mut station = Station::open(4);
    let machine = station.machine();
    machine.set_up(0);
    let vmm = &machine.vmm;
    assert_eq!(vmm.ask(request::GET_QUEUE_NUM, &[]).unwrap().number(), 8);
    let offered = vmm.ask(request::GET_FEATURES, &[]).unwrap().number();
    assert_eq!(offered & (VERSION_1 | PACKED | PROTOCOL | LOG_ALL), VERSION_1 | PACKED | PROTOCOL | LOG_ALL);
    // Configuration: status, pairs and the MTU that the setup told.
    let mut read = words32(&[6, 6, 0]);
    read.extend([0; 6]);
    let answer = vmm.ask(request::GET_CONFIG, &read).unwrap().body;
    assert_eq!(answer[12..], [1, 0, 4, 0, 0x28, 0x23]);
    assert!(vmm.ask(request::GET_CONFIG, &words32(&[256, 4, 0])).unwrap().body.is_empty(), "beyond the end");
    assert_eq!(vmm.tell(request::SET_CONFIG, &words32(&[0, 0, 0]), &[]), Some(1), "there is nothing to write");
    assert_eq!(vmm.tell(request::SET_STATUS, &words64(&[15]), &[]), Some(0));
    assert_eq!(vmm.ask(request::GET_STATUS, &[]).unwrap().number(), 15);
    assert_eq!(vmm.tell(request::NET_SET_MTU, &words64(&[67]), &[]), Some(1));
    assert_eq!(vmm.tell(request::RESET_OWNER, &[], &[]), Some(0));
    assert!(!station.port.control.link().up, "rings are disabled");
    let log = memfd(4096);
    assert!(vmm.send(request::SET_LOG_BASE, PLAIN, &words64(&[4096, 0]), &[log.as_fd()]));
    assert_eq!(vmm.receive().unwrap().request, request::SET_LOG_BASE);
    assert_eq!(vmm.tell(request::SET_LOG_FD, &[], &[eventfd().as_fd()]), Some(0));
    // Migration begins while rings run.
    assert_eq!(vmm.tell(request::SET_FEATURES, &words64(&[VERSION_1 | PROTOCOL | LOG_ALL]), &[]), Some(0));
    assert_eq!(vmm.tell(request::SET_FEATURES, &words64(&[VERSION_1]), &[]), Some(1), "nothing else may change");
    // In-flight regions.
    let mut shape = words64(&[0, 0]);
    shape.extend([8, 0, 8, 0, 0, 0, 0, 0]);
    let answer = vmm.ask(request::GET_INFLIGHT_FD, &shape).unwrap();
    let file = answer.file.unwrap();
    assert_eq!(vmm.tell(request::SET_INFLIGHT_FD, &answer.body, &[file.as_fd()]), Some(1), "rings run");
    assert_eq!(vmm.tell(request::RESET_DEVICE, &[], &[]), Some(0));
    assert_eq!(vmm.tell(request::SET_INFLIGHT_FD, &answer.body, &[file.as_fd()]), Some(0));
    assert_eq!(vmm.tell(request::SET_FEATURES, &words64(&[VERSION_1 | PACKED | PROTOCOL]), &[]), Some(0));
    drop((machine, log, file));
    station.settle();
    station.close();
}

#[test]
fn a_guest_is_announced_in_its_own_name() {
    let mut station = Station::open(1);
    let machine = station.machine();
    machine.set_up(0);
    assert_eq!(machine.vmm.tell(request::SEND_RARP, &[2, 0, 0, 0, 0, 9, 0, 0], &[]), Some(0));
    let mut batch = Batch::new(8);
    station.wait("it is announced", |station| station.port.queues[0].rx.receive(&mut batch) == 1);
    let frame: Vec<u8> = batch.as_slice()[0].bytes().to_vec();
    assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 0x80, 0x35]);
    drop(machine);
    station.settle();
    station.close();
}

#[test]
fn translations_are_asked_for_and_rings_wait_for_them() {
    let mut station = Station::open(1);
    let machine = station.machine();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let back = super::vmm::Vmm { socket: ours };
    back.socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    for step in machine.steps(ACCESS_PLATFORM) {
        if step.0 == request::SET_MEM_TABLE {
            assert_eq!(machine.vmm.tell(request::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]), Some(0));
        }
        assert!(machine.play(&step));
    }
    drop(theirs);
    assert_eq!(machine.vmm.tell(request::SET_OWNER, &[], &[]), Some(0));
    assert!(!station.port.control.link().up, "nobody knows where the rings are");
    // Here I/O virtual addresses are those of the VMM.
    let mut translated = 0;
    while !station.port.control.link().up {
        let miss = back.receive().unwrap();
        assert_eq!((miss.request, miss.body.len()), (1, 32));
        let iova = u64::from_ne_bytes(miss.body[..8].try_into().unwrap());
        assert_eq!(miss.body[25], 1, "a miss");
        let mut update = words64(&[iova & !0xfff, 0x1000, iova & !0xfff]);
        update.extend([3, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(machine.vmm.tell(request::IOTLB_MSG, &update, &[]), Some(0));
        translated += 1;
        assert!(translated < 20);
    }
    let [descriptors, ..] = layout(1);
    let mut invalidate = words64(&[USER + descriptors, 0x1000, 0]);
    invalidate.extend([0, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(machine.vmm.tell(request::IOTLB_MSG, &invalidate, &[]), Some(0));
    assert_eq!(back.receive().unwrap().request, 1, "asked for anew");
    drop((machine, back));
    station.settle();
    station.close();
}

#[test]
fn a_peer_without_protocol_features_needs_not_enable_anything() {
    let mut station = Station::open(1);
    let machine = station.machine();
    for step in machine.steps(0) {
        let unknown = [
            request::GET_PROTOCOL_FEATURES,
            request::SET_PROTOCOL_FEATURES,
            request::GET_QUEUE_NUM,
            request::GET_MAX_MEM_SLOTS,
            request::NET_SET_MTU,
            request::SET_VRING_ENABLE,
        ];
        if step.0 == request::SET_FEATURES {
            assert!(machine.vmm.send(step.0, PLAIN, &words64(&[VERSION_1]), &[]));
        } else if !unknown.contains(&step.0) {
            assert!(machine.play(&step));
        }
    }
    station.wait("the link comes up", |station| station.port.control.link().up);
    // Nor does it hear of errors: what cannot be ends its session.
    assert!(machine.vmm.send(request::SET_VRING_NUM, NEED_REPLY, &words32(&[0, 3]), &[]));
    assert!(machine.vmm.is_closed());
    drop(machine);
    assert!(station.settle().contains("queue 0"));
    station.close();
}

#[test]
fn a_port_connects_to_vmms_that_come_and_go() {
    let mut station = Station::open(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vmm.sock");
    let spec = dataplane::port::VhostUserSpec::new(&path);
    let mut port = dataplane::port::vhost_user::open("vm1", &spec).unwrap();
    for _ in 0..3 {
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for _ in 0..2 {
            let (socket, _) = listener.accept().unwrap();
            let events = || vec![eventfd(), eventfd()];
            let machine =
                Machine { vmm: super::vmm::Vmm { socket }, memory: memfd(MEMORY), kicks: events(), calls: events() };
            machine.set_up(0);
            assert!(port.control.link().up);
        }
        drop(listener);
        std::fs::remove_file(&path).unwrap();
    }
    port.control.stop(std::mem::take(&mut port.queues)).unwrap();
    drop(port);
    station.serves();
    station.close();
}

#[test]
fn a_live_listener_is_left_alone_and_a_dead_one_replaced() {
    let station = Station::open(1);
    let mut spec = dataplane::port::VhostUserSpec::new(&station.path);
    spec.client = false;
    let error = dataplane::port::vhost_user::open("vm1", &spec).unwrap_err().to_string();
    assert!(error.contains("port `vm1`: another process listens on"), "{error}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&station.path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    let path = station.path.with_file_name("old.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    spec.socket.clone_from(&path);
    let mut port = dataplane::port::vhost_user::open("vm1", &spec).unwrap();
    port.control.stop(std::mem::take(&mut port.queues)).unwrap();
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let error = dataplane::port::vhost_user::open("vm1", &spec).unwrap_err().to_string();
    assert!(error.contains("is no socket") && path.exists(), "{error}");
    drop(port);
    station.close();
}
