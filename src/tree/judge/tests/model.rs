//! What the judge must agree with, whatever it is asked.

use super::super::{Nodes, is_folder};
use crate::model::{Change, Name, Node, NodeId, NodeState, Refusal, Seq, limits};
use std::collections::{BTreeMap, HashMap, HashSet};

type Fallen = Vec<(usize, Refusal)>;

/// The rules as they were written first: everything is looked at again in every round. What [`judge`] must agree with.
pub fn judge_in_rounds<N: Nodes>(
    nodes: &N,
    changes: &[Change],
    content_ok: &[bool],
) -> Result<Vec<Option<Refusal>>, N::Error> {
    let mut court = Rounds { nodes, cache: HashMap::new() };
    let mut verdicts = court.first_look(changes, content_ok)?;
    loop {
        let standing = Standing::new(changes, &verdicts);
        let mut fallen = Vec::new();
        for rule in [Rounds::places, Rounds::names, Rounds::empty_folders] {
            fallen = rule(&mut court, &standing)?;
            if !fallen.is_empty() {
                break;
            }
        }
        if fallen.is_empty() {
            return Ok(verdicts);
        }
        for (index, refusal) in fallen {
            verdicts[index] = Some(refusal);
        }
    }
}

/// The changes that still stand, by node.
struct Standing<'a> {
    by_id: HashMap<NodeId, (usize, Option<&'a NodeState>)>,
    in_order: Vec<(usize, &'a Change)>,
}

impl<'a> Standing<'a> {
    fn new(changes: &'a [Change], verdicts: &[Option<Refusal>]) -> Self {
        let in_order: Vec<_> =
            changes.iter().enumerate().zip(verdicts).filter(|(_, v)| v.is_none()).map(|(c, _)| c).collect();
        let by_id = in_order.iter().map(|(i, c)| (c.id, (*i, c.state.as_ref()))).collect();
        Self { by_id, in_order }
    }
}

struct Rounds<'a, N: Nodes> {
    nodes: &'a N,
    /// Lookups of this judgement: ancestors are asked for again and again.
    cache: HashMap<NodeId, Option<Node>>,
}

impl<N: Nodes> Rounds<'_, N> {
    fn node(&mut self, id: NodeId) -> Result<Option<&Node>, N::Error> {
        use std::collections::hash_map::Entry;
        let slot = match self.cache.entry(id) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(slot) => slot.insert(self.nodes.node(id)?),
        };
        Ok(slot.as_ref())
    }

    /// What can be said of each change on its own.
    fn first_look(
        &mut self,
        changes: &[Change],
        content_ok: &[bool],
    ) -> Result<Vec<Option<Refusal>>, N::Error> {
        let mut seen = HashSet::new();
        let mut verdicts = Vec::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            let fresh = seen.insert(change.id);
            let current = self.node(change.id)?;
            let version = current.map_or(Seq::ZERO, |node| node.version);
            let live = current.and_then(|node| node.state.as_ref());
            let well_formed =
                change.id != NodeId::ROOT && fresh && change.state.as_ref().is_none_or(NodeState::is_valid);
            // A folder never turns into a file under one id: its children would hang in the air.
            let same_sort = match (live, &change.state) {
                (Some(old), Some(new)) => old.kind.is_folder() == new.kind.is_folder(),
                (None, None) => false,
                _ => true,
            };
            verdicts.push(if !well_formed {
                Some(Refusal::Invalid)
            } else if version != change.base {
                Some(Refusal::Stale)
            } else if !same_sort {
                Some(Refusal::Invalid)
            } else if !content_ok.get(index).copied().unwrap_or(false) {
                Some(Refusal::MissingBlocks)
            } else {
                None
            });
        }
        Ok(verdicts)
    }

    /// The state of a node if the standing changes were applied.
    fn state_after(&mut self, standing: &Standing<'_>, id: NodeId) -> Result<Option<NodeState>, N::Error> {
        match standing.by_id.get(&id) {
            Some((_, state)) => Ok(state.cloned()),
            None => Ok(self.node(id)?.and_then(|node| node.state.clone())),
        }
    }

    /// Parents are live folders, nothing is inside itself, nothing is deeper than a path may be.
    fn places(&mut self, standing: &Standing<'_>) -> Result<Fallen, N::Error> {
        let mut fallen = Fallen::new();
        // Folders known to hang on the root, so that a thousand siblings walk up once.
        let mut rooted: HashMap<NodeId, usize> = HashMap::from([(NodeId::ROOT, 0)]);
        for (index, change) in &standing.in_order {
            let Some(state) = &change.state else { continue };
            let mut chain = vec![];
            let mut at = state.parent;
            let verdict = loop {
                if let Some(depth) = rooted.get(&at) {
                    let depth = depth + chain.len();
                    break (depth >= limits::PATH_DEPTH_MAX).then_some(Refusal::Invalid);
                }
                if at == change.id || chain.contains(&at) {
                    break Some(Refusal::Cycle);
                }
                if chain.len() >= limits::PATH_DEPTH_MAX {
                    break Some(Refusal::Invalid);
                }
                match self.state_after(standing, at)? {
                    Some(parent) if parent.kind.is_folder() => {
                        chain.push(at);
                        at = parent.parent;
                    }
                    _ => break Some(Refusal::ParentGone),
                }
            };
            match verdict {
                Some(refusal) => fallen.push((*index, refusal)),
                None => {
                    let top = rooted.get(&at).copied().unwrap_or(0);
                    for (up, id) in chain.iter().rev().enumerate() {
                        rooted.insert(*id, top + up + 1);
                    }
                }
            }
        }
        Ok(fallen)
    }

    /// No two nodes have one name in one folder; of two new claims the first stands.
    fn names(&mut self, standing: &Standing<'_>) -> Result<Fallen, N::Error> {
        let mut fallen = Fallen::new();
        let mut claimed: BTreeMap<(NodeId, &Name), NodeId> = BTreeMap::new();
        for (index, change) in &standing.in_order {
            let Some(state) = &change.state else { continue };
            let key = (state.parent, &state.name);
            let taken_here = claimed.contains_key(&key);
            let taken_before = match self.nodes.child(state.parent, &state.name)? {
                Some(id) if id != change.id => {
                    self.state_after(standing, id)?.is_some_and(|other| other.same_place(state))
                }
                _ => false,
            };
            if taken_here || taken_before {
                fallen.push((*index, Refusal::NameTaken));
            } else {
                claimed.insert(key, change.id);
            }
        }
        Ok(fallen)
    }

    /// Deleted folders are empty afterwards.
    fn empty_folders(&mut self, standing: &Standing<'_>) -> Result<Fallen, N::Error> {
        let mut fallen = Fallen::new();
        for (index, change) in &standing.in_order {
            if change.state.is_some() || !self.node(change.id)?.is_some_and(is_folder) {
                continue;
            }
            let stays = self.nodes.any_child(change.id, &mut |child| match standing.by_id.get(&child) {
                Some((_, state)) => state.is_some_and(|state| state.parent == change.id),
                None => true,
            })?;
            if stays {
                fallen.push((*index, Refusal::NotEmpty));
            }
        }
        Ok(fallen)
    }
}
