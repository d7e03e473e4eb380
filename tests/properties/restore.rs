//! Restoring anything, from any time, to any share: the place becomes what it was, nothing else changes, the changes can be
//! committed in parts of any size, and a restore to before undoes it.

use dropblock::model::{Change, IdSource, Kind, Name, Node, NodeId, NodeState, RelPath, Seq};
use dropblock::reconcile::restore::{Place, Restore, Step, missing_folders, plan};
use dropblock::tree::{Nodes, Tree, TreeNode, judge};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;

type Share = BTreeMap<NodeId, Node>;

/// A share and all it ever was.
#[derive(Debug, Clone)]
struct Past(Vec<Share>);

impl Nodes for Past {
    type Error = Infallible;
    fn node(&self, id: NodeId) -> Result<Option<Node>, Infallible> {
        Ok(self.now().get(&id).cloned())
    }
    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>, Infallible> {
        Ok(child(self.now(), parent, name))
    }
    fn any_child(&self, parent: NodeId, is: &mut dyn FnMut(NodeId) -> bool) -> Result<bool, Infallible> {
        Ok(children(self.now(), parent).into_iter().any(is))
    }
}

fn children(share: &Share, parent: NodeId) -> Vec<NodeId> {
    let inside = |node: &&Node| node.state.as_ref().is_some_and(|state| state.parent == parent);
    share.values().filter(inside).map(|node| node.id).collect()
}

fn child(share: &Share, parent: NodeId, name: &Name) -> Option<NodeId> {
    children(share, parent).into_iter().find(|id| share[id].state.as_ref().unwrap().name == *name)
}

impl Past {
    fn now(&self) -> &Share {
        self.0.last().unwrap()
    }

    fn head(&self) -> usize {
        self.0.len() - 1
    }

    /// Commits what stands; how many changes did.
    fn commit(&mut self, changes: Vec<Change>) -> Vec<bool> {
        let verdicts = judge(self, &changes, &vec![true; changes.len()]).unwrap();
        let stands: Vec<bool> = verdicts.iter().map(Option::is_none).collect();
        if stands.contains(&true) {
            let version = Seq(self.0.len() as u64);
            let mut next = self.now().clone();
            for (change, _) in changes.into_iter().zip(&stands).filter(|(_, stands)| **stands) {
                next.insert(change.id, Node { id: change.id, version, state: change.state });
            }
            self.0.push(next);
        }
        stands
    }
}

fn name(n: u8) -> Name {
    Name::new(&[b'a' + n % 4]).unwrap()
}

/// One random change: make, change, move or delete something (a folder with all it holds).
fn change(past: &mut Past, ids: &mut IdSource, (what, which, where_to, n): (u8, u8, u8, u8)) {
    let live: Vec<NodeId> = past.now().values().filter(|n| n.state.is_some()).map(|n| n.id).collect();
    let folders: Vec<NodeId> = std::iter::once(NodeId::ROOT)
        .chain(live.iter().copied().filter(|id| past.now()[id].state.as_ref().unwrap().kind.is_folder()))
        .collect();
    let parent = folders[usize::from(where_to) % folders.len()];
    let link = Kind::Symlink { target: vec![1 + n % 200], mtime_ns: 0 };
    let picked = live.get(usize::from(which) % live.len().max(1)).map(|id| past.now()[id].clone());
    let changes = match (what % 5, picked) {
        (0 | 1, _) | (_, None) => {
            let kind = if what % 2 == 0 { Kind::Folder } else { link };
            vec![Change {
                id: ids.node(),
                base: Seq(0),
                state: Some(NodeState { parent, name: name(n), kind }),
            }]
        }
        (2, Some(node)) => {
            let kind = match &node.state.as_ref().unwrap().kind {
                Kind::Folder => Kind::Folder,
                _ => link,
            };
            vec![Change {
                id: node.id,
                base: node.version,
                state: Some(NodeState { kind, ..node.state.unwrap() }),
            }]
        }
        (3, Some(node)) => {
            let kind = node.state.unwrap().kind;
            vec![Change {
                id: node.id,
                base: node.version,
                state: Some(NodeState { parent, name: name(n), kind }),
            }]
        }
        (_, Some(node)) => {
            let mut gone = vec![node.id];
            let mut next = 0;
            while let Some(id) = gone.get(next).copied() {
                gone.extend(children(past.now(), id));
                next += 1;
            }
            let delete = |id: NodeId| Change { id, base: past.now()[&id].version, state: None };
            gone.into_iter().map(delete).collect()
        }
    };
    past.commit(changes);
}

/// `top` and all below it.
fn tree(share: &Share, top: NodeId) -> Tree {
    let mut all = vec![top];
    let mut next = 0;
    while let Some(id) = all.get(next).copied() {
        all.extend(children(share, id));
        next += 1;
    }
    let mut tree = Tree::new();
    for node in all.iter().filter_map(|id| share.get(id)) {
        if let Some(state) = &node.state {
            tree.insert(node.id, TreeNode { version: node.version, state: state.clone() });
        }
    }
    tree
}

fn at(share: &Share, path: &[Name]) -> Vec<NodeId> {
    let mut found = Vec::new();
    for name in path {
        match child(share, found.last().copied().unwrap_or(NodeId::ROOT), name) {
            Some(id) => found.push(id),
            None => break,
        }
    }
    found
}

/// Paths and contents at and below a path.
fn picture(share: &Share, path: &[Name]) -> BTreeMap<Vec<Name>, Kind> {
    let along = at(share, path);
    if along.len() < path.len() {
        return BTreeMap::new();
    }
    let mut found = BTreeMap::new();
    let mut next = vec![(path.to_vec(), along.last().copied().unwrap_or(NodeId::ROOT))];
    while let Some((path, id)) = next.pop() {
        for child in children(share, id) {
            let mut path = path.clone();
            path.push(share[&child].state.as_ref().unwrap().name.clone());
            next.push((path, child));
        }
        if let Some(state) = share.get(&id).and_then(|node| node.state.as_ref()) {
            found.insert(path, state.kind.clone());
        }
    }
    found
}

/// The steps that restore `path` as after commit `when`; as the client finds them, from what the server tells it.
fn steps(past: &Past, when: usize, path: &[Name], lost: &HashSet<NodeId>, ids: &mut IdSource) -> Vec<Step> {
    let (then, now) = (&past.0[when], past.now());
    let top = at(then, path).last().copied().unwrap_or(NodeId::ROOT);
    let then_tree = tree(then, top);
    let standing: HashMap<NodeId, Node> =
        then_tree.iter().filter_map(|(id, _)| Some((id, now.get(&id)?.clone()))).collect();
    let mut first = Vec::new();
    let (mut place, mut now_tree) = (None, tree(now, NodeId::ROOT));
    if let Some((last, folder)) = path.split_last() {
        let above = at(now, folder);
        let (there, missing) = folder.split_at(above.len());
        let deleted: Vec<Option<Node>> =
            at(then, folder).iter().skip(there.len()).map(|id| now.get(id).cloned()).collect();
        let parent = above.last().copied().unwrap_or(NodeId::ROOT);
        let (made, parent) =
            missing_folders(parent, &RelPath::from_names(there.to_vec()), missing, &deleted, ids);
        first = made;
        place = Some(Place { parent, name: last.clone(), path: RelPath::from_names(path.to_vec()) });
        now_tree = child(now, parent, last).map_or_else(Tree::new, |holder| tree(now, holder));
    }
    let restore =
        Restore { then: &then_tree, top, now: &now_tree, standing: &standing, place, copy: false, lost };
    first.extend(plan(&restore, ids));
    first
}

/// Commits in parts of `size`, and plans again what was refused, until nothing is left.
fn restore(
    past: &mut Past,
    when: usize,
    path: &[Name],
    lost: &HashSet<NodeId>,
    size: usize,
    ids: &mut IdSource,
) -> Result<(), TestCaseError> {
    loop {
        let steps = steps(past, when, path, lost, ids);
        if steps.is_empty() {
            return Ok(());
        }
        let mut any = false;
        for part in steps.chunks(size) {
            let stands = past.commit(part.iter().map(|step| step.change.clone()).collect());
            any |= stands.contains(&true);
        }
        prop_assert!(any, "no progress with {:?}", steps);
    }
}

/// A share with a past, a commit, and a path that was there after it. Some paths' folders are links by now: not those.
fn case() -> impl Strategy<Value = (Past, usize, Vec<Name>)> {
    let changes = vec(any::<(u8, u8, u8, u8)>(), 1..40);
    (changes, any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(
        |(changes, when, which)| {
            let mut past = Past(vec![Share::new()]);
            let mut ids = IdSource::new([3; 32]);
            changes.into_iter().for_each(|deed| change(&mut past, &mut ids, deed));
            let when = when.index(past.0.len());
            let mut paths: Vec<Vec<Name>> = picture(&past.0[when], &[]).into_keys().collect();
            paths.push(Vec::new());
            paths.retain(|path| {
                let along = at(past.now(), path.split_last().map_or(&[][..], |(_, folder)| folder));
                along.iter().all(|id| past.now()[id].state.as_ref().unwrap().kind.is_folder())
            });
            let path = which.get(&paths).clone();
            (past, when, path)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn a_restore_makes_the_place_what_it_was_and_one_to_before_undoes_it(
        (mut past, when, path) in case(),
        size in prop_oneof![1..8usize, Just(1000)],
    ) {
        let mut ids = IdSource::new([4; 32]);
        let before = past.clone();
        // A cycle of names as long as a part cannot be broken up: real parts have 2,048 changes.
        let size = if size < 8 { size + 8 } else { size };
        restore(&mut past, when, &path, &HashSet::new(), size, &mut ids)?;
        prop_assert_eq!(picture(past.now(), &path), picture(&past.0[when], &path));
        // What is outside is as it was: same nodes, same versions, but for folders that had to be made above the place.
        let inside = picture(before.now(), &path);
        for (outside, kind) in picture(before.now(), &[]) {
            if !outside.starts_with(&path) {
                let (old, new) = (at(before.now(), &outside), at(past.now(), &outside));
                prop_assert_eq!(&old, &new);
                let id = old.last().unwrap();
                prop_assert_eq!(&before.now()[id], &past.now()[id], "{:?}", kind);
            }
        }
        if !inside.is_empty() || path.is_empty() {
            restore(&mut past, before.head(), &path, &HashSet::new(), size, &mut ids)?;
            prop_assert_eq!(picture(past.now(), &[]), picture(before.now(), &[]));
        }
    }

    #[test]
    fn what_is_lost_stays_as_it_is_and_the_rest_is_restored(
        (mut past, when, path) in case(),
        is_lost in vec(any::<bool>(), 16),
        size in prop_oneof![8..16usize, Just(1000)],
    ) {
        let (then, before) = (past.0[when].clone(), past.now().clone());
        let is_file = |share: &Share, id: &NodeId| {
            share.get(id).and_then(|node| node.state.as_ref()).is_some_and(|state| !state.kind.is_folder())
        };
        let files = then.keys().filter(|id| is_file(&then, id));
        let lost: HashSet<NodeId> =
            files.enumerate().filter(|(n, _)| is_lost[n % is_lost.len()]).map(|(_, id)| *id).collect();
        let below = |share: &Share| -> HashSet<NodeId> {
            picture(share, &path).keys().map(|path| *at(share, path).last().unwrap()).collect()
        };
        let (inside, wanted) = (below(&before), below(&then));
        let (old, now) = (picture(&then, &path), picture(&before, &path));
        restore(&mut past, when, &path, &lost, size, &mut IdSource::new([4; 32]))?;
        let after = picture(past.now(), &path);
        prop_assert!(after.keys().all(|path| old.contains_key(path)));
        for (path, kind) in &old {
            let id = at(&then, path).last().copied().unwrap();
            if !lost.contains(&id) {
                prop_assert_eq!(after.get(path), Some(kind));
            } else if inside.contains(&id) && is_file(&before, &id) {
                prop_assert_eq!(after.get(path), before[&id].state.as_ref().map(|state| &state.kind));
            } else {
                let holder = at(&before, path);
                let stays = holder.len() == path.len()
                    && !wanted.contains(holder.last().unwrap())
                    && is_file(&before, holder.last().unwrap());
                if stays {
                    prop_assert_eq!(after.get(path), now.get(path));
                }
            }
        }
    }

    #[test]
    fn the_whole_share_comes_back_node_for_node((mut past, when, _) in case()) {
        let mut ids = IdSource::new([4; 32]);
        let live = |share: &Share| -> BTreeMap<NodeId, NodeState> {
            share.values().filter_map(|node| Some((node.id, node.state.clone()?))).collect()
        };
        let then = live(&past.0[when]);
        // A name that a newer node of the same sort has now is given to that one, if the old one was deleted.
        let same_ids = then.keys().all(|id| past.now()[id].state.is_some());
        restore(&mut past, when, &[], &HashSet::new(), 1000, &mut ids)?;
        if same_ids {
            prop_assert_eq!(live(past.now()), then);
        }
    }

    #[test]
    fn a_restore_of_what_is_so_already_does_nothing((past, _, path) in case()) {
        if at(past.now(), &path).len() == path.len() {
            prop_assert_eq!(steps(&past, past.head(), &path, &HashSet::new(), &mut IdSource::new([4; 32])), vec![]);
        }
    }
}
