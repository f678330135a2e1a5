//! Exercises the bus on a real NVMe controller that is bound to vfio-pci: the smallest device with DMA, MSI-X and a
//! function reset, and one that every QEMU has (`-device nvme`). Nothing is read from or written to its storage.
//!
//!     exercise 0000:00:05.0 type1|iommufd|auto
//!
//! Prints a line for each promise of the bus, ends with `N passed, N failed`, and exits with 1 if one failed. It makes the device
//! reach for memory that was taken away from it, so the kernel's log shows one IOMMU fault.

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use drivers::bus::{Bar, BusError, Interrupt, PciAddress, PciFunction, Width, wait_until};
use hugemem::{DmaArray, Iova, IovaSpace, MemoryRequest, PageChoice, Region};
use vfio::{Function, Interface, SystemClock};

type Outcome = Result<(), Box<dyn Error>>;
type Case = fn(PciAddress, Interface) -> Outcome;

// Registers: NVM Express Base Specification 2.0, section 3.1.4.
const CONFIGURATION: u32 = 0x14;
const STATUS: u32 = 0x1c;
const QUEUE_SIZES: u32 = 0x24;
const SUBMISSION_QUEUE: u32 = 0x28;
const COMPLETION_QUEUE: u32 = 0x30;
const SUBMISSION_TAIL: u32 = 0x1000;
const ENTRIES: u32 = 16;
const NVME: u32 = 0x01_08_02;
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let (address, interface) = match arguments.as_slice() {
        [_, address, interface] => match (address.parse(), interface.parse()) {
            (Ok(address), Ok(interface)) => (address, interface),
            _ => return usage(),
        },
        _ => return usage(),
    };
    let cases: [(&str, Case); 7] = [
        ("open, learn and read", open),
        ("map and unmap", map),
        ("what cannot be is refused", refuse),
        ("interrupt and DMA", command),
        ("DMA after unmap fails", fault),
        ("reset", reset),
        ("let go while handles are left", let_go),
    ];
    let mut failed = 0;
    for (name, case) in cases {
        match case(address, interface) {
            Ok(()) => println!("ok      {name}"),
            Err(error) => {
                failed += 1;
                println!("FAILED  {name}: {error}");
            }
        }
    }
    println!("{} passed, {failed} failed", cases.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("usage: exercise 0000:00:05.0 type1|iommufd|auto");
    ExitCode::from(2)
}

fn ensure(holds: bool, otherwise: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise.into().into()) }
}

fn memory(function: &Function, bytes: usize) -> Result<Region, Box<dyn Error>> {
    let mut space = IovaSpace::new(&function.iova_ranges()?);
    let request = MemoryRequest { bytes, page: PageChoice::Size4K, node: None };
    Ok(request.allocate(&mut space)?.region)
}

fn open(address: PciAddress, interface: Interface) -> Outcome {
    let mut function = Function::open(address, interface)?;
    let id = function.id();
    println!(
        "        {} by {}: {:04x}:{:04x} class {:06x}",
        function.name(),
        function.interface(),
        id.vendor,
        id.device,
        id.class
    );
    println!("        ranges {:x?}, {} vectors", function.iova_ranges()?, function.interrupt_count());
    ensure(id.class == NVME, "it is no NVMe controller")?;
    ensure(function.read_config(0)? == u32::from(id.device) << 16 | u32::from(id.vendor), "the id changed")?;
    ensure(function.interrupt_count() > 0, "it has no MSI-X")?;
    let bar = function.bar(0)?;
    ensure(bar.load::<u64>(0) != u64::MAX && bar.load::<u32>(8) >= 0x1_0000, "the registers do not answer")?;
    function.set_bus_master(true)?;
    ensure(function.read_config(4)? & 6 == 6, "bus mastering did not go on")?;
    function.set_bus_master(false)?;
    ensure(function.read_config(4)? & 6 == 2, "bus mastering did not go off")
}

fn map(address: PciAddress, interface: Interface) -> Outcome {
    let mut function = Function::open(address, interface)?;
    let region = memory(&function, 1 << 20)?;
    for _ in 0..3 {
        function.map(&region)?;
        function.map(&region)?;
        function.unmap(&region)?;
        ensure(function.unmap(&region).is_err(), "unmapping twice worked")?;
    }
    // A region that is still mapped when the function goes must not keep it from being opened again.
    function.map(&region)?;
    drop(function);
    Function::open(address, interface)?.map(&region)?;
    Ok(())
}

fn refuse(address: PciAddress, interface: Interface) -> Outcome {
    let mut function = Function::open(address, interface)?;
    let region = memory(&function, 1 << 16)?;
    function.map(&region)?;
    let other = Region::on_heap(1 << 16, region.iova())?;
    let outside = Region::on_heap(1 << 16, Iova::new(1 << 62))?;
    let count = function.interrupt_count();
    let second = Function::open(address, interface).map(drop);
    let wrong: [(&str, Result<(), BusError>); 6] = [
        ("two regions at one IOVA", function.map(&other)),
        ("an IOVA that the IOMMU cannot reach", function.map(&outside)),
        ("more vectors than there are", function.interrupts(count + 1).map(drop)),
        ("a BAR that is none", function.bar(5).map(drop)),
        ("configuration space beyond its end", function.read_config(0xfffc).map(drop)),
        ("opening it a second time", second),
    ];
    for (what, result) in wrong {
        match result {
            Ok(()) => return Err(format!("{what} worked").into()),
            Err(error) => println!("        {what}: {error}"),
        }
    }
    Ok(())
}

/// A controller with its administration queues up.
struct Controller {
    function: Function,
    bar: vfio::Bar,
    region: Region,
    submissions: DmaArray<AtomicU32>,
    completions: DmaArray<AtomicU32>,
    page: DmaArray<AtomicU32>,
    used: u32,
}

impl Controller {
    fn start(address: PciAddress, interface: Interface) -> Result<Self, Box<dyn Error>> {
        let mut function = Function::open(address, interface)?;
        let region = memory(&function, 1 << 16)?;
        function.map(&region)?;
        let bar = function.bar(0)?;
        function.set_bus_master(true)?;
        bar.store(CONFIGURATION, 0_u32);
        ensure(
            wait_until(&SystemClock::new(), LIMIT, Duration::from_millis(1), || bar.load::<u32>(STATUS) & 1 == 0),
            "the controller does not stop",
        )?;
        let submissions = region.array(ENTRIES as usize * 16, 4096)?;
        let completions = region.array(ENTRIES as usize * 4, 4096)?;
        bar.store(QUEUE_SIZES, (ENTRIES - 1) * 0x1_0001);
        bar.store(SUBMISSION_QUEUE, submissions.iova().raw());
        bar.store(COMPLETION_QUEUE, completions.iova().raw());
        // Enable, with entries of 64 and 16 bytes.
        bar.publish(CONFIGURATION, 1_u32 | 6 << 16 | 4 << 20);
        ensure(
            wait_until(&SystemClock::new(), LIMIT, Duration::from_millis(1), || bar.load::<u32>(STATUS) & 1 == 1),
            "the controller does not start",
        )?;
        let page = region.array(1024, 4096)?;
        Ok(Self { function, bar, region, submissions, completions, page, used: 0 })
    }

    /// Lets the controller write its identity to `to`; gives the status of the completion.
    fn identify(&mut self, to: Iova, done: impl FnOnce() -> Outcome) -> Result<u32, Box<dyn Error>> {
        let first = self.used as usize * 16;
        // Identify (opcode 6), one data pointer, the controller's data structure (1).
        let (low, high) = (u32::narrow(to.raw()), u32::narrow(to.raw() >> 32));
        let command = [6, 0, 0, 0, 0, 0, low, high, 0, 0, 1, 0, 0, 0, 0, 0];
        for (word, value) in self.submissions.iter().skip(first).zip(command) {
            word.store(value, Ordering::Relaxed);
        }
        let entry = self.used as usize * 4 + 3;
        self.used += 1;
        self.bar.publish(SUBMISSION_TAIL, self.used);
        done()?;
        let last = self.completions.get(entry).ok_or("too many commands")?;
        let finished = || last.load(Ordering::Acquire) & 1 << 16 != 0;
        ensure(
            wait_until(&SystemClock::new(), LIMIT, Duration::from_millis(1), finished),
            "the command does not finish",
        )?;
        fence(Ordering::Acquire);
        Ok(last.load(Ordering::Relaxed) >> 17)
    }
}

fn command(address: PciAddress, interface: Interface) -> Outcome {
    let mut controller = Controller::start(address, interface)?;
    // Twice, the second time with another number of vectors, to see that the first ones are replaced.
    for count in [controller.function.interrupt_count().min(4), 1] {
        let mut vectors = controller.function.interrupts(count)?;
        ensure(vectors.len() == usize::from(count), "another number of vectors")?;
        let vector = vectors.first_mut().ok_or("no vector")?;
        ensure(!vector.wait(Duration::ZERO)?, "an interrupt before the command")?;
        let to = controller.page.iova();
        let status = controller.identify(to, || ensure(vector.wait(LIMIT)?, "no interrupt came"))?;
        ensure(status == 0, format!("the command ended with status {status:#x}"))?;
        let id = controller.page.first().map_or(0, |word| word.swap(0, Ordering::Relaxed)) & 0xffff;
        ensure(id == u32::from(controller.function.id().vendor), format!("the wrong data came: {id:#x}"))?;
    }
    ensure(controller.function.interrupts(0)?.is_empty(), "vectors although none were wanted")
}

fn fault(address: PciAddress, interface: Interface) -> Outcome {
    let mut controller = Controller::start(address, interface)?;
    let target = Region::on_heap(4096, controller.region.iova().checked_add(1 << 24).ok_or("no such IOVA")?)?;
    controller.function.map(&target)?;
    let words = target.array::<AtomicU32>(1024, 4096)?;
    let first = words.first().ok_or("no memory")?;
    let status = controller.identify(target.iova(), || Ok(()))?;
    ensure(status == 0 && first.swap(0, Ordering::Relaxed) != 0, "mapped, and the device does not reach it")?;
    controller.function.unmap(&target)?;
    // The controller may or may not notice. The memory is what counts.
    let status = controller.identify(target.iova(), || Ok(()))?;
    println!("        after unmapping, the command ended with status {status:#x}");
    ensure(first.load(Ordering::Relaxed) == 0, "the device reached memory that had been taken away")
}

fn reset(address: PciAddress, interface: Interface) -> Outcome {
    let mut controller = Controller::start(address, interface)?;
    ensure(controller.bar.load::<u32>(CONFIGURATION) & 1 == 1, "the controller does not run")?;
    controller.function.reset()?;
    ensure(controller.bar.load::<u32>(CONFIGURATION) & 1 == 0, "the controller runs after the reset")?;
    ensure(controller.function.read_config(4)? & 6 == 2, "bus mastering is on after the reset")
}

fn let_go(address: PciAddress, interface: Interface) -> Outcome {
    let controller = Controller::start(address, interface)?;
    let left = controller.bar.clone();
    drop(controller.function);
    ensure(left.load::<u32>(STATUS) == u32::MAX, "the handle still reaches the device")?;
    left.store(CONFIGURATION, 0_u32);
    for other in [Interface::Type1, interface] {
        let mut function = Function::open(address, other)?;
        ensure(function.bar(0)?.load::<u32>(STATUS) & 1 == 0, "the controller still ran when it was opened again")?;
    }
    drop(left);
    Ok(())
}
