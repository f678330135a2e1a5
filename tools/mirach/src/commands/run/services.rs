//! What a run offers to others: its control socket, and its counters.

use std::path::Path;
use std::sync::{Arc, Mutex};

use dataplane::config::{Config, ControlSocket};
use dataplane::control::{Methods, MetricsServer, ReaderGroup, Server};
use dataplane::forwarder::Forwarder;

/// They end when this is dropped.
pub(super) struct Services {
    control: Option<Server>,
    metrics: Option<MetricsServer>,
}

impl Services {
    /// Takes requests as the configuration says. At the usual place it is no failure when that cannot be, as long as there are ports.
    pub(super) fn start(config: &Config, forwarder: &Arc<Mutex<Forwarder>>) -> anyhow::Result<Self> {
        let methods = Methods::new(Arc::clone(forwarder));
        let metrics = config.metrics.as_ref();
        let metrics = metrics.map(|address| MetricsServer::start(address, methods.clone())).transpose()?;
        let readers = config.control_group.as_deref().map(ReaderGroup::find).transpose()?;
        let control = match &config.control {
            ControlSocket::None => None,
            ControlSocket::At(path) => Some(Server::start(path, readers.as_ref(), methods)?),
            ControlSocket::Usual => match Server::start_usual(readers.as_ref(), methods) {
                Ok(server) => Some(server),
                Err(reason) => {
                    anyhow::ensure!(!config.ports.is_empty(), "no ports are given, and none could be added: {reason}");
                    eprintln!("note: no ports can be added to this run: {reason}");
                    None
                }
            },
        };
        Ok(Self { control, metrics })
    }

    /// Where requests are taken.
    pub(super) fn control(&self) -> Option<&Path> {
        self.control.as_ref().map(Server::path)
    }

    /// Where counters are read.
    pub(super) fn metrics(&self) -> Option<String> {
        self.metrics.as_ref().map(|server| server.address().to_string())
    }
}
