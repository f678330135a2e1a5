//! VLAN tags (IEEE 802.1Q): put in, taken out, changed.

use std::num::NonZeroU16;

use hugemem::{Checksum, Packet};

use super::Impossible;
use crate::flow::VlanRewrite;
use crate::headers::ether_type;

/// Bytes of a tag, and of the addresses in front of it.
const TAG: usize = 4;
const ADDRESSES: usize = 12;

/// Puts a tag that the card took out of the frame back in, so that what follows sees frames of one kind only.
pub(in crate::switch) fn take_in(packet: &mut Packet) -> Result<(), Impossible> {
    match packet.metadata_mut().vlan.take() {
        Some(tag) => push(packet, tag),
        None => Ok(()),
    }
}

/// Changes the tags of a packet.
pub(in crate::switch) fn retag(packet: &mut Packet, change: VlanRewrite) -> Result<(), Impossible> {
    match change {
        VlanRewrite::Keep => Ok(()),
        VlanRewrite::Push(tag) => push(packet, tag),
        VlanRewrite::Pop => pop(packet),
        VlanRewrite::Set(tag) => {
            let place = tag_of(packet.bytes_mut()).ok_or(Impossible)?;
            place[2..].copy_from_slice(&tag.to_be_bytes());
            Ok(())
        }
    }
}

/// The outer tag.
fn tag_of(frame: &mut [u8]) -> Option<&mut [u8; TAG]> {
    let tag: &mut [u8; TAG] = frame.get_mut(ADDRESSES..)?.first_chunk_mut()?;
    let kind = u16::from_be_bytes([tag[0], tag[1]]);
    matches!(kind, ether_type::VLAN | ether_type::PROVIDER_VLAN | ether_type::OLD_PROVIDER_VLAN).then_some(tag)
}

fn push(packet: &mut Packet, tag: u16) -> Result<(), Impossible> {
    if packet.bytes().len() < ADDRESSES || packet.prepend(TAG).is_none() {
        return Err(Impossible);
    }
    let frame = packet.bytes_mut();
    frame.copy_within(TAG..TAG + ADDRESSES, 0);
    let [high, low] = tag.to_be_bytes();
    let [kind_high, kind_low] = ether_type::VLAN.to_be_bytes();
    if let Some(place) = frame.get_mut(ADDRESSES..ADDRESSES + TAG) {
        place.copy_from_slice(&[kind_high, kind_low, high, low]);
    }
    moved(packet, |at| at.checked_add(4))
}

fn pop(packet: &mut Packet) -> Result<(), Impossible> {
    let frame = packet.bytes_mut();
    tag_of(frame).ok_or(Impossible)?;
    frame.copy_within(..ADDRESSES, TAG);
    if !packet.trim_front(TAG) {
        return Err(Impossible);
    }
    moved(packet, |at| at.checked_sub(4))
}

/// The frame's bytes behind its addresses have moved: so do the places that its metadata names.
fn moved(packet: &mut Packet, place: impl Fn(u16) -> Option<u16>) -> Result<(), Impossible> {
    let metadata = packet.metadata_mut();
    if let Checksum::Partial { start, .. } = &mut metadata.checksum {
        *start = place(*start).ok_or(Impossible)?;
    }
    if let Some(segmentation) = &mut metadata.segmentation
        && segmentation.header_len > 0
    {
        segmentation.header_len = place(segmentation.header_len).ok_or(Impossible)?;
    }
    if let Some(inner) = &mut metadata.inner {
        *inner = place(inner.get()).and_then(NonZeroU16::new).ok_or(Impossible)?;
    }
    Ok(())
}
