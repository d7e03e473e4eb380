//! The rules one by one, that the judge agrees with the loop it came from, and how much it looks at.

use super::*;
use crate::model::{Kind, limits};
use model::judge_in_rounds;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;

mod model;

#[derive(Default, Clone)]
struct Share(BTreeMap<NodeId, Node>);

impl Nodes for Share {
    type Error = Infallible;
    fn node(&self, id: NodeId) -> Result<Option<Node>, Infallible> {
        Ok(self.0.get(&id).cloned())
    }
    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>, Infallible> {
        let found =
            self.0.values().find(|n| n.state.as_ref().is_some_and(|s| s.parent == parent && s.name == *name));
        Ok(found.map(|n| n.id))
    }
    fn any_child(&self, parent: NodeId, is: &mut dyn FnMut(NodeId) -> bool) -> Result<bool, Infallible> {
        let mut live = self.0.values().filter(|n| n.state.as_ref().is_some_and(|s| s.parent == parent));
        Ok(live.any(|n| is(n.id)))
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
    let states = [(1, folder(0, "a")), (2, folder(1, "b")), (3, link(1, "x")), (4, link(0, "y")), (5, None)];
    Share(states.into_iter().map(|(n, state)| (id(n), Node { id: id(n), version: Seq(1), state })).collect())
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
    assert_eq!(verdicts(&[change(1, 1, None), change(2, 1, None), change(3, 1, link(0, "x"))]), [None; 3]);
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
    assert_eq!(verdicts(&[change(4, 1, link(0, "z")), change(4, 1, None)]), [None, Some(Refusal::Invalid)]);
    assert_eq!(verdicts(&[change(4, 1, folder(0, "y"))]), [Some(Refusal::Invalid)]);
    assert_eq!(verdicts(&[change(9, 0, folder(0, ".dropblock"))]), [Some(Refusal::Invalid)]);
    assert_eq!(verdicts(&[change(9, 0, folder(1, ".dropblock"))]), [None]);
}

#[test]
fn content_without_its_blocks_is_refused() {
    let put = change(9, 0, link(0, "z"));
    assert_eq!(judge(&share(), &[put], &[false]).unwrap(), [Some(Refusal::MissingBlocks)]);
}

/// Both judges agree; what stands is applied. Returns the verdicts and what the new one looked at.
fn judged(share: &mut Share, version: u64, changes: &[Change]) -> (Vec<Option<Refusal>>, usize) {
    let content_ok = vec![true; changes.len()];
    let mut court = Court::new(&*share, changes, &content_ok).unwrap();
    court.decide().unwrap();
    let (verdicts, looks) = (court.verdicts, court.looks);
    assert_eq!(verdicts, judge_in_rounds(&*share, changes, &content_ok).unwrap(), "{changes:?}");
    for (change, _) in changes.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_none()) {
        let node = Node { id: change.id, version: Seq(version), state: change.state.clone() };
        share.0.insert(change.id, node);
    }
    (verdicts, looks)
}

/// Node, whether the base is right, where it goes: folder, name, and whether it is a folder itself.
type Wish = (u8, bool, Option<(u8, u8, bool)>);

fn wishes() -> impl Strategy<Value = Vec<Vec<Wish>>> {
    let place = (0u8..13, 0u8..4, prop::bool::weighted(0.6));
    let wish = (1u8..13, prop::bool::weighted(0.95), prop::option::weighted(0.75, place));
    prop::collection::vec(prop::collection::vec(wish, 1..14), 1..8)
}

/// A node keeps its sort, mostly, or few changes would stand.
fn wished(share: &Share, wishes: &[Wish]) -> Vec<Change> {
    let wished = |(n, right, place): &Wish| {
        let now = share.0.get(&id(*n));
        let base = now.map_or(0, |node| node.version.0) + u64::from(!right);
        let state = place.and_then(|(parent, name, is_folder)| {
            let live = now.and_then(|node| node.state.as_ref());
            let is_folder = live.map_or(is_folder, |state| state.kind.is_folder() ^ (name == 3 && is_folder));
            let name = ["a", "b", "c", "d"][usize::from(name)];
            if is_folder { folder(parent, name) } else { link(parent, name) }
        });
        change(*n, base, state)
    };
    wishes.iter().map(wished).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn looking_only_at_what_rested_on_the_fallen_finds_what_looking_at_everything_finds(commits in wishes()) {
        let mut share = Share::default();
        for (version, wishes) in (1..).zip(&commits) {
            let changes = wished(&share, wishes);
            judged(&mut share, version, &changes);
        }
    }
}

fn nth(n: usize) -> NodeId {
    NodeId::from_bytes((n as u128).to_be_bytes())
}

fn state_at(parent: usize, name: usize, kind: Kind) -> Option<NodeState> {
    let name = Name::new(name.to_string().as_bytes()).unwrap();
    Some(NodeState { parent: nth(parent), name, kind })
}

fn nth_change(n: usize, base: u64, state: Option<NodeState>) -> Change {
    Change { id: nth(n), base: Seq(base), state }
}

fn a_link() -> Kind {
    Kind::Symlink { target: b"t".to_vec(), mtime_ns: 0 }
}

#[test]
fn a_chain_of_renames_that_all_fall_is_looked_at_as_often_as_it_is_long() {
    let n = 600;
    let mut share = Share::default();
    let made: Vec<Change> = (1..=n + 1).map(|i| nth_change(i, 0, state_at(0, i, a_link()))).collect();
    judged(&mut share, 1, &made);
    // Each takes the name of the next; the last stays.
    let renames: Vec<Change> = (1..=n).map(|i| nth_change(i, 1, state_at(0, i + 1, a_link()))).collect();
    let (verdicts, looks) = judged(&mut share, 2, &renames);
    assert_eq!(verdicts, vec![Some(Refusal::NameTaken); n]);
    assert!(looks <= 8 * n, "{looks}");
}

#[test]
fn folders_that_fall_one_by_one_have_looked_at_what_hangs_on_them() {
    // Folders 1.. are to hang in each other, each under the name that the link beside it leaves free for the folder.
    let n = 100;
    let mut share = Share::default();
    let mut made = vec![nth_change(999, 0, state_at(0, 999, a_link()))];
    made.extend((1..=n).map(|i| nth_change(i, 0, state_at(0, i, Kind::Folder))));
    made.extend((1..=n).map(|i| nth_change(1000 + i, 0, state_at(i - 1, 5000, a_link()))));
    judged(&mut share, 1, &made);
    // Folder i takes the place of link 1000 + i, which takes the one that folder i - 1 leaves; the first is not left.
    let mut changes = Vec::new();
    for i in 1..=n {
        changes.push(nth_change(i, 1, state_at(i - 1, 5000, Kind::Folder)));
        let to = if i == 1 { 999 } else { i - 1 };
        changes.push(nth_change(1000 + i, 1, state_at(0, to, a_link())));
    }
    let (verdicts, looks) = judged(&mut share, 2, &changes);
    assert!(verdicts.iter().all(Option::is_some));
    assert!(looks <= 4 * n * n, "{looks}");
}

#[test]
fn what_is_too_deep_or_goes_round_is_named_as_ever() {
    let deepest = limits::PATH_DEPTH_MAX;
    for depth in [deepest - 2, deepest - 1, deepest] {
        let mut share = Share::default();
        let chain: Vec<Change> =
            (1..=depth).map(|i| nth_change(i, 0, state_at(i - 1, 1, Kind::Folder))).collect();
        judged(&mut share, 1, &chain);
        let into = |n: usize, parent: usize| nth_change(n, 0, state_at(parent, 7, a_link()));
        judged(&mut share.clone(), 2, &[into(5000, depth), into(5001, depth - 1), into(5002, depth - 2)]);
        // The top goes into the bottom: round, with others below.
        let round = nth_change(1, 1, state_at(depth - 1, 8, Kind::Folder));
        judged(&mut share.clone(), 2, &[into(5000, depth), round.clone(), into(5001, depth - 1)]);
        judged(&mut share.clone(), 2, &[round, nth_change(3, 1, None), into(5000, depth)]);
        // Deeper than a path may be, with a gap above.
        let below: Vec<Change> = (6000..6010)
            .map(|i| nth_change(i, 0, state_at(if i == 6000 { depth - 1 } else { i - 1 }, 9, Kind::Folder)))
            .chain([nth_change(2, 1, None)])
            .collect();
        judged(&mut share, 2, &below);
    }
}

#[test]
fn a_full_folder_is_seen_by_one_child_more_than_leave_it() {
    let mut share = Share::default();
    let mut made = vec![nth_change(1, 0, state_at(0, 1, Kind::Folder))];
    made.extend((2..1000).map(|i| nth_change(i, 0, state_at(1, i, a_link()))));
    judged(&mut share, 1, &made);
    let (verdicts, looks) = judged(&mut share, 2, &[nth_change(1, 1, None)]);
    assert_eq!((verdicts, looks), (vec![Some(Refusal::NotEmpty)], 1 + 1 + 1));
    let leave = [nth_change(1, 1, None), nth_change(2, 1, None), nth_change(3, 1, state_at(0, 3, a_link()))];
    let (verdicts, looks) = judged(&mut share, 2, &leave);
    assert_eq!(verdicts, [Some(Refusal::NotEmpty), None, None]);
    assert!(looks <= 3 + 2 + 4, "{looks}");
}
