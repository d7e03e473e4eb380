//! Walks of sound manifests, and of hostile ones.

use super::*;
use crate::block::Block;
use crate::manifest::{Builder, empty_file};
use crate::model::Root;

const MIN: u64 = limits::CHUNK_BYTES_MIN;

type Nodes = HashMap<BlockHash, Bytes>;

fn hash(i: u64) -> BlockHash {
    BlockHash::of(&i.to_le_bytes())
}

fn build(list: impl IntoIterator<Item = (BlockHash, u64)>) -> (FileContent, Nodes) {
    let mut builder = Builder::new(1);
    let mut blocks: Vec<Block> = Vec::new();
    for (hash, len) in list {
        blocks.extend(builder.push(hash, len).unwrap());
    }
    let (content, rest) = builder.finish().unwrap();
    blocks.extend(rest);
    (content, blocks.into_iter().map(|block| (block.hash(), block.into_bytes())).collect())
}

/// A hostile node: any entries that a node can hold.
fn node(nodes: &mut Nodes, level: u8, params: u8, entries: &[(BlockHash, u64)]) -> (BlockHash, u64) {
    let entries: Vec<_> = entries.iter().map(|&(hash, len)| Entry { hash, len }).collect();
    let node = ManifestNode::new(level, params, entries).unwrap();
    let block = Block::new(node.encode());
    nodes.insert(block.hash(), block.bytes().clone());
    (block.hash(), node.file_bytes())
}

fn content((hash, size): (BlockHash, u64), level: u8) -> FileContent {
    FileContent { size, root: Root { params: 1, level, hash } }
}

fn walk(content: &FileContent, nodes: &Nodes) -> Result<Vec<ChunkRef>, ManifestError> {
    chunk_list(content, &mut |need: &[BlockHash]| Ok(need.iter().map(|hash| nodes[hash].clone()).collect()))
}

#[test]
fn a_walk_gives_the_list_that_was_built_with_offsets() {
    for count in [0, 1, 2, 16, 64, 300, 20_000] {
        let list: Vec<_> = (0..count).map(|i| (hash(i), MIN + i * 7 % 65_536)).collect();
        let (content, nodes) = build(list.clone());
        let chunks = walk(&content, &nodes).unwrap();
        assert_eq!(chunks.iter().map(|c| (c.hash, u64::from(c.len))).collect::<Vec<_>>(), list);
        let mut offset = 0;
        for chunk in chunks {
            assert_eq!(chunk.offset, offset);
            offset += u64::from(chunk.len);
        }
        assert_eq!(offset, content.size);
    }
}

#[test]
fn nodes_may_come_in_any_order_one_at_a_time_and_few_of_them_wait() {
    let (content, nodes) = build((0..200_000).map(|i| (hash(i), 65_536)));
    let mut walker = Walker::new(&content).unwrap();
    let (mut given, mut waiting_max, mut queue_max) = (0, 0, 0);
    loop {
        match walker.next().unwrap() {
            Step::Done => break,
            Step::Chunks(chunks) => {
                assert!(!chunks.is_empty() && chunks.len() <= CHUNKS_PER_STEP_MAX);
                given += chunks.len();
            }
            Step::NeedNodes(need) => {
                assert!(!need.is_empty() && need.len() <= NODES_PER_STEP_MAX);
                // Only the last of them: the walker must ask again for the others, or take them late.
                let last = need.last().unwrap();
                walker.feed(*last, &nodes[last]).unwrap();
                if let Some(first) = need.first().filter(|first| *first != last) {
                    walker.feed(*first, &nodes[first]).unwrap();
                }
            }
        }
        waiting_max = waiting_max.max(walker.fetched.len());
        queue_max = queue_max.max(walker.queue.len());
    }
    assert_eq!(given, 200_000);
    let levels = usize::from(content.root.level);
    assert!(waiting_max <= levels * NODES_PER_STEP_MAX, "{waiting_max} nodes");
    assert!(queue_max <= levels * limits::MANIFEST_ENTRIES_MAX, "{queue_max} items");
}

#[test]
fn a_walk_of_many_nodes_takes_few_round_trips() {
    let (content, nodes) = build((0..100_000).map(|i| (hash(i), 65_536)));
    let mut trips = 0;
    let chunks = chunk_list(&content, &mut |need: &[BlockHash]| {
        trips += 1;
        Ok::<_, ManifestError>(need.iter().map(|hash| nodes[hash].clone()).collect())
    });
    assert_eq!(chunks.unwrap().len(), 100_000);
    assert!(trips < nodes.len() / 16, "{trips} round trips for {} nodes", nodes.len());
}

#[test]
fn a_run_of_equal_nodes_is_fetched_once_per_node_above_it() {
    let (content, nodes) = build((0..100_000).map(|_| (hash(1), 262_144)));
    let mut asked = 0;
    let chunks = chunk_list(&content, &mut |need: &[BlockHash]| {
        asked += need.len();
        Ok::<_, ManifestError>(need.iter().map(|hash| nodes[hash].clone()).collect())
    });
    assert_eq!(chunks.unwrap().len(), 100_000);
    // 391 uses of a handful of nodes.
    assert!(nodes.len() < 10 && asked < 40, "{asked} nodes asked for, {} exist", nodes.len());
}

#[test]
fn a_few_nodes_that_describe_exabytes_are_no_work_for_a_distinct_walk() {
    let mut nodes = Nodes::new();
    let mut below = (hash(1), 262_144);
    for level in 1..=5 {
        below = node(&mut nodes, level, 1, &[below; 256]);
    }
    let content = content(below, 5);
    assert_eq!(content.size, 1 << 58);
    let mut walker = Walker::distinct(&content).unwrap();
    let mut given = 0;
    loop {
        match walker.next().unwrap() {
            Step::Done => break,
            Step::Chunks(chunks) => given += chunks.len(),
            Step::NeedNodes(need) => {
                for hash in need {
                    walker.feed(hash, &nodes[&hash]).unwrap();
                }
            }
        }
    }
    assert_eq!(given, 256);
}

#[test]
fn a_node_that_breaks_a_promise_of_its_parent_is_refused() {
    let mut nodes = Nodes::new();
    let leaf = node(&mut nodes, 1, 1, &[(hash(1), MIN), (hash(2), 20)]);
    let other_params = node(&mut nodes, 1, 2, &[(hash(1), MIN), (hash(2), 20)]);
    let inner = node(&mut nodes, 2, 1, &[leaf, leaf]);

    let short = node(&mut nodes, 2, 1, &[leaf, (leaf.0, MIN + 21)]);
    let refused = walk(&content(short, 2), &nodes);
    assert_eq!(
        refused,
        Err(ManifestError::LengthPromise { hash: leaf.0, promised: MIN + 21, found: MIN + 20 })
    );

    let deep = node(&mut nodes, 3, 1, &[inner, leaf]);
    let refused = walk(&content(deep, 3), &nodes);
    assert_eq!(refused, Err(ManifestError::LevelPromise { hash: leaf.0, promised: 2, found: 1 }));

    let mixed = node(&mut nodes, 2, 1, &[leaf, other_params]);
    assert_eq!(walk(&content(mixed, 2), &nodes), Err(ManifestError::Params(other_params.0)));

    let lonely = node(&mut nodes, 2, 1, &[leaf]);
    assert_eq!(walk(&content(lonely, 2), &nodes), Err(ManifestError::EntryCount(1)));
    assert!(walk(&content((inner.0, inner.1 + 1), 2), &nodes).is_err(), "the file is larger than its root");
    assert!(walk(&content(inner, 3), &nodes).is_err(), "the root is at another level");
}

#[test]
fn only_the_last_entry_of_a_node_may_be_shorter_than_a_chunk() {
    let mut nodes = Nodes::new();
    let leaf = node(&mut nodes, 1, 1, &[(hash(1), MIN), (hash(2), 1)]);
    assert!(walk(&content(leaf, 1), &nodes).is_ok());
    let crumbs = node(&mut nodes, 1, 1, &[(hash(1), MIN - 1), (hash(2), MIN)]);
    assert_eq!(walk(&content(crumbs, 1), &nodes), Err(ManifestError::EntryLength(MIN - 1)));
    // Each in a node of its own does not help.
    let crumb = node(&mut nodes, 1, 1, &[(hash(1), 1)]);
    let above = node(&mut nodes, 2, 1, &[crumb, leaf]);
    assert_eq!(walk(&content(above, 2), &nodes), Err(ManifestError::EntryLength(1)));
}

#[test]
fn a_distinct_walk_still_sees_one_node_with_two_lengths() {
    let mut nodes = Nodes::new();
    let leaf = node(&mut nodes, 1, 1, &[(hash(1), MIN), (hash(2), 20)]);
    let top = node(&mut nodes, 2, 1, &[leaf, (leaf.0, MIN + 21)]);
    let mut walker = Walker::distinct(&content(top, 2)).unwrap();
    let error = loop {
        match walker.next() {
            Ok(Step::NeedNodes(need)) => {
                need.iter().for_each(|hash| walker.feed(*hash, &nodes[hash]).unwrap())
            }
            Ok(Step::Chunks(_)) => {}
            Ok(Step::Done) => panic!("the lie was believed"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, ManifestError::LengthPromise { hash: leaf.0, promised: MIN + 21, found: MIN + 20 });
}

#[test]
fn roots_that_cannot_be_are_refused_before_anything_is_fetched() {
    let new = |size, level, hash| Walker::new(&content((hash, size), level)).map(|_| ());
    assert_eq!(new(0, 0, hash(0)), Err(ManifestError::Size(0)));
    assert_eq!(new(0, 1, hash(0)), Err(ManifestError::Size(0)));
    assert_eq!(new(262_145, 0, hash(0)), Err(ManifestError::Size(262_145)));
    assert_eq!(new(1 << 40, 13, hash(0)), Err(ManifestError::Level(13)));
    assert_eq!(Walker::new(&empty_file(1)).unwrap().next(), Ok(Step::Done));
}

#[test]
fn bytes_of_another_node_and_nodes_nobody_asked_for_are_refused() {
    let (content, nodes) = build((0..100).map(|i| (hash(i), 65_536)));
    let mut walker = Walker::new(&content).unwrap();
    let root = content.root.hash;
    assert_eq!(walker.feed(root, &nodes[&root]), Err(ManifestError::Unasked(root)));
    assert_eq!(walker.next(), Ok(Step::NeedNodes(vec![root])));
    assert_eq!(walker.feed(root, b"other"), Err(ManifestError::Hash(root)));
    let none = chunk_list(&content, &mut |_: &[BlockHash]| Ok::<_, ManifestError>(vec![]));
    assert_eq!(none, Err(ManifestError::Undelivered { asked: 1, found: 0 }));
}
