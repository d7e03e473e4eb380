//! Stores that were killed, torn, cut, bent or robbed, and what opens afterwards.
//!
//! A copy of the folder of a running store stands for a kill: the files are what the process had handed to the system,
//! and nothing was closed. Real kills are at the end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, clippy::print_stdout)]

use dropblock::block::{Block, Sealer, VerifiedBlock};
use dropblock::model::{
    BlockHash, Change, FileContent, Kind, Name, NodeId, NodeState, Root, Seq, SessionId, hash,
};
use dropblock::storage::{
    BlockStore, CommitRequest, Committed, Journal, Position, Problem, ShareId, StorageError, Store,
    StoreOptions,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The index is not flushed by itself.
fn options() -> StoreOptions {
    StoreOptions { free_bytes_min: 0, flush_ms: 3_600_000, index_open_ms: 3000, ..StoreOptions::default() }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// Random bytes for even numbers, text for odd ones: raw and compressed records.
fn block(number: u64, len: usize) -> Block {
    let mut bytes = vec![0; len];
    if number.is_multiple_of(2) {
        hash::expand(&[5; 32], number, &mut bytes);
    } else {
        bytes = format!("line {number} of a text\n").into_bytes().into_iter().cycle().take(len).collect();
    }
    Block::new(bytes.into())
}

fn seal(block: &Block) -> VerifiedBlock {
    Sealer::new(1).seal(block)
}

/// The commit that creates file `number`.
fn file(share: ShareId, number: u64, block: &Block) -> CommitRequest {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let root = Root { params: 1, level: 0, hash: block.hash() };
    let content = FileContent { size: block.bytes().len() as u64, root };
    let name = Name::new(number.to_string().as_bytes()).unwrap();
    let kind = Kind::File { content, mtime_ns: 0, exec: false };
    let state = Some(NodeState { parent: NodeId::ROOT, name, kind });
    CommitRequest {
        share,
        device: "test".to_owned(),
        session: SessionId::from_bytes([1; 16]),
        changes: vec![Change { id: NodeId::from_bytes(id), base: Seq::ZERO, state }],
        inline: vec![seal(block)],
    }
}

fn write(store: &Store, numbers: std::ops::Range<u64>) -> Vec<Committed> {
    run(async {
        let (share, _) = store.open_share("default").await.unwrap();
        let mut done = Vec::new();
        for number in numbers {
            done.push(store.commit(file(share, number, &block(number, 3000))).await.unwrap());
        }
        done
    })
}

/// Every file of `0..count` is there, with its block, and the head is the one that was acknowledged.
fn assert_whole(store: &Store, count: u64) {
    run(async {
        let (share, head) = store.open_share("default").await.unwrap();
        assert_eq!(head.seq, Seq(count));
        let page = store.read_since(share, Position::default(), 10_000, true).await.unwrap();
        assert!(page.complete);
        let versions: Vec<u64> = page.nodes.iter().map(|node| node.version.0).collect();
        assert_eq!(versions, (1..=count).collect::<Vec<_>>());
        assert!(store.knows(share, head.journal, head.seq, head.chain).await.unwrap());
        let hashes = (0..count).map(|number| block(number, 3000).hash()).collect();
        assert!(store.get_many(hashes).await.unwrap().iter().all(Option::is_some));
    });
}

fn copy(from: &Path, to: &Path) -> PathBuf {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
    to.to_owned()
}

fn open(path: &Path) -> Arc<Store> {
    Store::open(path, options()).unwrap()
}

fn only_file(folder: &Path, extension: &str) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

struct Fixture {
    folder: tempfile::TempDir,
    store: Arc<Store>,
}

impl Fixture {
    /// A running store with files `0..count`.
    fn new(count: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("store"));
        write(&store, 0..count);
        Self { folder, store }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn killed(&self, name: &str) -> PathBuf {
        copy(&self.path(), &self.folder.path().join(name))
    }

    fn closed(&self, name: &str) -> PathBuf {
        self.store.close().unwrap();
        self.killed(name)
    }
}

#[test]
fn a_killed_store_opens_with_everything_acknowledged() {
    let fixture = Fixture::new(20);
    let killed = fixture.killed("killed");
    let store = open(&killed);
    assert_eq!(store.problems(), []);
    assert_whole(&store, 20);
    write(&store, 20..30);
    drop(store);
    assert_whole(&open(&killed), 30);
}

#[test]
fn a_lost_database_is_rebuilt_whether_the_store_was_closed_or_killed() {
    let fixture = Fixture::new(20);
    for path in [fixture.killed("killed"), fixture.closed("closed")] {
        std::fs::remove_dir_all(path.join("db")).unwrap();
        let store = open(&path);
        assert_eq!(store.problems(), [Problem::RebuiltIndex { kept: None }]);
        assert_whole(&store, 20);
    }
}

#[test]
fn a_damaged_database_is_put_aside_and_rebuilt() {
    let fixture = Fixture::new(20);
    let closed = fixture.closed("closed");
    let mut files = Vec::new();
    let mut folders = vec![closed.join("db")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for (number, damaged) in files.iter().enumerate() {
        let len = std::fs::metadata(damaged).unwrap().len();
        if len == 0 {
            continue;
        }
        for (kind, bytes) in [("zeros", vec![0; len as usize]), ("short", vec![])] {
            let path = copy(&closed, &fixture.folder.path().join(format!("{kind}-{number}")));
            std::fs::write(path.join(damaged.strip_prefix(&closed).unwrap()), bytes).unwrap();
            let store = open(&path);
            assert_whole(&store, 20);
        }
    }
}

#[test]
fn a_database_of_another_store_is_not_believed() {
    let (one, two) = (Fixture::new(20), Fixture::new(5));
    let (one, two) = (one.closed("closed"), two.closed("closed"));
    std::fs::remove_dir_all(one.join("db")).unwrap();
    copy(&two.join("db"), &one.join("db"));
    let store = open(&one);
    assert!(matches!(&store.problems()[..], [Problem::RebuiltIndex { kept: Some(_) }]));
    assert_whole(&store, 20);
}

#[test]
fn a_torn_pack_tail_is_cut_at_any_byte_and_loses_only_what_no_commit_named() {
    let fixture = Fixture::new(6);
    let committed = std::fs::metadata(fixture.path().join("packs/00000001.pack")).unwrap().len();
    run(async {
        let blocks = (100..103).map(|number| seal(&block(number, 200))).collect();
        fixture.store.put_many(blocks).await.unwrap();
    });
    let killed = fixture.killed("killed");
    let pack = std::fs::read(killed.join("packs/00000001.pack")).unwrap();
    let ends: Vec<usize> = (committed as usize..pack.len()).step_by(37).chain([pack.len() - 1]).collect();
    for cut in ends {
        for zeros in [false, true] {
            let path = copy(&killed, &fixture.folder.path().join(format!("cut-{cut}-{zeros}")));
            let mut torn = pack[..cut].to_vec();
            if zeros {
                torn.resize(pack.len(), 0);
            }
            std::fs::write(path.join("packs/00000001.pack"), torn).unwrap();
            let store = open(&path);
            assert!(
                store.problems().iter().all(|problem| matches!(problem, Problem::CutTail { .. })),
                "{cut}"
            );
            assert_whole(&store, 6);
            write(&store, 6..8);
            drop(store);
            let store = open(&path);
            assert_eq!(store.problems(), [], "{cut}");
            assert_whole(&store, 8);
        }
    }
}

#[test]
fn a_flipped_bit_in_a_pack_is_an_error_for_that_block_alone_until_it_is_brought_again() {
    let fixture = Fixture::new(6);
    for lost_index in [false, true] {
        let path = fixture.killed(&format!("bent-{lost_index}"));
        if !lost_index {
            drop(open(&path));
        }
        let bent = block(2, 3000);
        let pack = path.join("packs/00000001.pack");
        let bytes = std::fs::read(&pack).unwrap();
        let at = bytes.windows(3000).position(|window| window == &bent.bytes()[..]).unwrap();
        flip(&pack, at + 1500);
        let store = open(&path);
        run(async {
            let others: Vec<_> = [0, 1, 3, 4, 5].map(|number| block(number, 3000).hash()).to_vec();
            assert!(store.get_many(others).await.unwrap().iter().all(Option::is_some));
            let found = store.get_many(vec![bent.hash()]).await;
            if lost_index {
                // Seen while packs were read: it is not in the index at all.
                assert_eq!(found.unwrap(), [None]);
                assert!(
                    store.problems().iter().any(|problem| matches!(problem, Problem::DamagedPack { .. }))
                );
            } else {
                assert!(matches!(found, Err(StorageError::DamagedBlock { hash, .. }) if hash == bent.hash()));
                assert_eq!(store.problems(), [Problem::DamagedBlock(bent.hash())]);
            }
            assert_eq!(store.missing(vec![bent.hash()]).await.unwrap(), [true]);
            assert_eq!(store.put_many(vec![seal(&bent)]).await.unwrap().stored, 1);
            assert!(store.get_many(vec![bent.hash()]).await.unwrap()[0].is_some());
        });
        assert_whole(&store, 6);
        drop(store);
        assert_whole(&open(&path), 6);
    }
}

#[test]
fn a_lost_pack_is_reported_and_its_blocks_count_as_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let small = || StoreOptions { pack_bytes: 4000, ..options() };
    let store = Store::open(&path, small()).unwrap();
    write(&store, 0..10);
    store.close().unwrap();
    let lost = path.join("packs/00000001.pack");
    assert!(path.join("packs/00000003.pack").exists());
    std::fs::remove_file(&lost).unwrap();
    let store = Store::open(&path, small()).unwrap();
    assert!(store.problems().contains(&Problem::MissingPack(lost)));
    run(async {
        let hashes: Vec<_> = (0..10).map(|number| block(number, 3000).hash()).collect();
        let missing = store.missing(hashes).await.unwrap();
        assert!(missing[0] && !missing[9]);
        store.put_many((0..10).map(|number| seal(&block(number, 3000))).collect()).await.unwrap();
    });
    assert_whole(&store, 10);
}

#[test]
fn a_torn_journal_tail_is_cut_and_a_bent_journal_is_refused_untouched() {
    let fixture = Fixture::new(6);
    let journal = only_file(&fixture.path().join("journal"), "journal");
    let before = std::fs::metadata(&journal).unwrap().len();
    write(&fixture.store, 6..7);
    let killed = fixture.killed("killed");
    let name = journal.file_name().unwrap();
    let bytes = std::fs::read(killed.join("journal").join(name)).unwrap();
    for cut in (before as usize..bytes.len()).step_by(11).chain([bytes.len() - 1]) {
        let path = copy(&killed, &fixture.folder.path().join(format!("cut-{cut}")));
        std::fs::write(path.join("journal").join(name), &bytes[..cut]).unwrap();
        let store = open(&path);
        assert_whole(&store, 6);
        write(&store, 6..9);
        drop(store);
        assert_whole(&open(&path), 9);
    }
    for at in [40, 100, before as usize / 2, before as usize - 1] {
        let path = copy(&killed, &fixture.folder.path().join(format!("bent-{at}")));
        flip(&path.join("journal").join(name), at);
        let bent = std::fs::read(path.join("journal").join(name)).unwrap();
        assert!(matches!(Store::open(&path, options()), Err(StorageError::Damaged { .. })), "{at}");
        assert_eq!(std::fs::read(path.join("journal").join(name)).unwrap(), bent);
    }
}

#[test]
fn a_journal_that_lost_durable_commits_is_refused_until_its_owner_removes_the_index() {
    let fixture = Fixture::new(6);
    let journal = only_file(&fixture.path().join("journal"), "journal");
    let short = std::fs::read(&journal).unwrap();
    write(&fixture.store, 6..9);
    let closed = fixture.closed("closed");
    std::fs::write(closed.join("journal").join(journal.file_name().unwrap()), short).unwrap();
    let refused = Store::open(&closed, options());
    assert!(matches!(refused, Err(StorageError::JournalCut { has: Seq(6), seen: Seq(9), .. })));
    std::fs::remove_dir_all(closed.join("db")).unwrap();
    assert_whole(&open(&closed), 6);
}

/// A server whose journal was removed served an empty share, and said nothing.
#[test]
fn a_journal_that_is_gone_is_refused_until_its_owner_removes_the_index() {
    let fixture = Fixture::new(6);
    let closed = fixture.closed("closed");
    std::fs::remove_file(only_file(&closed.join("journal"), "journal")).unwrap();
    for _ in 0..2 {
        let refused = Store::open(&closed, options());
        assert!(matches!(refused, Err(StorageError::JournalMissing { seen: Seq(6), .. })));
    }
    std::fs::remove_dir_all(closed.join("db")).unwrap();
    assert_whole(&open(&closed), 0);
}

fn try_write(store: &Store, number: u64) -> Result<Committed, StorageError> {
    run(async {
        let (share, _) = store.open_share("default").await?;
        store.commit(file(share, number, &block(number, 3000))).await
    })
}

/// What is appended to it is gone when the process ends.
#[test]
fn a_commit_into_a_journal_that_was_removed_is_not_acknowledged() {
    for replaced in [false, true] {
        let fixture = Fixture::new(3);
        let journal = only_file(&fixture.path().join("journal"), "journal");
        if replaced {
            let other = journal.with_extension("other");
            std::fs::copy(&journal, &other).unwrap();
            std::fs::rename(&other, &journal).unwrap();
        } else {
            std::fs::remove_file(&journal).unwrap();
        }
        let refused = try_write(&fixture.store, 3).unwrap_err();
        let cause = std::error::Error::source(&refused).unwrap().to_string();
        assert!(refused.is_fatal() && cause.contains(journal.to_str().unwrap()), "{refused} {cause}");
        assert!(try_write(&fixture.store, 4).unwrap_err().is_fatal());
        fixture.store.close().unwrap_err();
    }
}

#[test]
fn nothing_is_acknowledged_that_went_into_a_pack_without_a_name() {
    // Between the append and the sync: nobody can bring it to disk any more.
    let fixture = Fixture::new(3);
    let pack = only_file(&fixture.path().join("packs"), "pack");
    run(fixture.store.put_many(vec![seal(&block(50, 3000))])).unwrap();
    std::fs::remove_file(&pack).unwrap();
    let refused = try_write(&fixture.store, 3).unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(refused.is_fatal() && cause.contains(pack.to_str().unwrap()), "{refused} {cause}");
    // While everything in it was durable: the next pack takes what comes.
    let fixture = Fixture::new(3);
    let pack = only_file(&fixture.path().join("packs"), "pack");
    std::fs::remove_file(&pack).unwrap();
    write(&fixture.store, 3..6);
    assert!(fixture.store.is_unsettled());
    let store = open(&copy(&fixture.path(), &fixture.folder.path().join("killed")));
    let hashes = (0..6).map(|number| block(number, 3000).hash()).collect();
    let held: Vec<bool> = run(store.get_many(hashes)).unwrap().iter().map(Option::is_some).collect();
    assert_eq!(held, [false, false, false, true, true, true]);
    let missing = |problem: &Problem| matches!(problem, Problem::MissingPack(path) if path.file_name() == pack.file_name());
    assert!(store.problems().iter().any(missing), "{:?}", store.problems());
}

#[test]
fn a_full_disk_refuses_blocks_and_nothing_else() {
    let fixture = Fixture::new(3);
    fixture.store.close().unwrap();
    let full = StoreOptions { free_bytes_min: u64::MAX, ..options() };
    let store = Store::open(&fixture.path(), full).unwrap();
    run(async {
        let (share, _) = store.open_share("default").await.unwrap();
        let refused = store.put_many(vec![seal(&block(50, 10))]).await;
        assert!(matches!(refused, Err(error) if matches!(error, StorageError::Full(_)) && !error.is_fatal()));
        let refused = store.commit(file(share, 50, &block(50, 10))).await;
        assert!(matches!(refused, Err(StorageError::Full(_))));
        // What needs no new block goes through: a disk is made emptier by deleting.
        store.commit(file(share, 3, &block(0, 3000))).await.unwrap();
        assert_eq!(store.head(share).seq, Seq(4));
    });
}

#[test]
fn two_processes_never_share_a_store_and_a_closed_one_says_so() {
    let fixture = Fixture::new(1);
    assert!(matches!(Store::open(&fixture.path(), options()), Err(StorageError::Locked(_))));
    fixture.store.close().unwrap();
    let again = open(&fixture.path());
    assert_whole(&again, 1);
    let closed = run(fixture.store.missing(vec![block(0, 3000).hash()]));
    assert!(matches!(closed, Err(StorageError::Closed)));
}

/// The store in `tests/data/store-v1` was written by the first release of the format. It is never written anew: a format
/// that changes gets a sample of its own.
#[test]
fn a_store_of_version_1_opens() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store-v1");
    if std::env::var_os("DROPBLOCK_WRITE_SAMPLES").is_some() && !sample.exists() {
        let fixed = StoreOptions { clock: || 1_790_000_000_000, ..options() };
        let store = Store::open(&sample, fixed).unwrap();
        write(&store, 0..5);
        store.close().unwrap();
        // The index is no format: it is left out.
        std::fs::remove_dir_all(sample.join("db")).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&copy(&sample, &folder.path().join("store")));
    assert_whole(&store, 5);
}

const CHILD: &str = "DROPBLOCK_TEST_KILL_ME";

/// Runs only as the child of the test below: writes files one after the other and says which are acknowledged.
#[test]
fn child_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let often = StoreOptions { flush_ms: 20, pack_bytes: 200_000, ..options() };
    let store = Store::open(Path::new(&path), often).unwrap();
    let next = run(store.open_share("default")).unwrap().1.seq.0;
    for number in next.. {
        write(&store, number..number + 1);
        println!("acknowledged {}", number + 1);
    }
}

#[test]
fn whatever_was_acknowledged_before_kill_9_is_there_afterwards() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut seen = BTreeMap::new();
    for round in 0..8u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let started = std::time::Instant::now();
        let mut acknowledged = 0;
        for line in lines {
            if let Some(count) = line.unwrap().rsplit_once("acknowledged ").and_then(|(_, n)| n.parse().ok())
            {
                acknowledged = count;
            }
            // A different moment every round.
            if acknowledged > 0 && started.elapsed().as_millis() as u64 > 120 + 37 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = open(&path);
        let head = run(store.open_share("default")).unwrap().1;
        assert!(head.seq.0 >= acknowledged, "round {round}: {acknowledged} acknowledged, {} there", head.seq);
        assert_whole(&store, head.seq.0);
        seen.insert(round, head.seq.0);
    }
    println!("commits after each round: {seen:?}");
}

/// What a share reaches: its file of many chunks, and nothing of the other share.
fn assert_reach(store: &Store, content: &[BlockHash], other: BlockHash) {
    run(async {
        let (one, _) = store.open_share("one").await.unwrap();
        let (two, _) = store.open_share("two").await.unwrap();
        let missing = store.missing_in(Some(one), content.to_vec()).await.unwrap();
        assert_eq!(missing.iter().filter(|missing| **missing).count(), 0, "of its own");
        assert_eq!(store.missing_in(Some(one), vec![other]).await.unwrap(), [true]);
        assert_eq!(store.missing_in(Some(two), vec![other]).await.unwrap(), [false]);
        let missing = store.missing_in(Some(two), content.to_vec()).await.unwrap();
        assert!(missing.iter().all(|missing| *missing), "of another share");
    });
}

#[test]
fn what_a_share_reaches_is_known_again_after_a_kill_and_without_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = open(&path);
    let chunks: Vec<Block> = (0..300).map(|number| block(2 * number, 33_000)).collect();
    let mut builder = dropblock::manifest::Builder::new(1);
    let mut blocks = chunks.clone();
    for chunk in &chunks {
        blocks.extend(builder.push(chunk.hash(), 33_000).unwrap());
    }
    let (content, rest) = builder.finish().unwrap();
    blocks.extend(rest);
    let hashes: Vec<BlockHash> = blocks.iter().map(Block::hash).collect();
    let other = block(1_000_001, 500);
    run(async {
        let (one, _) = store.open_share("one").await.unwrap();
        let (two, _) = store.open_share("two").await.unwrap();
        store.put_in(Some(one), blocks.iter().map(seal).collect()).await.unwrap();
        let mut large = file(one, 1, &chunks[0]);
        let state = large.changes[0].state.as_mut().unwrap();
        state.kind = Kind::File { content, mtime_ns: 0, exec: false };
        assert!(store.commit(large).await.unwrap().refused.is_empty());
        assert!(store.commit(file(two, 1, &other)).await.unwrap().refused.is_empty());
    });
    assert_reach(&store, &hashes, other.hash());
    // As a kill leaves it: nothing since the start is in the flushed index.
    let killed = copy(&path, &dir.path().join("killed"));
    assert_reach(&open(&killed), &hashes, other.hash());
    store.close().unwrap();
    drop(store);
    assert_reach(&open(&path), &hashes, other.hash());
    std::fs::remove_dir_all(path.join("db")).unwrap();
    assert_reach(&open(&path), &hashes, other.hash());
}
