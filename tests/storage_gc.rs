//! Upkeep of a real store. Garbage collection: what goes, what stays, and what is there after a crash at each of its steps.
//! Check and scrub: what they find, and what repair adds.
//!
//! A copy of the folder of a running store stands for a kill, as in `storage_damage`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, clippy::print_stdout)]

#[path = "storage_gc/buried.rs"]
mod buried;
#[path = "storage_gc/keeping.rs"]
mod keeping;
#[path = "storage_gc/past.rs"]
mod past;

use dropblock::block::{Block, Sealer, VerifiedBlock};
use dropblock::manifest::Builder;
use dropblock::model::{BlockHash, Change, FileContent, Kind, Name, NodeId, NodeState, Seq, SessionId, hash};
use dropblock::storage::{
    BlockStore, Brake, CheckOptions, CheckReport, CommitRequest, Finding, GcOptions, GcReport, GcStep,
    Journal, Problem, ShareId, StorageError, Store, StoreOptions,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

static CLOCK_MS: AtomicU64 = AtomicU64::new(1_000_000);

fn now_ms() -> u64 {
    CLOCK_MS.load(Ordering::Relaxed)
}

fn options() -> StoreOptions {
    StoreOptions {
        free_bytes_min: 0,
        flush_ms: 3_600_000,
        index_open_ms: 5000,
        pack_bytes: 40_000,
        clock: now_ms,
        keep_ms: Some(0),
    }
}

/// Nothing is kept for history, nothing waits.
const AT_ONCE: GcOptions = GcOptions { grace_ms: 0, sparse_percent: 25, dry_run: false, gentle: false };

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// So many random bytes, then zeros as far as a chunk has to have: in a pack it takes little more than those.
fn block(number: u64, len: usize) -> Block {
    let mut bytes = vec![0; len.max(dropblock::chunk::V1.min_bytes())];
    hash::expand(&[5; 32], number, &mut bytes[..len]);
    Block::new(bytes.into())
}

fn seal(block: &Block) -> VerifiedBlock {
    Sealer::new(1).seal(block)
}

/// A file of these blocks, and all blocks it takes.
fn content(chunks: &[Block]) -> (FileContent, Vec<Block>) {
    let mut builder = Builder::new(1);
    let mut all = chunks.to_vec();
    for chunk in chunks {
        all.extend(builder.push(chunk.hash(), chunk.bytes().len() as u64).unwrap());
    }
    let (content, nodes) = builder.finish().unwrap();
    all.extend(nodes);
    (content, all)
}

fn id(file: u64) -> NodeId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&file.to_be_bytes());
    NodeId::from_bytes(id)
}

struct Fixture {
    folder: tempfile::TempDir,
    store: Arc<Store>,
    share: ShareId,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("store"));
        let share = run(store.open_share("default")).unwrap().0;
        Self { folder, store, share }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn write(
        &self,
        file: u64,
        base: u64,
        content: FileContent,
        blocks: &[Block],
    ) -> Result<u64, StorageError> {
        let kind = Kind::File { content, mtime_ns: 0, exec: false };
        let name = Name::new(file.to_string().as_bytes()).unwrap();
        self.change(file, base, Some(NodeState { parent: NodeId::ROOT, name, kind }), blocks)
    }

    fn change(
        &self,
        file: u64,
        base: u64,
        state: Option<NodeState>,
        blocks: &[Block],
    ) -> Result<u64, StorageError> {
        let changes = vec![Change { id: id(file), base: Seq(base), state }];
        let request = CommitRequest {
            share: self.share,
            device: "test".to_owned(),
            session: SessionId::from_bytes([1; 16]),
            changes,
            inline: blocks.iter().map(seal).collect(),
        };
        let committed = run(self.store.commit(request))?;
        assert_eq!(committed.refused, []);
        Ok(committed.head.seq.0)
    }

    /// Files `0..count` of a few blocks each, every second one deleted again.
    fn half_garbage(count: u64) -> (Self, Vec<BlockHash>, Vec<BlockHash>) {
        let fixture = Self::new();
        let (mut live, mut dead) = (Vec::new(), Vec::new());
        for file in 0..count {
            let chunks: Vec<Block> = (0..3).map(|n| block(file * 10 + n, 2500)).collect();
            let (content, all) = content(&chunks);
            let seq = fixture.write(file, 0, content, &all).unwrap();
            let hashes = all.iter().map(Block::hash);
            if file % 2 == 0 {
                live.extend(hashes);
            } else {
                fixture.change(file, seq, None, &[]).unwrap();
                dead.extend(hashes);
            }
        }
        (fixture, live, dead)
    }

    fn gc(&self, options: GcOptions) -> GcReport {
        self.store.gc(&options, &Brake::default(), &mut |_| Ok(())).unwrap()
    }

    fn packs_bytes(&self) -> u64 {
        let packs = std::fs::read_dir(self.path().join("packs")).unwrap();
        packs.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }
}

fn open(path: &Path) -> Arc<Store> {
    for _ in 0..100 {
        match Store::open(path, options()) {
            Err(StorageError::Locked(_)) => std::thread::sleep(std::time::Duration::from_millis(20)),
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays locked", path.display())
}

fn held(store: &Store, hashes: &[BlockHash]) -> usize {
    run(store.get_many(hashes.to_vec())).unwrap().iter().flatten().count()
}

fn copy(from: &Path, to: &Path) {
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
}

#[test]
fn what_no_version_names_goes_and_the_space_returns() {
    let (fixture, live, dead) = Fixture::half_garbage(40);
    let before = fixture.packs_bytes();
    let report = fixture.gc(AT_ONCE);
    assert_eq!(report.deleted_blocks, dead.len() as u64);
    assert_eq!(report.damaged_packs, Vec::<u32>::new());
    assert_eq!((held(&fixture.store, &live), held(&fixture.store, &dead)), (live.len(), 0));
    let after = fixture.packs_bytes();
    assert!(after < before * 60 / 100, "{before} -> {after}");
    assert!(report.freed_bytes >= before * 40 / 100);
    // Nothing is left to do, and a rebuilt index finds the same blocks.
    assert_eq!(fixture.gc(AT_ONCE).removed_packs, 0);
    fixture.store.close().unwrap();
    std::fs::remove_dir_all(fixture.path().join("db")).unwrap();
    let store = open(&fixture.path());
    assert_eq!(store.problems(), [Problem::RebuiltIndex { kept: None }]);
    assert_eq!((held(&store, &live), held(&store, &dead)), (live.len(), 0));
}

#[test]
fn a_dry_run_shows_the_plan_and_changes_nothing() {
    let (fixture, live, dead) = Fixture::half_garbage(10);
    let picture = |path: &Path| {
        let mut files: Vec<_> = ["packs", "journal", ""]
            .iter()
            .flat_map(|sub| std::fs::read_dir(path.join(sub)).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = picture(&fixture.path());
    let plan = fixture.gc(GcOptions { dry_run: true, ..AT_ONCE });
    assert!(
        plan.sums.freed_bytes > 0 && plan.sums.garbage_blocks == dead.len() as u64 && !plan.packs.is_empty()
    );
    assert_eq!((plan.deleted_blocks, plan.removed_packs, plan.freed_bytes), (0, 0, 0));
    assert!(picture(&fixture.path()) == before);
    assert_eq!(held(&fixture.store, &dead), dead.len());
    let done = fixture.gc(AT_ONCE);
    assert_eq!(done.sums.garbage_blocks, plan.sums.garbage_blocks);
    assert_eq!(held(&fixture.store, &live), live.len());
}

#[test]
fn replaced_versions_stay_for_the_time_they_are_kept_and_garbage_for_its_grace() {
    let (fixture, live, dead) = Fixture::half_garbage(10);
    let start = now_ms();
    fixture.store.close().unwrap();
    let keeps = StoreOptions { keep_ms: Some(1000), ..options() };
    let store = Store::open(&fixture.path(), keeps).unwrap();
    assert_eq!(store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(())).unwrap().sums.garbage_blocks, 0);
    store.close().unwrap();
    let fixture = Fixture { store: open(&fixture.path()), ..fixture };
    let graceful = GcOptions { grace_ms: u64::MAX / 2, ..AT_ONCE };
    let first = fixture.gc(graceful);
    assert_eq!((first.sums.new_blocks, first.removed_packs), (dead.len() as u64, 0));
    // Condemned once, and remembered over a restart.
    fixture.store.close().unwrap();
    let store = open(&fixture.path());
    let again = store.gc(&graceful, &Brake::default(), &mut |_| Ok(())).unwrap();
    assert_eq!((again.sums.new_blocks, again.sums.waiting_blocks), (0, dead.len() as u64));
    assert_eq!(now_ms(), start);
    let done = store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(())).unwrap();
    assert_eq!(done.deleted_blocks, dead.len() as u64);
    assert_eq!(held(&store, &live), live.len());
}

#[test]
fn a_kill_at_any_step_of_a_run_loses_no_live_block() {
    let (fixture, live, dead) = Fixture::half_garbage(24);
    let mut steps: Vec<GcStep> = Vec::new();
    let copies = fixture.folder.path().join("copies");
    let path = fixture.path();
    fixture
        .store
        .gc(&AT_ONCE, &Brake::default(), &mut |step| {
            copy(&path, &copies.join(steps.len().to_string()));
            steps.push(step);
            Ok(())
        })
        .unwrap();
    for step in [
        GcStep::Condemned,
        GcStep::Doomed,
        GcStep::Forgotten,
        GcStep::Moved,
        GcStep::Flushed,
        GcStep::Buried,
        GcStep::Removed,
    ] {
        assert!(steps.contains(&step), "{step:?} never came");
    }
    for (number, step) in steps.iter().enumerate() {
        for lost_index in [false, true] {
            let killed = copies.join(format!("{number}-{lost_index}"));
            copy(&copies.join(number.to_string()), &killed);
            if lost_index {
                std::fs::remove_dir_all(killed.join("db")).unwrap();
            }
            let store = open(&killed);
            let bad = store
                .problems()
                .into_iter()
                .find(|problem| !matches!(problem, Problem::RebuiltIndex { .. } | Problem::CutTail { .. }));
            assert_eq!(bad, None, "{number} {step:?}");
            assert_eq!(held(&store, &live), live.len(), "{number} {step:?}");
            // The next run finishes what this one began.
            let done = store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(())).unwrap();
            assert_eq!(done.damaged_packs, Vec::<u32>::new());
            assert_eq!((held(&store, &live), held(&store, &dead)), (live.len(), 0), "{number} {step:?}");
            assert_eq!(buried::beside(&killed), Vec::<PathBuf>::new(), "{number} {step:?}: space is lost");
        }
    }
}

#[test]
fn a_run_that_is_stopped_at_any_step_leaves_a_store_that_goes_on() {
    let (reference, ..) = Fixture::half_garbage(8);
    let mut count = 0;
    let mut each = |_| {
        count += 1;
        Ok(())
    };
    reference.store.gc(&AT_ONCE, &Brake::default(), &mut each).unwrap();
    for stop_at in 0..count {
        let (fixture, live, dead) = Fixture::half_garbage(8);
        let mut seen = 0;
        let stopped = fixture.store.gc(&AT_ONCE, &Brake::default(), &mut |_| {
            seen += 1;
            if seen > stop_at { Err(StorageError::Stopped) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(StorageError::Stopped)), "{stop_at}");
        assert_eq!(held(&fixture.store, &live), live.len(), "{stop_at}");
        let (content, all) = content(&[block(9000, 100)]);
        fixture.write(900, 0, content, &all).unwrap();
        fixture.gc(AT_ONCE);
        assert_eq!((held(&fixture.store, &live), held(&fixture.store, &dead)), (live.len(), 0), "{stop_at}");
        fixture.store.close().unwrap();
        let store = open(&fixture.path());
        assert_eq!(store.problems(), [], "{stop_at}");
        assert_eq!(held(&store, &live), live.len(), "{stop_at}");
    }
}

#[test]
fn a_session_that_was_told_of_a_block_can_commit_it_whenever_the_run_is() {
    // The lease is taken at each step of a run; the commit comes after it.
    for take_at in [None, Some(GcStep::Condemned), Some(GcStep::Doomed), Some(GcStep::Forgotten)] {
        let (fixture, _, _) = Fixture::half_garbage(8);
        let chunks: Vec<Block> = (10..13).map(|n| block(n, 2500)).collect();
        let (content, all) = content(&chunks);
        let hashes: Vec<BlockHash> = all.iter().map(Block::hash).collect();
        let session = SessionId::from_bytes([1; 16]);
        let ask = || {
            fixture.store.lease(session, &hashes);
            run(fixture.store.missing(hashes.clone())).unwrap()
        };
        let mut missing = if take_at.is_none() { Some(ask()) } else { None };
        fixture
            .store
            .gc(&AT_ONCE, &Brake::default(), &mut |step| {
                if Some(step) == take_at && missing.is_none() {
                    missing = Some(ask());
                }
                Ok(())
            })
            .unwrap();
        // Exactly what was said to be missing is sent.
        let sent: Vec<Block> = all
            .iter()
            .zip(missing.unwrap())
            .filter(|(_, lacks)| *lacks)
            .map(|(block, _)| block.clone())
            .collect();
        if take_at != Some(GcStep::Forgotten) {
            assert_eq!(sent.len(), 0, "{take_at:?}");
        }
        fixture.write(500, 0, content, &sent).unwrap();
        assert_eq!(held(&fixture.store, &hashes), hashes.len(), "{take_at:?}");
        // With the session its leases go: once deleted, the blocks go.
        fixture.change(500, fixture.store.head(fixture.share).seq.0, None, &[]).unwrap();
        fixture.store.end_lease(session);
        fixture.gc(GcOptions { sparse_percent: 1, ..AT_ONCE });
        assert_eq!(held(&fixture.store, &hashes), 0, "{take_at:?}");
    }
}

#[test]
fn a_commit_between_mark_and_deletion_saves_what_it_names() {
    for commit_at in [GcStep::Condemned, GcStep::Doomed] {
        let (fixture, live, dead) = Fixture::half_garbage(8);
        let chunks: Vec<Block> = (10..13).map(|n| block(n, 2500)).collect();
        let (content, all) = content(&chunks);
        let hashes: Vec<BlockHash> = all.iter().map(Block::hash).collect();
        fixture
            .store
            .gc(&AT_ONCE, &Brake::default(), &mut |step| {
                if step == commit_at {
                    // No lease, no blocks: they are here.
                    fixture.write(500, 0, content.clone(), &[])?;
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(held(&fixture.store, &hashes), hashes.len(), "{commit_at:?}");
        assert_eq!(held(&fixture.store, &live), live.len());
        assert_eq!(held(&fixture.store, &dead), hashes.len());
    }
}

#[test]
fn a_mark_that_cannot_be_completed_deletes_nothing() {
    let (fixture, live, dead) = Fixture::half_garbage(6);
    let chunks: Vec<Block> = (0..3).map(|n| block(n, 2500)).collect();
    let (content, _) = content(&chunks);
    fixture.store.close().unwrap();
    let pack = fixture.path().join("packs/00000001.pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    // The manifest node of file 0.
    let at = bytes.windows(4).position(|window| window == b"DBMN").unwrap();
    bytes[at + 20] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let store = open(&fixture.path());
    let failed = store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(()));
    assert!(matches!(failed, Err(StorageError::Unreadable(hash)) if hash == content.root.hash));
    let readable: Vec<BlockHash> = live.into_iter().filter(|hash| *hash != content.root.hash).collect();
    assert_eq!((held(&store, &readable), held(&store, &dead)), (readable.len(), dead.len()));
}

/// Read to its new end, everything that the lost commits name would look like garbage.
#[test]
fn a_journal_that_was_cut_under_a_running_store_marks_nothing() {
    let (fixture, live, dead) = Fixture::half_garbage(6);
    let journals = std::fs::read_dir(fixture.path().join("journal")).unwrap();
    let journal =
        journals.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some()).unwrap();
    let bytes = std::fs::read(&journal).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&journal).unwrap();
    file.set_len(bytes.len() as u64 - 5).unwrap();
    let failed = fixture.store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(()));
    assert!(matches!(failed, Err(StorageError::Damaged { .. })), "{failed:?}");
    assert_eq!((held(&fixture.store, &live), held(&fixture.store, &dead)), (live.len(), dead.len()));
}

#[test]
fn a_pack_with_a_damaged_live_block_is_left_as_it_is() {
    let (fixture, live, dead) = Fixture::half_garbage(6);
    fixture.store.close().unwrap();
    let pack = fixture.path().join("packs/00000001.pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    let bent = block(0, 2500);
    let at = bytes.windows(1000).position(|window| window == &bent.bytes()[..1000]).unwrap();
    bytes[at + 9] ^= 1;
    std::fs::write(&pack, &bytes).unwrap();
    let store = open(&fixture.path());
    let report = store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(())).unwrap();
    assert_eq!(report.damaged_packs, [1]);
    assert!(std::fs::read(&pack).unwrap() == bytes);
    let readable: Vec<BlockHash> = live.into_iter().filter(|hash| *hash != bent.hash()).collect();
    assert_eq!(held(&store, &readable), readable.len());
    assert!(held(&store, &dead) > 0);
}

/// Bends one byte of a block in the packs of a closed store.
fn bend(path: &Path, bent: &Block) {
    for entry in std::fs::read_dir(path.join("packs")).unwrap() {
        let pack = entry.unwrap().path();
        let mut bytes = std::fs::read(&pack).unwrap();
        // Its random bytes stand in the frame as they are.
        let start = &bent.bytes()[..500];
        if let Some(at) = bytes.windows(start.len()).position(|window| window == start) {
            bytes[at + start.len() / 2] ^= 1;
            std::fs::write(&pack, bytes).unwrap();
            return;
        }
    }
    panic!("the block is in no pack");
}

fn check(store: &Store, options: CheckOptions) -> CheckReport {
    store.check(&options, &Brake::default()).unwrap()
}

#[test]
fn the_scrub_finds_a_flipped_bit_and_goes_on_where_it_was() {
    let (fixture, _, _) = Fixture::half_garbage(30);
    fixture.store.close().unwrap();
    let bent = block(201, 2500);
    bend(&fixture.path(), &bent);
    let mut store = open(&fixture.path());
    let (mut found, mut bytes, mut done) = (Vec::new(), 0, false);
    let whole = fixture.packs_bytes();
    for step in 0..2000 {
        let took = store.scrub(5000).unwrap();
        assert!(took.bytes < 1_200_000, "a step is small");
        bytes += took.bytes;
        found.extend(took.damaged);
        done |= took.pass_done;
        if done {
            break;
        }
        if step % 40 == 39 {
            store.close().unwrap();
            store = open(&fixture.path());
        }
    }
    assert!(done, "a pass ends although the store is closed again and again");
    assert_eq!(found, [bent.hash()]);
    assert!(bytes >= whole * 95 / 100, "{bytes} of {whole}");
    // Remembered over the restarts.
    assert_eq!(store.wanted(), [bent.hash()]);
    // Whoever has it puts it, and it is no longer wanted.
    run(store.put_many(vec![seal(&bent)])).unwrap();
    assert_eq!(store.wanted(), []);
    assert_eq!(held(&store, &[bent.hash()]), 1);
    // The old copy is read again, and says nothing of the new one.
    while !store.scrub(100_000).unwrap().pass_done {}
    assert_eq!(store.wanted(), []);
}

/// The pack in which a pass had stopped was lost, and another one has its number.
#[test]
fn a_scrub_goes_on_from_no_place_in_the_middle_of_a_record() {
    let (fixture, live, _) = Fixture::half_garbage(12);
    fixture.store.close().unwrap();
    for offset in [41, 1000, 40_000] {
        let place = format!("at = \"1:{offset}\"\n");
        std::fs::write(fixture.path().join("scrub"), place).unwrap();
        let store = open(&fixture.path());
        let (mut bytes, mut done) = (0, false);
        while !done {
            let step = store.scrub(20_000).unwrap();
            assert_eq!(step.damaged, [], "from {offset}");
            (bytes, done) = (bytes + step.bytes, step.pass_done);
        }
        assert!(bytes >= fixture.packs_bytes() * 95 / 100);
        assert_eq!((store.wanted(), held(&store, &live)), (vec![], live.len()));
        store.close().unwrap();
    }
}

#[test]
fn a_check_of_a_whole_store_is_clean_whatever_a_stopped_run_left() {
    for stop_at in 0..12 {
        let (fixture, live, _) = Fixture::half_garbage(12);
        let mut seen = 0;
        let _ = fixture.store.gc(&AT_ONCE, &Brake::default(), &mut |_| {
            seen += 1;
            if seen > stop_at { Err(StorageError::Stopped) } else { Ok(()) }
        });
        for quick in [false, true] {
            let report = check(&fixture.store, CheckOptions { quick, ..CheckOptions::default() });
            assert_eq!(report.findings, [], "{stop_at}");
            assert!(report.blocks >= live.len() as u64 && report.contents == 6);
            assert_eq!(report.bytes == 0, quick);
        }
    }
}

#[test]
fn repair_takes_an_intact_copy_and_deletes_nothing() {
    let (fixture, live, _) = Fixture::half_garbage(8);
    let bent = block(1, 2500);
    // A first copy is bent and brought again; then the second one is bent, and the first put back as it was.
    fixture.store.close().unwrap();
    let pack = fixture.path().join("packs/00000001.pack");
    let intact = std::fs::read(&pack).unwrap();
    bend(&fixture.path(), &bent);
    let store = open(&fixture.path());
    assert_eq!(check(&store, CheckOptions::default()).wanted, 1);
    run(store.put_many(vec![seal(&bent)])).unwrap();
    assert!(
        !check(&store, CheckOptions::default()).findings.iter().any(|f| matches!(f, Finding::Version { .. }))
    );
    store.close().unwrap();
    std::fs::write(&pack, &intact).unwrap();
    let mut others: Vec<PathBuf> =
        std::fs::read_dir(fixture.path().join("packs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    others.retain(|path| *path != pack);
    let second = others
        .iter()
        .find(|path| {
            let bytes = std::fs::read(path).unwrap();
            bytes.windows(1000).any(|window| window == &bent.bytes()[..1000])
        })
        .unwrap();
    let mut bytes = std::fs::read(second).unwrap();
    let at = bytes.windows(1000).position(|window| window == &bent.bytes()[..1000]).unwrap();
    bytes[at + 7] ^= 1;
    std::fs::write(second, &bytes).unwrap();
    let store = open(&fixture.path());
    let found = check(&store, CheckOptions::default());
    assert!(
        found.findings.iter().any(|finding| matches!(finding, Finding::Version { path, .. } if path == "0"))
    );
    let repaired = check(&store, CheckOptions { repair: true, ..CheckOptions::default() });
    assert_eq!(repaired.repaired, 1);
    assert_eq!(held(&store, &live), live.len());
    assert!(std::fs::read(second).unwrap() == bytes && std::fs::read(&pack).unwrap() == intact);
}
