//! Questions about the past: moments, versions, the share as it was. Answers are pages that fit a frame.

use super::Fault;
use super::session::Session;
use crate::model::past::{Look, Moment};
use crate::model::{Name, NodeId, Seq, limits};
use crate::storage::History;
use crate::wire::{EncodedFrame, ErrorCode, Message, WireError};

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
    let _turn = session.reads.acquire().await.map_err(|_| WireError::Ended)?;
    let history = history(session)?;
    let mut max = usize::try_from(versions_max).unwrap_or(limits::VERSIONS_PER_PAGE_MAX);
    loop {
        let page = history.versions(session.share, path.clone(), before, max).await;
        let page = page.map_err(|error| session.server.storage_fault(error))?;
        if let Some(message) = if_it_fits(Message::Versions(page), max)? {
            return Ok(message);
        }
        max /= 2;
    }
}

/// What was there.
pub async fn look(session: &Session, at: Seq, look: Look, nodes_max: u32) -> Result<Message, Fault> {
    let _turn = session.reads.acquire().await.map_err(|_| WireError::Ended)?;
    let history = history(session)?;
    let mut max = usize::try_from(nodes_max).unwrap_or(limits::NODES_PER_PAGE_MAX);
    loop {
        let seen = history.look(session.share, at, look.clone(), max).await;
        let seen = seen.map_err(|error| session.server.storage_fault(error))?;
        if let Some(message) = if_it_fits(Message::Seen(seen), max)? {
            return Ok(message);
        }
        max /= 2;
    }
}

/// The message unless it is too large for a frame: half the page fits sooner or later, one entry always does.
fn if_it_fits(message: Message, entries: usize) -> Result<Option<Message>, Fault> {
    match EncodedFrame::new(0, &message, Vec::new()) {
        Ok(_) => Ok(Some(message)),
        Err(WireError::FrameTooLarge { .. }) if entries > 1 => Ok(None),
        Err(error) => Err(error.into()),
    }
}
