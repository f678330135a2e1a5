//! Changes of the configuration, all or nothing, one after another; and growth of the flow table.
//!
//! A change is planned, its memory is taken, and then it is made: the brain has the new rules, and a second flow table is built in which every flow is what
//! they say. Meanwhile packets of flows that the table has go on by the old rules, and first packets of the networks that change wait here, so that nothing is
//! decided by new rules before all is. Then each engine takes table and layout together, between two batches. What tunnels look like (addresses, MTU) is no rule: it
//! holds as soon as it is known.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::engines::Raised;
use super::error::VswitchError;
use super::handle::Reply;
use super::state::{PATIENCE, State};
use super::upcalls::drop_for;
use super::waiting::Awaited;
use crate::flow::{Fate, FlowKey, Progress, Table, TableError};
use crate::network::{Change, Config, Stale};
use crate::switch::Reason;

/// An edit of the configuration.
pub(super) type Edit = Box<dyn FnOnce(&mut Config) -> Result<(), String> + Send>;

/// Changes that may wait.
const MOST: usize = 64;
/// Tables that are tried to be built for one change.
const TRIES: u32 = 4;
/// How long it is not tried again to let the table grow when there was no memory.
const PAUSE: Duration = Duration::from_secs(10);

/// Changes that are wanted, and the one that is being made.
#[derive(Default)]
pub(super) struct Changes {
    queue: VecDeque<(Edit, Reply<Vec<String>>)>,
    current: Option<Making>,
    /// When the table may grow.
    grow_from: Duration,
}

/// A change that is being made.
enum Making {
    /// Flows are being looked at.
    Table(TableChange),
    /// Nothing but a larger table.
    Larger,
    /// All engines were told, under this number.
    Adopting(u64),
}

/// What changed, and who wants to know.
type Outcome = (Vec<String>, Reply<Vec<String>>);

struct TableChange {
    stale: Stale,
    /// The walk that this stands for.
    walk: u64,
    lines: Vec<String>,
    reply: Reply<Vec<String>>,
    tries: u32,
    since: Duration,
}

impl State {
    /// Takes in a wish for a change.
    pub(super) fn change(&mut self, edit: Edit, reply: Reply<Vec<String>>) {
        if self.changes.queue.len() < MOST {
            self.changes.queue.push_back((edit, reply));
        } else {
            let _ = reply.try_send(Err(VswitchError::Busy));
        }
    }

    /// The new rules are there, and the flows are still being looked at.
    pub(super) fn is_changing(&self) -> bool {
        matches!(self.changes.current, Some(Making::Table(_)))
    }

    /// Whether packets of this key are not to be decided on now, because rules for them are being changed.
    pub(super) fn has_to_wait(&self, key: &FlowKey) -> bool {
        let Some(Making::Table(change)) = &self.changes.current else { return false };
        self.brain.network_of(key).is_none_or(|network| change.stale.networks.contains(&network))
    }

    /// Goes on with the change that is being made, or begins the next one. Whether there was anything to do.
    pub(super) fn step_changes(&mut self, budget: u32) -> bool {
        match self.changes.current.take() {
            Some(Making::Table(change)) => return self.step_table(change, budget),
            Some(Making::Larger) => self.step_growth(budget),
            Some(Making::Adopting(number)) if self.is_adopting(number) => {
                self.changes.current = Some(Making::Adopting(number));
                return false;
            }
            Some(Making::Adopting(_)) => self.writer.collect(),
            None if !self.walk.rests() => return false,
            None => match self.changes.queue.pop_front() {
                Some((edit, reply)) => {
                    if let Err(error) = self.begin_change(edit, &reply) {
                        let _ = reply.try_send(Err(error));
                    }
                }
                None => return self.begin_growth(),
            },
        }
        true
    }

    fn begin_change(&mut self, edit: Edit, reply: &Reply<Vec<String>>) -> Result<(), VswitchError> {
        let mut config = self.brain.config().clone();
        // It is somebody else's, and what it leaves half done is a copy.
        let edited = catch_unwind(AssertUnwindSafe(|| edit(&mut config))).map_err(|_| VswitchError::Fault)?;
        edited.map_err(VswitchError::Refused)?;
        let change = self.brain.plan(config)?;
        let lines = change.lines().to_vec();
        if lines.is_empty() {
            let _ = reply.try_send(Ok(lines));
            return Ok(());
        }
        let walks = !change.networks().is_empty() && !self.writer.is_empty();
        // All that can fail comes before anything is changed.
        let coprocessors = self.start_coprocessors(&change)?;
        if walks {
            self.writer.begin(0)?;
            self.writer.step(0, |_, _| Fate::Stay)?;
        }
        // Their numbers may be others' afterwards.
        let (brain, networks) = (&self.brain, change.networks());
        let touched = |raised: &Raised, _| brain.network_of(&raised.key).is_none_or(|it| networks.contains(&it));
        for raised in self.waiting.take_where(touched) {
            self.counters.waited_in_vain += 1;
            raised.send(&mut self.engines, drop_for(Reason::NoRoute), None);
        }
        let stale = self.make(change);
        self.attach_coprocessors(coprocessors);
        let reply = reply.clone();
        if walks {
            let (mut all, walk) = self.walk.take();
            all.merge(stale);
            let change = TableChange { stale: all, walk, lines, reply, tries: 1, since: self.now() };
            self.changes.current = Some(Making::Table(change));
            self.publish();
        } else {
            self.adopt_change(None, Some((lines, reply)));
        }
        Ok(())
    }

    /// The brain and all that depends on its configuration alone.
    fn make(&mut self, change: Change) -> Stale {
        let stale = self.brain.apply(change);
        let ports = self.brain.config().port_names().map(str::to_owned).collect();
        *self.shared.switched.write().unwrap_or_else(PoisonError::into_inner) = ports;
        self.configure_underlay();
        self.configure_ageing();
        self.set_limits(true);
        stale
    }

    /// Looks at more flows. Whether there are more that can be looked at now.
    fn step_table(&mut self, mut change: TableChange, budget: u32) -> bool {
        let now = self.now();
        let mut looked = 0;
        let Self { writer, brain, .. } = self;
        let progress = writer.step(budget, |_, flow| {
            looked += 1;
            brain.fate(&flow.key, &flow.action, &change.stale, now)
        });
        let made = match progress {
            // Flows that are pending have to wait for their engine. It does not take part when that takes so long.
            Ok(Progress::Building) if change.since + PATIENCE > now => {
                self.changes.current = Some(Making::Table(change));
                return looked == budget;
            }
            Ok(Progress::Building) => {
                self.writer.abandon();
                self.change_one_by_one(change);
                return true;
            }
            Ok(Progress::Ready) => self.writer.commit(),
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => {
                self.walk.finish(change.walk);
                self.ageing.disturb();
                self.adopt_change(Some(&made.table), Some((change.lines, change.reply)));
            }
            Err(error) if change.tries < TRIES && self.begin_again(&error) => {
                change.tries += 1;
                self.changes.current = Some(Making::Table(change));
            }
            Err(error) => {
                tracing::warn!(%error, "no second flow table");
                self.change_one_by_one(change);
            }
        }
        true
    }

    /// The rules hold already, and there is no second table. Flow by flow, then.
    fn change_one_by_one(&mut self, change: TableChange) {
        tracing::warn!("the flows of a change are changed one by one");
        self.keep_old = self.walk.add_always(change.stale);
        self.adopt_change(None, Some((change.lines, change.reply)));
    }

    /// Begins another table after one could not be built, a larger one if there was no room.
    fn begin_again(&mut self, error: &TableError) -> bool {
        let capacity = self.writer.usage().capacity;
        let crowded = matches!(error, TableError::Crowded(_));
        let wanted = if crowded { capacity.saturating_mul(2).min(self.options.flows) } else { capacity };
        self.writer.begin(wanted).is_ok()
    }

    /// Sends a change to the engines.
    fn adopt_change(&mut self, table: Option<&Arc<Table>>, outcome: Option<Outcome>) {
        let number = self.publish_with(table);
        self.changes.current = Some(Making::Adopting(number));
        self.when_adopted(number, move |result| {
            if let Some((lines, reply)) = outcome {
                let _ = reply.try_send(result.map(|()| lines));
            }
        });
        // Meters that are not needed any more go.
        self.set_limits(false);
        self.settle_coprocessors();
        self.release([Awaited::Change]);
    }

    /// Lets the flow table grow when it is three quarters full.
    fn begin_growth(&mut self) -> bool {
        let usage = self.writer.usage();
        let used = u64::from(usage.flows) + u64::from(usage.waiting);
        let full = used * 4 >= u64::from(usage.capacity) * 3;
        if !full || usage.capacity >= self.options.flows || self.changes.grow_from > self.now() {
            return false;
        }
        let capacity = usage.capacity.saturating_mul(2).min(self.options.flows);
        match self.writer.begin(capacity) {
            Ok(()) => self.changes.current = Some(Making::Larger),
            Err(error) => self.give_up_growth(&error),
        }
        true
    }

    fn step_growth(&mut self, budget: u32) {
        match self.writer.step(budget, |_, _| Fate::Stay) {
            Ok(Progress::Building) => self.changes.current = Some(Making::Larger),
            Ok(Progress::Ready) => match self.writer.commit() {
                Ok(made) => self.adopt_change(Some(&made.table), None),
                Err(error) => self.give_up_growth(&error),
            },
            Err(error) => self.give_up_growth(&error),
        }
    }

    fn give_up_growth(&mut self, error: &TableError) {
        tracing::warn!(%error, "the flow table cannot grow now; flows that are used least make room for others");
        self.changes.grow_from = self.now() + PAUSE;
    }
}
