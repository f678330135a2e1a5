//! Captured frames as a pcapng file: an interface for each port, times in nanoseconds, and in comments what the switch knows.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use dataplane::control::hex;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, PcapError};

use super::Frame;
use crate::output;

/// Units of time: a second is ten to the power of nine of them (draft-ietf-opsawg-pcapng, section 4.2).
const NANOSECONDS: u8 = 9;
/// Directions (section 4.3.1).
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Where the file goes.
enum Target {
    File(File),
    Stdout,
}

/// A pcapng file that is being written.
pub(super) struct Writer {
    /// In memory, until whole blocks are written.
    blocks: PcapNgWriter<Vec<u8>>,
    /// Names of the ports whose interfaces were written.
    ports: Vec<String>,
    target: Target,
}

impl Writer {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Self::new(Target::File(File::create(path)?))
    }

    pub(super) fn to_stdout() -> io::Result<Self> {
        Self::new(Target::Stdout)
    }

    fn new(target: Target) -> io::Result<Self> {
        let program = Cow::Owned(format!("mirach {}", env!("CARGO_PKG_VERSION")));
        let section = SectionHeaderBlock {
            options: vec![SectionHeaderOption::UserApplication(program)],
            ..SectionHeaderBlock::default()
        };
        let blocks = PcapNgWriter::with_section_header(Vec::new(), section).map_err(broken)?;
        let mut writer = Self { blocks, ports: Vec::new(), target };
        writer.flush()?;
        Ok(writer)
    }

    /// Adds a frame. What leaves belongs to the port that it goes to, all else to the port that it came from.
    pub(super) fn put(&mut self, frame: &Frame) -> io::Result<()> {
        let (port, direction) = match &frame.to {
            Some(to) => (to, OUTBOUND),
            None => (&frame.port, INBOUND),
        };
        let interface_id = self.interface(port)?;
        let data =
            hex::read(&frame.bytes).ok_or_else(|| io::Error::other("a frame came damaged from the forwarder"))?;
        let mut options = vec![EnhancedPacketOption::Flags(direction)];
        options.extend(comments(frame).into_iter().map(|comment| EnhancedPacketOption::Comment(Cow::Owned(comment))));
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(frame.nanoseconds),
            original_len: u32::try_from(frame.length).unwrap_or(u32::MAX),
            data: Cow::Owned(data),
            options,
        };
        self.blocks.write_pcapng_block(block).map_err(broken)?;
        Ok(())
    }

    /// The number of a port's interface, which is described when its first frame comes.
    fn interface(&mut self, port: &str) -> io::Result<u32> {
        let known = self.ports.iter().position(|known| known == port);
        let number = match known {
            Some(number) => number,
            None => {
                let options = vec![
                    InterfaceDescriptionOption::IfName(Cow::Owned(port.to_owned())),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ];
                let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
                self.blocks.write_pcapng_block(block).map_err(broken)?;
                self.ports.push(port.to_owned());
                self.ports.len() - 1
            }
        };
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Writes out what was added, so that whoever reads a pipe sees it now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(self.blocks.get_mut());
        match &mut self.target {
            Target::File(file) => file.write_all(&bytes),
            Target::Stdout => output::bytes(&bytes),
        }
    }
}

fn broken(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

/// What the switch knows about a frame, each a comment of its own.
fn comments(frame: &Frame) -> Vec<String> {
    let mut place = format!("{}, from {}", frame.point, frame.port);
    if let Some(network) = &frame.network {
        place.push_str(&format!(", network {network}"));
    }
    place.push_str(&format!(", engine {}", frame.engine));
    let dropped = frame
        .reason
        .as_ref()
        .map(|reason| format!("dropped, {reason}: {}", frame.sentence.as_deref().unwrap_or_default()));
    std::iter::once(place).chain(dropped).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use dataplane::port::pcap::Capture;
    use pcap_file::pcapng::PcapNgParser;
    use pcap_file::pcapng::blocks::Block;

    fn frame(port: &str, to: Option<&str>, length: usize) -> Frame {
        let bytes: Vec<u8> = (0..length.min(100)).map(|place| u8::try_from(place).unwrap()).collect();
        Frame {
            nanoseconds: 1_700_000_000_123_456_789,
            engine: 1,
            point: if to.is_some() { "deliver" } else { "receive" }.to_owned(),
            port: port.to_owned(),
            to: to.map(str::to_owned),
            length,
            bytes: hex::write(&bytes),
            ..Frame::default()
        }
    }

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcapng");
        let mut writer = Writer::create(&path).unwrap();
        assert_eq!(Capture::load(&path).unwrap().len(), 0, "it is whole from the beginning");
        let dropped = Frame {
            point: "drop".to_owned(),
            network: Some("red".to_owned()),
            reason: Some("denied".to_owned()),
            sentence: Some("a rule denies it".to_owned()),
            ..frame("vm1", None, 61)
        };
        for frame in [frame("vm0", None, 60), dropped, frame("vm0", Some("vm1"), 2000), frame("vm0", None, 63)] {
            writer.put(&frame).unwrap();
        }
        writer.flush().unwrap();
        let capture = Capture::load(&path).unwrap();
        let lengths: Vec<usize> = (0..capture.len()).map(|index| capture.frame(index).unwrap().len()).collect();
        assert_eq!((lengths.as_slice(), capture.cut()), (&[60, 61, 100, 63][..], 1));
        assert_eq!(capture.frame(0).unwrap()[59], 59);

        let file = std::fs::read(&path).unwrap();
        let (mut rest, mut parser) = PcapNgParser::new(&file).unwrap();
        let mut packets = Vec::new();
        while !rest.is_empty() {
            let (after, block) = parser.next_block(rest).unwrap();
            if let Block::EnhancedPacket(packet) = block {
                packets.push(packet.into_owned());
            }
            rest = after;
        }
        let names: Vec<_> = parser.interfaces().iter().map(|interface| interface.options.clone()).collect();
        assert_eq!(names.len(), 2);
        for (options, name) in names.iter().zip(["vm0", "vm1"]) {
            assert!(options.contains(&InterfaceDescriptionOption::IfName(name.into())), "{options:?}");
            assert!(options.contains(&InterfaceDescriptionOption::IfTsResol(9)), "{options:?}");
        }
        let interfaces: Vec<u32> = packets.iter().map(|packet| packet.interface_id).collect();
        assert_eq!(interfaces, [0, 1, 1, 0]);
        let direction = |packet: &EnhancedPacketBlock<'_>| {
            packet.options.iter().find_map(|option| match option {
                EnhancedPacketOption::Flags(flags) => Some(*flags),
                _ => None,
            })
        };
        let directions: Vec<_> = packets.iter().map(|packet| direction(packet).unwrap()).collect();
        assert_eq!(directions, [INBOUND, INBOUND, OUTBOUND, INBOUND]);
        assert!(packets.iter().all(|packet| packet.timestamp == Duration::from_nanos(1_700_000_000_123_456_789)));
        assert_eq!(packets[2].original_len, 2000);
        let comment = |text: &str| EnhancedPacketOption::Comment(text.to_owned().into());
        assert!(
            packets[1].options.contains(&comment("drop, from vm1, network red, engine 1")),
            "{:?}",
            packets[1].options
        );
        assert!(packets[1].options.contains(&comment("dropped, denied: a rule denies it")));
    }

    #[test]
    fn other_readers_take_it() {
        // Debian's tcpdump, where it is there, reads it through libpcap, which is strict about blocks.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcapng");
        let mut writer = Writer::create(&path).unwrap();
        for length in 60..70 {
            writer.put(&frame("vm0", None, length)).unwrap();
        }
        writer.flush().unwrap();
        match std::process::Command::new("tcpdump").arg("-r").arg(&path).args(["-tt", "-nn", "-e"]).output() {
            Ok(output) => {
                let text = String::from_utf8(output.stdout).unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                assert_eq!(text.lines().filter(|line| line.starts_with("1700000000.123456")).count(), 10, "{text}");
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}"),
        }
    }
}
