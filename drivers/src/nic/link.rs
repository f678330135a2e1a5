//! State of the link.

/// State of the link.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LinkStatus {
    /// Frames can pass.
    pub up: bool,
    /// Megabits per second, when the device knows.
    pub speed_mbps: Option<u32>,
    /// Full duplex, when the device knows.
    pub full_duplex: Option<bool>,
    /// What was agreed on pause frames, when the device knows.
    pub flow_control: Option<FlowControl>,
}

/// Pause frames on a link (IEEE 802.3, clause 31).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Hash)]
pub struct FlowControl {
    /// Pause frames that arrive hold back our sending.
    pub rx: bool,
    /// We send pause frames when receive buffers run short.
    pub tx: bool,
}
