//! Repair: asks connected clients for blocks that the store lacks. Whoever holds one puts it like any other block, and the
//! store takes it in place of the damaged one; nothing is believed that does not hash to what was asked for.

use super::Server;
use super::broadcast::Pushes;
use crate::model::{BlockHash, limits};
use crate::storage::{ShareId, Store};
use crate::wire::{EncodedFrame, Message};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often the list of what is wanted is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What nobody had is asked for again after this many looks: a client may have got it since.
const AGAIN_LOOKS: u32 = 60;
/// Blocks asked for at one time; others follow when these have come.
const ASKED_MAX: usize = 4 * limits::HASHES_PER_REQUEST_MAX;

/// Asks whenever something new is wanted. Runs for good.
pub async fn run(server: Arc<Server>, store: Arc<Store>) {
    let mut asked: BTreeSet<BlockHash> = BTreeSet::new();
    let mut looks = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let (kept, list) = (store.clone(), store.wanted().len());
        if list > 0 || !asked.is_empty() {
            let written = tokio::task::spawn_blocking(move || kept.remember_wanted()).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "what is wanted was not written down");
            }
        }
        let wanted: BTreeSet<BlockHash> = store.wanted().into_iter().take(ASKED_MAX).collect();
        let came = asked.difference(&wanted).count();
        if came > 0 {
            tracing::warn!(repaired = came, still_wanted = wanted.len(), "blocks came back from clients");
        }
        looks += 1;
        let new = wanted.difference(&asked).count() > 0;
        if !wanted.is_empty() && (new || looks >= AGAIN_LOOKS) {
            looks = 0;
            for (share, sessions) in server.registry.repairers() {
                ask(&server, share, &sessions).await;
            }
        }
        asked = wanted;
    }
}

/// Asks these sessions of a share for what is wanted now, as far as their share reaches it.
pub async fn ask(server: &Server, share: ShareId, sessions: &[Pushes]) {
    let Some(tended) = server.config.tended.as_ref().filter(|tended| !tended.store.wanted().is_empty())
    else {
        return;
    };
    let wanted = match tended.store.wanted_in(share).await {
        Ok(wanted) => wanted,
        Err(error) => return tracing::warn!(%error, "cannot look who may have what is wanted"),
    };
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
