//! What is known of the cards that are served, for people and for programs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use models::card::{Control, Served};
use models::ixgbe::Ixgbe;
use models::wire::TrafficCounters;
use serde_json::{Map, Value, json};

use crate::table::grouped;

/// A card that is served.
pub(super) struct Card {
    pub(super) socket: PathBuf,
    pub(super) served: Served<Ixgbe>,
    pub(super) control: Control<Ixgbe>,
    /// What its wire counts, when that makes frames.
    pub(super) traffic: Option<Arc<TrafficCounters>>,
}

/// What is known of it at one moment.
pub(super) struct Status {
    socket: String,
    link: bool,
    removed: bool,
    counters: Vec<(&'static str, u64)>,
    faults: u64,
    dma_faults: Vec<String>,
    violations: Vec<String>,
}

impl Card {
    pub(super) fn status(&self) -> Status {
        let (transmitted, received) = self.served.moved();
        let (link, offloads) = self.control.with(|chip, _| (chip.is_link_up(), chip.offloads()));
        let mut counters = vec![
            ("tx_frames", transmitted),
            ("rx_frames", received),
            ("interrupts", self.control.interrupts()),
            ("tx_checksums", offloads.tx_checksums),
            ("tx_segmentations", offloads.tx_segmentations),
            ("tx_tags", offloads.tx_tags),
            ("rx_checksums", offloads.rx_checksums),
            ("rx_tags", offloads.rx_tags),
        ];
        if let Some(traffic) = &self.traffic {
            let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            counters.extend([
                ("wire_made", read(&traffic.made)),
                ("wire_seen", read(&traffic.seen)),
                ("wire_foreign", read(&traffic.foreign)),
                ("wire_disordered", read(&traffic.disordered)),
            ]);
        }
        Status {
            socket: self.socket.display().to_string(),
            link,
            removed: self.control.is_removed(),
            counters,
            faults: self.control.fault_count(),
            dma_faults: self.control.faults().iter().map(|fault| format!("{fault:?}")).collect(),
            violations: self.control.violations(),
        }
    }
}

impl Status {
    /// Nothing was recorded that should not have happened.
    pub(super) fn is_clean(&self) -> bool {
        self.faults == 0 && self.violations.is_empty()
    }

    pub(super) fn object(&self) -> Value {
        let counters: Map<String, Value> =
            self.counters.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({
            "socket": self.socket,
            "link": self.link_word(),
            "counters": counters,
            "dma_fault_count": self.faults,
            "dma_faults": self.dma_faults,
            "violations": self.violations,
        })
    }

    pub(super) fn text(&self) -> String {
        let counters = self.counters.iter().filter(|(_, value)| *value > 0);
        let counters = counters.map(|(name, value)| format!(", {name} {}", grouped(*value)));
        let mut lines = vec![format!("{}: link {}{}", self.socket, self.link_word(), counters.collect::<String>())];
        lines.extend(self.dma_faults.iter().map(|fault| format!("  DMA outside the maps: {fault}")));
        let untold = self.faults.saturating_sub(self.dma_faults.len() as u64);
        if untold > 0 {
            lines.push(format!("  DMA outside the maps: {} more", grouped(untold)));
        }
        lines.extend(self.violations.iter().map(|rule| format!("  rule broken by the driver: {rule}")));
        lines.join("\n")
    }

    fn link_word(&self) -> &'static str {
        match (self.removed, self.link) {
            (true, _) => "removed",
            (false, true) => "up",
            (false, false) => "down",
        }
    }
}
