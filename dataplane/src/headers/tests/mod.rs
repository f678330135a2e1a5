//! Tests of the header pass: against an independent parser, and on every small change of frames of each kind.
#![allow(clippy::unwrap_used, reason = "tests")]

mod differential;
mod frames;

use super::*;
use frames::{Frame, frames};

/// What holds for any bytes.
fn check(view: &[u8], len: usize) -> Headers {
    let headers = parse(view, len);
    assert_eq!(headers, super::parse::any(view, len), "the short way reads as the long one");
    let offsets = [headers.network_at, headers.transport_at, headers.payload_at].map(usize::from);
    if headers.malformed.is_none() {
        assert!(offsets.is_sorted() && offsets[0] >= ETHERNET, "{headers:?}");
        assert!(offsets[2] <= headers.end as usize && headers.end as usize <= len, "{headers:?}");
        // TCP options may lie beyond what is seen: nobody looks at them.
        assert!(offsets[1] <= view.len() && offsets[2] <= offsets[1] + 60, "{headers:?}");
    }
    let _ = tunnel(view, &headers);
    headers
}

#[test]
fn frames_of_each_kind_are_read() {
    for Frame { name, bytes, expect } in frames() {
        let headers = check(&bytes, bytes.len());
        let read = (headers.network, headers.transport, headers.fragment, headers.tags, headers.malformed);
        assert_eq!(read, expect, "{name}");
    }
}

#[test]
fn every_cut_is_malformed_or_keeps_what_was_read() {
    for Frame { name, bytes, .. } in frames() {
        let whole = parse(&bytes, bytes.len());
        for cut in 0..bytes.len() {
            let short = bytes.get(..cut).unwrap();
            // The frame itself ends there.
            let cut_off = check(short, cut);
            if whole.malformed.is_none() && cut < usize::from(whole.payload_at) {
                assert!(cut_off.malformed.is_some(), "{name} cut at {cut}: {cut_off:?}");
            }
            // The frame goes on behind what is at hand.
            let seen = check(short, bytes.len());
            if seen.malformed.is_none() {
                assert_eq!(seen, whole, "{name} seen up to {cut}");
            } else if whole.malformed.is_none() {
                assert!(
                    matches!(seen.malformed, Some(Malformed::BeyondView | Malformed::Runt)),
                    "{name} seen up to {cut}: {seen:?}"
                );
            }
        }
    }
}

#[test]
fn every_value_of_every_byte_is_borne() {
    for Frame { bytes, .. } in frames() {
        let mut changed = bytes.clone();
        for place in 0..bytes.len() {
            for value in 0..=255 {
                changed[place] = value;
                check(&changed, changed.len());
            }
            changed[place] = bytes[place];
        }
    }
}

#[test]
fn each_fault_has_its_name() {
    let named = |bytes: &[u8]| parse(bytes, bytes.len()).malformed;
    let base = |wanted: &str| frames().into_iter().find(|frame| frame.name == wanted).unwrap().bytes;
    let with = |wanted: &str, changes: &[(usize, u8)]| {
        let mut bytes = base(wanted);
        for (place, value) in changes {
            bytes[*place] = *value;
        }
        bytes
    };
    assert_eq!(named(&[0; 13]), Some(Malformed::Runt));
    assert_eq!(named(&base("three tags")), Some(Malformed::TooManyTags));
    assert_eq!(named(&with("ipv4 tcp", &[(14, 0x65)])), Some(Malformed::BadVersion));
    assert_eq!(named(&with("ipv4 tcp", &[(14, 0x44)])), Some(Malformed::BadHeaderLength));
    assert_eq!(named(&with("ipv4 tcp", &[(16, 0xff)])), Some(Malformed::BadTotalLength));
    assert_eq!(named(&with("ipv4 tcp", &[(16, 0), (17, 19)])), Some(Malformed::BadTotalLength));
    assert_eq!(named(&with("ipv4 tcp", &[(16, 0), (17, 30)])), Some(Malformed::Truncated));
    assert_eq!(named(&with("ipv4 tcp", &[(46, 0x40)])), Some(Malformed::BadTcpLength));
    assert_eq!(named(&with("ipv4 tcp", &[(46, 0xf0)])), Some(Malformed::BadTcpLength));
    assert_eq!(named(&with("ipv4 udp", &[(39, 7)])), Some(Malformed::BadUdpLength));
    assert_eq!(named(&with("ipv4 udp", &[(38, 1)])), Some(Malformed::BadUdpLength));
    assert_eq!(named(&with("arp", &[(17, 1)])), Some(Malformed::BadArp));
    // Fragments: TCP that starts behind its ports; a first one without its whole header; beyond the end of any packet; odd length.
    assert_eq!(named(&with("ipv4 tcp", &[(20, 0), (21, 1)])), Some(Malformed::TinyFragment));
    assert_eq!(named(&with("ipv4 tcp", &[(16, 0), (17, 36), (20, 0x20)])), Some(Malformed::TinyFragment));
    assert_eq!(named(&with("ipv4 udp", &[(20, 0x1f), (21, 0xff)])), Some(Malformed::BadFragment));
    assert_eq!(named(&with("ipv4 tcp", &[(16, 0), (17, 45), (20, 0x20), (21, 9)])), Some(Malformed::BadFragment));
    assert_eq!(named(&base("ipv6 with nine extension headers")), Some(Malformed::TooManyExtensions));
    assert_eq!(named(&base("ipv6 with two fragment headers")), Some(Malformed::BadExtension));
    assert_eq!(named(&base("ipv6 with late hop-by-hop options")), Some(Malformed::BadExtension));
    let cut = base("ipv4 tcp");
    assert_eq!(parse(&cut[..40], cut.len()).malformed, Some(Malformed::BeyondView));
    for (number, reason) in Malformed::ALL.into_iter().enumerate() {
        assert_eq!(reason.number(), number);
    }
}

#[test]
fn vlan_identifiers_leave_out_priorities() {
    let of = |tags, vlan| Headers { tags, vlan, ..Headers::default() }.vlan_id();
    assert_eq!(of(0, [5, 0]), None);
    assert_eq!(of(1, [0xe000, 0]), None);
    assert_eq!(of(2, [0xe005, 7]), Some(5));
}

#[test]
fn tunnels_are_told_apart_and_their_faults_named() {
    let find = |wanted: &str| frames().into_iter().find(|frame| frame.name == wanted).unwrap().bytes;
    let of = |bytes: &[u8]| tunnel(bytes, &parse(bytes, bytes.len()));
    let vxlan = find("vxlan");
    let read = of(&vxlan).unwrap().unwrap();
    assert_eq!((read.kind, read.vni, read.inner_at), (TunnelKind::Vxlan, 0x0012_3456, 50));
    let inner = vxlan.get(read.inner_at..).unwrap();
    assert_eq!(parse(inner, inner.len()).transport, TransportKind::Udp);
    let geneve = find("geneve");
    let read = of(&geneve).unwrap().unwrap();
    assert_eq!((read.kind, read.vni, read.options), (TunnelKind::Geneve, 0x0012_3456, 8));
    assert_eq!(read.inner_at, 58);
    assert!(!read.control && !read.critical);
    let changed = |bytes: &[u8], place: usize, value| {
        let mut bytes = bytes.to_vec();
        bytes[place] = value;
        of(&bytes)
    };
    assert!(changed(&geneve, 43, 0xc0).unwrap().is_some_and(|tunnel| tunnel.control && tunnel.critical));
    assert_eq!(changed(&vxlan, 42, 0), Err(BadTunnel::NoIdentifier));
    assert_eq!(changed(&vxlan, 36, 1), Ok(None), "another port");
    assert_eq!(changed(&geneve, 42, 0x42), Err(BadTunnel::BadVersion));
    assert_eq!(changed(&geneve, 42, 0x3f), Err(BadTunnel::Truncated));
    assert_eq!(changed(&geneve, 45, 0x59), Err(BadTunnel::NotEthernet));
    assert_eq!(changed(&vxlan, 39, 15), Err(BadTunnel::Truncated));
    assert_eq!(changed(&vxlan, 20, 0x20), Err(BadTunnel::Fragmented));
    assert_eq!(tunnel(&vxlan[..46], &parse(&vxlan, vxlan.len())), Err(BadTunnel::BeyondView));
    assert_eq!(of(&find("ipv4 tcp")), Ok(None));
}
