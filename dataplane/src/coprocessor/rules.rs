//! Rules that each packet is asked about, whatever was decided on the first of its flow.

use crate::flow::FlowKey;
use crate::headers::{NetworkKind, parse};
use crate::network::question;
use crate::network::rules::{Question, RuleSet};
use crate::switch::Handed;

/// Whether a packet may pass: by the first of the rules if its machine sent it, by the second if it gets it. ARP always passes, and beside it nothing but IP.
pub(super) fn allow([out, incoming]: &[RuleSet; 2], handed: &Handed) -> bool {
    let view = handed.packet.bytes();
    let headers = parse(view, handed.packet.len());
    let key = FlowKey::of(&headers, view, handed.domain());
    if key.network() == NetworkKind::Arp {
        return true;
    }
    let (Some(asked), Some(source)) = (question(&key), key.source()) else { return false };
    if handed.is_incoming() {
        incoming.ask(&Question { remote: source, ..asked }).allowed
    } else {
        out.ask(&asked).allowed
    }
}
