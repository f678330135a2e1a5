#![allow(clippy::unwrap_used, reason = "tests")]
use super::super::tests::frames::{Recipe, UDP};
use super::*;

/// The flag masks that the registers have after a reset.
const MASKS: FlagMasks = FlagMasks { first: 0xff6, middle: 0xf76, last: 0xf7f };

fn context(recipe: &Recipe, segment: u16) -> Context {
    Context {
        network_length: if recipe.version6 { 40 } else { 20 },
        link_length: u8::try_from(recipe.network()).unwrap(),
        tag: 0,
        ipv4: !recipe.version6,
        transport: if recipe.tcp { Transport::Tcp } else { Transport::Udp },
        transport_length: if recipe.tcp { 20 } else { 8 },
        segment,
    }
}

/// As a driver hands a frame over: pseudo header's sum in the checksum field, IPv4 checksum and length 0.
fn prepared(recipe: &Recipe, length_in_sum: usize) -> Vec<u8> {
    let mut frame = recipe.build();
    let at = recipe.checksum();
    frame[at..at + 2].copy_from_slice(&recipe.pseudo(length_in_sum).to_be_bytes());
    if !recipe.version6 {
        frame[recipe.network() + 10..recipe.network() + 12].copy_from_slice(&[0, 0]);
    }
    frame
}

fn all() -> impl Iterator<Item = Recipe> {
    [false, true].into_iter().flat_map(|version6| {
        [false, true].into_iter().flat_map(move |tcp| {
            [None, Some(7)].into_iter().map(move |tag| Recipe { version6, tcp, tag, payload: 3001, ..UDP })
        })
    })
}

#[test]
fn inserted_checksums_are_those_of_the_finished_frame() {
    for recipe in all() {
        let segment = recipe.build().len() - recipe.transport();
        let mut frame = prepared(&recipe, segment);
        let wanted = Checksums { network: !recipe.version6, transport: true };
        context(&recipe, 0).insert(&mut frame, wanted).unwrap();
        assert_eq!(frame, recipe.build());
    }
    let mut short = UDP.build();
    short.truncate(40);
    assert_eq!(context(&UDP, 0).insert(&mut short, Checksums { network: false, transport: true }), None);
}

#[test]
fn segments_are_whole_frames_in_order() {
    for recipe in all() {
        let recipe = Recipe { flags: 0x80 | 0x10 | 0x08 | 0x01, ..recipe };
        let (mut whole, context) = (prepared(&recipe, 0), context(&recipe, 1000));
        // A length of the whole may not even fit; it is the card that writes it.
        if !recipe.version6 {
            whole[recipe.network() + 2..recipe.network() + 4].copy_from_slice(&[0, 0]);
        }
        let headers = context.headers();
        assert_eq!(context.refusal(Checksums { network: !recipe.version6, transport: true }), None);
        assert_eq!(context.segments(whole.len() - headers), 4);
        let mut payload = Vec::new();
        for (index, size) in [1000, 1000, 1000, 1].into_iter().enumerate() {
            let mut frame = Vec::new();
            context.segment(&whole, index, MASKS, &mut frame).unwrap();
            assert_eq!(frame.len(), headers + size);
            assert!(recipe.is_sound(&frame), "segment {index}");
            let at = recipe.transport();
            if recipe.tcp {
                let sequence = u32::from_be_bytes(frame[at + 4..at + 8].try_into().unwrap());
                assert_eq!(sequence, 0xffff_ff00_u32.wrapping_add(u32::try_from(1000 * index).unwrap()));
                let flags = [0x90, 0x10, 0x10, 0x19][index];
                assert_eq!(frame[at + 13], flags, "CWR first, PSH and FIN last");
            } else {
                assert_eq!(usize::from(u16::from_be_bytes([frame[at + 4], frame[at + 5]])), 8 + size);
            }
            if !recipe.version6 {
                let id = u16::from_be_bytes([frame[recipe.network() + 4], frame[recipe.network() + 5]]);
                assert_eq!(id, 0x12fe + u16::try_from(index).unwrap());
            }
            payload.extend_from_slice(&frame[headers..]);
        }
        assert_eq!(payload, recipe.build()[headers..]);
    }
}

#[test]
fn one_segment_keeps_all_flags() {
    let recipe = Recipe { tcp: true, flags: 0x99, ..UDP };
    let mut frame = Vec::new();
    context(&recipe, 1000).segment(&prepared(&recipe, 0), 0, MASKS, &mut frame).unwrap();
    assert_eq!(frame, recipe.build());
}

#[test]
fn contexts_that_make_no_sense_are_refused() {
    let good = context(&Recipe { tcp: true, ..UDP }, 1000);
    let checksums = Checksums { network: true, transport: true };
    for wrong in [
        Context { segment: 0, ..good },
        Context { transport: Transport::Reserved, ..good },
        Context { transport: Transport::Sctp, ..good },
        Context { transport_length: 19, ..good },
        Context { link_length: 13, ..good },
        Context { network_length: 19, ..good },
        Context { ipv4: false, ..good },
    ] {
        assert!(wrong.refusal(checksums).is_some(), "{wrong:?}");
    }
    assert!(good.refusal(Checksums::default()).is_some());
    assert_eq!(good.segment(&[0; 30], 0, MASKS, &mut Vec::new()), None, "shorter than its headers");
}

#[test]
fn a_legacy_checksum_covers_what_follows_its_start() {
    let recipe = Recipe { tcp: true, ..UDP };
    let mut frame = prepared(&recipe, recipe.build().len() - recipe.transport());
    insert_legacy(&mut frame, recipe.transport(), recipe.checksum());
    assert_eq!(frame[recipe.transport()..], recipe.build()[recipe.transport()..]);
    let before = frame.clone();
    insert_legacy(&mut frame, 10, 200);
    insert_legacy(&mut frame, 50, 20);
    assert_eq!(frame, before, "outside the frame nothing is inserted");
}
