//! Lets ports hand out only what those can send that get it.

use drivers::nic::Offloads;

use super::super::nic::words;
use super::super::{Port, PortControl, PortError, PortKind, null};

/// Large segments that are received, and what it takes to send them.
const LARGE: [(Offloads, Offloads); 3] =
    [(Offloads::LRO4, Offloads::TSO4), (Offloads::LRO6, Offloads::TSO6), (Offloads::URO, Offloads::USO)];

/// What there is to know of a port that is being joined.
pub(crate) struct Side<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: PortKind,
    pub(crate) control: &'a mut dyn PortControl,
}

impl<'a> From<&'a mut Port> for Side<'a> {
    fn from(port: &'a mut Port) -> Self {
        Self { name: &port.name, kind: port.kind, control: &mut *port.control }
    }
}

/// Does so. Gives what the user should know about it, a sentence each.
pub(crate) fn match_offloads(left: Side<'_>, right: Side<'_>) -> Result<Vec<String>, PortError> {
    let notices = [limit(&mut *left.control, left.name, left.kind, &right)?, {
        let Side { name, kind, control } = right;
        limit(control, name, kind, &left)?
    }];
    Ok(notices.into_iter().flatten().collect())
}

/// Lets a port whose packets may go to any other hand out everything: what some of the others cannot send is made fit for them by the engine.
pub(crate) fn offer_everything(from: &mut dyn PortControl) -> Result<(), PortError> {
    from.limit_offloads(null::everything_sent())
}

fn limit(from: &mut dyn PortControl, name: &str, kind: PortKind, to: &Side<'_>) -> Result<Option<String>, PortError> {
    let offloads = match to.kind {
        // What a virtual machine takes changes with its driver; the engine does for it what it cannot.
        PortKind::VhostUser => null::everything_sent(),
        _ => to.control.offloads(),
    };
    from.limit_offloads(offloads)?;
    // A device settles its offloads once, before the other one is known.
    let received = from.offloads();
    let stuck = LARGE.iter().filter(|(large, needed)| received.contains(*large) && !offloads.contains(*needed));
    let names: Vec<String> = stuck.map(|(large, _)| words(*large)).collect();
    let both_cards = kind == PortKind::Nic && to.kind == PortKind::Nic;
    Ok((both_cards && !names.is_empty()).then(|| {
        format!(
            "port `{name}` may receive large segments ({}) that port `{}` cannot send; they are cut by the processor, which costs \
             time; give both devices the same offloads (QEMU: guest_tso4=off,guest_tso6=off,guest_uso4=off,guest_uso6=off \
             on the first)",
            names.join(", "),
            to.name
        )
    }))
}
