//! `mirach bind` and `mirach unbind`: devices change hands between the kernel and mirach.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;
use vfio::Sysfs;
use vfio::bind::{Binding, Return};
use vfio::discover::resolve;
use vfio::network::Network;

use crate::cli::{BindArguments, UnbindArguments};
use crate::output;

/// Runs `mirach bind`. A device that is refused does not keep the others from being bound.
pub(crate) fn bind(arguments: &BindArguments) -> anyhow::Result<ExitCode> {
    let sysfs = Sysfs::default();
    let network = Network::of_this_machine().context("cannot read addresses and routes")?;
    let mut failed = false;
    for text in &arguments.devices {
        let bound = resolve(&sysfs, text)
            .map_err(anyhow::Error::from)
            .and_then(|address| Ok(vfio::bind::bind(&sysfs, &network, address, arguments.force)?));
        match bound {
            Ok(binding) if arguments.json => output::json(&binding_object(&binding))?,
            Ok(binding) => output::line(&binding_text(&binding))?,
            Err(error) => {
                failed = true;
                report(text, &error, arguments.json)?;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs `mirach unbind`.
pub(crate) fn unbind(arguments: &UnbindArguments) -> anyhow::Result<ExitCode> {
    let sysfs = Sysfs::default();
    let mut failed = false;
    for text in &arguments.devices {
        let returned = resolve(&sysfs, text)
            .map_err(anyhow::Error::from)
            .and_then(|address| Ok(vfio::bind::unbind(&sysfs, address)?));
        match returned {
            Ok(returned) if arguments.json => output::json(&return_object(&returned))?,
            Ok(returned) => output::line(&return_text(&returned))?,
            Err(error) => {
                failed = true;
                report(text, &error, arguments.json)?;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn report(text: &str, error: &anyhow::Error, json: bool) -> std::io::Result<()> {
    let error = output::sentence(error);
    if json {
        output::json(&json!({ "device": text, "error": error }))?;
    }
    eprintln!("error: {error}");
    Ok(())
}

fn binding_text(binding: &Binding) -> String {
    let node = binding.node.display();
    let mut text = match (&binding.former, binding.already) {
        (_, true) => format!("{}: bound to vfio-pci already ({node})", binding.address),
        (Some(former), false) => format!("{}: taken from {former}, bound to vfio-pci ({node})", binding.address),
        (None, false) => format!("{}: bound to vfio-pci ({node})", binding.address),
    };
    if !binding.blockers.is_empty() {
        let others: Vec<String> =
            binding.blockers.iter().map(|(address, driver)| format!("{address} ({driver})")).collect();
        text.push_str(&format!(
            "; it can be used once the other devices of its IOMMU group are bound too: {}",
            others.join(", ")
        ));
    }
    text
}

fn binding_object(binding: &Binding) -> serde_json::Value {
    let blocker = |(address, driver): &(drivers::bus::PciAddress, String)| json!({ "address": address.to_string(), "driver": driver });
    json!({
        "device": binding.address.to_string(),
        "already": binding.already,
        "former_driver": binding.former,
        "node": binding.node,
        "blockers": binding.blockers.iter().map(blocker).collect::<Vec<_>>(),
    })
}

fn return_text(returned: &Return) -> String {
    let address = returned.address;
    let driver = match &returned.driver {
        Some(driver) => format!("driver {driver}"),
        None => "no driver".to_owned(),
    };
    if returned.already {
        return format!("{address}: was not bound to vfio-pci ({driver})");
    }
    match returned.interfaces.as_slice() {
        [] => format!("{address}: given back to the kernel, {driver}"),
        interfaces => format!("{address}: given back to the kernel, {driver}, interface {}", interfaces.join(", ")),
    }
}

fn return_object(returned: &Return) -> serde_json::Value {
    json!({
        "device": returned.address.to_string(),
        "already": returned.already,
        "driver": returned.driver,
        "interfaces": returned.interfaces,
    })
}
