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
    #[error(
        "this folder belongs to the share {found:?}, not {asked:?}; leave --share out, or name another folder"
    )]
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
    /// Blocks that the server's own tree names did not come, or came as others.
    #[error(
        "{path}: its content did not arrive intact: the server lacks a part of it, or something in between changes bytes; `dropblock check` on the store tells which"
    )]
    BlocksLost {
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
    /// The server has no room for new blocks: some files were not sent, everything else is in sync.
    #[error(
        "{why}: {path}{more} not sent, everything else is in sync; run again when there is room",
        more = others(*files)
    )]
    ServerFull {
        /// As the server says it.
        why: String,
        /// The first file that was not sent.
        path: String,
        /// How many there are.
        files: usize,
    },
    /// The server lacks blocks that were sent to it, several times.
    #[error(
        "{path}: its content was sent, and did not arrive intact: something between here and the server changes bytes"
    )]
    Garbled {
        /// The file.
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
    /// Why the server has no room for the blocks of one request, when this is that.
    pub fn no_room(&self) -> Option<String> {
        match self {
            Self::Connection(error) => no_room(error),
            _ => None,
        }
    }

    /// True when the server has said that it will be there once its store is open.
    pub fn is_opening(&self) -> bool {
        matches!(self, Self::Wire { source, .. } | Self::Connection(source) if source.code() == ErrorCode::Opening)
    }

    /// True when the server has no place for one more that has not said who it is.
    pub fn is_crowded(&self) -> bool {
        matches!(self, Self::Wire { source, .. } if source.code() == ErrorCode::Busy)
    }

    /// True when a connection ended without a word, which is all that a server in need of places may have time for.
    pub fn is_cut(&self) -> bool {
        match self {
            Self::Wire { source: WireError::Ended, .. } => true,
            Self::Unreachable { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
            ),
            _ => false,
        }
    }

    /// True when a new session may go better without any change here.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Restless | Self::BlocksLost { .. } | Self::Garbled { .. } => {
                true
            }
            Self::Wire { source, .. } | Self::Connection(source) => source.is_retryable(),
            _ => false,
        }
    }
}

/// The same for what came over the wire.
pub(super) fn no_room(error: &WireError) -> Option<String> {
    match error {
        WireError::Failed { code: ErrorCode::Full, text } => Some(text.clone()),
        _ => None,
    }
}

/// ` and 3 more` beside one that is named.
fn others(files: usize) -> String {
    if files > 1 { format!(" and {} more", files - 1) } else { String::new() }
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
