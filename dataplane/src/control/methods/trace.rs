//! Traces, which belong to the connection that began them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::capture::{LONGEST_WAIT, LOOK};
use super::{Methods, Nothing, failed};
use crate::control::caller::Caller;
use crate::control::rpc::{RpcError, code};
use crate::vswitch::report::TracedPacket;
use crate::vswitch::{RunningTrace, TraceRequest};

/// Packets in one answer.
const MOST: usize = 256;
/// Packets a second that are followed when it is not said how many.
const USUAL: u32 = 10;

type Shared = Mutex<RunningTrace>;

/// What to trace.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    /// The port whose packets are followed.
    port: String,
    /// Only those from or to this IP address.
    address: Option<IpAddr>,
    /// Only those of this IP protocol, by number.
    protocol: Option<u8>,
    /// Only those from or to this port of TCP, UDP or SCTP.
    transport_port: Option<u16>,
    /// Packets a second that each engine follows at most, 1 to 1000; 10 when left out.
    per_second: Option<u32>,
}

/// A trace that goes on until it is ended, or the connection is.
#[derive(Serialize, JsonSchema)]
pub(super) struct Begun {
    /// Its number on this connection.
    trace: u64,
}

/// What of a trace is wanted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Next {
    /// Its number.
    trace: u64,
    /// How long to wait for the first packet, in milliseconds, up to 5000; 1000 when left out.
    wait_ms: Option<u64>,
}

/// Packets that were followed.
#[derive(Serialize, JsonSchema)]
pub(super) struct Packets {
    /// As they came.
    packets: Vec<TracedPacket>,
    /// Packets so far that are not told, because those before were not asked for in time.
    missed: u64,
    /// The switch has ended, and there will be no more.
    over: bool,
}

/// A trace to be ended.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    /// Its number.
    trace: u64,
}

pub(super) fn begin(methods: &Methods, caller: &Caller, begin: Begin) -> Result<Begun, RpcError> {
    let Begin { port, address, protocol, transport_port, per_second } = begin;
    let per_second = per_second.unwrap_or(USUAL);
    if !(1..=1000).contains(&per_second) {
        return Err(RpcError::new(code::INVALID_PARAMS, "`per_second` is 1 to 1000"));
    }
    let request = TraceRequest { port, address, protocol, transport_port, per_second };
    let running = methods.switch()?.trace(request).map_err(failed)?;
    Ok(Begun { trace: caller.keep(Arc::new(Mutex::new(running)))? })
}

pub(super) fn next(_: &Methods, caller: &Caller, next: Next) -> Result<Packets, RpcError> {
    let running = caller.kept::<Shared>(next.trace).ok_or_else(|| unknown(next.trace))?;
    let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = Instant::now() + Duration::from_millis(next.wait_ms.unwrap_or(1000)).min(LONGEST_WAIT);
    loop {
        let packets = running.take(MOST);
        let over = running.is_over();
        if !packets.is_empty() || over || Instant::now() >= deadline {
            return Ok(Packets { packets, missed: running.missed(), over });
        }
        std::thread::sleep(LOOK);
    }
}

pub(super) fn end(_: &Methods, caller: &Caller, End { trace }: End) -> Result<Nothing, RpcError> {
    caller.take::<Shared>(trace).map(|_| Nothing {}).ok_or_else(|| unknown(trace))
}

fn unknown(number: u64) -> RpcError {
    RpcError::new(code::FAILED, format!("this connection has no trace {number}; begin one with `trace.begin`"))
}
