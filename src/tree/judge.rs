//! Which changes of a commit stand. The server's only rule book; pure, over any place that nodes are kept in.

use crate::model::{Change, Name, Node, NodeId, NodeState, Refusal, Seq, limits};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Where the judged share is kept. Errors are those of the place, and end the judgement.
pub trait Nodes {
    /// What reading may fail with.
    type Error;
    /// The node at its latest version, tombstones included; `None` for one that never was.
    fn node(&self, id: NodeId) -> Result<Option<Node>, Self::Error>;
    /// The live node with that name in that folder.
    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>, Self::Error>;
    /// The live children of a folder, in any order.
    fn children(&self, parent: NodeId) -> Result<Vec<NodeId>, Self::Error>;
}

/// Decides each change of one commit, in order: `None` stands, `Some` is refused. `content_ok[i]` says whether the
/// blocks that change `i` names are all held.
///
/// The changes that stand are looked at together, not one after the other, so that two files may swap names in one
/// commit. A refusal may undo the ground of another change (the name it would have freed), hence the repetition until
/// nothing more falls.
pub fn judge<N: Nodes>(
    nodes: &N,
    changes: &[Change],
    content_ok: &[bool],
) -> Result<Vec<Option<Refusal>>, N::Error> {
    let mut court = Court { nodes, cache: HashMap::new() };
    let mut verdicts = court.first_look(changes, content_ok)?;
    loop {
        let standing = Standing::new(changes, &verdicts);
        let mut fallen = Vec::new();
        for rule in [Court::places, Court::names, Court::empty_folders] {
            fallen = rule(&mut court, &standing)?;
            if !fallen.is_empty() {
                break;
            }
        }
        if fallen.is_empty() {
            return Ok(verdicts);
        }
        for (index, refusal) in fallen {
            if let Some(verdict) = verdicts.get_mut(index) {
                *verdict = Some(refusal);
            }
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

type Fallen = Vec<(usize, Refusal)>;

struct Court<'a, N: Nodes> {
    nodes: &'a N,
    /// Lookups of this judgement: ancestors are asked for again and again.
    cache: HashMap<NodeId, Option<Node>>,
}

impl<N: Nodes> Court<'_, N> {
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
            for child in self.nodes.children(change.id)? {
                let stays = match standing.by_id.get(&child) {
                    Some((_, state)) => state.is_some_and(|state| state.parent == change.id),
                    None => true,
                };
                if stays {
                    fallen.push((*index, Refusal::NotEmpty));
                    break;
                }
            }
        }
        Ok(fallen)
    }
}

fn is_folder(node: &Node) -> bool {
    node.state.as_ref().is_some_and(|state| state.kind.is_folder())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use std::convert::Infallible;

    #[derive(Default)]
    struct Share(BTreeMap<NodeId, Node>);

    impl Nodes for Share {
        type Error = Infallible;
        fn node(&self, id: NodeId) -> Result<Option<Node>, Infallible> {
            Ok(self.0.get(&id).cloned())
        }
        fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>, Infallible> {
            let found = self
                .0
                .values()
                .find(|n| n.state.as_ref().is_some_and(|s| s.parent == parent && s.name == *name));
            Ok(found.map(|n| n.id))
        }
        fn children(&self, parent: NodeId) -> Result<Vec<NodeId>, Infallible> {
            let live = self.0.values().filter(|n| n.state.as_ref().is_some_and(|s| s.parent == parent));
            Ok(live.map(|n| n.id).collect())
        }
    }

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    fn folder(parent: u8, name: &str) -> Option<NodeState> {
        Some(NodeState { parent: id(parent), name: Name::new(name.as_bytes()).unwrap(), kind: Kind::Folder })
    }

    fn link(parent: u8, name: &str) -> Option<NodeState> {
        let kind = Kind::Symlink { target: b"t".to_vec(), mtime_ns: 0 };
        Some(NodeState { parent: id(parent), name: Name::new(name.as_bytes()).unwrap(), kind })
    }

    fn change(n: u8, base: u64, state: Option<NodeState>) -> Change {
        Change { id: id(n), base: Seq(base), state }
    }

    /// Share: 1 = folder a, 2 = folder a/b, 3 = link a/x, 4 = link y, 5 = tombstone. All at version 1.
    fn share() -> Share {
        let states =
            [(1, folder(0, "a")), (2, folder(1, "b")), (3, link(1, "x")), (4, link(0, "y")), (5, None)];
        Share(
            states
                .into_iter()
                .map(|(n, state)| (id(n), Node { id: id(n), version: Seq(1), state }))
                .collect(),
        )
    }

    fn verdicts(changes: &[Change]) -> Vec<Option<Refusal>> {
        judge(&share(), changes, &vec![true; changes.len()]).unwrap()
    }

    #[test]
    fn a_change_on_top_of_another_version_is_stale() {
        assert_eq!(verdicts(&[change(4, 0, link(0, "z"))]), [Some(Refusal::Stale)]);
        assert_eq!(verdicts(&[change(9, 1, link(0, "z"))]), [Some(Refusal::Stale)]);
        assert_eq!(verdicts(&[change(5, 1, link(0, "z"))]), [None], "a tombstone can come back");
    }

    #[test]
    fn two_names_swap_in_one_commit_and_a_refusal_frees_nothing() {
        assert_eq!(verdicts(&[change(3, 1, link(0, "y")), change(4, 1, link(1, "x"))]), [None, None]);
        assert_eq!(
            verdicts(&[change(3, 1, link(0, "y")), change(4, 0, link(1, "x"))]),
            [Some(Refusal::NameTaken), Some(Refusal::Stale)]
        );
    }

    #[test]
    fn of_two_claims_to_one_name_the_first_stands() {
        assert_eq!(
            verdicts(&[change(8, 0, link(0, "n")), change(9, 0, link(0, "n"))]),
            [None, Some(Refusal::NameTaken)]
        );
        assert_eq!(verdicts(&[change(8, 0, link(0, "y"))]), [Some(Refusal::NameTaken)]);
    }

    #[test]
    fn a_folder_is_deleted_only_with_everything_in_it() {
        assert_eq!(verdicts(&[change(1, 1, None)]), [Some(Refusal::NotEmpty)]);
        assert_eq!(verdicts(&[change(1, 1, None), change(2, 1, None), change(3, 1, None)]), [None; 3]);
        assert_eq!(
            verdicts(&[change(1, 1, None), change(2, 1, None), change(3, 1, link(0, "x"))]),
            [None; 3]
        );
    }

    #[test]
    fn parents_must_be_live_folders() {
        assert_eq!(verdicts(&[change(9, 0, link(4, "n"))]), [Some(Refusal::ParentGone)]);
        assert_eq!(verdicts(&[change(9, 0, link(5, "n"))]), [Some(Refusal::ParentGone)]);
        assert_eq!(verdicts(&[change(9, 0, link(8, "n")), change(8, 0, folder(0, "new"))]), [None, None]);
        assert_eq!(
            verdicts(&[change(9, 0, link(2, "n")), change(2, 1, None)]),
            [Some(Refusal::ParentGone), None]
        );
    }

    #[test]
    fn nothing_moves_into_itself() {
        assert_eq!(verdicts(&[change(1, 1, folder(2, "a"))]), [Some(Refusal::Cycle)]);
        assert_eq!(
            verdicts(&[change(1, 1, folder(8, "a")), change(8, 0, folder(2, "n"))]),
            [Some(Refusal::Cycle), Some(Refusal::Cycle)]
        );
    }

    #[test]
    fn root_twice_named_and_sort_changing_nodes_are_invalid() {
        assert_eq!(verdicts(&[change(0, 0, None)]), [Some(Refusal::Invalid)]);
        assert_eq!(
            verdicts(&[change(4, 1, link(0, "z")), change(4, 1, None)]),
            [None, Some(Refusal::Invalid)]
        );
        assert_eq!(verdicts(&[change(4, 1, folder(0, "y"))]), [Some(Refusal::Invalid)]);
        assert_eq!(verdicts(&[change(9, 0, folder(0, ".dropblock"))]), [Some(Refusal::Invalid)]);
        assert_eq!(verdicts(&[change(9, 0, folder(1, ".dropblock"))]), [None]);
    }

    #[test]
    fn content_without_its_blocks_is_refused() {
        let put = change(9, 0, link(0, "z"));
        assert_eq!(judge(&share(), &[put], &[false]).unwrap(), [Some(Refusal::MissingBlocks)]);
    }
}
