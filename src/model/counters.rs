//! Counters of work done. Shown in the summary line, and asserted by tests instead of times.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a client or a server did since it started. Cheap to share, cheap to count.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter,)* }

        impl Counters {
            /// All counters by name, in a fixed order.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Bytes of frames written to the network.
    wire_bytes_sent,
    /// Bytes of frames read from the network.
    wire_bytes_received,
    /// Requests written.
    requests_sent,
    /// Blocks written to the network.
    blocks_sent,
    /// Blocks read from the network.
    blocks_received,
    /// Plain bytes of the blocks sent.
    block_bytes_sent,
    /// Plain bytes of the blocks received.
    block_bytes_received,
    /// Bytes of files read in order to cut and hash them.
    bytes_hashed,
    /// Files that were read in order to cut and hash them.
    files_hashed,
    /// Bytes taken from files that were here already instead of from the network.
    bytes_reused,
    /// Nodes changed in the share by this client.
    nodes_sent,
    /// Nodes changed on disk because others changed them.
    nodes_received,
    /// Conflict copies made.
    conflicts,
    /// Commits answered.
    commits,
}

/// One monotonic counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds a length in memory.
    pub fn add_len(&self, n: usize) {
        self.add(n as u64);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
