#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::port::PortSpec;
use drivers::nic::DropReason;
use hugemem::{Batch, Checksum, Iova, Region};
use proptest::prelude::*;

fn pool(buffers: usize, room: usize) -> PacketPool {
    let region = Region::on_heap(buffers * (room + 256) + 4096, Iova::new(0)).unwrap();
    region.packets(buffers, room).unwrap()
}

fn spec(text: &str) -> PcapSpec {
    match text.parse().unwrap() {
        PortSpec::Pcap(spec) => spec,
        spec => panic!("{spec} is no capture"),
    }
}

fn opened(text: &str, pools: Vec<PacketPool>) -> (Vec<PortQueue>, PcapControl) {
    let spec = spec(text);
    open("p", &spec, load("p", &spec).unwrap(), pools).unwrap()
}

fn failure(text: &str) -> String {
    let spec = spec(text);
    let opened = load("p", &spec).and_then(|capture| open("p", &spec, capture, vec![pool(1, 64)]));
    opened.map(|_| ()).unwrap_err().to_string()
}

/// A pcap file in the given byte order.
fn pcap_file(frames: &[Vec<u8>], big: bool, link: u32) -> Vec<u8> {
    let word = |word: u32| if big { word.to_be_bytes() } else { word.to_le_bytes() };
    let version = if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
    let mut file = word(0xa1b2_c3d4).to_vec();
    file.extend(version);
    for field in [0, 0, 65_535, link] {
        file.extend(word(field));
    }
    for (index, frame) in (0..).zip(frames) {
        let len = u32::try_from(frame.len()).unwrap();
        for field in [index, 999_999, len, len] {
            file.extend(word(field));
        }
        file.extend(frame);
    }
    file
}

/// A pcapng file with two interfaces, comments between the packets, and packets in simple and enhanced blocks.
fn pcapng_file(frames: &[Vec<u8>]) -> Vec<u8> {
    fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
        let padding = body.len().next_multiple_of(4) - body.len();
        let len = u32::try_from(body.len() + padding + 12).unwrap();
        file.extend(kind.to_le_bytes());
        file.extend(len.to_le_bytes());
        file.extend(body);
        file.extend(vec![0; padding]);
        file.extend(len.to_le_bytes());
    }
    let mut file = Vec::new();
    block(&mut file, 0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    for _ in 0..2 {
        block(&mut file, 1, &[1, 0, 0, 0, 0, 0, 4, 0]);
    }
    for (index, frame) in frames.iter().enumerate() {
        block(&mut file, 0x0bad_f00d, b"whatever");
        let len = u32::try_from(frame.len()).unwrap().to_le_bytes();
        if index % 2 == 0 {
            block(&mut file, 3, &[&len[..], frame].concat());
        } else {
            let fields = [[1, 0, 0, 0], [0; 4], [0; 4], len, len].concat();
            block(&mut file, 6, &[&fields[..], frame].concat());
        }
    }
    file
}

fn frames(lengths: &[usize]) -> Vec<Vec<u8>> {
    lengths.iter().map(|len| (0..*len).map(|byte| u8::try_from((byte * 7 + len) % 256).unwrap()).collect()).collect()
}

fn all(capture: &Capture) -> Vec<Vec<u8>> {
    (0..capture.len()).map(|index| capture.frame(index).unwrap().to_vec()).collect()
}

#[test]
fn every_byte_of_a_capture_comes_out_again_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.pcap"), folder.path().join("out.pcap"));
    let frames = frames(&[60, 1514, 64, 14, 9_014, 65_535, 61, 1000]);
    std::fs::write(&input, pcap_file(&frames, false, 1)).unwrap();
    let text = format!("pcap={},out={},loop=3", input.display(), output.display());
    let (mut queues, mut control) = opened(&text, vec![pool(80, 1920), pool(1, 64)]);
    assert_eq!(control.supply(), Supply::Remaining);
    let before = std::time::SystemTime::now();
    let mut batch = Batch::new(3);
    for turn in 0.. {
        assert!(turn < 1000, "it ends");
        let received = queues[0].rx.receive(&mut batch);
        assert_eq!(queues[turn % 2].tx.transmit(&mut batch), received);
        if control.supply() == Supply::Exhausted {
            break;
        }
    }
    assert_eq!(queues[0].rx.receive(&mut batch) + queues[1].rx.receive(&mut batch), 0);
    assert_eq!(queues[0].rx.counters().packets, 24);
    // Readable while the port is in use, as soon as control has looked after it.
    control.check().unwrap();
    let three_times = [&frames[..], &frames[..], &frames[..]].concat();
    assert_eq!(all(&Capture::load(&output).unwrap()), three_times);
    control.stop(queues).unwrap();
    drop(control);
    let file = std::fs::read(&output).unwrap();
    assert_eq!(file[..4], [0x4d, 0x3c, 0xb2, 0xa1], "nanosecond times");
    let (rest, parser) = pcap_file::pcap::PcapParser::new(&file).unwrap();
    let (_, first) = parser.next_packet(rest).unwrap();
    let since = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((since(before)..=since(std::time::SystemTime::now())).contains(&first.timestamp));
}

#[test]
fn what_a_dropped_port_held_back_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.pcap");
    let (mut queues, control) = opened(&format!("pcap=,out={}", output.display()), vec![pool(4, 1920)]);
    assert_eq!(Capture::load(&output).unwrap().len(), 0, "valid from the start");
    assert_eq!(control.supply(), Supply::Endless);
    let mut packet = pool(1, 1920).take().unwrap();
    packet.write(&[0xaa; 60]).unwrap();
    // 4 bytes from 50 on, with the checksum field in the middle.
    packet.bytes_mut()[50..60].copy_from_slice(&[0, 1, 0, 2, 0, 0, 0, 0, 0, 0]);
    packet.metadata_mut().checksum = Checksum::Partial { start: 50, offset: 4 };
    let mut batch = Batch::new(4);
    batch.push(packet).unwrap();
    let mut wrong = pool(1, 1920).take().unwrap();
    wrong.write(&[0; 60]).unwrap();
    wrong.metadata_mut().checksum = Checksum::Partial { start: 50, offset: 9 };
    batch.push(wrong).unwrap();
    assert_eq!(queues[0].tx.transmit(&mut batch), 2);
    assert_eq!(queues[0].tx.counters().dropped(DropReason::BadHeader), 1);
    drop((queues, control));
    let capture = Capture::load(&output).unwrap();
    assert_eq!(capture.len(), 1);
    assert_eq!(capture.frame(0).unwrap()[50..], [0, 1, 0, 2, 0xff, 0xfc, 0, 0, 0, 0]);
}

#[test]
fn a_full_disk_costs_frames_but_not_the_file() {
    if !Path::new("/dev/full").exists() {
        panic!("this test needs /dev/full (mknod -m 666 /dev/full c 1 7)");
    }
    assert!(failure("pcap=,out=/dev/full").contains("/dev/full: cannot create it: No space left on device"));
}

#[test]
fn frames_that_cannot_be_played_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.pcap");
    let frames = frames(&[13, 65_554, 60, 5 * 192]);
    std::fs::write(&input, pcap_file(&frames, false, 1)).unwrap();
    // Four buffers do not hold the last one, ever.
    let (mut queues, control) = opened(&format!("pcap={}", input.display()), vec![pool(4, 192)]);
    let mut batch = Batch::new(8);
    assert_eq!(queues[0].rx.receive(&mut batch), 1);
    let counters = queues[0].rx.counters();
    assert_eq!((counters.packets, counters.bytes), (1, 60));
    assert_eq!((counters.dropped(DropReason::BadLength), counters.dropped(DropReason::TooLong)), (1, 2));
    assert_eq!(control.supply(), Supply::Exhausted);
}

#[test]
fn a_frame_waits_for_buffers() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.pcap");
    // Each takes both buffers.
    let frames = frames(&[193, 384, 300]);
    std::fs::write(&input, pcap_file(&frames, false, 1)).unwrap();
    let (mut queues, _control) = opened(&format!("pcap={},loop=0", input.display()), vec![pool(2, 192)]);
    let mut batch = Batch::new(8);
    for turn in 0..30 {
        assert_eq!(queues[0].rx.receive(&mut batch), 1);
        assert_eq!(queues[0].rx.receive(&mut batch), 0);
        let mut bytes = [0; 400];
        let len = batch.as_slice()[0].copy_to(0, &mut bytes);
        assert_eq!(bytes[..len], frames[turn % 3]);
        batch.clear();
    }
}

#[test]
fn both_formats_and_byte_orders_are_read() {
    let frames = frames(&[60, 61, 62, 63, 1514, 70]);
    for file in [pcap_file(&frames, false, 1), pcap_file(&frames, true, 1), pcapng_file(&frames)] {
        assert_eq!(all(&Capture::parse(&file).unwrap()), frames);
    }
}

#[test]
fn what_is_no_usable_capture_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.pcap");
    let good = pcap_file(&frames(&[60, 60]), false, 1);
    let whole_ng = pcapng_file(&frames(&[60, 60]));
    for (file, reason) in [
        (good[..good.len() - 1].to_vec(), "it is cut off after 1 frames; save the good part with: editcap IN OUT"),
        (
            whole_ng[..whole_ng.len() - 1].to_vec(),
            "it is cut off after 1 frames; save the good part with: editcap IN OUT",
        ),
        (good[..20].to_vec(), "it is too short for a capture file"),
        (b"this is a text that is long enough".to_vec(), "it is neither a pcap nor a pcapng file"),
        (
            pcap_file(&[], false, 113),
            "its frames are of link type LINUX_SLL, and only Ethernet can be played; capture on an Ethernet interface",
        ),
    ] {
        std::fs::write(&path, file).unwrap();
        let expected = format!("port `p`: {}: {reason}", path.display());
        assert_eq!(failure(&format!("pcap={}", path.display())), expected);
    }
    assert!(failure("pcap=/dev/zero").ends_with("it is neither a pcap nor a pcapng file"), "and it has no end");
    assert!(failure("pcap=/nonesuch/in").starts_with("port `p`: /nonesuch/in: cannot read it: No such file"));
    assert!(failure("pcap=,out=/nonesuch/out").contains("/nonesuch/out: cannot create it: No such file"));
    std::fs::write(&path, &good).unwrap();
    let same = failure(&format!("pcap={0},out={0}", path.display()));
    assert!(same.contains("it is the port's input and would be overwritten"), "{same}");
    assert_eq!(std::fs::read(&path).unwrap(), good);
}

#[test]
fn frames_captured_in_part_are_counted() {
    let mut file = pcap_file(&frames(&[60, 64]), false, 1);
    // The original length of the first frame.
    file[36..40].copy_from_slice(&1514_u32.to_le_bytes());
    let capture = Capture::parse(&file).unwrap();
    assert_eq!((capture.len(), capture.cut(), capture.longest()), (2, 1, 64));
}

#[test]
fn an_empty_capture_is_exhausted_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.pcap");
    std::fs::write(&input, pcap_file(&[], true, 1)).unwrap();
    let (mut queues, mut control) = opened(&format!("pcap={},loop=0", input.display()), vec![pool(1, 64)]);
    assert_eq!((control.supply(), queues[0].rx.receive(&mut Batch::new(1))), (Supply::Exhausted, 0));
    assert_eq!(control.describe(), format!("pcap state UP in {} (0 frames, for ever)", input.display()));
}

proptest! {
    #[test]
    fn no_file_breaks_the_parser(
        ng: bool, lengths in prop::collection::vec(0_usize..80, 0..5),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut: prop::sample::Index
    ) {
        let frames = frames(&lengths);
        let mut file = if ng { pcapng_file(&frames) } else { pcap_file(&frames, false, 1) };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = Capture::parse(&file);
        let _ = Capture::parse(&file[..cut.index(file.len())]);
    }
}
