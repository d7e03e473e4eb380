//! Commits on their way to the storage thread: first the blocks of what they name are looked for.

use super::Store;
use crate::storage::content::Search;
use crate::storage::inbox::{Answer, Prepared, Work};
use crate::storage::looked::{Asked, Looked, Who};
use crate::storage::readers::Reader;
use crate::storage::readers::looking::{Inline, lists};
use crate::storage::{CommitRequest, Committed, Result, StorageError};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A search that remembers more than this waits until it is one of few, bytes: a new file of 160 GB, a version that differs in
/// a hundred places.
const REMEMBERED_FREE: usize = 4 << 20;
/// Searches beyond that, at one time.
pub const LONG_SEARCHES_MAX: usize = 4;

impl Store {
    /// `Journal::commit`.
    pub(super) async fn commit_looked(&self, mut request: CommitRequest) -> Result<Committed> {
        let inline = Prepared::all(std::mem::take(&mut request.inline))?;
        let mut asked = Asked { request, inline };
        let mut _hold = None;
        loop {
            let looked = self.look_for(&asked).await?;
            // Not before: searching takes time, and others wait for room.
            let permit = self.room(asked.inline.iter().map(|one| &one.block)).await?;
            let (reply, answer) = oneshot::channel();
            match self.ask(Work::Commit(Box::new(asked), looked, reply, permit), answer).await? {
                Answer::Committed(committed) => return Ok(committed),
                Answer::LookAgain(again) => {
                    asked = *again;
                    // Once more, and not for ever. Whoever held already has done so for long.
                    _hold = None;
                    _hold = Some(self.shared.holds.hold().await);
                }
            }
        }
    }

    /// Looks for the blocks of everything that has a chunk list. Each step queues anew: whoever makes long lists up waits
    /// behind everybody else, and ends with its session or the store.
    async fn look_for(&self, asked: &Asked) -> Result<Looked> {
        // Before anything is looked at.
        let era = self.shared.leases().era();
        let mut looked = Looked::new(era);
        let lists = lists(&asked.request.changes);
        if lists.is_empty() {
            return Ok(looked);
        }
        let who = Who { share: asked.request.share, session: asked.request.session };
        let inline = asked.inline.iter().map(|one| (one.hash(), one.block.sealed().clone()));
        let inline: Inline = Arc::new(inline.collect());
        let (sought, complete) = self.reader()?.run(move |reader| reader.sought(who, era, lists)).await?;
        for content in complete {
            looked.add(content, true, []);
        }
        for (new, old) in sought {
            let mut search = Search::new(old.as_ref(), &new);
            let mut leased = HashSet::new();
            let mut long = None;
            let complete = loop {
                let inline = inline.clone();
                let step = move |reader: &Reader| {
                    let (found, leased) = reader.search(who, &mut search, &inline)?;
                    Ok((search, found, leased))
                };
                let (again, found, more) = self.reader()?.run(step).await?;
                leased.extend(more);
                if let Some(complete) = found {
                    break complete;
                }
                if again.bytes() > REMEMBERED_FREE && long.is_none() {
                    let permit = self.long_searches.acquire().await;
                    long = Some(permit.map_err(|_| StorageError::Closed)?);
                }
                search = again;
            };
            looked.add(new, complete, leased);
        }
        Ok(looked)
    }
}

#[cfg(test)]
#[path = "commits_tests.rs"]
mod tests;
