//! The configuration of the switch: as a whole, and part by part.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Methods, Nothing, failed};
use crate::config::Desired;
use crate::control::caller::Caller;
use crate::control::rpc::RpcError;
use crate::forwarder::{self, Access as _};
use crate::network::config::{
    Config, GroupConfig, MirrorConfig, NetworkConfig, PortConfig, Prefix, RouteConfig, SliceConfig, TunnelConfig,
    UnderlayConfig,
};
use crate::port::NamedSpec;

/// What the forwarder is to be: its ports and its switch.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The content of a configuration file.
    text: String,
    /// The file's name, for messages.
    file: Option<PathBuf>,
}

/// What the switch is to be. Ports that are open stay open.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The switch.
    config: Config,
}

/// What was changed, or would be.
#[derive(Serialize, JsonSchema)]
pub(super) struct Applied {
    /// A line each: `+` comes, `-` goes, `~` changes. None when everything is so already.
    lines: Vec<String>,
    /// What the user should know, a sentence each.
    notices: Vec<String>,
}

/// The configuration that is in force.
#[derive(Serialize, JsonSchema)]
pub(super) struct InForce {
    /// The switch.
    config: Config,
    /// A configuration file that says the same, with the ports that are open.
    text: String,
}

/// A part by its name.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ByName {
    /// Its name.
    name: String,
}

/// A port's place in a network.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ByPort {
    /// The port.
    name: String,
    /// The network; all of the port's when it is left out.
    network: Option<String>,
}

/// A route.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ByPrefix {
    /// The network that packets come from.
    network: String,
    /// Where they go.
    prefix: Prefix,
}

/// A tunnel.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ByRemote {
    /// The network.
    network: String,
    /// The other host.
    remote: IpAddr,
}

pub(super) fn apply(methods: &Methods, _: &Caller, file: File) -> Result<Applied, RpcError> {
    make(methods, &file.read()?)
}

pub(super) fn plan(methods: &Methods, _: &Caller, file: File) -> Result<Applied, RpcError> {
    look(methods, &file.read()?)
}

pub(super) fn apply_switch(methods: &Methods, _: &Caller, wanted: Wanted) -> Result<Applied, RpcError> {
    make(methods, &Desired::from_network(wanted.config))
}

pub(super) fn plan_switch(methods: &Methods, _: &Caller, wanted: Wanted) -> Result<Applied, RpcError> {
    look(methods, &Desired::from_network(wanted.config))
}

fn make(methods: &Methods, desired: &Desired) -> Result<Applied, RpcError> {
    forwarder::apply(&mut methods.access(), desired).map(Applied::from).map_err(failed)
}

fn look(methods: &Methods, desired: &Desired) -> Result<Applied, RpcError> {
    forwarder::plan(&mut methods.access(), desired).map(Applied::from).map_err(failed)
}

impl File {
    fn read(self) -> Result<Desired, RpcError> {
        let file = self.file.unwrap_or_else(|| "configuration".into());
        Desired::from_toml(&self.text, &file).map_err(failed)
    }
}

impl From<forwarder::Applied> for Applied {
    fn from(forwarder::Applied { lines, notices }: forwarder::Applied) -> Self {
        Self { lines, notices }
    }
}

pub(super) fn get(methods: &Methods, _: &Caller, _: Nothing) -> Result<InForce, RpcError> {
    let config = methods.config();
    let network = toml::to_string(&config).map_err(failed)?;
    Ok(InForce { text: ports(methods) + &network, config })
}

/// The ports that are open, as a file says them: pairs first.
fn ports(methods: &Methods) -> String {
    let listed = methods.access().with(|forwarder| forwarder.list());
    let spec = |name: &str| -> Option<NamedSpec> {
        let port = listed.iter().find(|port| port.name == name)?;
        Some(NamedSpec { name: port.name.parse().ok(), ..port.spec.clone()? })
    };
    let mut text = String::new();
    let mut add = |name: &str| match spec(name) {
        Some(spec) => text.push_str(&format!("    {},\n", toml::Value::String(spec.to_string()))),
        None => text.push_str(&format!("    # {name} was opened by other means\n")),
    };
    for port in &listed {
        let first = |partner: &String| {
            let place = |name: &str| listed.iter().position(|port| port.name == name);
            place(&port.name) < place(partner)
        };
        if let Some(partner) = port.partner.as_ref().filter(|partner| first(partner)) {
            add(&port.name);
            add(partner);
        }
    }
    listed.iter().filter(|port| port.switched).for_each(|port| add(&port.name));
    let alone = listed.iter().filter(|port| port.partner.is_none() && !port.switched);
    let alone: String = alone.map(|port| format!("    # {} is joined to nothing\n", port.name)).collect();
    format!("ports = [\n{text}{alone}]\n\n")
}

/// Edits the configuration that is in force.
fn change(methods: &Methods, edit: impl FnOnce(&mut Config) -> Result<(), String>) -> Result<Applied, RpcError> {
    forwarder::change(&mut methods.access(), edit).map(Applied::from).map_err(failed)
}

/// Puts `new` in the place of that which is the same, or behind all others.
fn put<T>(list: &mut Vec<T>, new: T, same: impl Fn(&T, &T) -> bool) {
    match list.iter_mut().find(|old| same(old, &new)) {
        Some(old) => *old = new,
        None => list.push(new),
    }
}

/// Takes out what is meant, which has to be there.
fn cut<T>(list: &mut Vec<T>, what: &str, meant: impl Fn(&T) -> bool) -> Result<(), String> {
    let before = list.len();
    list.retain(|one| !meant(one));
    if list.len() < before { Ok(()) } else { Err(format!("there is no {what}")) }
}

macro_rules! parts {
    ($($set:ident($new:ident: $config:ty) in $list:ident, $same:expr; $del:ident($by:ident: $key:ty), $what:expr, $meant:expr;)*) => {$(
        pub(super) fn $set(methods: &Methods, _: &Caller, $new: $config) -> Result<Applied, RpcError> {
            change(methods, move |config| {
                put(&mut config.$list, $new, $same);
                Ok(())
            })
        }

        pub(super) fn $del(methods: &Methods, _: &Caller, $by: $key) -> Result<Applied, RpcError> {
            change(methods, move |config| cut(&mut config.$list, &$what, $meant))
        }
    )*};
}

parts! {
    slice_set(new: SliceConfig) in slices, |old, new| old.name == new.name;
    slice_del(by: ByName), format!("slice `{}`", by.name), |one| one.name == by.name;

    network_set(new: NetworkConfig) in networks, |old, new| old.name == new.name;
    network_del(by: ByName), format!("network `{}`", by.name), |one| one.name == by.name;

    group_set(new: GroupConfig) in groups, |old, new| old.name == new.name;
    group_del(by: ByName), format!("group `{}`", by.name), |one| one.name == by.name;

    attachment_set(new: PortConfig) in ports, |old, new| old.name == new.name && old.network == new.network;
    attachment_del(by: ByPort),
        match &by.network {
            Some(network) => format!("port `{}` in network `{network}`", by.name),
            None => format!("port `{}` in any network", by.name),
        },
        |one| one.name == by.name && by.network.as_ref().is_none_or(|network| one.network == *network);

    route_set(new: RouteConfig) in routes, |old, new| old.network == new.network && old.prefix == new.prefix;
    route_del(by: ByPrefix), format!("route of network `{}` to {}", by.network, by.prefix),
        |one| one.network == by.network && one.prefix == by.prefix;

    mirror_set(new: MirrorConfig) in mirrors, |old, new| old.name == new.name;
    mirror_del(by: ByName), format!("mirror `{}`", by.name), |one| one.name == by.name;

    tunnel_set(new: TunnelConfig) in tunnels, |old, new| old.network == new.network && old.remote == new.remote;
    tunnel_del(by: ByRemote), format!("tunnel of network `{}` to {}", by.network, by.remote),
        |one| one.network == by.network && one.remote == by.remote;
}

pub(super) fn underlay_set(methods: &Methods, _: &Caller, new: UnderlayConfig) -> Result<Applied, RpcError> {
    change(methods, move |config| {
        config.underlay = Some(new);
        Ok(())
    })
}

pub(super) fn underlay_del(methods: &Methods, _: &Caller, _: Nothing) -> Result<Applied, RpcError> {
    change(methods, |config| match config.underlay.take() {
        Some(_) => Ok(()),
        None => Err("there is no underlay".to_owned()),
    })
}
