//! Why a client stops, or ends a session to start another.

use crate::folder::FolderError;
use crate::manifest::ManifestError;
use crate::reconcile::Held;
use crate::wire::{ErrorCode, WireError};
use std::io;

/// Anything that ends a session.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server cannot be reached.
    #[error("cannot reach {server}")]
    Unreachable {
        /// As given.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// The connection failed, or the server refused.
    #[error("{server}")]
    Wire {
        /// As given.
        server: String,
        /// Why.
        source: WireError,
    },
    /// The connection failed in the middle of a transfer.
    #[error(transparent)]
    Connection(#[from] WireError),
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The server sent a manifest that contradicts itself.
    #[error("the server sent a bad manifest")]
    Manifest(#[from] ManifestError),
    /// The folder was synced with another share before.
    #[error("this folder belongs to the share {found:?}, not {asked:?}; use --share {found}")]
    OtherShare {
        /// The share it was synced with.
        found: String,
        /// The share that was asked for.
        asked: String,
    },
    /// Most files are gone at once; nothing was sent.
    #[error(
        "{missing} of {tracked} files are gone from {folder}: nothing was sent; if that is meant, run again with --allow-mass-delete",
        missing = held.missing, tracked = held.tracked
    )]
    Held {
        /// How many.
        held: Held,
        /// For people.
        folder: String,
    },
    /// The server does not hold blocks that its own tree names.
    #[error("the server lacks {blocks} blocks of {path}; run `dropblock check` on its store")]
    BlocksLost {
        /// How many.
        blocks: usize,
        /// The file.
        path: String,
    },
    /// The server's store lies in the folder: each sync would make more to sync, without end.
    #[error(
        "{path} is the store of this server: it cannot be synced into itself; move the store out of the folder"
    )]
    StoreInside {
        /// The store.
        path: String,
    },
    /// Two sides cannot agree within a sane number of rounds.
    #[error("the folder keeps changing; try again")]
    Restless,
    /// A part of this program has stopped.
    #[error("stopped")]
    Stopped,
}

impl ClientError {
    /// True when the server has no room for new blocks.
    pub const fn is_server_full(&self) -> bool {
        matches!(self, Self::Connection(WireError::Failed { code: ErrorCode::Full, .. }))
    }

    /// True when a new session may go better without any change here.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Restless | Self::BlocksLost { .. } => true,
            Self::Wire { source, .. } | Self::Connection(source) => source.is_retryable(),
            _ => false,
        }
    }
}

/// An error and its causes on one line.
pub(super) fn line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}
