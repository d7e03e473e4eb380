//! Pictures of folders: everything that must be the same on both sides, and readable differences.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Contents up to this size are kept in the picture, bytes.
const KEPT_BYTES_MAX: u64 = 4096;

/// One entry of a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A folder; its own times and mode do not count.
    Folder,
    /// A regular file.
    File {
        /// BLAKE3 of the bytes.
        hash: blake3::Hash,
        /// Bytes.
        size: u64,
        /// The bytes of a small file.
        content: Option<Vec<u8>>,
        /// The owner may execute it.
        exec: bool,
        /// ns since 1970.
        mtime_ns: i128,
    },
    /// A symbolic link.
    Symlink {
        /// The link's text.
        target: Vec<u8>,
        /// ns since 1970, of the link itself.
        mtime_ns: i128,
    },
    /// A socket, fifo or device.
    Special,
}

/// All entries below a folder except its private `.dropblock`, by path.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree(pub BTreeMap<Vec<u8>, Item>);

impl Tree {
    /// Takes the picture. Entries that vanish while it is taken are left out.
    pub fn of(top: &Path) -> Self {
        let mut items = BTreeMap::new();
        walk(top, &mut Vec::new(), &mut items)
            .unwrap_or_else(|e| panic!("cannot read {}: {e}", top.display()));
        Self(items)
    }

    /// The paths, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().map(|path| show(path)).collect()
    }

    /// True when something stands at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path.as_bytes())
    }

    /// The small files' contents, sorted, one per file.
    pub fn contents(&self) -> Vec<String> {
        let mut all: Vec<String> = self.0.values().filter_map(Item::content).map(show).collect();
        all.sort();
        all
    }

    /// The content of the small file at `path`.
    pub fn content(&self, path: &str) -> Option<String> {
        self.0.get(path.as_bytes()).and_then(Item::content).map(show)
    }

    /// The paths of conflict copies.
    pub fn copies(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.contains("(conflict from ")).collect()
    }

    /// One line per difference; `None` when equal.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self == other {
            return None;
        }
        let mut out = String::new();
        let paths: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let mut lines = 0_u32;
        for path in paths {
            let (left, right) = (self.0.get(path), other.0.get(path));
            if left == right {
                continue;
            }
            lines += 1;
            if lines > 20 {
                out.push_str("  ...\n");
                break;
            }
            let _ = match (left, right) {
                (Some(l), None) => writeln!(out, "  only left   {}: {}", show(path), l.summary()),
                (None, Some(r)) => writeln!(out, "  only right  {}: {}", show(path), r.summary()),
                (Some(l), Some(r)) => {
                    writeln!(out, "  differs     {}: {}  |  {}", show(path), l.summary(), r.summary())
                }
                (None, None) => Ok(()),
            };
        }
        Some(out)
    }
}

impl Item {
    fn content(&self) -> Option<&[u8]> {
        match self {
            Self::File { content, .. } => content.as_deref(),
            _ => None,
        }
    }

    fn summary(&self) -> String {
        match self {
            Self::Folder => "folder".to_owned(),
            Self::Special => "special".to_owned(),
            Self::Symlink { target, mtime_ns } => format!("-> {} @{mtime_ns}", show(target)),
            Self::File { hash, size, content, exec, mtime_ns } => {
                let text = content
                    .as_deref()
                    .map_or_else(String::new, |c| format!(" {:?}", show(&c[..c.len().min(40)])));
                let bit = if *exec { " x" } else { "" };
                format!("{size} B {}{text}{bit} @{mtime_ns}", &hash.to_hex()[..8])
            }
        }
    }
}

/// A path or content as a person can read it.
pub fn show(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

fn walk(dir: &Path, prefix: &mut Vec<u8>, items: &mut BTreeMap<Vec<u8>, Item>) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if is_absent(&e) && !prefix.is_empty() => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let name = entry?.file_name().into_vec();
        if prefix.is_empty() && name == b".dropblock" {
            continue;
        }
        let path = dir.join(std::ffi::OsStr::from_bytes(&name));
        let before = prefix.len();
        if before > 0 {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(&name);
        match look(&path) {
            Ok(item) => {
                let is_folder = item == Item::Folder;
                items.insert(prefix.clone(), item);
                if is_folder {
                    walk(&path, prefix, items)?;
                }
            }
            Err(e) if is_absent(&e) => {}
            Err(e) => return Err(e),
        }
        prefix.truncate(before);
    }
    Ok(())
}

/// It vanished, or became something else, since it was listed.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory | InvalidInput)
}

/// One entry, links not followed.
pub fn look(path: &Path) -> io::Result<Item> {
    let stat = std::fs::symlink_metadata(path)?;
    let mtime_ns = i128::from(stat.mtime()) * 1_000_000_000 + i128::from(stat.mtime_nsec());
    if stat.is_dir() {
        return Ok(Item::Folder);
    }
    if stat.is_symlink() {
        let target = std::fs::read_link(path)?.into_os_string().into_vec();
        return Ok(Item::Symlink { target, mtime_ns });
    }
    if !stat.is_file() {
        return Ok(Item::Special);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(path)?)?;
    let content = if stat.len() <= KEPT_BYTES_MAX { Some(std::fs::read(path)?) } else { None };
    let exec = stat.mode() & 0o100 != 0;
    Ok(Item::File { hash: hasher.finalize(), size: stat.len(), content, exec, mtime_ns })
}
