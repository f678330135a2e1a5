//! Numbered UDP frames, so that each is found again wherever a card puts it.

/// Ethernet, IPv4 and UDP headers, and the number behind them.
const SHORTEST: usize = 14 + 20 + 8 + 8;

/// Frame `number`: length, addresses and bytes follow from the number, so that flows spread over all queues.
pub(crate) fn flow(number: u64) -> Vec<u8> {
    let len = 60 + usize::try_from(number * 53 % 1400).unwrap();
    let [low, high, ..] = number.to_le_bytes();
    let mut bytes = vec![0; len];
    bytes[..14].copy_from_slice(&[2, 0x1b, 0x21, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0]);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&u16::try_from(len - 14).unwrap().to_be_bytes());
    bytes[22..24].copy_from_slice(&[64, 17]);
    bytes[26..34].copy_from_slice(&[10, high, low, 1, 10, 1, high, low]);
    let sum: u32 = bytes[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    bytes[24..26].copy_from_slice(&(!u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()).to_be_bytes());
    bytes[34..38].copy_from_slice(&[low, high, 0, 9]);
    bytes[38..40].copy_from_slice(&u16::try_from(len - 34).unwrap().to_be_bytes());
    bytes[42..SHORTEST].copy_from_slice(&number.to_le_bytes());
    for (at, byte) in bytes[SHORTEST..].iter_mut().enumerate() {
        *byte = u8::try_from((at + len) % 251).unwrap();
    }
    bytes
}

/// The number of a frame that is one of ours, to the last byte.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(42..SHORTEST)?.try_into().ok()?);
    (number < 1 << 32 && flow(number) == bytes).then_some(number)
}
