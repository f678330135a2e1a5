//! Huge pages: that they are used and given back, and what is said when there are too few.

use anyhow::{Context, Result, bail};
use lab::checks::forwarding::ends;
use lab::checks::{Case, Interface};
use lab::forwarder::{self, User};
use lab::pair::Pair;
use lab::site::{Booted, DEVICES, Site};
use lab::suite::Suite;
use lab::traffic::ping;

/// A size of huge pages.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// As `--huge-page-size` takes it.
    option: &'static str,
    /// The kernel's folder for it.
    folder: &'static str,
    /// The same in KiB, as the kernel prints it.
    kib: u32,
    /// So many are reserved, which is enough for packets and rings.
    reserved: u32,
    /// So few do not suffice.
    too_few: u32,
}

impl Size {
    fn setting(self) -> String {
        format!("{}/nr_hugepages", self.folder)
    }
}

const SIZE_2M: Size =
    Size { option: "2M", folder: "/sys/kernel/mm/hugepages/hugepages-2048kB", kib: 2 << 10, reserved: 48, too_few: 1 };

/// The parameters of a kernel that reserves such pages at boot, which is the only time at which it can find any.
pub(crate) const BOOT_1G: &str = "hugepagesz=1G hugepages=1";

/// Memory of its guest: the kernel finds no such page in the lowest 2 GiB and none where its own tables end.
pub(crate) const MEMORY_1G_MIB: u32 = 4 << 10;

const SIZE_1G: Size = Size {
    option: "1G",
    folder: "/sys/kernel/mm/hugepages/hugepages-1048576kB",
    kib: 1 << 20,
    reserved: 1,
    too_few: 0,
};

/// An ordinary page.
const SMALL_KIB: u32 = 4;

const CASE: Case = Case { interface: Interface::Iommufd, rings: Some("packed"), queues: 2 };

/// Pages of 2 MiB, reserved at run time, and the way out when there are none at all.
pub(crate) fn of_2m(suite: &mut Suite, site: &mut Site) {
    of(suite, site, SIZE_2M);
    suite.check("huge-pages::none::small-pages-serve-and-say-what-they-cost", || {
        let site = site.up()?;
        reserve(site, SIZE_2M, 0)?;
        forwarder::start(&mut site.guest, User::Root, &CASE.arguments())?;
        let printed = forwarder::log(&mut site.guest)?;
        let named = SIZE_2M.setting();
        if !(printed.contains("4 KiB pages") && printed.contains(&named)) {
            bail!("no word of small pages and of {named}: {printed}");
        }
        ping(&site.pair.left, Pair::RIGHT, 50)?;
        ends(site)?;
        reserve(site, SIZE_2M, SIZE_2M.reserved)
    });
}

/// Pages of 1 GiB, reserved at boot.
pub(crate) fn of_1g(suite: &mut Suite, site: &mut Site) {
    suite.check("huge-pages::1G::bind", || {
        site.up()?.guest.must(&format!("mirach bind {}", DEVICES.join(" "))).map(drop)
    });
    of(suite, site, SIZE_1G);
}

fn of(suite: &mut Suite, site: &mut Site, size: Size) {
    let prefix = format!("huge-pages::{}", size.option);
    suite.check(&format!("{prefix}::used-and-given-back"), || used_and_given_back(site.up()?, size));
    suite.check(&format!("{prefix}::too-few-are-an-error-that-says-where"), || {
        let site = site.up()?;
        reserve(site, size, size.too_few)?;
        let (status, printed) = forwarder::fail(&mut site.guest, User::Root, &arguments(size))?;
        let named = size.setting();
        if status != 1 || !printed.contains(&named) {
            bail!("status {status}, where {named} was to be named: {printed}");
        }
        all_back(site, size, size.too_few)
    });
}

fn used_and_given_back(site: &mut Booted, size: Size) -> Result<()> {
    // For pages of 1 GiB this only asks whether the boot got them.
    reserve(site, size, size.reserved)?;
    all_back(site, size, size.reserved)?;
    forwarder::start(&mut site.guest, User::Root, &arguments(size))?;
    let during = free(site, size)?;
    if during >= size.reserved {
        bail!("all {during} pages of {} are free while mirach runs", size.option);
    }
    let used = page_sizes(site)?;
    if !used.contains(&size.kib) || used.contains(&SMALL_KIB) {
        bail!("mirach's memory has pages of {used:?} KiB, where {} was asked for", size.option);
    }
    ping(&site.pair.left, Pair::RIGHT, 50)?;
    ping(&site.pair.right, Pair::LEFT, 50)?;
    ends(site)?;
    all_back(site, size, size.reserved)
}

fn arguments(size: Size) -> String {
    format!("{} --poll adaptive --memory 32M --huge-page-size {}", CASE.ports(), size.option)
}

/// Nobody uses any of the reserved pages.
fn all_back(site: &mut Booted, size: Size, reserved: u32) -> Result<()> {
    let free = free(site, size)?;
    if free != reserved {
        bail!("{reserved} pages of {} are reserved, and only {free} of them free", size.option);
    }
    Ok(())
}

/// The page size, in KiB, of each piece of memory that the running mirach got for its devices.
fn page_sizes(site: &mut Booted) -> Result<Vec<u32>> {
    let printed = site.guest.must(
        "grep -E '^[0-9a-f]+-|^KernelPageSize' /proc/$(cat /tmp/mirach.pid)/smaps \
         | grep -A 1 memfd:mirach | grep KernelPageSize",
    )?;
    let number = |line: &str| line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok());
    printed.lines().map(|line| number(line).with_context(|| format!("no page size: {line}"))).collect()
}

fn free(site: &mut Booted, size: Size) -> Result<u32> {
    let text = site.guest.must(&format!("cat {}/free_hugepages", size.folder))?;
    text.trim().parse().with_context(|| format!("no number of pages: {text}"))
}

/// Reserves this many pages, as the error says that one should.
fn reserve(site: &mut Booted, size: Size, pages: u32) -> Result<()> {
    let setting = size.setting();
    let reserved = site.guest.must(&format!("echo {pages} > {setting} && cat {setting}"))?;
    if reserved.trim() != pages.to_string() {
        bail!("{pages} pages of {} were to be reserved, not {}", size.option, reserved.trim());
    }
    Ok(())
}
