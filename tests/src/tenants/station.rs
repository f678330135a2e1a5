//! An emulated machine with an Ethernet address at a port of the switch.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dataplane::port::RingChoice;
use hugemem::Metadata;

use super::{Daemon, Mac};
use crate::vm::{Plan, Vm};
use crate::wait;

/// For a queue that has no room.
const PATIENCE: Duration = Duration::from_secs(20);

/// A machine.
pub struct Station {
    /// The name of its port.
    pub name: String,
    /// Its device.
    pub vm: Vm,
    /// Its address.
    pub mac: Mac,
    buffer: Vec<u8>,
}

impl Station {
    /// Attaches a machine to the port of this name.
    ///
    /// # Errors
    ///
    /// The port does not serve it.
    pub fn attach(daemon: &Daemon, name: &str, mac: Mac) -> Result<Self> {
        Self::at(&daemon.socket(name), name, mac).with_context(|| format!("{name}: {}", daemon.last_words()))
    }

    /// Attaches a machine to the port that listens at `socket`.
    ///
    /// # Errors
    ///
    /// The port does not serve it.
    pub fn at(socket: &Path, name: &str, mac: Mac) -> Result<Self> {
        let plan = Plan { socket: socket.into(), listens: false, ring: RingChoice::Auto, pairs: 1, mtu: None };
        let vm = Vm::attach(name, &plan)?;
        Ok(Self { name: name.to_owned(), vm, mac, buffer: Vec::new() })
    }

    /// Sends frames, however long the queue is full.
    ///
    /// # Errors
    ///
    /// Nobody takes them.
    pub fn send<'a>(&mut self, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<u64> {
        let mut count = 0;
        for frame in frames {
            wait::until("room in a queue", PATIENCE, || {
                if self.vm.stage(0, frame, Metadata::default())? {
                    return Ok(Some(()));
                }
                self.vm.flush();
                Ok(None)
            })?;
            count += 1;
        }
        wait::until("a queue that takes frames", PATIENCE, || {
            self.vm.flush();
            Ok((self.vm.staged() == 0).then_some(()))
        })?;
        Ok(count)
    }

    /// Shows each frame that has arrived to `each`; how many there were.
    ///
    /// # Errors
    ///
    /// Those of `each`.
    pub fn receive(&mut self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        let Self { vm, buffer, .. } = self;
        vm.receive(|packet| {
            buffer.resize(packet.len(), 0);
            ensure!(packet.copy_to(0, buffer) == buffer.len(), "a frame is shorter than it says");
            each(buffer)
        })
    }

    /// Takes in what arrives in a while.
    ///
    /// # Errors
    ///
    /// A frame is shorter than it says.
    pub fn collect(&mut self, time: Duration) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        let until = std::time::Instant::now() + time;
        while std::time::Instant::now() < until {
            self.vm.flush();
            self.receive(|frame| {
                frames.push(frame.to_vec());
                Ok(())
            })?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(frames)
    }
}
