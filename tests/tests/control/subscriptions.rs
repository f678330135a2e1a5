//! News that clients asked for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::scene::{close, set};
use crate::wire::Wire;

/// The next news of a subscription.
fn news(wire: &mut Wire, subscription: &Value) -> Result<Value> {
    loop {
        let line = wire.line()?.context("it hung up")?;
        if line["method"] == "update" && line["params"]["subscription"] == *subscription {
            return Ok(line["params"].clone());
        }
    }
}

fn subscribe(wire: &mut Wire, params: &Value) -> Result<Value> {
    let answer = wire.ask("subscribe", params)?;
    let number = answer.pointer("/result/subscription").with_context(|| format!("{answer}"))?;
    Ok(number.clone())
}

pub(crate) fn topics() -> Result<()> {
    let (daemon, mut crowd) = set(&[])?;
    crowd.busy(|| {
        let mut wire = Wire::open(&daemon)?;
        // Numbers that rise, as often as was asked for.
        let stats = subscribe(&mut wire, &json!({ "topic": "stats", "interval_ms": 100 }))?;
        let received =
            |news: &Value| news.pointer("/data/sums/packets/received").and_then(Value::as_u64).context("no sums");
        let first = received(&news(&mut wire, &stats)?)?;
        let started = Instant::now();
        let mut last = first;
        for _ in 0..5 {
            last = received(&news(&mut wire, &stats)?)?;
        }
        ensure!(last > first, "{last} packets after {first}");
        ensure!(started.elapsed() >= Duration::from_millis(300), "five times within {:?}", started.elapsed());
        let ports = subscribe(&mut wire, &json!({ "topic": "ports", "interval_ms": 100 }))?;
        let heard = news(&mut wire, &ports)?;
        ensure!(heard.pointer("/data/ports/0/counters").is_some(), "{heard}");
        let flows = subscribe(&mut wire, &json!({ "topic": "flows", "interval_ms": 100, "params": { "most": 2 } }))?;
        let heard = news(&mut wire, &flows)?;
        ensure!(heard.pointer("/data/flows").and_then(Value::as_array).map(Vec::len) == Some(2), "{heard}");
        // What changes, and nothing else.
        let changes = subscribe(&mut wire, &json!({ "topic": "changes", "interval_ms": 100 }))?;
        std::thread::sleep(Duration::from_millis(300));
        daemon.call("port.add", json!({ "spec": "null,name=new" }))?;
        let heard = news(&mut wire, &changes)?;
        ensure!(heard["data"].to_string().contains("new"), "{heard}");
        daemon.call("port.del", json!({ "name": "new" }))?;
        let heard = news(&mut wire, &changes)?;
        ensure!(heard["data"].to_string().contains("- "), "{heard}");
        // An end.
        for number in [&stats, &ports, &flows] {
            let answer = wire.ask("unsubscribe", &json!({ "subscription": number }))?;
            ensure!(answer.get("result").is_some(), "{answer}");
        }
        let answer = wire.ask("unsubscribe", &json!({ "subscription": stats }))?;
        ensure!(answer.get("error").is_some(), "it ended twice: {answer}");
        for bad in [json!({ "topic": "weather" }), json!({ "topic": "stats", "interval_ms": 1 }), json!({})] {
            let answer = wire.ask("subscribe", &bad)?;
            ensure!(answer.pointer("/error/code").and_then(Value::as_i64) == Some(-32602), "{bad}: {answer}");
        }
        Ok(())
    })?;
    close(daemon, crowd)
}
