//! What a run says at its beginning, and when its configuration changes.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use dataplane::config::{Config, CoreList};
use dataplane::forwarder::{Applied, Forwarder, Listing};
use dataplane::network;
use dataplane::port::{PortSpec, vmm_arguments};
use serde_json::json;

use super::lock;
use super::services::Services;
use crate::output;

/// What to give a virtual machine monitor so that it finds the port.
fn vmm(port: &Listing) -> Option<Vec<String>> {
    match port.spec.as_ref().map(|named| &named.spec) {
        Some(PortSpec::VhostUser(machine)) => Some(vmm_arguments(&port.name, machine)),
        _ => None,
    }
}

/// Says what is joined to what and switched, and on which cores.
pub(super) fn announce(forwarder: &Mutex<Forwarder>, services: &Services, config: &Config) -> io::Result<()> {
    let (joins, ports, network) = {
        let mut forwarder = lock(forwarder);
        (forwarder.joins(), forwarder.list(), forwarder.vswitch().map(|_| forwarder.network()))
    };
    let (control, metrics) = (services.control(), services.metrics());
    let used: Vec<usize> = joins.iter().flat_map(|join| join.cores.iter().copied()).collect();
    // The switch has engines on all of them.
    let used = |core: &usize| network.is_some() || used.contains(core);
    let unused = CoreList::new(config.cores.iter().filter(|core| !used(core)));
    if let Some(unused) = unused.filter(|_| config.cores.len() < CoreList::available().map_or(0, |all| all.len())) {
        tracing::info!("no queues are left for cores {unused}");
    }
    if config.json {
        let joins: Vec<_> = joins.iter().map(|join| json!({ "ports": join.ports, "cores": join.cores })).collect();
        let ports: Vec<_> = ports
            .iter()
            .map(|port| {
                json!({
                    "name": port.name,
                    "kind": port.kind.name(),
                    "facts": port.facts,
                    "networks": port.networks,
                    "vmm": vmm(port),
                })
            })
            .collect();
        let networks = network.iter().flat_map(|network| network.networks.iter().map(|network| &network.name));
        return output::json(&json!({
            "type": "forwarding",
            "joins": joins,
            "ports": ports,
            "networks": networks.collect::<Vec<_>>(),
            "burst": config.engine.burst,
            "poll": config.engine.poll.to_string(),
            "scheduler": config.engine.scheduler.to_string(),
            "copies": lock(forwarder).copying().map(|copying| copying.describe()),
            "control": control,
            "metrics": metrics,
        }));
    }
    for port in &ports {
        output::line(&format!("port {}: {}", port.name, port.facts))?;
        for line in vmm(port).into_iter().flatten() {
            output::line(&format!("  {line}"))?;
        }
    }
    if let Some(copying) = lock(forwarder).copying() {
        output::line(&format!("copies: {}", copying.describe()))?;
    }
    for join in joins {
        output::line(&format!("forwarding: {join}, burst {}, poll {}", config.engine.burst, config.engine.poll))?;
    }
    if let Some(network) = network {
        switching(&network, &ports, config)?;
    }
    if let Some(url) = metrics {
        output::line(&format!("metrics: {url}"))?;
    }
    if let Some(path) = control {
        let none = if ports.is_empty() { "no ports yet; " } else { "" };
        output::line(&format!("control: {none}add ports with: mirach port add SPEC --control {}", path.display()))?;
    }
    Ok(())
}

/// Says which ports the networks have.
fn switching(network: &network::Config, ports: &[Listing], config: &Config) -> io::Result<()> {
    let (engines, cores) = if config.cores.len() == 1 { ("engine", "core") } else { ("engines", "cores") };
    let at = format!(
        "{} {engines}, {cores} {}, burst {}, poll {}",
        config.cores.len(),
        config.cores,
        config.engine.burst,
        config.engine.poll
    );
    if let Some(underlay) = &network.underlay {
        let addresses: Vec<String> = underlay.addresses.iter().map(ToString::to_string).collect();
        output::line(&format!("underlay: {}, {}", underlay.port, addresses.join(", ")))?;
    }
    for network in &network.networks {
        let members = ports.iter().filter(|port| port.switched && port.networks.contains(&network.name));
        let members: Vec<&str> = members.map(|port| port.name.as_str()).collect();
        let members = if members.is_empty() { "no ports yet".to_owned() } else { members.join(", ") };
        let vni = network.vni.map(|vni| format!(" (VNI {vni})")).unwrap_or_default();
        output::line(&format!("forwarding: network {}{vni}: {members}, {at}", network.name))?;
    }
    Ok(())
}

/// Says what was changed, as the file `path` says now.
pub(super) fn changed(path: &Path, applied: &Applied, json: bool) -> io::Result<()> {
    if json {
        return output::json(&json!({ "type": "applied", "file": path, "lines": applied.lines }));
    }
    let nothing = ["nothing changes".to_owned()];
    let lines = if applied.lines.is_empty() { &nothing } else { applied.lines.as_slice() };
    lines.iter().try_for_each(|line| output::line(&format!("applied {}: {line}", path.display())))
}
