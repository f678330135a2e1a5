//! The device at the other end of a vfio-user socket, on a thread of its own and in real time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drivers::copy_engine::{CopyDevice, CopyEngine, EngineState};
use drivers::dsa::{self, Dsa};
use hugemem::{IovaSpace, MemoryRequest, PageChoice};
use models::WallClock;
use models::card::{self, Options};
use models::dsa as model;
use models::wire::Null;
use vfio::user::Function;
use vfio::user::server::Server;

use super::chip;
use crate::bench::{Count, Field, NAME, User};
use crate::common::Watchdog;

/// How long the server may take for an answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Far more than a loaded machine needs for anything here.
const AGES: Duration = Duration::from_secs(20);

/// A user, an engine, and what drives it, at both ends of a socket.
fn meet(message_dma: bool, work: impl FnOnce(&mut User, &mut Dsa<Function>, card::Served<model::Dsa>)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine");
    let chip = model::Dsa::new(chip(Vec::new()));
    let served = card::serve(Server::bind(&path).unwrap(), Options::named(NAME), chip, Null).unwrap();
    let options = vfio::user::Options { name: Some(NAME.to_owned()), timeout: TIMEOUT, message_dma };
    let function = Function::connect(&path, options).unwrap();
    let mut iovas = IovaSpace::unlimited();
    let mut region =
        |bytes| MemoryRequest { bytes, page: PageChoice::Size4K, node: None }.allocate(&mut iovas).unwrap().region;
    let config = dsa::Config { depth: 32, ..dsa::Config::default() };
    let (rings, data) = (region(config.ring_memory()), region(Field::BYTES + 4096));
    let mut engine = Dsa::open(function, Arc::new(WallClock::default()), &rings, config).unwrap();
    engine.map(&data).unwrap();
    work(&mut User::new(Field::new(data), 11), &mut engine, served);
}

#[test]
fn all_copies_arrive_over_a_socket_and_errors_are_mended() {
    let _watchdog = Watchdog::new("a socket".to_owned());
    for message_dma in [false, true] {
        meet(message_dma, |user, engine, served| {
            let (mut channel, _) = engine.start().unwrap().pop().unwrap();
            assert!(user.run(&mut channel, 300, std::thread::yield_now));
            assert_eq!(user.count, Count { copied: 300, ..Count::default() });
            served.control().with(|chip, _| chip.set_faults(&["error-page-fault@every:20".parse().unwrap()]));
            assert!(user.run(&mut channel, 300, std::thread::yield_now));
            let Count { copied, failed, wrong } = user.count;
            assert!(copied + failed == 600 && failed >= 10 && wrong == 0, "{:?}", user.count);
            assert_eq!(served.control().fault_count(), 0);
            served.control().with(|chip, _| chip.set_faults(&[]));
            engine.stop(vec![channel], &mut Vec::new()).unwrap();
            user.check_all("over a socket");
        });
    }
}

#[test]
fn a_server_that_hangs_up_is_an_engine_that_was_pulled_out() {
    let _watchdog = Watchdog::new("a server that hangs up".to_owned());
    meet(false, |user, engine, served| {
        let (mut channel, _) = engine.start().unwrap().pop().unwrap();
        assert!(user.run(&mut channel, 50, std::thread::yield_now));
        drop(served);
        let start = Instant::now();
        let mut done = Vec::with_capacity(64);
        while channel.state() != EngineState::Broken {
            user.push_any(&mut channel);
            channel.submit();
            channel.complete(&mut done);
            user.take(&done);
            done.clear();
            std::thread::yield_now();
            assert!(start.elapsed() < AGES, "nobody notices");
        }
        let error = engine.check().expect_err("it is gone").to_string();
        assert!(error.contains(NAME) && error.contains("does not answer"), "{error}");
        let mut back = Vec::new();
        assert!(engine.stop(vec![channel], &mut back).is_err());
        user.take(&back);
        assert_eq!((user.underway(), user.count.wrong), (0, 0));
    });
}
