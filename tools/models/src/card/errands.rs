//! What is done for a card while it is not locked: messages to and from a client's memory, and interrupts.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::remote::{AnyRemote, RemoteError};
use crate::interrupt::signal;
use crate::memory::{Access, Memory};

/// What became of bytes that have to travel.
pub(super) enum Fetched {
    Yes,
    NotYet,
    Refused,
}

/// On its way out, in order.
enum Message {
    /// Known to be mapped, here or away or partly.
    Write(u64, Vec<u8>),
    /// Not mapped as far as we know. It goes out all the same, so that the client's own IOMMU sees and logs it.
    StrayRead(u64, usize),
    StrayWrite(u64, Vec<u8>),
}

/// Bytes that came, and are kept until the piece of work that wanted them is done.
struct Kept {
    address: u64,
    /// `None` when the client refused.
    bytes: Option<Vec<u8>>,
    /// Read by the piece of work that is being done.
    used: bool,
    /// Polls since it came.
    age: u16,
}

/// Strays sent after one poll.
const STRAYS: usize = 16;
/// Longest stray that is sent; the rest of it would show nothing more.
const STRAY_BYTES: usize = 4096;
/// Polls after which bytes that nobody asked for again go.
const OLD: u16 = 1024;

/// All that travels between a card and its client's memory.
#[derive(Default)]
pub(super) struct Mail {
    remote: Option<AnyRemote>,
    /// Counts the clients, so that nothing late reaches the next one.
    session: u64,
    posted: Vec<Message>,
    wanted: Vec<(u64, usize)>,
    kept: Vec<Kept>,
}

impl Mail {
    /// A client has come, or gone.
    pub(super) fn connect(&mut self, remote: Option<AnyRemote>) {
        self.clear();
        self.remote = remote;
    }

    /// Forgets all that is under way.
    pub(super) fn clear(&mut self) {
        self.session += 1;
        self.posted.clear();
        self.wanted.clear();
        self.kept.clear();
    }

    /// Forgets what came from a range of addresses: they mean something else now.
    pub(super) fn forget(&mut self, first: u64, len: u64) {
        let last = first.saturating_add(len);
        let apart = |kept: &Kept| {
            let len = kept.bytes.as_ref().map_or(1, Vec::len) as u64;
            last <= kept.address || kept.address.saturating_add(len) <= first
        };
        self.kept.retain(apart);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.posted.is_empty() && self.wanted.is_empty()
    }

    #[inline]
    pub(super) fn has_posted(&self) -> bool {
        !self.posted.is_empty()
    }

    #[inline]
    pub(super) fn commit(&mut self) {
        if !self.kept.is_empty() {
            self.kept.retain(|kept| !kept.used);
        }
    }

    /// The piece of work waits: what it has read so far stays for its next try.
    pub(super) fn give_up(&mut self) {
        self.kept.iter_mut().for_each(|kept| kept.used = false);
    }

    /// Copies out what came, or asks for it.
    pub(super) fn find(&mut self, address: u64, target: &mut [u8]) -> Fetched {
        for kept in &mut self.kept {
            let Some(offset) = address.checked_sub(kept.address).and_then(|offset| usize::try_from(offset).ok()) else {
                continue;
            };
            match &kept.bytes {
                Some(bytes) => {
                    let part = offset.checked_add(target.len()).and_then(|end| bytes.get(offset..end));
                    if let Some(part) = part {
                        target.copy_from_slice(part);
                        kept.used = true;
                        return Fetched::Yes;
                    }
                }
                None if offset == 0 => {
                    kept.used = true;
                    return Fetched::Refused;
                }
                None => {}
            }
        }
        if self.remote.is_none() {
            return Fetched::Refused;
        }
        if !self.wanted.contains(&(address, target.len())) {
            self.wanted.push((address, target.len()));
        }
        Fetched::NotYet
    }

    /// A write that has to travel, or to wait for one that does.
    pub(super) fn post(&mut self, address: u64, bytes: &[u8]) {
        self.forget(address, bytes.len() as u64);
        self.posted.push(Message::Write(address, bytes.to_vec()));
    }

    pub(super) fn stray_read(&mut self, address: u64, bytes: usize) {
        if self.may_stray() {
            self.posted.push(Message::StrayRead(address, bytes.min(STRAY_BYTES)));
        }
    }

    pub(super) fn stray_write(&mut self, address: u64, bytes: &[u8]) {
        if self.may_stray() {
            self.posted.push(Message::StrayWrite(address, bytes.iter().copied().take(STRAY_BYTES).collect()));
        }
    }

    fn may_stray(&self) -> bool {
        let strays = self.posted.iter().filter(|message| !matches!(message, Message::Write(..))).count();
        self.remote.is_some() && strays < STRAYS
    }

    /// A poll has ended.
    pub(super) fn end_poll(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        if self.wanted.is_empty() {
            self.kept.clear();
        }
        self.kept.retain_mut(|kept| {
            kept.age += 1;
            kept.used = false;
            kept.age < OLD
        });
    }

    /// What is to be done, if anything.
    #[inline]
    pub(super) fn errands(&mut self, signals: Vec<Arc<OwnedFd>>) -> Option<Errands> {
        if self.is_empty() && signals.is_empty() {
            return None;
        }
        Some(Errands {
            remote: self.remote.clone(),
            session: self.session,
            posted: std::mem::take(&mut self.posted),
            wanted: std::mem::take(&mut self.wanted),
            signals,
        })
    }
}

/// Something that is done with a card's memory and mail under its lock.
type Work<'a> = dyn FnMut(&mut Memory, &mut Mail) + 'a;

/// What is to be done while the card is not locked.
pub(super) struct Errands {
    remote: Option<AnyRemote>,
    session: u64,
    posted: Vec<Message>,
    wanted: Vec<(u64, usize)>,
    signals: Vec<Arc<OwnedFd>>,
}

impl Errands {
    /// Does it. `locked` runs something with the card's memory and mail under its lock. Once the card was reset, or its client has left, the rest
    /// is left undone: the memory may be somebody else's by now.
    pub(super) fn run(self, mut locked: impl FnMut(&mut Work<'_>)) {
        let session = self.session;
        let mut current = |work: &mut Work<'_>| {
            let mut is_current = false;
            locked(&mut |memory, mail| {
                is_current = mail.session == session;
                if is_current {
                    work(memory, mail);
                }
            });
            is_current
        };
        for message in self.posted {
            if !deliver(message, self.remote.as_ref(), &mut current) {
                return;
            }
        }
        for (address, len) in self.wanted {
            let mut bytes = vec![0; len];
            let result = self.remote.as_ref().map_or(Err(RemoteError::Gone), |remote| remote.read(address, &mut bytes));
            if result == Err(RemoteError::Gone) {
                return;
            }
            let mut bytes = result.is_ok().then_some(bytes);
            let is_current = current(&mut |memory, mail| {
                if bytes.is_none() {
                    memory.refuse(address, len as u64, Access::Read);
                }
                mail.kept.push(Kept { address, bytes: bytes.take(), used: false, age: 0 });
            });
            if !is_current {
                return;
            }
        }
        for event in &self.signals {
            signal(event);
        }
    }
}

/// Sends one message; `false` when it was no longer to be sent, or the client is gone, and with it whoever waits for a signal.
fn deliver(message: Message, remote: Option<&AnyRemote>, current: &mut dyn FnMut(&mut Work<'_>) -> bool) -> bool {
    let Some(remote) = remote else { return false };
    let mut away = Vec::new();
    let is_current = current(&mut |memory, _| {
        if let Message::Write(address, bytes) = &message {
            memory.write_parts(*address, bytes, |at, part| away.push((at, part.to_vec())));
        }
    });
    if !is_current {
        return false;
    }
    match message {
        Message::StrayRead(address, len) => remote.read(address, &mut vec![0; len]) != Err(RemoteError::Gone),
        Message::StrayWrite(address, bytes) => remote.write(address, &bytes) != Err(RemoteError::Gone),
        Message::Write(..) => away.into_iter().all(|(at, part)| match remote.write(at, &part) {
            Ok(()) => true,
            Err(RemoteError::Refused) => current(&mut |memory, _| memory.refuse(at, part.len() as u64, Access::Write)),
            Err(RemoteError::Gone) => false,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Mutex;

    use super::*;
    use crate::card::remote::Remote;
    use crate::memory::Permission;

    /// Resets the card while its first message is on its way, and refuses that.
    struct Resetting {
        card: Mutex<(Memory, Mail)>,
        written: Mutex<Vec<u64>>,
    }

    impl Remote for Resetting {
        fn read(&self, _address: u64, _bytes: &mut [u8]) -> Result<(), RemoteError> {
            unreachable!("nothing is read");
        }

        fn write(&self, address: u64, _bytes: &[u8]) -> Result<(), RemoteError> {
            self.written.lock().unwrap().push(address);
            self.card.lock().unwrap().1.clear();
            Err(RemoteError::Refused)
        }
    }

    #[test]
    fn what_a_reset_finds_unsent_is_not_sent_and_nobody_is_blamed() {
        let client = Arc::new(Resetting { card: Mutex::default(), written: Mutex::default() });
        let errands = {
            let mut card = client.card.lock().unwrap();
            let (memory, mail) = &mut *card;
            assert!(memory.map_messages(0x1000, 0x1000, Permission::ALL));
            mail.connect(Some(Arc::<Resetting>::clone(&client)));
            mail.post(0x1000, &[1; 8]);
            mail.post(0x1008, &[2; 8]);
            mail.errands(Vec::new()).unwrap()
        };
        errands.run(|work| {
            let mut card = client.card.lock().unwrap();
            let (memory, mail) = &mut *card;
            work(memory, mail);
        });
        assert_eq!(*client.written.lock().unwrap(), [0x1000]);
        let mut card = client.card.lock().unwrap();
        assert_eq!(card.0.fault_count(), 0);
        card.1.connect(None);
    }
}
