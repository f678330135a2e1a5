//! Frames of each kind, made by hand.

use super::super::{Fragment, Malformed, NetworkKind, TransportKind};

pub(super) type Expect = (NetworkKind, TransportKind, Fragment, u8, Option<Malformed>);

pub(super) struct Frame {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) expect: Expect,
}

fn ethernet(tags: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        bytes.extend([0x81, 0]);
        bytes.extend(tag.to_be_bytes());
    }
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn ipv4(protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header = u8::try_from(5 + options.len() / 4).unwrap();
    let total = u16::try_from(usize::from(header) * 4 + payload.len()).unwrap();
    let mut bytes = vec![0x40 | header, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0x12, 0x34]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    bytes.extend(payload);
    bytes
}

fn tcp(options: usize) -> Vec<u8> {
    let mut bytes = vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0];
    bytes.extend([u8::try_from(5 + options / 4).unwrap() << 4, 2, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(std::iter::repeat_n(1, options));
    bytes.extend(b"payload of TCP");
    bytes
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x30, 0x39];
    bytes.extend(port.to_be_bytes());
    bytes.extend(u16::try_from(payload.len() + 8).unwrap().to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

/// An extension header of eight bytes.
fn extension(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, 0, 1, 4, 0, 0, 0, 0];
    bytes.extend(payload);
    bytes
}

fn fragment_header(next: u8, field: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, 0];
    bytes.extend(field.to_be_bytes());
    bytes.extend([0, 0, 0, 9]);
    bytes.extend(payload);
    bytes
}

/// One frame of each kind.
pub(super) fn frames() -> Vec<Frame> {
    use Fragment::{First, Later, Whole};
    use NetworkKind as Network;
    use TransportKind as Transport;
    let mut all = Vec::new();
    let mut add = |name, bytes, network, transport, fragment, tags, malformed| {
        all.push(Frame { name, bytes, expect: (network, transport, fragment, tags, malformed) });
    };
    let v4 = |payload: Vec<u8>| ethernet(&[], 0x0800, &payload);
    let v6 = |payload: Vec<u8>| ethernet(&[], 0x86dd, &payload);
    let echo = [8, 0, 0, 0, 0, 1, 0, 2, 1, 2, 3, 4];
    let sctp = [0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 4];
    add("lldp", ethernet(&[], 0x88cc, &[2, 7, 4]), Network::None, Transport::None, Whole, 0, None);
    add("length instead of type", ethernet(&[], 0x0020, &[0; 32]), Network::None, Transport::None, Whole, 0, None);
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
    add("arp", ethernet(&[], 0x0806, &arp), Network::Arp, Transport::None, Whole, 0, None);
    add("ipv4 tcp", v4(ipv4(6, &[], 0x4000, &tcp(0))), Network::Ipv4, Transport::Tcp, Whole, 0, None);
    add("ipv4 tcp options", v4(ipv4(6, &[1; 8], 0, &tcp(12))), Network::Ipv4, Transport::Tcp, Whole, 0, None);
    add("ipv4 udp", v4(ipv4(17, &[], 0, &udp(53, b"question"))), Network::Ipv4, Transport::Udp, Whole, 0, None);
    add("ipv4 icmp", v4(ipv4(1, &[], 0, &echo)), Network::Ipv4, Transport::Icmp, Whole, 0, None);
    add("ipv4 sctp", v4(ipv4(132, &[], 0, &sctp)), Network::Ipv4, Transport::Sctp, Whole, 0, None);
    add("ipv4 gre", v4(ipv4(47, &[], 0, &[0; 8])), Network::Ipv4, Transport::None, Whole, 0, None);
    let first = udp(53, &[7; 24]);
    add("ipv4 first", v4(ipv4(17, &[], 0x2000, &first)), Network::Ipv4, Transport::Udp, First, 0, None);
    add("ipv4 later", v4(ipv4(17, &[], 0x2004, &first)), Network::Ipv4, Transport::None, Later, 0, None);
    let mut padded = v4(ipv4(17, &[], 0, &udp(53, b"x")));
    padded.resize(60, 0);
    add("ipv4 padded", padded, Network::Ipv4, Transport::Udp, Whole, 0, None);
    let tagged = ethernet(&[5], 0x0800, &ipv4(6, &[], 0, &tcp(0)));
    add("vlan", tagged, Network::Ipv4, Transport::Tcp, Whole, 1, None);
    let twice = ethernet(&[5, 0x2007], 0x86dd, &ipv6(17, &udp(53, b"x")));
    add("two tags", twice, Network::Ipv6, Transport::Udp, Whole, 2, None);
    let thrice = ethernet(&[5, 6, 7], 0x0800, &ipv4(6, &[], 0, &tcp(0)));
    add("three tags", thrice, Network::None, Transport::None, Whole, 2, Some(Malformed::TooManyTags));
    add("ipv6 tcp", v6(ipv6(6, &tcp(4))), Network::Ipv6, Transport::Tcp, Whole, 0, None);
    add("ipv6 icmp", v6(ipv6(58, &[128, 0, 0, 0, 0, 1, 0, 2])), Network::Ipv6, Transport::Icmpv6, Whole, 0, None);
    add("ipv6 none", v6(ipv6(59, &[])), Network::Ipv6, Transport::None, Whole, 0, None);
    let options = ipv6(0, &extension(60, &extension(43, &extension(17, &udp(53, b"x")))));
    add("ipv6 extensions", v6(options), Network::Ipv6, Transport::Udp, Whole, 0, None);
    let authenticated: Vec<u8> = [&[6, 4, 0, 0][..], &[1; 20], &tcp(0)].concat();
    add("ipv6 authentication", v6(ipv6(51, &authenticated)), Network::Ipv6, Transport::Tcp, Whole, 0, None);
    let part = |field| v6(ipv6(44, &fragment_header(17, field, &first)));
    add("ipv6 atomic", part(0), Network::Ipv6, Transport::Udp, Whole, 0, None);
    add("ipv6 first", part(1), Network::Ipv6, Transport::Udp, First, 0, None);
    add("ipv6 later", part(0x41), Network::Ipv6, Transport::None, Later, 0, None);
    let many = (0..8).fold(extension(17, &udp(53, b"x")), |rest, _| extension(60, &rest));
    let name = "ipv6 with nine extension headers";
    add(name, v6(ipv6(60, &many)), Network::Ipv6, Transport::None, Whole, 0, Some(Malformed::TooManyExtensions));
    let twice = ipv6(44, &fragment_header(44, 1, &fragment_header(17, 1, &first)));
    let name = "ipv6 with two fragment headers";
    add(name, v6(twice), Network::Ipv6, Transport::None, First, 0, Some(Malformed::BadExtension));
    let late = ipv6(60, &extension(0, &extension(17, &udp(53, b"x"))));
    let name = "ipv6 with late hop-by-hop options";
    add(name, v6(late), Network::Ipv6, Transport::None, Whole, 0, Some(Malformed::BadExtension));
    let inner = v4(ipv4(17, &[], 0, &udp(53, b"inner ")));
    let header = [8, 0, 0, 0, 0x12, 0x34, 0x56, 0];
    let vxlan = udp(4789, &[&header[..], &inner].concat());
    add("vxlan", v4(ipv4(17, &[], 0, &vxlan)), Network::Ipv4, Transport::Udp, Whole, 0, None);
    let header = [2, 0, 0x65, 0x58, 0x12, 0x34, 0x56, 0, 1, 2, 3, 1, 0, 0, 0, 0];
    let geneve = udp(6081, &[&header[..], &inner].concat());
    add("geneve", v4(ipv4(17, &[], 0, &geneve)), Network::Ipv4, Transport::Udp, Whole, 0, None);
    all
}
