//! What a commit may rely on: everything that its session sent before it, blocks and commits, is done first. Requests
//! run concurrently otherwise, so a client can stream blocks and the commit that needs them without waiting between.

use tokio::sync::mpsc;

/// One session's order. Lives in its reader.
#[derive(Debug)]
pub struct Order {
    ticket: Ticket,
    done: mpsc::Receiver<()>,
}

/// Held by a request until it is done.
#[derive(Debug, Clone)]
pub struct Ticket(#[allow(dead_code, reason = "only its drop matters")] mpsc::Sender<()>);

/// Everything that came before a commit.
#[derive(Debug)]
pub struct Before(mpsc::Receiver<()>);

impl Order {
    /// Nothing came yet.
    pub fn new() -> Self {
        // Nothing is ever sent: the receiver waits for the last ticket to be dropped.
        let (ticket, done) = mpsc::channel(1);
        Self { ticket: Ticket(ticket), done }
    }

    /// For a request that later commits wait for.
    pub fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    /// For a commit: what it waits for, and its own ticket.
    pub fn barrier(&mut self) -> (Before, Ticket) {
        let before = std::mem::replace(self, Self::new());
        (Before(before.done), self.ticket())
    }
}

impl Before {
    /// Waits until every ticket is gone, also those of requests that failed.
    pub async fn done(mut self) {
        while self.0.recv().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_commit_waits_for_what_came_before_and_for_nothing_later() {
        let mut order = Order::new();
        let put = order.ticket();
        let (before_first, first) = order.barrier();
        let later = order.ticket();
        let (before_second, _second) = order.barrier();
        let waits = tokio::time::timeout(Duration::from_millis(20), before_first.done());
        assert!(waits.await.is_err(), "the put is not done");
        drop(put);
        drop(later);
        let waits = tokio::time::timeout(Duration::from_millis(20), before_second.done());
        assert!(waits.await.is_err(), "the first commit is not done");
        drop(first);
        let (before, _ticket) = Order::new().barrier();
        before.done().await;
    }
}
