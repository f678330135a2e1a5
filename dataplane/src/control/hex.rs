//! Bytes as text: two hexadecimal digits each.

/// The text of some bytes.
#[must_use]
pub fn write(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef".get(usize::from(value)).copied().unwrap_or(b'0'));
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 0xf));
    }
    text
}

/// The bytes of a text; `None` when it is none of bytes.
#[must_use]
pub fn read(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_other_texts_do_not() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(read(&write(&all)), Some(all));
        assert_eq!(write(&[0, 0xf, 0xa0]), "000fa0");
        assert_eq!(read("aAfF"), Some(vec![0xaa, 0xff]));
        for text in ["a", "0g", "aé", " 00", "0x00"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
