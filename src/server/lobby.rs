//! Connections that have not proved who they are. There are only so many: one more, and the one that has waited longest
//! has to go. So a flood of strangers crowds out strangers, and whoever proves itself in time comes in.
//!
//! Off loopback an address has a part of the places only, and one that fails again and again waits outside for some
//! seconds, where it costs nothing but an accept. On loopback all users of a machine have one address, and the owner is
//! one of them: there nobody is made to pay for another.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Connections that have not said who they are yet, or are being told that they may not stay. Each holds a few KiB.
const STRANGERS_MAX: usize = 256;
/// Of these, from one address.
const STRANGERS_OF_ONE_MAX: usize = 64;
/// So often an address may fail.
const FAILURE_EVERY: Duration = Duration::from_millis(200);
/// And so far ahead of that it may be.
const FAILURES_AHEAD: Duration = Duration::from_secs(4);
/// Whatever it did, it is heard again after this.
const BARRED_MAX: Duration = Duration::from_secs(6);

/// See the module.
#[derive(Debug, Default)]
pub struct Lobby(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    next: u64,
    waiting: BTreeMap<u64, (Origin, Arc<Notify>)>,
    /// Until when the failures of an address are paid for, at [`FAILURE_EVERY`] each.
    failures: HashMap<Origin, Instant>,
}

/// Where a connection comes from. Whoever has an IPv6 address has all that differ in the last half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    Loopback,
    V4([u8; 4]),
    V6([u16; 4]),
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// A place in the lobby, given back when dropped.
#[derive(Debug)]
pub struct Waiting {
    lobby: Arc<Lobby>,
    number: u64,
    origin: Origin,
    go: Arc<Notify>,
}

impl Lobby {
    /// Takes a place; `None` for an address that has failed too often.
    pub fn enter(lobby: &Arc<Self>, address: IpAddr) -> Option<Waiting> {
        let origin = Origin::from(address);
        let mut places = lobby.lock();
        if places.is_barred(origin) {
            return None;
        }
        places.make_room(origin);
        let (number, go) = (places.next, Arc::new(Notify::new()));
        places.next += 1;
        places.waiting.insert(number, (origin, go.clone()));
        Some(Waiting { lobby: lobby.clone(), number, origin, go })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn is_barred(&self, origin: Origin) -> bool {
        let paid = self.failures.get(&origin);
        paid.is_some_and(|paid| paid.saturating_duration_since(Instant::now()) > FAILURES_AHEAD)
    }

    /// Sends away whoever waited longest: of the same address if that has all its places, else of the one with most.
    fn make_room(&mut self, origin: Origin) {
        let mut counts: HashMap<Origin, usize> = HashMap::new();
        for (of, _) in self.waiting.values() {
            *counts.entry(*of).or_default() += 1;
        }
        let its_own = counts.get(&origin).copied().unwrap_or_default();
        let from = if origin != Origin::Loopback && its_own >= STRANGERS_OF_ONE_MAX {
            Some(origin)
        } else if self.waiting.len() >= STRANGERS_MAX {
            counts.into_iter().max_by_key(|(_, count)| *count).map(|(of, _)| of)
        } else {
            None
        };
        let oldest = self.waiting.iter().find(|(_, (of, _))| Some(*of) == from).map(|(number, _)| *number);
        if let Some((_, go)) = oldest.and_then(|number| self.waiting.remove(&number)) {
            go.notify_one();
        }
    }

    fn failed(&mut self, origin: Origin) {
        if origin == Origin::Loopback {
            return;
        }
        let now = Instant::now();
        // Before it grows, so that this is done now and then, and it is as large as those are many that fail.
        if self.failures.len() == self.failures.capacity() {
            self.failures.retain(|_, paid| *paid > now);
        }
        let paid = self.failures.entry(origin).or_insert(now);
        *paid = ((*paid).max(now) + FAILURE_EVERY).min(now + FAILURES_AHEAD + BARRED_MAX);
    }
}

impl Waiting {
    /// Comes back when the place is needed for another.
    pub async fn must_go(&self) {
        self.go.notified().await;
    }

    /// It did not prove who it is.
    pub fn failed(&self) {
        self.lobby.lock().failed(self.origin);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.lobby.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn goes(waiting: &Waiting) -> bool {
        tokio::time::timeout(Duration::from_millis(5), waiting.must_go()).await.is_ok()
    }

    fn address(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn enter(lobby: &Arc<Lobby>, from: IpAddr, times: usize) -> Vec<Waiting> {
        (0..times).map(|_| Lobby::enter(lobby, from).unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_waited_longest_makes_room_first_of_its_own_address() {
        let lobby = Arc::new(Lobby::default());
        let early = enter(&lobby, address(1), 1);
        let flood = enter(&lobby, address(2), STRANGERS_OF_ONE_MAX);
        let _late = enter(&lobby, address(2), 2);
        assert!(goes(&flood[0]).await && goes(&flood[1]).await && !goes(&flood[2]).await);
        assert!(!goes(&early[0]).await);
        drop(flood);
        let _again = enter(&lobby, address(2), STRANGERS_OF_ONE_MAX - 2);
        assert!(!goes(&early[0]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_places_are_taken_the_address_with_most_of_them_gives_one() {
        let lobby = Arc::new(Lobby::default());
        let early = enter(&lobby, address(1), 1);
        let local = enter(&lobby, [127, 0, 0, 1].into(), STRANGERS_MAX - 1);
        let _late = enter(&lobby, address(2), 1);
        assert!(!goes(&early[0]).await && goes(&local[0]).await && !goes(&local[1]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_too_often_waits_outside_and_no_other_does() {
        let lobby = Arc::new(Lobby::default());
        let mut tries = 0;
        while let Some(waiting) = Lobby::enter(&lobby, address(1)) {
            waiting.failed();
            tries += 1;
        }
        assert_eq!(tries, 21, "four seconds of failures ahead");
        assert!(Lobby::enter(&lobby, address(2)).is_some());
        tokio::time::advance(FAILURE_EVERY).await;
        assert!(Lobby::enter(&lobby, address(1)).is_some());
        // Many at once fail at once.
        for waiting in enter(&lobby, address(1), STRANGERS_OF_ONE_MAX) {
            waiting.failed();
        }
        tokio::time::advance(BARRED_MAX - FAILURE_EVERY).await;
        assert!(Lobby::enter(&lobby, address(1)).is_none());
        tokio::time::advance(FAILURE_EVERY).await;
        assert!(Lobby::enter(&lobby, address(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn on_loopback_nobody_waits_outside_for_what_others_do() {
        let lobby = Arc::new(Lobby::default());
        for address in ["127.0.0.1", "127.9.0.1", "::1", "::ffff:127.0.0.1"] {
            let address: IpAddr = address.parse().unwrap();
            for _ in 0..100 {
                Lobby::enter(&lobby, address).unwrap().failed();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn neighbours_in_ipv6_are_one_and_little_is_kept_of_who_failed_long_ago() {
        let lobby = Arc::new(Lobby::default());
        let of = |net: u16, host: u16| IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, host]);
        for host in 0..21 {
            Lobby::enter(&lobby, of(1, host)).unwrap().failed();
        }
        assert!(Lobby::enter(&lobby, of(1, 99)).is_none() && Lobby::enter(&lobby, of(2, 0)).is_some());
        for net in 0..1000 {
            Lobby::enter(&lobby, of(10 + net, 0)).unwrap().failed();
            tokio::time::advance(FAILURE_EVERY).await;
        }
        assert!(lobby.lock().failures.len() < 40);
    }
}
