//! Connections that have not proved who they are. There are only so many: one more, and the one that has waited longest
//! has to go. So a flood of strangers crowds out strangers, and whoever proves itself in time comes in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// See the module.
#[derive(Debug, Default)]
pub struct Lobby(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    next: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// A place in the lobby, given back when dropped.
#[derive(Debug)]
pub struct Waiting {
    lobby: Arc<Lobby>,
    number: u64,
    go: Arc<Notify>,
}

impl Lobby {
    /// Takes a place; `max` is how many there are.
    pub fn enter(lobby: &Arc<Self>, max: usize) -> Waiting {
        let mut places = lobby.lock();
        while places.waiting.len() >= max.max(1) {
            let Some((_, oldest)) = places.waiting.pop_first() else { break };
            oldest.notify_one();
        }
        let (number, go) = (places.next, Arc::new(Notify::new()));
        places.next += 1;
        places.waiting.insert(number, go.clone());
        Waiting { lobby: lobby.clone(), number, go }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Comes back when the place is needed for another.
    pub async fn must_go(&self) {
        self.go.notified().await;
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
    use std::time::Duration;

    async fn goes(waiting: &Waiting) -> bool {
        tokio::time::timeout(Duration::from_millis(5), waiting.must_go()).await.is_ok()
    }

    #[tokio::test]
    async fn the_one_that_waited_longest_makes_room() {
        let lobby = Arc::new(Lobby::default());
        let (first, second) = (Lobby::enter(&lobby, 2), Lobby::enter(&lobby, 2));
        let third = Lobby::enter(&lobby, 2);
        assert!(goes(&first).await && !goes(&second).await && !goes(&third).await);
        drop(second);
        let _fourth = Lobby::enter(&lobby, 2);
        assert!(!goes(&third).await);
    }
}
