//! The thread that reads what the server sends: answers, and requests to reach memory.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use super::memory::Memory;
use crate::bar::Bar;
use crate::user::UserError;
use crate::user::channel::{Channel, Message};
use crate::user::wire::{Body, Command, Fields, Kind, MAX_TRANSFER};

/// Register windows that are to be cut off when the server goes.
#[derive(Default, Debug)]
pub(super) struct Windows {
    bars: Mutex<Vec<Bar>>,
}

impl Windows {
    /// Adds a window. When the server has gone meanwhile it is cut off at once.
    pub(super) fn add(&self, bar: Bar, channel: &Channel) {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner).push(bar);
        if channel.ended().is_some() {
            self.cut();
        }
    }

    /// Makes every handle to every window show what a removed device would.
    pub(super) fn cut(&self) {
        for bar in self.bars.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Err(error) = bar.cut() {
                tracing::warn!(%error, "cannot part a register window from a server that is gone");
            }
        }
    }
}

/// Reads until the connection ends.
pub(super) fn run(channel: &Channel, memory: &Memory, windows: &Windows) {
    let reason = loop {
        let done = match channel.next(None) {
            Ok(None) => Ok(()),
            Ok(Some(message)) if matches!(message.header.kind, Kind::Reply { .. }) => channel.deliver(message),
            Ok(Some(message)) => execute(channel, memory, &message),
            Err(error) => Err(error),
        };
        if let Err(reason) = done {
            break reason;
        }
    };
    channel.end(reason);
    windows.cut();
}

/// Executes a request of the server's.
fn execute(channel: &Channel, memory: &Memory, message: &Message) -> Result<(), UserError> {
    let answer = match message.header.command {
        Command::DMA_READ => read(memory, &message.body),
        Command::DMA_WRITE => write(memory, &message.body),
        _ => Err(Errno::NOSYS),
    };
    channel.reply(message.header, answer.as_deref().map_err(|error| *error), None)
}

fn read(memory: &Memory, body: &[u8]) -> Result<Vec<u8>, Errno> {
    let (address, count, _) = place(body)?;
    let mut data = vec![0; count];
    if !memory.read(address, &mut data) {
        return Err(Errno::FAULT);
    }
    Ok(Body::new().u64(address).u64(count as u64).bytes(&data).done())
}

fn write(memory: &Memory, body: &[u8]) -> Result<Vec<u8>, Errno> {
    let (address, count, data) = place(body)?;
    if data.len() != count {
        return Err(Errno::INVAL);
    }
    if !memory.write(address, data) {
        return Err(Errno::FAULT);
    }
    Ok(Body::new().u64(address).u64(count as u64).done())
}

/// Address, count and what follows.
fn place(body: &[u8]) -> Result<(u64, usize, &[u8]), Errno> {
    let mut fields = Fields::new(body);
    match (fields.u64(), fields.u64().map(usize::try_from)) {
        (Some(address), Some(Ok(count @ ..=MAX_TRANSFER))) => Ok((address, count, fields.rest())),
        _ => Err(Errno::INVAL),
    }
}

/// Starts the thread.
pub(super) fn spawn(
    name: &str,
    channel: Arc<Channel>,
    memory: Arc<Memory>,
    windows: Arc<Windows>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(move || run(&channel, &memory, &windows))
}
