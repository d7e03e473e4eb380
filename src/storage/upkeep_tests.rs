//! Tests of upkeep that look inside of a store: what is durable when, what the index has lost, and what a server finishes by
//! itself.

use super::super::*;
use super::*;
use crate::block::{Block, Sealer};
use crate::manifest::Builder;
use crate::model::{FileContent, Kind, Name, NodeState};
use std::sync::atomic::{AtomicU64, Ordering};

const AT_ONCE: GcOptions = GcOptions { grace_ms: 0, sparse_percent: 25, dry_run: false, gentle: false };

static CLOCK_MS: AtomicU64 = AtomicU64::new(1_000_000);

fn now_ms() -> u64 {
    CLOCK_MS.load(Ordering::Relaxed)
}

fn options() -> StoreOptions {
    StoreOptions {
        free_bytes_min: 0,
        flush_ms: 3_600_000,
        pack_bytes: 40_000,
        clock: now_ms,
        keep_ms: Some(0),
        ..StoreOptions::default()
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn block(n: u64) -> Block {
    let mut bytes = vec![0; 2500];
    crate::model::hash::expand(&[8; 32], n, &mut bytes);
    Block::new(bytes.into())
}

fn content(block: &Block) -> FileContent {
    let mut builder = Builder::new(1);
    builder.push(block.hash(), block.bytes().len() as u64).unwrap();
    builder.finish().unwrap().0
}

/// Puts a file of one block, or deletes it.
fn change(store: &Store, share: ShareId, file: u8, base: Seq, block: Option<&Block>) -> Seq {
    let state = block.map(|block| NodeState {
        parent: NodeId::ROOT,
        name: Name::new(file.to_string().as_bytes()).unwrap(),
        kind: Kind::File { content: content(block), mtime_ns: 0, exec: false },
    });
    let request = CommitRequest {
        share,
        device: "test".to_owned(),
        session: SessionId::from_bytes([1; 16]),
        changes: vec![Change { id: NodeId::from_bytes([file + 1; 16]), base, state }],
        inline: block.map(|block| Sealer::new(1).seal(block)).into_iter().collect(),
    };
    let done = run(store.commit(request)).unwrap();
    assert_eq!(done.refused, []);
    done.head.seq
}

fn held(store: &Store, blocks: &[Block]) -> usize {
    let missing = run(store.missing(blocks.iter().map(Block::hash).collect())).unwrap();
    missing.into_iter().filter(|missing| !missing).count()
}

fn fixture() -> (tempfile::TempDir, Arc<Store>, ShareId) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store"), options()).unwrap();
    let share = run(store.open_share("default")).unwrap().0;
    (folder, store, share)
}

/// Struck out of the list and then lost with the power, a block would be asked for by nobody.
#[test]
fn a_block_leaves_the_list_of_what_is_wanted_when_its_new_copy_is_durable() {
    let (_folder, store, _share) = fixture();
    let lost = block(1);
    store.shared.want(lost.hash());
    store.remember_wanted().unwrap();
    run(store.put_many(vec![Sealer::new(1).seal(&lost)])).unwrap();
    assert!(store.wanted().is_empty() && store.shared.packs.synced() < store.shared.packs.end());
    store.remember_wanted().unwrap();
    assert_eq!(gone::load_wanted(&store.shared.path).len(), 0);
    assert_eq!(store.shared.packs.synced(), store.shared.packs.end());
}

/// What versions name was dropped with its pack as something that nothing points at.
#[test]
fn a_block_that_versions_name_is_kept_although_the_index_has_lost_it() {
    let (_folder, store, share) = fixture();
    let blocks: Vec<Block> = (0..40).map(block).collect();
    for (file, block) in (0..).zip(&blocks) {
        change(&store, share, file, Seq::ZERO, Some(block));
    }
    let lost: Vec<BlockHash> = blocks.iter().step_by(2).map(Block::hash).collect();
    store
        .upkeep(|upkeep| {
            upkeep.settle()?;
            upkeep.index.remove_blocks(&lost)
        })
        .unwrap();
    assert_eq!(held(&store, &blocks), 20);
    let report = store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(())).unwrap();
    assert_eq!(report.damaged_packs, Vec::<u32>::new());
    assert_eq!(held(&store, &blocks), 40);
    let report = store.check(&CheckOptions::default(), &Brake::default()).unwrap();
    assert_eq!((report.findings, report.unindexed), (vec![], 0));
}

#[test]
fn what_a_run_condemned_goes_by_itself_when_its_grace_is_over() {
    let (folder, store, share) = fixture();
    let blocks: Vec<Block> = (0..40).map(block).collect();
    for (file, block) in (0..).zip(&blocks) {
        let seq = change(&store, share, file, Seq::ZERO, Some(block));
        if file % 2 == 0 {
            change(&store, share, file, seq, None);
        }
    }
    let grace_ms = 2 * GcOptions::GRACE_MS;
    let finish = |store: &Store| store.finish_gc(&Brake::default()).unwrap();
    assert_eq!(finish(&store), None, "nothing was asked for");
    store.gc(&GcOptions { grace_ms, ..AT_ONCE }, &Brake::default(), &mut |_| Ok(())).unwrap();
    // Garbage of later is not the business of that run.
    change(&store, share, 1, Seq(3), None);
    CLOCK_MS.fetch_add(grace_ms - 1, Ordering::Relaxed);
    assert_eq!((finish(&store), held(&store, &blocks)), (None, 40));
    CLOCK_MS.fetch_add(1, Ordering::Relaxed);
    let done = finish(&store).unwrap();
    assert_eq!((done.deleted_blocks, held(&store, &blocks)), (20, 20));
    assert_eq!(finish(&store), None);

    // It is not forgotten by a restart.
    store.gc(&GcOptions { grace_ms, ..AT_ONCE }, &Brake::default(), &mut |_| Ok(())).unwrap();
    store.close().unwrap();
    let store = Store::open(&folder.path().join("store"), options()).unwrap();
    assert_eq!(finish(&store), None);
    CLOCK_MS.fetch_add(GcOptions::GRACE_MS, Ordering::Relaxed);
    // Not worth a pack: then it is let off, and not looked at again.
    assert_eq!(finish(&store).unwrap().deleted_blocks, 0);
    CLOCK_MS.fetch_add(grace_ms, Ordering::Relaxed);
    assert_eq!((finish(&store), held(&store, &blocks)), (None, 20));
}
