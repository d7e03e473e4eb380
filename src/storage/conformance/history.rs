//! What every store tells of the past.

use super::*;
use crate::model::past::{Look, Moment, PastNode, Version};
use std::collections::BTreeMap;

type Tree = BTreeMap<NodeId, Node>;

fn history(store: &dyn Both) -> &dyn History {
    store.history().unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn names(path: &str) -> Vec<Name> {
    path.split('/').filter(|part| !part.is_empty()).map(name).collect()
}

fn text(n: u8) -> Kind {
    Kind::Symlink { target: vec![b'a' + n], mtime_ns: 0 }
}

fn by_path(path: &str) -> Look {
    Look::Path { from: NodeId::ROOT, names: names(path) }
}

/// Folders and files that are made, edited, moved with what they hold, deleted, and come back; names that are taken
/// again. What the share was after each commit, by the simplest means.
async fn story(store: &dyn Both, share: ShareId) -> Vec<Tree> {
    let commits = vec![
        vec![put(1, 0, 0, "docs", Kind::Folder), put(2, 0, 1, "x", text(0)), put(3, 0, 0, "y", text(1))],
        vec![put(2, 1, 1, "x", text(2))],
        vec![put(1, 1, 0, "papers", Kind::Folder)],
        vec![put(4, 0, 0, "docs", Kind::Folder), put(3, 1, 4, "x", text(1))],
        vec![delete(2, 2)],
        vec![put(5, 0, 1, "x", text(3)), put(6, 0, 1, "sub", Kind::Folder), put(7, 0, 6, "deep", text(4))],
        vec![delete(1, 3), delete(5, 6), delete(6, 6), delete(7, 6)],
        vec![put(1, 7, 4, "in", Kind::Folder), put(7, 7, 1, "deep", text(4)), put(2, 5, 1, "x", text(5))],
        vec![put(3, 4, 4, "in2", text(1)), put(1, 8, 4, "x", Kind::Folder)],
    ];
    let mut trees = vec![Tree::new()];
    for (seq, changes) in (1..).zip(commits) {
        let mut tree = trees.last().unwrap().clone();
        for change in &changes {
            tree.insert(change.id, Node { id: change.id, version: Seq(seq), state: change.state.clone() });
        }
        let done = commit(store, share, changes).await;
        assert_eq!((done.refused, done.head.seq), (vec![], Seq(seq)));
        trees.push(tree);
    }
    trees
}

fn live(tree: &Tree) -> Tree {
    tree.iter().filter(|(_, node)| node.state.is_some()).map(|(id, node)| (*id, node.clone())).collect()
}

fn path_of(tree: &Tree, id: NodeId) -> String {
    match tree.get(&id).and_then(|node| node.state.as_ref()) {
        Some(state) => format!("{}/{}", path_of(tree, state.parent), state.name),
        None => String::new(),
    }
}

/// Everything that was there after a commit, by looking into folder after folder in pages of `max`.
async fn walk(store: &dyn Both, share: ShareId, at: Seq, max: usize) -> BTreeMap<NodeId, PastNode> {
    let mut found = BTreeMap::new();
    let (mut folders, mut after) = (vec![NodeId::ROOT], None);
    while !folders.is_empty() {
        let look = Look::Inside { folders: folders.clone(), after: after.take() };
        let seen = history(store).look(share, at, look, max).await.unwrap();
        assert!(seen.nodes.len() <= max);
        let done = seen.rest.as_ref().map_or(folders.len(), |rest| rest.first as usize);
        folders.drain(..done);
        after = seen.rest.and_then(|rest| rest.after);
        for past in seen.nodes {
            let folder = past.node.state.as_ref().unwrap().kind.is_folder();
            if found.insert(past.node.id, past.clone()).is_none() && folder {
                folders.push(past.node.id);
            }
        }
    }
    found
}

pub async fn the_share_as_it_was_after_every_commit_is_found_by_folder_path_and_id(store: &dyn Both) {
    let (share, _) = store.open_share("s").await.unwrap();
    let trees = story(store, share).await;
    for (at, tree) in trees.iter().enumerate() {
        let at_seq = Seq(at as u64);
        for max in [1, 2, 3, 100] {
            let found = walk(store, share, at_seq, max).await;
            let nodes: Tree = found.into_iter().map(|(id, past)| (id, past.node)).collect();
            assert_eq!(nodes, live(tree), "after {at}, pages of {max}");
        }
        for id in live(tree).keys() {
            let path = path_of(tree, *id);
            let seen = history(store).look(share, at_seq, by_path(&path), 1).await.unwrap();
            assert_eq!(seen.nodes.len(), names(&path).len(), "{path} after {at}");
            assert_eq!(seen.nodes.last().unwrap().node, tree[id], "{path} after {at}");
        }
        let ids: Vec<NodeId> = (1..9).map(id).collect();
        let seen = history(store).look(share, at_seq, Look::Nodes(ids.clone()), 100).await.unwrap();
        for (id, past) in ids.iter().zip(&seen.nodes) {
            let never = Node { id: *id, version: Seq::ZERO, state: None };
            assert_eq!(past.node, *tree.get(id).unwrap_or(&never), "after {at}");
        }
        let first = history(store).look(share, at_seq, Look::Nodes(ids), 3).await.unwrap();
        assert_eq!((first.nodes.len(), first.rest.unwrap().first), (3, 3));
    }
    let nothing = history(store).look(share, Seq(9), by_path("docs/no/where"), 9).await.unwrap();
    assert_eq!(nothing.nodes.len(), 1);
    let head = history(store).look(share, Seq(9), by_path("docs"), 9).await.unwrap();
    let later = history(store).look(share, Seq(1000), by_path("docs"), 9).await.unwrap();
    assert_eq!(head, later, "what is not there yet is the head");
}

/// All versions at a path in pages of `max`: commit, node, path before and after.
async fn log(store: &dyn Both, share: ShareId, path: &str, max: usize) -> Vec<Version> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = history(store).versions(share, names(path), before, max).await.unwrap();
        assert!(page.versions.len() <= max);
        all.extend(page.versions);
        assert!(page.rest.is_none() || before.is_none() || page.rest < before, "progress");
        before = page.rest;
        if before.is_none() {
            return all;
        }
    }
}

fn shown(versions: &[Version]) -> Vec<(u64, String, String)> {
    let path = |shape: &Option<crate::model::past::Shape>| {
        let names = shape.iter().flat_map(|shape| &shape.path);
        names.map(|name| format!("/{name}")).collect::<String>()
    };
    versions.iter().map(|v| (v.seq.0, path(&v.before), path(&v.after))).collect()
}

pub async fn the_log_of_everything_has_every_change_with_its_paths_latest_first(store: &dyn Both) {
    let (share, _) = store.open_share("s").await.unwrap();
    let trees = story(store, share).await;
    let mut expected = Vec::new();
    for (seq, pair) in (1u64..).zip(trees.windows(2)) {
        for (id, node) in pair[1].iter().filter(|(_, node)| node.version == Seq(seq)) {
            let after = node.state.as_ref().map(|_| path_of(&pair[1], *id)).unwrap_or_default();
            expected.push((seq, path_of(&pair[0], *id), after, *id));
        }
    }
    expected.sort_by_key(|(seq, _, _, id)| std::cmp::Reverse((*seq, *id)));
    let expected: Vec<_> = expected.into_iter().map(|(seq, before, after, _)| (seq, before, after)).collect();
    for max in [1, 2, 5, 1000] {
        let all = log(store, share, "", max).await;
        assert_eq!(shown(&all), expected, "{max}");
        assert!(all.iter().all(|version| version.device == "test" && version.kept));
    }
}

pub async fn the_log_of_a_path_follows_what_stands_there_and_ends_where_things_left(store: &dyn Both) {
    let (share, _) = store.open_share("s").await.unwrap();
    story(store, share).await;
    let seqs = |versions: Vec<Version>| versions.iter().map(|v| v.seq.0).collect::<Vec<_>>();
    for max in [1, 2, 100] {
        // The link that stands there, through all its names and folders.
        let all = log(store, share, "docs/in2", max).await;
        assert_eq!(
            shown(&all),
            [
                (9, "/docs/x".into(), "/docs/in2".into()),
                (4, "/y".into(), "/docs/x".into()),
                (1, String::new(), "/y".into()),
            ],
            "{max}"
        );
        // It was there until it moved.
        assert_eq!(seqs(log(store, share, "y", max).await), [4, 1]);
        // A folder that is gone from there, with what was in it then; two links had that name in it.
        assert_eq!(seqs(log(store, share, "papers/x", max).await), [7, 6, 5, 2, 1]);
        assert_eq!(seqs(log(store, share, "papers/sub", max).await), [7, 7, 6, 6]);
        assert_eq!(
            shown(&log(store, share, "papers/sub/deep", max).await)[0],
            (7, "/papers/sub/deep".into(), String::new())
        );
        assert_eq!(log(store, share, "no/where", max).await, []);
        assert_eq!(log(store, share, "docs/nothing", max).await, []);
    }
    // Everything that ever was in the folder that had this name first, until it got another, and in the one that has it.
    let docs = log(store, share, "docs", 100).await;
    assert_eq!(seqs(docs), [9, 9, 8, 8, 8, 4, 4, 3, 2, 1, 1]);
}

pub async fn moments_are_found_by_the_clock_and_a_new_share_has_none(store: &dyn Both) {
    let (share, _) = store.open_share("s").await.unwrap();
    let empty = history(store).moment(share, Moment::Now).await.unwrap();
    assert_eq!((empty.head, empty.seq, empty.floor), (Seq(0), Seq(0), Seq(0)));
    story(store, share).await;
    let now = history(store).moment(share, Moment::Now).await.unwrap();
    assert_eq!((now.head, now.seq, now.floor), (Seq(9), Seq(9), Seq(0)));
    let later = history(store).moment(share, Moment::Time(u64::MAX)).await.unwrap();
    assert_eq!(later.seq, Seq(9));
    let nowhere = ShareId::from_bytes([0xee; 16]);
    let unknown = history(store).moment(nowhere, Moment::Now).await;
    assert!(matches!(unknown, Err(StorageError::UnknownShare)));
}

#[test]
fn a_moment_is_the_last_commit_of_its_time_and_what_was_replaced_before_the_keep_time_is_not_kept() {
    run(async {
        let store = MemoryStore::new([1; 32]);
        let (share, _) = store.open_share("s").await.unwrap();
        for (seq, time) in [(0, 1000), (1, 2000), (2, 2000), (3, 3000)] {
            store.set_clock(time);
            commit(&store, share, vec![put(1, seq, 0, "x", text(seq as u8))]).await;
        }
        commit(&store, share, vec![put(2, 0, 0, "y", text(1))]).await;
        let seq = async |at| store.moment(share, at).await.unwrap().seq.0;
        let times = [0, 999, 1000, 1999, 2000, 2999, 3000, 9000];
        let mut found = Vec::new();
        for time in times {
            found.push(seq(Moment::Time(time)).await);
        }
        assert_eq!(found, [0, 0, 1, 1, 3, 3, 5, 5]);
        store.set_clock(3500);
        assert_eq!([seq(Moment::Age(500)).await, seq(Moment::Age(501)).await], [5, 3]);
        let kept = async || {
            let all = log(&store, share, "", 100).await;
            all.iter().filter(|v| v.kept).map(|v| v.seq.0).collect::<Vec<_>>()
        };
        assert_eq!(kept().await, [5, 4, 3, 2, 1]);
        // The keep time begins at 2200: version 3 stood then.
        store.set_keep(1300);
        assert_eq!(kept().await, [5, 4, 3]);
        assert_eq!(store.moment(share, Moment::Now).await.unwrap().floor, Seq(3));
        let seen = store.look(share, Seq(2), Look::Nodes(vec![id(1), id(2)]), 9).await.unwrap();
        assert_eq!(seen.nodes.iter().map(|past| past.kept).collect::<Vec<_>>(), [false, true]);
        store.set_keep(0);
        assert_eq!(kept().await, [5, 4]);
    });
}

#[test]
fn the_past_survives_the_loss_of_the_index_and_the_keep_time_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let options = |keep_ms| StoreOptions { keep_ms, ..StoreOptions::default() };
    let store = Store::open(&path, options(Some(0))).unwrap();
    let (share, _) = run(store.open_share("s")).unwrap();
    run(story(&*store, share));
    let before = run(log(&*store, share, "", 100));
    assert!(before.iter().any(|version| !version.kept), "a keep time of nothing");
    store.close().unwrap();
    drop(store);
    std::fs::remove_dir_all(path.join("db")).unwrap();
    let store = Store::open(&path, options(None)).unwrap();
    assert_eq!(store.keep_ms(), 0);
    assert_eq!(run(log(&*store, share, "", 100)), before);
    assert_eq!(run(log(&*store, share, "papers/x", 100)).len(), 5);
    store.close().unwrap();
}
