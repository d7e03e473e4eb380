//! The scrub of a served store: at first a quick look whether everything is there, then everything is read again bit by
//! bit, once in the time that was asked for. Says in the log what it finds; `repair` asks for it.

use super::Tended;
use crate::storage::{Brake, CheckOptions, StorageError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two steps.
const STEP: Duration = Duration::from_secs(2);
/// Read in a step at least, bytes: one small read costs as much.
const STEP_BYTES_MIN: u64 = 64 * 1024;
/// And at most: others use the disk.
const STEP_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// After an error the scrub rests.
const REST: Duration = Duration::from_secs(60);

/// Sets its flag when it is dropped: the work on another thread ends with the task that asked for it.
#[derive(Debug, Default)]
pub struct CancelOnDrop(pub Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs for good.
pub async fn run(tended: Tended) {
    look(&tended).await;
    if tended.scrub_ms == 0 {
        return;
    }
    let mut begun = Instant::now();
    let (mut bytes, mut damaged) = (0u64, 0usize);
    loop {
        tokio::time::sleep(STEP).await;
        let (store, scrub_ms) = (tended.store.clone(), tended.scrub_ms);
        let stepped = tokio::task::spawn_blocking(move || {
            let step_ms = u64::try_from(STEP.as_millis()).unwrap_or(1);
            let budget = u128::from(store.packs_bytes()) * u128::from(step_ms) / u128::from(scrub_ms);
            let budget = u64::try_from(budget).unwrap_or(u64::MAX);
            store.scrub(budget.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX))
        })
        .await;
        match stepped {
            Ok(Ok(step)) => {
                bytes += step.bytes;
                damaged += step.damaged.len();
                for hash in &step.damaged {
                    tracing::error!(%hash, "scrub: a block is damaged; clients are asked for it");
                }
                // A small store is through in one step: then it waits for the rest of its time.
                if step.pass_done {
                    tracing::info!(bytes, damaged, "scrub: a pass ended");
                    (bytes, damaged) = (0, 0);
                    tokio::time::sleep(Duration::from_millis(scrub_ms).saturating_sub(begun.elapsed())).await;
                    begun = Instant::now();
                }
            }
            Ok(Err(StorageError::Closed | StorageError::Stopped | StorageError::Failed(_))) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "scrub: cannot read");
                tokio::time::sleep(REST).await;
            }
            Err(error) => {
                tracing::error!(%error, "scrub: ended");
                return;
            }
        }
    }
}

/// Finds what is missing since the server ran last.
async fn look(tended: &Tended) {
    let store = tended.store.clone();
    let cancel = CancelOnDrop::default();
    let brake = Brake { cancel: cancel.0.clone(), gentle: true };
    let options = CheckOptions { quick: true, repair: false, gentle: true };
    match tokio::task::spawn_blocking(move || store.check(&options, &brake)).await {
        Ok(Ok(report)) if report.is_clean() => {
            tracing::info!(blocks = report.blocks, "everything is there");
        }
        Ok(Ok(report)) => {
            for finding in report.findings.iter().take(20) {
                tracing::error!("{finding}");
            }
            let findings = report.findings.len() as u64 + report.more;
            tracing::error!(
                findings,
                "the store is damaged: clients are asked for what is missing; see dropblock check"
            );
        }
        Ok(Err(StorageError::Closed | StorageError::Stopped)) | Err(_) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the store could not be looked at"),
    }
}
