//! What becomes wanted when something that was lost comes back, who reaches it then, and what mending takes away.

use super::super::*;
use super::*;
use crate::block::{Block, Sealer, VerifiedBlock};
use crate::manifest::Builder;
use crate::model::{FileContent, Kind, Name, NodeState};
use crate::storage::Brake;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn options() -> StoreOptions {
    StoreOptions { free_bytes_min: 0, flush_ms: 3_600_000, pack_bytes: 20_000, ..StoreOptions::default() }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn chunk(n: u64) -> Block {
    // As long as a chunk has to be, and about 100 bytes in its pack.
    let mut bytes = vec![0; crate::chunk::V1.min_bytes()];
    crate::model::hash::expand(&[6; 32], n, &mut bytes[..100]);
    Block::new(bytes.into())
}

fn sealed(blocks: &[Block]) -> Vec<VerifiedBlock> {
    blocks.iter().map(|block| Sealer::new(1).seal(block)).collect()
}

fn hashes<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> BTreeSet<BlockHash> {
    blocks.into_iter().map(Block::hash).collect()
}

/// A file with a chunk list of two levels.
struct Large {
    content: FileContent,
    chunks: Vec<Block>,
    /// Level 1.
    lists: Vec<Block>,
    top: Block,
}

impl Large {
    fn new() -> Self {
        let chunks: Vec<Block> = (0..700).map(chunk).collect();
        let mut builder = Builder::new(1);
        let mut nodes: Vec<Block> = Vec::new();
        for chunk in &chunks {
            nodes.extend(builder.push(chunk.hash(), chunk.bytes().len() as u64).unwrap());
        }
        let (content, rest) = builder.finish().unwrap();
        nodes.extend(rest);
        assert_eq!(content.root.level, 2);
        let (top, lists): (Vec<Block>, _) =
            nodes.into_iter().partition(|node| node.hash() == content.root.hash);
        let top = top[0].clone();
        Self { content, chunks, lists, top }
    }
}

fn commit(store: &Store, share: ShareId, file: u8, content: FileContent) {
    let state = NodeState {
        parent: NodeId::ROOT,
        name: Name::new(file.to_string().as_bytes()).unwrap(),
        kind: Kind::File { content, mtime_ns: 0, exec: false },
    };
    let request = CommitRequest {
        share,
        device: "test".to_owned(),
        session: SessionId::from_bytes([1; 16]),
        changes: vec![Change { id: NodeId::from_bytes([file + 1; 16]), base: Seq::ZERO, state: Some(state) }],
        inline: Vec::new(),
    };
    assert_eq!(run(store.commit(request)).unwrap().refused, []);
}

/// A store with the large file in a share, and one more share with small ones; `lose` says which packs are lost, by where
/// the blocks are.
struct Fixture {
    _folder: tempfile::TempDir,
    path: PathBuf,
    store: Arc<Store>,
    share: ShareId,
    other: ShareId,
    large: Large,
    /// A file of the other share: its bytes are a chunk list that names chunks of the first.
    trap: Block,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store::open(&path, options()).unwrap();
        let share = run(store.open_share("default")).unwrap().0;
        let other = run(store.open_share("other")).unwrap().0;
        let large = Large::new();
        let trap = large.lists[0].clone();
        run(async {
            store.put_in(Some(share), sealed(&large.chunks)).await.unwrap();
            store.put_in(Some(share), sealed(&large.lists)).await.unwrap();
            store.put_in(Some(share), sealed(std::slice::from_ref(&large.top))).await.unwrap();
            store.put_in(Some(other), sealed(std::slice::from_ref(&trap))).await.unwrap();
        });
        commit(&store, share, 0, large.content.clone());
        let root = crate::model::Root { params: 1, level: 0, hash: trap.hash() };
        commit(&store, other, 0, FileContent { size: trap.bytes().len() as u64, root });
        Self { _folder: folder, path, store, share, other, large, trap }
    }

    /// Loses the packs in which these lie, and the index with them.
    fn lose(&mut self, blocks: &[Block]) {
        let place = |upkeep: &Upkeep, block: &Block| Ok(upkeep.place(&block.hash())?.unwrap().place.pack);
        let lost: Result<BTreeSet<u32>> =
            self.store.upkeep(|upkeep| blocks.iter().map(|block| place(upkeep, block)).collect());
        self.store.close().unwrap();
        for pack in lost.unwrap() {
            std::fs::remove_file(self.path.join(format!("packs/{pack:08}.pack"))).unwrap();
        }
        self.store = Store::open(&self.path, options()).unwrap();
    }

    fn wanted(&self) -> BTreeSet<BlockHash> {
        run(self.store.follow()).unwrap();
        self.store.wanted().into_iter().collect()
    }

    fn put(&self, share: ShareId, blocks: &[Block]) {
        run(self.store.put_in(Some(share), sealed(blocks))).unwrap();
    }

    /// How many of these a share reaches.
    fn reaches(&self, share: ShareId, blocks: &[Block]) -> usize {
        let missing = run(self.store.missing_in(Some(share), blocks.iter().map(Block::hash).collect()));
        missing.unwrap().into_iter().filter(|missing| !missing).count()
    }

    fn check(&self) -> CheckReport {
        self.store.check(&CheckOptions::default(), &Brake::default()).unwrap()
    }
}

#[test]
fn what_a_chunk_list_names_is_wanted_as_soon_as_the_list_is_back() {
    let mut fixture = Fixture::new();
    let all: Vec<Block> = fixture.large.chunks.iter().chain(&fixture.large.lists).cloned().collect();
    let all: Vec<Block> = all.into_iter().chain([fixture.large.top.clone()]).collect();
    fixture.lose(&all);
    let Large { chunks, lists, top, .. } = Large::new();
    assert_eq!(fixture.wanted(), hashes([&top, &fixture.trap]));
    // It is all the same who brings it, and what it was taken for elsewhere.
    fixture.put(fixture.share, std::slice::from_ref(&top));
    assert_eq!(fixture.wanted(), hashes(&lists));
    fixture.put(fixture.other, &lists);
    assert_eq!(fixture.wanted(), hashes(&chunks));
    // A restart in the middle forgets nothing.
    fixture.put(fixture.share, &chunks[..300]);
    fixture.store.close().unwrap();
    fixture.store = Store::open(&fixture.path, options()).unwrap();
    assert_eq!(fixture.wanted(), hashes(&chunks[300..]));
    assert!(!fixture.check().is_clean());
    fixture.put(fixture.share, &chunks[300..]);
    assert_eq!(fixture.wanted(), BTreeSet::new());
    assert_eq!((fixture.check().findings, fixture.reaches(fixture.share, &chunks)), (vec![], 700));
}

/// The chunks were here all the time; nobody knew which share names them.
#[test]
fn what_a_returned_list_names_is_reached_by_the_share_that_names_it_and_no_other() {
    let mut fixture = Fixture::new();
    let nodes: Vec<Block> = fixture.large.lists.iter().chain([&fixture.large.top]).cloned().collect();
    fixture.lose(&nodes);
    let here = |fixture: &Fixture| -> Vec<Block> {
        let held =
            run(fixture.store.missing(fixture.large.chunks.iter().map(Block::hash).collect())).unwrap();
        let chunks = fixture.large.chunks.iter().zip(held);
        chunks.filter(|(_, missing)| !missing).map(|(chunk, _)| chunk.clone()).collect()
    };
    let held = here(&fixture);
    assert!(held.len() > 300, "{}", held.len());
    assert_eq!(fixture.reaches(fixture.share, &held), 0);
    fixture.put(fixture.share, &nodes);
    let wanted = fixture.wanted();
    assert_eq!(wanted.len(), 700 - held.len());
    assert_eq!(fixture.reaches(fixture.share, &held), held.len());
    // To the other share the same block is bytes of a file, not a list of anything.
    assert_eq!(fixture.reaches(fixture.other, std::slice::from_ref(&fixture.trap)), 1);
    assert_eq!(fixture.reaches(fixture.other, &held), 0);
}

#[test]
fn nothing_is_wanted_because_a_stranger_brings_a_list_or_asks_for_anything() {
    let fixture = Fixture::new();
    let mut builder = Builder::new(1);
    for n in 1000..1100 {
        builder.push(chunk(n).hash(), 100).unwrap();
    }
    let nodes = builder.finish().unwrap().1;
    fixture.put(fixture.share, &nodes);
    assert_eq!((fixture.wanted(), fixture.store.is_unsettled()), (BTreeSet::new(), false));
    assert!(!fixture.store.is_doubted());
    fixture.store.missed(&[chunk(1000).hash()]);
    assert_eq!(fixture.wanted(), BTreeSet::new());
    // Somebody has to look, once.
    assert!(fixture.store.is_doubted() && !fixture.store.is_doubted());
}

#[test]
fn what_a_client_misses_and_a_version_names_is_wanted() {
    let fixture = Fixture::new();
    let lost = [fixture.large.chunks[5].hash(), fixture.large.lists[1].hash()];
    fixture
        .store
        .upkeep(|upkeep| {
            upkeep.settle()?;
            upkeep.index.remove_blocks(&lost)
        })
        .unwrap();
    assert_eq!((fixture.wanted(), fixture.store.is_unsettled()), (BTreeSet::new(), false));
    fixture.store.missed(&lost[..1]);
    assert!(fixture.store.is_doubted());
    assert!(!fixture.store.mend(&Brake::default()).unwrap().whole);
    assert_eq!(fixture.wanted(), BTreeSet::from(lost));
    // Nobody knows any more who names them: everybody is asked.
    for share in [fixture.share, fixture.other] {
        assert_eq!(run(fixture.store.wanted_in(share)).unwrap().len(), 2);
    }
    // The next start knows it from the journals.
    fixture.store.close().unwrap();
    let store = Store::open(&fixture.path, options()).unwrap();
    assert_eq!(run(store.wanted_in(fixture.share)).unwrap().len(), 2);
    assert_eq!(run(store.wanted_in(fixture.other)).unwrap(), []);
}

#[test]
fn mending_waits_for_everything_and_then_settles_packs_and_list() {
    let mut fixture = Fixture::new();
    let (chunks, share) = (fixture.large.chunks.clone(), fixture.share);
    fixture.lose(&chunks[..1]);
    let lost = fixture.wanted();
    assert!(!lost.is_empty() && fixture.store.is_unsettled());
    assert_eq!(fixture.store.mend(&Brake::default()).unwrap(), Mended::default());
    assert!(fixture.check().findings.contains(&Finding::PackMissing { pack: 1 }));
    // What no version names will be damaged too, and nobody will ever bring it.
    let unneeded = chunk(5000);
    fixture.put(share, std::slice::from_ref(&unneeded));
    fixture.store.upkeep(super::super::upkeep::Upkeep::settle).unwrap();
    let back: Vec<Block> = chunks.iter().filter(|chunk| lost.contains(&chunk.hash())).cloned().collect();
    assert_eq!(back.len(), lost.len());
    fixture.put(share, &back);
    let report = fixture.check();
    assert_eq!((report.findings, report.harmless), (vec![], 1));
    fixture.store.shared.want(unneeded.hash());
    let mended = fixture.store.mend(&Brake::default()).unwrap();
    assert_eq!(mended, Mended { whole: true, lost: vec![1], rewritten: vec![] });
    assert_eq!((fixture.wanted(), fixture.store.is_unsettled()), (BTreeSet::new(), false));
    assert_eq!(fixture.reaches(share, &[unneeded]), 0, "it counts as missing");
    assert_eq!(fixture.check().harmless, 0);
}

/// A copy that is the last one stays where it is, however damaged its pack is.
#[test]
fn a_damaged_pack_is_written_anew_only_when_everything_in_it_is_whole_elsewhere() {
    let mut fixture = Fixture::new();
    let pack = fixture.path.join("packs/00000001.pack");
    let bend = |at: usize| {
        let mut bytes = std::fs::read(&pack).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&pack, bytes).unwrap();
    };
    // What does not compress stands in the frame as it is.
    let at = |block: &Block| {
        let bytes = std::fs::read(&pack).unwrap();
        bytes.windows(64).position(|window| window == &block.bytes()[..64]).unwrap()
    };
    let (first, second) = (fixture.large.chunks[0].clone(), fixture.large.chunks[1].clone());
    bend(at(&first) + 50);
    // The header of the second: its record is nothing any more.
    bend(at(&second) - 40);
    let report = fixture.check();
    assert!(report.findings.len() > 2 && report.harmless == 0, "{report:?}");
    assert!(!fixture.store.mend(&Brake::default()).unwrap().whole);
    assert_eq!(fixture.wanted(), hashes([&first, &second]));
    fixture.put(fixture.share, std::slice::from_ref(&first));
    assert!(!fixture.store.mend(&Brake::default()).unwrap().whole);
    let before = std::fs::read(&pack).unwrap();
    fixture.put(fixture.share, std::slice::from_ref(&second));
    assert_eq!(fixture.check().findings, []);
    assert!(std::fs::read(&pack).unwrap() == before);
    let mended = fixture.store.mend(&Brake::default()).unwrap();
    assert_eq!((mended.whole, mended.rewritten), (true, vec![1]));
    let aside = std::fs::read(fixture.path.join("packs/00000001.bad")).unwrap();
    // A header of 32 bytes, then two ranges with a record each.
    let records: usize =
        sealed(&[first.clone(), second.clone()]).iter().map(|b| 64 + b.sealed().payload.len()).sum();
    assert_eq!((aside.len(), pack.exists()), (32 + 2 * 16 + records, false));
    // What the index does not know it can be told by the packs alone.
    for with_index in [true, false] {
        fixture.store.close().unwrap();
        if !with_index {
            std::fs::remove_dir_all(fixture.path.join("db")).unwrap();
        }
        fixture.store = Store::open(&fixture.path, options()).unwrap();
        let report = fixture.check();
        assert_eq!((report.findings, report.harmless), (vec![], 0));
        assert_eq!(fixture.reaches(fixture.share, &fixture.large.chunks), 700);
    }
}
