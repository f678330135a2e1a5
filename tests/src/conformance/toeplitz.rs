//! The hash that spreads flows over queues, as Microsoft's specification of receive-side scaling defines it.

use super::frame::{Ends, Flow};

/// The hash over the addresses, and over the ports too.
#[must_use]
pub fn hash(flow: &Flow, key: &[u8], ports: bool) -> u32 {
    let mut input = match flow.ends {
        Ends::V4(from, to) => [from, to].concat(),
        Ends::V6(from, to) => [from, to].concat(),
    };
    if ports {
        input.extend(flow.ports.0.to_be_bytes());
        input.extend(flow.ports.1.to_be_bytes());
    }
    let bit = |bytes: &[u8], at: usize| bytes.get(at / 8).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0);
    let mut result = 0;
    for at in (0..input.len() * 8).filter(|at| bit(&input, *at)) {
        // The 32 bits of the key that stand over this bit.
        result ^= (at..at + 32).fold(0_u32, |window, place| window << 1 | u32::from(bit(key, place)));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::frame::Transport;
    use super::*;

    /// The verification suite of that specification.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    #[test]
    fn it_agrees_with_the_published_vectors() {
        let ends = Ends::V4([66, 9, 149, 187], [161, 142, 100, 80]);
        let flow = Flow { ends, ports: (2794, 1766), transport: Transport::Tcp };
        assert_eq!((hash(&flow, &KEY, true), hash(&flow, &KEY, false)), (0x51cc_c178, 0x323e_8fc2));
        let from = [0x3f, 0xfe, 0x25, 1, 2, 0, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 7];
        let to = [0x3f, 0xfe, 0x25, 1, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1];
        let flow = Flow { ends: Ends::V6(from, to), ports: (2794, 1766), transport: Transport::Tcp };
        assert_eq!((hash(&flow, &KEY, true), hash(&flow, &KEY, false)), (0x4020_7d3d, 0x2cc1_8cd5));
    }
}
