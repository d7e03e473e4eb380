//! What a client's requests come back as.

use super::error::WireError;
use super::message::{Bitmap, Head, Position};
use crate::block::SealedBlock;
use crate::model::{Change, Node, Refusal, Seq};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// A page of what changed.
#[derive(Debug, Clone)]
pub struct Changes {
    /// Each node once, at its latest version, ordered by (version, id).
    pub nodes: Vec<Node>,
    /// Where the next poll goes on.
    pub next: Position,
    /// Nothing remained after these nodes.
    pub complete: bool,
    /// The head; `None` when the poll stood at it already.
    pub head: Option<Head>,
}

/// A commit that is durable.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The head before it. Equal to the client's own position: nothing of others lies between.
    pub prev: Seq,
    /// The head after it; `head.seq == prev` when everything was refused.
    pub head: Head,
    /// The nodes that it changed, as they are now.
    pub nodes: Vec<Node>,
    /// Which changes were refused, by their place in the commit, ascending.
    pub refused: Vec<(u32, Refusal)>,
}

/// What the accepted changes of a commit have become if the server took them as they are: the common case, in which
/// the nodes need not cross the wire again.
pub fn nodes_as_sent(changes: &[Change], refused: &[(u32, Refusal)], version: Seq) -> Vec<Node> {
    let mut refused = refused.iter().map(|(place, _)| *place).peekable();
    let accepted = (0u32..).zip(changes).filter(|(place, _)| refused.next_if_eq(place).is_none());
    accepted.map(|(_, c)| Node { id: c.id, version, state: c.state.clone() }).collect()
}

/// The answer to a `WantBlocks` as it comes in. Dropping it forgets the rest.
///
/// What was asked for counts against a budget of the connection until this is dropped: a task that holds one `Want`
/// and asks for another before it has read the first may wait for itself.
#[derive(Debug)]
pub struct Want {
    pub(super) parts: mpsc::UnboundedReceiver<Result<WantPart, Arc<WireError>>>,
    /// Hashes without an answer: an end before zero is a lost connection, never a short answer.
    pub(super) unanswered: usize,
    pub(super) _budget: OwnedSemaphorePermit,
}

/// Consecutive blocks of a `WantBlocks`.
#[derive(Debug, Clone)]
pub struct WantPart {
    /// Place of the first in the request.
    pub first: usize,
    /// One per hash; `None` when the server does not hold it. Untrusted: open them and compare the hash.
    pub blocks: Vec<Option<SealedBlock>>,
}

impl Want {
    /// The next part; `None` after the last.
    ///
    /// # Errors
    /// When the connection was lost or the server refused the request.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self) -> Result<Option<WantPart>, WireError> {
        match self.parts.recv().await {
            Some(Ok(part)) => {
                self.unanswered = self.unanswered.saturating_sub(part.blocks.len());
                Ok(Some(part))
            }
            Some(Err(error)) => Err(WireError::shared(error)),
            None if self.unanswered == 0 => Ok(None),
            None => Err(WireError::Ended),
        }
    }

    /// All blocks, in the order of the request.
    pub async fn all(mut self) -> Result<Vec<Option<SealedBlock>>, WireError> {
        let mut blocks = Vec::new();
        while let Some(part) = self.next().await? {
            blocks.extend(part.blocks);
        }
        Ok(blocks)
    }
}

/// Checks that parts come in order, cover the request and carry what they say.
#[derive(Debug)]
pub(super) struct PartCheck {
    next: usize,
    hashes: usize,
    bytes_left: usize,
}

impl PartCheck {
    /// For a request of so many hashes whose blocks have at most so many plain bytes.
    pub(super) const fn new(hashes: usize, plain_bytes_max: usize) -> Self {
        Self { next: 0, hashes, bytes_left: plain_bytes_max }
    }

    /// Takes one part.
    pub(super) fn take(
        &mut self,
        first: u32,
        present: &Bitmap,
        last: bool,
        blocks: Vec<SealedBlock>,
    ) -> Result<WantPart, WireError> {
        let first = usize::try_from(first).map_err(|_| WireError::OverLimit("place of a part"))?;
        let end = self.next + present.len();
        if first != self.next || present.is_empty() || end > self.hashes || last != (end == self.hashes) {
            return Err(WireError::Unexpected("part of an answer"));
        }
        if present.count_ones() != blocks.len() {
            return Err(WireError::Unexpected("number of blocks"));
        }
        let bytes: usize = blocks.iter().map(|b| b.payload.len()).sum();
        self.bytes_left =
            self.bytes_left.checked_sub(bytes).ok_or(WireError::OverLimit("bytes of an answer"))?;
        self.next = end;
        let mut blocks = blocks.into_iter();
        let blocks = present.iter().map(|here| if here { blocks.next() } else { None }).collect();
        Ok(WantPart { first, blocks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;

    #[test]
    fn refused_changes_are_left_out_of_the_nodes() {
        let change = |n: u8| Change { id: NodeId::from_bytes([n; 16]), base: Seq::ZERO, state: None };
        let changes = [change(1), change(2), change(3)];
        let nodes = nodes_as_sent(&changes, &[(1, Refusal::Stale)], Seq(7));
        assert_eq!(nodes.iter().map(|n| n.id).collect::<Vec<_>>(), [changes[0].id, changes[2].id]);
    }

    #[test]
    fn parts_out_of_order_or_over_the_bytes_asked_for_are_refused() {
        let one = Bitmap::from_flags(&[false]);
        let mut check = PartCheck::new(2, 0);
        assert!(check.take(1, &one, false, vec![]).is_err());
        assert!(check.take(0, &one, true, vec![]).is_err(), "last before the end");
        assert!(check.take(0, &one, false, vec![]).is_ok());
        assert!(check.take(1, &one, true, vec![]).is_ok());
        assert!(check.take(2, &one, true, vec![]).is_err(), "past the end");
    }
}
