//! The file behind the client's state: an append-only log of batches.
//!
//! ```text
//! offset size  field
//! 0      8     magic "dbxstate"
//! 8      4     format version, u32 LE
//! 12     4     zero
//! 16     ...   records of model::record
//! ```
//! Payload of a record: one byte (1: the batch goes on in the next record, 0: it ends here), then updates, each as
//! u32 LE length and bincode. A batch counts only when its last record is whole. What can follow the last whole batch
//! after a crash is a part of one batch; it is cut. Anything else that does not parse is damage.

use super::fs::{Dir, File};
use super::state::Sent;
use super::{Cursor, FolderError, PRIVATE_FILE_MODE, STATE_VERSION, ShownPath, Stamp, State, Update, names};
use crate::model::codec::{self, CodecError};
use crate::model::record::{self, Parsed};
use crate::model::{DeviceId, NodeId, NodeState, Seq, StoreId};
use crate::tree::TreeNode;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::io::{self, Read, Write};
use std::path::PathBuf;

const MAGIC: &[u8; 8] = b"dbxstate";
/// Bytes before the first record.
const HEADER_BYTES: usize = 16;
/// A batch goes on in another record above this size, bytes; well below `record::RECORD_BYTES_MAX`.
const PAYLOAD_BYTES_TARGET: usize = 1024 * 1024;
/// The log is rewritten when it holds this many updates more than twice what is live.
const GARBAGE_UPDATES_MIN: usize = 8192;

const LAST: u8 = 0;
const MORE: u8 = 1;

/// An update as it is written. Variants are append-only: their order is the format.
#[derive(Serialize, Deserialize)]
enum Line {
    Put(NodeId, Seq, NodeState, Option<Stamp>),
    Remove(NodeId),
    Look(NodeId, Stamp),
    Cursor(Option<Cursor>),
    Account(Option<StoreId>, Option<String>, Option<DeviceId>),
    Intend(NodeId, Seq, NodeState, Stamp),
    Sent(NodeId, Option<NodeState>, Option<Stamp>),
    Unsent(NodeId),
    Head(Cursor),
    Boot([u8; 16]),
    Copied(bool),
}

impl From<&Update> for Line {
    fn from(update: &Update) -> Self {
        match update {
            Update::Put { id, node, stamp } => Self::Put(*id, node.version, node.state.clone(), *stamp),
            Update::Remove(id) => Self::Remove(*id),
            Update::Look(id, stamp) => Self::Look(*id, *stamp),
            Update::Cursor(cursor) => Self::Cursor(*cursor),
            Update::Account { store, share, device } => Self::Account(*store, share.clone(), *device),
            Update::Intend { id, node, stamp } => Self::Intend(*id, node.version, node.state.clone(), *stamp),
            Update::Sent { id, sent } => Self::Sent(*id, sent.state.clone(), sent.stamp),
            Update::Unsent(id) => Self::Unsent(*id),
            Update::Head(head) => Self::Head(*head),
            Update::Boot(boot) => Self::Boot(*boot),
            Update::Copied(copied) => Self::Copied(*copied),
        }
    }
}

impl From<Line> for Update {
    fn from(line: Line) -> Self {
        match line {
            Line::Put(id, version, state, stamp) => {
                Self::Put { id, node: TreeNode { version, state }, stamp }
            }
            Line::Remove(id) => Self::Remove(id),
            Line::Look(id, stamp) => Self::Look(id, stamp),
            Line::Cursor(cursor) => Self::Cursor(cursor),
            Line::Account(store, share, device) => Self::Account { store, share, device },
            Line::Intend(id, version, state, stamp) => {
                Self::Intend { id, node: TreeNode { version, state }, stamp }
            }
            Line::Sent(id, state, stamp) => Self::Sent { id, sent: Sent { state, stamp } },
            Line::Unsent(id) => Self::Unsent(id),
            Line::Head(head) => Self::Head(head),
            Line::Boot(boot) => Self::Boot(boot),
            Line::Copied(copied) => Self::Copied(copied),
        }
    }
}

/// Why a file is not a state.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A newer program wrote it.
    Newer(u32),
    /// It is not what was written.
    Damaged,
}

/// A state read back.
#[derive(Debug)]
pub struct Replayed {
    /// As of the last whole batch.
    pub state: State,
    /// Where that batch ends, bytes.
    pub whole_bytes: u64,
    /// Updates read, also those that later ones made void.
    pub updates: usize,
}

/// Reads a state from the bytes of its file. Pure.
pub fn replay(bytes: &[u8]) -> Result<Replayed, Unreadable> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(Unreadable::Damaged)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(Unreadable::Damaged)?;
    if magic != MAGIC {
        return Err(Unreadable::Damaged);
    }
    match u32::from_le_bytes(*version) {
        STATE_VERSION => {}
        newer if newer > STATE_VERSION => return Err(Unreadable::Newer(newer)),
        _ => return Err(Unreadable::Damaged),
    }
    if rest.first_chunk::<4>() != Some(&[0; 4]) {
        return Err(Unreadable::Damaged);
    }
    let (mut at, mut whole, mut count) = (HEADER_BYTES, HEADER_BYTES, 0);
    let mut state = State::in_memory();
    let mut batch = Vec::new();
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match record::parse(rest) {
            Parsed::End => break,
            // A crash can leave a file that ends early, that grew without its bytes, or the last record with some of
            // its pages only.
            Parsed::Torn if !holds_record(rest) => break,
            Parsed::Damaged if is_unfinished(rest) && !holds_record(rest) => break,
            Parsed::Torn | Parsed::Damaged => return Err(Unreadable::Damaged),
            Parsed::Record { payload, bytes } => {
                let more = read_payload(payload, &mut batch).ok_or(Unreadable::Damaged)?;
                at += bytes;
                if !more {
                    count += batch.len();
                    batch.drain(..).for_each(|update| state.apply(update));
                    whole = at;
                }
            }
        }
    }
    Ok(Replayed { state, whole_bytes: whole as u64, updates: count })
}

/// True for a record that does not check and after which nothing follows.
fn is_unfinished(rest: &[u8]) -> bool {
    let len = rest.first_chunk::<4>().map_or(0, |len| u32::from_le_bytes(*len));
    let ends_here = usize::try_from(len).is_ok_and(|len| record::HEADER_BYTES + len == rest.len());
    ends_here || rest.iter().all(|byte| *byte == 0)
}

/// True when a whole record stands anywhere behind the first byte: then what does not parse before it is no torn tail
/// but a damaged length, and cutting there would lose batches that were durable.
fn holds_record(rest: &[u8]) -> bool {
    (1..rest.len()).any(|at| {
        let rest = rest.get(at..).unwrap_or_default();
        // Most places are ruled out by the bytes every payload starts with, before a checksum is made.
        let looks_right = match rest.get(record::HEADER_BYTES) {
            Some(&(LAST | MORE)) => rest.first_chunk::<4>().is_some_and(|len| {
                let len = u32::from_le_bytes(*len);
                len > 0 && usize::try_from(len).is_ok_and(|len| len <= rest.len())
            }),
            _ => false,
        };
        looks_right && matches!(record::parse(rest), Parsed::Record { .. })
    })
}

fn read_payload(payload: &[u8], batch: &mut Vec<Update>) -> Option<bool> {
    let (flag, mut rest) = payload.split_first()?;
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (line, tail) = tail.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        batch.push(codec::decode::<Line>(line).ok()?.into());
        rest = tail;
    }
    match (*flag, rest.is_empty()) {
        (LAST, true) => Some(false),
        (MORE, true) => Some(true),
        _ => None,
    }
}

/// Appends the records of one batch to `out`, and says how many updates it has.
fn encode<U: Borrow<Update>>(
    batch: impl IntoIterator<Item = U>,
    out: &mut Vec<u8>,
) -> Result<usize, CodecError> {
    let mut updates = 0;
    let mut payload = vec![LAST];
    let close = |payload: &mut Vec<u8>, flag: u8, out: &mut Vec<u8>| {
        if let Some(first) = payload.first_mut() {
            *first = flag;
        }
        // Cannot be too large: a line is at most a few KiB above the target.
        let _ = record::append(out, payload);
        payload.truncate(1);
    };
    for update in batch {
        let line = codec::encode(&Line::from(update.borrow()))?;
        if payload.len() + line.len() > PAYLOAD_BYTES_TARGET {
            close(&mut payload, MORE, out);
        }
        payload.extend_from_slice(&u32::try_from(line.len()).unwrap_or(u32::MAX).to_le_bytes());
        payload.extend_from_slice(&line);
        updates += 1;
    }
    close(&mut payload, LAST, out);
    Ok(updates)
}

/// The open log.
#[derive(Debug)]
pub struct StateLog {
    private: Dir,
    path: PathBuf,
    file: File,
    bytes: u64,
    updates: usize,
    broken: bool,
}

impl StateLog {
    /// The whole file; `None` when there is none.
    pub fn read(private: &Dir) -> io::Result<Option<Vec<u8>>> {
        let Some((mut file, _)) = private.open_file(&names::own("state")?)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Makes an empty log. A file that is there is replaced.
    pub fn create(private: &Dir, path: PathBuf) -> io::Result<Self> {
        super::write_whole(private, "state", &header())?;
        Self::open(private, path, HEADER_BYTES as u64, 0)
    }

    /// Opens the log for appending after its first `bytes`; what follows them is cut.
    pub fn open(private: &Dir, path: PathBuf, bytes: u64, updates: usize) -> io::Result<Self> {
        let file = private.append_file(&names::own("state")?, PRIVATE_FILE_MODE)?;
        if super::fs::meta_of_file(&file)?.stamp.size != bytes {
            file.set_len(bytes)?;
            file.sync_data()?;
        }
        let private = private.open_below(&crate::model::RelPath::root())?;
        Ok(Self { private, path, file, bytes, updates, broken: false })
    }

    /// Appends one batch.
    pub fn append(&mut self, batch: &[Update], durable: bool) -> Result<(), FolderError> {
        if self.broken {
            return Err(FolderError::StateBroken { path: self.shown() });
        }
        let mut bytes = Vec::new();
        let updates = encode(batch, &mut bytes).map_err(|error| self.failed(io::Error::other(error)))?;
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a record would turn the next one into damage. If it cannot be cut off, nothing more is written.
            self.broken = self.file.set_len(self.bytes).is_err();
            return Err(self.failed(error));
        }
        if durable && let Err(error) = self.file.sync_data() {
            // After a failed sync the kernel may have dropped the pages: a second try would lie.
            self.broken = true;
            return Err(self.failed(error));
        }
        self.bytes += bytes.len() as u64;
        self.updates += updates;
        Ok(())
    }

    /// True when rewriting pays, although somebody waits for it.
    pub const fn is_mostly_garbage(&self, live: usize) -> bool {
        self.updates > 2 * live + GARBAGE_UPDATES_MIN
    }

    /// True when rewriting pays at rest: after a first sync, which says everything twice.
    pub const fn is_partly_garbage(&self, live: usize) -> bool {
        self.updates > live + live / 4 + GARBAGE_UPDATES_MIN
    }

    /// Replaces the log by one batch that says everything, durable before it takes the name. A failure before that is
    /// no error: the old log stands and grows on.
    pub fn rewrite(&mut self, everything: impl Iterator<Item = Update>) -> Result<(), FolderError> {
        let write = || -> io::Result<(File, u64, usize)> {
            let mut bytes = header();
            let updates = encode(everything, &mut bytes).map_err(io::Error::other)?;
            super::write_whole(&self.private, "state", &bytes)?;
            let file = self.private.append_file(&names::own("state")?, PRIVATE_FILE_MODE)?;
            Ok((file, bytes.len() as u64, updates))
        };
        match write() {
            Ok((file, bytes, updates)) => {
                (self.file, self.bytes, self.updates) = (file, bytes, updates);
                Ok(())
            }
            Err(error) if self.has_the_name() => {
                tracing::warn!(%error, "cannot compact the state; it grows on");
                self.updates = 0;
                Ok(())
            }
            Err(error) => {
                // The new file has the name, but not for certain after a power cut: which one to append to is open.
                self.broken = true;
                Err(self.failed(error))
            }
        }
    }

    /// True while the open file is the one that has the name.
    fn has_the_name(&self) -> bool {
        let ino = |meta: super::Meta| meta.stamp.ino;
        let named = names::own("state").and_then(|name| self.private.meta(&name)).map(ino).ok();
        named.is_some() && named == super::fs::meta_of_file(&self.file).map(ino).ok()
    }

    fn failed(&self, error: io::Error) -> FolderError {
        FolderError::from_io("write", self.path.as_path(), error)
    }

    fn shown(&self) -> ShownPath {
        self.path.as_path().into()
    }
}

fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&STATE_VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}
