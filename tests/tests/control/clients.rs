//! Clients that break every rule.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::conformance::frame::pattern;
use serde_json::{Value, json};

use crate::scene::{close, set, state};
use crate::wire::Wire;

/// An answer to somebody who behaves comes within this, whatever others do.
const PATIENCE: Duration = Duration::from_secs(10);

/// The error code of an answer.
fn code(answer: Option<Value>) -> Option<i64> {
    answer?.pointer("/error/code").and_then(Value::as_i64)
}

pub(crate) fn hostile() -> Result<()> {
    let (daemon, mut crowd) = set(&[])?;
    let before = state(&daemon)?;
    let files = |id: u32| -> Result<usize> { Ok(std::fs::read_dir(format!("/proc/{id}/fd"))?.count()) };
    let files_before = files(daemon.id())?;
    crowd.busy(|| {
        // What is no request is answered as the standard says (JSON-RPC 2.0, section 5.1).
        for (bytes, expected) in [
            (&b"nonsense\n"[..], -32700),
            (b"{\"jsonrpc\": \"2.0\", \"method\": }\n", -32700),
            (b"\xff\xfe\xfd\n", -32700),
            (b"[]\n", -32600),
            (b"7\n", -32600),
            (b"{\"jsonrpc\": \"2.0\", \"id\": 1}\n", -32600),
            (b"{\"jsonrpc\": \"2.0\", \"method\": \"no.such\", \"id\": 1}\n", -32601),
            (b"{\"jsonrpc\": \"2.0\", \"method\": \"port.list\", \"params\": {\"x\": 1}, \"id\": 1}\n", -32602),
            (b"{\"jsonrpc\": \"2.0\", \"method\": \"port.del\", \"params\": [1, 2], \"id\": 1}\n", -32602),
        ] {
            let mut wire = Wire::open(&daemon)?;
            wire.send(bytes)?;
            let text = String::from_utf8_lossy(bytes).into_owned();
            let seen = code(wire.line().context(text.clone())?);
            ensure!(seen == Some(expected), "{text}: {seen:?} instead of {expected}");
        }
        // One line without end.
        let mut endless = Wire::open(&daemon)?;
        let mut refused = false;
        for _ in 0..1000 {
            if endless.send(&[b'['; 10_000]).is_err() {
                refused = true;
                break;
            }
        }
        ensure!(
            refused || matches!(endless.line(), Ok(Some(answer)) if code(Some(answer.clone())).is_some()),
            "10 MB without a line's end were taken"
        );
        // Depth.
        let mut deep = Wire::open(&daemon)?;
        deep.send(&[&[b'['; 30_000][..], &[b']'; 30_000], b"\n"].concat())?;
        ensure!(code(deep.line()?).is_some(), "a deep one was taken");
        // Many who say half a sentence, or nothing, and stay; and one who asks without end and never listens.
        let mut crowd: Vec<UnixStream> = Vec::new();
        for number in 0..100_u32 {
            if let Ok(mut stream) = UnixStream::connect(daemon.control()) {
                stream.set_nonblocking(true)?;
                let _ = std::io::Write::write(&mut stream, &pattern(number, usize::try_from(number % 50)?));
                crowd.push(stream);
            }
        }
        let deaf = UnixStream::connect(daemon.control())?;
        deaf.set_nonblocking(true)?;
        let question = format!("{}\n", json!({ "jsonrpc": "2.0", "method": "port.list", "id": 1 }));
        for _ in 0..10_000 {
            if std::io::Write::write(&mut &deaf, question.as_bytes()).is_err() {
                break;
            }
        }
        drop(crowd);
        let started = Instant::now();
        loop {
            // Too many may still be there.
            match Wire::open(&daemon).and_then(|mut wire| wire.ask("port.list", &json!({}))) {
                Ok(answer) if answer.get("result").is_some() => break,
                other if started.elapsed() > PATIENCE => {
                    anyhow::bail!("who behaves is not answered: {other:?}");
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        drop(deaf);
        Ok(())
    })?;
    crowd.settle()?;
    daemon.reconnect()?;
    let after = state(&daemon)?;
    ensure!(after == before, "something changed: {after} was {before}");
    lab::wait::until("all files closed", Duration::from_secs(30), || {
        Ok((files(daemon.id())? <= files_before).then_some(()))
    })?;
    close(daemon, crowd)
}
