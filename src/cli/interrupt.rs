//! Being told to stop, by commands that have something to clean up or to say before they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody has asked this process to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on; none of them ends the process by itself any more.
    pub(super) fn listen(runtime: &Runtime) -> Self {
        let interrupt = Self::default();
        let _within = runtime.enter();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            // Where a signal can't be listened for it ends the process as ever.
            if let Ok(mut signal) = signal(kind) {
                let flag = Arc::clone(&interrupt.0);
                runtime.spawn(async move {
                    if signal.recv().await.is_some() {
                        flag.store(true, Ordering::SeqCst);
                    }
                });
            }
        }
        interrupt
    }

    /// It was asked.
    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
