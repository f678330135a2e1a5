//! What the queues of ports are with engines for.

/// Ports whose queues go to engines and come back together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bond {
    /// Two that are joined: what one receives, the other sends.
    Pair([usize; 2]),
    /// One that the switch has.
    Switched([usize; 1]),
}

impl Bond {
    /// Numbers of the ports.
    pub(super) fn ports(&self) -> &[usize] {
        match self {
            Self::Pair(ports) => ports,
            Self::Switched(port) => port,
        }
    }

    pub(super) fn contains(&self, port: usize) -> bool {
        self.ports().contains(&port)
    }
}
