//! Blocks that come with a push, opened with what is here: the old versions of the files that the push changes, other files
//! of one block, and blocks of pushes before it.
//!
//! What does not open is left out, and asked for like any other block.

use super::Client;
use super::download::read_whole;
use super::reusable::{Reusable, open_with};
use crate::block::{Block, SealedBlock};
use crate::model::{BlockHash, FileContent, Node, NodeId, RelPath};
use crate::tree::Overlay;
use bytes::Bytes;
use std::collections::HashMap;

/// Old versions of large files that are opened for one push.
const FILES_MAX: usize = 16;

/// Opens the blocks of a push that changes `nodes`.
pub fn open(
    client: &Client,
    inline: &HashMap<BlockHash, Bytes>,
    nodes: &[Node],
    blocks: &[SealedBlock],
) -> Vec<Block> {
    if !blocks.iter().any(|block| block.bases().is_ok_and(|bases| !bases.is_empty())) {
        return blocks.iter().filter_map(|sealed| open_with(sealed, &|_| None)).collect();
    }
    let disk = client.cycle.disk(&client.state.base);
    let here = Here { client, disk };
    let large = |node: &Node| here.place_of(node.id).filter(|(_, old)| old.root.level > 0);
    let sources: Vec<_> = nodes.iter().filter_map(large).take(FILES_MAX).collect();
    let reusable = Reusable::open(&client.folder, &sources);
    let mut opened: HashMap<BlockHash, Bytes> = HashMap::new();
    let mut list = Vec::with_capacity(blocks.len());
    for sealed in blocks {
        let held = |hash: &BlockHash| {
            let before = inline.get(hash).or_else(|| opened.get(hash)).cloned();
            before.or_else(|| reusable.bytes_of(hash)).or_else(|| here.whole(hash))
        };
        if let Some(block) = open_with(sealed, &held) {
            opened.insert(block.hash(), block.bytes().clone());
            list.push(block);
        }
    }
    list
}

/// The folder as it is agreed.
struct Here<'a> {
    client: &'a Client,
    disk: Overlay<'a>,
}

impl Here<'_> {
    /// The bytes of a file of one block, from wherever it is here.
    fn whole(&self, hash: &BlockHash) -> Option<Bytes> {
        let id = *self.client.roots.get(&super::root_key(hash))?;
        let place =
            self.place_of(id).filter(|(_, content)| content.root.level == 0 && content.root.hash == *hash)?;
        read_whole(&self.client.folder, &place)
    }

    /// Where the agreed content of a node is on disk.
    fn place_of(&self, id: NodeId) -> Option<(RelPath, FileContent)> {
        let content = self.client.state.base.get(id)?.state.kind.content()?.clone();
        Some((self.disk.path_of(id)?, content))
    }
}
