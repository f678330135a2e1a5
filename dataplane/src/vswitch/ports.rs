//! Ports and their slots: small numbers that actions and engines know ports by.

use std::collections::HashMap;
use std::time::Duration;

use super::MOST_PORTS;
use super::error::VswitchError;
use super::handle::{Attached, Reply};
use super::state::State;
use crate::network::Bound;
use crate::switch::PortSlot;

/// A port that is attached.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) facts: Attached,
}

/// A slot.
#[derive(Clone, Default, Debug)]
enum Slot {
    #[default]
    Free,
    Taken(Port),
    /// The port has gone, and flows may still name it.
    Leaving {
        /// The port's number, which flows have as their domain.
        number: usize,
        /// When the walk of this number is through, none does.
        walk: u64,
        /// When all engines have adopted the layout of this number, it can be used again. It was not sent yet when there is none.
        layout: Option<u64>,
    },
}

/// A port that waits for flows of the one before it to be gone.
pub(super) struct Coming {
    name: String,
    facts: Attached,
    reply: Reply<PortSlot>,
    since: Duration,
}

/// All ports.
pub(super) struct Ports {
    slots: Vec<Slot>,
    by_name: HashMap<String, PortSlot>,
    coming: Vec<Coming>,
}

/// How long a port may wait.
const PATIENCE: Duration = Duration::from_secs(15);

impl Ports {
    pub(super) fn new() -> Self {
        Self { slots: (0..MOST_PORTS).map(|_| Slot::Free).collect(), by_name: HashMap::new(), coming: Vec::new() }
    }

    /// The port in a slot.
    pub(super) fn get(&self, slot: PortSlot) -> Option<&Port> {
        match self.slots.get(usize::from(slot.0))? {
            Slot::Taken(port) => Some(port),
            _ => None,
        }
    }

    /// The slot of a port, and the port.
    pub(super) fn find(&self, name: &str) -> Option<(PortSlot, &Port)> {
        let slot = *self.by_name.get(name)?;
        Some((slot, self.get(slot)?))
    }

    /// All ports, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PortSlot, &Port)> {
        self.by_slot().filter_map(|(number, slot)| match slot {
            Slot::Taken(port) => Some((number, port)),
            _ => None,
        })
    }

    fn by_slot(&self) -> impl Iterator<Item = (PortSlot, &Slot)> {
        (0_u16..).map(PortSlot).zip(&self.slots)
    }

    /// The port with this number in the forwarder.
    pub(super) fn numbered(&self, number: u32) -> Option<(PortSlot, &Port)> {
        self.iter().find(|(_, port)| u32::try_from(port.facts.number) == Ok(number))
    }

    fn is_leaving(&self, number: usize) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Leaving { number: other, .. } if *other == number))
    }

    fn take(&mut self, name: String, facts: Attached) -> Option<PortSlot> {
        let slot = self.by_slot().find(|(_, slot)| matches!(slot, Slot::Free)).map(|(number, _)| number)?;
        self.by_name.insert(name.clone(), slot);
        *self.slots.get_mut(usize::from(slot.0))? = Slot::Taken(Port { name, facts });
        Some(slot)
    }
}

impl State {
    /// Attaches a port, and answers when all engines know it.
    pub(super) fn attach(&mut self, name: String, facts: Attached, reply: Reply<PortSlot>) {
        let comes = self.ports.coming.iter().any(|coming| coming.name == name);
        if comes || self.ports.by_name.contains_key(&name) {
            let _ = reply.try_send(Err(VswitchError::Attached(name)));
            return;
        }
        let since = self.now();
        self.ports.coming.push(Coming { name, facts, reply, since });
        self.let_ports_in();
    }

    /// Attaches the ports that wait and need not wait any longer. Flows of a port that had the same number would be theirs.
    pub(super) fn let_ports_in(&mut self) {
        let now = self.now();
        let coming = std::mem::take(&mut self.ports.coming);
        for one in coming {
            let free = self.ports.slots.iter().any(|slot| matches!(slot, Slot::Free));
            let leaving = self.ports.slots.iter().any(|slot| matches!(slot, Slot::Leaving { .. }));
            let soon = !free && leaving;
            let numbered = self.ports.is_leaving(one.facts.number);
            if (soon || numbered) && one.since + PATIENCE > now {
                self.ports.coming.push(one);
                continue;
            }
            let Coming { name, facts, reply, .. } = one;
            if numbered {
                let _ = reply.try_send(Err(VswitchError::NoSlot { name, most: MOST_PORTS }));
                continue;
            }
            let number = u32::try_from(facts.number).unwrap_or(u32::MAX);
            let Some(slot) = self.ports.take(name.clone(), facts) else {
                let _ = reply.try_send(Err(VswitchError::NoSlot { name, most: MOST_PORTS }));
                continue;
            };
            let stale = self.brain.bind(&name, Bound { number, slot: slot.0 });
            self.walk.add(stale);
            self.configure_underlay();
            self.set_limits(self.is_changing());
            let adopted = self.publish();
            self.when_adopted(adopted, move |result| {
                let _ = reply.try_send(result.map(|()| slot));
            });
        }
    }

    /// Takes a port out. What becomes of its slot is seen to later.
    pub(super) fn detach(&mut self, name: &str) -> Result<(), VswitchError> {
        let before = self.ports.coming.len();
        // Its asker gets no answer, and does not wait any more.
        self.ports.coming.retain(|coming| coming.name != name);
        if self.ports.coming.len() < before {
            return Ok(());
        }
        let slot = self.ports.by_name.remove(name).ok_or_else(|| VswitchError::NoPort(name.to_owned()))?;
        let number = self.ports.get(slot).map_or(0, |port| port.facts.number);
        let stale = self.brain.unbind(name);
        let walk = self.walk.add_always(stale);
        if let Some(place) = self.ports.slots.get_mut(usize::from(slot.0)) {
            *place = Slot::Leaving { number, walk, layout: None };
        }
        self.configure_underlay();
        self.set_limits(self.is_changing());
        self.publish();
        Ok(())
    }

    /// Frees the slots that nothing names any more.
    pub(super) fn free_slots(&mut self) {
        let finished = self.walk.finished();
        let (mut freed, mut barrier) = (false, None);
        for place in 0..self.ports.slots.len() {
            let Some(Slot::Leaving { walk, layout, .. }) = self.ports.slots.get(place) else { continue };
            let next = match *layout {
                None if finished >= *walk && !self.is_changing() => {
                    Some(*barrier.get_or_insert_with(|| self.publish()))
                }
                Some(number) if self.engines.have_adopted(number) => None,
                _ => continue,
            };
            match (next, self.ports.slots.get_mut(place)) {
                (Some(number), Some(Slot::Leaving { layout, .. })) => *layout = Some(number),
                (None, Some(slot)) => {
                    *slot = Slot::Free;
                    freed = true;
                }
                _ => {}
            }
        }
        if freed || !self.ports.coming.is_empty() {
            self.let_ports_in();
        }
    }
}
