//! Names inside `.dropblock/stage` and `.dropblock/trash`, and names for rescued files.
//!
//! A name carries all that recovery must know after a crash, so that no second file has to be kept in step with it:
//! ```text
//! stage/get-NODE-ROOT               half a download of the content ROOT for the node NODE
//! stage/put-NODE-ROOT-INO-BTIME     finished, about to be swapped in. It has this inode and birth time; when the file
//!                                   under this name has others, it is what came out of the folder
//! stage/park-NODE                   moved out of the way while names are exchanged
//! trash/NODE-INO-BTIME-SIZE-MTIME   came out; expected to have this inode, birth time, size and modification time
//! ```
//! NODE is 32 and ROOT 64 hex digits, the numbers are 16 hex digits each (two's complement), BTIME is `none`
//! where the filesystem has no birth times.

use super::meta::{Identity, Stamp};
use crate::model::limits::NAME_BYTES_MAX;
use crate::model::{BlockHash, Name, NodeId};
use std::io;

/// A name of our own making.
pub fn own(text: &str) -> io::Result<Name> {
    Name::new(text.as_bytes()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// What a name in `stage/` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StageName {
    /// Half a download.
    Get(NodeId, BlockHash),
    /// Finished, or what came out in its place.
    Put(NodeId, BlockHash, Identity),
    /// Parked.
    Park(NodeId),
}

impl StageName {
    /// As a name on disk.
    pub fn to_name(self) -> io::Result<Name> {
        own(&match self {
            Self::Get(id, root) => format!("get-{id}-{root}"),
            Self::Put(id, root, identity) => format!("put-{id}-{root}-{}", show_identity(identity)),
            Self::Park(id) => format!("park-{id}"),
        })
    }

    /// Reads a name; `None` when this program did not make it.
    pub fn parse(name: &Name) -> Option<Self> {
        let text = std::str::from_utf8(name.as_bytes()).ok()?;
        let mut parts = text.split('-');
        let (verb, id) = (parts.next()?, NodeId::from_hex(parts.next()?)?);
        let parsed = match verb {
            "get" => Self::Get(id, BlockHash::from_hex(parts.next()?)?),
            "put" => {
                let root = BlockHash::from_hex(parts.next()?)?;
                Self::Put(id, root, read_identity(parts.next()?, parts.next()?)?)
            }
            "park" => Self::Park(id),
            _ => return None,
        };
        parts.next().is_none().then_some(parsed)
    }
}

/// What a name in `trash/` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrashName {
    /// The node it was.
    pub id: NodeId,
    /// Inode and birth time it should have.
    pub identity: Identity,
    /// Bytes it should have.
    pub size: u64,
    /// Modification time it should have, ns.
    pub mtime_ns: i64,
}

impl TrashName {
    /// For a node that was last agreed with this stamp.
    pub const fn of(id: NodeId, stamp: &Stamp) -> Self {
        Self { id, identity: stamp.identity(), size: stamp.size, mtime_ns: stamp.mtime_ns }
    }

    /// As a name on disk.
    pub fn to_name(self) -> io::Result<Name> {
        let (id, identity) = (self.id, show_identity(self.identity));
        own(&format!("{id}-{identity}-{:016x}-{:016x}", self.size, self.mtime_ns))
    }

    /// Reads a name; `None` when this program did not make it.
    pub fn parse(name: &Name) -> Option<Self> {
        let text = std::str::from_utf8(name.as_bytes()).ok()?;
        let mut parts = text.split('-');
        let parsed = Self {
            id: NodeId::from_hex(parts.next()?)?,
            identity: read_identity(parts.next()?, parts.next()?)?,
            size: u64::from_str_radix(parts.next()?, 16).ok()?,
            mtime_ns: read_signed(parts.next()?)?,
        };
        parts.next().is_none().then_some(parsed)
    }

    /// True when a file is what the name says: the agreed version, unedited.
    pub fn fits(&self, stamp: &Stamp) -> bool {
        self.identity == stamp.identity() && self.size == stamp.size && self.mtime_ns == stamp.mtime_ns
    }
}

/// As it stands in names and in the version file.
pub(super) fn show_identity((ino, btime_ns): Identity) -> String {
    match btime_ns {
        Some(btime_ns) => format!("{ino:016x}-{btime_ns:016x}"),
        None => format!("{ino:016x}-none"),
    }
}

fn read_identity(ino: &str, btime: &str) -> Option<Identity> {
    let ino = u64::from_str_radix(ino, 16).ok()?;
    match btime {
        "none" => Some((ino, None)),
        digits => Some((ino, Some(read_signed(digits)?))),
    }
}

fn read_signed(digits: &str) -> Option<i64> {
    u64::from_str_radix(digits, 16).ok().map(u64::cast_signed)
}

/// A name beside `name` for a file that must not be lost: `report (recovered).txt`, then `report (recovered 2).txt`.
/// Shortened at the end of its stem, never inside a UTF-8 character, so that it fits.
pub fn rescue_name(name: &Name, attempt: u32) -> Name {
    let mark = match attempt {
        0 => " (recovered)".to_owned(),
        n => format!(" (recovered {})", n.saturating_add(1)),
    };
    let bytes = name.as_bytes();
    // An extension is short and not the whole name: `.bashrc` has none.
    let dot = bytes.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0 && bytes.len() - at <= 16);
    let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let room = NAME_BYTES_MAX.saturating_sub(mark.len() + extension.len());
    let mut new = shorten(stem, room).to_vec();
    new.extend_from_slice(mark.as_bytes());
    new.extend_from_slice(extension);
    Name::new(&new).unwrap_or_else(|_| name.clone())
}

/// At most `room` bytes from the front, not cutting a UTF-8 character in two.
fn shorten(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let mut end = room;
    while end > room.saturating_sub(4) && stem.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    stem.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::IdSource;

    #[test]
    fn stage_and_trash_names_round_trip_and_others_are_refused() {
        let id = IdSource::new([3; 32]).node();
        let root = BlockHash::of(b"x");
        for name in [
            StageName::Get(id, root),
            StageName::Put(id, root, (7, Some(-5))),
            StageName::Put(id, root, (u64::MAX, None)),
            StageName::Park(id),
        ] {
            assert_eq!(StageName::parse(&name.to_name().unwrap()), Some(name));
        }
        let trash = TrashName { id, identity: (1, Some(2)), size: 3, mtime_ns: -4 };
        assert_eq!(TrashName::parse(&trash.to_name().unwrap()), Some(trash));
        for text in ["get-", "park-00", "put", "x", &format!("park-{id}-"), &format!("get-{id}")] {
            assert_eq!(StageName::parse(&own(text).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn rescue_names_keep_the_extension_and_fit_in_255_bytes() {
        let name = |bytes: &[u8]| Name::new(bytes).unwrap();
        assert_eq!(rescue_name(&name(b"a.txt"), 0), name(b"a (recovered).txt"));
        assert_eq!(rescue_name(&name(b".bashrc"), 1), name(b".bashrc (recovered 2)"));
        let long = rescue_name(&name("é".repeat(127).as_bytes()), 0);
        assert!(long.as_bytes().len() <= 255 && std::str::from_utf8(long.as_bytes()).is_ok());
        assert_ne!(rescue_name(&name(&[0xff; 255]), 0), name(&[0xff; 255]));
    }
}
