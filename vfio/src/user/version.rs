//! What both ends tell each other when a session begins: VERSION.

use serde_json::{Value, json};

use super::wire::{Body, Fields, MAX_FILES, MAX_MAPS, MAX_TRANSFER, PAGE};

/// The only version there is a text of. QEMU and others count it as 0.0 and 0.1; the lower one is what both understand.
const MAJOR: u16 = 0;
const MINOR: u16 = 0;

/// What a peer can take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Peer {
    /// File descriptors in one message.
    pub(super) files: usize,
    /// Bytes in one transfer, at most what this side can take.
    pub(super) transfer: usize,
    /// It knows REGION_WRITE_MULTI.
    pub(super) write_multiple: bool,
}

/// The body of a VERSION message. A reply offers nothing that was not proposed, hence `write_multiple`.
pub(super) fn body(write_multiple: bool) -> Vec<u8> {
    let mut capabilities = json!({
        "max_msg_fds": MAX_FILES,
        "max_data_xfer_size": MAX_TRANSFER,
        "max_dma_maps": MAX_MAPS,
        "pgsizes": PAGE,
    });
    if let (true, Value::Object(entries)) = (write_multiple, &mut capabilities) {
        entries.insert("write_multiple".into(), true.into());
    }
    let text = json!({ "capabilities": capabilities }).to_string();
    Body::new().u16(MAJOR).u16(MINOR).bytes(text.as_bytes()).bytes(&[0]).done()
}

/// Reads a VERSION message, or says what is wrong with it.
pub(super) fn parse(body: &[u8]) -> Result<Peer, String> {
    let mut fields = Fields::new(body);
    let (Some(major), Some(minor)) = (fields.u16(), fields.u16()) else {
        return Err("it is too short for a version".into());
    };
    if major != MAJOR {
        return Err(format!("the peer speaks version {major}.{minor}, only {MAJOR}.x is known here"));
    }
    let capabilities = match fields.rest() {
        [] => Value::Null,
        [text @ .., 0] => {
            let value: Value = serde_json::from_slice(text).map_err(|error| format!("bad capabilities: {error}"))?;
            value.get("capabilities").cloned().unwrap_or_default()
        }
        _ => return Err("bad capabilities: the text has no zero byte at its end".into()),
    };
    let number = |name: &str, default: u64| match capabilities.get(name) {
        None => Ok(default),
        Some(value) => value.as_u64().ok_or_else(|| format!("bad capabilities: {name} is no number")),
    };
    let at_most = |value: u64, most: usize| usize::try_from(value).unwrap_or(most).min(most);
    let transfer = number("max_data_xfer_size", 1 << 20)?;
    if transfer < 64 {
        return Err(format!("the peer takes only {transfer} bytes in one transfer, 64 are the least"));
    }
    if number("pgsizes", PAGE)? & PAGE == 0 {
        return Err(format!("the peer cannot map pages of {PAGE} bytes"));
    }
    Ok(Peer {
        files: at_most(number("max_msg_fds", 1)?, MAX_FILES),
        transfer: at_most(transfer, MAX_TRANSFER),
        write_multiple: capabilities.get("write_multiple").is_some_and(|value| *value == Value::Bool(true)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn message(text: &str) -> Vec<u8> {
        Body::new().u16(0).u16(1).bytes(text.as_bytes()).done()
    }

    #[test]
    fn what_this_side_says_it_understands() {
        let peer = parse(&body(true)).unwrap();
        assert_eq!(peer, Peer { files: MAX_FILES, transfer: MAX_TRANSFER, write_multiple: true });
    }

    #[test]
    fn what_is_not_said_has_the_protocols_defaults() {
        let peer = Peer { files: 1, transfer: 1 << 20, write_multiple: false };
        assert_eq!(parse(&message("")), Ok(peer));
        assert_eq!(parse(&message("{}\0")), Ok(peer));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "{\"capabilities\":{}}",
            "\0\0",
            "{\"capabilities\":{\"max_msg_fds\":\"many\"}}\0",
            "{\"capabilities\":{\"max_data_xfer_size\":0}}\0",
            "{\"capabilities\":{\"pgsizes\":8192}}\0",
            "{\"capabilities\":{\"max_msg_fds\":-1}}\0",
        ] {
            assert!(parse(&message(text)).is_err(), "{text}");
        }
        assert!(parse(&[0, 0, 0]).is_err());
        assert!(parse(&[1, 0, 0, 0]).is_err());
    }
}
