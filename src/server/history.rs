//! Questions about the past: moments, versions, the share as it was. Answers are pages, which storage
//! makes so small that they fit a frame.

use super::Fault;
use super::session::Session;
use crate::model::past::{Look, Moment};
use crate::model::{Name, NodeId, Seq, limits};
use crate::storage::History;
use crate::wire::{ErrorCode, Message};

fn history(session: &Session) -> Result<&dyn History, Fault> {
    let here = session.server.journal.history();
    here.ok_or(Fault::Request(ErrorCode::Unexpected, "this store tells no past"))
}

/// Where a moment lies.
pub async fn find(session: &Session, at: Moment) -> Result<Message, Fault> {
    let found = history(session)?.moment(session.share, at).await;
    Ok(Message::Found(found.map_err(|error| session.server.storage_fault(error))?))
}

/// What became of a path.
pub async fn versions(
    session: &Session,
    path: Vec<Name>,
    before: Option<(Seq, NodeId)>,
    versions_max: u32,
) -> Result<Message, Fault> {
    let max = usize::try_from(versions_max).unwrap_or(limits::VERSIONS_PER_PAGE_MAX);
    let page = history(session)?.versions(session.share, path, before, max).await;
    Ok(Message::Versions(page.map_err(|error| session.server.storage_fault(error))?))
}

/// What was there.
pub async fn look(session: &Session, at: Seq, look: Look, nodes_max: u32) -> Result<Message, Fault> {
    let max = usize::try_from(nodes_max).unwrap_or(limits::NODES_PER_PAGE_MAX);
    let seen = history(session)?.look(session.share, at, look, max).await;
    Ok(Message::Seen(seen.map_err(|error| session.server.storage_fault(error))?))
}
