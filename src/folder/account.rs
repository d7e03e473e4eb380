//! Whose folder it is, read without the lock: for commands that ask the server while a sync runs.

use super::state_log::{self, StateLog, Unreadable};
use super::{
    Disk, Folder, FolderError, STATE_VERSION, ShownPath, find_or_make, is_absent, names, write_whole,
};
use crate::model::path::PRIVATE_DIR;
use crate::model::{DeviceId, StoreId, limits};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The share's name, beside the state: without a state it says where the folder joins again.
const SHARE_FILE: &str = "share";

/// Which share of which store a folder belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The folder: absolute, without symlinks.
    pub folder: PathBuf,
    /// The share's name.
    pub share: String,
    /// The store, once one was met.
    pub store: Option<StoreId>,
    /// The client.
    pub device: Option<DeviceId>,
}

impl Account {
    /// Reads it; nothing is changed, and a running sync is not disturbed.
    ///
    /// # Errors
    /// [`FolderError::NotSynced`] for a folder that was never synced, or whose state cannot be read.
    pub fn read(path: &Path) -> Result<Self, FolderError> {
        let disk = Disk::Kernel;
        let folder = find_or_make(&disk, path, false)?;
        let not_synced = || FolderError::NotSynced { path: ShownPath::from(folder.as_path()) };
        let shown = folder.join(PRIVATE_DIR).join("state");
        let failed = |error| FolderError::from_io("read", shown.as_path(), error);
        let private = disk.open_root(&folder).and_then(|root| root.open_child(&names::own(PRIVATE_DIR)?));
        let private = match private {
            Err(error) if is_absent(&error) => return Err(not_synced()),
            other => other.map_err(failed)?,
        };
        let bytes = StateLog::read(&private).map_err(failed)?.ok_or_else(not_synced)?;
        let state = match state_log::replay(&bytes) {
            Ok(replayed) => replayed.state,
            Err(Unreadable::Newer(found)) => {
                let path = shown.as_path().into();
                return Err(FolderError::NewerVersion { path, found, known: STATE_VERSION });
            }
            Err(Unreadable::Damaged) => return Err(not_synced()),
        };
        let share = state.share.ok_or_else(not_synced)?;
        Ok(Self { folder, share, store: state.store, device: state.device })
    }
}

impl Folder {
    /// The share as it was noted, for a folder whose state is lost. What cannot be read was not noted.
    pub fn noted_share(&self) -> Option<String> {
        let read = || -> io::Result<Option<String>> {
            let Some((file, _)) = self.private.open_file(&names::own(SHARE_FILE)?)? else { return Ok(None) };
            let mut text = String::new();
            file.take(limits::SHARE_NAME_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
            let is_name =
                |share: &&str| !share.is_empty() && !share.chars().any(|c| c.is_control() || c == '/');
            Ok(text.strip_suffix('\n').filter(is_name).map(str::to_owned))
        };
        read().unwrap_or_default()
    }

    /// Notes the share. A folder with its state can do without, so no failure matters.
    pub fn note_share(&self, share: &str) {
        if self.noted_share().as_deref() == Some(share) {
            return;
        }
        if let Err(error) = write_whole(&self.private, SHARE_FILE, format!("{share}\n").as_bytes()) {
            tracing::debug!(%error, "the share was not noted");
        }
    }
}
