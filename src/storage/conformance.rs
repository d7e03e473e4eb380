//! What every store does, whatever it is made of: one suite, run over each implementation.

mod history;

use super::*;
use crate::block::{Block, Sealer};
use crate::manifest::Builder;
use crate::model::{FileContent, Kind, Name, NodeState, Root};
use bytes::Bytes;
use history::*;

/// A store under test.
pub trait Both: BlockStore + Journal {}
impl<T: BlockStore + Journal> Both for T {}

pub fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

pub fn block(seed: u32, len: usize) -> Block {
    let mut bytes = vec![0; len];
    crate::model::hash::expand(&[3; 32], u64::from(seed), &mut bytes);
    Block::new(bytes.into())
}

pub fn seal(block: &Block) -> VerifiedBlock {
    Sealer::new(1).seal(block)
}

pub fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

pub fn file_of(block: &Block) -> Kind {
    let root = Root { params: 1, level: 0, hash: block.hash() };
    let content = FileContent { size: block.bytes().len() as u64, root };
    Kind::File { content, mtime_ns: 5, exec: false }
}

pub fn put(n: u8, base: u64, parent: u8, name: &str, kind: Kind) -> Change {
    let state = NodeState { parent: id(parent), name: Name::new(name.as_bytes()).unwrap(), kind };
    Change { id: id(n), base: Seq(base), state: Some(state) }
}

pub fn delete(n: u8, base: u64) -> Change {
    Change { id: id(n), base: Seq(base), state: None }
}

pub fn request(share: ShareId, changes: Vec<Change>, blocks: &[&Block]) -> CommitRequest {
    CommitRequest {
        share,
        device: "test".to_owned(),
        session: SessionId::from_bytes([9; 16]),
        changes,
        inline: blocks.iter().map(|block| seal(block)).collect(),
    }
}

async fn commit(store: &dyn Both, share: ShareId, changes: Vec<Change>) -> Committed {
    store.commit(request(share, changes, &[])).await.unwrap()
}

async fn all(store: &dyn Both, share: ShareId, after: Position, max: usize, tombstones: bool) -> Vec<Node> {
    let (mut nodes, mut at) = (Vec::new(), after);
    loop {
        let page = store.read_since(share, at, max, tombstones).await.unwrap();
        assert!(page.nodes.len() <= max);
        nodes.extend(page.nodes);
        at = page.next;
        if page.complete {
            assert_eq!(at, Position { seq: page.head.seq, node: None });
            return nodes;
        }
    }
}

async fn blocks_come_back_in_the_order_asked_for(store: &dyn Both) {
    let blocks: Vec<Block> = (0..50).map(|n| block(n, 100 + 700 * n as usize)).collect();
    let zeros = Block::new(Bytes::from(vec![0; 5000]));
    let mut sealed: Vec<_> = blocks.iter().map(seal).collect();
    sealed.push(seal(&zeros));
    sealed.push(seal(&zeros));
    let report = store.put_many(sealed).await.unwrap();
    assert_eq!((report.stored, report.held), (51, 1));
    let again = store.put_many(vec![seal(&blocks[0])]).await.unwrap();
    assert_eq!((again.stored, again.held, again.bytes), (0, 1, 0));
    let mut hashes: Vec<BlockHash> = blocks.iter().rev().map(Block::hash).collect();
    hashes.insert(7, BlockHash::of(b"nobody has this"));
    hashes.push(zeros.hash());
    hashes.push(blocks[3].hash());
    let found = store.get_many(hashes.clone()).await.unwrap();
    assert_eq!(store.missing(hashes.clone()).await.unwrap().iter().position(|missing| *missing), Some(7));
    for (number, (hash, sealed)) in hashes.iter().zip(found).enumerate() {
        match sealed {
            Some(sealed) => assert_eq!(crate::block::seal::open(&sealed, None).unwrap().hash(), *hash),
            None => assert_eq!(number, 7),
        }
    }
}

async fn a_share_is_found_again_by_name(store: &dyn Both) {
    let (share, head) = store.open_share("one").await.unwrap();
    let (other, _) = store.open_share("two").await.unwrap();
    assert_ne!(share, other);
    assert_eq!(store.open_share("one").await.unwrap(), (share, head));
    assert_eq!((head.seq, store.head(share)), (Seq::ZERO, head));
    for name in ["", "a\nb", &"x".repeat(65)] {
        assert!(matches!(store.open_share(name).await, Err(StorageError::ShareName)));
    }
    let nowhere = ShareId::from_bytes([0xee; 16]);
    assert_eq!(store.head(nowhere), NO_HEAD);
    assert!(matches!(store.commit(request(nowhere, vec![], &[])).await, Err(StorageError::UnknownShare)));
}

async fn commits_are_numbered_linked_and_broadcast_in_order(store: &dyn Both) {
    let (share, start) = store.open_share("s").await.unwrap();
    let mut events = store.watch();
    let small = block(1, 10);
    let mut heads = vec![start];
    let first = request(share, vec![put(1, 0, 0, "a", file_of(&small))], &[&small]);
    heads.push(store.commit(first).await.unwrap().head);
    for n in 2..6u8 {
        heads.push(commit(store, share, vec![put(n, 0, 0, &n.to_string(), Kind::Folder)]).await.head);
    }
    for (number, head) in heads.iter().enumerate() {
        assert_eq!(head.seq, Seq(number as u64));
        assert!(store.knows(share, head.journal, head.seq, head.chain).await.unwrap());
        assert!(!store.knows(share, head.journal, head.seq.next(), head.chain).await.unwrap());
        let other = JournalId::from_bytes([1; 16]);
        assert!(!store.knows(share, other, head.seq, head.chain).await.unwrap());
    }
    for (number, head) in heads.iter().enumerate().skip(1) {
        let event = events.recv().await.unwrap();
        assert_eq!((event.prev, event.head), (Seq(number as u64 - 1), *head));
        assert_eq!(event.inline.len(), usize::from(number == 1));
        assert_eq!(event.nodes[0].version, head.seq);
    }
}

async fn what_is_refused_changes_nothing_and_the_rest_stands(store: &dyn Both) {
    let (share, _) = store.open_share("s").await.unwrap();
    commit(store, share, vec![put(1, 0, 0, "a", Kind::Folder)]).await;
    let absent = block(1, 10);
    let mixed = vec![
        put(2, 0, 0, "b", file_of(&absent)),
        put(3, 0, 1, "c", Kind::Folder),
        put(1, 0, 0, "d", Kind::Folder),
    ];
    let done = commit(store, share, mixed).await;
    assert_eq!(done.refused, [(0, Refusal::MissingBlocks), (2, Refusal::Stale)]);
    assert_eq!((done.prev, done.head.seq, done.nodes.len()), (Seq(1), Seq(2), 1));
    let none = commit(store, share, vec![delete(1, 1)]).await;
    assert_eq!((none.prev, none.head, none.refused), (Seq(2), done.head, vec![(0, Refusal::NotEmpty)]));
    assert!(none.nodes.is_empty());
    assert_eq!(store.head(share), done.head);
}

async fn every_page_size_gives_each_node_once_at_its_latest_version(store: &dyn Both) {
    let (share, _) = store.open_share("s").await.unwrap();
    commit(store, share, (1..10).map(|n| put(n, 0, 0, &n.to_string(), Kind::Folder)).collect()).await;
    // Two names swap, one node moves, one dies.
    let swap = vec![put(1, 1, 0, "2", Kind::Folder), put(2, 1, 0, "1", Kind::Folder)];
    assert!(commit(store, share, swap).await.refused.is_empty());
    commit(store, share, vec![put(3, 1, 4, "in", Kind::Folder), delete(5, 1)]).await;
    let whole = all(store, share, Position::default(), 100, true).await;
    let order: Vec<(u64, NodeId)> = whole.iter().map(|node| (node.version.0, node.id)).collect();
    let expected: Vec<(u64, NodeId)> =
        [(1, 4), (1, 6), (1, 7), (1, 8), (1, 9), (2, 1), (2, 2), (3, 3), (3, 5)]
            .map(|(v, n)| (v, id(n)))
            .to_vec();
    assert_eq!(order, expected);
    for max in 1..12 {
        assert_eq!(all(store, share, Position::default(), max, true).await, whole, "{max}");
        let live: Vec<Node> = whole.iter().filter(|node| node.state.is_some()).cloned().collect();
        assert_eq!(all(store, share, Position::default(), max, false).await, live, "{max}");
        let since = all(store, share, Position { seq: Seq(2), node: None }, max, true).await;
        assert_eq!(since, whole[7..], "{max}");
    }
    assert!(all(store, share, Position { seq: Seq(3), node: None }, 5, true).await.is_empty());
}

async fn a_manifest_stands_only_with_all_its_blocks(store: &dyn Both) {
    let (share, _) = store.open_share("s").await.unwrap();
    let chunks: Vec<Block> = (0..300).map(|n| block(n, 33_000)).collect();
    let mut builder = Builder::new(1);
    let mut nodes = Vec::new();
    for chunk in &chunks {
        nodes.extend(builder.push(chunk.hash(), 33_000).unwrap());
    }
    let (content, rest) = builder.finish().unwrap();
    nodes.extend(rest);
    let kind = Kind::File { content, mtime_ns: 0, exec: false };
    let change = || vec![put(1, 0, 0, "f", kind.clone())];
    store.put_many(chunks.iter().skip(1).map(seal).collect()).await.unwrap();
    assert_eq!(commit(store, share, change()).await.refused, [(0, Refusal::MissingBlocks)]);
    store.put_many(nodes.iter().map(seal).collect()).await.unwrap();
    assert_eq!(
        commit(store, share, change()).await.refused,
        [(0, Refusal::MissingBlocks)],
        "one chunk short"
    );
    store.put_many(vec![seal(&chunks[0])]).await.unwrap();
    assert!(commit(store, share, change()).await.refused.is_empty());
}

async fn a_share_is_told_of_given_and_can_name_only_what_was_brought_to_it(store: &dyn Both) {
    let (one, _) = store.open_share("one").await.unwrap();
    let (two, _) = store.open_share("two").await.unwrap();
    let (theirs, both, unnamed) = (block(1, 900), block(2, 900), block(3, 900));
    let file = |n, block: &Block| vec![put(n, 0, 0, &n.to_string(), file_of(block))];
    store.put_in(Some(one), vec![seal(&both), seal(&unnamed)]).await.unwrap();
    let committed = store.commit(request(one, file(1, &theirs), &[&theirs])).await.unwrap();
    assert!(committed.refused.is_empty());
    assert!(commit(store, one, file(2, &both)).await.refused.is_empty());
    let asked = vec![theirs.hash(), both.hash(), unnamed.hash(), BlockHash::of(b"nobody has this")];
    let seen = async |share| {
        let missing = store.missing_in(share, asked.clone()).await.unwrap();
        let found = store.get_in(share, asked.clone()).await.unwrap();
        assert_eq!(missing, found.iter().map(Option::is_none).collect::<Vec<_>>());
        missing.iter().map(|missing| !missing).collect::<Vec<_>>()
    };
    assert_eq!(seen(Some(one)).await, [true, true, true, false]);
    assert_eq!(seen(Some(two)).await, [false; 4], "as if nobody had them");
    assert_eq!(seen(None).await, [true, true, true, false]);
    // To name a block is no way to it.
    assert_eq!(commit(store, two, file(1, &theirs)).await.refused, [(0, Refusal::MissingBlocks)]);
    // To bring it is, and it is stored once all the same.
    let report = store.put_in(Some(two), vec![seal(&both)]).await.unwrap();
    assert_eq!((report.stored, report.held), (0, 1));
    assert_eq!(seen(Some(two)).await, [false, true, false, false]);
    assert!(commit(store, two, file(2, &both)).await.refused.is_empty());
    let again = store.commit(request(two, file(3, &theirs), &[&theirs])).await.unwrap();
    assert!(again.refused.is_empty());
    assert_eq!(seen(Some(two)).await, [true, true, false, false]);
}

async fn a_put_brings_what_its_share_did_not_reach_and_no_more_than_it_may(store: &dyn Both) {
    let (one, _) = store.open_share("one").await.unwrap();
    let (two, _) = store.open_share("two").await.unwrap();
    let (first, second, third) = (block(1, 900), block(2, 800), block(3, 700));
    let cost = |block: &&Block| seal(block).sealed().payload.len() as u64 + super::BLOCK_COST_BYTES;
    let bytes = |blocks: &[&Block]| blocks.iter().map(cost).sum::<u64>();
    let within = |share, blocks: &[&Block], max| {
        store.put_within(Some(share), blocks.iter().map(|block| seal(block)).collect(), max)
    };
    let both = bytes(&[&first, &second]);
    assert!(matches!(within(one, &[&first, &second], both - 1).await, Err(StorageError::OverQuota)));
    assert_eq!(
        store.missing(vec![first.hash(), second.hash()]).await.unwrap(),
        [true; 2],
        "nothing was taken"
    );
    // Twice in one put is once.
    assert_eq!(within(one, &[&first, &second, &first], both).await.unwrap().brought, both);
    assert_eq!(within(one, &[&first, &second], 0).await.unwrap().brought, 0, "it reaches them");
    // What another share holds costs as much as what nobody holds, or the bill would tell.
    let both = bytes(&[&first, &third]);
    assert!(matches!(within(two, &[&first, &third], both - 1).await, Err(StorageError::OverQuota)));
    assert_eq!(store.missing_in(Some(two), vec![first.hash()]).await.unwrap(), [true], "and gives nothing");
    let report = within(two, &[&first, &third], both).await.unwrap();
    assert_eq!((report.brought, report.stored, report.held), (both, 1, 1));
}

async fn commits_at_the_same_time_are_judged_one_after_the_other(store: &dyn Both) {
    let (share, _) = store.open_share("s").await.unwrap();
    let same_name = |n| store.commit(request(share, vec![put(n, 0, 0, "x", Kind::Folder)], &[]));
    let below = store.commit(request(share, vec![put(9, 0, 1, "y", Kind::Folder)], &[]));
    let (a, b, c) = tokio::join!(same_name(1), same_name(2), below);
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert!(a.refused.is_empty() && c.refused.is_empty());
    assert_eq!(b.refused, [(0, Refusal::NameTaken)]);
    assert_eq!((c.prev, c.head), (Seq(1), store.head(share)));
}

async fn a_block_that_needs_another_one_is_not_taken(store: &dyn Both) {
    let base = block(1, 60_000);
    let mut changed = base.bytes().to_vec();
    changed[5] ^= 1;
    let changed = Block::new(changed.into());
    let sealed = Sealer::new(1).seal_against(&changed, &base).unwrap();
    assert!(matches!(store.put_many(vec![sealed]).await, Err(StorageError::NeedsBase(_))));
    assert_eq!(store.missing(vec![changed.hash()]).await.unwrap(), [true]);
}

macro_rules! suite {
    ($($fact:ident),* $(,)?) => {
        mod memory {
            $(#[test]
            fn $fact() {
                super::run(super::$fact(&super::MemoryStore::new([1; 32])));
            })*
        }

        mod on_disk {
            $(#[test]
            fn $fact() {
                let folder = tempfile::tempdir().unwrap();
                let store = super::Store::open(&folder.path().join("s"), super::StoreOptions::default()).unwrap();
                super::run(super::$fact(&*store));
                store.close().unwrap();
            })*
        }
    };
}

suite! {
    blocks_come_back_in_the_order_asked_for,
    a_share_is_found_again_by_name,
    commits_are_numbered_linked_and_broadcast_in_order,
    what_is_refused_changes_nothing_and_the_rest_stands,
    every_page_size_gives_each_node_once_at_its_latest_version,
    a_manifest_stands_only_with_all_its_blocks,
    a_share_is_told_of_given_and_can_name_only_what_was_brought_to_it,
    a_put_brings_what_its_share_did_not_reach_and_no_more_than_it_may,
    commits_at_the_same_time_are_judged_one_after_the_other,
    a_block_that_needs_another_one_is_not_taken,
    the_share_as_it_was_after_every_commit_is_found_by_folder_path_and_id,
    the_log_of_everything_has_every_change_with_its_paths_latest_first,
    the_log_of_a_path_follows_what_stands_there_and_ends_where_things_left,
    moments_are_found_by_the_clock_and_a_new_share_has_none,
}

#[test]
fn a_crash_of_the_reference_loses_blocks_without_a_commit_and_nothing_else() {
    run(async {
        let store = MemoryStore::new([1; 32]);
        let (share, _) = store.open_share("s").await.unwrap();
        let (kept, lost) = (block(1, 10), block(2, 10));
        store.commit(request(share, vec![put(1, 0, 0, "a", file_of(&kept))], &[&kept])).await.unwrap();
        store.put_many(vec![seal(&lost)]).await.unwrap();
        store.crash();
        assert_eq!(store.missing(vec![kept.hash(), lost.hash()]).await.unwrap(), [false, true]);
        assert_eq!(store.head(share).seq, Seq(1));
    });
}

#[test]
fn a_commit_that_could_not_be_read_back_is_refused_and_the_next_one_is_not() {
    use crate::model::codec;
    let link = |n: usize, len: usize| {
        let mut link =
            put(0, 0, 0, &format!("link{n}"), Kind::Symlink { target: vec![b'x'; len], mtime_ns: 0 });
        link.id = NodeId::from_bytes((n as u128 + 1).to_be_bytes());
        link
    };
    let of =
        |len: usize| -> Vec<Change> { (0..503).map(|n| link(n, if n < 501 { 4095 } else { len })).collect() };
    // The largest that a server takes off the wire: what it writes of it has a number, a time and a name besides.
    let comes_in = |len: &usize| {
        codec::encode(&(4u32, of(*len)))
            .is_ok_and(|bytes| codec::decode::<(u32, Vec<Change>)>(&bytes).is_ok())
    };
    let lens: Vec<usize> = (1..4096).collect();
    let largest = lens.partition_point(comes_in);
    assert!(largest < 4095 && codec::encode(&of(largest)).unwrap().len() < codec::BYTES_MAX - 1000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let store = Store::open(&path, StoreOptions::default()).unwrap();
    let (share, head) = run(store.open_share("s")).unwrap();
    let too_large = run(store.commit(request(share, of(largest), &[])));
    assert!(matches!(too_large, Err(StorageError::CommitTooLarge)), "{too_large:?}");
    assert_eq!(store.head(share), head);
    let taken = run(store.commit(request(share, of(largest - 50), &[]))).unwrap();
    store.close().unwrap();
    drop(store);
    std::fs::remove_dir_all(path.join("db")).unwrap();
    let store = Store::open(&path, StoreOptions::default()).unwrap();
    assert_eq!(store.head(share), taken.head);
    store.close().unwrap();
    let memory = MemoryStore::new([1; 32]);
    let (share, head) = run(memory.open_share("s")).unwrap();
    let too_large = run(memory.commit(request(share, of(largest), &[])));
    assert!(matches!(too_large, Err(StorageError::CommitTooLarge)) && memory.head(share) == head);
}
