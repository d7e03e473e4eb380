//! Which changes of a commit stand. The server's only rule book; pure, over any place that nodes are kept in.
//!
//! The cost follows the changes: each is looked at once, and again only when a change it rests on has fallen.

mod places;

use crate::model::{Change, Name, Node, NodeId, NodeState, Refusal, Seq};
use places::Places;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Where the judged share is kept. Errors are those of the place, and end the judgement.
pub trait Nodes {
    /// What reading may fail with.
    type Error;
    /// The node at its latest version, tombstones included; `None` for one that never was.
    fn node(&self, id: NodeId) -> Result<Option<Node>, Self::Error>;
    /// The live node with that name in that folder.
    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>, Self::Error>;
    /// True when `is` says so of a live child of the folder. Shows them in any order, and none after that one: a folder may
    /// be large.
    fn any_child(&self, parent: NodeId, is: &mut dyn FnMut(NodeId) -> bool) -> Result<bool, Self::Error>;
}

/// Decides each change of one commit, in order: `None` stands, `Some` is refused. `content_ok[i]` says whether the
/// blocks that change `i` names are all held.
///
/// The changes that stand are looked at together, not one after the other, so that two files may swap names in one
/// commit. A refusal may undo the ground of another change (the name it would have freed), hence the repetition until
/// nothing more falls; but only of what rested on what fell, or a chain of renames whose last name is taken would be
/// looked at as often as it is long.
pub fn judge<N: Nodes>(
    nodes: &N,
    changes: &[Change],
    content_ok: &[bool],
) -> Result<Vec<Option<Refusal>>, N::Error> {
    let mut court = Court::new(nodes, changes, content_ok)?;
    court.decide()?;
    Ok(court.verdicts)
}

type Fallen = Vec<(usize, Refusal)>;

/// Changes are known by their number in the commit.
struct Court<'a, N: Nodes> {
    nodes: &'a N,
    changes: &'a [Change],
    verdicts: Vec<Option<Refusal>>,
    /// The change of each node that stood at the first look.
    by_id: HashMap<NodeId, usize>,
    /// Lookups of this judgement: ancestors are asked for again and again.
    cache: HashMap<NodeId, Option<Node>>,
    places: Places,
    /// Whose name is to be looked at.
    unnamed: Vec<usize>,
    /// Deletions of folders that are to be looked at.
    unemptied: Vec<usize>,
    /// The node that has the name now, asked for once; and the change that relies on a change to free its name.
    holders: HashMap<usize, Option<NodeId>>,
    relies: HashMap<usize, usize>,
    /// Changes, folders above them and children of folders that were looked at: what tests hold to the size of the commit.
    looks: usize,
}

impl<'a, N: Nodes> Court<'a, N> {
    fn new(nodes: &'a N, changes: &'a [Change], content_ok: &[bool]) -> Result<Self, N::Error> {
        let mut court = Self {
            nodes,
            changes,
            verdicts: Vec::new(),
            by_id: HashMap::new(),
            cache: HashMap::new(),
            places: Places::default(),
            unnamed: Vec::new(),
            unemptied: Vec::new(),
            holders: HashMap::new(),
            relies: HashMap::new(),
            looks: changes.len(),
        };
        court.verdicts = court.first_look(content_ok)?;
        for (index, change) in changes.iter().enumerate() {
            if !court.stands(index) {
                continue;
            }
            court.by_id.insert(change.id, index);
            match &change.state {
                Some(state) => {
                    court.places.expect(index, state.parent);
                    court.unnamed.push(index);
                }
                None if court.node(change.id)?.is_some_and(is_folder) => court.unemptied.push(index),
                None => {}
            }
        }
        Ok(court)
    }

    /// Rule by rule, all that a rule lets fall at once, and back to the first.
    fn decide(&mut self) -> Result<(), N::Error> {
        loop {
            let mut fallen = Fallen::new();
            for rule in [Self::places, Self::names, Self::empty_folders] {
                fallen = rule(self)?;
                if !fallen.is_empty() {
                    break;
                }
            }
            if fallen.is_empty() {
                return Ok(());
            }
            for (index, refusal) in &fallen {
                if let Some(verdict) = self.verdicts.get_mut(*index) {
                    *verdict = Some(*refusal);
                }
            }
            for (index, _) in fallen {
                self.undo(index)?;
            }
        }
    }

    fn stands(&self, index: usize) -> bool {
        matches!(self.verdicts.get(index), Some(None))
    }

    /// The change of a node, if it stands.
    fn standing(&self, id: NodeId) -> Option<(usize, &'a Change)> {
        let index = *self.by_id.get(&id)?;
        Some((index, self.changes.get(index)?)).filter(|_| self.stands(index))
    }

    /// The changes of a list that stand, with their new states, in their order, each once.
    fn standing_of(&self, mut list: Vec<usize>) -> Vec<(usize, &'a Change)> {
        list.sort_unstable();
        list.dedup();
        list.retain(|index| self.stands(*index));
        let changes = self.changes;
        list.into_iter().filter_map(|index| Some((index, changes.get(index)?))).collect()
    }

    fn node(&mut self, id: NodeId) -> Result<Option<&Node>, N::Error> {
        use std::collections::hash_map::Entry;
        let slot = match self.cache.entry(id) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(slot) => slot.insert(self.nodes.node(id)?),
        };
        Ok(slot.as_ref())
    }

    /// What can be said of each change on its own.
    fn first_look(&mut self, content_ok: &[bool]) -> Result<Vec<Option<Refusal>>, N::Error> {
        let mut seen = HashSet::new();
        let mut verdicts = Vec::with_capacity(self.changes.len());
        for (index, change) in self.changes.iter().enumerate() {
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
    fn state_after(&mut self, id: NodeId) -> Result<Option<&NodeState>, N::Error> {
        match self.standing(id) {
            Some((_, change)) => Ok(change.state.as_ref()),
            None => Ok(self.node(id)?.and_then(|node| node.state.as_ref())),
        }
    }

    /// The folder that holds this one if the standing changes were applied; `None` when it is no live folder then.
    fn folder_above(&mut self, id: NodeId) -> Result<Option<NodeId>, N::Error> {
        let state = self.state_after(id)?;
        Ok(state.filter(|state| state.kind.is_folder()).map(|state| state.parent))
    }

    /// Parents are live folders, nothing is inside itself, nothing is deeper than a path may be.
    fn places(&mut self) -> Result<Fallen, N::Error> {
        let mut fallen = Fallen::new();
        let pending = self.places.take();
        for (index, change) in self.standing_of(pending) {
            let Some(state) = &change.state else { continue };
            // Taken out meanwhile, because it asks for the nodes.
            let mut places = std::mem::take(&mut self.places);
            let verdict = places.judge(change.id, state.parent, &mut |id| self.folder_above(id));
            self.looks += 1 + places.steps();
            self.places = places;
            fallen.extend(verdict?.map(|refusal| (index, refusal)));
        }
        Ok(fallen)
    }

    /// No two nodes have one name in one folder; of two new claims the first stands.
    fn names(&mut self) -> Result<Fallen, N::Error> {
        let mut fallen = Fallen::new();
        let mut claimed: BTreeSet<(NodeId, &Name)> = BTreeSet::new();
        let unnamed = std::mem::take(&mut self.unnamed);
        for (index, change) in self.standing_of(unnamed) {
            let Some(state) = &change.state else { continue };
            self.looks += 1;
            let holder = match self.holders.get(&index) {
                Some(holder) => *holder,
                None => {
                    let holder = self.nodes.child(state.parent, &state.name)?;
                    let holder = holder.filter(|id| *id != change.id);
                    self.holders.insert(index, holder);
                    holder
                }
            };
            let taken_before = match holder {
                Some(id) => self.state_after(id)?.is_some_and(|other| other.same_place(state)),
                None => false,
            };
            // Of later rounds nobody else stands who claims it.
            if taken_before || !claimed.insert((state.parent, &state.name)) {
                fallen.push((index, Refusal::NameTaken));
            } else if let Some((frees, _)) = holder.and_then(|id| self.standing(id)) {
                self.relies.insert(frees, index);
            }
        }
        Ok(fallen)
    }

    /// Deleted folders are empty afterwards.
    fn empty_folders(&mut self) -> Result<Fallen, N::Error> {
        let mut fallen = Fallen::new();
        let unemptied = std::mem::take(&mut self.unemptied);
        let nodes = self.nodes;
        for (index, change) in self.standing_of(unemptied) {
            let mut looks = 1;
            // Who leaves has a change of its own here, so no more are shown than there are changes, and one.
            let stays = nodes.any_child(change.id, &mut |child| {
                looks += 1;
                self.standing(child).is_none_or(|(_, change_of_child)| {
                    change_of_child.state.as_ref().is_some_and(|state| state.parent == change.id)
                })
            })?;
            self.looks += looks;
            fallen.extend(stays.then_some((index, Refusal::NotEmpty)));
        }
        Ok(fallen)
    }

    /// A change fell, and its node stays what it was: what rested on it is looked at again.
    fn undo(&mut self, index: usize) -> Result<(), N::Error> {
        let Some(change) = self.changes.get(index) else { return Ok(()) };
        self.unnamed.extend(self.relies.get(&index));
        let parent = self.node(change.id)?.and_then(|node| node.state.as_ref()).map(|state| state.parent);
        if let Some((deletes, Change { state: None, .. })) = parent.and_then(|parent| self.standing(parent)) {
            self.unemptied.push(deletes);
        }
        if self.places.knows(change.id) {
            let above = self.folder_above(change.id)?;
            self.looks += self.places.moved(change.id, above);
        }
        Ok(())
    }
}

fn is_folder(node: &Node) -> bool {
    node.state.as_ref().is_some_and(|state| state.kind.is_folder())
}

#[cfg(test)]
mod tests;
