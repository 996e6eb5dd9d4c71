//! A watch: first what has happened, read from the files, then what happens, handed on by the hub; and back to the files when
//! it was too slow. It must not know how anything is written.

use std::sync::Arc;

use futures::stream;
use tokio::sync::mpsc;

use super::Shared;
use super::index::FoundChange;
use crate::{Batch, Error, Event, Result, Revision, WatchStream};

/// How many old changes are read at a time.
const CHUNK: usize = 512;

struct Watch {
    shared: Arc<Shared>,
    prefix: String,
    /// Everything before this has been delivered.
    next: Revision,
    live: Option<mpsc::Receiver<Batch>>,
    over: bool,
}

/// The changes below `prefix` from `from` on.
pub(super) fn stream(shared: Arc<Shared>, prefix: &str, from: Revision) -> Result<WatchStream> {
    // Fails here rather than on the stream's first item.
    shared.index.read().changes(prefix, from, 1)?;
    let watch = Watch { shared, prefix: prefix.to_owned(), next: from, live: None, over: false };
    Ok(Box::pin(stream::unfold(watch, |mut watch| async move {
        if watch.over {
            return None;
        }
        let item = watch.step().await;
        watch.over = item.is_err();
        Some((item, watch))
    })))
}

impl Watch {
    async fn step(&mut self) -> Result<Batch> {
        loop {
            if let Some(live) = &mut self.live {
                match live.recv().await {
                    Some(mut batch) => {
                        batch.events.retain(|e| e.revision() >= self.next);
                        if batch.events.is_empty() {
                            continue;
                        }
                        self.next = batch.revision + 1;
                        return Ok(batch);
                    }
                    None if self.shared.hub.lock().is_closed() => {
                        return Err(Error::Closed("it is shutting down".into()));
                    }
                    None => self.live = None,
                }
            }
            if let Some(batch) = self.catch_up().await? {
                return Ok(batch);
            }
        }
    }

    /// Some of what was missed; subscribes to the hub when that is the last of it.
    async fn catch_up(&mut self) -> Result<Option<Batch>> {
        let (changes, complete) = {
            let mut hub = self.shared.hub.lock();
            let index = self.shared.index.read();
            let (changes, complete) = index.changes(&self.prefix, self.next, CHUNK)?;
            if complete == index.revision {
                self.live = Some(hub.subscribe(&self.prefix, complete));
            }
            (changes, complete)
        };
        let progress = complete >= self.next;
        self.next = self.next.max(complete + 1);
        if changes.is_empty() {
            // The reader must hear how far it has come: `current` goes by that.
            let batch = Batch { events: Vec::new(), revision: complete };
            return Ok(progress.then_some(batch));
        }
        let shared = self.shared.clone();
        let events = super::blocking(move || {
            let read = |(change, file): FoundChange| match file {
                Some(file) => shared.read(&change.key, change.version, &file).map(Event::Put),
                None => Ok(Event::Delete {
                    key: change.key.to_string(),
                    mod_revision: change.version.mod_revision,
                }),
            };
            changes.into_iter().map(read).collect::<Result<Vec<_>>>()
        });
        Ok(Some(Batch { events: events.await?, revision: complete }))
    }
}
