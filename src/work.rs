//! Blocking work: on the runtime's threads in production, inline in the simulator, where one thread runs a whole world in
//! an order that its seed decides.
//!
//! The only file that hands work to threads of the runtime. Decides nothing about what is run.

use tokio::task::JoinHandle;

/// Where blocking work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Work {
    /// On threads made for it.
    #[default]
    Threads,
    /// On the thread that asks, while everything else waits.
    Inline,
}

impl Work {
    /// Runs blocking work before it returns; tasks of other threads go on meanwhile.
    pub fn here<T>(self, work: impl FnOnce() -> T) -> T {
        match self {
            Self::Threads => tokio::task::block_in_place(work),
            Self::Inline => work(),
        }
    }

    /// Starts blocking work beside the caller.
    pub fn beside<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work),
            Self::Inline => tokio::spawn(async move { work() }),
        }
    }
}
