//! Questions about the past of a share, answered over any place that remembers it.
//!
//! Work per question is bounded: a page may be empty although more follow.

use super::Result;
use super::sled::{CommitInfo, Replaced};
use crate::model::past::{LOOK_FOLDERS_MAX, Look, Mark, PastNode, Rest, Seen, Shape, Version, Versions};
use crate::model::{Name, Node, NodeId, NodeState, Seq, limits};
use std::collections::BTreeMap;

/// Versions or places looked at for one answer.
const EXAMINED_MAX: usize = 4096;
/// Nodes that ever stood at one path; of more, these are followed.
const HOLDERS_MAX: usize = 1024;

/// A place that remembers a share.
pub trait Timeline {
    /// A node as it stands, tombstones too.
    fn node(&self, id: NodeId) -> Result<Option<Node>>;
    /// The last version of a node up to and with `at` among those that were replaced.
    fn replaced(&self, id: NodeId, at: Seq) -> Result<Option<Replaced>>;
    /// The live node of that name in that folder.
    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>>;
    /// Nodes that have left that place.
    fn left(&self, parent: NodeId, name: &Name) -> Result<Vec<NodeId>>;
    /// At most `max` live nodes of a folder by name, after a name.
    fn children_after(&self, parent: NodeId, after: Option<&Name>, max: usize)
    -> Result<Vec<(Name, NodeId)>>;
    /// At most `max` places of a folder that nodes have left, by name and node, after one.
    fn left_after(
        &self,
        parent: NodeId,
        after: Option<(&Name, NodeId)>,
        max: usize,
    ) -> Result<Vec<(Name, NodeId)>>;
    /// At most `max` versions of all nodes before one, latest first.
    fn log_before(&self, before: (Seq, NodeId), max: usize) -> Result<Vec<(Seq, NodeId)>>;
    /// What is known of a commit.
    fn commit(&self, seq: Seq) -> Result<Option<CommitInfo>>;
}

/// After every version.
const LATEST: (Seq, NodeId) = (Seq(u64::MAX), NodeId::from_bytes([0xff; 16]));

/// A node as it was after commit `at`, and the version that has replaced it since; `None` when it did not exist.
pub fn node_at(line: &impl Timeline, id: NodeId, at: Seq) -> Result<Option<(Node, Option<Seq>)>> {
    match line.node(id)? {
        Some(node) if node.version <= at => Ok(Some((node, None))),
        Some(_) => Ok(line.replaced(id, at)?.map(|replaced| (replaced.node, Some(replaced.by)))),
        None => Ok(None),
    }
}

fn state_at(line: &impl Timeline, id: NodeId, at: Seq) -> Result<Option<NodeState>> {
    Ok(node_at(line, id, at)?.and_then(|(node, _)| node.state))
}

fn stands_at(state: &NodeState, parent: NodeId, name: &Name) -> bool {
    state.parent == parent && state.name == *name
}

fn is_kept(by: Option<Seq>, floor: Seq) -> bool {
    by.is_none_or(|by| by > floor)
}

/// Answers a look at the share as it was after commit `at`, with at most `max` nodes.
pub fn look(line: &impl Timeline, floor: Seq, at: Seq, look: &Look, max: usize) -> Result<Seen> {
    match look {
        Look::Path { from, names } => path(line, floor, at, *from, names),
        Look::Inside { folders, after } => {
            inside(line, floor, at, folders.get(..LOOK_FOLDERS_MAX).unwrap_or(folders), after.clone(), max)
        }
        Look::Nodes(ids) => {
            let mut seen = Seen::default();
            for id in ids.iter().take(max.max(1)) {
                seen.nodes.push(past_node(line, floor, *id, at)?);
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
        let candidates = line.child(parent, name)?.into_iter().chain(line.left(parent, name)?);
        let mut found = None;
        for id in candidates {
            let past = past_node(line, floor, id, at)?;
            if past.node.state.as_ref().is_some_and(|state| stands_at(state, parent, name)) {
                found = Some(past);
                break;
            }
        }
        let Some(past) = found else { break };
        parent = past.node.id;
        seen.nodes.push(past);
    }
    Ok(seen)
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
    let mut examined = 0;
    for (number, folder) in folders.iter().enumerate() {
        loop {
            let room = max.max(1).saturating_sub(seen.nodes.len());
            if room == 0 || examined >= EXAMINED_MAX {
                seen.rest = Some(Rest { first: place(number), after });
                return Ok(seen);
            }
            let left = after.as_ref().is_some_and(|mark| mark.left);
            let entries = match &after {
                Some(mark) if left => line.left_after(*folder, Some((&mark.name, mark.node)), room)?,
                Some(mark) => line.children_after(*folder, Some(&mark.name), room)?,
                None => line.children_after(*folder, None, room)?,
            };
            let done = entries.len() < room;
            examined += entries.len() + 1;
            for (name, id) in entries {
                let past = past_node(line, floor, id, at)?;
                // Among what has left, a node counts at the place that it had then.
                let was_here = past
                    .node
                    .state
                    .as_ref()
                    .is_some_and(|state| state.parent == *folder && (!left || state.name == name));
                if was_here {
                    seen.nodes.push(past);
                }
                after = Some(Mark { left, name, node: id });
            }
            match (done, left) {
                (false, _) => {}
                (true, true) => break,
                // The mark before every name: the first one there can be, of a node before every node.
                (true, false) => after = Some(first_left()?),
            }
        }
        after = None;
    }
    Ok(seen)
}

/// The mark from which on everything that has left a folder follows: no name is shorter or smaller.
fn first_left() -> Result<Mark> {
    let name = Name::new(&[1]).map_err(|_| super::StorageError::UnknownShare)?;
    Ok(Mark { left: true, name, node: NodeId::ROOT })
}

/// The versions of everything that ever stood at `path`, and below it, before `before`, latest first. A node that stands
/// there now is followed through all its names; one that has left the path, until it did.
pub fn versions(
    line: &impl Timeline,
    floor: Seq,
    names: &[Name],
    before: Option<(Seq, NodeId)>,
    max: usize,
) -> Result<Versions> {
    let holders = holders(line, names)?;
    let before = before.unwrap_or(LATEST);
    let mut only_files = !names.is_empty();
    for id in holders.keys() {
        only_files &= !is_folder(line, *id)?;
    }
    let max = max.max(1);
    let examined_max = if only_files { max } else { EXAMINED_MAX.min(max.saturating_mul(16)) };
    let candidates = if only_files {
        of_nodes(line, holders.keys(), before, examined_max)?
    } else {
        line.log_before(before, examined_max)?
    };
    let exhausted = candidates.len() < examined_max;
    let mut page = Versions::default();
    for (seq, id) in candidates {
        if page.versions.len() >= max {
            return Ok(page);
        }
        page.rest = Some((seq, id));
        page.versions.extend(version(line, floor, &holders, seq, id)?);
    }
    if exhausted {
        page.rest = None;
    }
    Ok(page)
}

/// True for a node that is, or was before it was deleted, a folder.
fn is_folder(line: &impl Timeline, id: NodeId) -> Result<bool> {
    if id == NodeId::ROOT {
        return Ok(true);
    }
    let Some(node) = line.node(id)? else { return Ok(false) };
    let state = match node.state {
        Some(state) => Some(state),
        None => {
            line.replaced(id, Seq(node.version.0.saturating_sub(1)))?.and_then(|replaced| replaced.node.state)
        }
    };
    Ok(state.is_some_and(|state| state.kind.is_folder()))
}

/// At most `max` versions of these nodes before one, latest first.
fn of_nodes<'a>(
    line: &impl Timeline,
    ids: impl Iterator<Item = &'a NodeId>,
    before: (Seq, NodeId),
    max: usize,
) -> Result<Vec<(Seq, NodeId)>> {
    let mut found = Vec::new();
    for id in ids {
        let mut next = if *id < before.1 { Some(before.0) } else { before.0.0.checked_sub(1).map(Seq) };
        for _ in 0..max {
            let Some(at) = next else { break };
            let Some((node, _)) = node_at(line, *id, at)? else { break };
            found.push((node.version, *id));
            next = node.version.0.checked_sub(1).map(Seq);
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.truncate(max);
    Ok(found)
}

/// Every node that ever stood at a path, and up to which version it counts: for ever, or until it left.
fn holders(line: &impl Timeline, names: &[Name]) -> Result<BTreeMap<NodeId, Seq>> {
    let mut holders = BTreeMap::from([(NodeId::ROOT, Seq(u64::MAX))]);
    for name in names {
        let mut below = BTreeMap::new();
        for (parent, until) in &holders {
            let standing = line.child(*parent, name)?;
            below.extend(standing.map(|id| (id, *until)));
            for id in line.left(*parent, name)? {
                if below.len() >= HOLDERS_MAX {
                    break;
                }
                if standing != Some(id) {
                    let left = left_at(line, id, *parent, name)?.min(*until);
                    below.entry(id).and_modify(|known: &mut Seq| *known = left.max(*known)).or_insert(left);
                }
            }
        }
        holders = below;
    }
    Ok(holders)
}

/// When a node left a place for the last time.
fn left_at(line: &impl Timeline, id: NodeId, parent: NodeId, name: &Name) -> Result<Seq> {
    let mut at = Seq(u64::MAX);
    while let Some(replaced) = line.replaced(id, at)? {
        if replaced.node.state.as_ref().is_some_and(|state| stands_at(state, parent, name)) {
            return Ok(replaced.by);
        }
        match replaced.node.version.0.checked_sub(1) {
            Some(before) => at = Seq(before),
            None => break,
        }
    }
    Ok(Seq::ZERO)
}

/// One version, unless it lies outside of what is asked for.
fn version(
    line: &impl Timeline,
    floor: Seq,
    holders: &BTreeMap<NodeId, Seq>,
    seq: Seq,
    id: NodeId,
) -> Result<Option<Version>> {
    let earlier = Seq(seq.0.saturating_sub(1));
    let Some((node, by)) = node_at(line, id, seq)? else { return Ok(None) };
    let after = shape(line, id, node.state, seq)?;
    let before = shape(line, id, state_at(line, id, earlier)?, earlier)?;
    let asked_for = [&after, &before]
        .into_iter()
        .flatten()
        .any(|(_, ids)| ids.iter().any(|id| holders.get(id).is_some_and(|until| seq <= *until)));
    if !asked_for {
        return Ok(None);
    }
    let (time_ms, device) =
        line.commit(seq)?.map(|commit| (commit.time_ms, commit.device)).unwrap_or_default();
    let [before, after] = [before, after].map(|found| found.map(|(shape, _)| shape));
    let kept = after.is_none() || is_kept(by, floor);
    Ok(Some(Version { seq, node: id, time_ms, device, before, after, kept }))
}

type Placed = (Shape, Vec<NodeId>);

/// A node with its path after commit `at`, and the ids along it, the root's too.
fn shape(line: &impl Timeline, id: NodeId, state: Option<NodeState>, at: Seq) -> Result<Option<Placed>> {
    let Some(NodeState { mut parent, name, kind }) = state else { return Ok(None) };
    let (mut path, mut ids) = (vec![name], vec![id, parent]);
    while parent != NodeId::ROOT && path.len() < limits::PATH_DEPTH_MAX {
        let Some(state) = state_at(line, parent, at)? else { break };
        path.push(state.name);
        parent = state.parent;
        ids.push(parent);
    }
    path.reverse();
    Ok(Some((Shape { path, kind }, ids)))
}
