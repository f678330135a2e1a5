//! Binding on a made-up machine, whose kernel can refuse.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::fake::Machine;

const CARD: &str = "0000:00:03.0";

fn card() -> PciAddress {
    CARD.parse().unwrap()
}

fn machine() -> Machine {
    let machine = Machine::new();
    machine.function(CARD, 0x1af4, 0x1041, 0x02_0000, Some(4), Some("virtio-pci"));
    machine
}

fn driver_override(machine: &Machine) -> Option<String> {
    read(&machine.path("sys/bus/pci/devices/0000:00:03.0/driver_override"))
}

#[test]
fn a_card_is_bound_and_given_back() {
    let machine = machine();
    let sysfs = machine.sysfs();
    let binding = bind(&sysfs, &Network::default(), card(), false).unwrap();
    assert_eq!((binding.already, binding.former.as_deref()), (false, Some("virtio-pci")));
    assert_eq!(binding.node, machine.path("dev/vfio/4"));
    assert_eq!(sysfs.driver(card()).as_deref(), Some("vfio-pci"));

    let again = bind(&sysfs, &Network::default(), card(), false).unwrap();
    assert!(again.already);

    let back = unbind(&sysfs, card()).unwrap();
    assert_eq!((back.already, back.driver.as_deref()), (false, Some("virtio-pci")));
    assert_eq!(driver_override(&machine).as_deref(), Some("(null)"));
    assert!(unbind(&sysfs, card()).unwrap().already);
}

#[test]
fn a_card_without_a_driver_is_bound_and_goes_back_to_none() {
    let machine = Machine::new();
    machine.function(CARD, 0x1af4, 0x1041, 0x02_0000, Some(4), None);
    let sysfs = machine.sysfs();
    assert_eq!(bind(&sysfs, &Network::default(), card(), false).unwrap().former, None);
    assert_eq!(unbind(&sysfs, card()).unwrap().driver, None);
}

#[test]
fn an_interface_with_addresses_or_routes_is_refused_unless_forced() {
    let machine = machine();
    machine.interface(CARD, Some("virtio1"), "eth0", 2);
    let (sysfs, network) = (machine.sysfs(), machine.network_of(2));
    let error = bind(&sysfs, &network, card(), false).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BindError::Active { .. }));
    for word in ["eth0", "10.0.0.2/24", "default via 10.0.0.1", "--force"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert_eq!(sysfs.driver(card()).as_deref(), Some("virtio-pci"), "nothing was touched");
    bind(&sysfs, &network, card(), true).unwrap();
}

#[test]
fn a_bridge_port_is_refused() {
    let machine = machine();
    machine.interface(CARD, Some("virtio1"), "eth0", 2);
    machine.enslave(CARD, Some("virtio1"), "eth0", "br0");
    let error = bind(&machine.sysfs(), &Network::default(), card(), false).unwrap_err();
    assert!(error.to_string().contains("master br0"), "{error}");
}

#[test]
fn a_copy_engine_is_bound_unless_the_kernel_copies_with_it() {
    let machine = Machine::new();
    machine.function(CARD, 0x8086, 0x2021, 0x08_8000, Some(4), Some("ioatdma"));
    let (sysfs, channel) = (machine.sysfs(), "sys/devices/pci0000:00/0000:00:03.0/dma/dma0chan0/in_use");
    machine.file(channel, "1\n");
    let error = bind(&sysfs, &Network::default(), card(), false).unwrap_err().to_string();
    assert!(error.contains("dma0chan0") && error.contains("--force"), "{error}");
    assert_eq!(sysfs.driver(card()).as_deref(), Some("ioatdma"), "nothing was touched");
    machine.file(channel, "0\n");
    assert_eq!(bind(&sysfs, &Network::default(), card(), false).unwrap().former.as_deref(), Some("ioatdma"));
}

#[test]
fn what_is_no_card_is_refused_unless_forced() {
    let machine = Machine::new();
    machine.function(CARD, 0x1b36, 0x0010, 0x01_0802, Some(4), Some("nvme"));
    let sysfs = machine.sysfs();
    assert_eq!(bind(&sysfs, &Network::default(), card(), false), Err(BindError::OtherKind(card())));
    bind(&sysfs, &Network::default(), card(), true).unwrap();
}

#[test]
fn no_device_no_iommu_and_no_module_each_say_what_mends_them() {
    let machine = machine();
    machine.function("0000:00:04.0", 0x1af4, 0x1041, 0x02_0000, None, None);
    machine.function("0000:00:05.0", 0x1af4, 0x1041, 0x02_0000, Some(9), None);
    machine.file("sys/kernel/iommu_groups/9/name", "vfio-noiommu\n");
    machine.file("proc/cpuinfo", "vendor_id : GenuineIntel\n");
    let sysfs = machine.sysfs();
    let text =
        |address: &str| bind(&sysfs, &Network::default(), address.parse().unwrap(), true).unwrap_err().to_string();
    assert!(text("0000:00:09.0").contains("mirach devices"));
    assert!(text("0000:00:04.0").contains("intel_iommu=on"));
    assert!(text("0000:00:05.0").contains("intel_iommu=on"), "a no-IOMMU group is no IOMMU");
    machine.remove("sys/bus/pci/drivers/vfio-pci");
    assert!(text(CARD).contains("modprobe vfio-pci"));
}

#[test]
fn a_card_that_vfio_refuses_goes_back_to_its_driver() {
    let machine = machine();
    machine.file("sys/devices/pci0000:00/0000:00:03.0/refuse", "");
    let sysfs = machine.sysfs();
    let error = bind(&sysfs, &Network::default(), card(), false).unwrap_err();
    assert!(matches!(error, BindError::NotTaken { .. }), "{error}");
    assert!(error.to_string().contains("with virtio-pci again"), "{error}");
    assert_eq!(sysfs.driver(card()).as_deref(), Some("virtio-pci"));
    assert_eq!(driver_override(&machine).as_deref(), Some("(null)"));
}

#[test]
fn a_refused_dsa_device_names_the_denylist() {
    let machine = Machine::new();
    machine.function(CARD, 0x8086, 0x0b25, 0x08_8000, Some(4), Some("idxd"));
    machine.file("sys/devices/pci0000:00/0000:00:03.0/refuse", "");
    let error = bind(&machine.sysfs(), &Network::default(), card(), false).unwrap_err();
    assert!(error.to_string().contains("disable_denylist=1"), "{error}");
}

#[test]
fn a_step_that_fails_half_way_is_undone() {
    let machine = machine();
    let inner = machine.sysfs();
    for (step, kind) in [("unbind", io::ErrorKind::PermissionDenied), ("driver_override", io::ErrorKind::Other)] {
        let kernel = inner.clone();
        let sysfs = machine.sysfs().with_writer(move |path, value| {
            // Only what takes the device away fails; giving it back works.
            if path.ends_with(step) && value.trim() != "" { Err(kind.into()) } else { kernel.write(path, value) }
        });
        let error = bind(&sysfs, &Network::default(), card(), false).unwrap_err();
        match kind {
            io::ErrorKind::PermissionDenied => assert!(error.to_string().contains("as root"), "{error}"),
            _ => assert!(matches!(error, BindError::Refused { .. }), "{error}"),
        }
        assert_eq!(sysfs.driver(card()).as_deref(), Some("virtio-pci"));
        assert_eq!(driver_override(&machine).as_deref(), Some("(null)"));
    }
}

#[test]
fn other_members_that_block_the_group_are_named() {
    let machine = machine();
    machine.function("0000:00:03.1", 0x8086, 0x10fb, 0x02_0000, Some(4), Some("ixgbe"));
    machine.function("0000:00:02.0", 0x8086, 0x1, 0x06_0400, Some(4), Some("pcieport"));
    let binding = bind(&machine.sysfs(), &Network::default(), card(), false).unwrap();
    assert_eq!(binding.blockers, [("0000:00:03.1".parse().unwrap(), "ixgbe".into())], "bridges do not block");
}

#[test]
fn a_device_that_a_process_has_open_is_not_given_back() {
    let machine = machine();
    let sysfs = machine.sysfs();
    bind(&sysfs, &Network::default(), card(), false).unwrap();
    machine.file("proc/4711/comm", "qemu\n");
    machine.link("proc/4711/fd/7", &machine.path("dev/vfio/4"));
    let error = unbind(&sysfs, card()).unwrap_err();
    assert!(error.to_string().contains("process 4711 (qemu)"), "{error}");
    assert_eq!(sysfs.driver(card()).as_deref(), Some("vfio-pci"));
}

#[test]
fn a_device_beside_one_that_is_open_is_not_given_back() {
    let machine = machine();
    machine.function("0000:00:03.1", 0x1af4, 0x1041, 0x02_0000, Some(4), Some("vfio-pci"));
    machine.file("sys/devices/pci0000:00/0000:00:03.1/vfio-dev/vfio0/dev", "511:0");
    let sysfs = machine.sysfs();
    bind(&sysfs, &Network::default(), card(), false).unwrap();
    machine.file("proc/12/comm", "mirach\n");
    machine.link("proc/12/fd/3", &machine.path("dev/vfio/devices/vfio0"));
    assert!(matches!(unbind(&sysfs, card()), Err(BindError::InUse { .. })));
}

#[test]
fn a_kernel_that_does_not_take_a_device_back_is_quoted() {
    let machine = machine();
    let inner = machine.sysfs();
    bind(&inner, &Network::default(), card(), false).unwrap();
    let kernel = inner.clone();
    let sysfs = inner.with_writer(move |path, value| {
        if path.ends_with("drivers_probe") {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        kernel.write(path, value)
    });
    let error = unbind(&sysfs, card()).unwrap_err();
    assert!(matches!(error, BindError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("with no driver"), "{error}");
}
