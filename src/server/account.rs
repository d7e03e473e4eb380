//! What a device with a quota stores is counted before it may store more. Charged is what its share did not reach before,
//! whether the store held it for another share or not: a bill must not tell what others have.

use super::desk::Desk;
use super::gate::{Access, Gate};
use super::session::Session;
use super::{Fault, Server};
use crate::auth::PublicKey;
use crate::block::VerifiedBlock;
use crate::model::{Change, Refusal, codec};
use crate::storage::ShareId;
use crate::wire::ErrorCode;
use std::collections::HashSet;
use std::sync::Arc;

/// Changes that bring no blocks (moves, deletions, folders) go on when a quota is used up, because they may be what gives
/// room back. They take room too, so not more than this, bytes.
pub const CHANGES_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What a change takes on the disk besides its own bytes, about: its part of a record, its row in the index, and one in the
/// history.
const CHANGE_COST_BYTES: u64 = 256;

/// See the module.
#[derive(Clone)]
pub struct Account {
    server: Arc<Server>,
    gate: Arc<Gate>,
    desk: Arc<Desk>,
    key: PublicKey,
    share: ShareId,
}

impl Account {
    /// That of the device of a session; `None` when it may store what fits.
    pub fn of(session: &Session) -> Option<Self> {
        let Access::Proved(gate) = &session.server.config.access else { return None };
        let key = session.guest.key.filter(|_| session.guest.invited)?;
        gate.devices.quota(&key)?;
        let (server, gate, desk) = (session.server.clone(), gate.clone(), session.seat.desk.clone());
        Some(Self { server, gate, desk, key, share: session.share })
    }

    /// Stores blocks, if the device may bring so much.
    ///
    /// # Cancel safety
    /// What was begun is finished, and counted: a device that hangs up pays too.
    pub async fn store(&self, blocks: Vec<VerifiedBlock>) -> Result<(), Fault> {
        let account = self.clone();
        let storing = tokio::spawn(async move {
            // One after the other: each is told what is left by then.
            let _turn = account.desk.bringing.lock().await;
            let left = account.gate.devices.quota(&account.key).map_or(u64::MAX, |quota| quota.left());
            let server = &account.server;
            let stored = server.blocks.put_within(Some(account.share), blocks, left).await;
            let report = stored.map_err(|error| server.storage_fault(error))?;
            account.charge(report.brought).await;
            Ok(())
        });
        let lost = |_| Fault::Request(ErrorCode::Internal, "the blocks could not be stored");
        storing.await.map_err(lost)?
    }

    /// True to the letter only for one session at a time: others may commit in the same instant.
    ///
    /// # Errors
    /// When the journal would become longer by more than this device may make it.
    pub fn may_change(&self, changes: &[Change]) -> Result<(), Fault> {
        let bytes = changes.iter().map(cost).fold(0, u64::saturating_add);
        let quota = self.gate.devices.quota(&self.key);
        let bytes_max = |bytes_max: u64| bytes_max.saturating_add(CHANGES_BYTES_MAX);
        if quota.is_some_and(|quota| quota.bytes_used.saturating_add(bytes) > bytes_max(quota.bytes_max)) {
            return Err(Fault::OVER_QUOTA);
        }
        Ok(())
    }

    /// Counts changes that stand; what was refused took nothing.
    pub async fn changed(&self, changes: &[Change], refused: &[(u32, Refusal)]) {
        let refused: HashSet<u32> = refused.iter().map(|(place, _)| *place).collect();
        let standing = (0u32..).zip(changes).filter(|(place, _)| !refused.contains(place));
        self.charge(standing.map(|(_, change)| cost(change)).fold(0, u64::saturating_add)).await;
    }

    async fn charge(&self, bytes: u64) {
        if !self.gate.devices.brought(&self.key, bytes) {
            return;
        }
        let gate = self.gate.clone();
        let written = self.server.config.work.beside(move || gate.remember()).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "what devices have brought was not written down");
        }
    }
}

/// What a change takes on the disk, about, bytes.
fn cost(change: &Change) -> u64 {
    codec::encode(change).map_or(u64::MAX, |bytes| bytes.len() as u64 + CHANGE_COST_BYTES)
}
