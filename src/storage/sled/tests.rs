//! Tests of the index.

use super::*;
use crate::model::{Kind, NodeState};

const SHARE: ShareId = ShareId::from_bytes([1; 16]);

fn node(n: u8, version: u64, name: Option<&str>) -> Node {
    let state = name.map(|name| NodeState {
        parent: NodeId::ROOT,
        name: Name::new(name.as_bytes()).unwrap(),
        kind: Kind::Folder,
    });
    Node { id: NodeId::from_bytes([n; 16]), version: Seq(version), state }
}

fn apply(index: &Index, seq: u64, nodes: &[Node]) {
    let chain = ChainHash::default();
    let commit = Applied { seq: Seq(seq), time_ms: seq, device: "d", chain, offset: 0, nodes };
    index.apply(SHARE, &commit).unwrap();
}

/// Names that swap, a name that is freed and taken, a node that dies and comes back.
fn history() -> Vec<Vec<Node>> {
    vec![
        vec![node(1, 1, Some("a")), node(2, 1, Some("b"))],
        vec![node(1, 2, Some("b")), node(2, 2, Some("a"))],
        vec![node(1, 3, None), node(3, 3, Some("b"))],
        vec![node(1, 4, Some("c")), node(3, 4, Some("d")), node(2, 4, None)],
    ]
}

type Shown = (Vec<NodeId>, Vec<Node>, Vec<Option<NodeId>>, Past);
type Past = (Vec<Replaced>, Vec<(Seq, NodeId)>, Vec<(Name, Option<NodeId>)>, Vec<Option<CommitInfo>>);

fn shown(index: &Index) -> Shown {
    let head = super::super::Head {
        journal: JournalId::from_bytes([0; 16]),
        seq: Seq(9),
        chain: ChainHash::default(),
    };
    let page = index.page(SHARE, Position::default(), 100, true, head).unwrap();
    let mut children = Vec::new();
    let all = index.any_child(SHARE, NodeId::ROOT, &mut |id| {
        children.push(id);
        false
    });
    assert!(!all.unwrap());
    let name = |name: &str| index.child(SHARE, NodeId::ROOT, &Name::new(name.as_bytes()).unwrap()).unwrap();
    let past = (
        index.all_replaced(SHARE).map(Result::unwrap).collect(),
        index.log_before(SHARE, (Seq(9), NodeId::ROOT), 100).unwrap(),
        index.left_after(SHARE, NodeId::ROOT, None, Seq(1), 100).unwrap(),
        (1..5).map(|seq| index.commit(SHARE, Seq(seq)).unwrap()).collect(),
    );
    (children, page.nodes, ["a", "b", "c", "d"].map(name).to_vec(), past)
}

#[test]
fn a_page_of_long_nodes_ends_after_so_many_bytes_and_the_pages_are_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = Index::open(folder.path(), Duration::from_secs(30)).unwrap();
    let link = |n: u128| {
        let kind = Kind::Symlink { target: vec![b't'; 4000], mtime_ns: 0 };
        let name = Name::new(n.to_string().as_bytes()).unwrap();
        let state = Some(NodeState { parent: NodeId::ROOT, name, kind });
        Node { id: NodeId::from_bytes(n.to_be_bytes()), version: Seq(1), state }
    };
    let nodes: Vec<Node> = (1..500).map(link).collect();
    apply(&index, 1, &nodes);
    let head = super::super::Head {
        journal: JournalId::from_bytes([0; 16]),
        seq: Seq(1),
        chain: ChainHash::default(),
    };
    let (mut after, mut all) = (Position::default(), Vec::new());
    loop {
        let page = index.page(SHARE, after, 2048, true, head).unwrap();
        let bytes: usize = page.nodes.iter().map(|node| codec::encode(node).unwrap().len()).sum();
        assert!(!page.nodes.is_empty() && bytes <= 520 * 1024, "{bytes}");
        all.extend(page.nodes);
        after = page.next;
        if page.complete {
            break;
        }
    }
    assert_eq!(all, nodes);
}

#[test]
fn a_page_that_leaves_tombstones_out_ends_after_so_many_and_the_pages_are_what_lives() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = Index::open(folder.path(), Duration::from_secs(30)).unwrap();
    let id = |n: usize| NodeId::from_bytes((n as u128).to_be_bytes());
    let gone = |n: usize| Node { id: id(n), version: Seq(1), state: None };
    let mut nodes: Vec<Node> = (0..2 * LEFT_OUT_MAX + 10).map(gone).collect();
    nodes.push(Node { id: id(nodes.len()), ..node(1, 1, Some("a")) });
    apply(&index, 1, &nodes);
    let head = super::super::Head {
        journal: JournalId::from_bytes([0; 16]),
        seq: Seq(1),
        chain: ChainHash::default(),
    };
    let (mut after, mut pages) = (Position::default(), Vec::new());
    loop {
        let page = index.page(SHARE, after, 100, false, head).unwrap();
        after = page.next;
        pages.push(page.nodes);
        if page.complete {
            break;
        }
    }
    assert_eq!(pages, [vec![], vec![], vec![nodes.pop().unwrap()]]);
    assert_eq!(index.page(SHARE, Position::default(), 100, true, head).unwrap().nodes.len(), 100);
}

#[test]
fn replaying_any_tail_over_the_whole_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = Index::open(folder.path(), Duration::from_secs(30)).unwrap();
    let history = history();
    for (seq, nodes) in (1..).zip(&history) {
        apply(&index, seq, nodes);
    }
    let before = shown(&index);
    assert_eq!(before.0.len(), 2);
    for from in 0..history.len() {
        for (seq, nodes) in (1..).zip(&history).skip(from) {
            apply(&index, seq, nodes);
        }
        assert_eq!(shown(&index), before, "from {from}");
    }
}

#[test]
fn a_flushed_index_comes_back_with_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint {
        store: Some(StoreId::from_bytes([1; 16])),
        packs_end: Place { pack: 3, offset: 4 },
        packs: vec![1, 3],
        shares: vec![],
    };
    let (index, fresh) = Index::open(folder.path(), Duration::from_secs(30)).unwrap();
    assert_eq!(fresh, Checkpoint::default());
    apply(&index, 1, &history()[0]);
    index.flush(&checkpoint).unwrap();
    drop(index);
    let (index, found) = Index::open(folder.path(), Duration::from_secs(30)).unwrap();
    assert_eq!(found, checkpoint);
    assert_eq!(shown(&index).0.len(), 2);
}

#[test]
fn every_replaced_version_is_found_by_node_by_time_and_by_the_place_it_left() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = Index::open(folder.path(), Duration::from_secs(30)).unwrap();
    for (seq, nodes) in (1..).zip(&history()) {
        apply(&index, seq, nodes);
    }
    let id = |n| NodeId::from_bytes([n; 16]);
    let at = |n, at| index.replaced(SHARE, id(n), Seq(at)).unwrap().map(|found| (found.node, found.by.0));
    assert_eq!(at(1, 0), None);
    assert_eq!(at(1, 1), Some((node(1, 1, Some("a")), 2)));
    assert_eq!(at(1, 2), Some((node(1, 2, Some("b")), 3)));
    assert_eq!(at(1, 9), Some((node(1, 3, None), 4)), "what stands is not in the past");
    assert_eq!(at(2, 9), Some((node(2, 2, Some("a")), 4)));
    let all: Vec<_> = [(4, 3), (4, 2), (4, 1), (3, 3), (3, 1), (2, 2), (2, 1), (1, 2), (1, 1)]
        .map(|(seq, n)| (Seq(seq), id(n)))
        .to_vec();
    for max in 1..=all.len() {
        let (mut found, mut before) = (Vec::new(), (Seq(u64::MAX), NodeId::ROOT));
        loop {
            let page = index.log_before(SHARE, before, max).unwrap();
            let Some(last) = page.last() else { break };
            before = *last;
            found.extend(page);
        }
        assert_eq!(found, all, "{max}");
    }
    let name = |name: &str| Name::new(name.as_bytes()).unwrap();
    let left = |of: &str, max| index.left_last(SHARE, NodeId::ROOT, &name(of), max).unwrap();
    assert_eq!(left("a", 9), [(id(2), Seq(4)), (id(1), Seq(2))]);
    assert_eq!(left("b", 9), [(id(3), Seq(4)), (id(1), Seq(3)), (id(2), Seq(2))]);
    assert_eq!(left("b", 1), [(id(3), Seq(4))]);
    assert_eq!(left("c", 9), []);
    let next = |of: &str, at| index.left_next(SHARE, NodeId::ROOT, &name(of), Seq(at)).unwrap();
    assert_eq!([0, 1, 2, 3, 4].map(|at| next("b", at)), [2, 2, 1, 3, 0].map(|n| (n > 0).then(|| id(n))));
    assert_eq!(next("b", u64::MAX), None);
    let names = |after: Option<&str>, at, max| {
        index.left_after(SHARE, NodeId::ROOT, after.map(name).as_ref(), Seq(at), max).unwrap()
    };
    assert_eq!(names(None, 2, 9), [(name("a"), Some(id(2))), (name("b"), Some(id(1)))]);
    assert_eq!(names(None, 4, 9), [(name("a"), None), (name("b"), None)]);
    assert_eq!([names(None, 2, 1), names(Some("a"), 2, 9)].concat(), names(None, 2, 9));
    assert_eq!(names(Some("b"), 2, 9), []);
    assert_eq!(index.last_commit(SHARE).unwrap(), Seq(4));
    assert_eq!(index.last_commit(ShareId::from_bytes([0; 16])).unwrap(), Seq(0));
}

#[test]
fn an_index_of_another_format_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = Index::open(folder.path(), Duration::from_secs(30)).unwrap();
    index.meta.insert("format", 7u32.to_le_bytes()).unwrap();
    index.flush(&Checkpoint::default()).unwrap();
    drop(index);
    assert!(matches!(Index::open(folder.path(), Duration::from_secs(30)), Err(StorageError::Index(_))));
}
