//! The devices: mirach, and DPDK's testpmd, each with two ports joined to each other.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::peer_bench::device::{CORE, Device, Listener, alone, is_engine, mirach};

/// The peer's name.
pub const PEER: &str = "testpmd";

/// Starts both; they rest.
///
/// # Errors
/// One of them is missing, or ends.
pub fn start(huge_pages: bool) -> Result<[Box<dyn Device>; 2]> {
    let mut mirach = Listener::start("mirach", is_engine, |_, sockets| joined(sockets, huge_pages))?;
    mirach.program().rest()?;
    let mut peer = Listener::start(PEER, is_worker, |folder, sockets| Ok(testpmd(folder, sockets, huge_pages)))?;
    peer.program().rest()?;
    Ok([Box::new(mirach), Box::new(peer)])
}

/// Whether this is the name of a thread of DPDK's that forwards.
fn is_worker(thread: &str) -> bool {
    ["rte-worker-", "lcore-worker-", "dpdk-worker"].iter().any(|name| thread.starts_with(name))
}

fn joined(sockets: &[PathBuf; 2], huge_pages: bool) -> Result<Command> {
    let mut command = mirach(huge_pages)?;
    command.args(["--control", "none"]);
    for socket in sockets {
        command.arg("--port").arg(format!("vhost-user={},client=off", socket.display()));
    }
    Ok(command)
}

fn testpmd(folder: &Path, sockets: &[PathBuf; 2], huge_pages: bool) -> Command {
    let prefix = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = alone(Path::new("dpdk-testpmd"));
    // Its own work on the other core, the forwarding on ours.
    command.args(["--lcores", &format!("0@1,1@{CORE}"), "-n", "1", "--no-pci", "--no-telemetry"]);
    command.args(["--file-prefix", &prefix, "--log-level=lib.vhost:err"]);
    if huge_pages {
        command.args(["--in-memory", "-m", "256"]);
    } else {
        command.args(["--no-huge", "-m", "512"]);
    }
    for (number, socket) in sockets.iter().enumerate() {
        // The last two let it pass large segments on as they are.
        let device = format!("net_vhost{number},iface={},queues=1,tso=1,legacy-ol-flags=1", socket.display());
        command.arg("--vdev").arg(device);
    }
    command.args(["--", "--nb-cores=1", "--total-num-mbufs=16384", "--forward-mode=io", "--burst=32", "--auto-start"]);
    // Otherwise it ends with its standard input.
    command.arg("--stats-period=86400");
    command
}
