//! Datagrams that are not what they should be.

use super::*;

/// A datagram as it travels.
fn datagram(encapsulation: &Encapsulation) -> Vec<u8> {
    let mut packet = packet(&tcp(2, 90));
    encapsulate(&mut packet, &encapsulation.template().unwrap(), 99).unwrap();
    complete(&mut packet);
    bytes_of(&packet)
}

fn arrive(bytes: &[u8], encapsulation: &Encapsulation) -> (Result<Option<Arrival>, Reason>, Vec<u8>) {
    let mut packet = packet(bytes);
    let headers = headers_of(&packet);
    let result = decapsulate(&mut packet, &headers, &terminations(encapsulation));
    (result, bytes_of(&packet))
}

#[test]
fn changed_datagrams_are_refused_or_arrive_whole() {
    let mut random = 1_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap()
    };
    for encapsulation in encapsulations() {
        let good = datagram(&encapsulation);
        let inner = tcp(2, 90);
        let mut refused = 0;
        for _ in 0..4000 {
            let mut bytes = good.clone();
            for _ in 0..=next() % 3 {
                let at = next() % 100;
                bytes[at] ^= u8::try_from(1 + next() % 255).unwrap();
            }
            if next() % 4 == 0 {
                bytes.truncate(next() % good.len());
            }
            let (result, after) = arrive(&bytes, &encapsulation);
            match result {
                Ok(Some(arrival)) => {
                    assert_eq!(arrival, ARRIVAL);
                    assert!(after.len() <= inner.len());
                }
                Ok(None) | Err(_) => {
                    assert_eq!(after, bytes, "unchanged when refused");
                    refused += 1;
                }
            }
        }
        assert!(refused > 2000, "{refused} refused of {encapsulation:?}");
    }
}

#[test]
fn every_prefix_and_every_flipped_bit_of_the_outer_headers_is_survived() {
    for encapsulation in encapsulations() {
        let good = datagram(&encapsulation);
        for len in 1..good.len() {
            let (result, after) = arrive(&good[..len], &encapsulation);
            assert!(!matches!(result, Ok(Some(_))), "{len} bytes of {}", good.len());
            assert_eq!(after, good[..len]);
        }
        let outer = encapsulation.template().unwrap().headers().len();
        for bit in 0..outer * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (result, after) = arrive(&bytes, &encapsulation);
            if !matches!(result, Ok(Some(_))) {
                assert_eq!(after, bytes);
            }
        }
    }
}

#[test]
fn each_fault_has_its_name() {
    let geneve = Encapsulation::new(TunnelKind::Geneve, 1, v4(), HERE, THERE);
    let vxlan = Encapsulation::new(TunnelKind::Vxlan, 1, v4(), HERE, THERE);
    let over_v6 = Encapsulation::new(TunnelKind::Vxlan, 1, v6(), HERE, THERE);
    let change = |encapsulation: &Encapsulation, at: usize, byte: u8| {
        let mut bytes = datagram(encapsulation);
        bytes[at] = byte;
        arrive(&bytes, encapsulation).0
    };
    assert_eq!(change(&geneve, 43, 0x80), Err(Reason::ControlMessage));
    assert_eq!(change(&geneve, 43, 0x40), Err(Reason::CriticalOption));
    assert_eq!(change(&geneve, 42, 0x40), Err(Reason::BadTunnel), "version 1");
    assert_eq!(change(&geneve, 44, 0x08), Err(Reason::BadTunnel), "no Ethernet inside");
    assert_eq!(change(&geneve, 42, 0x3f), Err(Reason::BadTunnel), "options beyond the end");
    assert_eq!(change(&vxlan, 42, 0), Err(Reason::BadTunnel), "no VNI");
    assert_eq!(change(&vxlan, 48, 2), Err(Reason::UnknownTunnel));
    assert_eq!(change(&vxlan, 22, 63), Err(Reason::BadChecksum), "of IPv4");
    assert_eq!(change(&vxlan, 41, 1), Err(Reason::BadChecksum), "of UDP");
    assert_eq!(change(&over_v6, 100, 0xee), Err(Reason::BadChecksum), "of UDP over IPv6");
    // A datagram that ends inside the inner Ethernet header.
    let mut short = datagram(&vxlan);
    short.truncate(14 + 20 + 8 + 8 + 13);
    short[38..40].copy_from_slice(&29_u16.to_be_bytes());
    short[16..18].copy_from_slice(&49_u16.to_be_bytes());
    short[24..26].fill(0);
    let sum = !crate::checksum::fold(crate::checksum::sum(&short[14..34]));
    short[24..26].copy_from_slice(&sum.to_ne_bytes());
    assert_eq!(arrive(&short, &vxlan).0, Err(Reason::Runt));
}

#[test]
fn padding_and_what_the_port_knows_of_the_outer_frame_go() {
    let encapsulation = Encapsulation::new(TunnelKind::Vxlan, 1, v4(), HERE, THERE);
    let mut bytes = datagram(&encapsulation);
    bytes.extend([0; 9]);
    // The card found all checksums right, so a wrong one is not looked at.
    bytes[41] = 77;
    let mut packet = packet(&bytes);
    let metadata = packet.metadata_mut();
    metadata.checksum = hugemem::Checksum::Verified;
    metadata.hash = Some(4);
    metadata.vlan = Some(9);
    let headers = headers_of(&packet);
    assert_eq!(decapsulate(&mut packet, &headers, &terminations(&encapsulation)), Ok(Some(ARRIVAL)));
    assert_eq!(bytes_of(&packet), tcp(2, 90));
    assert_eq!(*packet.metadata(), hugemem::Metadata::default());
}

#[test]
fn several_datagrams_in_one_are_refused() {
    let encapsulation = Encapsulation::new(TunnelKind::Vxlan, 1, v4(), HERE, THERE);
    let mut packet = packet(&datagram(&encapsulation));
    let kind = hugemem::SegmentationKind::Udp;
    packet.metadata_mut().checksum = hugemem::Checksum::Partial { start: 34, offset: 6 };
    packet.metadata_mut().segmentation = Some(hugemem::Segmentation { kind, size: 60, header_len: 42, ecn: false });
    let headers = headers_of(&packet);
    assert_eq!(decapsulate(&mut packet, &headers, &terminations(&encapsulation)), Err(Reason::Uncut));
}
