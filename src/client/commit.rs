//! Committing: what the disk has as planned and the server has not.

use super::ClientError;
use super::cycle::Plan;
use super::session::Session;
use crate::model::{Change, Kind, Refusal, limits};

/// A commit ends at about this many bytes, so that with its inline blocks it fits a frame.
const COMMIT_BYTES: usize = 1024 * 1024;

impl Session<'_> {
    /// Commits in batches. Refused changes stay differences: what they met is asked for, and the next plan knows.
    pub(super) async fn commit(&mut self, plan: &Plan) -> Result<(), ClientError> {
        let changes = self.client.cycle.changes(&self.client.state.base, plan);
        let mut inline = std::mem::take(&mut self.inline_out);
        for batch in batches(changes) {
            let blocks = std::mem::take(&mut inline);
            let done = self.connection.commit(batch.clone(), &blocks).await?;
            for change in &batch {
                tracing::trace!(?change, seq = ?done.head.seq, "sent");
            }
            let agreed =
                self.client.cycle.committed(&self.client.state.base, &batch, &done.refused, done.head.seq);
            self.client.save(agreed, false)?;
            for (index, refusal) in &done.refused {
                let change = usize::try_from(*index).ok().and_then(|index| batch.get(index));
                if let Some(change) = change {
                    self.refused(change, *refusal);
                }
            }
            self.moved_head(done.prev, done.head);
        }
        Ok(())
    }

    fn refused(&mut self, change: &Change, refusal: Refusal) {
        tracing::debug!(node = ?change.id, %refusal, "change refused");
        self.again = true;
        self.must_poll = true;
        match refusal {
            Refusal::MissingBlocks => {
                self.client.reupload.insert(change.id);
            }
            Refusal::Invalid => {
                let disk = self.client.cycle.disk(&self.client.state.base);
                let path = disk.path_of(change.id).map(|path| path.to_string()).unwrap_or_default();
                self.client.problem(path.clone(), format!("{path}: the server refuses it: {refusal}"));
            }
            _ => {}
        }
    }
}

/// Changes in commits that fit a frame.
pub(super) fn batches(changes: Vec<Change>) -> Vec<Vec<Change>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for change in changes {
        bytes += encoded_bytes(&change);
        batch.push(change);
        if batch.len() >= limits::CHANGES_PER_COMMIT_MAX || bytes >= COMMIT_BYTES {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// About what a change takes in a frame.
fn encoded_bytes(change: &Change) -> usize {
    let state = change.state.as_ref().map_or(0, |state| {
        let target = match &state.kind {
            Kind::Symlink { target, .. } => target.len(),
            _ => 0,
        };
        state.name.as_bytes().len() + target + 80
    });
    32 + state
}
