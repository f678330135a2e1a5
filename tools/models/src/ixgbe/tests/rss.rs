#![allow(clippy::unwrap_used, reason = "tests")]
use super::super::parse::TagTypes;
use super::super::tests::frames::{Recipe, UDP};
use super::*;

/// The key and the vectors that Microsoft published to verify receive-side scaling.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];

fn rss(fields: Fields) -> Rss {
    let queues = std::array::from_fn(|index| u8::try_from(index % 16).unwrap());
    Rss::with(fields, &KEY, queues)
}

fn hash(rss: &Rss, recipe: &Recipe) -> Hashed {
    let frame = recipe.build();
    rss.hash(&frame, &Parsed::new(&frame, TagTypes { tag: 0x8100, outer: None }))
}

fn recipe(source: &str, source_port: u16, target: &str, target_port: u16) -> Recipe {
    let bytes = |text: &str| {
        let mut bytes = [0; 16];
        match text.parse().unwrap() {
            std::net::IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            std::net::IpAddr::V6(address) => bytes = address.octets(),
        }
        bytes
    };
    Recipe {
        version6: source.contains(':'),
        tcp: true,
        ports: [source_port, target_port],
        source: bytes(source),
        target: bytes(target),
        ..UDP
    }
}

#[test]
fn the_published_vectors_come_out() {
    let vectors = [
        ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e_8fc2, 0x51cc_c178),
        ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718_262a, 0xc626_b0ea),
        ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0_a5de, 0x5c2b_394a),
        ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x8298_9176, 0xafc7_327f),
        ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d18_09c5, 0x10e8_28a2),
        ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc1_8cd5, 0x4020_7d3d),
        ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c_461c, 0xdde5_1bbf),
        ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024, 0x4b61_e985, 0x02d1_feef),
    ];
    for (source, source_port, target, target_port, plain, whole) in vectors {
        let recipe = recipe(source, source_port, target, target_port);
        let hashed = hash(&rss(Fields::IPV4 | Fields::IPV6), &recipe);
        let kinds = if recipe.version6 { [5, 3] } else { [2, 1] };
        assert_eq!((hashed.hash, hashed.kind), (plain, kinds[0]), "{source}");
        let hashed = hash(&rss(Fields::all()), &recipe);
        assert_eq!((hashed.hash, hashed.kind), (whole, kinds[1]), "{source}");
        assert_eq!(u32::from(hashed.queue), whole & 127 & 15);
    }
}

#[test]
fn what_is_hashed_follows_the_enabled_fields() {
    let udp = recipe("66.9.149.187", 2794, "161.142.100.80", 1766);
    let udp = Recipe { tcp: false, ..udp };
    let only_tcp = hash(&rss(Fields::TCP_IPV4 | Fields::IPV4), &udp);
    assert_eq!((only_tcp.hash, only_tcp.kind), (0x323e_8fc2, 2), "addresses only");
    assert_eq!(hash(&rss(Fields::TCP_IPV4), &udp), Hashed::default(), "nothing to hash: queue 0");
    let whole = hash(&rss(Fields::all()), &udp);
    assert_eq!((whole.hash, whole.kind), (0x51cc_c178, 7), "the ports are the same");
    assert_eq!(hash(&rss(Fields::all()), &Recipe { version6: true, ..udp }).kind, 8);
    // A fragment has no ports to speak of.
    let mut frame = Recipe { tcp: true, ..udp }.build();
    frame[20] = 0x20;
    let parsed = Parsed::new(&frame, TagTypes { tag: 0x8100, outer: None });
    assert_eq!(rss(Fields::all()).hash(&frame, &parsed).kind, 2);
}
