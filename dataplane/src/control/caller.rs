//! Who asks: what they may do, what they have subscribed to, and what is theirs for as long as they stay.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rpc::{self, Handler, RpcError, code};

/// Most subscriptions of a client.
const MOST_SUBSCRIPTIONS: usize = 8;
/// Most things that are a client's.
const MOST_BELONGINGS: usize = 4;
/// How often there may be news, at most.
const SHORTEST: Duration = Duration::from_millis(100);
/// How often there have to be, at least.
const LONGEST: Duration = Duration::from_secs(3600);

/// Whether a method changes anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Access {
    /// It only tells.
    Read,
    /// It changes something.
    Write,
}

/// A client, as the methods see it. What is the client's goes when it does.
pub struct Caller {
    may: Access,
    own: Mutex<Own>,
}

#[derive(Default)]
struct Own {
    last: u64,
    subscriptions: Vec<Subscription>,
    belongings: BTreeMap<u64, Arc<dyn Any + Send + Sync>>,
}

/// What a client wants to hear of, and what it was told already.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Watch {
    /// The topic.
    pub topic: String,
    /// What of it.
    pub params: Value,
    /// What the topic wants to remember from one look to the next.
    pub before: Option<Value>,
}

struct Subscription {
    number: u64,
    interval: Duration,
    due: Instant,
    /// Looks that were not taken, because the client did not take what it was sent.
    lost: u64,
    watch: Arc<Mutex<Watch>>,
}

/// A subscription that is to be looked after now.
pub(super) struct Due {
    number: u64,
    lost: u64,
    watch: Arc<Mutex<Watch>>,
}

impl Caller {
    /// A client that may do what `may` says, and everything that is less.
    #[must_use]
    pub fn new(may: Access) -> Self {
        Self { may, own: Mutex::default() }
    }

    /// Whether it may call methods of that kind.
    #[must_use]
    pub fn may(&self, access: Access) -> bool {
        access <= self.may
    }

    /// Sends it what there is to tell, every `interval`, from now on. Gives the number of the subscription.
    ///
    /// # Errors
    /// When the interval is out of range, or the client has too many subscriptions.
    pub fn subscribe(&self, watch: Watch, interval: Duration) -> Result<u64, RpcError> {
        if !(SHORTEST..=LONGEST).contains(&interval) {
            let reason = format!(
                "`interval_ms` is {} to {}, and not {}",
                SHORTEST.as_millis(),
                LONGEST.as_millis(),
                interval.as_millis()
            );
            return Err(RpcError::new(code::INVALID_PARAMS, reason));
        }
        let mut own = self.own();
        if own.subscriptions.len() >= MOST_SUBSCRIPTIONS {
            let reason = format!("a client has at most {MOST_SUBSCRIPTIONS} subscriptions; end one with `unsubscribe`");
            return Err(RpcError::new(code::FAILED, reason));
        }
        own.last += 1;
        let number = own.last;
        let watch = Arc::new(Mutex::new(watch));
        own.subscriptions.push(Subscription { number, interval, due: Instant::now(), lost: 0, watch });
        Ok(number)
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// When the client has no such.
    pub fn unsubscribe(&self, number: u64) -> Result<(), RpcError> {
        let mut own = self.own();
        let before = own.subscriptions.len();
        own.subscriptions.retain(|subscription| subscription.number != number);
        if own.subscriptions.len() < before {
            return Ok(());
        }
        Err(RpcError::new(code::FAILED, format!("this connection has no subscription {number}")))
    }

    /// Keeps something until the client takes it back or leaves; to drop it must take no time. Gives its number.
    ///
    /// # Errors
    /// When the client has too much already.
    pub fn keep(&self, thing: Arc<dyn Any + Send + Sync>) -> Result<u64, RpcError> {
        let mut own = self.own();
        if own.belongings.len() >= MOST_BELONGINGS {
            let reason = format!(
                "a client has at most {MOST_BELONGINGS} captures and traces; end one with `capture.end` or `trace.end`"
            );
            return Err(RpcError::new(code::FAILED, reason));
        }
        own.last += 1;
        let number = own.last;
        own.belongings.insert(number, thing);
        Ok(number)
    }

    /// What was kept under that number.
    #[must_use]
    pub fn kept<T: Any + Send + Sync>(&self, number: u64) -> Option<Arc<T>> {
        let thing = self.own().belongings.get(&number).cloned()?;
        thing.downcast().ok()
    }

    /// Takes back what was kept under that number.
    #[must_use]
    pub fn take<T: Any + Send + Sync>(&self, number: u64) -> Option<Arc<T>> {
        let thing = self.kept(number)?;
        self.own().belongings.remove(&number);
        Some(thing)
    }

    /// When the next of its subscriptions is to be looked after.
    pub(super) fn due(&self) -> Option<Instant> {
        self.own().subscriptions.iter().map(|subscription| subscription.due).min()
    }

    /// The subscription that is to be looked after now: that which has waited longest.
    pub(super) fn next_due(&self, now: Instant) -> Option<Due> {
        let mut own = self.own();
        let subscription = own.subscriptions.iter_mut().min_by_key(|subscription| subscription.due)?;
        let late = now.checked_duration_since(subscription.due)?;
        let missed = late.as_nanos() / subscription.interval.as_nanos().max(1);
        subscription.lost = subscription.lost.saturating_add(u64::try_from(missed).unwrap_or(u64::MAX));
        subscription.due = now + subscription.interval;
        let Subscription { number, lost, ref watch, .. } = *subscription;
        Some(Due { number, lost, watch: Arc::clone(watch) })
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Due {
    /// What to tell the client, if anything: a notification.
    pub(super) fn look(&self, handler: &dyn Handler) -> Option<Value> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = handler.look(&mut watch);
        let mut params = json!({ "subscription": self.number, "topic": watch.topic, "lost": self.lost });
        match seen {
            Ok(None) => return None,
            Ok(Some(data)) => params["data"] = data,
            Err(error) => params["error"] = rpc::error_object(&error),
        }
        Some(json!({ "jsonrpc": "2.0", "method": "update", "params": params }))
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("may", &self.may).finish_non_exhaustive()
    }
}
