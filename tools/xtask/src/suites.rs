//! The suites by name: what each needs and which commands it is made of.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{cargo, passed, root, target};
use crate::setup::Need;

/// One suite of `cargo xtask test`.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    about: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) steps: fn() -> Vec<Step>,
}

/// One command of a suite.
pub(crate) struct Step {
    pub(crate) command: Command,
    pub(crate) meaning: Meaning,
}

/// What a command's result counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Its output has libtest's closing lines.
    Tests,
    /// It is itself one test: passed when it succeeds.
    Check,
    /// It makes what the next steps need: no test when it succeeds, one failed test when it does not.
    Build,
}

/// All suites, the quick ones first.
pub(crate) const SUITES: &[Suite] = &[
    Suite { name: "lint", about: "formatting, clippy", needs: &[Need::Targets], steps: lint },
    Suite {
        name: "unit",
        about: "unit and doc tests of all crates; hugemem and drivers build without an OS",
        needs: &[Need::Targets],
        steps: unit,
    },
    Suite { name: "loom", about: "lock-free code under every interleaving", needs: &[], steps: loom },
    Suite {
        name: "flow",
        about: "the flow table with a million flows and under attack, and a million mutated frames",
        needs: &[],
        steps: flow,
    },
    Suite {
        name: "rules",
        about: "security groups beside a slow model: a million rules and packets, and conversations through flows",
        needs: &[],
        steps: rules,
    },
    Suite {
        name: "lying-device",
        about: "the virtio-net driver against a device that lies",
        needs: &[],
        steps: lying_device,
    },
    Suite { name: "model-ixgbe", about: "the software 82599 by itself", needs: &[], steps: model_ixgbe },
    Suite { name: "model-ioat", about: "the software I/OAT copy engine by itself", needs: &[], steps: model_ioat },
    Suite { name: "model-dsa", about: "the software DSA by itself", needs: &[], steps: model_dsa },
    Suite {
        name: "faults-ixgbe",
        about: "the ixgbe driver against a card with faults",
        needs: &[],
        steps: faults_ixgbe,
    },
    Suite {
        name: "faults-dma",
        about: "the I/OAT and DSA drivers against copy engines with faults, and over sockets",
        needs: &[],
        steps: faults_dma,
    },
    Suite {
        name: "conformance",
        about: "one suite for every driver: on models in this process, and over vfio-user sockets",
        needs: &[Need::Targets],
        steps: conformance,
    },
    Suite { name: "demo", about: "`mirach demo` as a user without rights", needs: &[], steps: demo },
    Suite {
        name: "guest-virtio",
        about: "the binary between two virtio-net devices in QEMU guests with an IOMMU",
        needs: &[Need::Targets, Need::Guests],
        steps: guest_virtio,
    },
    Suite {
        name: "linux-ixgbe",
        about: "the stock Linux driver on the software 82599 in QEMU guests",
        needs: &[Need::Targets, Need::Guests],
        steps: linux_ixgbe,
    },
    Suite {
        name: "linux-dma",
        about: "the stock drivers of Linux and DPDK on software I/OAT and DSA copy engines in QEMU guests",
        needs: &[Need::Targets, Need::Guests, Need::Dpdk],
        steps: linux_dma,
    },
    Suite {
        name: "guest-ixgbe",
        about: "the binary between two software 82599 cards in QEMU guests, and the conformance suite there",
        needs: &[Need::Targets, Need::Guests],
        steps: guest_ixgbe,
    },
    Suite {
        name: "guest-dma",
        about: "our drivers on software copy engines in QEMU guests, through the kernel's VFIO",
        needs: &[Need::Targets, Need::Guests],
        steps: guest_dma,
    },
    Suite {
        name: "overlay-linux",
        about: "tunnels to VXLAN devices of the kernel, over IPv4 and IPv6, and to Geneve devices of a guest",
        needs: &[Need::Guests, Need::Watch],
        steps: overlay_linux,
    },
    Suite {
        name: "switch",
        about: "tenants, rules, routes, limits, slices and new flows between machines and hosts at the binary",
        needs: &[Need::Watch],
        steps: switch,
    },
    Suite {
        name: "control",
        about: "the control socket and the commands of the binary, files that are wrong, rights, captures",
        needs: &[Need::Watch],
        steps: control,
    },
    Suite {
        name: "quiet-engine",
        about: "an engine under load makes no system call but signals, and takes no lock and no memory",
        needs: &[Need::Watch],
        steps: quiet_engine,
    },
    Suite {
        name: "copy-order",
        about: "frames between emulated machines, copied by a device that is late, fails, halts and vanishes",
        needs: &[],
        steps: copy_order,
    },
    Suite {
        name: "vhost-restart",
        about: "the binary is killed under load, with four emulated machines attached by vhost-user",
        needs: &[],
        steps: vhost_restart,
    },
    Suite {
        name: "hostile-vm",
        about: "machines at the binary that break every rule, under load, while others talk to each other",
        needs: &[],
        steps: hostile_vm,
    },
    Suite {
        name: "noisy-neighbour",
        about: "one machine sends as much as it can, and seven others at the same engine hardly notice",
        needs: &[],
        steps: noisy_neighbour,
    },
    Suite {
        name: "vhost-dpdk",
        about: "our vhost-user back-end with DPDK's front-end, and our front-end with DPDK's back-end",
        needs: &[Need::Dpdk],
        steps: vhost_dpdk,
    },
    Suite {
        name: "vhost-guests",
        about: "QEMU guests with stock Linux, and with DPDK, attached to the binary by vhost-user",
        needs: &[Need::Guests, Need::Dpdk],
        steps: vhost_guests,
    },
];

/// The suites with these names, or all of them; a name that is none's is the error.
pub(crate) fn choose<'a>(names: &[&'a str]) -> Result<Vec<&'static Suite>, &'a str> {
    match names.iter().find(|name| !SUITES.iter().any(|suite| suite.name == **name)) {
        Some(unknown) => Err(unknown),
        None => Ok(SUITES.iter().filter(|suite| names.is_empty() || names.contains(&suite.name)).collect()),
    }
}

/// Prints the names of the suites.
pub(crate) fn list() {
    for suite in SUITES {
        println!("{:<14} {}", suite.name, suite.about);
    }
}

fn step(meaning: Meaning, arguments: &[&str]) -> Step {
    Step { command: quick(arguments), meaning }
}

/// A cargo command that builds release binaries in less time: optimising over all of a crate, and of all crates together, takes minutes for each and changes
/// nothing that a test may rely on.
fn quick(arguments: &[&str]) -> Command {
    let mut command = cargo(arguments);
    command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    command
}

fn lint() -> Vec<Step> {
    vec![
        step(Meaning::Check, &["fmt", "--all", "--check"]),
        step(Meaning::Check, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        // The end-to-end tests only run by name, which also keeps them out of `--all-targets`.
        step(Meaning::Check, &["clippy", "-p", "mirach-tests", "--test", "*", "--", "-D", "warnings"]),
    ]
}

fn unit() -> Vec<Step> {
    // The software 82599 and the copy engine are suites of their own, and so are tests of drivers against a device that lies or fails.
    let mut models = cargo(&["test", "-p", "mirach-models", "--no-fail-fast", "--lib"]);
    for name in integration_tests("tools/models") {
        if !["lying_device", "leaks_ixgbe"].contains(&name.as_str()) {
            models.args(["--test", &name]);
        }
    }
    models.args(["--", "--skip", "ixgbe::", "--skip", "ioat::", "--skip", "dsa::"]);
    vec![
        step(Meaning::Tests, &["test", "--workspace", "--exclude", "mirach-models", "--no-fail-fast"]),
        Step { command: models, meaning: Meaning::Tests },
        step(Meaning::Tests, &["test", "-p", "mirach-models", "--doc"]),
        step(Meaning::Check, &["build", "-p", "mirach-hugemem", "--target", "x86_64-unknown-none"]),
        step(Meaning::Check, &["build", "-p", "mirach-drivers", "--target", "x86_64-unknown-none"]),
    ]
}

/// The names of a crate's integration tests.
fn integration_tests(package: &str) -> Vec<String> {
    let files = std::fs::read_dir(root().join(package).join("tests")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        files.filter_map(|file| file.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned)).collect();
    names.sort();
    names
}

fn loom() -> Vec<Step> {
    let step = |package| {
        let mut command = quick(&["test", "-p", package, "--release", "--lib", "loom"]);
        command
            .env("RUSTFLAGS", "--cfg loom")
            // Other flags would make cargo build everything again each time the folder were shared.
            .env("CARGO_TARGET_DIR", target().join("loom"));
        Step { command, meaning: Meaning::Tests }
    };
    vec![step("mirach-hugemem"), step("mirach-dataplane")]
}

/// At full speed: threads meet more often.
fn flow() -> Vec<Step> {
    vec![step(Meaning::Tests, &["test", "-p", "mirach-dataplane", "--release", "--lib", "--", "flow::", "headers::"])]
}

fn rules() -> Vec<Step> {
    vec![step(Meaning::Tests, &["test", "-p", "mirach-dataplane", "--test", "rules"])]
}

fn lying_device() -> Vec<Step> {
    vec![step(Meaning::Tests, &["test", "-p", "mirach-models", "--test", "lying_device"])]
}

fn model_ixgbe() -> Vec<Step> {
    vec![step(Meaning::Tests, &["test", "-p", "mirach-models", "--lib", "ixgbe::"])]
}

fn model_dsa() -> Vec<Step> {
    vec![step(Meaning::Tests, &["test", "-p", "mirach-models", "--lib", "dsa::"])]
}

fn model_ioat() -> Vec<Step> {
    vec![step(Meaning::Tests, &["test", "-p", "mirach-models", "--lib", "ioat::"])]
}

fn faults_ixgbe() -> Vec<Step> {
    vec![step(Meaning::Tests, &["test", "-p", "mirach-models", "--test", "faults_ixgbe", "--test", "leaks_ixgbe"])]
}

fn faults_dma() -> Vec<Step> {
    vec![step(Meaning::Tests, &["test", "-p", "mirach-models", "--test", "faults_dma"])]
}

fn conformance() -> Vec<Step> {
    let mut steps = guest_programs(&[]);
    steps.push(step(Meaning::Tests, &["test", "-p", "mirach-tests", "--test", "conformance"]));
    steps
}

fn demo() -> Vec<Step> {
    on_host("demo")
}

/// Builds the guests' static binaries: `mirach`, and those that the end-to-end tests bring.
fn guest_programs(names: &[&str]) -> Vec<Step> {
    let build = |arguments: &[&str]| {
        let mut command = quick(&["build", "--release", "--target", "x86_64-unknown-linux-musl"]);
        command.args(arguments);
        Step { command, meaning: Meaning::Build }
    };
    let mut steps = vec![build(&["-p", "mirach"])];
    steps.extend(names.iter().map(|name| build(&["-p", "mirach-tests", "--bin", name])));
    steps
}

fn guest_virtio() -> Vec<Step> {
    let musl = "x86_64-unknown-linux-musl";
    let mut steps = guest_programs(&["stray-dma"]);
    steps.extend([
        step(Meaning::Build, &["build", "--release", "--target", musl, "-p", "mirach-vfio", "--example", "exercise"]),
        step(Meaning::Tests, &["test", "-p", "mirach-tests", "--test", "guest_virtio"]),
    ]);
    steps
}

fn linux_ixgbe() -> Vec<Step> {
    let mut steps = guest_programs(&[]);
    steps.push(step(Meaning::Tests, &["test", "-p", "mirach-tests", "--test", "linux_ixgbe"]));
    steps
}

fn linux_dma() -> Vec<Step> {
    let mut steps = guest_programs(&[]);
    steps.push(step(Meaning::Tests, &["test", "-p", "mirach-tests", "--test", "linux_dma"]));
    steps
}

fn guest_ixgbe() -> Vec<Step> {
    let mut steps = guest_programs(&["conformance"]);
    steps.push(step(Meaning::Tests, &["test", "-p", "mirach-tests", "--test", "guest_ixgbe"]));
    steps
}

fn guest_dma() -> Vec<Step> {
    let mut steps = guest_programs(&["copy-conformance"]);
    steps.push(step(Meaning::Tests, &["test", "-p", "mirach-tests", "--test", "guest_dma"]));
    steps
}

fn overlay_linux() -> Vec<Step> {
    on_host("overlay_linux")
}

fn switch() -> Vec<Step> {
    on_host("switch")
}

fn control() -> Vec<Step> {
    on_host("control")
}

fn quiet_engine() -> Vec<Step> {
    on_host("quiet_engine")
}

fn copy_order() -> Vec<Step> {
    vec![step(Meaning::Tests, &["test", "-p", "mirach-tests", "--test", "copy_order"])]
}

fn vhost_restart() -> Vec<Step> {
    on_host("vhost_restart")
}

fn hostile_vm() -> Vec<Step> {
    on_host("hostile_vm")
}

fn noisy_neighbour() -> Vec<Step> {
    on_host("noisy_neighbour")
}

fn vhost_dpdk() -> Vec<Step> {
    on_host("vhost_dpdk")
}

fn vhost_guests() -> Vec<Step> {
    on_host("vhost_guests")
}

/// The release binary, and a test that runs it on this host.
fn on_host(test: &str) -> Vec<Step> {
    vec![
        step(Meaning::Build, &["build", "--release", "-p", "mirach"]),
        step(Meaning::Tests, &["test", "-p", "mirach-tests", "--test", test]),
    ]
}

/// Miri on the unit tests of the crate that has unsafe code and runs without the kernel's help.
pub(crate) fn miri() -> Result<Command> {
    let Ok(true) = Command::new("cargo").args(["+nightly", "miri", "--version"]).output().map(|it| it.status.success())
    else {
        bail!("there is no Miri: run `rustup component add miri rust-src --toolchain nightly`");
    };
    // The cargo that runs this task is the pinned one; Miri needs the nightly, found through rustup.
    let mut command = Command::new("cargo");
    command.args(["+nightly", "miri", "test", "-p", "mirach-hugemem", "--lib"]).current_dir(root());
    for inherited in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC"] {
        command.env_remove(inherited);
    }
    command.env("CARGO_TARGET_DIR", target().join("miri")).env("MIRIFLAGS", "-Zmiri-disable-isolation");
    Ok(command)
}

/// The release binary's own benchmark.
pub(crate) fn bench(arguments: &[&str]) -> Command {
    let mut command = cargo(&["run", "--release", "-p", "mirach", "--", "bench"]);
    command.args(arguments);
    command
}

/// The flow table by itself.
pub(crate) fn bench_flows(arguments: &[&str]) -> Command {
    let mut command = cargo(&["run", "--release", "-q", "-p", "mirach-tests", "--bin", "flow-bench", "--"]);
    command.args(arguments);
    command
}

/// The release binary beside a peer, between vhost-user ports: the benchmark called `name` of the end-to-end tests.
pub(crate) fn bench_beside(name: &str, arguments: &[&str]) -> Result<()> {
    passed(&mut cargo(&["build", "--release", "-p", "mirach"]))?;
    passed(&mut cargo(&["build", "--release", "-p", "mirach-tests", "--bin", "vhost-generator"]))?;
    let mut command = cargo(&["run", "--release", "-q", "-p", "mirach-tests", "--bin", name, "--"]);
    command.args(arguments);
    passed(&mut command)
}
