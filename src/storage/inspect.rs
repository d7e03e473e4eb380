//! Reads packs as they are on disk and opens every block in them: what check and scrub share.

use super::error::{At, StorageError};
use super::pack_file::{self, FILE_HEADER, Location, Place, Step};
use super::upkeep::Upkeep;
use super::{Result, gc};
use crate::block::{SealedBlock, seal};
use crate::model::BlockHash;

/// Records opened at once at most, bytes.
pub const BATCH_BYTES: u64 = 1024 * 1024;

/// What stands in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A record whose bytes are those of its block, by the full hash.
    Good(BlockHash, Location),
    /// A record whose header is right and whose bytes are not.
    Bad(BlockHash, Location),
    /// Bytes that are no record.
    Gap {
        /// First of them.
        from: u64,
        /// First byte after them.
        to: u64,
    },
}

impl Upkeep {
    /// Opens the records of pack `number` from byte `from` on, up to the place `limit`, about `batch_bytes` at once, until
    /// `visit` says to stop.
    ///
    /// # Errors
    /// A file that cannot be read. Damage is none.
    pub fn inspect(
        &self,
        number: u32,
        from: u64,
        limit: Place,
        batch_bytes: u64,
        visit: &mut dyn FnMut(Seen) -> Result<bool>,
    ) -> Result<()> {
        let path = self.shared.packs.path(number);
        let opened = std::fs::File::open(&path).at("open", &path)?;
        let mut batch: Vec<(BlockHash, Location)> = Vec::new();
        let mut bytes = 0;
        let mut go_on = true;
        let from = from.max(u64::from(FILE_HEADER));
        pack_file::walk(&opened, &path, number, from, u64::MAX, &mut |step| {
            match step {
                // Beyond it somebody may be writing.
                Step::Block(_, location) if location.place >= limit => go_on = false,
                Step::Gap { from, .. } if limit.pack == number && from >= u64::from(limit.offset) => {
                    go_on = false;
                }
                Step::Block(hash, location) => {
                    bytes += gc::record_bytes(&location);
                    batch.push((hash, location));
                    if bytes >= batch_bytes {
                        bytes = 0;
                        go_on = self.open_all(&std::mem::take(&mut batch), visit)?;
                    }
                }
                Step::Gap { from, to } => {
                    go_on =
                        self.open_all(&std::mem::take(&mut batch), visit)? && visit(Seen::Gap { from, to })?;
                }
            }
            Ok(go_on)
        })?;
        self.open_all(&batch, visit).map(drop)
    }

    fn open_all(
        &self,
        batch: &[(BlockHash, Location)],
        visit: &mut dyn FnMut(Seen) -> Result<bool>,
    ) -> Result<bool> {
        let all = match self.shared.packs.read(batch) {
            Ok(blocks) => Some(blocks),
            Err(StorageError::DamagedBlock { .. }) => None,
            Err(error) => return Err(error),
        };
        for (at, (hash, location)) in batch.iter().enumerate() {
            let sealed = match &all {
                Some(blocks) => blocks.get(at).cloned(),
                // One of them is bad: which one?
                None => match self.shared.packs.read(&[(*hash, *location)]) {
                    Ok(mut one) => one.pop(),
                    Err(StorageError::DamagedBlock { .. }) => None,
                    Err(error) => return Err(error),
                },
            };
            let good = sealed.is_some_and(|sealed| opens_to(&sealed, hash));
            let seen = if good { Seen::Good(*hash, *location) } else { Seen::Bad(*hash, *location) };
            if !visit(seen)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn opens_to(sealed: &SealedBlock, hash: &BlockHash) -> bool {
    seal::open(sealed, None).is_ok_and(|block| block.hash() == *hash)
}
