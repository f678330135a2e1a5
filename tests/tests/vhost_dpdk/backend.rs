//! Our back-end with DPDK's front-end. One `mirach run` serves all of it, while testpmd comes and goes with other rings each time.

use anyhow::{Context, Result, ensure};
use dataplane::port::RingChoice;
use lab::leftovers;
use lab::suite::Suite;
use lab::switch::{Port, Program, Switch};
use lab::testpmd::Testpmd;
use lab::vm::{Plan, Vm};
use tempfile::TempDir;

use crate::passages::{JUMBO, LARGE_V6, Load, SHORT, USUAL, both_ways};

/// A way in which testpmd is attached.
struct Way {
    name: &'static str,
    /// Of its device.
    options: &'static str,
    /// Of the program.
    arguments: &'static [&'static str],
    /// What it is told first.
    commands: &'static [&'static str],
    /// What it says about the functions that it has chosen.
    says: &'static [&'static str],
    loads: &'static [Load],
}

/// Frames of any length in buffers of 2 KiB (`RTE_ETH_RX_OFFLOAD_SCATTER`, `RTE_ETH_TX_OFFLOAD_MULTI_SEGS`).
const MERGEABLE: &[&str] = &["--max-pkt-len=9100", "--mbuf-size=2176", "--rx-offloads=0x2000", "--tx-offloads=0x8000"];
/// Each frame in one buffer.
const WHOLE: &[&str] = &["--max-pkt-len=9100", "--mbuf-size=9728"];

/// Segments of 64 KiB are taken whole (`RTE_ETH_RX_OFFLOAD_TCP_LRO` and `TCP_CKSUM`) and sent on whole (`RTE_ETH_TX_OFFLOAD_TCP_TSO` and `TCP_CKSUM`), besides
/// what is above.
const SEGMENTS: &[&str] =
    &["--max-pkt-len=9100", "--mbuf-size=2176", "--rx-offloads=0x2018", "--tx-offloads=0x8028", "--forward-mode=csum"];
/// Its engine for checksums is the one that asks for segmentation; addresses stay as they are.
const CUT: &[&str] = &[
    "csum set tcp hw 0",
    "csum set tcp hw 1",
    "csum mac-swap off 0",
    "csum mac-swap off 1",
    "tso set 1448 0",
    "tso set 1448 1",
];

const WAYS: [Way; 12] = [
    Way {
        name: "split",
        options: "in_order=0",
        arguments: MERGEABLE,
        says: &["using mergeable buffer Rx path"],
        commands: &[],
        loads: &[SHORT, USUAL, JUMBO],
    },
    Way {
        name: "split::in-order",
        options: "in_order=1",
        arguments: MERGEABLE,
        says: &["using inorder Rx path", "using inorder Tx path"],
        commands: &[],
        loads: &[SHORT, USUAL, JUMBO],
    },
    Way {
        name: "split::not-mergeable",
        options: "in_order=0,mrg_rxbuf=0",
        arguments: WHOLE,
        says: &["using standard Rx path"],
        commands: &[],
        loads: &[SHORT, USUAL, JUMBO],
    },
    Way {
        name: "split::vectorized",
        options: "in_order=0,mrg_rxbuf=0,vectorized=1",
        arguments: &["--max-pkt-len=1518"],
        says: &["using vectorized Rx path"],
        commands: &[],
        loads: &[SHORT, USUAL],
    },
    Way {
        name: "split::4-pairs",
        options: "in_order=0,queues=4",
        arguments: MERGEABLE,
        says: &[],
        commands: &[],
        loads: &[SHORT, USUAL],
    },
    Way {
        name: "packed",
        options: "packed_vq=1,in_order=0",
        arguments: MERGEABLE,
        says: &["using packed ring mergeable buffer Rx path"],
        commands: &[],
        loads: &[SHORT, USUAL, JUMBO],
    },
    Way {
        name: "packed::in-order",
        options: "packed_vq=1,in_order=1",
        arguments: MERGEABLE,
        says: &["using packed ring"],
        commands: &[],
        loads: &[SHORT, USUAL, JUMBO],
    },
    Way {
        name: "packed::not-mergeable",
        options: "packed_vq=1,in_order=0,mrg_rxbuf=0",
        arguments: WHOLE,
        says: &["using packed ring standard Rx path"],
        commands: &[],
        loads: &[SHORT, USUAL, JUMBO],
    },
    Way {
        name: "packed::vectorized",
        options: "packed_vq=1,in_order=1,mrg_rxbuf=0,vectorized=1",
        arguments: &["--max-pkt-len=1518"],
        says: &["using packed ring vectorized Rx path", "using packed ring vectorized Tx path"],
        commands: &[],
        loads: &[SHORT, USUAL],
    },
    Way {
        name: "packed::4-pairs",
        options: "packed_vq=1,in_order=0,queues=4",
        arguments: MERGEABLE,
        says: &[],
        commands: &[],
        loads: &[SHORT, USUAL],
    },
    Way {
        name: "split::whole-segments",
        options: "in_order=0",
        arguments: SEGMENTS,
        commands: CUT,
        says: &["TSO segment size for non-tunneled packets is 1448"],
        loads: &[LARGE_V6],
    },
    Way {
        name: "packed::whole-segments",
        options: "packed_vq=1,in_order=0",
        arguments: SEGMENTS,
        commands: CUT,
        says: &["TSO segment size for non-tunneled packets is 1448"],
        loads: &[LARGE_V6],
    },
];

/// Queue pairs of all ports.
const PAIRS: u16 = 4;

/// mirach and the two machines; the machines and testpmd are attached alike.
struct Scene {
    switch: Switch,
    folder: TempDir,
}

impl Scene {
    fn set() -> Result<Self> {
        let folder = leftovers::folder("dpdk")?;
        // mirach connects to the machines and listens for testpmd on the first pair of ports; the second pair is the other way round.
        let ports: Vec<Port> = ["machine0", "testpmd0", "testpmd1", "machine1"]
            .into_iter()
            .map(|name| Port {
                socket: folder.path().join(name),
                listens: name != "testpmd1" && name != "machine0",
                pairs: PAIRS,
                mtu: Some(9000),
            })
            .collect();
        Ok(Self { switch: Switch::start(Program::Mirach, &ports, &[])?, folder })
    }

    fn machines(&self, pairs: u16, ring: RingChoice) -> Result<[Vm; 2]> {
        let attach = |name: &str, listens| {
            let plan = Plan { socket: self.folder.path().join(name), listens, ring, pairs, mtu: Some(9000) };
            Vm::attach(name, &plan).with_context(|| self.switch.last_words())
        };
        Ok([attach("machine0", true)?, attach("machine1", false)?])
    }

    fn testpmd(&self, way: &Way) -> Result<Testpmd> {
        let device = |number: u8| {
            let path = self.folder.path().join(format!("testpmd{number}"));
            if number == 1 {
                // Of a testpmd that was killed; DPDK does not remove it. There need not be one.
                let _ = std::fs::remove_file(&path);
            }
            // Where mirach connects, DPDK makes the socket.
            format!("net_virtio_user{number},path={},server={number},queue_size=256,{}", path.display(), way.options)
        };
        let mut arguments = way.arguments.to_vec();
        if way.options.contains("queues=4") {
            arguments.extend(["--rxq=4", "--txq=4"]);
        }
        Testpmd::start(&[device(0), device(1)], &arguments, way.commands)
    }
}

pub(crate) fn all(suite: &mut Suite) {
    let mut scene: Option<Scene> = None;
    for way in &WAYS {
        suite.check(&format!("backend::{}", way.name), || {
            if scene.is_none() {
                scene = Some(Scene::set()?);
            }
            let scene = scene.as_mut().context("it was set")?;
            pass(scene, way)
        });
    }
    suite.check("backend::testpmd-is-killed-under-load", || killed(scene.as_mut().context("nothing was started")?));
    suite.check("backend::mirach-ends-well", || scene.take().context("nothing was started")?.switch.end().map(drop));
}

fn pass(scene: &mut Scene, way: &Way) -> Result<()> {
    let mut testpmd = scene.testpmd(way)?;
    // DPDK has these for packed rings in vectors of 512 bits alone.
    let vectors = !way.name.ends_with("packed::vectorized") || std::is_x86_feature_detected!("avx512bw");
    for words in way.says.iter().filter(|_| vectors) {
        let log = testpmd.log();
        ensure!(log.contains(words), "testpmd does not say `{words}`:\n{log}");
    }
    let pairs = if way.options.contains("queues=4") { PAIRS } else { 1 };
    let ring = if way.options.contains("packed") { RingChoice::Split } else { RingChoice::Packed };
    let mut machines = scene.machines(pairs, ring)?;
    for &load in way.loads {
        both_ways(&mut machines, load).with_context(|| format!("{}: {}", load.name, scene.switch.last_words()))?;
        testpmd.must_run()?;
        scene.switch.must_run()?;
    }
    machines.into_iter().try_for_each(Vm::detach)
}

/// testpmd dies with packets in its rings, and another one takes its place: nothing is stuck, and nothing of the first one's is left.
fn killed(scene: &mut Scene) -> Result<()> {
    let [split, packed] = [&WAYS[0], &WAYS[5]];
    let mut machines = scene.machines(1, RingChoice::Auto)?;
    for way in [split, packed, split, packed] {
        let testpmd = scene.testpmd(way)?;
        both_ways(&mut machines, USUAL).with_context(|| scene.switch.last_words())?;
        let [left, right] = &mut machines;
        let mut frames = 0;
        crate::passages::flood(left, right, |_| {
            frames += 1;
            Ok(frames < 2000)
        })?;
        drop(testpmd);
        scene.switch.must_run()?;
    }
    machines.into_iter().try_for_each(Vm::detach)
}
