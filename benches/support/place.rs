//! A store on the disk, and many who bring it events at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use postrider::core::event::NewEvent;
use postrider::core::id::EventId;
use postrider::core::limits::StoreLimits;
use postrider::store::embedded::{EmbeddedStore, Opening};
use postrider::store::{Accepted, Store};

use crate::support::{Error, disk_dir, wait};

/// An event that was accepted, and when.
pub type Taken = (EventId, u64);

/// A directory that goes with its handle.
pub fn scratch() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("bench-").tempdir_in(disk_dir())
}

/// A sled that is set up as the key space is, in a directory that goes with its handle.
pub fn beside() -> Result<(sled::Db, TempDir), Error> {
    let home = scratch()?;
    let config = sled::Config::new().path(home.path()).segment_size(8 << 20).flush_every_ms(None);
    let config = config.cache_capacity(StoreLimits::default().cache_bytes).mode(sled::Mode::HighThroughput);
    Ok((config.open()?, home))
}

/// An empty store, in a directory that goes with its handle.
pub fn store() -> Result<(Arc<EmbeddedStore>, TempDir), Error> {
    let (home, progress) = (scratch()?, &mut |_, _| {});
    let opening = Opening::of_machine(home.path().to_owned(), StoreLimits::default(), progress);
    Ok((Arc::new(EmbeddedStore::open(opening)?), home))
}

/// So many callers bring numbered events, each when the one before is durable, until there are none.
pub fn accept(
    store: &Arc<EmbeddedStore>,
    callers: usize,
    next: impl Fn(u64) -> Option<NewEvent> + Clone + Send + 'static,
) -> Result<Vec<Taken>, Error> {
    let (mut tasks, count) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    for _ in 0..callers {
        let (store, count, next) = (Arc::clone(store), Arc::clone(&count), next.clone());
        let task = async move {
            let mut taken = Vec::new();
            while let Some(event) = next(count.fetch_add(1, Ordering::Relaxed)) {
                match store.accept(event).await? {
                    Accepted::New { event } => taken.push((event.meta.id, event.meta.accepted_ms)),
                    Accepted::Duplicate { id, .. } => return Err(format!("expected new events, got {id}").into()),
                }
            }
            Ok::<_, Error>(taken)
        };
        tasks.spawn_on(task, &Handle::current());
    }
    Ok(wait(tasks.join_all()).into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}
