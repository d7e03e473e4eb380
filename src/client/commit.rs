//! Committing: what the disk has as planned and the server has not.

use super::ClientError;
use super::cycle::Plan;
use super::session::Session;
use super::upload::{self, Outgoing};
use crate::folder::{Sent, Update};
use crate::model::{Change, Kind, NodeId, Refusal, limits};
use crate::wire::{Committed, WireError};
use std::collections::BTreeSet;

/// A commit ends at about this many bytes, so that with its inline blocks it fits a frame.
const COMMIT_BYTES: usize = 1024 * 1024;

impl Session<'_> {
    /// Commits in batches. Refused changes stay differences: what they met is asked for, and the next plan knows.
    pub(super) async fn commit(&mut self, plan: &Plan) -> Result<(), ClientError> {
        let changes = self.client.cycle.changes(&self.client.state.base, plan);
        let mut inline = std::mem::take(&mut self.inline_out);
        if self.connection.welcome().is_read_only() {
            self.keep_to_itself(&changes);
            return Ok(());
        }
        for batch in batches(changes) {
            let blocks = std::mem::take(&mut inline);
            self.sync_gone(&batch)?;
            self.announce_commit(&batch)?;
            let has_blocks = !blocks.is_empty();
            let mut done = self.send_commit(&batch, blocks).await;
            if has_blocks && let Some(why) = done.as_ref().err().and_then(ClientError::no_room) {
                // Without them whatever needs no room stands, and the rest is refused one by one.
                self.no_room.meet(Some(why));
                done = self.send_commit(&batch, Vec::new()).await;
            }
            let done = match done {
                Err(error) => return self.keep_for_later(&batch, error),
                Ok(done) => done,
            };
            for change in &batch {
                tracing::trace!(?change, seq = ?done.head.seq, "sent");
            }
            let agreed =
                self.client.cycle.committed(&self.client.state.base, &batch, &done.refused, done.head.seq);
            self.client.hear_of(&done.head);
            self.client.save(agreed, false)?;
            let refused = done.refused.iter();
            let refused = refused.filter_map(|(index, _)| Some(batch.get(usize::try_from(*index).ok()?)?.id));
            self.take_back(&batch, refused.collect())?;
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

    /// Sends one commit with its blocks. Those that do not open with their bases are put without them before it goes again,
    /// each once: so it ends.
    async fn send_commit(
        &mut self,
        batch: &[Change],
        mut blocks: Vec<Outgoing>,
    ) -> Result<Committed, ClientError> {
        loop {
            let (failed, others) =
                match self.connection.commit(batch.to_vec(), &upload::sealed(&blocks)).await {
                    Err(WireError::Unopened { which }) => upload::unopened(blocks, which),
                    done => return Ok(done?),
                };
            let work = self.client.folder.work();
            self.no_room.meet(upload::put_alone(&self.connection, work, failed, true).await?.full);
            blocks = others;
        }
    }

    /// This device may look and not change: what was changed here stays as it is, and is named.
    fn keep_to_itself(&mut self, changes: &[Change]) {
        let disk = self.client.cycle.disk(&self.client.state.base);
        let base = &self.client.state.base;
        let path = |change: &Change| disk.path_of(change.id).or_else(|| base.path_of(change.id));
        let paths: Vec<String> = changes.iter().filter_map(path).map(|path| path.to_string()).collect();
        for path in paths {
            let line = format!("{path}: changed here and not sent, as this device may look and not change");
            self.client.problem(path, line);
        }
    }

    /// Not even changes without content have room on the server: they stay differences, and are tried again now and then.
    fn keep_for_later(&mut self, batch: &[Change], error: ClientError) -> Result<(), ClientError> {
        let Some(why) = error.no_room() else { return Err(error) };
        self.take_back(batch, batch.iter().map(|change| change.id).collect())?;
        let disk = self.client.cycle.disk(&self.client.state.base);
        let base = &self.client.state.base;
        let paths =
            batch.iter().filter_map(|change| disk.path_of(change.id).or_else(|| base.path_of(change.id)));
        self.no_room.changes = paths.min().map(|first| (first, batch.len()));
        if !self.once {
            let line = format!("{why}: changes wait here until there is room");
            self.client.problem(line.clone(), line);
        }
        self.no_room.why = why;
        Ok(())
    }

    /// Writes down what is about to be sent, so that it is recognised when the answer never comes. One append, not
    /// synced: it outlives this program, and after a power cut an older version is kept as a copy, as ever.
    fn announce_commit(&mut self, batch: &[Change]) -> Result<(), ClientError> {
        let sent = batch.iter().map(|change| Update::Sent {
            id: change.id,
            sent: Sent { state: change.state.clone(), stamp: self.client.stamp(change.id) },
        });
        let sent = sent.collect();
        Ok(self.client.state.save(sent, false)?)
    }

    /// Makes what is gone durable before the server deletes it (see `durable`).
    fn sync_gone(&mut self, batch: &[Change]) -> Result<(), ClientError> {
        let gone = batch.iter().filter(|change| change.state.is_none());
        let gone: Vec<_> = gone.map(|change| (change.id, None)).collect();
        Ok(self.client.sync_users(&gone)?)
    }

    /// What was refused is not there, and what was agreed without a trace needs none.
    fn take_back(&mut self, batch: &[Change], refused: BTreeSet<NodeId>) -> Result<(), ClientError> {
        let mut unsent = refused;
        let sent = self.client.state.sent();
        let untraced = batch.iter().filter(|change| change.state.is_none() && sent.contains_key(&change.id));
        unsent.extend(untraced.map(|change| change.id));
        if unsent.is_empty() {
            return Ok(());
        }
        Ok(self.client.state.save(unsent.into_iter().map(Update::Unsent).collect(), false)?)
    }

    /// Leaves a file alone until the server has room for it.
    fn put_off(&mut self, id: NodeId) {
        let path = self.client.cycle.disk(&self.client.state.base).path_of(id);
        if let (Some(stamp), Some(path)) = (self.client.stamp(id), path) {
            let why = self.no_room.why.clone();
            self.waits_for_room(stamp, path, why);
        }
        self.client.cycle.put_off(id);
        // A move of the node by another device must not record these bytes as agreed.
        self.client.looks.remove(&id);
        self.client.held.insert(id);
    }

    fn refused(&mut self, change: &Change, refusal: Refusal) {
        tracing::debug!(node = ?change.id, %refusal, "change refused");
        if refusal == Refusal::MissingBlocks && self.no_room.met {
            return self.put_off(change.id);
        }
        self.again = true;
        self.must_poll = true;
        match refusal {
            Refusal::MissingBlocks => {
                // A file that is new here is sent whole from the start, like one that was refused before.
                let again = !self.client.reupload.insert(change.id);
                if again || self.client.state.base.get(change.id).is_none() {
                    self.garbled = self.client.cycle.disk(&self.client.state.base).path_of(change.id);
                }
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
