//! Captures, the thread's side.

use std::collections::HashMap;
use std::sync::Arc;

use hugemem::{Iova, Region};

use super::capture::{CaptureRequest, Names, RunningCapture};
use super::error::VswitchError;
use super::handle::Shared;
use super::state::State;
use crate::flow::Domain;
use crate::switch::{self, MOST_TAPS, Tap};

/// Packets of each engine that may wait to be fetched.
const PACKETS: usize = 1024;
/// Most bytes of a packet that are kept, and those of a buffer for them.
const MOST_BYTES: usize = 65_536;
const BUFFER: usize = 2048;

impl State {
    /// Begins a capture in all engines.
    pub(super) fn begin_capture(
        &mut self,
        request: &CaptureRequest,
        shared: Arc<Shared>,
    ) -> Result<RunningCapture, VswitchError> {
        let port = request
            .port
            .as_ref()
            .map(|name| self.ports.find(name).map(|(slot, _)| slot).ok_or_else(|| VswitchError::NoPort(name.clone())));
        let port = port.transpose()?;
        let network = request.network.as_ref().map(|name| self.network_named(name)).transpose()?;
        if self.captures.len() >= MOST_TAPS {
            return Err(VswitchError::Capture(format!("there are {MOST_TAPS} already; end one of them")));
        }
        let (names, domains) = self.names(network);
        let number = self.next_capture;
        let bytes = request.bytes.clamp(1, MOST_BYTES);
        let wanted = switch::CaptureRequest { number, points: request.points.clone(), port, domains, bytes };
        let room = bytes.min(BUFFER);
        let count = PACKETS * bytes.div_ceil(room).min(4);
        let mut taps = Vec::new();
        for engine in 0..self.engines.all.len() {
            let size = count * (room.next_multiple_of(64) + hugemem::HEADROOM) + BUFFER;
            let pool = Region::on_heap(size, Iova::new(0)).and_then(|region| region.packets(count, room));
            let pool = pool.map_err(|error| VswitchError::Capture(format!("there is no memory for it: {error}")))?;
            taps.push((engine, Tap::new(&wanted, pool)));
        }
        self.next_capture = number.wrapping_add(1);
        self.captures.push(number);
        let mut captures = Vec::new();
        for (engine, (tap, capture)) in taps {
            self.engines.begin_capture(engine, tap);
            captures.push(capture);
        }
        Ok(RunningCapture::new(number, captures, names, shared))
    }

    /// What numbers in packets mean now, and the domains that lie in a network.
    fn names(&self, network: Option<u16>) -> (Names, Option<Vec<Domain>>) {
        let topology = self.brain.topology();
        let ports = self.ports.iter().map(|(slot, port)| (slot, port.name.clone())).collect();
        let mut inside: HashMap<Domain, Vec<u16>> = HashMap::new();
        for attachment in topology.attachments.values() {
            if let Some(bound) = self.brain.bound(&attachment.config.name) {
                inside.entry(Domain::port(bound.number)).or_default().push(attachment.network);
            }
        }
        for (number, tunnel) in &topology.tunnels {
            inside.entry(Domain::tunnel((*number).into())).or_default().push(tunnel.network);
        }
        let wanted = network.map(|network| {
            let of = inside.iter().filter(|(_, networks)| networks.contains(&network));
            of.map(|(domain, _)| *domain).collect()
        });
        let alone = inside.iter().filter_map(|(domain, networks)| match networks.as_slice() {
            [network] => Some((*domain, topology.networks.get(network)?.name.clone())),
            _ => None,
        });
        (Names { ports, networks: alone.collect(), clock: self.options.clock }, wanted)
    }
}
