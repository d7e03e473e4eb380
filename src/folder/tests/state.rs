//! The state: what is saved comes back, what is torn is cut, what is damaged is never trusted.

use super::*;
use crate::folder::Cursor;
use crate::model::{ChainHash, DeviceId, JournalId, StoreId};
use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

fn put(ids: &mut IdSource, parent: NodeId, text: &str) -> Update {
    let kind = Kind::File { content: content(text.as_bytes()), mtime_ns: 5, exec: false };
    let state = NodeState { parent, name: name(text), kind };
    let stamp = Stamp { ino: 7, btime_ns: Some(1), size: 2, mtime_ns: 3, ctime_ns: 4, exec: true };
    let id = ids.node();
    Update::Put { id, node: TreeNode { version: Seq(3), state }, stamp: Some(stamp) }
}

fn cursor(seq: u64) -> Cursor {
    Cursor { journal: JournalId::from_bytes([1; 16]), seq: Seq(seq), chain: ChainHash::start(b"x") }
}

fn sorted(state: &State) -> Vec<(NodeId, TreeNode, Option<Stamp>)> {
    let mut nodes: Vec<_> =
        state.base.iter().map(|(id, node)| (id, node.clone(), state.stamp(id).copied())).collect();
    nodes.sort_by_key(|(id, ..)| *id);
    nodes
}

#[test]
fn what_was_saved_comes_back_after_a_restart() {
    let mut world = World::new();
    let account = Update::Account {
        store: Some(StoreId::from_bytes([2; 16])),
        share: Some("docs".into()),
        device: Some(DeviceId::from_bytes([3; 16])),
    };
    let a = put(&mut world.ids, NodeId::ROOT, "a");
    let b = put(&mut world.ids, NodeId::ROOT, "b");
    let Update::Put { id: b_id, .. } = b else { panic!() };
    world.state.save(vec![account, a, b, Update::Cursor(Some(cursor(9)))], true).unwrap();
    world.state.save(vec![Update::Remove(b_id)], true).unwrap();
    let before = sorted(&world.state);
    let world = world.restart();
    assert_eq!(sorted(&world.state), before);
    assert_eq!(world.state.cursor, Some(cursor(9)));
    assert_eq!(world.state.share.as_deref(), Some("docs"));
    assert_eq!(world.state.tracked_files(), 1);
    assert_eq!(world.state.owners((7, Some(1))).count(), 1);
}

#[test]
fn every_cut_and_every_flip_in_the_last_batch_gives_the_batch_before_or_a_first_sync() {
    let mut world = World::new();
    let first = put(&mut world.ids, NodeId::ROOT, "first");
    world.state.save(vec![first, Update::Cursor(Some(cursor(1)))], true).unwrap();
    let before = sorted(&world.state);
    let path = world.path(".dropblock/state");
    let whole = fs::read(&path).unwrap().len();
    let second = put(&mut world.ids, NodeId::ROOT, "second");
    world.state.save(vec![second, Update::Cursor(Some(cursor(2)))], true).unwrap();
    let bytes = fs::read(&path).unwrap();
    for cut in whole..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let (state, loaded) = world.folder.load_state().unwrap();
        assert_eq!((sorted(&state), state.cursor), (before.clone(), Some(cursor(1))), "cut at {cut}");
        assert_eq!(loaded.torn_bytes, (cut - whole) as u64);
        assert_eq!(fs::metadata(&path).unwrap().len(), whole as u64);
    }
    for at in whole..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let (state, loaded) = world.folder.load_state().unwrap();
        match loaded.set_aside {
            None => {
                assert_eq!((sorted(&state), state.cursor), (before.clone(), Some(cursor(1))), "byte {at}")
            }
            Some(_) => assert!(state.base.is_empty() && state.cursor.is_none(), "byte {at}"),
        }
    }
    let mut zeros = bytes[..whole].to_vec();
    zeros.resize(whole + 5000, 0);
    fs::write(&path, &zeros).unwrap();
    let (mut state, loaded) = world.folder.load_state().unwrap();
    assert_eq!((sorted(&state), loaded.torn_bytes), (before, 5000));
    // What is saved after a cut is whole again.
    let third = put(&mut world.ids, NodeId::ROOT, "third");
    state.save(vec![third], true).unwrap();
    assert_eq!(sorted(&world.folder.load_state().unwrap().0), sorted(&state));
}

#[test]
fn damage_before_the_last_batch_sets_the_state_aside() {
    let mut world = World::new();
    let first = put(&mut world.ids, NodeId::ROOT, "first");
    world.state.save(vec![first], true).unwrap();
    let path = world.path(".dropblock/state");
    let end = fs::read(&path).unwrap().len();
    let second = put(&mut world.ids, NodeId::ROOT, "second");
    world.state.save(vec![second], true).unwrap();
    let bytes = fs::read(&path).unwrap();
    for at in (0..end).filter(|at| !(8..12).contains(at)) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let (state, loaded) = world.folder.load_state().unwrap();
        assert!(state.base.is_empty(), "byte {at}");
        let aside = world.path(".dropblock").join(loaded.set_aside.unwrap());
        assert_eq!(fs::read(&aside).unwrap(), bad);
        fs::remove_file(aside).unwrap();
    }
}

#[test]
fn a_state_file_of_a_newer_program_is_refused() {
    let world = World::new();
    let path = world.path(".dropblock/state");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(world.folder.load_state().unwrap_err().code(), "newer-state");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_batch_larger_than_one_record_is_still_atomic() {
    let mut world = World::new();
    let batch: Vec<_> =
        (0..20_000).map(|n| put(&mut world.ids, NodeId::ROOT, &format!("{n:0200}"))).collect();
    world.state.save(batch, true).unwrap();
    let path = world.path(".dropblock/state");
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 3 << 20);
    assert_eq!(world.folder.load_state().unwrap().0.base.len(), 20_000);
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let (state, loaded) = world.folder.load_state().unwrap();
    assert!(state.base.is_empty() && loaded.set_aside.is_none());
}

#[test]
fn the_log_is_rewritten_when_most_of_it_is_garbage() {
    let mut world = World::new();
    let node = put(&mut world.ids, NodeId::ROOT, "a");
    for n in 0..20_000 {
        world.state.save(vec![node.clone(), Update::Cursor(Some(cursor(n)))], false).unwrap();
    }
    assert!(fs::metadata(world.path(".dropblock/state")).unwrap().len() < 2 << 20);
    let before = sorted(&world.state);
    let world = world.restart();
    assert_eq!(sorted(&world.state), before);
    assert_eq!(world.state.cursor, Some(cursor(19_999)));
}

#[test]
fn at_rest_the_log_says_everything_once() {
    let mut world = World::new();
    let puts: Vec<_> = (0..20_000).map(|n| put(&mut world.ids, NodeId::ROOT, &n.to_string())).collect();
    let intends = puts.iter().map(|update| match update {
        Update::Put { id, node, stamp } => {
            Update::Intend { id: *id, node: node.clone(), stamp: stamp.unwrap() }
        }
        _ => panic!(),
    });
    world.state.save(intends.collect(), false).unwrap();
    world.state.save(puts, true).unwrap();
    let bytes = |world: &World| fs::metadata(world.path(".dropblock/state")).unwrap().len();
    let (twice, before) = (bytes(&world), sorted(&world.state));
    world.state.tidy().unwrap();
    let once = bytes(&world);
    assert!(once < twice * 6 / 10, "{twice} bytes, then {once}");
    world.state.tidy().unwrap();
    assert_eq!(bytes(&world), once);
    let mut world = world.restart();
    assert_eq!(sorted(&world.state), before);
    world.state.save(vec![Update::Cursor(Some(cursor(7)))], true).unwrap();
    let world = world.restart();
    assert_eq!((world.state.base.len(), world.state.cursor), (20_000, Some(cursor(7))));
}

#[test]
fn forgetting_keeps_share_and_device_and_sets_the_old_state_aside() {
    let mut world = World::new();
    let device = Some(DeviceId::from_bytes([3; 16]));
    let store = Some(StoreId::from_bytes([2; 16]));
    world.state.save(vec![Update::Account { store, share: Some("s".into()), device }], true).unwrap();
    let node = put(&mut world.ids, NodeId::ROOT, "a");
    world.state.save(vec![node, Update::Cursor(Some(cursor(1)))], true).unwrap();
    let old = std::mem::take(&mut world.state);
    world.state = world.folder.forget_state(old).unwrap();
    let world = world.restart();
    assert!(world.state.base.is_empty() && world.state.cursor.is_none() && world.state.store.is_none());
    assert_eq!((world.state.share.as_deref(), world.state.device), (Some("s"), device));
    assert!(world.path(".dropblock/state.forgotten-1").exists());
}

#[test]
fn hard_links_share_an_identity_and_give_it_up_one_by_one() {
    let mut state = State::in_memory();
    let mut ids = IdSource::new([1; 32]);
    let updates: Vec<_> = ["a", "b", "c"].iter().map(|text| put(&mut ids, NodeId::ROOT, text)).collect();
    let nodes: Vec<_> =
        updates.iter().map(|u| if let Update::Put { id, .. } = u { *id } else { panic!() }).collect();
    state.save(updates, false).unwrap();
    for left in (0..3).rev() {
        assert_eq!(state.owners((7, Some(1))).count(), left + 1);
        state.save(vec![Update::Remove(nodes[left])], false).unwrap();
    }
    assert_eq!((state.owners((7, Some(1))).count(), state.tracked_files()), (0, 0));
}

#[test]
fn a_state_of_100_000_nodes_loads_whole() {
    let mut world = World::new();
    let mut batch = Vec::new();
    for n in 0..100_000u64 {
        let mut update = put(&mut world.ids, NodeId::ROOT, &format!("file number {n}"));
        if let Update::Put { stamp: Some(stamp), .. } = &mut update {
            stamp.ino = n;
        }
        batch.push(update);
    }
    world.state.save(batch, true).unwrap();
    let start = Instant::now();
    let (state, _) = world.folder.load_state().unwrap();
    let took = start.elapsed();
    println!(
        "load of 100,000 nodes: {took:?}, {} bytes",
        fs::metadata(world.path(".dropblock/state")).unwrap().len()
    );
    assert_eq!(state.base.len(), 100_000);
}

#[test]
fn a_file_placed_but_not_recorded_is_agreed_at_the_next_start() {
    let mut world = World::new();
    let placed = world.path("placed");
    std::fs::write(&placed, "from the server").unwrap();
    let stamp = world.folder.look(&crate::model::RelPath::parse(b"placed").unwrap()).unwrap().unwrap().stamp;
    // Far away: the next file made may well get the next number.
    let other = crate::folder::Stamp { ino: stamp.ino + 1_000_000_007, ..stamp };
    let intend = |name: &str, stamp, n| {
        let kind = crate::model::Kind::Symlink { target: vec![1], mtime_ns: 0 };
        let state =
            crate::model::NodeState { parent: NodeId::ROOT, name: Name::new(name.as_bytes()).unwrap(), kind };
        let id = NodeId::from_bytes([n; 16]);
        Update::Intend { id, node: TreeNode { version: Seq(3), state }, stamp }
    };
    std::fs::write(world.path("edited"), "by the user").unwrap();
    let batch = vec![intend("placed", stamp, 1), intend("edited", other, 2), intend("absent", other, 3)];
    world.state.save(batch, false).unwrap();
    let (mut state, _) = world.folder.load_state().unwrap();
    assert_eq!(world.folder.settle_intents(&mut state).unwrap(), 1);
    assert!(state.base.get(NodeId::from_bytes([1; 16])).is_some());
    assert_ne!(state.stamp(NodeId::from_bytes([1; 16])), Some(&stamp), "it must be read again");
    assert_eq!(state.base.len(), 1);
}

/// A client that was killed while it made folders and filled them: what others delete meanwhile must not come back as the
/// user's own.
#[test]
fn folders_made_but_not_recorded_are_agreed_with_what_was_put_into_them() {
    let mut world = World::new();
    let id = |n: u8| NodeId::from_bytes([n; 16]);
    let intend = |n: u8, parent: NodeId, text: &str, kind: Kind, stamp| {
        let state = NodeState { parent, name: name(text), kind };
        Update::Intend { id: id(n), node: TreeNode { version: Seq(3), state }, stamp }
    };
    world.write("outer/inner/file", b"from the server");
    let stamp = world.folder.look(&RelPath::parse(b"outer/inner/file").unwrap()).unwrap().unwrap().stamp;
    world.write("taken", b"a file of the user");
    let file = Kind::File { content: content(b"from the server"), mtime_ns: 5, exec: false };
    // The outer one has the highest id: order must not matter.
    let batch = vec![
        intend(1, id(2), "file", file, stamp),
        intend(2, id(3), "inner", Kind::Folder, Stamp::NONE),
        intend(3, NodeId::ROOT, "outer", Kind::Folder, Stamp::NONE),
        intend(4, NodeId::ROOT, "absent", Kind::Folder, Stamp::NONE),
        intend(5, id(4), "below", Kind::Folder, Stamp::NONE),
        intend(6, NodeId::ROOT, "taken", Kind::Folder, Stamp::NONE),
    ];
    world.state.save(batch, false).unwrap();
    let (mut state, _) = world.folder.load_state().unwrap();
    assert_eq!(world.folder.settle_intents(&mut state).unwrap(), 3);
    let found: BTreeSet<_> = state.base.iter().map(|(id, _)| id).collect();
    assert_eq!(found, BTreeSet::from([id(1), id(2), id(3)]));
    let outer = world.folder.look(&RelPath::parse(b"outer").unwrap()).unwrap().unwrap().stamp;
    assert_eq!(state.stamp(id(3)), Some(&outer));
}

#[test]
fn what_was_sent_stands_until_it_is_answered_or_taken_back() {
    let mut world = World::new();
    let node = put(&mut world.ids, NodeId::ROOT, "a");
    let Update::Put { id, node: agreed, stamp } = node.clone() else { panic!() };
    let one = crate::folder::Sent { state: Some(agreed.state), stamp };
    let other = crate::folder::Sent { state: None, stamp: None };
    let sent = |sent: &crate::folder::Sent| Update::Sent { id, sent: sent.clone() };
    world.state.save(vec![sent(&one), sent(&other)], false).unwrap();
    let (state, _) = world.folder.load_state().unwrap();
    assert_eq!(state.sent()[&id], [one.clone(), other.clone()]);
    world.state.save(vec![Update::Unsent(id)], false).unwrap();
    assert_eq!(world.state.sent()[&id], std::slice::from_ref(&one));
    world.state.save(vec![node], false).unwrap();
    assert!(world.state.sent().is_empty());
    for _ in 0..10 {
        world.state.save(vec![sent(&one)], false).unwrap();
    }
    assert_eq!(world.state.sent()[&id].len(), 4, "bounded");
    let (state, _) = world.folder.load_state().unwrap();
    assert_eq!(state.sent(), world.state.sent());
    world.state.save(vec![Update::Remove(id)], false).unwrap();
    assert!(world.state.sent().is_empty());
}

/// Announced, placed, and then the disk failed: by the time it works again the file may be known as another node, or all
/// that was on its way may have come.
#[test]
fn what_was_announced_is_void_once_it_is_another_node_or_everything_has_come() {
    let mut world = World::new();
    world.write("x", b"from the server");
    let stamp = world.folder.look(&crate::model::RelPath::parse(b"x").unwrap()).unwrap().unwrap().stamp;
    let node = |n: u8| {
        let kind = crate::model::Kind::Symlink { target: vec![n], mtime_ns: 0 };
        let state = crate::model::NodeState { parent: NodeId::ROOT, name: Name::new(b"x").unwrap(), kind };
        (NodeId::from_bytes([n; 16]), TreeNode { version: Seq(3), state })
    };
    let ((announced, first), (other, second)) = (node(1), node(2));
    let intend = |node: &TreeNode| vec![Update::Intend { id: announced, node: node.clone(), stamp }];
    world.state.save(intend(&first), false).unwrap();
    world.state.save(vec![Update::Put { id: other, node: second, stamp: Some(stamp) }], true).unwrap();
    let (mut state, _) = world.folder.load_state().unwrap();
    assert_eq!(world.folder.settle_intents(&mut state).unwrap(), 0);
    assert_eq!(state.base.iter().map(|(id, _)| id).collect::<Vec<_>>(), [other]);

    world.state.save(vec![Update::Remove(other)], true).unwrap();
    world.state.save(intend(&first), false).unwrap();
    world.state.save(vec![Update::Cursor(None)], true).unwrap();
    let (mut state, _) = world.folder.load_state().unwrap();
    assert_eq!(world.folder.settle_intents(&mut state).unwrap(), 0);
}
