//! What is known of the cards that are served, for people and for programs.

use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use super::model::{Card, Facts, Model};
use crate::table::grouped;

/// What is known of it at one moment.
pub(super) struct Status {
    socket: String,
    what: &'static str,
    state: String,
    counters: Vec<(&'static str, u64)>,
    faults: u64,
    dma_faults: Vec<String>,
    violations: Vec<String>,
}

impl Status {
    pub(super) fn of<C: Model>(card: &Card<C>) -> Self {
        let Facts { what, state, mut counters } = C::facts(card);
        if let Some(traffic) = &card.traffic {
            let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            counters.extend([
                ("wire_made", read(&traffic.made)),
                ("wire_seen", read(&traffic.seen)),
                ("wire_foreign", read(&traffic.foreign)),
                ("wire_disordered", read(&traffic.disordered)),
            ]);
        }
        Self {
            socket: card.socket.display().to_string(),
            what,
            state: if card.control.is_removed() { "removed".to_owned() } else { state },
            counters,
            faults: card.control.fault_count(),
            dma_faults: card.control.faults().iter().map(|fault| format!("{fault:?}")).collect(),
            violations: card.control.violations(),
        }
    }

    /// Nothing was recorded that should not have happened.
    pub(super) fn is_clean(&self) -> bool {
        self.faults == 0 && self.violations.is_empty()
    }

    pub(super) fn object(&self) -> Value {
        let counters: Map<String, Value> =
            self.counters.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({
            "socket": self.socket,
            self.what: self.state,
            "counters": counters,
            "dma_fault_count": self.faults,
            "dma_faults": self.dma_faults,
            "violations": self.violations,
        })
    }

    pub(super) fn text(&self) -> String {
        let counters = self.counters.iter().filter(|(_, value)| *value > 0);
        let counters = counters.map(|(name, value)| format!(", {name} {}", grouped(*value)));
        let mut lines = vec![format!("{}: {} {}{}", self.socket, self.what, self.state, counters.collect::<String>())];
        lines.extend(self.dma_faults.iter().map(|fault| format!("  DMA outside the maps: {fault}")));
        let untold = self.faults.saturating_sub(self.dma_faults.len() as u64);
        if untold > 0 {
            lines.push(format!("  DMA outside the maps: {} more", grouped(untold)));
        }
        lines.extend(self.violations.iter().map(|rule| format!("  rule broken by the driver: {rule}")));
        lines.join("\n")
    }
}
