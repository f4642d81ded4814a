//! Being told to stop, by commands that have something to clean up or to say before they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Whether somebody has asked this process to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    once: AtomicBool,
    twice: Notify,
}

impl Interrupt {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on; none of them ends the process by itself any more.
    pub(super) fn listen(runtime: &Runtime) -> Self {
        let interrupt = Self::default();
        let _within = runtime.enter();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            // Where a signal can't be listened for it ends the process as ever.
            if let Ok(mut signal) = signal(kind) {
                let interrupt = interrupt.clone();
                runtime.spawn(async move {
                    while signal.recv().await.is_some() {
                        interrupt.ask();
                    }
                });
            }
        }
        interrupt
    }

    /// Asks.
    pub(super) fn ask(&self) {
        if self.0.once.swap(true, Ordering::SeqCst) {
            self.0.twice.notify_one();
        }
    }

    /// It was asked.
    pub fn came(&self) -> bool {
        self.0.once.load(Ordering::Relaxed)
    }

    /// Waits until it is asked a second time: who does that will not wait for an orderly end. For one waiter.
    pub(super) async fn came_again(&self) {
        self.0.twice.notified().await;
    }
}
