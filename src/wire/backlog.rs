//! A bounded queue for pushes that never makes the producer wait: when it is full, what comes is left out and the
//! consumer is told once that it is behind. Used on both ends: server to client, and connection to client code.
//!
//! Invariant: after an item was left out, the consumer sees `Behind` later than every item left out was offered, so
//! reading the journal after `Behind` finds all of them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What comes out.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// The oldest item.
    Item(T),
    /// At least one item was left out since.
    Behind,
    /// Closed and empty.
    Closed,
}

/// The queue. Producers and the one consumer share it through an `Arc`.
#[derive(Debug)]
pub struct Backlog<T> {
    state: Mutex<State<T>>,
    ready: Notify,
    items_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<(usize, T)>,
    bytes: usize,
    behind: bool,
    closed: bool,
}

impl<T> Backlog<T> {
    /// An empty queue of at most so many items and bytes.
    pub const fn new(items_max: usize, bytes_max: usize) -> Self {
        let state = State { queue: VecDeque::new(), bytes: 0, behind: false, closed: false };
        Self { state: Mutex::new(state), ready: Notify::const_new(), items_max, bytes_max }
    }

    /// Offers an item of so many bytes; false when it was left out.
    pub fn offer(&self, item: T, bytes: usize) -> bool {
        let taken = {
            let mut state = self.lock();
            // Once behind, everything is left out until the consumer was told: it will read the journal anyway.
            if state.closed
                || state.behind
                || state.queue.len() >= self.items_max
                || state.bytes + bytes > self.bytes_max
            {
                state.behind = true;
                false
            } else {
                state.bytes += bytes;
                state.queue.push_back((bytes, item));
                true
            }
        };
        self.ready.notify_one();
        taken
    }

    /// Something was left out before it came here.
    pub fn mark_behind(&self) {
        self.lock().behind = true;
        self.ready.notify_one();
    }

    /// No more items are taken; those inside still come out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// The next item, `Behind` after the last item before a gap, `Closed` at the end.
    ///
    /// # Cancel safety
    /// Safe: an item leaves the queue only when it is returned.
    pub async fn next(&self) -> Next<T> {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.ready.notified().await;
        }
    }

    /// Like [`Self::next`], but `None` when there is nothing now.
    pub fn try_next(&self) -> Option<Next<T>> {
        let mut state = self.lock();
        if let Some((bytes, item)) = state.queue.pop_front() {
            state.bytes -= bytes;
            return Some(Next::Item(item));
        }
        if state.closed {
            return Some(Next::Closed);
        }
        std::mem::take(&mut state.behind).then_some(Next::Behind)
    }

    /// Held for a few instructions, never across an await. A panic while holding it leaves the queue sound.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_leaves_out_and_says_so_once_after_its_items() {
        let backlog = Backlog::new(2, 100);
        assert!(backlog.offer(1, 1) && backlog.offer(2, 1));
        assert!(!backlog.offer(3, 1));
        assert_eq!(backlog.next().await, Next::Item(1));
        assert!(!backlog.offer(4, 1), "nothing is taken between a gap and its notice");
        assert_eq!(backlog.next().await, Next::Item(2));
        assert_eq!(backlog.next().await, Next::Behind);
        assert!(backlog.offer(5, 1));
        backlog.close();
        assert_eq!(backlog.next().await, Next::Item(5));
        assert_eq!(backlog.next().await, Next::Closed);
    }

    #[test]
    fn bytes_are_bounded_like_items() {
        let backlog = Backlog::new(10, 100);
        assert!(backlog.offer((), 60));
        assert!(!backlog.offer((), 60));
    }
}
