#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::copy::{SMALLEST_THRESHOLD, Threshold};
use drivers::nic::FlowControl;
use proptest::prelude::*;

fn printed(text: &str) -> String {
    text.parse::<PortSpec>().unwrap().to_string()
}

#[test]
fn a_spec_prints_as_it_was_written_less_defaults() {
    let table = [
        ("null", "null"),
        ("0000:00:03.0", "0000:00:03.0"),
        ("00:03.0", "0000:00:03.0"),
        ("enp1s0f0", "enp1s0f0"),
        ("00:03.0,queues=4,ring=auto,vfio=auto,promiscuous=on", "0000:00:03.0,queues=4"),
        (
            "00:03.0,promiscuous=off,mac=52:54:00:12:34:56,vfio=iommufd,ring=packed",
            "0000:00:03.0,ring=packed,vfio=iommufd,mac=52:54:00:12:34:56,promiscuous=off",
        ),
        ("eth0,ring=split,vfio=type1", "eth0,ring=split,vfio=type1"),
        ("tap=tap0", "tap=tap0"),
        ("tap=tap0,queues=1", "tap=tap0"),
        ("tap=a-b.c_d,queues=128", "tap=a-b.c_d,queues=128"),
        ("pcap=in.pcap", "pcap=in.pcap"),
        ("pcap=a=b.pcap,loop=1", "pcap=a=b.pcap"),
        ("pcap=/x/in.pcap,loop=0,out=out.pcap", "pcap=/x/in.pcap,out=out.pcap,loop=0"),
        ("pcap=,out=out.pcap", "pcap=,out=out.pcap"),
        ("gen=max", "gen=max"),
        ("gen=1000000,size=64-64", "gen=1M"),
        ("gen=1.5M,size=64-1514,count=7,flows=2,queues=3", "gen=1500k,size=64-1514,count=7,flows=2,queues=3"),
        ("gen=500k,size=1518", "gen=500k,size=1518"),
        ("gen=2G,flows=1", "gen=2000M"),
        ("gen=1001", "gen=1001"),
        ("vhost-user=/run/vm0.sock,queues=1,client=on,prefault=off", "vhost-user=/run/vm0.sock"),
        (
            "vhost-user=a=b.sock,mtu=9000,prefault=on,client=off,queues=4",
            "vhost-user=a=b.sock,queues=4,client=off,prefault=on,mtu=9000",
        ),
        ("virtio-user=/x,server=off,ring=auto", "virtio-user=/x"),
        (
            "virtio-user=/x,mtu=1500,mac=52:54:00:12:34:56,ring=packed,server=on,queues=2",
            "virtio-user=/x,queues=2,server=on,ring=packed,mac=52:54:00:12:34:56,mtu=1500",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(printed(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_spec_is_refused_with_what_would_be_right() {
    let kinds = "; a port is a PCI address (0000:00:03.0), an interface name, vfio-user=SOCKET, vhost-user=SOCKET, \
                 virtio-user=SOCKET, tap=NAME, pcap=FILE, gen=RATE or null";
    let table = [
        ("", format!("port ``: nothing is named{kinds}")),
        ("vhost=/x", format!("port `vhost=/x`: there is no kind `vhost=`{kinds}")),
        ("gen", format!("port `gen`: `gen` lacks its value{kinds}")),
        (
            "00:20.0",
            format!("port `00:20.0`: `00:20.0`: not a PCI address (expected 0000:03:00.0 or 03:00.0){kinds}"),
        ),
        ("a b", format!("port `a b`: `a b` is neither a PCI address nor an interface name{kinds}")),
        ("null,queues=2", "port `null,queues=2`: unknown key `queues`; null takes no keys".into()),
        (
            "00:03.0,queue=2",
            "port `00:03.0,queue=2`: unknown key `queue`; a PCI device takes queues=N, ring=auto|split|packed, \
             mac=ADDRESS, mtu=BYTES, pause=on|off|rx|tx, promiscuous=on|off and vfio=auto|type1|iommufd"
                .into(),
        ),
        ("tap=t,mac=x", "port `tap=t,mac=x`: unknown key `mac`; tap takes queues=N".into()),
        ("tap=t,", "port `tap=t,`: unknown key ``; tap takes queues=N".into()),
        ("vhost-user=", format!("port `vhost-user=`: `vhost-user=` lacks its socket{kinds}")),
        ("virtio-user", format!("port `virtio-user`: `virtio-user` lacks its value{kinds}")),
        (
            "vhost-user=/x,server=on",
            "port `vhost-user=/x,server=on`: unknown key `server`; vhost-user takes queues=N, client=on|off, \
             prefault=on|off, mtu=BYTES and dma-threshold=BYTES|auto|off"
                .into(),
        ),
        (
            "virtio-user=/x,client=on",
            "port `virtio-user=/x,client=on`: unknown key `client`; virtio-user takes queues=N, server=on|off, \
             ring=auto|split|packed, mac=ADDRESS and mtu=BYTES"
                .into(),
        ),
        ("vhost-user=/x,client=1", "port `vhost-user=/x,client=1`: `client=1` is not usable: give on or off".into()),
        ("pcap=a,in=b", "port `pcap=a,in=b`: unknown key `in`; pcap takes out=FILE and loop=N".into()),
        (
            "gen=1,rate=2",
            "port `gen=1,rate=2`: unknown key `rate`; gen takes size=BYTES or size=FROM-TO, count=N, flows=N and queues=N"
                .into(),
        ),
        ("tap=t,queues=1,queues=2", "port `tap=t,queues=1,queues=2`: the key `queues` is given twice; keep one".into()),
        ("tap=t,queues=0", "port `tap=t,queues=0`: `queues=0` is not usable: give a number from 1 to 128".into()),
        ("tap=t,queues=+1", "port `tap=t,queues=+1`: `queues=+1` is not usable: give a number from 1 to 128".into()),
        ("eth0,ring=round", "port `eth0,ring=round`: `ring=round` is not usable: give auto, split or packed".into()),
        ("eth0,vfio=2", "port `eth0,vfio=2`: `vfio=2` is not usable: give auto, type1 or iommufd".into()),
        ("eth0,promiscuous=1", "port `eth0,promiscuous=1`: `promiscuous=1` is not usable: give on or off".into()),
        (
            "eth0,mac=01:00:5e:00:00:01",
            "port `eth0,mac=01:00:5e:00:00:01`: `mac=01:00:5e:00:00:01` is not usable: give a unicast Ethernet address \
             such as 52:54:00:12:34:56"
                .into(),
        ),
        (
            "tap=sixteen-letters-",
            "port `tap=sixteen-letters-`: `tap=sixteen-letters-` is not usable: give an interface name of 1 to 15 \
             characters, without `/`, `:`, `%` or blanks"
                .into(),
        ),
        (
            "pcap=",
            "port `pcap=`: `pcap=` is not usable: give a capture file to read (or `pcap=,out=FILE` to only write one)"
                .into(),
        ),
        ("pcap=a,out=", "port `pcap=a,out=`: `out=` is not usable: give a file name".into()),
        (
            "pcap=a,loop=-1",
            "port `pcap=a,loop=-1`: `loop=-1` is not usable: give how often to play the input, a whole number (0 for ever)"
                .into(),
        ),
        (
            "gen=0",
            "port `gen=0`: `gen=0` is not usable: give packets a second: `max`, or a number of at least 1 such as \
             1000, 500k, 1.5M or 1G"
                .into(),
        ),
        (
            "gen=1,size=59",
            "port `gen=1,size=59`: `size=59` is not usable: give a frame length from 60 to 1518 bytes, or a range such \
             as 64-1514"
                .into(),
        ),
        ("gen=1,flows=0", "port `gen=1,flows=0`: `flows=0` is not usable: give a whole number from 1 to 65536".into()),
        ("gen=1,count=0", "port `gen=1,count=0`: `count=0` is not usable: give a whole number of at least 1".into()),
    ];
    for (text, expected) in table {
        assert_eq!(text.parse::<PortSpec>().unwrap_err().to_string(), expected);
    }
    for text in ["gen=1.5", "gen=.5M", "gen=1.M", "gen=1.0005k", "gen=-1", "gen=1e6", "gen=99999999999G", "gen=M"] {
        assert!(matches!(text.parse::<PortSpec>(), Err(SpecError::Value { .. })), "{text}");
    }
    for text in ["gen=1,size=100-64", "gen=1,size=64-1519", "gen=1,size=64-", "gen=1,size=", "gen=1,flows=65537"] {
        assert!(matches!(text.parse::<PortSpec>(), Err(SpecError::Value { .. })), "{text}");
    }
}

fn any_queues() -> impl Strategy<Value = u16> {
    1..=MAXIMUM_QUEUES
}

fn any_spec() -> impl Strategy<Value = PortSpec> {
    let address = (any::<u32>(), any::<u8>(), 0_u8..32, 0_u8..8).prop_map(|(domain, bus, device, function)| {
        PciName::Address(drivers::bus::PciAddress { domain, bus, device, function })
    });
    // Names of kinds mean the kind.
    let name = "[a-z][a-z0-9.@_-]{0,14}".prop_filter("a kind", |name| {
        !matches!(&**name, "null" | "tap" | "gen" | "pcap" | "vfio-user" | "vhost-user" | "virtio-user")
    });
    let mac = || {
        any::<[u8; 6]>().prop_map(|mut mac| {
            mac[0] = mac[0] & 0xfe | 2;
            MacAddress(mac)
        })
    };
    let socket = "[a-zA-Z0-9./=_ äß-]{1,20}".prop_map(|path| PciName::Socket(path.into()));
    let pause = (any::<bool>(), any::<bool>()).prop_map(|(rx, tx)| FlowControl { rx, tx });
    let pci = (
        prop_oneof![address, name.clone().prop_map(PciName::Interface), socket],
        prop::option::of(any_queues()),
        prop::sample::select(vec![RingChoice::Auto, RingChoice::Split, RingChoice::Packed]),
        prop::sample::select(vec![VfioChoice::Auto, VfioChoice::Type1, VfioChoice::Iommufd]),
        prop::option::of(mac()),
        prop::option::of(68_u16..=9710),
        prop::option::of(pause),
        any::<bool>(),
    );
    let pci = pci.prop_map(|(device, queues, ring, vfio, mac, mtu, pause, promiscuous)| {
        let vfio = if matches!(device, PciName::Socket(_)) { VfioChoice::Auto } else { vfio };
        PortSpec::Pci(PciSpec { device, queues, ring, vfio, mac, mtu, pause, promiscuous })
    });
    let tap = (name, any_queues()).prop_map(|(name, queues)| PortSpec::Tap(TapSpec { name, queues }));
    let path = || "[a-zA-Z0-9./=_ äß-]{1,20}".prop_map(PathBuf::from);
    let pcap = (path(), prop::option::of(path()), any::<bool>(), any::<u64>());
    let pcap = pcap.prop_map(|(input, output, without_input, repeat)| {
        let input = if without_input && output.is_some() { None } else { Some(input) };
        PortSpec::Pcap(PcapSpec { input, output, repeat })
    });
    let rate = prop_oneof![
        Just(Rate::Maximum),
        (1..=u64::MAX).prop_map(Rate::PerSecond),
        (1_u64..9_000).prop_map(|k| Rate::PerSecond(k * 1_000))
    ];
    let size = (MINIMUM_FRAME..=MAXIMUM_FRAME, MINIMUM_FRAME..=MAXIMUM_FRAME);
    let size = size.prop_map(|(a, b)| FrameSize { shortest: a.min(b), longest: a.max(b) });
    let generator = (rate, size, prop::option::of(1..=u64::MAX), 1..=MAXIMUM_FLOWS, prop::option::of(any_queues()));
    let generator = generator.prop_map(|(rate, size, count, flows, queues)| {
        PortSpec::Generator(GeneratorSpec { rate, size, count, flows, queues })
    });
    let mtu = || prop::option::of(68_u16..=9710);
    let threshold = prop_oneof![
        Just(Threshold::Auto),
        Just(Threshold::Off),
        (SMALLEST_THRESHOLD..=65_550).prop_map(Threshold::Bytes)
    ];
    let vhost_user = (path(), any_queues(), any::<bool>(), any::<bool>(), mtu(), prop::option::of(threshold));
    let vhost_user = vhost_user.prop_map(|(socket, queues, client, prefault, mtu, dma_threshold)| {
        PortSpec::VhostUser(VhostUserSpec { socket, queues, client, prefault, mtu, dma_threshold })
    });
    let ring = prop::sample::select(vec![RingChoice::Auto, RingChoice::Split, RingChoice::Packed]);
    let virtio_user = (path(), prop::option::of(any_queues()), any::<bool>(), ring, prop::option::of(mac()), mtu());
    let virtio_user = virtio_user.prop_map(|(socket, queues, server, ring, mac, mtu)| {
        PortSpec::VirtioUser(VirtioUserSpec { socket, queues, server, ring, mac, mtu })
    });
    prop_oneof![pci, tap, pcap, generator, vhost_user, virtio_user, Just(PortSpec::Null)]
}

#[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
struct Document {
    port: Vec<PortSpec>,
}

proptest! {
    #[test]
    fn every_spec_parses_back_from_its_text(spec in any_spec()) {
        prop_assert_eq!(spec.to_string().parse::<PortSpec>(), Ok(spec));
    }

    #[test]
    fn toml_holds_specs_as_their_text(port in prop::collection::vec(any_spec(), 0..4)) {
        let document = Document { port };
        let text = toml::to_string(&document).unwrap();
        prop_assert_eq!(toml::from_str::<Document>(&text).unwrap(), document);
    }

    #[test]
    fn no_text_breaks_the_parser(text in "\\PC{0,40}|(gen|tap|pcap|vhost-user|virtio-user|00:1f.7)=?[0-9a-zA-Z,=.:-]{0,30}") {
        if let Ok(spec) = text.parse::<PortSpec>() {
            prop_assert_eq!(spec.to_string().parse::<PortSpec>(), Ok(spec));
        }
        if let Ok(spec) = text.parse::<NamedSpec>() {
            prop_assert_eq!(spec.to_string().parse::<NamedSpec>(), Ok(spec));
        }
    }
}

#[test]
fn a_socket_is_a_device_without_a_choice_of_vfio() {
    let spec: PortSpec = "vfio-user=/run/nic0.sock,queues=2,mtu=9000,pause=rx".parse().unwrap();
    let PortSpec::Pci(pci) = spec else { panic!("{spec:?}") };
    assert_eq!(pci.device, PciName::Socket("/run/nic0.sock".into()));
    assert_eq!((pci.queues, pci.mtu, pci.pause), (Some(2), Some(9000), Some(FlowControl { rx: true, tx: false })));
    let error = "vfio-user=/x,vfio=type1".parse::<PortSpec>().unwrap_err().to_string();
    assert!(error.contains("unknown key `vfio`; vfio-user takes queues=N, ring="), "{error}");
    let error = "00:03.0,mtu=67".parse::<PortSpec>().unwrap_err().to_string();
    assert!(error.contains("`mtu=67` is not usable: give a number from 68 to 9710"), "{error}");
    assert!("vfio-user=".parse::<PortSpec>().is_err() && "vfio-user".parse::<PortSpec>().is_err());
}

#[test]
fn a_wrong_spec_in_toml_is_named() {
    let error = toml::from_str::<Document>("port = [\"null\", \"tap=x,speed=9\"]").unwrap_err();
    assert!(error.to_string().contains("unknown key `speed`; tap takes queues=N"), "{error}");
}

#[test]
fn an_event_is_consumed_once_and_never_waited_for() {
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    let event = std::sync::Arc::new(eventfd(0, EventfdFlags::empty()).unwrap());
    let wake = Wake::event(std::sync::Arc::clone(&event));
    // Blocks for ever if it is wrong: the eventfd is a blocking one.
    wake.consume();
    rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
    let readable = || {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&now)).unwrap() == 1
    };
    assert!(readable());
    wake.consume();
    assert!(!readable());
}
