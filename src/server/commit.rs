//! A commit: blocks verified, handed to storage with the changes, answered when storage says durable. Which changes
//! stand is decided by storage alone (it runs `tree::judge` under its own order).

use super::account::Account;
use super::order::Before;
use super::requests::{Verified, verify};
use super::session::Session;
use super::{Fault, broadcast};
use crate::block::pack;
use crate::model::Change;
use crate::storage::{CommitRequest, Committed};
use crate::wire::{Message, WireError, reply};
use bytes::Bytes;

/// Commits and gives the answer.
pub async fn commit(
    session: &Session,
    before: Before,
    changes: Vec<Change>,
    payload: Bytes,
) -> Result<Message, Fault> {
    let server = &session.server;
    let sealed = pack::decode(payload).map_err(WireError::from)?;
    let Verified { blocks: inline, unopened, held: _held } = verify(session, sealed).await?;
    if let Some(bitmap) = unopened {
        return Ok(Message::Unopened { bitmap });
    }
    before.done().await;
    if let Some(account) = Account::of(session) {
        if !inline.is_empty() {
            account.store(inline.clone()).await?;
        }
        account.may_change(&changes)?;
    }
    let _turn = match changes.iter().any(names_list) {
        true => Some(session.seat.desk.searching.acquire().await.map_err(|_| WireError::Ended)?),
        false => None,
    };
    let request = CommitRequest {
        share: session.share,
        device: session.device.clone(),
        session: session.id,
        changes: changes.clone(),
        inline,
    };
    let committed = server.journal.commit(request).await.map_err(|error| server.storage_fault(error))?;
    server.config.counters.commits.add(1);
    if let Some(account) = Account::of(session) {
        account.changed(&changes, &committed.refused).await;
    }
    Ok(answer(&changes, committed))
}

/// True for a change whose blocks have to be looked for along a chunk list.
fn names_list(change: &Change) -> bool {
    change.state.as_ref().and_then(|state| state.kind.content()).is_some_and(|content| content.root.level > 0)
}

/// The nodes cross the wire only when storage made something else of the changes than what was sent.
fn answer(changes: &[Change], committed: Committed) -> Message {
    let Committed { prev, head, mut nodes, mut refused } = committed;
    refused.sort_unstable_by_key(|(place, _)| *place);
    let mut as_sent = reply::nodes_as_sent(changes, &refused, head.seq);
    as_sent.sort_by_key(|node| node.id);
    nodes.sort_by_key(|node| node.id);
    let differs = as_sent != nodes;
    Message::Committed { prev, head: broadcast::head(&head), refused, nodes: differs.then_some(nodes) }
}
