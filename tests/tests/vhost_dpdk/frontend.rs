//! Our front-end with DPDK's back-end.

use anyhow::{Context, Result};
use dataplane::port::RingChoice;
use lab::leftovers;
use lab::suite::Suite;
use lab::testpmd::Testpmd;
use lab::vm::{Plan, Vm};
use tempfile::TempDir;

use crate::passages::{JUMBO, LARGE, Load, SHORT, USUAL, both_ways, flood, say};

/// A way in which the machines are attached to testpmd.
struct Way {
    name: &'static str,
    ring: RingChoice,
    pairs: u16,
    /// The machines listen, and testpmd connects to them.
    listens: bool,
    loads: &'static [Load],
}

const WAYS: [Way; 4] = [
    Way { name: "split", ring: RingChoice::Split, pairs: 1, listens: false, loads: &[SHORT, USUAL, JUMBO, LARGE] },
    Way { name: "packed", ring: RingChoice::Packed, pairs: 1, listens: true, loads: &[SHORT, USUAL, JUMBO, LARGE] },
    Way { name: "split::4-pairs", ring: RingChoice::Split, pairs: 4, listens: true, loads: &[SHORT, USUAL] },
    Way { name: "packed::4-pairs", ring: RingChoice::Packed, pairs: 4, listens: false, loads: &[SHORT, USUAL] },
];

struct Scene {
    folder: TempDir,
}

impl Scene {
    fn testpmd(&self, way: &Way) -> Result<Testpmd> {
        let device = |number: u8| {
            let path = self.folder.path().join(number.to_string());
            if !way.listens {
                // Of a testpmd that was killed; DPDK does not remove it. There need not be one.
                let _ = std::fs::remove_file(&path);
            }
            let client = u8::from(way.listens);
            // With its older flags, packets that it receives carry what it needs to send them on: otherwise it forgets in between
            // that a frame is to be cut into segments.
            let path = path.display();
            format!("net_vhost{number},iface={path},queues={},client={client},tso=1,legacy-ol-flags=1", way.pairs)
        };
        let [rx, tx] = ["rx", "tx"].map(|queue| format!("--{queue}q={}", way.pairs));
        Testpmd::start(&[device(0), device(1)], &[&rx, &tx, "--mbuf-size=2176"], &[])
    }

    fn machines(&self, way: &Way) -> Result<[Vm; 2]> {
        let attach = |number: u8| {
            let socket = self.folder.path().join(number.to_string());
            let plan = Plan { socket, listens: way.listens, ring: way.ring, pairs: way.pairs, mtu: Some(9000) };
            Vm::attach(&format!("machine{number}"), &plan)
        };
        Ok([attach(0)?, attach(1)?])
    }
}

pub(crate) fn all(suite: &mut Suite) {
    for way in &WAYS {
        suite.check(&format!("frontend::{}", way.name), || {
            let scene = Scene { folder: leftovers::folder("dpdk")? };
            let mut testpmd = scene.testpmd(way)?;
            let mut machines = scene.machines(way).with_context(|| testpmd.log())?;
            say(&mut machines, if way.ring == RingChoice::Packed { "ring packed" } else { "ring split" })?;
            for &load in way.loads {
                both_ways(&mut machines, load).with_context(|| load.name)?;
                testpmd.must_run()?;
            }
            machines.into_iter().try_for_each(Vm::detach)
        });
    }
    suite.check("frontend::testpmd-is-killed-under-load", || WAYS[..2].iter().try_for_each(killed));
    suite.check("frontend::machines-leave-and-come-back", || WAYS[..2].iter().try_for_each(machines_leave));
}

/// The back-end dies under load, and another one takes its place.
fn killed(way: &Way) -> Result<()> {
    let scene = Scene { folder: leftovers::folder("dpdk")? };
    let mut testpmd = scene.testpmd(way)?;
    let mut machines = scene.machines(way)?;
    for _ in 0..3 {
        both_ways(&mut machines, USUAL)?;
        let [left, right] = &mut machines;
        let mut frames = 0;
        flood(left, right, |_| {
            frames += 1;
            Ok(frames < 2000)
        })?;
        drop(testpmd);
        testpmd = scene.testpmd(way)?;
    }
    both_ways(&mut machines, USUAL)?;
    machines.into_iter().try_for_each(Vm::detach)
}

/// The front-ends go under load, and others take their place.
fn machines_leave(way: &Way) -> Result<()> {
    let scene = Scene { folder: leftovers::folder("dpdk")? };
    let mut testpmd = scene.testpmd(way)?;
    for _ in 0..3 {
        let mut machines = scene.machines(way)?;
        both_ways(&mut machines, USUAL)?;
        machines.into_iter().try_for_each(Vm::detach)?;
        testpmd.must_run()?;
    }
    Ok(())
}
