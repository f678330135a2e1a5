//! What to give a VMM so that its VM finds the port.

use crate::port::VhostUserSpec;

/// Arguments for QEMU and Cloud Hypervisor that attach a VM to the port, ready to be pasted: lines of text. The VM's memory of 1 GiB stands
/// for whatever it has.
#[must_use]
pub fn arguments(name: &str, spec: &VhostUserSpec) -> Vec<String> {
    let VhostUserSpec { socket, queues, client, .. } = spec;
    let id: String = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    // QEMU writes a comma in a value as two.
    let path = socket.display().to_string().replace(',', ",,");
    let side = if *client { ",server=on,wait=off" } else { ",reconnect=1" };
    let several = if *queues > 1 { format!(",queues={queues}") } else { String::new() };
    let vectors = if *queues > 1 { format!(",mq=on,vectors={}", 2 * queues + 2) } else { String::new() };
    let mtu = spec.mtu.map(|mtu| format!(",host_mtu={mtu}")).unwrap_or_default();
    let mode = if *client { ",vhost_mode=server" } else { "" };
    let mtu_of_cloud = spec.mtu.map(|mtu| format!(",mtu={mtu}")).unwrap_or_default();
    vec![
        "QEMU:".into(),
        "  -object memory-backend-memfd,id=memory,size=1G,share=on -machine memory-backend=memory".into(),
        format!("  -chardev socket,id=char-{id},path={path}{side}"),
        format!("  -netdev vhost-user,id=net-{id},chardev=char-{id}{several}"),
        format!("  -device virtio-net-pci,netdev=net-{id},packed=on{vectors}{mtu}"),
        "Cloud Hypervisor:".into(),
        "  --memory size=1G,shared=on".into(),
        format!(
            "  --net vhost_user=true,socket={}{mode},num_queues={}{mtu_of_cloud}",
            socket.display(),
            2 * u32::from(*queues)
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_of_both_ends_fit_together() {
        let mut spec = VhostUserSpec::new("/run/vm,0.sock");
        let text = arguments("vm 0", &spec).join("\n");
        assert!(text.contains("id=char-vm-0,path=/run/vm,,0.sock,server=on,wait=off"), "{text}");
        assert!(text.contains("-netdev vhost-user,id=net-vm-0,chardev=char-vm-0\n"), "{text}");
        assert!(text.contains("vhost_mode=server,num_queues=2"), "{text}");
        (spec.client, spec.queues, spec.mtu) = (false, 4, Some(9000));
        let text = arguments("vm0", &spec).join("\n");
        assert!(text.contains(",reconnect=1") && !text.contains("server"), "{text}");
        assert!(
            text.contains("chardev=char-vm0,queues=4") && text.contains("mq=on,vectors=10,host_mtu=9000"),
            "{text}"
        );
        assert!(text.contains("num_queues=8,mtu=9000"), "{text}");
    }
}
