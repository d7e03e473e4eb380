//! Leases: which blocks sessions rely on although no commit names them yet, and which blocks are about to be deleted.
//! Pure: one value behind one lock, no IO.
//!
//! # Why a block that a session was told about never vanishes before its commit
//! Whoever asks for a block ([`take`](Leases::take)) does so *before* it looks whether the block is held. Deleting is two
//! steps: blocks are [doomed](Leases::doom), and later [forgotten](Leases::forget) in small batches. Both refuse leased
//! blocks, `take` saves doomed ones, and a batch is forgotten and taken out of the index under the same lock. So either the
//! lease came first, and the block stays; or the block went first, and the look that follows the lease says "missing", so
//! that the client sends it.
//!
//! A lease ends when a commit that names the block is durable (then the journal protects it), or some time after its
//! session ended, or with an answer that says "missing": made-up hashes hold nothing. A commit that looks at a doomed
//! block saves it as well, whoever makes it. It looks before its turn comes: what it saw holds in the *era* in which it
//! looked, which ends when others are doomed.

use super::mark::Marked;
use crate::model::{BlockHash, SessionId};
use std::collections::{HashMap, HashSet, VecDeque, hash_map::Entry};

/// Leased blocks remembered in all, 36 bytes each. A session that would go beyond holds on to everything instead, for a while.
const LEASED_MAX: usize = 1 << 20;
/// For so long after it went beyond: what it was told earlier it has named by now, or it sends it again when a commit is refused.
/// Whoever filled the table may be gone by then, and others must not stand in for it.
const EVERYTHING_MS: u64 = 600_000;
/// Ended sessions whose leases stay. Beyond them the first to end goes early: if its client comes back and a block was collected
/// meanwhile, its commit is refused and it sends the block again.
const ENDED_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Leases {
    sessions: HashMap<SessionId, Lease>,
    leased: usize,
    /// Sessions that ended and kept leases, the first to end first.
    ended: VecDeque<SessionId>,
    doomed: HashSet<BlockHash>,
    era: u64,
}

#[derive(Debug, Default)]
struct Lease {
    /// And for how many requests that took it and did not let it go.
    blocks: HashMap<BlockHash, u32>,
    /// When there was no room to remember what it relies on, ms since 1970: it holds on to everything for a while.
    everything_ms: Option<u64>,
    ended_ms: Option<u64>,
}

impl Leases {
    /// A session is about to be told about blocks, or to put them.
    pub fn take(&mut self, session: SessionId, hashes: &[BlockHash], now_ms: u64) {
        let lease = self.sessions.entry(session).or_default();
        for hash in hashes {
            match lease.blocks.entry(*hash) {
                Entry::Occupied(mut known) => *known.get_mut() = known.get().saturating_add(1),
                Entry::Vacant(_) if self.leased >= LEASED_MAX => lease.everything_ms = Some(now_ms),
                Entry::Vacant(new) => {
                    new.insert(1);
                    self.leased += 1;
                }
            }
            self.doomed.remove(hash);
        }
    }

    /// A request that took these has told the session that they are missing. What another of its requests took as well
    /// stays: it may have been put meanwhile.
    pub fn let_go(&mut self, session: SessionId, hashes: &[BlockHash]) {
        let Some(lease) = self.sessions.get_mut(&session) else { return };
        for hash in hashes {
            let Entry::Occupied(mut known) = lease.blocks.entry(*hash) else { continue };
            if *known.get() > 1 {
                *known.get_mut() -= 1;
            } else {
                known.remove();
                self.leased -= 1;
            }
        }
    }

    /// A session has ended; its leases stay for a while, in case the client comes back and goes on.
    pub fn end(&mut self, session: SessionId, now_ms: u64) {
        let Some(lease) = self.sessions.get_mut(&session) else { return };
        if lease.ended_ms.replace(lease.ended_ms.unwrap_or(now_ms)).is_some() {
            return;
        }
        if lease.blocks.is_empty() && lease.everything_ms.is_none() {
            self.sessions.remove(&session);
            return;
        }
        self.ended.push_back(session);
        if self.ended.len() > ENDED_MAX
            && let Some(lease) = self.ended.pop_front().and_then(|first| self.sessions.remove(&first))
        {
            self.leased -= lease.blocks.len();
        }
    }

    /// Lets go of sessions that ended at least `grace_ms` ago.
    pub fn prune(&mut self, now_ms: u64, grace_ms: u64) {
        let leased = &mut self.leased;
        self.sessions.retain(|_, lease| {
            lease.everything_ms =
                lease.everything_ms.filter(|since| now_ms.saturating_sub(*since) < EVERYTHING_MS);
            let stays = lease.ended_ms.is_none_or(|ended| now_ms.saturating_sub(ended) < grace_ms);
            if !stays {
                *leased -= lease.blocks.len();
            }
            stays
        });
        let sessions = &self.sessions;
        self.ended.retain(|session| sessions.contains_key(session));
    }

    /// A commit names a block: it must not be deleted any more. True when the session has a lease on it, which ends with
    /// [`settle`](Self::settle).
    pub fn named(&mut self, session: SessionId, hash: &BlockHash) -> bool {
        self.doomed.remove(hash);
        self.sessions.get(&session).is_some_and(|lease| lease.blocks.contains_key(hash))
    }

    /// The commit that names these blocks is durable.
    pub fn settle(&mut self, session: SessionId, hashes: &[BlockHash]) {
        let Some(lease) = self.sessions.get_mut(&session) else { return };
        self.leased -= hashes.iter().filter(|hash| lease.blocks.remove(hash).is_some()).count();
    }

    /// A block was asked for or put by somebody without a session.
    pub fn save(&mut self, hash: &BlockHash) {
        self.doomed.remove(hash);
    }

    /// True when some session relies on the block.
    #[cfg(test)]
    pub fn is_leased(&self, hash: &BlockHash) -> bool {
        self.sessions.values().any(|lease| lease.everything_ms.is_some() || lease.blocks.contains_key(hash))
    }

    /// Every leased block; `None` when some session relies on everything.
    pub fn all(&self) -> Option<HashSet<BlockHash>> {
        if self.sessions.values().any(|lease| lease.everything_ms.is_some()) {
            return None;
        }
        Some(self.sessions.values().flat_map(|lease| lease.blocks.keys().copied()).collect())
    }

    /// What was seen to be held in this era is held until the next, if it was [named](Self::named) before the look.
    pub const fn era(&self) -> u64 {
        self.era
    }

    /// Blocks were deleted, or will be: what was seen before must be looked at again.
    pub const fn begin_era(&mut self) {
        self.era += 1;
    }

    /// Begins to delete blocks, but for those that are leased. A new era begins with it.
    pub fn doom(&mut self, hashes: impl IntoIterator<Item = BlockHash>) {
        self.begin_era();
        let Some(leased) = self.all() else { return };
        self.doomed.extend(hashes.into_iter().filter(|hash| !leased.contains(hash)));
    }

    /// What these name is not deleted.
    pub fn save_marked(&mut self, marked: &Marked) {
        self.doomed.retain(|hash| !marked.contains(hash));
    }

    /// Those of a batch that may go now: doomed, and not asked for since.
    pub fn forget(&mut self, batch: &[BlockHash]) -> Vec<BlockHash> {
        batch.iter().filter(|hash| self.doomed.remove(hash)).copied().collect()
    }

    /// Nothing is being deleted any more.
    pub fn absolve(&mut self) {
        self.doomed = HashSet::new();
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use super::*;

    const A: SessionId = SessionId::from_bytes([1; 16]);

    fn block(n: u8) -> BlockHash {
        BlockHash::from_bytes([n; 32])
    }

    #[test]
    fn a_leased_block_is_neither_doomed_nor_forgotten() {
        let mut leases = Leases::default();
        leases.take(A, &[block(1)], 0);
        leases.doom([block(1), block(2), block(3)]);
        leases.take(A, &[block(2)], 0);
        assert_eq!(leases.forget(&[block(1), block(2), block(3)]), [block(3)]);
        assert_eq!(leases.forget(&[block(3)]), [], "nothing is forgotten twice");
    }

    #[test]
    fn a_lease_ends_with_its_commit_or_a_while_after_its_session() {
        let mut leases = Leases::default();
        leases.take(A, &[block(1), block(2)], 0);
        assert!(leases.named(A, &block(1)) && !leases.named(A, &block(3)));
        leases.settle(A, &[block(1)]);
        assert!(!leases.is_leased(&block(1)) && leases.is_leased(&block(2)));
        leases.end(A, 1000);
        leases.prune(1999, 1000);
        assert!(leases.is_leased(&block(2)));
        leases.prune(2000, 1000);
        assert!(!leases.is_leased(&block(2)));
        assert_eq!(leases.leased, 0);
    }

    #[test]
    fn only_so_many_ended_sessions_keep_leases() {
        let mut leases = Leases::default();
        for n in 0..=ENDED_MAX as u64 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            let session = SessionId::from_bytes(id);
            leases.take(session, &[block(n.min(1) as u8)], n);
            leases.end(session, n);
            leases.end(session, n);
        }
        assert!(!leases.is_leased(&block(0)) && leases.is_leased(&block(1)));
        assert_eq!((leases.sessions.len(), leases.leased), (ENDED_MAX, ENDED_MAX));
        leases.prune(u64::MAX, 0);
        assert_eq!((leases.ended.len(), leases.leased), (0, 0));
    }

    #[test]
    fn what_is_missing_is_not_leased_unless_another_request_of_the_session_took_it() {
        let mut leases = Leases { leased: LEASED_MAX - 2, ..Leases::default() };
        leases.take(A, &[block(1), block(2)], 0);
        leases.take(A, &[block(2)], 0);
        leases.let_go(A, &[block(1), block(2), block(3)]);
        assert!(!leases.is_leased(&block(1)) && leases.is_leased(&block(2)));
        leases.take(A, &[block(1)], 0);
        assert!(leases.all().is_some(), "there was room again");
        leases.settle(A, &[block(2)]);
        leases.let_go(A, &[block(2), block(1)]);
        assert_eq!(leases.leased, LEASED_MAX - 2);
    }

    #[test]
    fn a_block_that_a_commit_names_is_saved_although_it_was_doomed() {
        let mut leases = Leases::default();
        leases.doom([block(1)]);
        leases.named(A, &block(1));
        assert_eq!(leases.forget(&[block(1)]), []);
    }

    #[test]
    fn past_the_limit_a_session_holds_on_to_everything_for_a_while() {
        let mut leases = Leases { leased: LEASED_MAX, ..Leases::default() };
        leases.take(A, &[block(1)], 0);
        assert!(leases.is_leased(&block(9)) && leases.all().is_none());
        leases.doom([block(9)]);
        assert_eq!(leases.forget(&[block(9)]), []);
        leases.prune(EVERYTHING_MS - 1, 0);
        assert!(leases.is_leased(&block(9)));
        leases.prune(EVERYTHING_MS, 0);
        assert!(!leases.is_leased(&block(9)), "it is still here, and whoever filled the table may be gone");
        leases.take(A, &[block(1)], EVERYTHING_MS);
        leases.end(A, EVERYTHING_MS);
        leases.prune(EVERYTHING_MS, 0);
        assert!(!leases.is_leased(&block(9)));
    }
}
