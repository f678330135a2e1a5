//! What flags and the uppermost keys of a file say.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ByteSize, ControlSocket, CoreList, PageSize, Poll, Scheduler};
use crate::control::MetricsAddress;
use crate::copy::{DmaName, Threshold};
use crate::port::NamedSpec;

/// What the user said. `None` and an empty list mean that nothing was said.
#[derive(Clone, PartialEq, Default, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// The ports, in order. Those that no section names are joined: the first to the second, the third to the fourth, and so on.
    #[schemars(with = "Vec<String>")]
    pub ports: Vec<NamedSpec>,
    /// Cores for the engines, such as `1-3,8`.
    #[schemars(with = "Option<String>")]
    pub cores: Option<CoreList>,
    /// Memory for packets and rings, such as `64M`.
    #[schemars(with = "Option<String>")]
    pub memory: Option<ByteSize>,
    /// Page size of that memory: `1G`, `2M` or `4K`.
    #[schemars(with = "Option<String>")]
    pub huge_page_size: Option<PageSize>,
    /// Use 4 KiB pages and no huge pages.
    pub no_huge: Option<bool>,
    /// NUMA node of that memory.
    pub node: Option<u32>,
    /// How engines wait for packets.
    pub poll: Option<Poll>,
    /// Most packets received at once, 1 to 128.
    pub burst: Option<usize>,
    /// To whom packets are delivered first.
    pub scheduler: Option<Scheduler>,
    /// Where to listen for requests: the path of a Unix socket, or `none`.
    #[schemars(with = "Option<String>")]
    pub control: Option<ControlSocket>,
    /// The group whose members may ask there, but change nothing.
    pub control_group: Option<String>,
    /// Where to serve metrics for Prometheus: an address such as `127.0.0.1:9100`, or the path of a Unix socket.
    #[schemars(with = "Option<String>")]
    pub metrics: Option<MetricsAddress>,
    /// Stop after this many seconds.
    pub seconds: Option<u64>,
    /// How long packets wait for room on a full transmit queue before they are dropped, in milliseconds.
    pub hold_milliseconds: Option<u64>,
    /// Most flows in the table of the switch.
    pub flows: Option<u32>,
    /// The device that copies large frames to virtual machines: a PCI address, `vfio-user=SOCKET`, a work queue such as `/dev/dsa/wq0.0`, or `cpu`.
    #[schemars(with = "Option<String>")]
    pub dma: Option<DmaName>,
    /// From which length on frames are left to it, where ports say nothing else: bytes, `auto`, or `off`.
    #[schemars(with = "Option<String>")]
    pub dma_threshold: Option<Threshold>,
    /// Report in JSON.
    pub json: Option<bool>,
}

impl Settings {
    /// These settings, and those of `below` where these say nothing.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            ports: if self.ports.is_empty() { below.ports } else { self.ports },
            cores: self.cores.or(below.cores),
            memory: self.memory.or(below.memory),
            // The two say the same thing in two ways, so the one on top hides both below it.
            huge_page_size: self.huge_page_size.or(if self.no_huge.is_some() { None } else { below.huge_page_size }),
            no_huge: self.no_huge.or(if self.huge_page_size.is_some() { None } else { below.no_huge }),
            node: self.node.or(below.node),
            poll: self.poll.or(below.poll),
            burst: self.burst.or(below.burst),
            scheduler: self.scheduler.or(below.scheduler),
            control: self.control.or(below.control),
            control_group: self.control_group.or(below.control_group),
            metrics: self.metrics.or(below.metrics),
            seconds: self.seconds.or(below.seconds),
            hold_milliseconds: self.hold_milliseconds.or(below.hold_milliseconds),
            flows: self.flows.or(below.flows),
            dma: self.dma.or(below.dma),
            dma_threshold: self.dma_threshold.or(below.dma_threshold),
            json: self.json.or(below.json),
        }
    }

    /// Whether something is said under `key`, as it is written in files.
    pub(super) fn says(&self, key: &str) -> bool {
        match key {
            "ports" => !self.ports.is_empty(),
            "cores" => self.cores.is_some(),
            "memory" => self.memory.is_some(),
            "huge-page-size" => self.huge_page_size.is_some(),
            "no-huge" => self.no_huge.is_some(),
            "node" => self.node.is_some(),
            "poll" => self.poll.is_some(),
            "burst" => self.burst.is_some(),
            "scheduler" => self.scheduler.is_some(),
            "control" => self.control.is_some(),
            "control-group" => self.control_group.is_some(),
            "metrics" => self.metrics.is_some(),
            "seconds" => self.seconds.is_some(),
            "hold-milliseconds" => self.hold_milliseconds.is_some(),
            "flows" => self.flows.is_some(),
            "dma" => self.dma.is_some(),
            "dma-threshold" => self.dma_threshold.is_some(),
            "json" => self.json.is_some(),
            _ => false,
        }
    }
}
