//! A capture file in memory.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::PcapNgParser;
use pcap_file::pcapng::blocks::Block;
use pcap_file::{DataLink, PcapError};

/// First word of a pcapng file, the same in both byte orders.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// First words of capture files: pcapng, and pcap with microseconds and nanoseconds in both byte orders.
const MAGIC: [[u8; 4]; 5] =
    [PCAPNG, [0xa1, 0xb2, 0xc3, 0xd4], [0xd4, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0x3c, 0x4d], [0x4d, 0x3c, 0xb2, 0xa1]];
/// Bytes of the header of a pcap file.
const HEADER: u64 = 24;
/// Block types of pcapng that hold packets: obsolete, simple and enhanced (draft-ietf-opsawg-pcapng, section 10).
const PACKET_BLOCKS: [u32; 3] = [2, 3, 6];

/// The frames of a capture file.
#[derive(Clone, Default)]
pub struct Capture {
    bytes: Vec<u8>,
    /// End of each frame in `bytes`; it begins where the one before ends.
    ends: Vec<usize>,
    cut: usize,
}

impl Capture {
    /// Reads the file at `path` and checks all of it.
    ///
    /// # Errors
    /// A sentence saying what is wrong and what to do.
    pub fn load(path: &Path) -> Result<Self, String> {
        Self::read(path).map_err(|error| format!("cannot read it: {error}")).and_then(|file| Self::parse(&file))
    }

    /// The content of the file; of one that is no capture only the beginning, because it may have no end.
    fn read(path: &Path) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let mut content = Vec::new();
        file.by_ref().take(HEADER).read_to_end(&mut content)?;
        if MAGIC.iter().any(|magic| content.starts_with(magic)) {
            file.read_to_end(&mut content)?;
        }
        Ok(content)
    }

    /// Takes the frames out of `file`, the content of a capture file.
    ///
    /// # Errors
    /// As [`Capture::load`].
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let mut capture = Self::default();
        if file.starts_with(&PCAPNG) {
            capture.parse_pcapng(file)?
        } else {
            capture.parse_pcap(file)?
        }
        Ok(capture)
    }

    /// Number of frames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// There are no frames.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Frames of which only the beginning was captured. They are played as they are.
    #[must_use]
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// Length of the longest frame in bytes, 0 when there is none.
    #[must_use]
    pub fn longest(&self) -> usize {
        (0..self.len()).filter_map(|index| self.range(index)).map(|range| range.len()).max().unwrap_or(0)
    }

    /// The bytes of frame `index`, counted from 0.
    #[must_use]
    pub fn frame(&self, index: usize) -> Option<&[u8]> {
        self.bytes.get(self.range(index)?)
    }

    fn range(&self, index: usize) -> Option<Range<usize>> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        Some(start..end)
    }

    fn push(&mut self, frame: &[u8], original_len: u32) {
        self.cut += usize::from(frame.len() < usize::try_from(original_len).unwrap_or(usize::MAX));
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    fn parse_pcap(&mut self, file: &[u8]) -> Result<(), String> {
        let (mut rest, parser) = PcapParser::new(file).map_err(|error| match error {
            PcapError::IncompleteBuffer => "it is too short for a capture file".to_owned(),
            _ => "it is neither a pcap nor a pcapng file".to_owned(),
        })?;
        only_ethernet(parser.header().datalink)?;
        while !rest.is_empty() {
            // The raw form: lengths that contradict the header's limit are common and harmless.
            let (after, packet) = parser.next_raw_packet(rest).map_err(|error| self.damage(&error))?;
            self.push(&packet.data, packet.orig_len);
            rest = after;
        }
        Ok(())
    }

    fn parse_pcapng(&mut self, file: &[u8]) -> Result<(), String> {
        let (mut rest, mut parser) = PcapNgParser::new(file).map_err(|error| self.damage(&error))?;
        while !rest.is_empty() {
            let (after, raw) = parser.next_raw_block(rest).map_err(|error| self.damage(&error))?;
            if !PACKET_BLOCKS.contains(&raw.type_) {
                // Not looked into: an oddity in a comment or a statistic spoils no frame.
                rest = after;
                continue;
            }
            // Reading a packet block twice does no harm: it leaves nothing behind in the parser.
            let (after, block) = parser.next_block(rest).map_err(|error| self.damage(&error))?;
            rest = after;
            let (interface, original_len, data) = match block {
                Block::EnhancedPacket(packet) => (packet.interface_id, packet.original_len, packet.data),
                Block::Packet(packet) => (packet.interface_id.into(), packet.original_len, packet.data),
                Block::SimplePacket(packet) => (0, packet.original_len, packet.data),
                _ => continue,
            };
            let interface = usize::try_from(interface).ok().and_then(|index| parser.interfaces().get(index));
            let interface = interface.ok_or_else(|| self.damage(&PcapError::InvalidInterfaceId(0)))?;
            only_ethernet(interface.linktype)?;
            // A simple block does not say how much was captured; its data may end in padding (section 4.4).
            let limit = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
            let captured = usize::try_from(original_len.min(limit)).unwrap_or(usize::MAX).min(data.len());
            self.push(data.get(..captured).unwrap_or_default(), original_len);
        }
        Ok(())
    }

    fn damage(&self, error: &PcapError) -> String {
        let what = match error {
            PcapError::IncompleteBuffer => "is cut off".to_owned(),
            error => format!("is damaged ({error})"),
        };
        format!("it {what} after {} frames; save the good part with: editcap IN OUT", self.len())
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("frames", &self.len()).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

fn only_ethernet(link: DataLink) -> Result<(), String> {
    if link == DataLink::ETHERNET {
        return Ok(());
    }
    Err(format!(
        "its frames are of link type {link:?}, and only Ethernet can be played; capture on an Ethernet interface"
    ))
}
