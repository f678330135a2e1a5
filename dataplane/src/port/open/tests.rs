#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::port::{PortControl, PortKind, PortQueue, Supply};
use drivers::nic::Offloads;
use hugemem::{Batch, Region};

fn specs(texts: &[&str]) -> Vec<NamedSpec> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn names_are_unlike_each_other() {
    let specs = specs(&["gen=1", "tap=gen1", "gen=2", "null", "00:03.0", "pcap=a", "null"]);
    let names = names::names(&specs, [].iter()).unwrap();
    assert_eq!(names, ["gen0", "gen1", "gen2", "null0", "0000:00:03.0", "pcap0", "null1"]);
}

#[test]
fn names_that_are_given_come_first_and_only_once() {
    let there = ["null0".to_owned(), "vm".to_owned()];
    let named = |texts: &[&str]| names::names(&specs(texts), there.iter()).map_err(|error| error.to_string());
    assert_eq!(named(&["null", "null,name=null1", "vhost-user=/x"]).unwrap(), ["null2", "null1", "vhost-user0"]);
    for texts in [&["null,name=vm"][..], &["tap=a", "null,name=a"], &["tap=vm"]] {
        let error = named(texts).unwrap_err();
        assert!(error.contains("already; give this one another name with name="), "{error}");
    }
}

#[test]
fn what_is_named_twice_is_refused() {
    for (pair, what) in [
        (
            ["tap=a", "tap=a,queues=2,name=b"],
            "port `b` uses tap interface a, which another port uses already; name it once",
        ),
        (
            ["00:03.0,name=a", "0000:00:03.0"],
            "port `0000:00:03.0` uses device 0000:00:03.0, which another port uses already; name it once",
        ),
        (
            ["pcap=a,out=x", "pcap=b,out=x"],
            "port `pcap1` uses output file x, which another port uses already; name it once",
        ),
    ] {
        let error = Ports::open(&specs(&pair), &MemoryOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), what);
    }
}

#[test]
fn too_little_memory_is_said_with_what_would_do() {
    let options = MemoryOptions { bytes: 3 << 20, ..MemoryOptions::default() };
    let error = Ports::open(&specs(&["gen=1,queues=2", "null"]), &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "3M of packet memory do not suffice: these ports need 5M (`gen0` 5M); give `--memory 5M` or more"
    );
}

#[test]
fn ports_without_queues_of_their_own_get_as_many_as_the_other_has() {
    let options = MemoryOptions { page: PageChoice::Size4K, ..MemoryOptions::default() };
    let ports = Ports::open(&specs(&["gen=1,queues=3", "null", "gen=1", "gen=max"]), &options).unwrap();
    let queues: Vec<usize> = ports.iter().map(|port| port.queues.len()).collect();
    assert_eq!(queues, [3, 3, 1, 1]);
    let kinds: Vec<PortKind> = ports.iter().map(|port| port.kind).collect();
    assert_eq!(kinds, [PortKind::Generator, PortKind::Null, PortKind::Generator, PortKind::Generator]);
}

#[test]
fn a_generator_is_forwarded_to_its_sink() {
    let options = MemoryOptions { page: PageChoice::Size4K, ..MemoryOptions::default() };
    let mut ports = Ports::open(&specs(&["gen=max,count=5000,size=60-1514", "gen=max,count=1"]), &options).unwrap();
    let mut right = ports.pop().unwrap();
    let mut left = ports.pop().unwrap();
    let mut batch = Batch::new(64);
    while left.control.supply() == Supply::Remaining {
        left.queues[0].rx.receive(&mut batch);
        right.queues[0].tx.transmit(&mut batch);
    }
    let report = right.control.generator().unwrap();
    assert_eq!((report.received, report.lost, report.corrupt), (5_000, 0, 0));
    for port in [left, right] {
        let Port { mut control, queues, .. } = port;
        control.stop(queues).unwrap();
    }
}

/// A port that can do what it is told to.
fn fake(name: &str, offloads: Offloads) -> Port {
    struct Fake(Offloads);
    impl PortControl for Fake {
        fn link(&mut self) -> drivers::nic::LinkStatus {
            drivers::nic::LinkStatus::default()
        }
        fn offloads(&self) -> Offloads {
            self.0
        }
        fn describe(&mut self) -> String {
            String::new()
        }
        fn stop(&mut self, _queues: Vec<PortQueue>) -> Result<(), PortError> {
            Ok(())
        }
    }
    let control = Box::new(Fake(offloads));
    Port { name: name.into(), kind: PortKind::Nic, mac: None, queues: Vec::new(), control, notices: Vec::new() }
}

#[test]
fn devices_that_cannot_send_what_they_may_receive_are_pointed_out() {
    let all = Offloads::all();
    let mut ports = [fake("a", all), fake("b", all - Offloads::TSO6), fake("c", all), fake("d", all)];
    join(&mut ports).unwrap();
    let counts = ports.each_ref().map(|port| port.notices.len());
    assert_eq!(counts, [1, 0, 0, 0]);
    let expected = "port `a` may receive large segments (lro6) that port `b` cannot send; ";
    assert!(ports[0].notices[0].starts_with(expected), "{}", ports[0].notices[0]);
}

/// A port on a device that keeps record of what it reaches.
#[derive(Default)]
struct Card {
    reached: Vec<u64>,
    /// It takes no memory.
    refuses: bool,
    /// It lets go of none.
    keeps: bool,
    /// How often it was asked to.
    asked: usize,
}

impl PortControl for Card {
    fn link(&mut self) -> drivers::nic::LinkStatus {
        drivers::nic::LinkStatus::default()
    }
    fn offloads(&self) -> Offloads {
        Offloads::empty()
    }
    fn describe(&mut self) -> String {
        String::new()
    }
    fn map(&mut self, region: &Region) -> Result<(), PortError> {
        if self.refuses {
            return Err(PortError::Device { port: "card".into(), reason: "no room".into() });
        }
        self.reached.push(region.id());
        Ok(())
    }
    fn unmap(&mut self, region: &Region) -> Result<(), PortError> {
        self.asked += 1;
        if self.keeps {
            return Err(PortError::Device { port: "card".into(), reason: "it is in use".into() });
        }
        self.reached.retain(|id| *id != region.id());
        Ok(())
    }
    fn stop(&mut self, _queues: Vec<PortQueue>) -> Result<(), PortError> {
        Ok(())
    }
}

/// Opens a port that will get packets of `others`.
fn open_late<'a>(opener: &mut Opener, spec: &'a NamedSpec, others: &[String]) -> Result<Port, PortError> {
    let name = opener.claim(std::slice::from_ref(spec))?.remove(0);
    let opened = Opening::open(&spec.spec, name.clone(), None).and_then(|mut opening: Opening<'a>| {
        opener.supply(&mut opening, others)?;
        opening.start(opener.clock())
    });
    match opened {
        Ok(_) => opener.settle(&name),
        Err(_) => opener.release(&name, &mut []),
    }
    opened
}

fn shown<'a>(name: &'a str, card: &'a mut Card) -> Present<'a> {
    Present { name, control: card }
}

#[test]
fn a_port_that_comes_later_brings_memory_that_goes_with_it() {
    let mut opener = Opener::new(MemoryOptions { page: PageChoice::Size4K, ..MemoryOptions::default() });
    let (mut card, mut stranger, mut sink) = (Card::default(), Card::default(), Card::default());
    let spec: NamedSpec = "gen=max,name=late".parse().unwrap();
    let before = opener.space.clone();
    let mut port = open_late(&mut opener, &spec, &[]).unwrap();
    opener.reclaim(&mut [shown("card", &mut card), shown("stranger", &mut stranger)]);
    assert!(opener.used() > 2 << 20);
    let names = ["card".to_owned(), "late".to_owned()];
    for _ in 0..2 {
        let both = &mut [shown("card", &mut card), Present { name: "late", control: &mut sink }];
        opener.introduce(both, &names).unwrap();
    }
    assert_eq!((card.reached.len(), stranger.reached.len(), sink.reached.len()), (1, 0, 0), "only its partner does");
    // A packet is on its way when the port is closed.
    let mut batch = Batch::new(1);
    while port.queues[0].rx.receive(&mut batch) == 0 {}
    let Port { mut control, queues, .. } = port;
    control.stop(queues).unwrap();
    drop(control);
    opener.release("late", &mut [shown("card", &mut card)]);
    assert_eq!(card.reached.len(), 1, "the packet still lies there");
    batch.clear();
    opener.reclaim(&mut []);
    assert_eq!(card.reached.len(), 1, "who is away is not asked");
    assert!(opener.used() > 0);
    opener.reclaim(&mut [shown("card", &mut card)]);
    assert_eq!((card.reached.len(), opener.used()), (0, 0));
    assert_eq!(format!("{before:?}"), format!("{:?}", opener.space), "its addresses are free again");
    open_late(&mut opener, &spec, &[]).unwrap();
}

#[test]
fn what_cannot_be_added_leaves_nothing_behind() {
    let mut opener = Opener::new(MemoryOptions { bytes: 8 << 20, page: PageChoice::Size4K, node: None });
    let spec: NamedSpec = "gen=max,name=a".parse().unwrap();
    let missing: NamedSpec = "pcap=/nonexistent/a.pcap,name=a".parse().unwrap();
    open_late(&mut opener, &missing, &[]).unwrap_err();
    assert_eq!(opener.used(), 0);
    let kept = open_late(&mut opener, &spec, &[]).unwrap();
    let more: NamedSpec = "gen=max,queues=3,name=b".parse().unwrap();
    let error = open_late(&mut opener, &more, &[]).unwrap_err().to_string();
    assert!(error.contains("those present 3M, `b` 7M") && error.contains("--memory 9M"), "{error}");
    assert!(matches!(open_late(&mut opener, &spec, &[]), Err(PortError::NameTaken { .. })));
    drop(kept);
}

#[test]
fn memory_that_a_card_refuses_costs_nobody_else_anything() {
    let mut opener = Opener::new(MemoryOptions { page: PageChoice::Size4K, ..MemoryOptions::default() });
    let mut card = Card { refuses: true, ..Card::default() };
    let mut sink = Card::default();
    let spec: NamedSpec = "gen=max,name=late".parse().unwrap();
    let port = open_late(&mut opener, &spec, &[]).unwrap();
    let pair = &mut [shown("card", &mut card), shown("late", &mut sink)];
    let names = ["card".to_owned(), "late".to_owned()];
    assert_eq!(opener.introduce(pair, &names).unwrap_err().to_string(), "port `card`: no room");
    let used = opener.used();
    assert_eq!(opener.pools(&mut pair[0], 1).unwrap_err().to_string(), "port `card`: no room");
    opener.reclaim(&mut []);
    assert_eq!(opener.used(), used, "what was found in vain is given back");
    assert_eq!(opener.pools(&mut pair[1], 2).unwrap().len(), 2);
    assert_eq!(sink.reached.len(), 1);
    // A card that does not let go of memory keeps it till it is closed, and is asked once.
    card.keeps = true;
    card.refuses = false;
    opener.introduce(&mut [shown("card", &mut card), shown("late", &mut sink)], &names).unwrap();
    drop(port);
    opener.release("late", &mut [shown("card", &mut card)]);
    opener.reclaim(&mut [shown("card", &mut card)]);
    assert_eq!((card.asked, card.reached.len(), opener.used()), (1, 1, used));
    opener.release("card", &mut []);
    assert_eq!(opener.used(), 0);
}

#[test]
fn switched_ports_reach_the_packets_of_each_other_and_of_the_switch() {
    let mut opener = Opener::new(MemoryOptions { page: PageChoice::Size4K, ..MemoryOptions::default() });
    let specs = ["gen=max,name=a", "gen=max,name=b"].map(|text| text.parse::<NamedSpec>().unwrap());
    let ports = specs.each_ref().map(|spec| open_late(&mut opener, spec, &[]).unwrap());
    let pools = opener.switch_pools(&[64, 64, 16]).unwrap();
    assert_eq!(pools.len(), 3);
    let (mut one, mut two, mut card) = (Card::default(), Card::default(), Card::default());
    let names: Vec<String> = ["a", "b", "card", SWITCH].map(ToOwned::to_owned).into();
    let all = &mut [shown("a", &mut one), shown("b", &mut two), shown("card", &mut card)];
    opener.introduce(all, &names).unwrap();
    assert_eq!((one.reached.len(), two.reached.len(), card.reached.len()), (2, 2, 3));
    // A card that comes later is started with what it will reach.
    let spec = "gen=max,name=later".parse::<NamedSpec>().unwrap();
    let later = open_late(&mut opener, &spec, &names).unwrap();
    opener.introduce(&mut [shown("card", &mut card)], &["later".to_owned()]).unwrap();
    assert_eq!(card.reached.len(), 4);
    drop((ports, later, pools));
    for name in ["a", "b", "later"] {
        opener.release(name, &mut [shown("a", &mut one), shown("b", &mut two), shown("card", &mut card)]);
    }
    assert_eq!((card.reached.len(), opener.used()), (0, 0), "all of it is given back");
}
