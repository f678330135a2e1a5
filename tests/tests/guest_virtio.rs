//! The real binary between two virtio-net devices, in guests with an IOMMU.

use std::process::ExitCode;

use anyhow::Result;
use lab::cache::Kernel;
use lab::frames::Series;
use lab::guest::{Guest, Machine, Nic};
use lab::pair::Pair;
use lab::suite::Suite;
use lab::traffic::{Direction, ping, tcp};

fn main() -> ExitCode {
    lab::leftovers::remove();
    let mut suite = Suite::from_arguments();
    suite.check("bridge", || bridge(Kernel::Stock));
    suite.check("plain", || bridge(Kernel::Iommufd));
    suite.finish()
}

fn bridge(kernel: Kernel) -> Result<()> {
    let (pair, [left, right]) = Pair::new(2)?;
    let started = std::time::Instant::now();
    let mut guest = Guest::boot(Machine {
        kernel,
        modules: &["vfio-pci", "vfio_iommu_type1", "virtio_net", "tun", "bridge"],
        programs: &[],
        nics: vec![Nic { queues: left, slot: 3, packed: true }, Nic { queues: right, slot: 4, packed: true }],
    })?;
    println!("boot {:?}", started.elapsed());
    println!("{}", guest.must("uname -a; ls /dev /dev/vfio; ls -la /sys/class/net; dmesg | grep -i -e iommu -e DMAR; cat /proc/meminfo | grep -i huge; lsmod")?);
    if kernel == Kernel::Stock {
        guest.must(
            "brctl addbr br0; for i in eth0 eth1; do brctl addif br0 $i; ip link set $i up; done; ip link set br0 up",
        )?;
        ping(&pair.left, Pair::RIGHT, 50)?;
        println!("{}", tcp(&pair.left, &pair.right, Pair::RIGHT, Direction::Forward, 3)?);
        println!("{}", tcp(&pair.left, &pair.right, Pair::RIGHT, Direction::Reverse, 3)?);
        println!("{:?}", Series { count: 100_000, flows: 1, window: 128, run: 1 }.pass(&pair.left, &pair.right)?);
        println!("{:?}", Series { count: 100_000, flows: 16, window: 128, run: 2 }.pass(&pair.left, &pair.right)?);
    } else {
        guest.must("ip link set eth0 up; ip addr add 10.77.0.3/24 dev eth0")?;
        ping(&pair.left, Pair::GUEST, 50)?;
    }
    println!("{:?}", guest.iommu_faults()?);
    Ok(())
}
