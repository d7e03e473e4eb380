//! What one question takes, counted: look-ups and bytes.

use super::*;
use crate::model::past::{Look, Seen, Versions};
use crate::model::{Change, Kind, codec};
use crate::storage::conformance::{request, run};
use crate::storage::{Journal, MemoryStore, ShareId};
use std::cell::Cell;
use std::collections::BTreeSet;

/// Counts what is looked up.
struct Counted<'a, L> {
    line: &'a L,
    looks: Cell<usize>,
}

impl<L> Counted<'_, L> {
    fn look(&self, looks: usize) -> &L {
        self.looks.set(self.looks.get() + looks);
        self.line
    }
}

impl<L: Timeline> Timeline for Counted<'_, L> {
    fn node(&self, id: NodeId) -> Result<Option<Node>> {
        self.look(1).node(id)
    }

    fn replaced(&self, id: NodeId, at: Seq) -> Result<Option<Replaced>> {
        self.look(1).replaced(id, at)
    }

    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>> {
        self.look(1).child(parent, name)
    }

    fn left_next(&self, parent: NodeId, name: &Name, at: Seq) -> Result<Option<NodeId>> {
        self.look(1).left_next(parent, name, at)
    }

    fn left_last(&self, parent: NodeId, name: &Name, max: usize) -> Result<Vec<(NodeId, Seq)>> {
        let found = self.look(1).left_last(parent, name, max)?;
        self.look(found.len());
        Ok(found)
    }

    fn children_after(
        &self,
        parent: NodeId,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, NodeId)>> {
        self.look(max).children_after(parent, after, max)
    }

    fn left_after(
        &self,
        parent: NodeId,
        after: Option<&Name>,
        at: Seq,
        max: usize,
    ) -> Result<Vec<(Name, Option<NodeId>)>> {
        self.look(2 * max).left_after(parent, after, at, max)
    }

    fn log_before(&self, before: (Seq, NodeId), max: usize) -> Result<Vec<(Seq, NodeId)>> {
        self.look(2 * max).log_before(before, max)
    }

    fn commit(&self, seq: Seq) -> Result<Option<CommitInfo>> {
        self.look(1).commit(seq)
    }
}

fn id(n: usize) -> NodeId {
    NodeId::from_bytes((n as u128 + 1).to_be_bytes())
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn change(n: usize, base: u64, parent: NodeId, named: &str, kind: Kind) -> Change {
    let state = NodeState { parent, name: name(named), kind };
    Change { id: id(n), base: Seq(base), state: Some(state) }
}

fn link(len: usize) -> Kind {
    Kind::Symlink { target: vec![b'x'; len], mtime_ns: 0 }
}

fn commit(store: &MemoryStore, share: ShareId, changes: Vec<Change>) {
    let done = run(store.commit(request(share, changes, &[]))).unwrap();
    assert_eq!(done.refused, []);
}

const DEPTH: usize = 1000;
const LINKS: usize = 40;

/// A chain of folders with long names, links at its end, each with another name after another commit.
fn deep() -> (MemoryStore, ShareId, Vec<Name>) {
    let store = MemoryStore::new([1; 32]);
    let (share, _) = run(store.open_share("s")).unwrap();
    let long = "n".repeat(255);
    let parent = |n: usize| if n == 0 { NodeId::ROOT } else { id(n - 1) };
    commit(&store, share, (0..DEPTH).map(|n| change(n, 0, parent(n), &long, Kind::Folder)).collect());
    for (base, named) in [(0, "a"), (2, "b")] {
        let links =
            (0..LINKS).map(|n| change(DEPTH + n, base, parent(DEPTH), &format!("{named}{n}"), link(4000)));
        commit(&store, share, links.collect());
    }
    (store, share, vec![name(&long); DEPTH])
}

/// All pages of a log, and the most look-ups of one.
fn pages(store: &MemoryStore, share: ShareId, path: &[Name]) -> (Vec<Versions>, usize) {
    store.timeline(share, |line| {
        let (mut pages, mut before, mut most) = (Vec::new(), None, 0);
        loop {
            let counted = Counted { line, looks: Cell::new(0) };
            let page = versions(&counted, Seq::ZERO, path, before, 1024).unwrap();
            most = most.max(counted.looks.get());
            before = page.rest;
            pages.push(page);
            if before.is_none() {
                return (pages, most);
            }
        }
    })
}

#[test]
fn a_page_of_a_deep_tree_is_bounded_in_bytes_and_work_and_the_pages_leave_nothing_out() {
    let (store, share, folder) = deep();
    let (all, most) = pages(&store, share, &[]);
    let mut found = Vec::new();
    for page in all {
        let bytes: usize = page.versions.iter().map(log::version_bytes).sum();
        let encoded = codec::encode(&page).unwrap().len();
        assert!(bytes <= PAGE_BYTES_MAX || page.versions.len() == 1, "{bytes}");
        assert!(encoded <= bytes && encoded < crate::model::limits::FRAME_BYTES_MAX / 2, "{encoded}");
        found.extend(page.versions.iter().map(|version| (version.seq, version.node)));
    }
    assert!(found.is_sorted_by(|a, b| a > b));
    assert_eq!(found.len(), DEPTH + 2 * LINKS);
    assert!(most < 10_000, "{most} look-ups for one page");
    // Of the last folder, and of one link, with all that was looked at in vain.
    let (all, most) = pages(&store, share, &folder);
    assert_eq!(all.iter().map(|page| page.versions.len()).sum::<usize>(), 1 + 2 * LINKS);
    assert!(most < 20_000, "{most}");
    let (all, most) = pages(&store, share, &[folder, vec![name("b7")]].concat());
    assert_eq!(all.iter().map(|page| page.versions.len()).sum::<usize>(), 2);
    assert!(most < 20_000, "{most}");
}

#[test]
fn a_place_that_many_nodes_have_left_and_that_changed_often_since_costs_no_more_than_a_question_may() {
    let store = MemoryStore::new([1; 32]);
    let (share, _) = run(store.open_share("s")).unwrap();
    let mut seq = 0;
    // 20 nodes in turn, of which each changes many times after it has left.
    for n in 0..20 {
        commit(&store, share, vec![change(n, 0, NodeId::ROOT, "x", link(1))]);
        commit(&store, share, vec![change(n, seq + 1, NodeId::ROOT, &format!("y{n}"), link(1))]);
        seq += 2;
        for _ in 0..1000 {
            commit(&store, share, vec![change(n, seq, NodeId::ROOT, &format!("y{n}"), link(2))]);
            seq += 1;
        }
    }
    let (all, most) = pages(&store, share, &[name("x")]);
    assert!(most < 40_000, "{most} look-ups for one page");
    let found: BTreeSet<Seq> =
        all.iter().flat_map(|page| &page.versions).map(|version| version.seq).collect();
    // When each came and when it left, and nothing of what was later.
    assert!((0..20).all(|n| found.contains(&Seq(n * 1002 + 1)) && found.contains(&Seq(n * 1002 + 2))));
    assert_eq!(found.len(), 40);
}

#[test]
fn a_look_along_places_that_many_nodes_have_left_costs_a_few_look_ups_for_each_name() {
    const DEPTH: usize = 20;
    const ROUNDS: usize = 50;
    let store = MemoryStore::new([1; 32]);
    let (share, _) = run(store.open_share("s")).unwrap();
    let parent = |n: usize| if n == 0 { NodeId::ROOT } else { id(n - 1) };
    // A chain of folders, of which each goes to another name; then links come to and leave the name that it had.
    commit(&store, share, (0..DEPTH).map(|n| change(n, 0, parent(n), "x", Kind::Folder)).collect());
    commit(&store, share, (0..DEPTH).map(|n| change(n, 1, parent(n), "y", Kind::Folder)).collect());
    for round in 0..ROUNDS {
        let came = 2 * round + 3;
        let at = |n: usize| DEPTH + DEPTH * round + n;
        commit(&store, share, (0..DEPTH).map(|n| change(at(n), 0, parent(n), "x", link(1))).collect());
        let gone = |n: usize| Change { id: id(at(n)), base: Seq(came as u64), state: None };
        commit(&store, share, (0..DEPTH).map(gone).collect());
    }
    let asked = Look::Path { from: NodeId::ROOT, names: vec![name("x"); DEPTH] };
    let ask = |at: usize| {
        store.timeline(share, |line| {
            let counted = Counted { line, looks: Cell::new(0) };
            let seen = look(&counted, Seq::ZERO, Seq(at as u64), &asked, 2048).unwrap();
            (seen.nodes.iter().map(|past| past.node.id).collect::<Vec<_>>(), counted.looks.get())
        })
    };
    let (chain, looks) = ask(1);
    assert_eq!(chain, (0..DEPTH).map(id).collect::<Vec<_>>());
    assert!(looks <= 6 * DEPTH, "{looks}");
    assert_eq!(ask(2).0, [], "nothing stood there between two");
    for round in 0..ROUNDS {
        assert_eq!(ask(2 * round + 3).0, [id(DEPTH + DEPTH * round)]);
        assert_eq!(ask(2 * round + 4).0, []);
    }
}

#[test]
fn pages_of_what_was_there_are_bounded_in_bytes_and_leave_nothing_out() {
    let store = MemoryStore::new([1; 32]);
    let (share, _) = run(store.open_share("s")).unwrap();
    let links =
        |from: usize| (from..from + 400).map(|n| change(n, 0, NodeId::ROOT, &format!("l{n}"), link(4000)));
    commit(&store, share, links(0).collect());
    commit(&store, share, links(400).collect());
    let ask =
        |at: Seq, asked: Look| store.timeline(share, |line| look(line, Seq::ZERO, at, &asked, 2048).unwrap());
    let check = |seen: &Seen| {
        let bytes: usize = seen.nodes.iter().map(look::past_bytes).sum();
        assert!(bytes < PAGE_BYTES_MAX + 8192 && codec::encode(seen).unwrap().len() <= bytes, "{bytes}");
    };
    let (mut found, mut after, mut pages) = (BTreeSet::new(), None, 0);
    loop {
        let seen = ask(Seq(2), Look::Inside { folders: vec![NodeId::ROOT], after });
        check(&seen);
        pages += 1;
        assert!(seen.nodes.iter().all(|past| found.insert(past.node.id)), "each once");
        let Some(rest) = seen.rest else { break };
        assert_eq!(rest.first, 0);
        after = rest.after;
    }
    assert!(found.len() == 800 && pages > 6, "{pages}");
    let ids: Vec<NodeId> = (0..800).map(id).collect();
    let mut answered = 0;
    while answered < ids.len() {
        let seen = ask(Seq(2), Look::Nodes(ids[answered..].to_vec()));
        check(&seen);
        assert!(seen.nodes.iter().zip(&ids[answered..]).all(|(past, id)| past.node.id == *id));
        answered += seen.nodes.len();
        assert_eq!(seen.rest.map(|rest| rest.first as usize), (answered < 800).then_some(seen.nodes.len()));
    }
}
