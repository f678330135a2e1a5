#![allow(clippy::unwrap_used, reason = "tests")]
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

/// Answers with what it is given, counts, fails and panics.
struct Echo(Arc<AtomicU64>);

impl Handler for Echo {
    fn call(&self, caller: &Caller, method: &str, params: Value) -> Result<Value, RpcError> {
        match method {
            "echo" => Ok(params),
            "count" => Ok(json!(self.0.fetch_add(1, Ordering::SeqCst) + 1)),
            "large" => Ok(json!("x".repeat(1 << 20))),
            "fail" => Err(RpcError::new(code::FAILED, "it rains")),
            "panic" => panic!("asked to"),
            "subscribe" => {
                let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
                let interval = Duration::from_millis(params["interval_ms"].as_u64().unwrap_or(100));
                let watch = Watch { topic: text("topic"), ..Watch::default() };
                caller.subscribe(watch, interval).map(|number| json!(number))
            }
            "unsubscribe" => caller.unsubscribe(params["number"].as_u64().unwrap_or(0)).map(|()| json!({})),
            "keep" => caller.keep(Arc::new(Kept(Arc::clone(&self.0)))).map(|number| json!(number)),
            _ => Err(RpcError::new(code::METHOD_NOT_FOUND, "no such method")),
        }
    }

    fn access(&self, method: &str) -> Option<Access> {
        match method {
            "nothing" => None,
            "count" => Some(Access::Write),
            _ => Some(Access::Read),
        }
    }

    /// Counts how often it was looked, in what the watch remembers.
    fn look(&self, watch: &mut Watch) -> Result<Option<Value>, RpcError> {
        let looks = watch.before.take().and_then(|before| before.as_u64()).unwrap_or(0) + 1;
        watch.before = Some(json!(looks));
        match watch.topic.as_str() {
            "odd" => Ok((looks % 2 == 1).then(|| json!(looks))),
            "large" => Ok(Some(json!("x".repeat(1 << 20)))),
            "panic" => panic!("asked to"),
            _ => Ok(Some(json!(looks))),
        }
    }
}

/// Counts when it is let go.
struct Kept(Arc<AtomicU64>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.fetch_add(1000, Ordering::SeqCst);
    }
}

/// Only guards against hanging for ever.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bed {
    _folder: tempfile::TempDir,
    path: PathBuf,
    server: Option<Server>,
    count: Arc<AtomicU64>,
}

fn bed() -> Bed {
    bed_for(None)
}

fn bed_for(readers: Option<&ReaderGroup>) -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let count = Arc::default();
    let server = Server::start(&path, readers, Echo(Arc::clone(&count))).unwrap();
    Bed { _folder: folder, path, server: Some(server), count }
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    // Only guards against hanging for ever.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends `text`, hangs up, and gives the answers.
fn talk(path: &Path, text: &[u8]) -> Vec<Value> {
    let mut stream = connect(path);
    stream.write_all(text).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn error_code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{answer} is no error"))
}

#[test]
fn requests_are_answered_by_the_book() {
    let bed = bed();
    // The examples of the standard's section 7, with our methods.
    for (text, expected) in [
        (
            r#"{"jsonrpc":"2.0","method":"echo","params":{"a":1},"id":1}"#,
            json!([{"jsonrpc":"2.0","result":{"a":1},"id":1}]),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"echo","params":[42],"id":"x"}"#,
            json!([{"jsonrpc":"2.0","result":[42],"id":"x"}]),
        ),
        (r#"{"jsonrpc":"2.0","method":"echo","id":null}"#, json!([{"jsonrpc":"2.0","result":{},"id":null}])),
        (r#"{"jsonrpc":"2.0","method":"count"}"#, json!([])),
        (r#"[{"jsonrpc":"2.0","method":"count"},{"jsonrpc":"2.0","method":"fail"}]"#, json!([])),
        (
            r#"[{"jsonrpc":"2.0","method":"count"},{"jsonrpc":"2.0","method":"count","id":9}]"#,
            json!([[{"jsonrpc":"2.0","result":4,"id":9}]]),
        ),
        ("", json!([])),
        (" \n ", json!([])),
    ] {
        assert_eq!(Value::Array(talk(&bed.path, text.as_bytes())), expected, "{text}");
    }
    for (text, expected) in [
        (&br#"{"jsonrpc":"2.0","method":"nothing","id":1}"#[..], code::METHOD_NOT_FOUND),
        (br#"{"jsonrpc":"2.0","method":"fail","id":1}"#, code::FAILED),
        (br#"{"jsonrpc":"2.0","method":"panic","id":1}"#, code::INTERNAL),
        (br#"{"jsonrpc":"2.0","method":"foobar, "params":"bar","baz]}"#, code::PARSE),
        (b"garbage", code::PARSE),
        (b"{]}", code::PARSE),
        (b"{\"a\":\"\xff\"}", code::PARSE),
        (b"7", code::INVALID_REQUEST),
        (b"[]", code::INVALID_REQUEST),
        (b"{}", code::INVALID_REQUEST),
        (br#"{"jsonrpc":"1.0","method":"echo","id":1}"#, code::INVALID_REQUEST),
        (br#"{"jsonrpc":"2.0","method":1,"id":1}"#, code::INVALID_REQUEST),
        (br#"{"jsonrpc":"2.0","method":"echo","params":"bar","id":1}"#, code::INVALID_REQUEST),
        (br#"{"jsonrpc":"2.0","method":"echo","id":{}}"#, code::INVALID_REQUEST),
    ] {
        let answers = talk(&bed.path, text);
        assert_eq!((answers.len(), error_code(&answers[0])), (1, expected), "{}", String::from_utf8_lossy(text));
    }
    let answers = talk(&bed.path, b"[1,2]");
    assert_eq!(answers[0].as_array().unwrap().iter().map(error_code).collect::<Vec<_>>(), [code::INVALID_REQUEST; 2]);
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    assert_eq!(error_code(&talk(&bed.path, &deep)[0]), code::PARSE);
    let many = format!("[{}]", vec!["1"; 65].join(","));
    assert_eq!(error_code(&talk(&bed.path, many.as_bytes())[0]), code::INVALID_REQUEST);
}

#[test]
fn a_connection_takes_many_requests_however_they_are_cut() {
    let bed = bed();
    let request = r#"{"jsonrpc":"2.0","method":"echo","params":{"text":"}]"},"id":1}"#;
    let answers = talk(&bed.path, request.repeat(50).as_bytes());
    assert_eq!(answers.len(), 50);
    // More than a message may be long, in one go.
    let many = request.repeat(18_000);
    let mut writer = connect(&bed.path);
    let mut reader = writer.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        writer.write_all(many.as_bytes()).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut answers = String::new();
    reader.read_to_string(&mut answers).unwrap();
    sender.join().unwrap();
    assert_eq!(answers.lines().filter(|line| line.contains("\"result\"")).count(), 18_000);
    // A whole request is answered though the next one has begun.
    let mut stream = connect(&bed.path);
    stream.write_all(format!("{request}{{\"json").as_bytes()).unwrap();
    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    let mut stream = connect(&bed.path);
    for byte in request.bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answer = [0; 64];
    assert!(stream.read(&mut answer).unwrap() > 0);
    assert!(answer.starts_with(br#"{"id":1,"jsonrpc":"2.0","result":{"text":"}]"}}"#), "{answer:?}");
}

#[test]
fn too_long_a_request_is_refused_and_the_client_hung_up_on() {
    let bed = bed();
    let answers = talk(&bed.path, format!("{{\"text\":\"{}", "x".repeat(1 << 21)).as_bytes());
    assert_eq!(answers.len(), 1);
    assert!(answers[0]["error"]["message"].as_str().unwrap().contains("at most 1024 KiB"), "{answers:?}");
    // Who does not stop is hung up on.
    let mut stream = connect(&bed.path);
    let endless = [b' '; 1 << 16];
    while stream.write_all(&endless).is_ok() {}
    assert!(talk(&bed.path, b"{}").len() == 1, "others are served");
}

#[test]
fn clients_that_dawdle_hold_up_nobody() {
    let bed = bed();
    // One that does not take its answer, one half way through a request, one that says nothing, and one that died.
    let mut deaf = connect(&bed.path);
    for _ in 0..64 {
        deaf.write_all(br#"{"jsonrpc":"2.0","method":"large","id":1}"#).unwrap();
    }
    let mut slow = connect(&bed.path);
    slow.write_all(br#"{"jsonrpc":"2.0","#).unwrap();
    let silent = connect(&bed.path);
    drop(connect(&bed.path));
    let mut client = Client::connect(&bed.path).unwrap();
    for turn in 0..100 {
        assert_eq!(client.call("echo", json!({ "turn": turn })).unwrap(), json!({ "turn": turn }));
    }
    slow.write_all(br#""method":"echo","id":2}"#).unwrap();
    let mut answer = [0; 32];
    assert!(slow.read(&mut answer).unwrap() > 0, "who is slow is served in the end");
    drop(silent);
}

#[test]
fn a_crowd_cannot_keep_others_out() {
    let bed = bed();
    let crowd: Vec<UnixStream> = (0..200).map(|_| connect(&bed.path)).collect();
    let mut client = Client::connect(&bed.path).unwrap();
    assert_eq!(client.call("count", json!({})).unwrap(), json!(1));
    drop(crowd);
    assert_eq!(bed.count.load(Ordering::SeqCst), 1);
}

#[test]
fn the_client_says_what_went_wrong_and_what_to_do() {
    let bed = bed();
    let mut client = Client::connect(&bed.path).unwrap();
    let error = client.call("fail", json!({})).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(error) if error.code == code::FAILED), "{error:?}");
    assert_eq!(error.to_string(), "it rains");
    let error = Client::connect(Path::new("/nonexistent/control.sock")).unwrap_err().to_string();
    assert!(error.contains("mirach run --control /nonexistent/control.sock"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stranger.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example.org\r\n").unwrap();
        let _ = stream.read(&mut [0; 256]);
    });
    let error = Client::connect(&path).unwrap().call("echo", json!({})).unwrap_err().to_string();
    assert!(error.contains("is no mirach"), "{error}");
    stranger.join().unwrap();
}

#[test]
fn the_socket_is_for_its_owner_and_goes_with_the_server() {
    let mut bed = bed();
    assert_eq!(std::fs::metadata(&bed.path).unwrap().permissions().mode() & 0o7777, 0o600);
    let error = Server::start(&bed.path, None, Echo(Arc::default())).unwrap_err();
    assert!(matches!(error, ControlError::Taken { .. }), "{error}");
    drop(bed.server.take());
    assert!(!bed.path.exists());

    // Left behind by one that was killed.
    drop(UnixListener::bind(&bed.path).unwrap());
    let server = Server::start(&bed.path, None, Echo(Arc::default())).unwrap();
    assert_eq!(talk(&bed.path, br#"{"jsonrpc":"2.0","method":"count","id":1}"#).len(), 1);
    // What another has put in its place stays.
    std::fs::remove_file(&bed.path).unwrap();
    std::fs::write(&bed.path, "other").unwrap();
    drop(server);
    assert!(bed.path.exists());
    let error = Server::start(&bed.path, None, Echo(Arc::default())).unwrap_err().to_string();
    assert!(error.contains("no socket") && error.contains("--control"), "{error}");
    let error = Server::start(Path::new("/nonexistent/c.sock"), None, Echo(Arc::default())).unwrap_err().to_string();
    assert!(error.contains("--control none"), "{error}");
}

#[test]
fn who_subscribed_is_told_until_told_no_more() {
    let bed = bed();
    let mut client = Client::connect(&bed.path).unwrap();
    let number = client.call("subscribe", json!({ "topic": "all" })).unwrap();
    let odd = client.call("subscribe", json!({ "topic": "odd" })).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 6 {
        // Answers come in between.
        assert_eq!(client.call("echo", json!([seen.len()])).unwrap(), json!([seen.len()]));
        let news = client.news(PATIENCE).unwrap().unwrap();
        let expected = if news["subscription"] == number { "all" } else { "odd" };
        assert_eq!(news["topic"], expected);
        assert!(expected == "all" || news["subscription"] == odd);
        seen.push((expected, news["data"].as_u64().unwrap()));
    }
    let of = |topic| seen.iter().filter(move |(of, _)| *of == topic).map(|(_, data)| *data);
    assert!(of("all").zip(1..).all(|(data, expected)| data == expected), "{seen:?}");
    assert!(of("odd").zip(0..).all(|(data, place)| data == 2 * place + 1), "nothing to tell is not told: {seen:?}");
    client.call("unsubscribe", json!({ "number": number })).unwrap();
    client.call("unsubscribe", json!({ "number": odd })).unwrap();
    let error = client.call("unsubscribe", json!({ "number": odd })).unwrap_err().to_string();
    assert!(error.contains("no subscription"), "{error}");
    while client.news(Duration::ZERO).unwrap().is_some() {}
    assert_eq!(client.news(Duration::from_millis(300)).unwrap(), None);
}

#[test]
fn subscriptions_are_bounded_and_their_panics_contained() {
    let bed = bed();
    let mut client = Client::connect(&bed.path).unwrap();
    let error = client.call("subscribe", json!({ "interval_ms": 99 })).unwrap_err().to_string();
    assert!(error.contains("100 to 3600000"), "{error}");
    let first = client.call("subscribe", json!({ "topic": "panic" })).unwrap();
    let news = client.news(PATIENCE).unwrap().unwrap();
    assert_eq!((&news["subscription"], &news["error"]["code"]), (&first, &json!(code::INTERNAL)), "{news}");
    for _ in 1..8 {
        client.call("subscribe", json!({ "topic": "all", "interval_ms": 3_600_000 })).unwrap();
    }
    let error = client.call("subscribe", json!({ "topic": "all" })).unwrap_err().to_string();
    assert!(error.contains("at most 8 subscriptions"), "{error}");
}

#[test]
fn who_does_not_listen_loses_news_and_is_told_how_many() {
    let bed = bed();
    let mut client = Client::connect(&bed.path).unwrap();
    client.call("subscribe", json!({ "topic": "large" })).unwrap();
    // The first fills the socket. It is not taken for as long as ten more are due.
    std::thread::sleep(Duration::from_millis(1050));
    let mut lost = Vec::new();
    while lost.last().is_none_or(|last| *last < 5) {
        lost.push(client.news(PATIENCE).unwrap().unwrap()["lost"].as_u64().unwrap());
        assert!(lost.len() < 4, "they were not piled up: {lost:?}");
    }
    assert_eq!(client.call("echo", json!([1])).unwrap(), json!([1]), "it is served as before");
}

#[test]
fn what_a_client_kept_goes_with_it() {
    let bed = bed();
    let mut client = Client::connect(&bed.path).unwrap();
    for _ in 0..4 {
        client.call("keep", json!({})).unwrap();
    }
    let error = client.call("keep", json!({})).unwrap_err().to_string();
    assert!(error.contains("at most 4"), "{error}");
    // What could not be kept has gone at once.
    assert_eq!(bed.count.load(Ordering::SeqCst), 1000);
    drop(client);
    let deadline = std::time::Instant::now() + PATIENCE;
    while bed.count.load(Ordering::SeqCst) < 5000 {
        assert!(std::time::Instant::now() < deadline, "it was not let go");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn members_of_the_group_may_look_and_no_more() {
    use rustix::process::{Gid, Uid, getegid, geteuid};
    let readers = ReaderGroup::find(&getegid().as_raw().to_string()).unwrap();
    let group = if geteuid().is_root() { ReaderGroup::find("54321").unwrap() } else { readers };
    let bed = bed_for(Some(&group));
    let file = std::fs::metadata(&bed.path).unwrap();
    assert_eq!(file.permissions().mode() & 0o7777, 0o660);
    std::fs::set_permissions(bed.path.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // This user may do everything, in that group or not.
    let mut own = Client::connect(&bed.path).unwrap();
    assert_eq!(own.call("count", json!({})).unwrap(), json!(1));
    if !geteuid().is_root() {
        return;
    }
    // As others, which on Linux a single thread can be.
    let ask_as = |user: u32, groups: &'static [u32]| {
        let path = bed.path.clone();
        let ask = move || {
            let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
            rustix::thread::set_thread_groups(&groups).unwrap();
            rustix::thread::set_thread_res_gid(Gid::from_raw(65534), Gid::from_raw(65534), Gid::from_raw(65534))
                .unwrap();
            let user = Uid::from_raw(user);
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            let mut client = Client::connect(&path)?;
            let batch = json!([{ "jsonrpc": "2.0", "method": "count", "id": 1 }, { "jsonrpc": "2.0", "method": "echo", "id": 2 }]);
            let answers = talk(&path, batch.to_string().as_bytes());
            Ok::<_, ClientError>((client.call("echo", json!([7])), client.call("count", json!({})), answers))
        };
        std::thread::spawn(ask).join().unwrap()
    };
    let (seen, changed, batch) = ask_as(65_534, &[54_321]).unwrap();
    assert_eq!(seen.unwrap(), json!([7]));
    let error = changed.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(error) if error.code == code::FORBIDDEN), "{error:?}");
    assert!(error.to_string().contains("`count` is for the user who runs mirach"), "{error}");
    assert_eq!(error_code(&batch[0][0]), code::FORBIDDEN);
    assert_eq!(batch[0][1]["result"], json!({}));
    // A crowd of them takes the place of none who may do more.
    let crowd = {
        let path = bed.path.clone();
        let crowd = move || {
            rustix::thread::set_thread_groups(&[Gid::from_raw(54_321)]).unwrap();
            let user = Uid::from_raw(65_534);
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            (0..100).map(|_| connect(&path)).collect::<Vec<UnixStream>>()
        };
        std::thread::spawn(crowd).join().unwrap()
    };
    assert_eq!(own.call("echo", json!([8])).unwrap(), json!([8]));
    drop(crowd);
    let error = ask_as(65_534, &[54_322]).unwrap_err();
    assert!(matches!(error, ClientError::Forbidden { .. }), "{error}");
    assert_eq!(own.call("count", json!({})).unwrap(), json!(2), "nobody else has counted");
}
