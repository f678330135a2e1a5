//! Closing the files of work queues. The kernel waits until a queue is drained, and nobody knows how long a broken device takes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use drivers::dsa::Portal;

use super::views::Views;

/// A work queue that is being closed.
pub(super) struct Closing(Receiver<()>);

impl Closing {
    /// Closes a work queue, and keeps in place what the device may write to meanwhile.
    pub(super) fn begin(portal: Box<dyn Portal + Send>, views: Arc<Views>) -> Self {
        let (tell, told) = channel();
        let work = move || {
            drop(portal);
            drop(views);
            // Nobody may be listening any more.
            let _ = tell.send(());
        };
        // Without a thread it is closed here: the closure was dropped, and the portal with it.
        let _ = thread::Builder::new().name("close-wq".to_owned()).spawn(work);
        Self(told)
    }

    /// Waits until it is closed, at most `limit`.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.0.recv_timeout(limit) {
            Ok(()) | Err(Disconnected) => true,
            Err(Timeout) => false,
        }
    }
}
