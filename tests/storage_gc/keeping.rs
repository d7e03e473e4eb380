//! What must stay although nothing names it yet; and what a copy of an index that was put back must not claim.

use super::*;

/// One change of a commit stands and the other is refused. The client will send the refused one again, and was told that
/// the block is here.
#[test]
fn a_refused_change_keeps_the_lease_on_its_blocks() {
    let fixture = Fixture::new();
    let session = SessionId::from_bytes([9; 16]);
    let (first, blocks) = content(&[block(1, 2500)]);
    let seq = fixture.write(1, 0, first, &blocks).unwrap();
    let (standing, refused) = (block(2, 2500), block(3, 2500));
    let hashes = [standing.hash(), refused.hash()];
    fixture.store.lease(session, &hashes);
    run(fixture.store.put_many(vec![seal(&standing), seal(&refused)])).unwrap();
    let change = |file: u64, base: u64, block: &Block| {
        let kind = Kind::File { content: content(std::slice::from_ref(block)).0, mtime_ns: 0, exec: false };
        let name = Name::new(file.to_string().as_bytes()).unwrap();
        let state = Some(NodeState { parent: NodeId::ROOT, name, kind });
        Change { id: id(file), base: Seq(base), state }
    };
    let commit = |changes| {
        let request = CommitRequest {
            share: fixture.share,
            device: "test".to_owned(),
            session,
            changes,
            inline: Vec::new(),
        };
        run(fixture.store.commit(request)).unwrap()
    };
    let done = commit(vec![change(2, 0, &standing), change(1, 0, &refused)]);
    assert_eq!(done.refused.len(), 1);
    fixture.gc(AT_ONCE);
    assert_eq!(held(&fixture.store, &hashes), 2);
    assert_eq!(commit(vec![change(1, seq, &refused)]).refused, []);
    // Settled by now: when nobody names them any more they go.
    let (other, blocks) = content(&[block(4, 2500)]);
    fixture.write(1, done.head.seq.next().0, other, &blocks).unwrap();
    fixture.gc(AT_ONCE);
    assert_eq!(held(&fixture.store, &hashes), 1);
}

/// Whoever believed it would tell a client that a block is here which was deleted long ago.
#[test]
fn an_index_that_was_put_back_does_not_know_what_was_deleted() {
    let (fixture, live, dead) = Fixture::half_garbage(20);
    fixture.store.close().unwrap();
    let old = fixture.folder.path().join("db of yesterday");
    copy(&fixture.path().join("db"), &old);
    let fixture = Fixture { store: open(&fixture.path()), ..fixture };
    assert_eq!(fixture.gc(AT_ONCE).deleted_blocks, dead.len() as u64);
    fixture.store.close().unwrap();
    std::fs::remove_dir_all(fixture.path().join("db")).unwrap();
    copy(&old, &fixture.path().join("db"));
    let store = open(&fixture.path());
    let missing = run(store.missing(dead.clone())).unwrap();
    assert_eq!(missing, vec![true; dead.len()]);
    assert!(
        matches!(store.problems()[..], [Problem::RebuiltIndex { kept: Some(_) }]),
        "{:?}",
        store.problems()
    );
    assert_eq!(held(&store, &live), live.len());
}
