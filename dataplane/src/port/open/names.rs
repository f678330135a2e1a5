//! Names of ports, and what only one port may have.

use std::collections::BTreeSet;

use super::super::{NamedSpec, PortError, PortKind, PortSpec};

/// A name for each port that no other has, and none of `taken`: the one it is given, what the user knows a device by, or a
/// number behind the kind.
pub(crate) fn names<'a>(
    specs: &[NamedSpec],
    taken: impl Iterator<Item = &'a String>,
) -> Result<Vec<String>, PortError> {
    let mut taken: BTreeSet<String> = taken.cloned().collect();
    let mut names: Vec<Option<String>> = Vec::with_capacity(specs.len());
    for named in specs {
        let own = own_name(named);
        if let Some(name) = own.clone()
            && !taken.insert(name.clone())
        {
            return Err(PortError::NameTaken { name });
        }
        names.push(own);
    }
    let mut numbered = |kind: PortKind| {
        let free = (0..).map(|number: usize| format!("{kind}{number}")).find(|name| !taken.contains(name));
        let name = free.unwrap_or_default();
        taken.insert(name.clone());
        name
    };
    let all = names.into_iter().zip(specs);
    Ok(all.map(|(own, named)| own.unwrap_or_else(|| numbered(named.spec.kind()))).collect())
}

/// What a port is called whatever others are: the name it is given, or what the user knows its device by.
pub(crate) fn own_name(named: &NamedSpec) -> Option<String> {
    match (&named.name, &named.spec) {
        (Some(name), _) => Some(name.to_string()),
        (None, PortSpec::Pci(pci)) => Some(pci.device.to_string()),
        (None, PortSpec::Tap(tap)) => Some(tap.name.clone()),
        _ => None,
    }
}

/// What no other port may have beside this one, in words.
pub(crate) fn claim(spec: &PortSpec) -> Option<String> {
    match spec {
        PortSpec::Pci(pci) => Some(format!("device {}", pci.device)),
        PortSpec::Tap(tap) => Some(format!("tap interface {}", tap.name)),
        PortSpec::Pcap(pcap) => pcap.output.as_ref().map(|output| format!("output file {}", output.display())),
        PortSpec::VhostUser(port) => Some(format!("vhost-user socket {}", port.socket.display())),
        PortSpec::VirtioUser(port) => Some(format!("virtio-user socket {}", port.socket.display())),
        PortSpec::Null | PortSpec::Generator(_) => None,
    }
}
