//! A guest to try things in: boots the one that the suite `guest-virtio` uses and runs each line of standard input in
//! it as shell.
//!
//! ```sh
//! cargo xtask setup
//! cargo build --release --target x86_64-unknown-linux-musl -p mirach
//! echo 'mirach devices' | cargo run -p mirach-tests --example guest -- stock
//! echo '/tools/ethtool -i eth0' | cargo run -p mirach-tests --example guest -- stock ixgbe
//! ```
//!
//! The arguments are `stock` (Debian's kernel) or `iommufd` (the small one), and `virtio`, `ixgbe` or `ixgbe-joined`. A
//! line that starts with `left ` or `right ` is a command to run in that namespace, outside of the guest; one that starts
//! with `card ` is for the first process that plays a card.

use std::io::BufRead;
use std::time::Duration;

use anyhow::{Result, bail};
use lab::cache::Kernel;
use lab::process::run;
use lab::site::{Devices, Plan, Site};

/// How long a line may take.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    lab::leftovers::remove();
    let kernel = match std::env::args().nth(1).as_deref() {
        Some("stock") | None => Kernel::Stock,
        Some("iommufd") => Kernel::Iommufd,
        Some(other) => bail!("there is no kernel `{other}`: stock or iommufd"),
    };
    let devices = match std::env::args().nth(2).as_deref() {
        Some("virtio") | None => Devices::VirtioNet { packed: true, queue_pairs: 2 },
        Some("ixgbe") => Devices::Ixgbe,
        Some("ixgbe-joined") => Devices::IxgbeJoined,
        Some(other) => bail!("there are no devices `{other}`: virtio, ixgbe or ixgbe-joined"),
    };
    let tools = &["ethtool", "ip", "iperf3", "ping"];
    let mut site = Site::new(Plan { tools, ..Plan::new(kernel, devices) });
    let site = site.up()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        println!("$ {line}");
        let outside = [(&site.pair.left, "left "), (&site.pair.right, "right ")];
        if let Some((namespace, command)) =
            outside.into_iter().find_map(|(namespace, word)| Some((namespace, line.strip_prefix(word)?)))
        {
            match run(&mut namespace.command(&["sh", "-c", command])) {
                Ok(printed) => print!("{printed}"),
                Err(error) => println!("{error:#}"),
            }
            continue;
        }
        if let Some((card, words)) = site.cards.first_mut().zip(line.strip_prefix("card ")) {
            card.tell(words)?;
            continue;
        }
        let answer = site.guest.run(&line, LIMIT)?;
        print!("{}", answer.output);
        if answer.status != 0 {
            println!("(status {})", answer.status);
        }
    }
    for card in &site.cards {
        print!("{}", card.log());
    }
    Ok(())
}
