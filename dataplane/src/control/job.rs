//! Messages that are being carried out, each on a thread of its own.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use serde_json::Value;

use super::caller::{Access, Caller, Due, Watch};
use super::rpc::{self, Handler, RpcError, code};

/// Most of them at a time, of clients that are there and of those that have hung up.
const MOST: usize = 32;

/// Who carries messages out.
pub(super) struct Office {
    handler: Arc<dyn Handler>,
    /// An eventfd, signalled whenever an answer is there.
    bell: Arc<OwnedFd>,
    /// There are as many of these as threads that work, and one more.
    working: Arc<()>,
}

/// A message that is being carried out.
pub(super) struct Job {
    answer: Receiver<Option<Value>>,
}

/// A handler whose panic is an answer.
struct Guarded<'h>(&'h dyn Handler);

impl Handler for Guarded<'_> {
    fn call(&self, caller: &Caller, method: &str, params: Value) -> Result<Value, RpcError> {
        catch_unwind(AssertUnwindSafe(|| self.0.call(caller, method, params))).unwrap_or_else(|_| Err(defect()))
    }

    fn access(&self, method: &str) -> Option<Access> {
        self.0.access(method)
    }

    fn look(&self, watch: &mut Watch) -> Result<Option<Value>, RpcError> {
        catch_unwind(AssertUnwindSafe(|| self.0.look(watch))).unwrap_or_else(|_| Err(defect()))
    }
}

fn defect() -> RpcError {
    RpcError::new(code::INTERNAL, "this failed by an error in mirach; please report it")
}

impl Office {
    pub(super) fn new(handler: Arc<dyn Handler>, bell: Arc<OwnedFd>) -> Self {
        Self { handler, bell, working: Arc::new(()) }
    }

    /// Nothing more can be begun for now.
    pub(super) fn is_full(&self) -> bool {
        Arc::strong_count(&self.working) > MOST
    }

    /// Begins to carry out `message`.
    ///
    /// # Errors
    /// When the system has no thread for it: what to answer.
    pub(super) fn begin(&self, caller: &Arc<Caller>, message: Value) -> Result<Job, RpcError> {
        let caller = Arc::clone(caller);
        self.spawn(move |handler| rpc::answer(handler, &caller, message))
    }

    /// Begins to look after a subscription.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(super) fn begin_look(&self, due: Due) -> Result<Job, RpcError> {
        self.spawn(move |handler| due.look(handler))
    }

    fn spawn(&self, work: impl FnOnce(&dyn Handler) -> Option<Value> + Send + 'static) -> Result<Job, RpcError> {
        let (sender, answer) = sync_channel(1);
        let (handler, bell, working) = (Arc::clone(&self.handler), Arc::clone(&self.bell), Arc::clone(&self.working));
        let work = move || {
            let answer = work(&Guarded(&*handler));
            // Whoever has the answer may count on nothing being held any more.
            drop((handler, working));
            // Who has hung up does not hear it.
            let _ = sender.send(answer);
            let _ = rustix::io::write(&*bell, &1_u64.to_ne_bytes());
        };
        let spawned = std::thread::Builder::new().name("request".to_owned()).spawn(work);
        spawned.map_err(|error| {
            RpcError::new(code::INTERNAL, format!("no thread can be had for this request: {error}; ask again later"))
        })?;
        Ok(Job { answer })
    }
}

impl Job {
    /// The outcome, once it is there: what to answer, if anything.
    pub(super) fn outcome(&self) -> Option<Option<Value>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Some(rpc::failure(Value::Null, &defect()))),
        }
    }
}
