//! Where a new file of this folder may come from: a file that looks like its origin by name or size, or a large one that
//! begins with the same chunk. The server holds that one's blocks, so they are not sent, and the rest is said with them.

use super::known;
use super::read::Job;
use super::session::Session;
use super::similar::{self, New};
use crate::chunk::{V1, chunk_lengths};
use crate::folder::Folder;
use crate::folder::scan::Found;
use crate::model::{BlockHash, FileContent, NodeId, RelPath, limits};
use std::collections::HashMap;

/// Folders above a new file that tell where it may come from.
pub(super) const ABOVE_MAX: usize = 8;
/// A file of this size is compared with others by its first chunk, bytes: also a copy that is still being written.
const LARGE_BYTES_MIN: u64 = 1024 * 1024;
/// With more large files than this, only names and sizes are compared: their lists take a look each.
const LISTS_MAX: usize = 4096;

impl Session<'_> {
    /// Adds to jobs without an earlier version what their files may be like.
    pub(super) fn add_origins(&self, files: &HashMap<NodeId, Found>, jobs: &mut [Job]) {
        let client = &*self.client;
        let is_new = |job: &Job| job.bases.is_empty() && !client.reupload.contains(&job.id);
        let new: Vec<New> = jobs
            .iter()
            .filter(|job| is_new(job))
            .filter_map(|job| {
                let found = files.get(&job.id)?;
                let (above, _) = job.path.split_last()?;
                let above = above.names().iter().rev().take(ABOVE_MAX).cloned().collect();
                let (parent, name) = (found.parent, found.name.clone());
                Some(New { id: job.id, parent, name, above, size: found.entry.stamp().size })
            })
            .collect();
        if new.is_empty() {
            return;
        }
        let mut guesses = similar::guess(&client.state.base, &new);
        let large: Vec<NodeId> =
            new.iter().filter(|new| new.size >= LARGE_BYTES_MIN).map(|new| new.id).collect();
        let firsts = if large.is_empty() { HashMap::new() } else { self.first_chunks() };
        for job in jobs.iter_mut().filter(|job| is_new(job)) {
            let guessed = guesses.remove(&job.id).unwrap_or_default();
            job.bases.extend(guessed.into_iter().map(|(_, content)| content));
            if large.contains(&job.id)
                && let Some(first) = first_chunk(&client.folder, &job.path)
                && let Some(content) = firsts.get(&first)
            {
                job.bases.retain(|base| base != content);
                job.bases.insert(0, content.clone());
            }
        }
    }

    /// The agreed large files by their first chunk.
    fn first_chunks(&self) -> HashMap<BlockHash, FileContent> {
        let client = &*self.client;
        let contents = client.state.base.iter().filter_map(|(_, node)| node.state.kind.content());
        let mut large: Vec<&FileContent> =
            contents.filter(|content| content.root.level > 0).take(LISTS_MAX + 1).collect();
        if large.len() > LISTS_MAX {
            return HashMap::new();
        }
        // Of two that begin alike always the same.
        large.sort_unstable_by_key(|content| content.root.hash);
        let first =
            |content: &FileContent| Some((known::first_of(&client.folder, content)?, content.clone()));
        client.folder.work().here(|| large.into_iter().filter_map(first).collect())
    }
}

/// The first chunk of a file that is longer than a chunk.
fn first_chunk(folder: &Folder, path: &RelPath) -> Option<BlockHash> {
    let (file, _) = folder.open_file(path).ok()??;
    let mut bytes = vec![0; limits::BLOCK_BYTES_MAX];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let len = chunk_lengths(&bytes, &V1).into_iter().next()?;
    Some(BlockHash::of(bytes.get(..len)?))
}
