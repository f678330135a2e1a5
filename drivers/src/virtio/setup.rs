//! The steps of bringing a device up that need nothing but its registers (virtio 1.3, sections 3.1.1 and 5.1.5).

use alloc::string::ToString;
use core::time::Duration;

use super::config::DeviceConfig;
use super::control;
use super::features::{self, Features, Wishes};
use super::options::{Config, RingFormat, ring_size};
use super::transport::{MOST_DESCRIPTORS, Status, Transport};
use crate::bus::Clock;
use crate::nic::{MacAddress, NicError};
use crate::stopped::Stopped;

/// Resets the device and takes it off the bus. From here on it holds no buffer.
pub(super) fn halt(transport: &mut impl Transport, clock: &dyn Clock, limit: Duration) -> Result<Stopped, NicError> {
    transport.reset(clock, limit)?;
    Ok(Stopped::confirmed())
}

/// Steps 2 and 3 of section 3.1.1, and what the device offers.
pub(super) fn greet(transport: &mut impl Transport) -> Result<Features, NicError> {
    transport.add_status(Status::ACKNOWLEDGE)?;
    transport.add_status(Status::DRIVER)?;
    transport.offered()
}

/// Steps 2 to 6 of section 3.1.1 for a device that is new to us.
pub(super) fn negotiate(transport: &mut impl Transport, wishes: Wishes) -> Result<(Features, DeviceConfig), NicError> {
    let offered = greet(transport)?;
    if transport.is_gone() {
        return Err(transport.gone());
    }
    let features = features::negotiate(offered, wishes).map_err(|refusal| {
        // A courtesy to a device that is not driven.
        let _ = transport.add_status(Status::FAILED);
        NicError::Unsupported { device: transport.name().to_string(), reason: refusal.reason().to_string() }
    })?;
    transport.accept(features)?;
    Ok((features, DeviceConfig::read(transport, features)?))
}

/// Index of the control queue, behind all pairs that the device has (5.1.2).
pub(super) fn control_queue(transport: &impl Transport, device: &DeviceConfig) -> Result<u16, NicError> {
    // Of at most 32768 pairs, only all of them leave no number.
    device
        .pairs
        .checked_mul(2)
        .ok_or_else(|| transport.misbehaves("it has so many queues that its control queue has no number"))
}

/// An address for a device that has none: locally administered, and made from the device's name so that it is the same
/// next time.
pub(super) fn local_mac(name: &str) -> MacAddress {
    // FNV-1a.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    MacAddress([0x02, a, b, c, d, e])
}

/// Sizes that were settled when the device was opened.
pub(super) struct Plan {
    pub(super) format: RingFormat,
    pub(super) pairs: u16,
    pub(super) receive_size: u16,
    pub(super) transmit_size: u16,
    /// 0 without control queue.
    pub(super) control_size: u16,
}

impl Plan {
    pub(super) fn make(
        transport: &mut impl Transport,
        config: &Config,
        features: Features,
        device: &DeviceConfig,
        pairs_wanted: u16,
    ) -> Result<Self, NicError> {
        let packed = features.contains(Features::RING_PACKED);
        let pairs = pairs_wanted.min(device.pairs);
        let (mut receive_size, mut transmit_size) = (u16::MAX, u16::MAX);
        for pair in 0..pairs {
            for (queue, size) in [(2 * pair, &mut receive_size), (2 * pair + 1, &mut transmit_size)] {
                *size = (*size).min(queue_size(transport, queue, config.nic.ring_size)?);
            }
        }
        let control_size = if features.contains(Features::CTRL_VQ) {
            let queue = control_queue(transport, device)?;
            queue_size(transport, queue, control::RING_SIZE)?
        } else {
            0
        };
        let format = if packed { RingFormat::Packed } else { RingFormat::Split };
        Ok(Self { format, pairs, receive_size, transmit_size, control_size })
    }
}

/// The size that a queue of the device gets.
fn queue_size(transport: &mut impl Transport, queue: u16, wanted: u16) -> Result<u16, NicError> {
    if queue >= transport.queue_count() {
        return Err(
            transport.misbehaves(alloc::format!("it has {} queues and needs number {queue}", transport.queue_count()))
        );
    }
    let largest = transport.largest_size(queue);
    // A command is a chain of two descriptors, and a ring of one serves nobody.
    if !(2..=MOST_DESCRIPTORS).contains(&largest) {
        return Err(transport.misbehaves(alloc::format!("its queue {queue} claims room for {largest} descriptors")));
    }
    Ok(ring_size(wanted, largest))
}
