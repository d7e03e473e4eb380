//! What a run says of the past: versions whose blocks it may have deleted are never promised again.

use super::*;
use dropblock::model::past::Moment;

fn floor(store: &Store, share: ShareId) -> u64 {
    run(store.history().unwrap().moment(share, Moment::Now)).unwrap().floor.0
}

fn keeping(path: &Path, keep_ms: u64) -> Arc<Store> {
    Store::open(path, StoreOptions { keep_ms: Some(keep_ms), ..options() }).unwrap()
}

/// Two versions of a file of three chunks, the first collected; and the blocks of the second.
fn collected() -> (Fixture, u64, Vec<BlockHash>) {
    let fixture = Fixture::new();
    let version = |n: u64| content(&(0..3).map(|at| block(n * 10 + at, 2500)).collect::<Vec<_>>());
    let (first, blocks) = version(1);
    let seq = fixture.write(1, 0, first, &blocks).unwrap();
    let (second, blocks) = version(2);
    let seq = fixture.write(1, seq, second, &blocks).unwrap();
    assert_eq!(fixture.gc(AT_ONCE).deleted_blocks, 4);
    (fixture, seq, blocks.iter().map(Block::hash).collect())
}

/// It ended every later mark: the manifest of a version that had been collected could not be read.
#[test]
fn a_longer_keep_time_does_not_promise_what_was_collected() {
    let (fixture, seq, live) = collected();
    fixture.store.close().unwrap();
    let store = keeping(&fixture.path(), u64::MAX);
    assert_eq!(floor(&store, fixture.share), seq);
    assert_eq!(check(&store, CheckOptions::default()).findings, []);
    let report = store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(())).unwrap();
    assert_eq!((report.deleted_blocks, held(&store, &live)), (0, live.len()));
    // What is replaced from now on is kept.
    let fixture = Fixture { store, ..fixture };
    let (third, blocks) = content(&[block(31, 2500), block(32, 2500)]);
    fixture.write(1, seq, third, &blocks).unwrap();
    assert_eq!(fixture.gc(AT_ONCE).deleted_blocks, 0);
    assert_eq!((floor(&fixture.store, fixture.share), held(&fixture.store, &live)), (seq, live.len()));
}

/// A restored copy of a journal may go on in another way, with the same numbers.
#[test]
fn a_journal_with_another_past_was_not_collected() {
    let fixture = Fixture::new();
    let (content_1, blocks) = content(&[block(1, 2500)]);
    let first = fixture.write(1, 0, content_1, &blocks).unwrap();
    fixture.store.close().unwrap();
    let old = fixture.folder.path().join("old");
    copy(&fixture.path(), &old);
    let fixture = Fixture { store: open(&fixture.path()), ..fixture };
    let (content_2, blocks) = content(&[block(2, 2500)]);
    fixture.write(1, first, content_2, &blocks).unwrap();
    assert_eq!(fixture.gc(AT_ONCE).deleted_blocks, 1);
    fixture.store.close().unwrap();

    std::fs::copy(fixture.path().join("collected"), old.join("collected")).unwrap();
    let store = keeping(&old, 1000);
    let (content_3, blocks) = content(&[block(3, 2500)]);
    let other = Fixture { store, ..fixture };
    let second = other.write(1, first, content_3, &blocks).unwrap();
    other.change(1, second, None, &[]).unwrap();
    assert_eq!(floor(&other.store, other.share), 0);
    assert_eq!(other.gc(AT_ONCE).deleted_blocks, 0);
    assert_eq!(held(&other.store, &[block(1, 2500).hash(), block(3, 2500).hash()]), 2);
}
