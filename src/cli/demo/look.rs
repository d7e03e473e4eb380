//! What a folder holds, and whether two hold the same. Looks at the disk only, and knows nothing of how it was synced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The client's own files, at the top.
const PRIVATE: &str = ".dropblock";
/// Bytes compared at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Everything below a folder, by path.
pub type Snapshot = BTreeMap<PathBuf, Entry>;

/// One thing in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder. Its time is not synced.
    Folder,
    /// A file: bytes, time of change in ns, executable.
    File { size: u64, mtime_ns: i128, exec: bool },
    /// A symbolic link and what it says.
    Link(PathBuf),
}

/// Looks at everything below `root` except the client's own files. What vanishes meanwhile is left out.
pub fn snapshot(root: &Path) -> io::Result<Snapshot> {
    let mut found = Snapshot::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let Some(entries) = if_there(fs::read_dir(root.join(&folder)))? else { continue };
        for entry in entries {
            let path = folder.join(entry?.file_name());
            if path.as_os_str() == PRIVATE {
                continue;
            }
            let Some(meta) = if_there(fs::symlink_metadata(root.join(&path)))? else { continue };
            let seen = if meta.is_dir() {
                folders.push(path.clone());
                Entry::Folder
            } else if meta.is_symlink() {
                let Some(text) = if_there(fs::read_link(root.join(&path)))? else { continue };
                Entry::Link(text)
            } else {
                let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
                Entry::File { size: meta.len(), mtime_ns, exec: meta.mode() & 0o100 != 0 }
            };
            found.insert(path, seen);
        }
    }
    Ok(found)
}

/// The first path of `names` whose content differs between two folders, byte by byte.
pub fn first_difference(left: &Path, right: &Path, names: &Snapshot) -> io::Result<Option<PathBuf>> {
    for (path, entry) in names {
        if matches!(entry, Entry::File { .. }) && !same_bytes(&left.join(path), &right.join(path))? {
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}

fn same_bytes(left: &Path, right: &Path) -> io::Result<bool> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    let (mut here, mut there) = (Vec::with_capacity(BUFFER_BYTES), Vec::with_capacity(BUFFER_BYTES));
    loop {
        read_up_to(&mut left, &mut here)?;
        read_up_to(&mut right, &mut there)?;
        if here != there {
            return Ok(false);
        }
        if here.is_empty() {
            return Ok(true);
        }
    }
}

/// The next bytes of a file; fewer than a buffer only at its end.
fn read_up_to(file: &mut File, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    file.take(BUFFER_BYTES as u64).read_to_end(buffer)?;
    Ok(())
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
