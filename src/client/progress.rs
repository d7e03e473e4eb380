//! What the client is doing, for whoever shows it. The client never prints.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// The part of a cycle that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is under way.
    Idle,
    /// Looking at the folder, listing the share.
    Looking,
    /// Reading files and sending what the server lacks.
    Sending,
    /// Receiving and placing files.
    Receiving,
}

/// Work done and to do in the current phase. Written by the client, read by a display at any moment.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    bytes: AtomicU64,
    bytes_total: AtomicU64,
    files: AtomicU64,
    files_total: AtomicU64,
}

/// One look at a [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// What is under way.
    pub phase: Phase,
    /// Bytes of files done.
    pub bytes: u64,
    /// Bytes of files to do.
    pub bytes_total: u64,
    /// Files done.
    pub files: u64,
    /// Files to do.
    pub files_total: u64,
}

impl Progress {
    /// Another phase starts.
    pub fn start(&self, phase: Phase, files_total: u64, bytes_total: u64) {
        self.bytes.store(0, Ordering::Relaxed);
        self.files.store(0, Ordering::Relaxed);
        self.bytes_total.store(bytes_total, Ordering::Relaxed);
        self.files_total.store(files_total, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// So many bytes more are done.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many files more are done.
    pub fn add_files(&self, files: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
    }

    /// A look.
    pub fn look(&self) -> Shown {
        let phase = match self.phase.load(Ordering::Relaxed) {
            1 => Phase::Looking,
            2 => Phase::Sending,
            3 => Phase::Receiving,
            _ => Phase::Idle,
        };
        Shown {
            phase,
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            files: self.files.load(Ordering::Relaxed),
            files_total: self.files_total.load(Ordering::Relaxed),
        }
    }
}
