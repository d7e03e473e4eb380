//! What an answer costs says nothing either: a block of another share is looked for as often as one that nobody has, and
//! neither is read. Counted, because a time would only seem to say it.

use super::*;
use crate::block::{Block, Sealer};
use crate::model::{Change, FileContent, Kind, Name, NodeId, NodeState, Root};
use std::sync::atomic::AtomicU64;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn block(n: u8) -> Block {
    Block::new(vec![n; 5000].into())
}

fn request(share: ShareId, name: u8, block: &Block) -> CommitRequest {
    let content = FileContent { size: 5000, root: Root { params: 1, level: 0, hash: block.hash() } };
    let kind = Kind::File { content, mtime_ns: 1, exec: false };
    let state = NodeState { parent: NodeId::ROOT, name: Name::new(&[name]).unwrap(), kind };
    let change = Change { id: NodeId::from_bytes([name; 16]), base: Seq::ZERO, state: Some(state) };
    let session = SessionId::from_bytes([1; 16]);
    CommitRequest { share, device: "d".to_owned(), session, changes: vec![change], inline: vec![] }
}

/// Look-ups in the index and blocks that were read, since it was made.
struct Counted<'a>(&'a Store, Arc<AtomicU64>, [u64; 2]);

impl<'a> Counted<'a> {
    fn of(store: &'a Store) -> Self {
        let looks = store.upkeep(|upkeep| Ok(upkeep.index.looks.clone())).unwrap();
        let mut counted = Self(store, looks, [0; 2]);
        counted.2 = counted.now();
        counted
    }

    fn now(&self) -> [u64; 2] {
        [self.1.load(Ordering::Relaxed), self.0.shared.packs.blocks_read.load(Ordering::Relaxed)]
    }

    fn since(&self) -> [u64; 2] {
        let now = self.now();
        [now[0] - self.2[0], now[1] - self.2[1]]
    }
}

/// What each way to ask for a block costs.
fn costs(store: &Store, share: ShareId, block: &Block, is_there: bool) -> Vec<[u64; 2]> {
    let counted = Counted::of(store);
    let missing = run(store.missing_in(Some(share), vec![block.hash()])).unwrap();
    let asked = counted.since();
    let counted = Counted::of(store);
    let found = run(store.get_in(Some(share), vec![block.hash()])).unwrap();
    let got = counted.since();
    let counted = Counted::of(store);
    let committed = run(store.commit(request(share, 9, block))).unwrap();
    let named = counted.since();
    assert_eq!(
        (missing[0], found[0].is_some(), committed.refused.is_empty()),
        (!is_there, is_there, is_there)
    );
    vec![asked, got, named]
}

#[test]
fn a_block_of_another_share_costs_what_one_that_nobody_has_costs() {
    let folder = tempfile::tempdir().unwrap();
    let options = || StoreOptions { free_bytes_min: 0, flush_ms: 3_600_000, ..StoreOptions::default() };
    let path = folder.path().join("store");
    let (theirs, nobodys) = (block(1), block(2));
    let (mut one, mut two) = (ShareId::from_bytes([0; 16]), ShareId::from_bytes([0; 16]));
    // First in memory only, then out of the index.
    for reopened in [false, true] {
        let store = Store::open(&path, options()).unwrap();
        if !reopened {
            one = run(store.open_share("one")).unwrap().0;
            two = run(store.open_share("two")).unwrap().0;
            run(store.put_in(Some(one), vec![Sealer::new(1).seal(&theirs)])).unwrap();
            assert!(run(store.commit(request(one, 1, &theirs))).unwrap().refused.is_empty());
        }
        let of_theirs = costs(&store, two, &theirs, false);
        assert_eq!(of_theirs, costs(&store, two, &nobodys, false), "reopened: {reopened}");
        assert!(of_theirs.iter().all(|[_, read]| *read == 0), "{of_theirs:?}");
        // The counters count.
        let counted = Counted::of(&store);
        assert!(run(store.get_in(Some(one), vec![theirs.hash()])).unwrap()[0].is_some());
        assert_eq!(counted.since(), [1, 1]);
        store.close().unwrap();
    }
}
