//! One client, from its first message to its last.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::maps::Maps;
use super::{Device, InterruptKind, MessageDma, Region, Stop};
use crate::user::UserError;
use crate::user::channel::{Channel, Message};
use crate::user::version;
use crate::user::wire::{Command, Kind};

/// What a request is answered with.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    pub(super) file: Option<Arc<OwnedFd>>,
}

impl From<Vec<u8>> for Answer {
    fn from(body: Vec<u8>) -> Self {
        Self { body, file: None }
    }
}

/// A client that has agreed on the version.
pub(super) struct Session<'a> {
    pub(super) device: &'a mut dyn Device,
    pub(super) maps: Maps,
    /// By index; absent ones have no bytes.
    pub(super) regions: Vec<Region>,
    /// The client has been told that its memory is slow: guests map thousands of pieces.
    pub(super) warned: bool,
}

/// Serves a client until it goes, or until told to stop. The error is what ended the session.
pub(super) fn run(channel: &Arc<Channel>, device: &mut dyn Device, stop: &Stop) -> Result<(), UserError> {
    let Some(dma) = agree(channel, stop)? else { return Ok(()) };
    let mut session = Session { regions: regions(device), maps: Maps::default(), device, warned: false };
    session.device.connected(dma);
    let result = session.serve(channel, stop);
    // Whoever still waits for the client has to be let go before the device is asked to let go of everything.
    channel.end(channel.closed());
    let result = match result {
        Err(UserError::Closed { .. }) => Ok(()),
        other => other,
    };
    session.device.disconnected(result.as_ref().err());
    result
}

/// The regions by VFIO's index, with what is absent filled in.
fn regions(device: &dyn Device) -> Vec<Region> {
    let mut given = device.regions();
    (0..vfio_bindings::bindings::vfio::VFIO_PCI_NUM_REGIONS)
        .map(|index| match given.iter().position(|region| region.index == index) {
            Some(position) => given.swap_remove(position),
            None => Region { readable: false, writable: false, ..Region::new(index, 0) },
        })
        .collect()
}

/// The first message has to be VERSION. `None` when there is none: the client has left again, or the server is to stop.
fn agree(channel: &Arc<Channel>, stop: &Stop) -> Result<Option<MessageDma>, UserError> {
    // Others wait for their turn behind a client that says nothing.
    let message = match channel.first(Some(stop.as_fd())) {
        Ok(Some(message)) => message,
        Ok(None) | Err(UserError::Closed { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let header = message.header;
    if header.command != Command::VERSION || header.kind != (Kind::Request { answered: true }) {
        return Err(channel.protocol(header.command.name(), "the first message has to be a VERSION request"));
    }
    match version::parse(&message.body) {
        Ok(peer) => {
            channel.reply(header, Ok(&version::body(peer.write_multiple)), None)?;
            Ok(Some(MessageDma::new(Arc::clone(channel), peer.transfer)))
        }
        Err(reason) => {
            channel.reply(header, Err(Errno::INVAL), None)?;
            Err(channel.protocol(header.command.name(), reason))
        }
    }
}

impl Session<'_> {
    fn serve(&mut self, channel: &Channel, stop: &Stop) -> Result<(), UserError> {
        while let Some(message) = channel.next(Some(stop.as_fd()))? {
            let header = message.header;
            if let Kind::Reply { .. } = header.kind {
                channel.deliver(message)?;
                continue;
            }
            let answer = self.execute(message);
            if let Err(error) = &answer {
                tracing::debug!(command = header.command.name(), %error, "a vfio-user request failed");
            }
            let file = answer.as_ref().ok().and_then(|answer| answer.file.clone());
            let body = answer.as_ref().map(|answer| answer.body.as_slice()).map_err(|error| *error);
            channel.reply(header, body, file.as_ref().map(|file| file.as_fd()))?;
        }
        Ok(())
    }

    /// Executes a request. Descriptors that it did not ask for are closed with it.
    fn execute(&mut self, message: Message) -> Result<Answer, Errno> {
        let Message { header, body, files } = message;
        match header.command {
            Command::DMA_MAP => self.map(&body, files),
            Command::DMA_UNMAP => self.unmap(&body),
            Command::GET_INFO => Self::info(&body),
            Command::GET_REGION_INFO => self.region_info(&body),
            Command::GET_REGION_IO_FDS => Self::region_files(&body),
            Command::GET_IRQ_INFO => self.interrupt_info(&body),
            Command::SET_IRQS => self.set_interrupts(&body, files),
            Command::REGION_READ => self.region_read(&body),
            Command::REGION_WRITE => self.region_write(&body),
            Command::REGION_WRITE_MULTI => self.region_write_multiple(&body),
            Command::RESET => self.device.reset().map(|()| Answer::default()),
            // Migration, which models do not do.
            Command::DIRTY_PAGES | Command::FEATURE | Command::MIGRATION_READ | Command::MIGRATION_WRITE => {
                Err(Errno::NOTSUP)
            }
            // It was agreed on, and the other direction's.
            Command::VERSION | Command::DMA_READ | Command::DMA_WRITE => Err(Errno::INVAL),
            _ => Err(Errno::NOSYS),
        }
    }

    /// The kind of interrupt with VFIO's index.
    pub(super) fn kind(index: u32) -> Result<InterruptKind, Errno> {
        usize::try_from(index).ok().and_then(|index| InterruptKind::ALL.get(index)).copied().ok_or(Errno::INVAL)
    }

    /// The region with VFIO's index.
    pub(super) fn region(&self, index: u32) -> Result<&Region, Errno> {
        usize::try_from(index).ok().and_then(|index| self.regions.get(index)).ok_or(Errno::INVAL)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_client_that_says_nothing_does_not_hold_up_the_next() {
        let (_silent, near) = UnixStream::pair().unwrap();
        let channel = Arc::new(Channel::new(Path::new("silent"), near.into(), Duration::from_millis(10)));
        assert!(matches!(agree(&channel, &Stop::new().unwrap()), Err(UserError::TimedOut { .. })));
    }
}
