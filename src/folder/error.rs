//! What can go wrong with the user's folder.
//!
//! An error here stops the operation and usually the client. What only concerns one file is a [`Problem`] of the scan
//! or an outcome of the operation, never an error, so that one bad file does not stop the rest.
//!
//! [`Problem`]: super::scan::Problem

use super::fs;
use crate::model::path::escape;
use std::fmt;
use std::io;
use std::path::Path;

/// A path for messages: escaped when shown, so that it stays on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownPath(Vec<u8>);

impl From<&Path> for ShownPath {
    fn from(path: &Path) -> Self {
        Self(fs::path_bytes(path).to_vec())
    }
}

impl fmt::Display for ShownPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The folder (or the one it should be made in) does not exist.
    #[error("{path} does not exist")]
    NotFound {
        /// What is absent.
        path: ShownPath,
    },
    /// Something is there, but it is not a folder.
    #[error("{path} is not a folder")]
    NotAFolder {
        /// What is in the way.
        path: ShownPath,
    },
    /// It is not, or not yet, the folder of a client.
    #[error("{path} was never synced, or its state is damaged: run `dropblock sync` on it first")]
    NotSynced {
        /// The folder.
        path: ShownPath,
    },
    /// The operating system refuses.
    #[error("no permission to {action} {path}")]
    NoPermission {
        /// A verb.
        action: &'static str,
        /// On what.
        path: ShownPath,
    },
    /// The filesystem is mounted read-only.
    #[error("cannot {action} {path}: the filesystem is read-only")]
    ReadOnly {
        /// A verb.
        action: &'static str,
        /// On what.
        path: ShownPath,
    },
    /// The filesystem or a quota is full.
    #[error("cannot {action} {path}: no space left")]
    NoSpace {
        /// A verb.
        action: &'static str,
        /// On what.
        path: ShownPath,
    },
    /// A folder around it is synced already, or a store: the two would sync each other's private files without end.
    #[error(
        "{path} is inside {outer}, which is a synced folder or a store itself: name one outside of it, or remove {outer}/.dropblock if it was synced by mistake"
    )]
    Nested {
        /// The folder.
        path: ShownPath,
        /// The folder around it.
        outer: ShownPath,
    },
    /// Another client holds the lock of this folder.
    #[error("{path} is already being synced by another dropblock")]
    Locked {
        /// The folder.
        path: ShownPath,
    },
    /// The private state was written by a program this one does not know.
    #[error("{path} was written by a newer dropblock (format {found}, this one knows {known})")]
    NewerVersion {
        /// The version file.
        path: ShownPath,
        /// What it says.
        found: u32,
        /// What this program writes.
        known: u32,
    },
    /// The version file is not one.
    #[error("{path} is not a dropblock version file")]
    UnknownVersion {
        /// The version file.
        path: ShownPath,
    },
    /// The folder or its private part is no longer the one that was opened.
    #[error("{path} was replaced or removed while it was being synced")]
    Replaced {
        /// The folder.
        path: ShownPath,
    },
    /// Names moved about during every look: what is gone could not be told from what moved.
    #[error("{path} changes faster than it can be scanned")]
    Unsettled {
        /// The folder.
        path: ShownPath,
    },
    /// A write to the state failed earlier; what is on disk is older than memory.
    #[error("the state in {path} can no longer be written")]
    StateBroken {
        /// The folder.
        path: ShownPath,
    },
    /// Any other failure.
    #[error("cannot {action} {path}")]
    Io {
        /// A verb.
        action: &'static str,
        /// On what.
        path: ShownPath,
        /// Why.
        source: io::Error,
    },
}

impl FolderError {
    /// Sorts a failed call by its cause.
    pub fn from_io(action: &'static str, path: impl Into<ShownPath>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NoPermission { action, path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { action, path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { action, path },
            _ => Self::Io { action, path, source },
        }
    }

    /// A stable word for scripts and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "folder-not-found",
            Self::NotAFolder { .. } => "not-a-folder",
            Self::NotSynced { .. } => "not-synced",
            Self::NoPermission { .. } => "no-permission",
            Self::ReadOnly { .. } => "read-only",
            Self::NoSpace { .. } => "no-space",
            Self::Nested { .. } => "folder-nested",
            Self::Locked { .. } => "folder-locked",
            Self::NewerVersion { .. } => "newer-state",
            Self::UnknownVersion { .. } => "unknown-state",
            Self::Replaced { .. } => "folder-replaced",
            Self::Unsettled { .. } => "unsettled",
            Self::StateBroken { .. } => "state-broken",
            Self::Io { .. } => "io",
        }
    }

    /// True when the same call may succeed later without anybody doing anything to the program.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NoSpace { .. } | Self::Io { .. } | Self::NoPermission { .. } | Self::Unsettled { .. }
        )
    }
}
