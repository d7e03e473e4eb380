//! Cache of the chunk lists of large files, so that an edit is compared with what was there without asking the server.
//!
//! A cache only: what is absent or damaged is `None`, and nothing here is synced to disk.
//!
//! ```text
//! manifests/ROOT (64 hex digits)
//! offset size  field
//! 0      8     magic "dbxchnks"
//! 8      8     first 8 bytes of BLAKE3(root || payload)
//! 16     ...   payload, opaque here
//! ```

use super::names::own;
use super::{Folder, FolderError, PRIVATE_FILE_MODE};
use crate::model::BlockHash;
use crate::model::hash::checksum8;
use std::collections::HashSet;
use std::io::{self, Read, Write};

const MAGIC: &[u8; 8] = b"dbxchnks";
/// Before the payload.
const HEADER_BYTES: u64 = 16;
/// Larger files are not read: 2 GiB of payload list the chunks of more than 3 TiB.
const PAYLOAD_BYTES_MAX: u64 = 2 << 30;

impl Folder {
    /// Keeps a payload under a content root.
    pub fn save_manifest(&self, root: &BlockHash, payload: &[u8]) -> Result<(), FolderError> {
        let write = || -> io::Result<()> {
            let (temp, name) = (own(&format!("{root}.new"))?, own(&root.to_hex())?);
            let _ = self.manifests.unlink(&temp);
            let mut file = self.manifests.create_file(&temp, PRIVATE_FILE_MODE)?;
            file.write_all(MAGIC)?;
            file.write_all(&checksum8(&[root.as_bytes(), payload]))?;
            file.write_all(payload)?;
            self.manifests.rename_over(&temp, &self.manifests, &name)
        };
        write().map_err(self.failed_private("write a manifest in"))
    }

    /// What was kept; `None` when there is nothing or it is damaged.
    pub fn load_manifest(&self, root: &BlockHash) -> Option<Vec<u8>> {
        let (file, meta) = self.manifests.open_file(&own(&root.to_hex()).ok()?).ok()??;
        if meta.stamp.size > PAYLOAD_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(PAYLOAD_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (sum, payload) = rest.split_first_chunk::<8>()?;
        if magic != MAGIC || *sum != checksum8(&[root.as_bytes(), payload]) {
            return None;
        }
        Some(payload.to_vec())
    }

    /// The first 32 bytes of what was kept, unchecked.
    pub fn first_of_manifest(&self, root: &BlockHash) -> Option<[u8; 32]> {
        let (file, _) = self.manifests.open_file(&own(&root.to_hex()).ok()?).ok()??;
        let mut first = [0; 32];
        file.read_exact_at(&mut first, HEADER_BYTES).ok()?;
        Some(first)
    }

    /// Removes what is kept for other roots than these, and leftovers. Returns how many files.
    pub fn prune_manifests(&self, keep: &HashSet<BlockHash>) -> Result<usize, FolderError> {
        let prune = || -> io::Result<usize> {
            let mut removed = 0;
            for listed in self.manifests.list()? {
                let root = std::str::from_utf8(listed.name.as_bytes()).ok().and_then(BlockHash::from_hex);
                if root.is_none_or(|root| !keep.contains(&root)) {
                    self.manifests.unlink(&listed.name)?;
                    removed += 1;
                }
            }
            Ok(removed)
        };
        prune().map_err(self.failed_private("clear the manifests in"))
    }
}
