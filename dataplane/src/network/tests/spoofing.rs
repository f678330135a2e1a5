//! Senders that are not who they say.

use super::world::*;

const WORLD: &str = r#"
network = [{ name = "red", routers = ["10.0.0.1/24", "fd00::1/64"] }]
port = [
    { name = "vm", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.11", "10.9.0.0/16", "fd00::11"] },
    { name = "victim", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.12", "fd00::12"] },
    { name = "bridge", network = "red", anti-spoofing = false },
]
"#;

const ME: ([u8; 6], [u8; 6]) = (mac(1), mac(2));
/// The link-local address of the first station.
const LINK_LOCAL: &str = "fe80::5054:ff:fe00:1";

#[test]
fn spoofed_frames_are_never_forwarded() {
    let mut world = World::new(WORLD);
    let everybody = (mac(1), EVERYBODY);
    let all_nodes = (mac(1), [0x33, 0x33, 0, 0, 0, 1]);
    let spoofed = [
        ("MAC", udp((mac(2), mac(3)), ("10.0.0.11", "10.0.0.12"), (1, 2))),
        ("group as a source", udp((EVERYBODY, mac(2)), ("10.0.0.11", "10.0.0.12"), (1, 2))),
        ("router's MAC", udp((ROUTER, mac(2)), ("10.0.0.11", "10.0.0.12"), (1, 2))),
        ("IPv4", udp(ME, ("10.0.0.12", "10.0.0.12"), (1, 2))),
        ("IPv6", udp(ME, ("fd00::12", "fd00::12"), (1, 2))),
        ("another's link-local", udp(ME, ("fe80::5054:ff:fe00:2", "fd00::12"), (1, 2))),
        ("no address, and no DHCP", udp(everybody, ("0.0.0.0", "255.255.255.255"), (67, 68))),
        ("no address, IPv6", udp(all_nodes, ("::", "ff02::1"), (1, 2))),
        ("ARP: sender's address", arp(mac(1), 2, (mac(1), "10.0.0.12"), "10.0.0.11")),
        ("ARP: sender's MAC", arp(mac(1), 2, (mac(2), "10.0.0.11"), "10.0.0.12")),
        ("ARP: the router", arp(mac(1), 2, (mac(1), "10.0.0.1"), "10.0.0.12")),
        ("gratuitous ARP", arp(mac(1), 1, (mac(1), "10.0.0.12"), "10.0.0.12")),
        ("advertised target", discovery(ME, ("fd00::11", "fd00::12"), 136, "fd00::12", mac(1))),
        ("advertised router", discovery(ME, ("fd00::11", "fd00::12"), 136, "fd00::1", mac(1))),
        ("advertised MAC", discovery(ME, ("fd00::11", "fd00::12"), 136, "fd00::11", mac(2))),
        ("advertiser", discovery(ME, ("fd00::12", "fd00::12"), 136, "fd00::11", mac(1))),
        ("solicited as another", discovery(ME, ("fd00::12", "fd00::11"), 135, "fd00::12", mac(1))),
        ("soliciting MAC", discovery(ME, ("fd00::11", "fd00::12"), 135, "fd00::12", mac(3))),
        ("duplicate of another", discovery(all_nodes, ("::", "ff02::1"), 135, "fd00::12", mac(1))),
        ("router advertisement", icmp(all_nodes, (LINK_LOCAL, "ff02::1"), 134, &[0; 8])),
        ("redirect", icmp(ME, (LINK_LOCAL, "fd00::12"), 137, &[0; 32])),
        ("options that end early", icmp(ME, ("fd00::11", "fd00::12"), 135, &[&[0; 16][..], &[1, 4]].concat())),
        ("an option of no length", icmp(ME, ("fd00::11", "fd00::12"), 135, &[&[0; 16][..], &[1, 0, 0, 0]].concat())),
    ];
    for (what, frame) in spoofed {
        assert_eq!(world.sends("vm", &frame), "Spoofed", "{what}");
    }
    assert!(world.brain.connections().is_empty());
}

#[test]
fn what_is_the_senders_own_passes() {
    let mut world = World::new(WORLD);
    for (what, frame, expected) in [
        ("IPv4", udp(ME, ("10.0.0.11", "10.0.0.12"), (1, 2)), "victim"),
        ("out of its prefix", udp(ME, ("10.9.8.7", "10.0.0.12"), (1, 2)), "victim"),
        ("IPv6", udp(ME, ("fd00::11", "fd00::12"), (1, 2)), "victim"),
        ("link-local", udp(ME, (LINK_LOCAL, "fd00::12"), (1, 2)), "victim"),
        ("DHCP", udp((mac(1), EVERYBODY), ("0.0.0.0", "255.255.255.255"), (68, 67)), "bridge+victim"),
        ("ARP for a known address", arp(mac(1), 1, (mac(1), "10.0.0.11"), "10.0.0.12"), "local"),
        ("ARP for the router", arp(mac(1), 1, (mac(1), "10.0.0.11"), "10.0.0.1"), "local"),
        ("ARP for an unknown one", arp(mac(1), 1, (mac(1), "10.0.0.11"), "10.0.0.99"), "bridge+victim"),
        ("ARP probe", arp(mac(1), 1, (mac(1), "0.0.0.0"), "10.0.0.11"), "bridge+victim"),
        ("gratuitous ARP", arp(mac(1), 1, (mac(1), "10.0.0.11"), "10.0.0.11"), "bridge+victim"),
        ("solicitation", discovery(ME, ("fd00::11", "fd00::12"), 135, "fd00::12", mac(1)), "local"),
        ("advertisement", discovery(ME, ("fd00::11", "fd00::12"), 136, "fd00::11", mac(1)), "victim"),
        (
            "duplicate address detection",
            discovery((mac(1), EVERYBODY), ("::", "ff02::1"), 135, "fd00::11", mac(1)),
            "bridge+victim",
        ),
    ] {
        let decision = world.send("vm", &frame);
        assert_eq!(world.goes(&decision.action), expected, "{what}");
    }
}

#[test]
fn a_flow_never_stands_for_neighbour_discovery() {
    let mut world = World::new(WORLD);
    let honest = world.send("vm", &discovery(ME, ("fd00::11", "fd00::12"), 136, "fd00::11", mac(1)));
    assert_eq!(honest.key, None, "what it says is not in the key");
    let echo = world.send("vm", &icmp(ME, ("fd00::11", "fd00::12"), 128, &[]));
    assert!(!echo.key.unwrap().is_wide(), "a flow for all of ICMPv6 would let advertisements pass");
    let datagram = world.send("vm", &udp(ME, ("fd00::11", "fd00::12"), (1, 2)));
    assert!(datagram.key.unwrap().is_wide());
}

#[test]
fn addresses_that_somebody_has_are_not_learned_elsewhere() {
    let mut world = World::new(WORLD);
    assert_eq!(world.sends("bridge", &udp((mac(2), mac(1)), ("10.0.0.50", "10.0.0.11"), (1, 2))), "Spoofed");
    assert_eq!(world.sends("bridge", &udp((ROUTER, mac(1)), ("10.0.0.50", "10.0.0.11"), (1, 2))), "Spoofed");
    world.send("bridge", &arp(mac(9), 2, (mac(9), "10.0.0.12"), "10.0.0.11"));
    let routed = world.send("vm", &udp((mac(1), ROUTER), ("10.0.0.11", "10.0.0.12"), (1, 2)));
    assert_eq!(world.goes(&routed.action), "victim", "what the configuration says holds");
}
