//! An open HTTP connection and the tasks that drive it.
//!
//! **Invariant:** when the last handle to a connection goes, its tasks are aborted and its socket closes, whatever the other
//! side does. Nothing of a hostile endpoint outlives its attempt, unless the connection is put into the pool on purpose.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use tokio::task::JoinSet;

/// A connection that requests can be sent on.
pub(super) struct Connection {
    pub(super) sender: Sender,
    /// The address that was judged and connected to.
    pub(super) remote: SocketAddr,
    broken: Arc<AtomicBool>,
    tasks: Tasks,
}

/// Hyper's handle, by protocol.
pub(super) enum Sender {
    /// One request at a time.
    H1(http1::SendRequest<Full<Bytes>>),
    /// Many requests at once over one connection.
    H2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(super) fn new(sender: Sender, remote: SocketAddr, tasks: Tasks) -> Self {
        Self { sender, remote, broken: Arc::default(), tasks }
    }

    /// Another handle to the same connection, where the protocol lets requests share one.
    pub(super) fn share(&self) -> Option<Self> {
        let Sender::H2(sender) = &self.sender else { return None };
        let (broken, tasks) = (Arc::clone(&self.broken), self.tasks.clone());
        Some(Self { sender: Sender::H2(sender.clone()), remote: self.remote, broken, tasks })
    }

    /// Whether both are handles to one connection.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.broken, &other.broken)
    }

    /// Takes the connection out of use: what waits on it may finish, nothing more is sent.
    pub(super) fn retire(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether a request can be sent at once. The other side may still have closed it unseen.
    pub(super) fn is_usable(&self) -> bool {
        let is_ready = match &self.sender {
            Sender::H1(sender) => sender.is_ready(),
            Sender::H2(sender) => sender.is_ready(),
        };
        is_ready && !self.broken.load(Ordering::Relaxed)
    }
}

/// The tasks of one connection.
#[derive(Clone)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// Starts tasks for hyper. Holds the set weakly: the tasks hold their executor, and must not keep themselves alive.
#[derive(Clone)]
pub(super) struct TaskExecutor(Weak<Mutex<JoinSet<()>>>);

impl Tasks {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn executor(&self) -> TaskExecutor {
        TaskExecutor(Arc::downgrade(&self.0))
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // HTTP/2 starts tasks per request; those that ended must not pile up.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl<F> hyper::rt::Executor<F> for TaskExecutor
where
    F: Future + Send + 'static,
{
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            Tasks(tasks).spawn(async move {
                task.await;
            });
        }
    }
}
