//! An endpoint that is down until it is told otherwise. A test that takes it has `support` beside it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::support::PATIENCE;
use super::support::receiver::{Reply, serve};

/// The endpoint, and the ids of what arrived.
pub struct Switched {
    pub address: SocketAddr,
    up: Arc<AtomicBool>,
    arrived: Receiver<String>,
}

impl Switched {
    pub fn down() -> Self {
        let (sender, arrived) = channel();
        let (sender, up) = (Mutex::new(sender), Arc::new(AtomicBool::new(false)));
        let is_up = Arc::clone(&up);
        let address = serve(move |request| {
            if !is_up.load(Ordering::SeqCst) {
                return Reply::Status(503);
            }
            let sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            // The test may have ended.
            let _ = sender.send(request.header("webhook-id").to_owned());
            Reply::Status(200)
        });
        Self { address, up, arrived }
    }

    /// Comes up and waits until all of these have arrived.
    pub fn take(&self, ids: impl IntoIterator<Item = String>) {
        self.up.store(true, Ordering::SeqCst);
        let mut missing: HashSet<String> = ids.into_iter().collect();
        while !missing.is_empty() {
            let id = self.arrived.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{e}: {missing:?}"));
            missing.remove(&id);
        }
    }
}
