//! Small texts in the private part of a folder that is not open for syncing: the device's key, the pinned server. Each is
//! there whole or not at all, and readable by its owner only.

use super::names::own;
use super::{Disk, FolderError, ShownPath, find_or_make, is_absent, open_private, write_whole};
use crate::folder::fs::Dir;
use crate::model::path::PRIVATE_DIR;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Longest text, bytes.
const TEXT_BYTES_MAX: u64 = 4096;

/// The private part of a folder.
#[derive(Debug)]
pub struct Private {
    path: PathBuf,
    dir: Dir,
}

impl Private {
    /// Finds it; with `create` it is made, and the folder too when only the last part of its path is absent.
    ///
    /// # Errors
    /// [`FolderError::NotSynced`] without one, and failures of the disk.
    pub fn open(folder: &Path, create: bool) -> Result<Self, FolderError> {
        let disk = Disk::Kernel;
        let folder = find_or_make(&disk, folder, create)?;
        let failed = |error| FolderError::from_io("open", folder.as_path(), error);
        let root = disk.open_root(&folder).map_err(failed)?;
        let path = folder.join(PRIVATE_DIR);
        if create {
            return Ok(Self { path, dir: open_private(&folder, &root)?.0 });
        }
        match root.open_child(&own(PRIVATE_DIR).map_err(failed)?) {
            Err(error) if is_absent(&error) => {
                Err(FolderError::NotSynced { path: ShownPath::from(folder.as_path()) })
            }
            other => Ok(Self { path, dir: other.map_err(failed)? }),
        }
    }

    /// A text; `None` when there is none of that name.
    ///
    /// # Errors
    /// Failures of the disk, and what is no text.
    pub fn read(&self, name: &str) -> Result<Option<String>, FolderError> {
        let read = || -> io::Result<Option<String>> {
            let Some((file, _)) = self.dir.open_file(&own(name)?)? else { return Ok(None) };
            let mut text = String::new();
            file.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
            Ok(Some(text))
        };
        match read() {
            Err(error) if is_absent(&error) => Ok(None),
            other => other.map_err(|error| self.failed("read", name, error)),
        }
    }

    /// Writes a text; durable when it returns.
    ///
    /// # Errors
    /// Failures of the disk.
    pub fn write(&self, name: &str, text: &str) -> Result<(), FolderError> {
        write_whole(&self.dir, name, text.as_bytes()).map_err(|error| self.failed("write", name, error))
    }

    /// Removes a text, if it is there.
    ///
    /// # Errors
    /// Failures of the disk.
    pub fn remove(&self, name: &str) -> Result<(), FolderError> {
        match own(name).and_then(|name| self.dir.unlink(&name)) {
            Err(error) if !is_absent(&error) => Err(self.failed("remove", name, error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, action: &'static str, name: &str, error: io::Error) -> FolderError {
        FolderError::from_io(action, self.path.join(name).as_path(), error)
    }
}
