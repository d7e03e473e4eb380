//! Scanning: what on disk differs from the base.
//!
//! No content is read: a file whose stamp differs is reported as touched, and the client reads it to see whether its
//! bytes differ too. First the disk is listed (`walk`), then the listing is matched with the base (`matching`):
//! the first part does all IO and decides nothing, the second decides everything and does no IO.

use super::{Folder, FolderError, Stamp, State, matching, walk};
use crate::model::{IdSource, Name, NodeId, RelPath};
use std::collections::BTreeSet;
use std::fmt;
use std::io;

/// A name that moves from a folder not yet listed to one that was is seen nowhere. So what is gone must be gone in two
/// looks one after the other. A folder that moves while names are listed is seen twice, and what it holds with it: such a look
/// does not count. More than this many are taken only while somebody renames without a pause.
const LOOKS_MAX: usize = 8;

/// Which part of the folder to look at.
#[derive(Debug, Clone)]
pub enum Scope {
    /// Everything.
    Full,
    /// These folders: their direct children, and whole subtrees of folders that are not in the base. More folders are
    /// looked at where it takes them to tell a move from a copy.
    Dirs(BTreeSet<RelPath>),
}

/// What a found name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// As seen.
        stamp: Stamp,
    },
    /// A folder.
    Folder {
        /// As seen; only its identity says something.
        stamp: Stamp,
    },
    /// A symlink.
    Symlink {
        /// As seen.
        stamp: Stamp,
        /// Its text.
        target: Vec<u8>,
    },
}

impl Entry {
    /// As seen.
    pub const fn stamp(&self) -> &Stamp {
        match self {
            Self::File { stamp } | Self::Folder { stamp } | Self::Symlink { stamp, .. } => stamp,
        }
    }
}

/// A name on disk that is not as the base says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The node: one of the base, or a fresh id.
    pub id: NodeId,
    /// The id is fresh.
    pub new: bool,
    /// The node of the folder it is in.
    pub parent: NodeId,
    /// Its name there.
    pub name: Name,
    /// What it is.
    pub entry: Entry,
    /// A node of the base at another place than before.
    pub moved: bool,
    /// Its stamp is not the one in the state: the bytes may differ. Always true for new nodes.
    pub touched: bool,
}

/// Something that could not be looked at. Its nodes are never taken for gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub path: RelPath,
    /// Why.
    pub cause: Cause,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.cause)
    }
}

/// Why something could not be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The operating system refuses.
    #[error("no permission")]
    NoPermission,
    /// A mount point: nothing can be renamed across it, and it may be unmounted at any moment.
    #[error("a mount point: not synced")]
    OtherFilesystem,
    /// More than `limits::PATH_DEPTH_MAX` folders deep.
    #[error("too deep")]
    TooDeep,
    /// Any other failure.
    #[error("cannot be read ({0})")]
    Io(io::ErrorKind),
}

impl From<&io::Error> for Cause {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::NoPermission,
            kind => Self::Io(kind),
        }
    }
}

/// What a scan shows, in an order that depends only on the disk and the base.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Names that are not as the base says; folders before what they hold.
    pub found: Vec<Found>,
    /// Nodes of the base that are nowhere in the scope; folders before what they held.
    pub gone: Vec<NodeId>,
    /// What could not be looked at.
    pub problems: Vec<Problem>,
    /// Fifos, sockets and devices: left alone.
    pub special: Vec<RelPath>,
    /// Files and symlinks in the base.
    pub tracked: usize,
    /// How many of them are gone.
    pub missing: usize,
    /// A folder moved while names were listed, and was seen at two places: the look shows what never was.
    pub moving: bool,
}

/// Compares the folder with the base. Ids for new names are taken from `ids` in the order of [`Scan::found`]'s walk.
///
/// # Errors
/// [`FolderError::Replaced`] when the folder is not the one that was opened, before or after the look; failures to
/// list its top; [`FolderError::Unsettled`] while names move faster than they can be listed. Everything below the top
/// is a [`Problem`] instead.
pub fn scan(folder: &Folder, state: &State, scope: &Scope, ids: &mut IdSource) -> Result<Scan, FolderError> {
    folder.check()?;
    let mut own_ids = ids.clone();
    let settled = settle(|| {
        let disk = match scope {
            Scope::Full => walk::full(folder, state)?,
            Scope::Dirs(paths) => walk::scoped(folder, state, paths)?,
        };
        own_ids = ids.clone();
        Ok(matching::compare(state, &disk, &mut own_ids))
    })?;
    // Once more: an unmount in the middle of the look would show as everything gone.
    folder.check()?;
    let scan = settled.ok_or_else(|| FolderError::Unsettled { path: folder.shown() })?;
    *ids = own_ids;
    Ok(scan)
}

/// Looks until nothing moved meanwhile, and everything that is gone was gone in the look before, too. `None`: never.
pub(super) fn settle(
    mut look: impl FnMut() -> Result<Scan, FolderError>,
) -> Result<Option<Scan>, FolderError> {
    let mut last = look()?;
    if last.gone.is_empty() && !last.moving {
        return Ok(Some(last));
    }
    for _ in 1..LOOKS_MAX {
        let scan = look()?;
        let before: BTreeSet<_> = last.gone.iter().collect();
        if !scan.moving && scan.gone.iter().all(|id| before.contains(id)) {
            return Ok(Some(scan));
        }
        last = scan;
    }
    Ok(None)
}
