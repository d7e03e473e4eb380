//! Manifests of any file and after any edits: what is built is what is walked, and a difference is what is new.

use crate::{golden, sample};
use bytes::Bytes;
use dropblock::block::{Block, Sealer, pack, seal};
use dropblock::chunk::{V1, chunk_lengths};
use dropblock::manifest::{Builder, Diff, ManifestError, ManifestNode, chunk_list, diff};
use dropblock::model::{BlockHash, FileContent, limits};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

type Nodes = HashMap<BlockHash, Bytes>;

fn build(list: &[(BlockHash, u64)], nodes: &mut Nodes) -> (FileContent, HashSet<BlockHash>) {
    let mut builder = Builder::new(V1.id());
    let mut blocks: Vec<Block> = Vec::new();
    for &(hash, len) in list {
        blocks.extend(builder.push(hash, len).unwrap());
    }
    let (content, rest) = builder.finish().unwrap();
    blocks.extend(rest);
    let hashes = blocks.iter().map(Block::hash).collect();
    nodes.extend(blocks.into_iter().map(|block| (block.hash(), block.into_bytes())));
    (content, hashes)
}

fn fetch(nodes: &Nodes) -> impl FnMut(&[BlockHash]) -> Result<Vec<Bytes>, ManifestError> {
    |need| Ok(need.iter().map(|hash| nodes[hash].clone()).collect())
}

fn hash(i: u64) -> BlockHash {
    BlockHash::of(&i.to_le_bytes())
}

/// One step of an edit script, at a place given in thousandths of the list.
#[derive(Debug, Clone)]
enum Edit {
    Insert(usize, u8),
    Delete(usize, u8),
    Replace(usize, u8),
    Move(usize, usize, u8),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = 0..1000usize;
    let edit = prop_oneof![
        (at.clone(), 1..20u8).prop_map(|(at, n)| Edit::Insert(at, n)),
        (at.clone(), 1..200u8).prop_map(|(at, n)| Edit::Delete(at, n)),
        (at.clone(), 1..20u8).prop_map(|(at, n)| Edit::Replace(at, n)),
        (at.clone(), at, 1..100u8).prop_map(|(from, to, n)| Edit::Move(from, to, n)),
    ];
    prop::collection::vec(edit, 0..6)
}

/// Applies a script to any list; `fresh` makes elements that were not there before.
fn apply<T: Clone>(list: &[T], edits: &[Edit], mut fresh: impl FnMut() -> T) -> Vec<T> {
    let mut list = list.to_vec();
    for edit in edits {
        let place = |at: usize, len: usize| at * len / 1000;
        match *edit {
            Edit::Insert(at, n) => {
                let at = place(at, list.len());
                list.splice(at..at, (0..n).map(|_| fresh()));
            }
            Edit::Delete(at, n) => {
                let at = place(at, list.len());
                let end = (at + usize::from(n)).min(list.len());
                list.drain(at..end);
            }
            Edit::Replace(at, n) => {
                let at = place(at, list.len());
                let end = (at + usize::from(n)).min(list.len());
                list[at..end].fill_with(&mut fresh);
            }
            Edit::Move(from, to, n) => {
                let from = place(from, list.len());
                let end = (from + usize::from(n)).min(list.len());
                let moved: Vec<T> = list.drain(from..end).collect();
                let to = place(to, list.len());
                list.splice(to..to, moved);
            }
        }
    }
    list
}

/// What the new file names and the old one does not, the slow way.
fn slow_diff(
    old: (&[(BlockHash, u64)], &HashSet<BlockHash>),
    new: (&[(BlockHash, u64)], &HashSet<BlockHash>),
) -> (HashSet<BlockHash>, HashSet<BlockHash>) {
    let old_chunks: HashSet<_> = old.0.iter().map(|(hash, _)| *hash).collect();
    let chunks = new.0.iter().map(|(hash, _)| *hash).filter(|hash| !old_chunks.contains(hash)).collect();
    (new.1.difference(old.1).copied().collect(), chunks)
}

fn sets(diff: &Diff) -> (HashSet<BlockHash>, HashSet<BlockHash>) {
    let chunks: HashSet<_> = diff.new_chunks.iter().map(|chunk| chunk.hash).collect();
    let nodes: HashSet<_> = diff.new_nodes.iter().copied().collect();
    assert_eq!((chunks.len(), nodes.len()), (diff.new_chunks.len(), diff.new_nodes.len()), "each once");
    (nodes, chunks)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_walk_gives_what_was_built(count in 0..3000u64, lens in prop::collection::vec(limits::CHUNK_BYTES_MIN..262_145, 1..50)) {
        let list: Vec<_> = (0..count).zip(lens.iter().cycle()).map(|(i, len)| (hash(i), *len)).collect();
        let mut nodes = Nodes::new();
        let (content, _) = build(&list, &mut nodes);
        prop_assert_eq!(content.size, list.iter().map(|(_, len)| len).sum::<u64>());
        let walked = chunk_list(&content, &mut fetch(&nodes)).unwrap();
        prop_assert_eq!(walked.iter().map(|c| (c.hash, u64::from(c.len))).collect::<Vec<_>>(), list);
    }

    #[test]
    fn a_difference_is_exactly_what_is_new(count in 0..6000u64, edits in edits()) {
        let old: Vec<_> = (0..count).map(|i| (hash(i), 65_536)).collect();
        let mut next = 1_000_000;
        let new = apply(&old, &edits, || {
            next += 1;
            (hash(next), 65_536)
        });
        let mut nodes = Nodes::new();
        let ((old_content, old_nodes), (new_content, new_nodes)) =
            (build(&old, &mut nodes), build(&new, &mut nodes));
        let found = diff(&old_content, &new_content, &mut fetch(&nodes)).unwrap();
        prop_assert_eq!(sets(&found), slow_diff((&old, &old_nodes), (&new, &new_nodes)));
    }

    #[test]
    fn with_repeated_chunks_a_difference_misses_nothing(
        old in prop::collection::vec(0..400u64, 0..2000),
        edits in edits(),
        fresh in prop::collection::vec(0..500u64, 1..50),
    ) {
        let mut fresh = fresh.into_iter().cycle();
        let new = apply(&old, &edits, || fresh.next().unwrap());
        let list = |ids: &[u64]| ids.iter().map(|id| (hash(*id), 65_536)).collect::<Vec<_>>();
        let (old, new) = (list(&old), list(&new));
        let mut nodes = Nodes::new();
        let ((old_content, old_nodes), (new_content, new_nodes)) =
            (build(&old, &mut nodes), build(&new, &mut nodes));
        let (nodes_found, chunks_found) = sets(&diff(&old_content, &new_content, &mut fetch(&nodes)).unwrap());
        let (nodes_new, chunks_new) = slow_diff((&old, &old_nodes), (&new, &new_nodes));
        prop_assert!(nodes_found.is_superset(&nodes_new) && nodes_found.is_subset(&new_nodes));
        prop_assert!(chunks_found.is_superset(&chunks_new));
    }

    #[test]
    fn the_root_depends_on_the_bytes_and_not_on_how_they_came_to_be(count in 0..2000u64, edits in edits()) {
        let old: Vec<_> = (0..count).map(|i| (hash(i), 9)).collect();
        let mut next = 1_000_000;
        let new = apply(&old, &edits, || {
            next += 1;
            (hash(next), 9)
        });
        let content = |list: &[(BlockHash, u64)]| build(list, &mut Nodes::new()).0;
        prop_assert_eq!(content(&new), content(&new.clone()));
        prop_assert_eq!(content(&old) == content(&new), old == new);
    }

    #[test]
    fn no_bytes_make_a_node_panic_and_what_decodes_encodes_to_itself(
        body in prop::collection::vec(any::<u8>(), 0..200), level in 0..14u8, entries in 0..4usize,
    ) {
        let size = if level == 1 { 36 } else { 40 };
        let mut bytes = [b"DBMN", &[1, level, 1, 0][..], &body[..body.len().min(entries * size)]].concat();
        if let Ok(node) = ManifestNode::decode(&bytes) {
            prop_assert_eq!(&node.encode()[..], &bytes[..]);
        }
        bytes.truncate(7);
        prop_assert!(ManifestNode::decode(&bytes).is_err());
    }
}

/// A store and a network in one map: whatever is put in went through a seal and a pack.
#[derive(Default)]
struct Store(Nodes);

impl Store {
    fn put(&mut self, blocks: &[Block]) {
        let sealed: Vec<_> = blocks.iter().map(|block| Sealer::default().seal(block).into_sealed()).collect();
        let wire = Bytes::from(pack::encode(&sealed).concat());
        for sealed in pack::decode(wire).unwrap() {
            let (verified, block) = seal::verify_with_plain(sealed, None).unwrap();
            self.0.insert(verified.hash(), block.into_bytes());
        }
    }

    fn put_file(&mut self, bytes: &Bytes) -> FileContent {
        let mut builder = Builder::new(V1.id());
        let mut rest = bytes.clone();
        for len in chunk_lengths(bytes, &V1) {
            let block = Block::new(rest.split_to(len));
            let mut blocks = builder.push(block.hash(), len as u64).unwrap();
            blocks.push(block);
            self.put(&blocks);
        }
        let (content, nodes) = builder.finish().unwrap();
        self.put(&nodes);
        content
    }

    fn get_file(&self, content: &FileContent) -> Vec<u8> {
        let chunks = chunk_list(content, &mut fetch(&self.0)).unwrap();
        chunks.iter().flat_map(|chunk| self.0[&chunk.hash].iter().copied()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_file_and_any_edit_of_it_come_back_from_the_store(
        len in 0..3_000_000usize, seed in any::<u8>(), is_text in any::<bool>(), edits in edits(),
    ) {
        let old = if is_text { sample::text(len, seed) } else { sample::random(len, seed) };
        let mut fresh = 0u8;
        let new = apply(&old, &edits, || {
            fresh = fresh.wrapping_add(91);
            fresh
        });
        let (old, new) = (Bytes::from(old), Bytes::from(new));
        let mut store = Store::default();
        let old_content = store.put_file(&old);
        let before: HashSet<_> = store.0.keys().copied().collect();
        let new_content = store.put_file(&new);
        prop_assert_eq!(old_content == new_content, old == new);
        prop_assert_eq!(store.get_file(&old_content), old);
        prop_assert_eq!(store.get_file(&new_content), new);
        // What the difference names is what the second file brought into the store.
        let (nodes, chunks) = sets(&diff(&old_content, &new_content, &mut fetch(&store.0)).unwrap());
        let found: HashSet<_> = nodes.union(&chunks).copied().collect();
        let added: HashSet<_> = store.0.keys().filter(|hash| !before.contains(hash)).copied().collect();
        prop_assert!(found.is_superset(&added));
    }
}

#[test]
fn nodes_and_roots_are_those_of_the_golden_file() {
    let mut found = String::from("# entry i: hash = BLAKE3(i as u64 LE), len = 65536 + i; params 1\n");
    for count in [0u64, 1, 2, 17, 1_000, 20_000] {
        let list: Vec<_> = (0..count).map(|i| (hash(i), 65_536 + i)).collect();
        let mut nodes = Nodes::new();
        let (FileContent { size, root }, hashes) = build(&list, &mut nodes);
        let (level, root) = (root.level, root.hash);
        writeln!(found, "{count} entries: size {size} level {level} nodes {} root {root}", hashes.len())
            .unwrap();
        if count == 2 {
            writeln!(found, "  its bytes: {}", dropblock::model::hash::hex(&nodes[&root])).unwrap();
        }
    }
    let mut store = Store::default();
    let FileContent { size, root } = store.put_file(&Bytes::from(sample::random(2_000_000, 1)));
    writeln!(found, "random seed 1: size {size} level {} root {}", root.level, root.hash).unwrap();
    golden::check("manifests-v1.txt", &found);
}
