//! Signals to hostile eventfds, and from exchanged ones.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn eventfd(initial: u32) -> OwnedFd {
    rustix::event::eventfd(initial, EventfdFlags::CLOEXEC).unwrap()
}

fn counter(file: &impl AsFd) -> u64 {
    let mut bytes = [0; 8];
    assert_eq!(rustix::io::read(file, &mut bytes), Ok(8));
    u64::from_ne_bytes(bytes)
}

fn readable(file: &impl AsFd) -> bool {
    let mut ready = [rustix::event::PollFd::new(file, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut ready, Some(&now)) == Ok(1)
}

#[test]
fn a_call_adds_one_to_the_counter_each_time_and_its_ring_never_fills() {
    let eventfd = eventfd(0);
    let call = Call::new(eventfd.try_clone().unwrap(), Notifier::new().unwrap()).unwrap();
    let rounds = u64::from(EVENTS) * 100;
    assert!((0..rounds).all(|_| call.signal()));
    assert_eq!(counter(&eventfd), rounds);
}

#[test]
fn a_full_eventfd_that_blocks_writers_does_not_block_a_call() {
    let eventfd = eventfd(0);
    rustix::io::write(&eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    assert!(!rustix::fs::fcntl_getfl(&eventfd).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
    let call = Call::new(eventfd.try_clone().unwrap(), Notifier::new().unwrap()).unwrap();
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send((0..100).all(|_| call.signal())));
    let limit = std::time::Duration::from_secs(60);
    assert_eq!(finished.recv_timeout(limit), Ok(true), "the thread is not stuck");
    assert_eq!(counter(&eventfd), u64::MAX, "full, and the peer is awake");
}

#[test]
fn threads_share_a_context() {
    let notifier = Notifier::new().unwrap();
    let eventfds: Vec<_> = (0..4).map(|_| eventfd(0)).collect();
    std::thread::scope(|scope| {
        for eventfd in &eventfds {
            let call = Call::new(eventfd.try_clone().unwrap(), Arc::clone(&notifier)).unwrap();
            scope.spawn(move || {
                let mut sent = 0;
                while sent < 5000 {
                    sent += u32::from(call.signal());
                }
            });
        }
    });
    assert!(eventfds.iter().all(|eventfd| counter(eventfd) == 5000));
}

#[test]
fn what_is_no_eventfd_is_refused_by_name() {
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let error = Call::new(socket.into(), Notifier::new().unwrap()).unwrap_err().to_string();
    assert!(error.contains("socket") && error.contains("not an eventfd"), "{error}");
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let error = Kick::new().unwrap().set(Some(pipe)).unwrap_err().to_string();
    assert!(error.contains("pipe"), "{error}");
}

#[test]
fn a_system_without_contexts_is_told_which_limit_to_raise() {
    let error = NotifyError::Context { source: io::Error::from_raw_os_error(libc::EAGAIN) }.to_string();
    assert!(error.contains("fs.aio-max-nr"), "{error}");
}

#[test]
fn a_kick_is_an_edge_that_is_consumed_without_reading_the_eventfd() {
    let mut kick = Kick::new().unwrap();
    let wake = kick.wake();
    let (first, second) = (eventfd(0), eventfd(0));
    kick.set(Some(first.try_clone().unwrap())).unwrap();
    assert!(!readable(&wake));
    for _ in 0..2 {
        rustix::io::write(&first, &1_u64.to_ne_bytes()).unwrap();
        assert!(readable(&wake));
        wake.consume();
        assert!(!readable(&wake), "the counter is still above zero, and that is no edge");
    }
    kick.set(Some(second.try_clone().unwrap())).unwrap();
    rustix::io::write(&first, &1_u64.to_ne_bytes()).unwrap();
    assert!(!readable(&wake), "the first eventfd is let go, though the peer still has it");
    rustix::io::write(&second, &1_u64.to_ne_bytes()).unwrap();
    assert!(readable(&wake));
    wake.consume();
    kick.set(None).unwrap();
    rustix::io::write(&second, &1_u64.to_ne_bytes()).unwrap();
    assert!(!readable(&wake));
    kick.nudge();
    assert!(readable(&wake));
    wake.consume();
    assert!(!readable(&wake));
}
