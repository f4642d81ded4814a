//! Open connections between attempts, so that a busy endpoint is spared name look-up, connecting and TLS.
//!
//! Our own rather than hyper-util's, because an attempt must know whether it got a used connection, to which address it
//! leads, and where its time went.
//!
//! **Invariant:** a connection is in the pool only when nothing of an earlier response is left on it. It stays for
//! [`IDLE_MS`] at most; a task sweeps the rest while the pool isn't empty.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::connection::{Connection, Sender};
use crate::core::url::EndpointUrl;
use crate::env::Clock;

/// Milliseconds that an unused connection stays open. Shorter than the 60 or 75 s after which common servers close one,
/// so that requests rarely meet a connection that is just being closed.
const IDLE_MS: u64 = 30_000;

/// What must be equal for a connection to serve: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    https: bool,
    host: String,
    port: u16,
}

impl From<&EndpointUrl> for Key {
    fn from(url: &EndpointUrl) -> Self {
        Self { https: url.is_https(), host: url.host().to_owned(), port: url.port() }
    }
}

/// The open connections that no attempt is using, and those that attempts share.
pub(super) struct Pool {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    hosts: HashMap<Key, Vec<Idle>>,
    /// Entries over all hosts, and how many they may be.
    count: usize,
    count_max: usize,
    /// A sweeping task runs.
    is_swept: bool,
}

struct Idle {
    connection: Connection,
    /// Monotonic milliseconds of the last use.
    used_ms: u64,
}

/// A connection in the hands of one attempt. Unless it is given back it is retired, since nobody knows what is left on it.
pub(super) struct Lease<'p> {
    pool: &'p Pool,
    key: Key,
    /// Present until it is given back.
    connection: Option<Connection>,
}

impl Pool {
    /// An empty pool for so many connections over all hosts, at least one.
    pub(super) fn new(clock: Arc<dyn Clock>, count_max: usize) -> Self {
        let state = State { count_max: count_max.max(1), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), clock }
    }

    /// A usable connection to the host of `url`, the most recently used first: it is the least likely to be closed.
    pub(super) fn take(&self, url: &EndpointUrl) -> Option<Lease<'_>> {
        let key = Key::from(url);
        let now_ms = self.clock.mono_ms();
        let connection = lock(&self.state).take(&key, now_ms)?;
        Some(Lease { pool: self, key, connection: Some(connection) })
    }

    /// Wraps a fresh connection.
    pub(super) fn lease(&self, url: &EndpointUrl, connection: Connection) -> Lease<'_> {
        Lease { pool: self, key: Key::from(url), connection: Some(connection) }
    }

    fn put(&self, key: Key, connection: Connection) {
        let used_ms = self.clock.mono_ms();
        let mut state = lock(&self.state);
        state.put(key, Idle { connection, used_ms });
        if state.count > 0 && !state.is_swept {
            state.is_swept = true;
            tokio::spawn(sweep_until_empty(Arc::downgrade(&self.state), Arc::clone(&self.clock)));
        }
    }
}

impl Lease<'_> {
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("present until the lease is given back, which consumes it")
    }

    /// Puts the connection back for others. The response must have been read to its end.
    pub(super) fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.put(self.key.clone(), connection);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.retire();
        }
    }
}

impl State {
    /// From the end, where the last used are; what is found broken or old on the way goes.
    fn take(&mut self, key: &Key, now_ms: u64) -> Option<Connection> {
        let idle = self.hosts.get_mut(key)?;
        let mut taken = None;
        while let Some(mut entry) = idle.pop() {
            self.count -= 1;
            if !entry.is_fresh(now_ms) {
                continue;
            }
            taken = Some(match entry.connection.share() {
                Some(shared) => {
                    entry.used_ms = now_ms;
                    idle.push(entry);
                    self.count += 1;
                    shared
                }
                None => entry.connection,
            });
            break;
        }
        if idle.is_empty() {
            self.hosts.remove(key);
        }
        taken
    }

    fn put(&mut self, key: Key, entry: Idle) {
        if !entry.connection.is_usable() {
            return;
        }
        if matches!(entry.connection.sender, Sender::H2(_)) {
            // One shared connection per host is enough; a second one that a burst of attempts opened closes after its use.
            let mut idle = self.hosts.get_mut(&key).into_iter().flatten();
            if let Some(known) = idle.find(|have| have.connection.share().is_some() && have.connection.is_usable()) {
                if known.connection.is_same(&entry.connection) {
                    known.used_ms = entry.used_ms;
                }
                return;
            }
        }
        if self.count >= self.count_max {
            self.make_room();
        }
        self.hosts.entry(key).or_default().push(entry);
        self.count += 1;
    }

    /// Closes the longest unused connection of the host that has the most, so that a busy host does not keep others from
    /// having any.
    fn make_room(&mut self) {
        if let Some(most) = self.hosts.values_mut().max_by_key(|idle| idle.len()) {
            most.remove(0);
            self.count -= 1;
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        self.hosts.retain(|_, idle| {
            idle.retain(|entry| entry.is_fresh(now_ms));
            !idle.is_empty()
        });
        self.count = self.hosts.values().map(Vec::len).sum();
    }
}

impl Idle {
    fn is_fresh(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.used_ms) < IDLE_MS && self.connection.is_usable()
    }
}

/// Closes what has been idle for too long, and ends with the last connection or with the pool.
async fn sweep_until_empty(state: Weak<Mutex<State>>, clock: Arc<dyn Clock>) {
    loop {
        tokio::time::sleep(Duration::from_millis(IDLE_MS / 3)).await;
        let Some(state) = state.upgrade() else { return };
        let mut state = lock(&state);
        state.sweep(clock.mono_ms());
        if state.count == 0 {
            state.is_swept = false;
            return;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
