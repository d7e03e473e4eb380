//! Tells every other client of a share about a commit, at once. One task reads storage's commit events in order,
//! encodes each once and puts the same bytes into the backlog of every session; it waits for none of them.

use super::Server;
use crate::block::{VerifiedBlock, pack};
use crate::model::{SessionId, limits};
use crate::storage::{CommitEvent, ShareId};
use crate::wire::backlog::Backlog;
use crate::wire::{EncodedFrame, Head, Message, WireError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// Inline blocks of one push, bytes. Above it, clients ask for what they lack.
const PUSH_BLOCK_BYTES_MAX: usize = 2 * limits::INLINE_BYTES_MAX;

/// Sessions that are told in one go, before others may run: with ten thousand of them, a commit of one does not wait until
/// all have heard of the one before.
const TOLD_AT_ONCE: usize = 32;

/// Pushes that wait for one session.
pub type Pushes = Arc<Backlog<EncodedFrame>>;

/// The sessions of every share.
#[derive(Debug, Default)]
pub struct Registry(Mutex<BTreeMap<(ShareId, SessionId), Entry>>);

#[derive(Debug, Clone)]
struct Entry {
    pushes: Pushes,
    /// It may be asked for blocks.
    repairs: bool,
    /// It opens deltas.
    deltas: bool,
}

/// Takes a session off the registry when dropped.
pub struct Registered {
    server: Arc<Server>,
    key: (ShareId, SessionId),
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(entry) = self.server.registry.lock().remove(&self.key) {
            entry.pushes.close();
        }
    }
}

impl Registry {
    /// Adds a session. From here on it gets every push; what was committed before, it polls.
    pub fn add(
        server: &Arc<Server>,
        share: ShareId,
        session: SessionId,
        pushes: Pushes,
        repairs: bool,
        deltas: bool,
    ) -> Registered {
        let key = (share, session);
        server.registry.lock().insert(key, Entry { pushes, repairs, deltas });
        Registered { server: server.clone(), key }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(ShareId, SessionId), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backlogs of a share's sessions, except the committer's.
    fn others(&self, share: ShareId, sender: SessionId) -> Vec<Entry> {
        let first = (share, SessionId::from_bytes([0; 16]));
        let of_share = |(key, _): &(&(ShareId, SessionId), &Entry)| key.0 == share;
        let sessions = self.lock();
        let others = sessions.range(first..).take_while(of_share).filter(|(key, _)| key.1 != sender);
        others.map(|(_, entry)| entry.clone()).collect()
    }

    fn all(&self) -> Vec<Pushes> {
        self.lock().values().map(|entry| entry.pushes.clone()).collect()
    }

    /// The backlogs of the sessions that may be asked for blocks, by share.
    pub fn repairers(&self) -> BTreeMap<ShareId, Vec<Pushes>> {
        let mut found: BTreeMap<ShareId, Vec<Pushes>> = BTreeMap::new();
        for ((share, _), entry) in self.lock().iter().filter(|(_, entry)| entry.repairs) {
            found.entry(*share).or_default().push(entry.pushes.clone());
        }
        found
    }
}

/// Runs until storage closes its events.
pub async fn run(server: Arc<Server>, mut events: Receiver<Arc<CommitEvent>>) {
    loop {
        match events.recv().await {
            Ok(event) => push(&server, &event).await,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "broadcast fell behind the journal");
                server.registry.all().iter().for_each(|pushes| pushes.mark_behind());
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn push(server: &Server, event: &CommitEvent) {
    let others = server.registry.others(event.share, event.session);
    if others.is_empty() {
        return;
    }
    // Each form is encoded once, if anybody reads it.
    for deltas in [true, false] {
        let readers: Vec<&Entry> = others.iter().filter(|entry| entry.deltas == deltas).collect();
        if readers.is_empty() {
            continue;
        }
        match encode(server, event, deltas) {
            Ok(frame) => {
                for some in readers.chunks(TOLD_AT_ONCE) {
                    for entry in some {
                        if !entry.pushes.offer(frame.clone(), frame.wire_bytes()) {
                            tracing::debug!(seq = %event.head.seq, "a client lags, it will poll");
                        }
                    }
                    if readers.len() > TOLD_AT_ONCE {
                        tokio::task::yield_now().await;
                    }
                }
            }
            Err(error) => {
                // Too many long names for one frame: rare, and a poll brings them in pages.
                tracing::debug!(seq = %event.head.seq, error = %error, "commit is too large to push");
                readers.iter().for_each(|entry| entry.pushes.mark_behind());
            }
        }
    }
}

/// The push of a commit. With `deltas` its blocks go on as they came; who has no base for one asks for it.
fn encode(server: &Server, event: &CommitEvent, deltas: bool) -> Result<EncodedFrame, WireError> {
    let message = Message::Changed { prev: event.prev, head: head(&event.head), nodes: event.nodes.clone() };
    let encode = if deltas { EncodedFrame::shrunk } else { EncodedFrame::new };
    let as_it_came = |block: &VerifiedBlock| {
        let delta = if deltas { server.deltas.get(event.share, block.hash()) } else { None };
        delta.unwrap_or_else(|| block.sealed().clone())
    };
    let blocks: Vec<_> = event.inline.iter().map(as_it_came).collect();
    let block_bytes: usize = blocks.iter().map(|b| b.payload.len()).sum();
    if block_bytes <= PUSH_BLOCK_BYTES_MAX
        && let Ok(frame) = encode(0, &message, pack::encode(&blocks))
    {
        return Ok(frame);
    }
    encode(0, &message, Vec::new())
}

/// Storage's head as the wire says it.
pub fn head(head: &crate::storage::Head) -> Head {
    Head { journal: head.journal, seq: head.seq, chain: head.chain }
}
