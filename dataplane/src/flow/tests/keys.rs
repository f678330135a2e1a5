//! What is in a key, against frames made by an independent library.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use drivers::nic::MacAddress;
use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::super::*;
use crate::headers::parse;

fn fields() -> impl Strategy<Value = KeyFields> {
    let addresses = prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(from, to)| (IpAddr::V4(from), IpAddr::V4(to))),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(from, to)| (IpAddr::V6(from), IpAddr::V6(to))),
    ];
    let vlans = prop_oneof![
        Just([None, None]),
        (0_u16..4096).prop_map(|id| [Some(id), None]),
        (0_u16..4096, 0_u16..4096).prop_map(|(outer, inner)| [Some(outer), Some(inner)]),
    ];
    let domain = (any::<u32>(), any::<bool>())
        .prop_map(|(number, tunnel)| if tunnel { Domain::tunnel(number) } else { Domain::port(number) });
    (domain, any::<([u8; 6], [u8; 6])>(), vlans, addresses, any::<bool>(), any::<(u16, u16)>()).prop_map(
        |(domain, (destination, source), vlans, addresses, tcp, (source_port, destination_port))| KeyFields {
            domain,
            destination_mac: MacAddress(destination),
            source_mac: MacAddress(source),
            vlans,
            ether_type: if addresses.0.is_ipv4() { 0x0800 } else { 0x86dd },
            addresses: Some(addresses),
            protocol: if tcp { 6 } else { 17 },
            source_port,
            destination_port,
            later_fragment: false,
        },
    )
}

/// A frame of the flow.
fn frame(fields: &KeyFields) -> Vec<u8> {
    use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, VlanHeader, VlanId};
    let builder = PacketBuilder::ethernet2(fields.source_mac.0, fields.destination_mac.0);
    let ip = match fields.addresses.unwrap() {
        (IpAddr::V4(from), IpAddr::V4(to)) => IpHeaders::Ipv4(
            Ipv4Header::new(0, 9, fields.protocol.into(), from.octets(), to.octets()).unwrap(),
            Default::default(),
        ),
        (IpAddr::V6(from), IpAddr::V6(to)) => IpHeaders::Ipv6(
            Ipv6Header {
                hop_limit: 9,
                next_header: fields.protocol.into(),
                source: from.octets(),
                destination: to.octets(),
                ..Default::default()
            },
            Default::default(),
        ),
        mixed => panic!("{mixed:?}"),
    };
    let id = |id: u16| VlanId::try_new(id).unwrap();
    let tag = |id| etherparse::SingleVlanHeader { vlan_id: id, ..Default::default() };
    let builder = match fields.vlans {
        [None, _] => builder.ip(ip),
        [Some(outer), None] => builder.vlan(VlanHeader::Single(tag(id(outer)))).ip(ip),
        [Some(outer), Some(inner)] => builder.double_vlan(id(outer), id(inner)).ip(ip),
    };
    let mut bytes = Vec::new();
    if fields.protocol == 6 {
        builder.tcp(fields.source_port, fields.destination_port, 1, 1).write(&mut bytes, b"bytes").unwrap();
    } else {
        builder.udp(fields.source_port, fields.destination_port).write(&mut bytes, b"bytes").unwrap();
    }
    bytes
}

proptest! {
    #[test]
    fn the_key_of_a_frame_is_that_of_its_fields(fields in fields()) {
        let bytes = frame(&fields);
        let headers = parse(&bytes, bytes.len());
        prop_assert_eq!(headers.malformed, None);
        let key = FlowKey::of(&headers, &bytes, fields.domain);
        prop_assert_eq!(key, FlowKey::from(&fields));
        prop_assert_eq!(key.domain(), fields.domain);
        prop_assert_eq!((key.source_mac(), key.destination_mac()), (fields.source_mac, fields.destination_mac));
        prop_assert_eq!(key.vlans(), fields.vlans);
        prop_assert_eq!((key.ether_type(), key.protocol()), (fields.ether_type, fields.protocol));
        prop_assert_eq!(key.source().zip(key.destination()), fields.addresses);
        prop_assert_eq!((key.source_port(), key.destination_port()), (fields.source_port, fields.destination_port));
        prop_assert!(!key.is_wide() && !key.is_later_fragment());
        let other = KeyFields { source_port: !fields.source_port, destination_port: 0, later_fragment: true, ..fields };
        let other = FlowKey::from(&other);
        prop_assert!(other != key && other.is_later_fragment());
        prop_assert_eq!(key.wide(), other.wide());
        prop_assert!(key.wide().is_wide() && !key.wide().is_later_fragment() && key.wide() != key);
        prop_assert_eq!(key.wide().source().zip(key.wide().destination()), fields.addresses);
    }
}

#[test]
fn every_field_makes_another_key() {
    let base = super::key(0);
    let fields = |change: &dyn Fn(&mut KeyFields)| {
        let mut fields = KeyFields {
            domain: Domain::port(1),
            destination_mac: base.destination_mac(),
            source_mac: base.source_mac(),
            vlans: [None, None],
            ether_type: 0x0800,
            addresses: base.source().zip(base.destination()),
            protocol: 17,
            source_port: base.source_port(),
            destination_port: base.destination_port(),
            later_fragment: false,
        };
        change(&mut fields);
        FlowKey::from(&fields)
    };
    let swapped = base.destination().zip(base.source());
    let changes: [&dyn Fn(&mut KeyFields); 12] = [
        &|_| {},
        &|fields| fields.domain = Domain::tunnel(1),
        &|fields| fields.domain = Domain::port(2),
        &|fields| fields.destination_mac.0[5] ^= 1,
        &|fields| fields.source_mac.0[0] ^= 1,
        &|fields| fields.vlans[0] = Some(0),
        &|fields| fields.vlans[1] = Some(1),
        &|fields| fields.ether_type = 0x86dd,
        &|fields| fields.addresses = swapped,
        &|fields| fields.addresses = None,
        &|fields| fields.protocol = 6,
        &|fields| std::mem::swap(&mut fields.source_port, &mut fields.destination_port),
    ];
    let keys: HashSet<_> = changes.iter().map(|change| fields(change)).collect();
    assert_eq!(keys.len(), changes.len());
    assert!(keys.contains(&base));
}

#[test]
fn a_key_reads_as_a_sentence() {
    let text = format!("{:?}", super::key(17));
    assert_eq!(text, "port 1 02:00:00:00:00:01>02:00:00:00:00:02 10.0.0.1>11.0.0.0 protocol 17 ports 1001>53");
    assert!(format!("{:?}", super::key(17).wide()).ends_with("protocol 17 wide"));
}
