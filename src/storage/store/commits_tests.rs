//! What it costs to look for the blocks of a commit, and that nothing is accepted on the word of an earlier era.

use super::super::*;
use super::{Answer, Asked, Looked, Search};
use crate::block::{Block, Sealer};
use crate::chunk::V1;
use crate::manifest::{Entry, ManifestNode};
use crate::model::{Change, FileContent, Kind, Name, NodeId, NodeState, Refusal, Root, limits};
use crate::storage::content::Held;
use bytes::Bytes;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// A content of `nodes` distinct nodes below its root, and its blocks. The last of them is of level 0.
fn long(nodes: u16) -> (FileContent, Vec<Block>) {
    long_of(0..nodes)
}

fn long_of(nodes: std::ops::Range<u16>) -> (FileContent, Vec<Block>) {
    let pair = [b'A', b'B'].map(|byte| Block::new(vec![byte; V1.min_bytes()].into()));
    let mut blocks = Vec::new();
    let below = nodes.clone().map(|n| {
        let bits = (0..16)
            .map(|bit| Entry { hash: pair[usize::from(n >> bit & 1)].hash(), len: limits::CHUNK_BYTES_MIN });
        let node = ManifestNode::new(1, 1, bits.collect()).unwrap();
        blocks.push(Block::new(node.encode()));
        Entry { hash: blocks.last().unwrap().hash(), len: 16 * limits::CHUNK_BYTES_MIN }
    });
    let root = Block::new(ManifestNode::new(2, 1, below.collect()).unwrap().encode());
    let root_hash = root.hash();
    blocks.insert(0, root);
    blocks.extend(pair);
    let root = Root { params: 1, level: 2, hash: root_hash };
    (FileContent { size: 16 * limits::CHUNK_BYTES_MIN * nodes.len() as u64, root }, blocks)
}

fn change(n: u8, content: &FileContent) -> Change {
    let kind = Kind::File { content: content.clone(), mtime_ns: 0, exec: false };
    let state = NodeState { parent: NodeId::ROOT, name: Name::new(&[n]).unwrap(), kind };
    Change { id: NodeId::from_bytes([n; 16]), base: Seq::ZERO, state: Some(state) }
}

fn request(share: ShareId, changes: Vec<Change>) -> CommitRequest {
    let session = SessionId::from_bytes([1; 16]);
    CommitRequest { share, device: "d".to_owned(), session, changes, inline: vec![] }
}

fn put(store: &Store, share: ShareId, blocks: &[Block]) {
    let sealed = blocks.iter().map(|block| Sealer::new(1).seal(block)).collect();
    run(store.put_within(Some(share), sealed, u64::MAX)).unwrap();
}

fn store() -> (tempfile::TempDir, Arc<Store>, ShareId) {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { free_bytes_min: 0, ..StoreOptions::default() };
    let store = Store::open(folder.path(), options).unwrap();
    let share = run(store.open_share("s")).unwrap().0;
    (folder, store, share)
}

fn blocks_read(store: &Store) -> u64 {
    store.shared.packs.blocks_read.load(Ordering::Relaxed)
}

/// Begins an era, as collecting garbage does.
fn begin_era(store: &Store) {
    let doom = |writer: &mut Writer| {
        writer.shared.leases().doom([]);
        Ok(())
    };
    store.upkeep(|upkeep| upkeep.begin_era(&Brake::default(), doom)).unwrap();
}

#[test]
fn a_content_that_many_changes_name_and_that_lacks_a_block_is_read_once() {
    let (_folder, store, share) = store();
    let (content, mut blocks) = long(200);
    // The last list.
    blocks.remove(200);
    put(&store, share, &blocks);
    let before = blocks_read(&store);
    let changes: Vec<Change> = (64..124).map(|n| change(n, &content)).collect();
    let done = run(store.commit(request(share, changes))).unwrap();
    assert_eq!(done.refused, (0..60).map(|n| (n, Refusal::MissingBlocks)).collect::<Vec<_>>());
    let read = blocks_read(&store) - before;
    assert!((100..=201).contains(&read), "{read}");
}

#[test]
fn one_that_is_complete_is_read_once_for_all_commits_until_blocks_are_deleted() {
    let (_folder, store, share) = store();
    let (content, blocks) = long(200);
    put(&store, share, &blocks);
    let before = blocks_read(&store);
    assert!(run(store.commit(request(share, vec![change(64, &content)]))).unwrap().refused.is_empty());
    assert_eq!(blocks_read(&store) - before, 201);
    assert!(run(store.commit(request(share, vec![change(65, &content)]))).unwrap().refused.is_empty());
    assert_eq!(blocks_read(&store) - before, 201);
    begin_era(&store);
    assert!(run(store.commit(request(share, vec![change(66, &content)]))).unwrap().refused.is_empty());
    assert_eq!(blocks_read(&store) - before, 402);
}

fn ask(store: &Store, asked: Asked, looked: Looked) -> Answer {
    run(async {
        let permit = store.room(asked.inline.iter().map(|one| &one.block)).await.unwrap();
        let (reply, answer) = oneshot::channel();
        store.ask(Work::Commit(Box::new(asked), looked, reply, permit), answer).await.unwrap()
    })
}

#[test]
fn what_was_seen_before_others_were_doomed_is_looked_at_again() {
    let (_folder, store, share) = store();
    let (content, blocks) = long(20);
    put(&store, share, &blocks);
    let asked = Asked { request: request(share, vec![change(64, &content)]), inline: Vec::new() };
    let looked = run(store.look_for(&asked)).unwrap();
    assert_eq!(looked.is_complete(&content), Some(true));
    // All of a collection between the look and the turn of the commit: nothing names these, and no session leases them.
    let hashes: Vec<BlockHash> = blocks.iter().map(Block::hash).collect();
    let deletes = hashes.clone();
    let gone = store.upkeep(|upkeep| {
        upkeep.settle()?;
        upkeep.on_writer(move |writer| {
            let mut leases = writer.shared.leases();
            leases.doom(deletes.clone());
            let gone = leases.forget(&deletes);
            writer.index.remove_blocks(&gone)?;
            Ok(gone)
        })
    });
    assert_eq!(gone.unwrap(), hashes);
    let Answer::LookAgain(asked) = ask(&store, asked, looked) else { panic!("accepted unseen") };
    let looked = run(store.look_for(&asked)).unwrap();
    assert_eq!(looked.is_complete(&content), Some(false));
    let Answer::Committed(done) = ask(&store, *asked, looked) else { panic!("the same era") };
    assert_eq!(done.refused, [(0, Refusal::MissingBlocks)]);
}

#[test]
fn what_a_look_has_seen_is_not_deleted_in_its_era() {
    let (_folder, store, share) = store();
    let (content, blocks) = long(20);
    put(&store, share, &blocks);
    let hashes: Vec<BlockHash> = blocks.iter().map(Block::hash).collect();
    store.shared.leases().doom(hashes.clone());
    let asked = Asked { request: request(share, vec![change(64, &content)]), inline: Vec::new() };
    let looked = run(store.look_for(&asked)).unwrap();
    assert_eq!(store.shared.leases().forget(&hashes), []);
    let Answer::Committed(done) = ask(&store, asked, looked) else { panic!("the same era") };
    assert!(done.refused.is_empty());
}

#[test]
fn lists_that_come_with_the_commit_are_held_and_are_known_only_once_they_are() {
    let (_folder, store, share) = store();
    let (content, blocks) = long(20);
    put(&store, share, &blocks[1..]);
    let inline = Prepared::all(vec![Sealer::new(1).seal(&blocks[0])]).unwrap();
    let asked = Asked { request: request(share, vec![change(64, &content)]), inline };
    // Looked at, and never committed.
    assert_eq!(run(store.look_for(&asked)).unwrap().is_complete(&content), Some(true));
    let without = request(share, vec![change(65, &content)]);
    assert_eq!(run(store.commit(without)).unwrap().refused, [(0, Refusal::MissingBlocks)]);
    let mut with = request(share, vec![change(66, &content)]);
    with.inline = vec![Sealer::new(1).seal(&blocks[0])];
    assert!(run(store.commit(with)).unwrap().refused.is_empty());
}

#[test]
fn a_commit_gets_through_although_era_follows_upon_era() {
    let (_folder, store, share) = store();
    let (content, blocks) = long(250);
    put(&store, share, &blocks);
    let (over, began) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let eras = {
        let (store, over, began) = (store.clone(), over.clone(), began.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                begin_era(&store);
                began.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    while began.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let done = runtime.block_on(async {
        tokio::time::timeout(
            Duration::from_secs(20),
            store.commit(request(share, vec![change(64, &content)])),
        )
        .await
    });
    over.store(true, Ordering::Relaxed);
    eras.join().unwrap();
    assert!(done.expect("it gets through").unwrap().refused.is_empty());
    assert!(began.load(Ordering::Relaxed) > 1);
}

#[test]
fn a_long_search_ends_with_the_store() {
    let (_folder, store, share) = store();
    let mut changes = Vec::new();
    for n in 0..20u8 {
        let (content, blocks) = long_of(250 * u16::from(n)..250 * (u16::from(n) + 1));
        put(&store, share, &blocks);
        changes.push(change(64 + n, &content));
    }
    let before = blocks_read(&store);
    let commit = {
        let (store, asked) = (store.clone(), request(share, changes));
        std::thread::spawn(move || run(store.commit(asked)))
    };
    while blocks_read(&store) - before < 64 {
        std::thread::yield_now();
    }
    store.close().unwrap();
    let read = blocks_read(&store) - before;
    assert!(matches!(commit.join().unwrap(), Err(StorageError::Closed)));
    assert_eq!(blocks_read(&store) - before, read, "nothing is read any more");
    assert!(read < 2000, "{read}");
}

/// Everything is held; counts what is asked for.
struct Counting(HashMap<BlockHash, Bytes>, Cell<usize>);

impl Held for Counting {
    fn plain_lens(&self, hashes: &[BlockHash]) -> Result<Vec<Option<u32>>> {
        self.1.set(self.1.get() + hashes.len());
        Ok(vec![u32::try_from(limits::CHUNK_BYTES_MIN).ok(); hashes.len()])
    }

    fn plain(&self, hashes: &[BlockHash]) -> Result<Option<Vec<Bytes>>> {
        self.1.set(self.1.get() + hashes.len());
        Ok(hashes.iter().map(|hash| self.0.get(hash).cloned()).collect())
    }
}

#[test]
fn a_step_is_bounded_however_long_the_list() {
    let (content, blocks) = long(250);
    let all = blocks.iter().map(|block| (block.hash(), block.bytes().clone())).collect();
    let held = Counting(all, Cell::new(0));
    let mut search = Search::new(None, &content);
    let mut steps = 0;
    loop {
        steps += 1;
        held.1.set(0);
        let found = search.step(&held).unwrap();
        assert!(held.1.get() <= 2048, "{}", held.1.get());
        if let Some(complete) = found {
            assert!(complete);
            break;
        }
    }
    assert!(steps >= 4, "{steps}");
    assert!(search.bytes() < 100 * 251, "{}", search.bytes());
}

#[test]
fn a_comparison_that_reads_much_becomes_a_walk_and_neither_remembers_much() {
    const NODES: usize = 1024;
    let chunk = |n: usize| Entry { hash: BlockHash::of(&n.to_le_bytes()), len: limits::CHUNK_BYTES_MIN };
    let mut blocks = HashMap::new();
    let mut above = |level: u8, below: &[Entry]| -> Vec<Entry> {
        let nodes = below.chunks(limits::MANIFEST_ENTRIES_MAX).map(|below| {
            let node = ManifestNode::new(level, 1, below.to_vec()).unwrap();
            let hash = BlockHash::of(&node.encode());
            blocks.insert(hash, node.encode());
            Entry { hash, len: node.file_bytes() }
        });
        nodes.collect()
    };
    let mut content = |chunks: &[Entry]| {
        let (mut entries, mut level) = (chunks.to_vec(), 0);
        while entries.len() > 1 {
            level += 1;
            entries = above(level, &entries);
        }
        FileContent { size: entries[0].len, root: Root { params: 1, level, hash: entries[0].hash } }
    };
    let old = content(&[chunk(0), chunk(1)]);
    let chunks: Vec<Entry> = (0..NODES * limits::MANIFEST_ENTRIES_MAX).map(chunk).collect();
    let new = content(&chunks);
    let all: usize = blocks.values().map(Bytes::len).sum();
    let mut held = Counting(blocks, Cell::new(0));
    let mut search = Search::new(Some(&old), &new);
    let mut most = 0;
    while search.step(&held).unwrap().is_none() {
        most = most.max(search.bytes());
    }
    assert!(all > 8 << 20 && most < 40 << 20, "{most} of {all}");
    assert!(search.bytes() < 128 * NODES, "{}", search.bytes());
    // The chunks once; of the nodes about a half twice.
    assert!(held.1.get() < chunks.len() + 2 * NODES, "{}", held.1.get());
    // What is missing is missed: the last list.
    let last = chunks.chunks(limits::MANIFEST_ENTRIES_MAX).next_back().unwrap();
    held.0.remove(&BlockHash::of(&ManifestNode::new(1, 1, last.to_vec()).unwrap().encode()));
    assert!(!Search::new(Some(&old), &new).finish(&held).unwrap());
}
