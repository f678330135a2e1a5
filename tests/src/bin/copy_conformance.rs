//! The conformance suite of copy engines on a real device: `copy-conformance 0000:00:04.0 [type1|iommufd] [all|strays|removal] [--list] [PART OF A NAME]...`
//!
//! The device is bound to vfio-pci. `all`, which is also what happens when nothing is said, leaves nothing on any record; `strays` reaches for memory that is not mapped, which an IOMMU
//! reports. Both print a line for each check, `test kernel::NAME ... ok`, and libtest's closing line. `removal` copies until the device is pulled out.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use drivers::bus::PciId;
use drivers::ioat;
use lab::conformance::Kernel;
use lab::copy_conformance::{Engines, Expected, IoatDriver, Rig, await_removal, run, run_strays};
use lab::suite::Suite;
use vfio::Interface;

/// What is expected of a device with one engine, whose driver sees it as it is.
const ONE: Expected = Expected {
    not_offered: &[
        ("all-engines-work-at-the-same-time", "a function has one engine"),
        ("a-device-that-is-pulled-out-gives-all-jobs-back", "a guest cannot pull out its own device"),
        ("a-device-that-falls-silent-is-gone", "a guest cannot stop its own machine"),
    ],
    engines: 1,
    fails_alone: false,
    jobs: 5000,
};

/// What is done with the device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    Strays,
    Removal,
}

fn main() -> ExitCode {
    match try_main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("copy-conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1).peekable();
    let usage = "usage: copy-conformance PCI-ADDRESS [type1|iommufd] [all|strays|removal] [PART]...";
    let address = arguments.next().context(usage)?.parse()?;
    let interface = arguments
        .next_if(|word| ["type1", "iommufd"].contains(&word.as_str()))
        .map_or(Ok(Interface::Auto), |name| name.parse())?;
    let part = match arguments.next_if(|word| ["all", "strays", "removal"].contains(&word.as_str())).as_deref() {
        Some("strays") => Part::Strays,
        Some("removal") => Part::Removal,
        _ => Part::All,
    };
    let suite = Suite::from(arguments);
    let mut bus = Kernel::new(vec![address], interface)?;
    let id @ PciId { vendor, device, .. } = bus.id()?;
    if ioat::matches(id) {
        execute(suite, part, &mut Engines { bus, driver: IoatDriver, expected: ONE })
    } else {
        bail!("{address}: there is no driver for {vendor:04x}:{device:04x}");
    }
}

fn execute<R: Rig>(mut suite: Suite, part: Part, rig: &mut R) -> Result<ExitCode> {
    match part {
        Part::All => run(&mut suite, "kernel", rig),
        Part::Strays => run_strays(&mut suite, "kernel", rig),
        Part::Removal => {
            await_removal(rig, |word| {
                println!("{word}");
                // Whoever waits for it reads a file.
                let _ = std::io::stdout().flush();
            })?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    Ok(suite.finish())
}
