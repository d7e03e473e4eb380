//! One merge: base, here, there, and what comes out.

use crate::disk::carry_out;
use crate::script::{ORIGIN, diff, patched, picture, run};
use crate::share::Server;
use dropblock::model::{BlockHash, IdSource, Kind};
use dropblock::reconcile::{DiskOp, Merge, Sides, plan_disk, reconcile};
use dropblock::tree::{Diff, Tree};
use std::collections::BTreeSet;

/// A merge that was made and found sound.
pub struct Case {
    pub base: Tree,
    pub here: Tree,
    pub there: Tree,
    pub merge: Merge,
    pub goal: Tree,
}

/// Merges what `here` and `there` made of `base`, and checks what holds for every merge.
pub fn case(base: &str, here: &str, there: &str) -> Case {
    let mut ids = IdSource::new([1; 32]);
    let mut start = Tree::new();
    run(&mut start, base, &mut ids);
    let (mut local, mut remote) = (start.clone(), start.clone());
    run(&mut local, here, &mut ids);
    run(&mut remote, there, &mut ids);
    merged(start, local, remote, ids)
}

/// The same from trees.
pub fn merged(base: Tree, here: Tree, there: Tree, mut ids: IdSource) -> Case {
    let (local, remote) = (diff(&base, &here), diff(&base, &there));
    let sides = Sides { base: &base, local: &local, remote: &remote };
    let merge = reconcile(sides, ORIGIN, &mut ids.clone());
    let again = reconcile(sides, ORIGIN, &mut ids);
    assert_eq!(merge.nodes, again.nodes, "not deterministic");
    let goal = patched(&base, &merge.nodes);
    assert_eq!(picture(&carry_out(&base, &merge)), picture(&goal), "the plan does not lead to the goal");
    let mut server = Server::default();
    server.commit(&base);
    server.commit(&there);
    server.commit(&goal);
    let kept = bytes_of(&goal, |_, _| true);
    for side in [&here, &there] {
        for hash in written(&base, side) {
            assert!(kept.contains(&hash), "bytes were lost");
        }
    }
    let settled =
        reconcile(Sides { base: &goal, local: &Diff::new(), remote: &Diff::new() }, ORIGIN, &mut ids);
    assert!(settled.nodes.is_empty(), "a second merge does something");
    Case { base, here, there, merge, goal }
}

fn bytes_of(tree: &Tree, wanted: impl Fn(dropblock::model::NodeId, &Kind) -> bool) -> BTreeSet<BlockHash> {
    let files = tree.iter().filter(|(id, node)| wanted(*id, &node.state.kind));
    files.filter_map(|(_, node)| node.state.kind.content().map(|content| content.root.hash)).collect()
}

/// Bytes that a side wrote: new files, and files whose bytes it changed.
fn written(base: &Tree, side: &Tree) -> BTreeSet<BlockHash> {
    bytes_of(side, |id, kind| base.get(id).is_none_or(|old| !old.state.kind.same_content(kind)))
}

impl Case {
    /// What both sides hold in the end.
    #[track_caller]
    pub fn becomes(self, picture_wanted: &str) -> Self {
        assert_eq!(picture(&self.goal).join(" "), picture_wanted);
        self
    }

    /// Nothing is done here, and nothing is sent.
    #[track_caller]
    pub fn nothing_to_do(self) -> Self {
        assert_eq!(self.ops(), "", "disk operations");
        assert!(self.sends_nothing(), "changes for the server");
        self
    }

    /// The server has the outcome already.
    pub fn sends_nothing(&self) -> bool {
        diff(&self.there, &self.goal).is_empty()
    }

    #[track_caller]
    pub fn sends(self, wanted: bool) -> Self {
        assert_eq!(!self.sends_nothing(), wanted);
        self
    }

    /// No conflict copy was made.
    #[track_caller]
    pub fn without_copies(self) -> Self {
        let marks = picture(&self.goal).iter().filter(|line| line.contains("{pc")).count();
        let before: usize = [&self.here, &self.there]
            .map(|side| picture(side).iter().filter(|line| line.contains("{pc")).count())
            .into_iter()
            .sum();
        assert!(marks <= before && self.merge.copies.is_empty(), "{:?}", picture(&self.goal));
        self
    }

    /// The disk operations in order, by the paths that nodes have in the end or had before.
    pub fn ops(&self) -> String {
        let disk = patched(&self.base, &self.merge.local);
        let path = |id| {
            let path = disk.path_of(id).or_else(|| self.goal.path_of(id)).expect("a node of either tree");
            crate::script::shown(&path.to_string())
        };
        let goal = |id| crate::script::shown(&self.goal.path_of(id).expect("it stays").to_string());
        let shown = plan_disk(&self.base, &self.merge).into_iter().map(|op| match op {
            DiskOp::Trash { id } => format!("trash {}", path(id)),
            DiskOp::RemoveFolder { id } => format!("rmdir {}", path(id)),
            DiskOp::MakeFolder { id, .. } => format!("mkdir {}", goal(id)),
            DiskOp::Park { id } => format!("park {}", path(id)),
            DiskOp::Move { id, .. } => format!("move {} {}", path(id), goal(id)),
            DiskOp::Place { id, copy: Some((copy, _)), .. } => format!("swap {} {}", goal(id), goal(copy)),
            DiskOp::Place { id, .. } => format!("place {}", goal(id)),
            DiskOp::Meta { id, .. } => format!("meta {}", goal(id)),
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// For outcomes where several names would do: these bytes are all there, and this is among the lines.
    #[track_caller]
    pub fn becomes_with_contents(self, line: &str, contents: &[&str]) -> Self {
        let lines = picture(&self.goal);
        assert!(lines.contains(&line.to_owned()), "{lines:?}");
        let mut held: Vec<&str> =
            lines.iter().filter_map(|line| line.split_once('=')).map(|(_, c)| c).collect();
        held.sort_unstable();
        assert_eq!(held, contents);
        self
    }

    #[track_caller]
    pub fn does(self, ops: &str) -> Self {
        assert_eq!(self.ops(), ops);
        self
    }
}

/// A row that says the same whichever side is which.
#[track_caller]
pub fn both_ways(base: &str, one: &str, other: &str, becomes: &str) {
    case(base, one, other).becomes(becomes);
    case(base, other, one).becomes(becomes);
}
