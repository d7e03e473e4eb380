//! A tombstone explains why a pack is absent. A pack that is there beside one is never removed for it: it may be the only
//! copy of what versions need.

use super::*;

/// Packs beside their tombstones.
pub fn beside(store: &Path) -> Vec<PathBuf> {
    packs(store).into_iter().filter(|pack| pack.with_extension("gone").exists()).collect()
}

fn packs(store: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(store.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let mut packs: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "pack")).collect();
    packs.sort();
    packs
}

fn check(store: &Store, quick: bool) -> CheckReport {
    store.check(&CheckOptions { quick, ..CheckOptions::default() }, &Brake::default()).unwrap()
}

/// A store after a run, closed, and its packs as they were before.
fn collected() -> (Fixture, Vec<BlockHash>, Vec<BlockHash>, PathBuf) {
    let (fixture, live, dead) = Fixture::half_garbage(24);
    let backup = fixture.folder.path().join("backup");
    copy(&fixture.path().join("packs"), &backup);
    assert!(fixture.gc(AT_ONCE).removed_packs > 2);
    fixture.store.close().unwrap();
    (fixture, live, dead, backup)
}

/// Opens and looks, twice: no pack goes; then a run really gives the space back.
fn nothing_goes(fixture: &Fixture, live: &[BlockHash], dead: &[BlockHash], what: &str) {
    let there = packs(&fixture.path());
    for _ in 0..2 {
        let store = open(&fixture.path());
        let report = check(&store, true);
        for pack in &there {
            assert!(pack.exists(), "{what}: {} was removed", pack.display());
        }
        assert_eq!(report.findings, [], "{what}");
        assert_eq!(held(&store, live), live.len(), "{what}");
        assert_eq!(check(&store, false).findings, [], "{what}");
        // What the server does beside its sessions.
        store.mend(&Brake::default()).unwrap();
        assert_eq!(held(&store, live), live.len(), "{what}");
        store.close().unwrap();
    }
    let store = open(&fixture.path());
    store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(())).unwrap();
    assert_eq!((held(&store, live), held(&store, dead)), (live.len(), 0), "{what}");
    let records = check(&store, false);
    assert_eq!((records.findings, records.harmless, records.unindexed), (vec![], 0, 0), "{what}");
    assert_eq!(beside(&fixture.path()), Vec::<PathBuf>::new(), "{what}: space is lost");
    store.close().unwrap();
}

#[test]
fn packs_that_were_put_back_when_their_copies_are_lost_are_used_again() {
    let (fixture, live, dead, backup) = collected();
    for pack in packs(&fixture.path()) {
        std::fs::remove_file(pack).unwrap();
    }
    copy(&backup, &fixture.path().join("packs"));
    nothing_goes(&fixture, &live, &dead, "only the backup");
}

#[test]
fn packs_that_were_put_back_beside_their_copies_cost_space_until_the_next_run_and_no_more() {
    let (fixture, live, dead, backup) = collected();
    let before = fixture.packs_bytes();
    copy(&backup, &fixture.path().join("packs"));
    nothing_goes(&fixture, &live, &dead, "both");
    assert!(fixture.packs_bytes() <= before + before / 10, "{before} -> {}", fixture.packs_bytes());
}

#[test]
fn an_older_store_laid_over_a_newer_one_is_whole() {
    let (fixture, live, dead) = Fixture::half_garbage(24);
    fixture.store.close().unwrap();
    let backup = fixture.folder.path().join("backup");
    copy(&fixture.path(), &backup);
    let store = open(&fixture.path());
    store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(())).unwrap();
    store.close().unwrap();
    copy(&backup, &fixture.path());
    nothing_goes(&fixture, &live, &dead, "overlay");
}

#[test]
fn a_lost_pack_that_was_put_back_after_a_start_without_it_is_read() {
    let (fixture, live, _) = Fixture::half_garbage(24);
    fixture.store.close().unwrap();
    let lost = packs(&fixture.path()).remove(1);
    let away = fixture.folder.path().join("away");
    std::fs::rename(&lost, &away).unwrap();
    let store = open(&fixture.path());
    assert!(held(&store, &live) < live.len());
    store.close().unwrap();
    std::fs::rename(&away, &lost).unwrap();
    let store = open(&fixture.path());
    assert_eq!(held(&store, &live), live.len());
    assert_eq!(check(&store, true).findings, []);
    assert_eq!(check(&store, false).findings, []);
}

/// The copy that counts is damaged and nobody knows it yet: the other one stays.
#[test]
fn a_run_removes_no_second_copy_of_what_it_cannot_read_elsewhere() {
    let (fixture, live, _, backup) = collected();
    let copies = packs(&fixture.path());
    let last = copies.last().unwrap();
    copy(&backup, &fixture.path().join("packs"));
    let mut bytes = std::fs::read(last).unwrap();
    bytes[300] ^= 1;
    std::fs::write(last, &bytes).unwrap();
    let store = open(&fixture.path());
    store.gc(&AT_ONCE, &Brake::default(), &mut |_| Ok(())).unwrap();
    let repair = CheckOptions { repair: true, ..CheckOptions::default() };
    store.check(&repair, &Brake::default()).unwrap();
    assert_eq!(check(&store, false).findings, []);
    assert_eq!(held(&store, &live), live.len());
}
