//! Reading an edited file against what was kept of the old one.

use super::super::sketching::Sketching;
use super::*;
use crate::block::seal;
use crate::chunk::{V1, chunk_lengths};
use crate::model::hash::expand;
use bytes::Bytes;

struct World {
    _temp: tempfile::TempDir,
    folder: Folder,
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(temp.path(), true).unwrap();
        Self { _temp: temp, folder }
    }

    /// Keeps of a file what a client keeps.
    fn keep(&self, bytes: &[u8]) -> FileContent {
        let mut builder = Builder::new(V1.id());
        let mut sketching = Sketching::new(&self.folder, bytes.len() as u64);
        let (mut list, mut at) = (Vec::new(), 0);
        for len in chunk_lengths(bytes, &V1) {
            let chunk = &bytes[at..at + len];
            sketching.push(at as u64, chunk);
            builder.push(BlockHash::of(chunk), len as u64).unwrap();
            list.push((BlockHash::of(chunk), len as u64));
            at += len;
        }
        let content = builder.finish().unwrap().0;
        sketching.finish(&content);
        known::remember(&self.folder, &content, &list);
        content
    }

    /// What a new version costs: payload bytes of patches, blocks without one.
    fn cost(&self, old: &[u8], new: &[u8]) -> (usize, usize) {
        let content = self.keep(old);
        let mut basis = Basis::open(&self.folder, &[content]);
        let chunks: HashMap<BlockHash, &[u8]> = {
            let mut at = 0;
            let cut = |len: usize| {
                at += len;
                (BlockHash::of(&old[at - len..at]), &old[at - len..at])
            };
            chunk_lengths(old, &V1).into_iter().map(cut).collect()
        };
        let (mut bytes, mut plain, mut at) = (0, 0, 0);
        let mut say = |(block, sealed): (Block, Option<SealedBlock>)| match sealed {
            Some(sealed) => {
                bytes += sealed.payload.len();
                let bases: Vec<&[u8]> = sealed.bases().unwrap().iter().map(|hash| chunks[hash]).collect();
                assert_eq!(seal::open(&sealed, Some(&bases.concat())).unwrap(), block);
            }
            None => plain += 1,
        };
        for len in chunk_lengths(new, &V1) {
            let block = Block::new(Bytes::copy_from_slice(&new[at..at + len]));
            if basis.knows_chunk(at as u64, &block.hash()) {
                basis.say(true).into_iter().for_each(&mut say);
            } else {
                basis.wait(at as u64, block);
                if basis.is_full() {
                    basis.say(false).into_iter().for_each(&mut say);
                }
            }
            at += len;
        }
        basis.say(false).into_iter().for_each(&mut say);
        (bytes, plain)
    }
}

fn random(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    expand(&[seed; 32], 0, &mut bytes);
    bytes
}

#[test]
fn an_edit_of_a_file_of_one_block_is_a_patch() {
    let old = random(40_000, 1);
    let mut new = old.clone();
    new.splice(20_000..20_010, random(30, 2));
    let (bytes, plain) = World::new().cost(&old, &new);
    assert!(plain == 0 && bytes < 300, "{bytes} bytes, {plain} whole");
}

#[test]
fn places_overwritten_cost_little_more_than_themselves_also_where_cuts_move() {
    let old = random(16 << 20, 3);
    let mut new = old.clone();
    for i in 0..40 {
        let at = 400_000 * i + 97 * i * i;
        new[at..at + 4096].copy_from_slice(&random(4096, u8::try_from(i).unwrap() + 10));
    }
    let (bytes, plain) = World::new().cost(&old, &new);
    assert!(plain == 0 && bytes < 40 * 4_700, "{bytes} bytes, {plain} whole");
}

#[test]
fn bytes_put_in_and_cut_out_at_many_places_are_followed() {
    let old = random(8 << 20, 4);
    let mut new = Vec::new();
    for (i, part) in old.chunks(300_000).enumerate() {
        match i % 3 {
            0 => new.extend_from_slice(part),
            1 => new.extend([&random(777, u8::try_from(i).unwrap()), part].concat()),
            _ => new.extend_from_slice(&part[500..]),
        }
    }
    let (bytes, plain) = World::new().cost(&old, &new);
    assert!(plain == 0 && bytes < 30 * 1_300, "{bytes} bytes, {plain} whole");
}

#[test]
fn a_file_replaced_by_another_is_compared_now_and_then_only() {
    let world = World::new();
    let (_, plain) = world.cost(&random(8 << 20, 5), &random(8 << 20, 6));
    assert!(plain > 50);
}

#[test]
fn nothing_is_said_with_a_chunk_list_that_does_not_make_the_content() {
    let world = World::new();
    let content = world.keep(&random(1 << 20, 7));
    let other = FileContent { size: content.size + 1, ..content };
    assert!(Basis::open(&world.folder, &[other]).is_empty());
}

#[test]
fn a_new_node_of_a_manifest_is_said_with_the_old_one_at_its_place() {
    let world = World::new();
    let old = random(16 << 20, 8);
    let content = world.keep(&old);
    let basis = Basis::open(&world.folder, std::slice::from_ref(&content));
    let mut builder = Builder::new(V1.id());
    let chunks = known::chunks_of(&world.folder, &content).unwrap();
    let (mut nodes, mut changed) = (Vec::new(), 0);
    for (i, chunk) in chunks.iter().enumerate() {
        // In the middle of a node.
        let hash = if i == 8 { BlockHash::of(b"changed") } else { chunk.hash };
        nodes.extend(builder.push(hash, u64::from(chunk.len)).unwrap());
    }
    nodes.extend(builder.finish().unwrap().1);
    // A node of a few entries goes whole.
    let new = |node: &&Block| node.bytes().len() > 512 && !basis.knows_node(&node.hash());
    for node in nodes.iter().filter(new) {
        let sealed = basis.patch_node(node).unwrap();
        assert!(sealed.payload.len() < 110, "{} bytes of {}", sealed.payload.len(), node.bytes().len());
        let base = sealed.bases().unwrap()[0];
        let base = basis.nodes.iter().find(|node| node.hash() == base).unwrap();
        assert_eq!(&seal::open(&sealed, Some(base.bytes())).unwrap(), node);
        changed += 1;
    }
    assert!((1..=4).contains(&changed), "{changed} nodes");
}

#[test]
fn what_is_cut_out_of_the_middle_costs_nothing_but_saying_so() {
    let old = random(6_000_000, 9);
    for (from, len) in [(2_000_000, 1_000_000), (1_234_567, 300_001), (500, 3_000_000), (3_000_000, 64_000)] {
        let new = [&old[..from], &old[from + len..]].concat();
        let (bytes, plain) = World::new().cost(&old, &new);
        assert!(plain == 0 && bytes < 2_000, "{bytes} bytes and {plain} blocks without {len} at {from}");
    }
}
