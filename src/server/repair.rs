//! Repair: asks connected clients for blocks that the store lacks. Whoever holds one puts it like any other block, and the
//! store takes it in place of the damaged one; nothing is believed that does not hash to what was asked for.
//!
//! What comes back is looked below, so that the chunks of a list are asked for as soon as the list is here. When nothing is
//! asked for any more, or nobody has the rest, the store looks at everything and puts its packs in order.

use super::Server;
use super::broadcast::Pushes;
use super::scrub::CancelOnDrop;
use crate::model::{BlockHash, limits};
use crate::storage::{Brake, Mended, ShareId, StorageError, Store};
use crate::wire::{EncodedFrame, Message};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the list of what is wanted is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// After a change of the list, others are waited for this long; longer when the list is long, as it is looked through then.
const GATHER: Duration = Duration::from_millis(100);
/// So many blocks on the list for each ms more.
const GATHER_BLOCKS_PER_MS: usize = 256;
/// What nobody had is asked for again after this time: a client may have got it since.
const AGAIN: Duration = Duration::from_secs(60);
/// Blocks asked for at one time; others follow when these have come, or at the next time.
const ASKED_MAX: usize = 4 * limits::HASHES_PER_REQUEST_MAX;
/// Nothing has come for this long: nobody who is here has the rest.
const QUIET: Duration = Duration::from_secs(10);
/// A look at everything takes at most one part in so many of the time.
const MEND_SHARE: u32 = 4;
/// The same, when all that speaks for it is that a client asked for something that is not here.
const DOUBT_SHARE: u32 = 40;
/// And it waits at least this long for that.
const DOUBT: Duration = Duration::from_secs(30);

/// What is known between two looks.
struct Repair {
    server: Arc<Server>,
    store: Arc<Store>,
    /// Asked for, and not yet here.
    asked: BTreeSet<BlockHash>,
    asked_at: Instant,
    /// How often everything was asked for.
    turn: usize,
    /// When the list was written down.
    written: Instant,
    /// When the list changed.
    changed: Instant,
    /// When everything was looked at, and for how long.
    mended: Option<(Instant, Duration)>,
    /// Something was missing, and nobody was told that it is there again.
    lacked: bool,
    /// A client asked for what is not here.
    doubted: bool,
}

/// Asks whenever something new is wanted. Runs for good.
pub async fn run(server: Arc<Server>, store: Arc<Store>) {
    let now = Instant::now();
    let mut repair = Repair {
        server,
        store,
        asked: BTreeSet::new(),
        asked_at: now,
        turn: 0,
        written: now,
        changed: now,
        mended: None,
        lacked: false,
        doubted: false,
    };
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            // Blocks that are brought one after the other are one change.
            () = repair.store.news() => tokio::time::sleep(repair.gather()).await,
        }
        repair.look_at_files().await;
        if let Err(error) = repair.store.follow().await {
            match error {
                StorageError::Closed | StorageError::Stopped | StorageError::Failed(_) => return,
                error => tracing::warn!(%error, "cannot look below what came back"),
            }
        }
        repair.ask().await;
        if repair.is_time_to_mend() {
            repair.mend().await;
        }
    }
}

impl Repair {
    fn gather(&self) -> Duration {
        let more = u64::try_from(self.asked.len() / GATHER_BLOCKS_PER_MS).unwrap_or(0);
        GATHER.saturating_add(Duration::from_millis(more))
    }

    /// A pack or a journal may be removed while nobody uses it.
    async fn look_at_files(&self) {
        let store = self.store.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.look_at_files()).await {
            // Ends the server when it is fatal.
            self.server.storage_fault(error);
        }
    }

    /// Asks for what is new on the list; for all of it now and then.
    async fn ask(&mut self) {
        let all = self.store.wanted();
        // Nothing happens when it is as it was.
        if self.written.elapsed() >= self.gather().saturating_mul(10) {
            self.written = Instant::now();
            let store = self.store.clone();
            let written = tokio::task::spawn_blocking(move || store.remember_wanted()).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "what is wanted was not written down");
            }
        }
        let wanted: BTreeSet<BlockHash> = all.into_iter().collect();
        let came = self.asked.difference(&wanted).count();
        if came > 0 {
            tracing::info!(repaired = came, still_wanted = wanted.len(), "blocks came back from clients");
        }
        let new: BTreeSet<BlockHash> = wanted.difference(&self.asked).copied().collect();
        if came > 0 || !new.is_empty() {
            self.changed = Instant::now();
        }
        self.lacked |= !wanted.is_empty();
        let again = !wanted.is_empty() && self.asked_at.elapsed() >= AGAIN;
        if again {
            self.asked_at = Instant::now();
            self.turn = self.turn.wrapping_add(1);
        }
        if again || !new.is_empty() {
            for (share, sessions) in self.server.registry.repairers() {
                let only = if again { None } else { Some(&new) };
                ask_some(&self.server, share, &sessions, only, self.turn).await;
            }
        }
        self.asked = wanted;
    }

    fn is_time_to_mend(&mut self) -> bool {
        self.doubted |= self.store.is_doubted();
        let rested = |share: u32, least: Duration| {
            self.mended.is_none_or(|(at, took)| at.elapsed() >= least.max(took.saturating_mul(share)))
        };
        let settled = self.asked.is_empty() || self.changed.elapsed() >= QUIET;
        (self.store.is_unsettled() && settled && rested(MEND_SHARE, LOOK))
            || (self.doubted && rested(DOUBT_SHARE, DOUBT))
    }

    async fn mend(&mut self) {
        self.doubted = false;
        let (store, cancel) = (self.store.clone(), CancelOnDrop::default());
        let brake = Brake { cancel: cancel.0.clone(), gentle: true };
        let begun = Instant::now();
        let done = tokio::task::spawn_blocking(move || store.mend(&brake)).await;
        self.mended = Some((Instant::now(), begun.elapsed()));
        match done {
            Ok(Ok(Mended { whole: true, lost, rewritten })) => {
                if std::mem::take(&mut self.lacked) || !lost.is_empty() || !rewritten.is_empty() {
                    tracing::warn!(
                        lost_packs = lost.len(),
                        rewritten_packs = rewritten.len(),
                        "everything is there again"
                    );
                }
            }
            Ok(Ok(_) | Err(StorageError::Closed | StorageError::Stopped | StorageError::Failed(_))) => {}
            Ok(Err(error)) => {
                // A disk that is full, for one: not to be tried all the time.
                self.mended = Some((Instant::now(), AGAIN));
                tracing::warn!(%error, "the store could not be put in order");
            }
            Err(error) => tracing::error!(%error, "putting the store in order ended"),
        }
    }
}

/// Asks these sessions of a share for what is wanted now, as far as their share reaches it.
pub async fn ask(server: &Server, share: ShareId, sessions: &[Pushes]) {
    ask_some(server, share, sessions, None, 0).await;
}

/// Asks for these, or for all; not always for the first of them, as nobody may have those.
async fn ask_some(
    server: &Server,
    share: ShareId,
    sessions: &[Pushes],
    only: Option<&BTreeSet<BlockHash>>,
    turn: usize,
) {
    let Some(tended) = server.config.tended.as_ref().filter(|tended| !tended.store.wanted().is_empty())
    else {
        return;
    };
    let mut wanted = match tended.store.wanted_in(share).await {
        Ok(wanted) => wanted,
        Err(error) => return tracing::warn!(%error, "cannot look who may have what is wanted"),
    };
    wanted.retain(|hash| only.is_none_or(|only| only.contains(hash)));
    let from = turn.wrapping_mul(ASKED_MAX).checked_rem(wanted.len()).filter(|_| wanted.len() > ASKED_MAX);
    wanted.rotate_left(from.unwrap_or(0));
    for hashes in
        wanted.chunks(limits::HASHES_PER_REQUEST_MAX).take(ASKED_MAX / limits::HASHES_PER_REQUEST_MAX)
    {
        let message = Message::Wanted { hashes: hashes.to_vec() };
        match EncodedFrame::new(0, &message, Vec::new()) {
            Ok(frame) => sessions.iter().for_each(|pushes| {
                // One that lags is asked again when it connects.
                pushes.offer(frame.clone(), frame.wire_bytes());
            }),
            Err(error) => tracing::error!(%error, "cannot ask for blocks"),
        }
    }
}
