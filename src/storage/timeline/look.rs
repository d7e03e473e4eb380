//! The share as it was: along a path, inside folders, node by node.

use super::paths::state_bytes;
use super::{PAGE_BYTES_MAX, Timeline, is_kept, node_at, stands_at};
use crate::model::past::{LOOK_FOLDERS_MAX, Look, Mark, PastNode, Rest, Seen};
use crate::model::{Name, Node, NodeId, Seq};
use crate::storage::{Result, StorageError};

/// Places that are looked at for one answer.
const EXAMINED_MAX: usize = 4096;
/// Places that are listed at a time, to be looked at.
const LISTED_MAX: usize = 256;
/// In the mark at a name that no node has left since.
const LAST: NodeId = NodeId::from_bytes([0xff; 16]);
/// What a node takes beside its state.
const NODE_COST_BYTES: usize = 64;

/// Answers a look at the share as it was after commit `at`, with at most `max` nodes.
pub fn look(line: &impl Timeline, floor: Seq, at: Seq, look: &Look, max: usize) -> Result<Seen> {
    match look {
        Look::Path { from, names } => path(line, floor, at, *from, names),
        Look::Inside { folders, after } => {
            inside(line, floor, at, folders.get(..LOOK_FOLDERS_MAX).unwrap_or(folders), after.clone(), max)
        }
        Look::Nodes(ids) => {
            let (mut seen, mut bytes) = (Seen::default(), 0);
            for id in ids.iter().take(max.max(1)) {
                let past = past_node(line, floor, *id, at)?;
                bytes += past_bytes(&past);
                seen.nodes.push(past);
                if bytes >= PAGE_BYTES_MAX {
                    break;
                }
            }
            if seen.nodes.len() < ids.len() {
                seen.rest = Some(Rest { first: place(seen.nodes.len()), after: None });
            }
            Ok(seen)
        }
    }
}

fn place(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn past_node(line: &impl Timeline, floor: Seq, id: NodeId, at: Seq) -> Result<PastNode> {
    Ok(match node_at(line, id, at)? {
        Some((node, by)) => PastNode { kept: node.state.is_none() || is_kept(by, floor), node },
        None => PastNode { node: Node { id, version: Seq::ZERO, state: None }, kept: true },
    })
}

fn path(line: &impl Timeline, floor: Seq, at: Seq, from: NodeId, names: &[Name]) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut parent = from;
    for name in names {
        let Some(past) = stood(line, floor, at, parent, name)? else { break };
        parent = past.node.id;
        seen.nodes.push(past);
    }
    Ok(seen)
}

/// The node that stood at a place.
fn stood(line: &impl Timeline, floor: Seq, at: Seq, parent: NodeId, name: &Name) -> Result<Option<PastNode>> {
    let past = |id| past_node(line, floor, id, at);
    let was_here =
        |past: &PastNode| past.node.state.as_ref().is_some_and(|state| stands_at(state, parent, name));
    // What stands there now comes first: if it leaves in between, it is found among what has left.
    let standing = line.child(parent, name)?.map(past).transpose()?.filter(was_here);
    if standing.is_some() {
        return Ok(standing);
    }
    Ok(line.left_next(parent, name, at)?.map(past).transpose()?.filter(was_here))
}

fn inside(
    line: &impl Timeline,
    floor: Seq,
    at: Seq,
    folders: &[NodeId],
    mut after: Option<Mark>,
    max: usize,
) -> Result<Seen> {
    let mut seen = Seen::default();
    let (mut examined, mut bytes) = (0, 0);
    let first_left = first_left()?;
    for (number, folder) in folders.iter().enumerate() {
        loop {
            let room = max.max(1).saturating_sub(seen.nodes.len()).min(LISTED_MAX);
            if room == 0 || examined >= EXAMINED_MAX || bytes >= PAGE_BYTES_MAX {
                seen.rest = Some(Rest { first: place(number), after });
                return Ok(seen);
            }
            let left = after.as_ref().is_some_and(|mark| mark.left);
            let seen_last = after.as_ref().filter(|mark| **mark != first_left).map(|mark| &mark.name);
            let entries = if left {
                line.left_after(*folder, seen_last, at, room)?
            } else {
                let standing = line.children_after(*folder, seen_last, room)?;
                standing.into_iter().map(|(name, id)| (name, Some(id))).collect()
            };
            let mut done = entries.len() < room;
            examined += entries.len() + 1;
            for (name, id) in entries {
                if let Some(past) = id.map(|id| past_node(line, floor, id, at)).transpose()? {
                    // Among what has left, a node counts at the place that it had then.
                    let was_here = past
                        .node
                        .state
                        .as_ref()
                        .is_some_and(|state| state.parent == *folder && (!left || state.name == name));
                    if was_here {
                        bytes += past_bytes(&past);
                        seen.nodes.push(past);
                    }
                }
                after = Some(Mark { left, name, node: id.unwrap_or(LAST) });
                if bytes >= PAGE_BYTES_MAX {
                    done = false;
                    break;
                }
            }
            match (done, left) {
                (false, _) => {}
                (true, true) => break,
                (true, false) => after = Some(first_left.clone()),
            }
        }
        after = None;
    }
    Ok(seen)
}

/// The mark before everything that has left a folder, which the root never does.
fn first_left() -> Result<Mark> {
    let name = Name::new(&[1]).map_err(|_| StorageError::UnknownShare)?;
    Ok(Mark { left: true, name, node: NodeId::ROOT })
}

/// Bytes of a node, rather too many.
pub(super) fn past_bytes(past: &PastNode) -> usize {
    NODE_COST_BYTES + past.node.state.as_ref().map_or(0, state_bytes)
}
