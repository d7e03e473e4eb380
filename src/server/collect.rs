//! Finishes what a run of `dropblock gc` began: it condemned garbage, and once the grace time is over, that garbage goes
//! without another run. Gently, one step and a rest.

use super::Tended;
use super::scrub::CancelOnDrop;
use crate::storage::{Brake, StorageError};
use std::time::Duration;

/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(2);

/// Runs for good.
pub async fn run(tended: Tended) {
    loop {
        tokio::time::sleep(LOOK).await;
        let store = tended.store.clone();
        let cancel = CancelOnDrop::default();
        let brake = Brake { cancel: cancel.0.clone(), gentle: true };
        match tokio::task::spawn_blocking(move || store.finish_gc(&brake)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(done))) => {
                let (blocks, freed) = (done.deleted_blocks, done.freed_bytes);
                tracing::info!(blocks, freed, "garbage: what was condemned is gone");
            }
            Ok(Err(StorageError::Closed | StorageError::Stopped | StorageError::Failed(_))) => return,
            Ok(Err(error)) => tracing::warn!(%error, "garbage was not collected"),
            Err(error) => {
                tracing::error!(%error, "garbage: ended");
                return;
            }
        }
    }
}
