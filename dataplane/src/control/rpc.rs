//! JSON-RPC 2.0, whatever the messages travel over.

use serde_json::{Value, json};

use super::caller::{Access, Caller, Watch};

/// Error codes (JSON-RPC 2.0, section 5.1).
pub mod code {
    /// The text is no JSON.
    pub const PARSE: i64 = -32700;
    /// The JSON is no request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The parameters are wrong.
    pub const INVALID_PARAMS: i64 = -32602;
    /// The server failed in itself.
    pub const INTERNAL: i64 = -32603;
    /// The method failed; the message says how.
    pub const FAILED: i64 = -32000;
    /// The method changes something, and the client may only read.
    pub const FORBIDDEN: i64 = -32001;
}

/// Most requests in a batch.
const LONGEST_BATCH: usize = 64;

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// One of [`code`].
    pub code: i64,
    /// A sentence.
    pub message: String,
}

impl RpcError {
    /// The error `code` with a sentence about it.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Does what is asked for, on any thread, and for several clients at a time.
pub trait Handler: Send + Sync {
    /// Carries out `method`.
    ///
    /// # Errors
    /// When there is no such method, its parameters are wrong, or it failed.
    fn call(&self, caller: &Caller, method: &str, params: Value) -> Result<Value, RpcError>;

    /// Whether `method` changes anything; `None` when there is no such method.
    fn access(&self, method: &str) -> Option<Access>;

    /// What there is to tell to somebody who subscribed, now; `None` for nothing.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn look(&self, watch: &mut Watch) -> Result<Option<Value>, RpcError>;
}

/// What stands at the beginning of what was received.
pub(super) enum Next {
    /// A message, and how many bytes it takes.
    Message(Value, usize),
    /// The beginning of a message.
    Incomplete,
    /// No message, and never will be.
    Broken(RpcError),
}

/// Looks for a message.
pub(super) fn next(bytes: &[u8]) -> Next {
    let mut messages = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    match messages.next() {
        Some(Ok(message)) => Next::Message(message, messages.byte_offset()),
        None => Next::Incomplete,
        Some(Err(error)) if error.is_eof() => Next::Incomplete,
        Some(Err(error)) => Next::Broken(RpcError::new(code::PARSE, format!("this is no JSON: {error}"))),
    }
}

/// Carries out a message. `None` when there is nothing to answer.
pub(super) fn answer(handler: &dyn Handler, caller: &Caller, message: Value) -> Option<Value> {
    match message {
        Value::Array(requests) if requests.is_empty() => Some(invalid("a batch holds at least one request")),
        Value::Array(requests) if requests.len() > LONGEST_BATCH => {
            Some(invalid(&format!("a batch holds at most {LONGEST_BATCH} requests")))
        }
        Value::Array(requests) => {
            let answers: Vec<Value> =
                requests.into_iter().filter_map(|request| one(handler, caller, request)).collect();
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
        request => one(handler, caller, request),
    }
}

fn invalid(reason: &str) -> Value {
    failure(Value::Null, &RpcError::new(code::INVALID_REQUEST, reason))
}

/// The answer that a request failed.
pub(super) fn failure(id: Value, error: &RpcError) -> Value {
    json!({ "jsonrpc": "2.0", "error": error_object(error), "id": id })
}

/// An error as the standard writes it.
pub(super) fn error_object(error: &RpcError) -> Value {
    json!({ "code": error.code, "message": error.message })
}

fn one(handler: &dyn Handler, caller: &Caller, request: Value) -> Option<Value> {
    let Value::Object(mut request) = request else { return Some(invalid("a request is an object")) };
    let id = request.remove("id");
    if !matches!(id, None | Some(Value::Null | Value::String(_) | Value::Number(_))) {
        return Some(invalid("`id` is a text or a number"));
    }
    let wrong = |reason: &str| {
        let error = RpcError::new(code::INVALID_REQUEST, reason);
        Some(failure(id.clone().unwrap_or(Value::Null), &error))
    };
    if request.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return wrong("`jsonrpc` is \"2.0\"");
    }
    let params = request.remove("params").unwrap_or_else(|| json!({}));
    if !matches!(params, Value::Object(_) | Value::Array(_)) {
        return wrong("`params` is an object");
    }
    let Some(method) = request.get("method").and_then(Value::as_str) else {
        return wrong("`method` is the name of a method");
    };
    let outcome = match handler.access(method) {
        Some(access) if !caller.may(access) => Err(forbidden(method)),
        _ => handler.call(caller, method, params),
    };
    // Whoever leaves the id out does not want to know.
    let id = id?;
    Some(match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "result": result, "id": id }),
        Err(error) => failure(id, &error),
    })
}

fn forbidden(method: &str) -> RpcError {
    let reason = format!(
        "`{method}` is for the user who runs mirach and for root; you are let in as one of the group that may only look"
    );
    RpcError::new(code::FORBIDDEN, reason)
}
