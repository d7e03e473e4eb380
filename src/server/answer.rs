//! One request of a session, from its frame to its answer.

use super::order::{Before, Ticket};
use super::session::Session;
use super::{Fault, commit, history, requests};
use crate::wire::{Frame, Message, WireError};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// What a request takes of the bounds on requests under way, until it is answered.
pub struct InFlight {
    pub _own: OwnedSemaphorePermit,
    pub _of_device: OwnedSemaphorePermit,
}

/// Where a request stands in its session's order.
pub struct Turn {
    pub before: Option<Before>,
    pub _ticket: Option<Ticket>,
}

/// Answers a request. Owns its share of the byte limit and its ticket until then.
pub async fn answer(
    session: Arc<Session>,
    frame: Frame,
    message: Message,
    turn: Turn,
    _in_flight: InFlight,
) -> Result<(), Fault> {
    let request = frame.request;
    // Only until the answer is there: a session that has stalled keeps no other from asking. Before a place for the page is
    // taken: of those polls need some too.
    let asking = match &message {
        Message::History { .. } | Message::Look { .. } => {
            Some(session.seat.desk.asking.acquire().await.map_err(|_| WireError::Ended)?)
        }
        _ => None,
    };
    // Until the answer is queued: a peer that does not read makes pages wait in memory.
    let _page = match &message {
        Message::Poll { .. } | Message::Find { .. } | Message::History { .. } | Message::Look { .. } => {
            Some(session.seat.desk.pages.acquire().await.map_err(|_| WireError::Ended)?)
        }
        _ => None,
    };
    let result = match message {
        Message::Commit { .. } if session.guest.scope.read_only => Err(requests::READ_ONLY),
        Message::Ping => Ok(Message::Pong),
        Message::Poll { after, nodes_max, tombstones_after } => {
            requests::poll(&session, after, nodes_max, tombstones_after).await
        }
        Message::Have { hashes } => requests::have(&session, hashes).await,
        Message::PutBlocks { count } => requests::put(&session, count, frame.payload).await,
        Message::Commit { changes } => match turn.before {
            Some(before) => commit::commit(&session, before, changes, frame.payload).await,
            None => Err(WireError::Unexpected("commit").into()),
        },
        Message::WantBlocks { hashes, bases } => match requests::want(&session, request, hashes, bases).await
        {
            Ok(()) => return Ok(()),
            Err(fault) => Err(fault),
        },
        Message::Find { at } => history::find(&session, at).await,
        Message::History { path, before, versions_max } => {
            history::versions(&session, path, before, versions_max).await
        }
        Message::Look { at, look, nodes_max } => history::look(&session, at, look, nodes_max).await,
        other => Err(WireError::Unexpected(other.name()).into()),
    };
    drop(asking);
    let message = match result {
        Ok(message) => message,
        Err(Fault::Request(code, text)) => Message::failed(code, text),
        Err(fault) => return Err(fault),
    };
    Ok(session.outbox.send(request, &message, Vec::new()).await?)
}
