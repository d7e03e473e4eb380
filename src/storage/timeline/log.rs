//! What became of a path: a page of its versions, as large as its bytes and the work for it may be.

use super::holders::{Holders, holders};
use super::paths::{Paths, shape_bytes};
use super::{PAGE_BYTES_MAX, Timeline, is_kept, node_at, state_at};
use crate::model::past::{Version, Versions};
use crate::model::{Name, NodeId, Seq};
use crate::storage::Result;
use std::collections::BinaryHeap;

/// Versions that are listed at a time, to be looked at.
const LISTED_MAX: usize = 256;
/// What a version takes beside its shapes and the name of its device.
const VERSION_COST_BYTES: usize = 96;

/// After every version.
const LATEST: (Seq, NodeId) = (Seq(u64::MAX), NodeId::from_bytes([0xff; 16]));

/// The versions of everything that ever stood at `path`, and below it, before `before`, latest first. A node that stands
/// there now is followed through all its names; one that has left the path, until it did.
///
/// A page has at most `max` versions and [`PAGE_BYTES_MAX`], or one version; it is empty when many were looked at and none
/// of them was asked for.
pub fn versions(
    line: &impl Timeline,
    floor: Seq,
    names: &[Name],
    before: Option<(Seq, NodeId)>,
    max: usize,
) -> Result<Versions> {
    let holders = holders(line, names)?;
    let mut listed = Listed::new(line, &holders, names.is_empty(), before.unwrap_or(LATEST))?;
    let mut paths = Paths::new(line);
    let mut page = Versions::default();
    let mut bytes = 0;
    while let Some((seq, id)) = listed.next(&mut paths)? {
        let is_full = page.versions.len() >= max.max(1) || paths.is_spent();
        if is_full && page.rest.is_some() {
            return Ok(page);
        }
        if let Some(version) = version(line, &mut paths, floor, &holders, seq, id)? {
            bytes += version_bytes(&version);
            if bytes > PAGE_BYTES_MAX && !page.versions.is_empty() {
                return Ok(page);
            }
            page.versions.push(version);
        }
        page.rest = Some((seq, id));
    }
    page.rest = None;
    Ok(page)
}

/// Bytes of a version, rather too many.
pub(super) fn version_bytes(version: &Version) -> usize {
    let shapes = [&version.before, &version.after].into_iter().flatten();
    VERSION_COST_BYTES + version.device.len() + shapes.map(shape_bytes).sum::<usize>()
}

/// Versions to look at, latest first.
struct Listed<'a, L> {
    line: &'a L,
    /// The next one of each node, for nodes that hold no others; of everything, one list after the other.
    of_nodes: bool,
    next: BinaryHeap<(Seq, NodeId)>,
    last: (Seq, NodeId),
}

impl<'a, L: Timeline> Listed<'a, L> {
    fn new(line: &'a L, holders: &Holders, of_all: bool, before: (Seq, NodeId)) -> Result<Self> {
        let mut of_nodes = !of_all;
        for id in holders.keys() {
            of_nodes = of_nodes && !is_folder(line, *id)?;
        }
        let mut listed = Self { line, of_nodes, next: BinaryHeap::new(), last: before };
        if of_nodes {
            for id in holders.keys() {
                let upto = if *id < before.1 { Some(before.0) } else { earlier(before.0) };
                listed.add(*id, upto)?;
            }
        }
        Ok(listed)
    }

    /// Adds the last version of a node up to and with `upto`.
    fn add(&mut self, id: NodeId, upto: Option<Seq>) -> Result<()> {
        if let Some(upto) = upto
            && let Some((node, _)) = node_at(self.line, id, upto)?
        {
            self.next.push((node.version, id));
        }
        Ok(())
    }

    fn next(&mut self, paths: &mut Paths<'_, L>) -> Result<Option<(Seq, NodeId)>> {
        if self.next.is_empty() && !self.of_nodes {
            self.next.extend(self.line.log_before(self.last, LISTED_MAX)?);
            paths.spend(2 * self.next.len());
        }
        let Some(next) = self.next.pop() else { return Ok(None) };
        self.last = next;
        if self.of_nodes {
            self.add(next.1, earlier(next.0))?;
            paths.spend(2);
        }
        Ok(Some(next))
    }
}

fn earlier(seq: Seq) -> Option<Seq> {
    seq.0.checked_sub(1).map(Seq)
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

/// One version, unless it lies outside of what is asked for.
fn version<L: Timeline>(
    line: &L,
    paths: &mut Paths<'_, L>,
    floor: Seq,
    holders: &Holders,
    seq: Seq,
    id: NodeId,
) -> Result<Option<Version>> {
    let earlier = Seq(seq.0.saturating_sub(1));
    let Some((node, by)) = node_at(line, id, seq)? else { return Ok(None) };
    let mut asked_for = false;
    let mut meets = |id| asked_for |= holders.get(&id).is_some_and(|until| seq <= *until);
    let after = paths.shape(id, node.state, seq, &mut meets)?;
    let before = paths.shape(id, state_at(line, id, earlier)?, earlier, &mut meets)?;
    paths.spend(5);
    if !asked_for {
        return Ok(None);
    }
    let (time_ms, device) =
        line.commit(seq)?.map(|commit| (commit.time_ms, commit.device)).unwrap_or_default();
    let kept = after.is_none() || is_kept(by, floor);
    Ok(Some(Version { seq, node: id, time_ms, device, before, after, kept }))
}
