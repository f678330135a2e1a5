//! Announces where a VM is, for guests that cannot do so themselves: after a migration the VMM asks for a reverse ARP request in the guest's
//! name, so that switches learn the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drivers::nic::{Counters, RxQueue};
use hugemem::{Batch, Iova, OutOfMemory, PacketPool, Region};

use crate::port::vhost_user::queue::VmRx;

/// Bytes of the frame: the shortest that Ethernet knows, without check sequence.
const LENGTH: usize = 60;
/// Frames of this kind that can be on their way at once.
const BUFFERS: usize = 4;
/// Besides the address: there is one.
const ASKED: u64 = 1 << 63;

/// An address to be announced.
#[derive(Default, Debug)]
pub(crate) struct Announcement(AtomicU64);

impl Announcement {
    /// Has `mac` announced; at once where frames flow. A later address takes the place of one that was not yet.
    pub(super) fn ask(&self, mac: [u8; 6]) {
        let [a, b, c, d, e, f] = mac;
        self.0.store(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) | ASKED, Ordering::Release);
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn take(&self) -> Option<[u8; 6]> {
        let asked = self.0.swap(0, Ordering::Acquire);
        let [a, b, c, d, e, f, ..] = (asked & !ASKED).to_le_bytes();
        (asked != 0).then_some([a, b, c, d, e, f])
    }
}

/// A reverse ARP request (RFC 903) from `mac` for itself.
fn frame(mac: [u8; 6]) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    // Broadcast, from the guest; then type 0x8035, Ethernet and IPv4, their lengths, operation 3.
    let head: [u8; 10] = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];
    let nobody = [0; 4];
    let parts: [&[u8]; 7] = [&[0xff; 6], &mac, &head, &mac, &nobody, &mac, &nobody];
    for (byte, value) in frame.iter_mut().zip(parts.into_iter().flatten()) {
        *byte = *value;
    }
    frame
}

/// The first queue from a VM, which announcements join.
pub(crate) struct Announcer {
    queue: VmRx,
    announcement: Arc<Announcement>,
    pool: PacketPool,
    /// Announcements that were received.
    packets: u64,
}

impl Announcer {
    /// # Errors
    /// When there is no memory for the frames.
    pub(crate) fn new(queue: VmRx, announcement: Arc<Announcement>) -> Result<Self, OutOfMemory> {
        let region = Region::on_heap(BUFFERS * (LENGTH + 2 * hugemem::HEADROOM) + (1 << 14), Iova::new(0))?;
        // No device reaches these, like all else that comes from a virtual machine.
        let pool = region.packets_with_foreign(BUFFERS, LENGTH, 1)?;
        Ok(Self { queue, announcement, pool, packets: 0 })
    }

    #[cold]
    fn announce(&mut self, batch: &mut Batch) -> usize {
        if batch.room() == 0 {
            return 0;
        }
        // Without a buffer it waits for one.
        self.pool.sweep(|_| ());
        let Some(mut packet) = self.pool.take() else { return 0 };
        let Some(mac) = self.announcement.take() else { return 0 };
        if packet.write(&frame(mac)).is_err() || batch.push(packet).is_err() {
            return 0;
        }
        self.packets += 1;
        1
    }
}

impl RxQueue for Announcer {
    #[inline]
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let received = self.queue.receive(batch);
        if self.announcement.is_asked() { received + self.announce(batch) } else { received }
    }

    fn arm(&mut self) -> bool {
        self.queue.arm() && !self.announcement.is_asked()
    }

    fn disarm(&mut self) {
        self.queue.disarm();
    }

    fn gives_foreign(&self) -> bool {
        self.queue.gives_foreign()
    }

    fn underway(&mut self) -> usize {
        self.queue.underway()
    }

    fn gives_large(&self) -> bool {
        self.queue.gives_large()
    }

    fn counters(&self) -> Counters {
        let mut counters = self.queue.counters();
        counters.packets += self.packets;
        counters.bytes += self.packets * LENGTH as u64;
        counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_a_reverse_request_of_the_guest_for_itself() {
        let mac = [2, 0, 0, 0, 0, 7];
        let announcement = Announcement::default();
        assert!(!announcement.is_asked() && announcement.take().is_none());
        announcement.ask([0; 6]);
        announcement.ask(mac);
        let asked = announcement.take();
        assert_eq!((asked, announcement.take()), (Some(mac), None));
        let expected: Vec<u8> = [
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3][..],
            &[2, 0, 0, 0, 0, 7, 0, 0, 0, 0, 2, 0, 0, 0, 0, 7, 0, 0, 0, 0],
            &[0; 18],
        ]
        .concat();
        assert_eq!(frame(mac).as_slice(), expected);
    }
}
