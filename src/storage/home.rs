//! The folder of a store: what makes a folder one, its version and id, and who may open it.

use super::error::{At, StorageError};
use super::{Result, file};
use crate::model::StoreId;
use std::path::{Path, PathBuf};

/// Version of the store as a whole, in `store.toml`.
pub const FORMAT: u32 = 1;

const STORE_FILE: &str = "store.toml";
const LOCK_FILE: &str = "lock";
/// What a checkout keeps in the folder; neither is the store's.
const FOREIGN: [&str; 2] = ["README.md", ".gitignore"];
/// What a creation that was interrupted may leave. None of it holds anything before `store.toml` exists.
const BEGUN: [&str; 5] = [LOCK_FILE, "store.toml.tmp", "journal", "packs", "db"];

/// An open, locked store folder.
#[derive(Debug)]
pub struct Home {
    /// `STORE`.
    pub path: PathBuf,
    /// From `store.toml`.
    pub id: StoreId,
    /// Held as long as the store is open.
    _lock: file::Lock,
}

impl Home {
    /// Opens the store in `path`, or makes it when the folder is missing or as good as empty. `fresh_id` becomes the id
    /// of a new store.
    pub fn open(path: &Path, fresh_id: impl FnOnce() -> Result<StoreId>) -> Result<Self> {
        if !path.join(STORE_FILE).exists() && !may_become_a_store(path)? {
            return Err(StorageError::NotAStore(path.to_owned()));
        }
        file::make_dir(path).at("make", path)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = file::open_or_create(&lock_path).at("open", &lock_path)?;
        let Some(lock) = file::Lock::try_take(lock).at("lock", &lock_path)? else {
            return Err(StorageError::Locked(path.to_owned()));
        };
        for name in ["journal", "packs"] {
            let folder = path.join(name);
            file::make_dir(&folder).at("make", &folder)?;
        }
        let store_file = path.join(STORE_FILE);
        let id = if store_file.exists() {
            read(&store_file)?
        } else {
            let id = fresh_id()?;
            file::write_whole(path, STORE_FILE, text(id).as_bytes()).at("write", &store_file)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                file::sync_dir(parent).at("sync", parent)?;
            }
            id
        };
        Ok(Self { path: path.to_owned(), id, _lock: lock })
    }

    /// `STORE/packs`.
    pub fn packs(&self) -> PathBuf {
        self.path.join("packs")
    }

    /// `STORE/journal`.
    pub fn journals(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// `STORE/db`.
    pub fn index(&self) -> PathBuf {
        self.path.join("db")
    }
}

fn may_become_a_store(path: &Path) -> Result<bool> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(StorageError::io("list", path, error)),
    };
    for entry in entries {
        let entry = entry.at("list", path)?;
        let name = entry.file_name();
        if FOREIGN.iter().any(|known| name == *known) {
            continue;
        }
        let inside = entry.path();
        let is_empty = |folder: &Path| std::fs::read_dir(folder).map(|mut entries| entries.next().is_none());
        let begun = BEGUN.iter().any(|known| name == *known)
            && (!inside.is_dir() || is_empty(&inside).at("list", &inside)?);
        if !begun {
            // Unless another process has made it one meanwhile.
            return Ok(path.join(STORE_FILE).exists());
        }
    }
    Ok(true)
}

fn text(id: StoreId) -> String {
    format!(
        "# A dropblock store. docs/FORMAT.md describes every file.\nformat = \"{FORMAT}\"\nstore = \"{id}\"\n"
    )
}

fn read(path: &Path) -> Result<StoreId> {
    parse(&std::fs::read_to_string(path).at("read", path)?, path)
}

/// The text of the file at `path`.
pub(super) fn parse(text: &str, path: &Path) -> Result<StoreId> {
    let damaged = || StorageError::Damaged { path: path.to_owned(), offset: 0 };
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
            (name.trim() == key).then_some(value)
        })
    };
    let found: u32 = value("format").and_then(|v| v.parse().ok()).ok_or_else(damaged)?;
    if found > FORMAT {
        return Err(StorageError::NewerVersion { path: path.to_owned(), found, known: FORMAT });
    }
    if found == 0 {
        return Err(damaged());
    }
    value("store").and_then(StoreId::from_hex).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<Home> {
        Home::open(path, || Ok(StoreId::from_bytes([7; 16])))
    }

    #[test]
    fn a_store_is_made_in_a_missing_folder_and_beside_readme_and_gitignore() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(&folder.path().join("new")).unwrap());
        let checkout = folder.path().join("store");
        std::fs::create_dir(&checkout).unwrap();
        std::fs::write(checkout.join("README.md"), "x").unwrap();
        std::fs::write(checkout.join(".gitignore"), "*").unwrap();
        drop(open(&checkout).unwrap());
        assert_eq!(open(&checkout).unwrap().id, StoreId::from_bytes([7; 16]));
    }

    #[test]
    fn a_folder_with_other_things_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.txt"), "x").unwrap();
        assert!(matches!(open(folder.path()), Err(StorageError::NotAStore(_))));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_creation_that_was_interrupted_goes_on_but_lost_store_toml_is_not_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("packs")).unwrap();
        std::fs::write(folder.path().join("store.toml.tmp"), "for").unwrap();
        drop(open(folder.path()).unwrap());
        std::fs::remove_file(folder.path().join("store.toml")).unwrap();
        std::fs::write(folder.path().join("packs/00000001.pack"), "x").unwrap();
        assert!(matches!(open(folder.path()), Err(StorageError::NotAStore(_))));
    }

    #[test]
    fn a_second_opener_and_a_newer_version_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        assert!(matches!(open(folder.path()), Err(StorageError::Locked(_))));
        drop(first);
        std::fs::write(folder.path().join("store.toml"), "format = \"2\"\nstore = \"00\"\n").unwrap();
        assert!(matches!(open(folder.path()), Err(StorageError::NewerVersion { found: 2, .. })));
        std::fs::write(folder.path().join("store.toml"), "format = \"1\"\n").unwrap();
        assert!(matches!(open(folder.path()), Err(StorageError::Damaged { .. })));
    }
}
