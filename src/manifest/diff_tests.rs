//! Differences in chunks, nodes and cost.

use super::*;
use crate::block::Block;
use crate::manifest::{Builder, empty_file};
use bytes::Bytes;

type Nodes = HashMap<BlockHash, Bytes>;

fn hash(i: u64) -> BlockHash {
    BlockHash::of(&i.to_le_bytes())
}

fn build(nodes: &mut Nodes, chunks: &[u64]) -> FileContent {
    let mut builder = Builder::new(1);
    let mut blocks: Vec<Block> = Vec::new();
    for &i in chunks {
        blocks.extend(builder.push(hash(i), 65_536).unwrap());
    }
    let (content, rest) = builder.finish().unwrap();
    blocks.extend(rest);
    nodes.extend(blocks.into_iter().map(|block| (block.hash(), block.into_bytes())));
    content
}

/// The difference of two lists, and how many nodes were read for it.
fn compare(old: &[u64], new: &[u64]) -> (Diff, usize, Nodes) {
    let mut nodes = Nodes::new();
    let (old, new) = (build(&mut nodes, old), build(&mut nodes, new));
    let mut read = 0;
    let diff = diff(&old, &new, &mut |need: &[BlockHash]| {
        read += need.len();
        Ok::<_, ManifestError>(need.iter().map(|hash| nodes[hash].clone()).collect())
    });
    (diff.unwrap(), read, nodes)
}

fn chunk_hashes(diff: &Diff) -> Vec<BlockHash> {
    diff.new_chunks.iter().map(|chunk| chunk.hash).collect()
}

#[test]
fn equal_files_differ_in_nothing_and_nothing_is_read() {
    let list: Vec<u64> = (0..1000).collect();
    let (diff, read, _) = compare(&list, &list);
    assert_eq!((diff, read), (Diff::default(), 0));
}

#[test]
fn one_changed_chunk_of_a_gigabyte_changes_a_few_nodes_and_a_few_kilobytes() {
    let old: Vec<u64> = (0..16_384).collect();
    let (mut bytes_total, mut read_max) = (0, 0);
    for at in (0..16_384).step_by(512) {
        let mut new = old.clone();
        new[at] = 1_000_000;
        let (diff, read, nodes) = compare(&old, &new);
        assert_eq!(chunk_hashes(&diff), [hash(1_000_000)]);
        assert_eq!(diff.new_chunks[0].offset, at as u64 * 65_536);
        let bytes: usize = diff.new_nodes.iter().map(|hash| nodes[hash].len()).sum();
        assert!(diff.new_nodes.len() <= 9, "{} nodes at {at}", diff.new_nodes.len());
        assert!(bytes <= 20_000, "{bytes} bytes at {at}");
        bytes_total += bytes;
        read_max = read_max.max(read);
    }
    assert!(bytes_total / 32 <= 9_000, "{} bytes on average", bytes_total / 32);
    assert!(read_max <= 20, "{read_max} nodes read");
}

#[test]
fn inserting_at_the_front_or_appending_changes_only_the_edge() {
    let old: Vec<u64> = (0..16_384).collect();
    for new in [[vec![99_999], old.clone()].concat(), [old.clone(), vec![99_999]].concat()] {
        let (diff, read, _) = compare(&old, &new);
        assert_eq!(chunk_hashes(&diff), [hash(99_999)]);
        assert!(diff.new_nodes.len() <= 9 && read <= 20);
    }
}

#[test]
fn files_of_different_depth_are_compared_from_the_chunks_up() {
    let long: Vec<u64> = (0..5_000).collect();
    let (diff, ..) = compare(&long[..300], &long);
    assert_eq!(chunk_hashes(&diff), long[300..].iter().map(|i| hash(*i)).collect::<Vec<_>>());
    let (diff, ..) = compare(&long, &long[..300]);
    assert!(diff.new_chunks.is_empty());
    let (diff, read, _) = compare(&long, &[7]);
    assert!(diff.new_chunks.is_empty(), "the one chunk left is found in the old file");
    assert!(read < 200);
    let (diff, ..) = compare(&[], &long[..2]);
    assert_eq!((diff.new_chunks.len(), diff.new_nodes.len()), (2, 1));
    assert_eq!(compare(&long[..2], &[]).0, Diff::default());
}

#[test]
fn a_huge_file_that_becomes_one_line_is_not_read_in_full() {
    let old: Vec<u64> = (0..100_000).collect();
    let (diff, read, nodes) = compare(&old, &[200_000]);
    assert_eq!(chunk_hashes(&diff), [hash(200_000)]);
    assert!(read < 600 && nodes.len() > 1_000, "{read} of {} nodes read", nodes.len());
}

#[test]
fn each_new_chunk_is_named_once_at_its_first_place() {
    let (diff, ..) = compare(&[1, 2, 3], &[1, 9, 9, 3, 9]);
    assert_eq!(chunk_hashes(&diff), [hash(9)]);
    assert_eq!(diff.new_chunks[0].offset, 65_536);
}

#[test]
fn nodes_are_asked_for_in_bounded_steps_and_foreign_ones_refused() {
    let mut nodes = Nodes::new();
    let new = build(&mut nodes, &(0..20_000).collect::<Vec<_>>());
    let mut differ = Differ::new(&empty_file(1), &new).unwrap();
    assert_eq!(differ.feed(hash(1), b""), Err(ManifestError::Unasked(hash(1))));
    let diff = loop {
        match differ.next().unwrap() {
            DiffStep::Done(diff) => break diff,
            DiffStep::NeedNodes(need) => {
                assert!(!need.is_empty() && need.len() <= NODES_PER_STEP_MAX);
                assert_eq!(differ.feed(need[0], b"other"), Err(ManifestError::Hash(need[0])));
                differ = Differ { need: differ.need.into_iter().chain([need[0]]).collect(), ..differ };
                need.iter().for_each(|hash| differ.feed(*hash, &nodes[hash]).unwrap());
            }
        }
    };
    assert_eq!((diff.new_chunks.len(), diff.new_nodes.len()), (20_000, nodes.len()));
}

#[test]
fn the_same_root_or_node_with_another_length_is_not_the_same() {
    let mut nodes = Nodes::new();
    let old = build(&mut nodes, &(0..1000).collect::<Vec<_>>());
    let compare = |new: &FileContent, nodes: &Nodes| {
        diff(&old, new, &mut |need: &[BlockHash]| {
            Ok::<_, ManifestError>(need.iter().map(|hash| nodes[hash].clone()).collect())
        })
    };
    let longer = FileContent { size: old.size + 1, ..old.clone() };
    assert!(matches!(compare(&longer, &nodes), Err(ManifestError::LengthPromise { .. })));
    // One level further down: the root is a new node, and lies about one that both have.
    let top = ManifestNode::decode(&nodes[&old.root.hash]).unwrap();
    let mut entries = top.entries().to_vec();
    entries[0].len += 1;
    let lie = Block::new(ManifestNode::new(old.root.level, 1, entries).unwrap().encode());
    let new = FileContent { root: crate::model::Root { hash: lie.hash(), ..old.root }, size: old.size + 1 };
    nodes.insert(lie.hash(), lie.bytes().clone());
    assert!(matches!(compare(&new, &nodes), Err(ManifestError::LengthPromise { .. })));
}
