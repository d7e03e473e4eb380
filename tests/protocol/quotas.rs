//! What one device may take, however many connections it opens.

use super::proofs::{Guarded, guarded, guarded_over, scope};
use super::support::*;
use dropblock::auth::InviteSecret;
use dropblock::block::{SealedBlock, VerifiedBlock};
use dropblock::model::{BlockHash, Change, Kind, Seq, SessionId, limits};
use dropblock::server;
use dropblock::storage::{self, BLOCK_COST_BYTES, BlockStore, BoxFuture, MemoryStore, PutReport, ShareId};
use dropblock::wire::{Connection, ErrorCode, Pushes, WireError};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const GUESTS: &str = "guests";

impl Guarded {
    /// An invited device that may bring so many bytes.
    async fn with_quota(&self, device: u8, bytes_max: u64) -> (Connection, Pushes) {
        let invite = InviteSecret::from_bytes([device; 16]);
        self.gate.devices.invite(&invite, scope(GUESTS, false), Some(bytes_max)).unwrap();
        self.open(&self.invited(device, Some(invite)), GUESTS).await.unwrap()
    }

    /// What the only device with a quota has used.
    fn used(&self) -> u64 {
        let quotas: Vec<_> = self.gate.devices.list().into_iter().filter_map(|(_, quota)| quota).collect();
        assert_eq!(quotas.len(), 1);
        quotas[0].bytes_used
    }

    fn raise(&self, bytes_max: u64) {
        let listed = self.gate.devices.list();
        let (device, _) = listed.iter().find(|(_, quota)| quota.is_some()).unwrap();
        self.gate.devices.set_quota(&device.id, Some(bytes_max)).unwrap();
    }
}

fn bytes(blocks: &[SealedBlock]) -> u64 {
    blocks.iter().map(|block| block.payload.len() as u64 + BLOCK_COST_BYTES).sum()
}

fn link(name: &str, target: &[u8]) -> Change {
    let mut change = folder(name);
    change.state.as_mut().unwrap().kind = Kind::Symlink { target: target.to_vec(), mtime_ns: 0 };
    change
}

fn is_full(error: &WireError) -> bool {
    matches!(error, WireError::Failed { code: ErrorCode::Full, text } if text.contains("quota"))
}

#[tokio::test]
async fn a_device_brings_what_its_quota_allows_and_the_bill_says_nothing_of_others() {
    let server = guarded(true).await;
    let (owner, _p) = server.open(&server.owner(1), "default").await.unwrap();
    let theirs = [seal(&random(1, 40_000))];
    owner.put(&theirs).await.unwrap();
    let (guest, _p) = server.with_quota(5, 100_000).await;
    // What another share holds costs what it would cost if nobody held it.
    guest.put(&theirs).await.unwrap();
    assert_eq!(server.used(), bytes(&theirs));
    // What its own share has costs nothing, whoever brought it.
    guest.put(&theirs).await.unwrap();
    let (of_owner, _p) = server.open(&server.owner(1), GUESTS).await.unwrap();
    let shared = [seal(&random(2, 90_000))];
    of_owner.put(&shared).await.unwrap();
    guest.put(&shared).await.unwrap();
    assert_eq!(server.used(), bytes(&theirs));
    // Past the quota nothing of a put is taken, and the session goes on.
    let first = random(3, 30_000);
    let large = [seal(&first), seal(&random(4, 40_000))];
    assert!(is_full(&guest.put(&large).await.unwrap_err()));
    assert_eq!(
        (server.used(), guest.missing(vec![first.hash()]).await.unwrap()),
        (bytes(&theirs), vec![true])
    );
    guest.put(&large[..1]).await.unwrap();
    // The same for blocks that ride in a commit; what brings none goes on, deletions too.
    let block = random(6, 50_000);
    assert!(is_full(&guest.commit(vec![file("f", &block)], &[seal(&block)]).await.unwrap_err()));
    let change = folder("d");
    let made = guest.commit(vec![change.clone()], &[]).await.unwrap();
    assert!(made.refused.is_empty());
    assert!(guest.commit(vec![delete(&change, made.head.seq)], &[]).await.unwrap().refused.is_empty());
    // The owner gives more, and it goes through in the same session.
    server.raise(200_000);
    guest.commit(vec![file("f", &block)], &[seal(&block)]).await.unwrap();
    assert!(server.used() > bytes(&theirs) + bytes(&large[..1]) + 50_000);
    // Nobody else has a quota.
    of_owner.put(&[seal(&random(7, 250_000)), seal(&random(8, 250_000))]).await.unwrap();
}

#[tokio::test]
async fn changes_without_blocks_are_counted_too_and_end_a_good_way_past_the_quota() {
    let server = guarded(true).await;
    let (guest, _p) = server.with_quota(5, 0).await;
    assert!(is_full(&guest.put(&[seal(&random(1, 10))]).await.unwrap_err()));
    let (mut taken, mut refused) = (0u64, None);
    for round in 0..200 {
        let change = |n| link(&format!("{round}-{n}"), &[b'x'; 4000]);
        match guest.commit((0..200).map(change).collect(), &[]).await {
            Ok(_) => taken += 200 * 4000,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!(is_full(&refused.expect("an end")));
    assert!((60_000_000..68_000_000).contains(&taken), "{taken}");
}

#[tokio::test]
async fn a_device_has_so_many_sessions_and_keeps_nobody_out() {
    let server = guarded(true).await;
    let (first, _p) = server.joined(5, scope(GUESTS, false), GUESTS).await;
    let dialer = server.invited(5, None);
    let mut open = Vec::new();
    let refused = loop {
        match server.open(&dialer, GUESTS).await {
            Ok(session) => open.push(session),
            Err(error) => break error,
        }
        assert!(open.len() < 200);
    };
    assert_eq!((open.len() + 1, refused.code()), (64, ErrorCode::Busy));
    server.open(&server.owner(1), GUESTS).await.expect("others come in");
    first.ping().await.expect("and who is in stays");
    // The place of one that goes can be taken at once after its end.
    let (last, _p) = open.pop().unwrap();
    last.close(ErrorCode::Done, "").await;
    drop(last);
    let mut again = server.open(&dialer, GUESTS).await;
    while again.as_ref().is_err_and(|error| error.code() == ErrorCode::Busy) {
        tokio::task::yield_now().await;
        again = server.open(&dialer, GUESTS).await;
    }
    again.unwrap();
}

/// A store whose puts wait until they may go on.
struct Slow {
    store: Arc<MemoryStore>,
    go: Semaphore,
    /// Bytes that wait, and the most that ever did.
    waiting: AtomicUsize,
    most: AtomicUsize,
}

impl BlockStore for Slow {
    fn put_within(
        &self,
        share: Option<ShareId>,
        blocks: Vec<VerifiedBlock>,
        brought_max: u64,
    ) -> BoxFuture<'_, storage::Result<PutReport>> {
        Box::pin(async move {
            let bytes: usize = blocks.iter().map(|block| block.sealed().payload.len()).sum();
            let now = self.waiting.fetch_add(bytes, Ordering::SeqCst) + bytes;
            self.most.fetch_max(now, Ordering::SeqCst);
            drop(self.go.acquire().await);
            self.waiting.fetch_sub(bytes, Ordering::SeqCst);
            self.store.put_within(share, blocks, brought_max).await
        })
    }
    fn get_in(
        &self,
        share: Option<ShareId>,
        hashes: Vec<BlockHash>,
    ) -> BoxFuture<'_, storage::Result<Vec<Option<SealedBlock>>>> {
        self.store.get_in(share, hashes)
    }
    fn missing_in(
        &self,
        share: Option<ShareId>,
        hashes: Vec<BlockHash>,
    ) -> BoxFuture<'_, storage::Result<Vec<bool>>> {
        self.store.missing_in(share, hashes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_bounded_over_all_sessions_of_a_device() {
    let mut slow = None;
    let in_flight = 2 * limits::FRAME_BYTES_MAX;
    let config = server::Config { in_flight_bytes_max: u32::try_from(in_flight).unwrap(), ..config() };
    let server = guarded_over(true, config, |store| {
        let store = Slow { store, go: Semaphore::new(0), waiting: 0.into(), most: 0.into() };
        let store = Arc::new(store);
        slow = Some(store.clone());
        store
    })
    .await;
    let slow = slow.unwrap();
    let (first, _p) = server.joined(5, scope(GUESTS, false), GUESTS).await;
    let (mut puts, mut open) = (JoinSet::new(), vec![first]);
    for _ in 0..7 {
        open.push(server.open(&server.invited(5, None), GUESTS).await.unwrap().0);
    }
    // Each session alone would have as much under way as it may.
    for (session, connection) in (0u8..).zip(&open) {
        for n in 0..6u8 {
            let (connection, block) = (connection.clone(), seal(&random(session * 8 + n, 250_000)));
            let blocks: Vec<SealedBlock> = vec![block; 8];
            puts.spawn(async move { connection.put(&blocks).await });
        }
    }
    let frame = 8 * 250_000;
    soon(async {
        while slow.waiting.load(Ordering::SeqCst) + frame < 2 * in_flight {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Another device is not concerned.
    let (owner, _p) = server.open(&server.owner(1), GUESTS).await.unwrap();
    owner.commit(vec![folder("d")], &[]).await.unwrap();
    let other = tokio::spawn(async move { owner.put(&[seal(&random(99, 100))]).await });
    slow.go.add_permits(1_000);
    while let Some(done) = puts.join_next().await {
        done.unwrap().unwrap();
    }
    other.await.unwrap().unwrap();
    let most = slow.most.load(Ordering::SeqCst);
    assert!(most <= 2 * in_flight + 100, "{most} of {in_flight}");
}

/// An order, and no time: what is sent after a revocation was answered is never carried out.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_sent_after_a_revocation_is_carried_out() {
    let server = guarded(true).await;
    let (owner, _p) = server.open(&server.owner(200), GUESTS).await.unwrap();
    for device in 0..30 {
        let (guest, _p) = server.joined(device, scope(GUESTS, false), GUESTS).await;
        guest.ping().await.unwrap();
        let listed = server.gate.devices.list();
        let (device, _) = listed.iter().find(|(device, _)| device.invited && !device.revoked).unwrap();
        server.gate.devices.revoke(&device.id).unwrap();
        let block = random(1, 100);
        let inline = [seal(&block)];
        let (commit, ping) = tokio::join!(guest.commit(vec![file("late", &block)], &inline), guest.ping());
        assert_eq!(
            (commit.unwrap_err().code(), ping.unwrap_err().code()),
            (ErrorCode::Auth, ErrorCode::Auth)
        );
    }
    let made = owner.commit(vec![folder("d")], &[]).await.unwrap();
    assert_eq!((made.prev, made.head.seq), (Seq::ZERO, Seq(1)), "nobody else committed anything");
}

/// Remembers what is leased.
struct Leasing {
    store: Arc<MemoryStore>,
    leased: Mutex<Vec<BlockHash>>,
}

impl BlockStore for Leasing {
    fn put_within(
        &self,
        share: Option<ShareId>,
        blocks: Vec<VerifiedBlock>,
        brought_max: u64,
    ) -> BoxFuture<'_, storage::Result<PutReport>> {
        self.store.put_within(share, blocks, brought_max)
    }
    fn get_in(
        &self,
        share: Option<ShareId>,
        hashes: Vec<BlockHash>,
    ) -> BoxFuture<'_, storage::Result<Vec<Option<SealedBlock>>>> {
        self.store.get_in(share, hashes)
    }
    fn missing_in(
        &self,
        share: Option<ShareId>,
        hashes: Vec<BlockHash>,
    ) -> BoxFuture<'_, storage::Result<Vec<bool>>> {
        self.store.missing_in(share, hashes)
    }
    fn lease(&self, _: SessionId, hashes: &[BlockHash]) {
        self.leased.lock().unwrap().extend(hashes);
    }
    fn let_go(&self, _: SessionId, hashes: &[BlockHash]) {
        let mut leased = self.leased.lock().unwrap();
        for hash in hashes {
            let at = leased.iter().position(|one| one == hash).expect("it was leased");
            leased.swap_remove(at);
        }
    }
}

#[tokio::test]
async fn what_is_refused_missing_or_asked_by_a_reader_is_not_held() {
    let mut leasing = None;
    let server = guarded_over(true, config(), |store| {
        let store = Arc::new(Leasing { store, leased: Mutex::default() });
        leasing = Some(store.clone());
        store
    })
    .await;
    let leased = || leasing.as_ref().unwrap().leased.lock().unwrap().clone();
    let (guest, _p) = server.with_quota(5, 10_000).await;
    let (large, small) = (random(1, 50_000), random(2, 5_000));
    assert!(is_full(&guest.put(&[seal(&large)]).await.unwrap_err()));
    guest.missing(vec![large.hash(), BlockHash::from_bytes([9; 32])]).await.unwrap();
    assert_eq!(leased(), []);
    guest.put(&[seal(&small)]).await.unwrap();
    guest.missing(vec![small.hash()]).await.unwrap();
    assert_eq!(leased(), [small.hash(); 2], "once for the put, once for the promise");
    let (reader, _p) = server.joined(6, scope(GUESTS, true), GUESTS).await;
    assert_eq!(reader.missing(vec![small.hash()]).await.unwrap(), [false]);
    assert_eq!(leased().len(), 2, "it can name nothing");
}
