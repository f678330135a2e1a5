//! Frames for tests, with checksums computed word by word: nothing of the model's own arithmetic.
#![allow(clippy::unwrap_used, reason = "tests")]

/// The one's complement sum of 16-bit words (RFC 1071), the plain way.
pub(in crate::ixgbe) fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    u16::try_from(sum).unwrap()
}

/// What a frame is to have.
#[derive(Clone, Copy)]
pub(in crate::ixgbe) struct Recipe {
    pub(in crate::ixgbe) version6: bool,
    pub(in crate::ixgbe) tcp: bool,
    pub(in crate::ixgbe) tag: Option<u16>,
    pub(in crate::ixgbe) payload: usize,
    pub(in crate::ixgbe) ports: [u16; 2],
    pub(in crate::ixgbe) source: [u8; 16],
    pub(in crate::ixgbe) target: [u8; 16],
    pub(in crate::ixgbe) flags: u8,
}

pub(in crate::ixgbe) const UDP: Recipe = Recipe {
    version6: false,
    tcp: false,
    tag: None,
    payload: 100,
    ports: [1000, 2000],
    source: [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
    target: [10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8],
    flags: 0x10,
};

pub(in crate::ixgbe) const TO: [u8; 6] = [2, 4, 6, 8, 10, 12];

impl Recipe {
    /// Offset of the IP header.
    pub(in crate::ixgbe) fn network(&self) -> usize {
        if self.tag.is_some() { 18 } else { 14 }
    }

    /// Offset of the transport header.
    pub(in crate::ixgbe) fn transport(&self) -> usize {
        self.network() + if self.version6 { 40 } else { 20 }
    }

    /// Offset of the transport checksum.
    pub(in crate::ixgbe) fn checksum(&self) -> usize {
        self.transport() + if self.tcp { 16 } else { 6 }
    }

    pub(in crate::ixgbe) fn addresses(&self) -> Vec<u8> {
        let length = if self.version6 { 16 } else { 4 };
        [&self.source[..length], &self.target[..length]].concat()
    }

    /// The pseudo header's sum, with a length or without.
    pub(in crate::ixgbe) fn pseudo(&self, length: usize) -> u16 {
        let protocol = [0, if self.tcp { 6 } else { 17 }];
        let length = u32::try_from(length).unwrap().to_be_bytes();
        sum(&[&self.addresses(), &protocol, &length])
    }

    /// The frame, with right checksums.
    pub(in crate::ixgbe) fn build(&self) -> Vec<u8> {
        let mut frame = [&TO[..], &[2, 0, 0, 0, 0, 1]].concat();
        if let Some(tag) = self.tag {
            frame.extend([0x81, 0]);
            frame.extend(tag.to_be_bytes());
        }
        let header = if self.tcp { 20 } else { 8 };
        let segment = u16::try_from(header + self.payload).unwrap();
        let protocol = if self.tcp { 6 } else { 17 };
        if self.version6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(segment.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(self.addresses());
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((segment + 20).to_be_bytes());
            frame.extend([0x12, 0xfe, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend(self.addresses());
            let network = self.network();
            let check = !sum(&[&frame[network..]]);
            frame[network + 10..network + 12].copy_from_slice(&check.to_be_bytes());
        }
        frame.extend(self.ports.iter().flat_map(|port| port.to_be_bytes()));
        if self.tcp {
            frame.extend([0xff, 0xff, 0xff, 0x00, 0, 0, 0, 9, 0x50, self.flags, 1, 0, 0, 0, 0, 0]);
        } else {
            frame.extend(segment.to_be_bytes());
            frame.extend([0, 0]);
        }
        frame.extend((0..self.payload).map(|index| u8::try_from(index % 251).unwrap()));
        let check = !sum(&[&self.pseudo(segment.into()).to_be_bytes(), &frame[self.transport()..]]);
        let at = self.checksum();
        frame[at..at + 2].copy_from_slice(&check.to_be_bytes());
        frame
    }

    /// Both checksums of a frame with these headers are right.
    pub(in crate::ixgbe) fn is_sound(&self, frame: &[u8]) -> bool {
        let (network, transport) = (self.network(), self.transport());
        let length = usize::from(u16::from_be_bytes([frame[network + 2], frame[network + 3]]));
        let length = if self.version6 {
            usize::from(u16::from_be_bytes([frame[network + 4], frame[network + 5]]))
        } else {
            length - 20
        };
        let header = self.version6 || sum(&[&frame[network..transport]]) == 0xffff;
        let segment = &frame[transport..transport + length];
        header && sum(&[&self.pseudo(length).to_be_bytes(), segment]) == 0xffff
    }
}
