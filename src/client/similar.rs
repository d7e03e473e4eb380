//! Which agreed files a new one may have been made from: a copy, the next version beside it, a dump with another date in its
//! name, the same file in a copy of its folder. A guess from names and sizes, used to say the new file with what both sides
//! have; a wrong guess costs a little time.
//!
//! Pure, and one pass over the tree however many new files there are.

use crate::model::{FileContent, Name, NodeId};
use crate::tree::Tree;
use std::collections::HashMap;

/// Guesses for one file.
const GUESSES_MAX: usize = 2;
/// Shorter files are sent whole.
const BYTES_MIN: u64 = 512;
/// Names are compared up to so often for one call.
const COMPARED_MAX: usize = 1 << 18;
/// New files of one folder whose names are compared with all that is there.
const BESIDE_MAX: usize = 64;
/// Folders that are compared above two files of one name.
const DEPTH_MAX: usize = 8;

/// A new file.
#[derive(Debug, Clone)]
pub struct New {
    /// The node it gets.
    pub id: NodeId,
    /// Its folder.
    pub parent: NodeId,
    /// Its name.
    pub name: Name,
    /// The names of the folders above it, the nearest first; a few are enough.
    pub above: Vec<Name>,
    /// Bytes.
    pub size: u64,
}

/// For each new file the agreed files that it may be like, the likeliest first, with their contents.
pub fn guess(base: &Tree, files: &[New]) -> HashMap<NodeId, Vec<(NodeId, FileContent)>> {
    let mut wanted = Wanted::default();
    for (index, new) in files.iter().enumerate().filter(|(_, new)| new.size >= BYTES_MIN) {
        wanted.sizes.entry(new.size).or_default().push(index);
        wanted.names.entry(&new.name).or_default().push(index);
        wanted.folders.entry(new.parent).or_default().push(index);
    }
    if wanted.sizes.is_empty() {
        return HashMap::new();
    }
    let mut best: HashMap<usize, Vec<(u32, NodeId, FileContent)>> = HashMap::new();
    let mut compared = 0;
    for (id, node) in base.iter() {
        let Some(content) = node.state.kind.content().filter(|content| content.size >= BYTES_MIN) else {
            continue;
        };
        let mut offer = |index: usize, score: u32| {
            let list = best.entry(index).or_default();
            if score == 0 || list.iter().any(|(known, other, _)| *other == id && *known >= score) {
                return;
            }
            list.retain(|(_, other, _)| *other != id);
            let at = list.partition_point(|(known, other, _)| (*known, *other) > (score, id));
            list.insert(at, (score, id, content.clone()));
            list.truncate(GUESSES_MAX);
        };
        if compared >= COMPARED_MAX {
            break;
        }
        for index in wanted.sizes.get(&content.size).into_iter().flatten().take(BESIDE_MAX) {
            compared += 1;
            offer(*index, 100);
        }
        for index in wanted.names.get(&node.state.name).into_iter().flatten().take(BESIDE_MAX) {
            compared += 1;
            if let Some(new) = files.get(*index).filter(|new| comparable(new.size, content.size)) {
                offer(*index, 60 + 10 * same_above(base, node.state.parent, &new.above));
            }
        }
        let beside = wanted.folders.get(&node.state.parent).filter(|beside| beside.len() <= BESIDE_MAX);
        for index in beside.into_iter().flatten() {
            compared += 1;
            if let Some(new) =
                files.get(*index).filter(|new| new.id != id && comparable(new.size, content.size))
            {
                offer(*index, likeness(&new.name, &node.state.name));
            }
        }
    }
    let list = |(index, list): (usize, Vec<(u32, NodeId, FileContent)>)| {
        Some((files.get(index)?.id, list.into_iter().map(|(_, id, content)| (id, content)).collect()))
    };
    best.into_iter().filter_map(list).collect()
}

#[derive(Default)]
struct Wanted<'a> {
    sizes: HashMap<u64, Vec<usize>>,
    names: HashMap<&'a Name, Vec<usize>>,
    folders: HashMap<NodeId, Vec<usize>>,
}

/// A quarter to four times as long.
const fn comparable(a: u64, b: u64) -> bool {
    a / 4 <= b && b / 4 <= a
}

/// How many folders above two files have the same names, from below.
fn same_above(base: &Tree, mut parent: NodeId, above: &[Name]) -> u32 {
    let mut same = 0;
    for name in above.iter().take(DEPTH_MAX) {
        match base.get(parent) {
            Some(folder) if folder.state.name == *name => {
                same += 1;
                parent = folder.state.parent;
            }
            _ => break,
        }
    }
    same
}

/// 0, or 20 to 50 for names of which half or more is the same at both ends, and the ending too.
fn likeness(a: &Name, b: &Name) -> u32 {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let longest = a.len().max(b.len());
    let front = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let room = a.len().min(b.len()) - front;
    let back = a.iter().rev().zip(b.iter().rev()).take(room).take_while(|(a, b)| a == b).count();
    let ending = |name: &[u8]| name.iter().rposition(|byte| *byte == b'.').map(|dot| name.len() - dot);
    let same_ending = match (ending(a), ending(b)) {
        (Some(a), Some(b)) => a == b && back >= a.min(room),
        (None, None) => true,
        _ => front > 0,
    };
    if (front + back) * 2 < longest || !same_ending {
        return 0;
    }
    20 + u32::try_from((front + back) * 30 / longest.max(1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BlockHash, IdSource, Kind, NodeState, Root, Seq};
    use crate::tree::TreeNode;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    struct World {
        base: Tree,
        ids: IdSource,
    }

    impl World {
        fn new() -> Self {
            Self { base: Tree::new(), ids: IdSource::new([1; 32]) }
        }

        fn add(&mut self, parent: NodeId, text: &str, size: Option<u64>) -> NodeId {
            let id = self.ids.node();
            let kind = size.map_or(Kind::Folder, |size| {
                let root = Root { params: 1, level: 0, hash: BlockHash::of(&id.as_bytes()[..]) };
                Kind::File { content: FileContent { size, root }, mtime_ns: 0, exec: false }
            });
            let state = NodeState { parent, name: name(text), kind };
            self.base.insert(id, TreeNode { version: Seq(1), state });
            id
        }

        fn guess(&mut self, parent: NodeId, above: &[&str], text: &str, size: u64) -> Vec<NodeId> {
            let id = self.ids.node();
            let above = above.iter().map(|text| name(text)).collect();
            let new = New { id, parent, name: name(text), above, size };
            let found = guess(&self.base, &[new]).remove(&id).unwrap_or_default();
            found.into_iter().map(|(id, _)| id).collect()
        }
    }

    #[test]
    fn a_copy_has_the_size_and_a_next_version_most_of_the_name() {
        let mut world = World::new();
        let draft = world.add(NodeId::ROOT, "report draft.txt", Some(40_000));
        let other = world.add(NodeId::ROOT, "holiday.txt", Some(12_345));
        world.add(NodeId::ROOT, "report draft.png", Some(30_000));
        assert_eq!(world.guess(NodeId::ROOT, &[], "report final.txt", 41_000), [draft]);
        assert_eq!(world.guess(NodeId::ROOT, &[], "x", 12_345), [other]);
        assert!(world.guess(NodeId::ROOT, &[], "report final.txt", 400).is_empty(), "too short");
        assert!(world.guess(NodeId::ROOT, &[], "report final.txt", 4_000_000).is_empty(), "too long");
    }

    #[test]
    fn of_files_of_one_name_the_one_in_like_folders_comes_first() {
        let mut world = World::new();
        let old = world.add(NodeId::ROOT, "lib-1.0", None);
        let (a, b) = (world.add(old, "a", None), world.add(old, "b", None));
        let in_a = world.add(a, "mod.rs", Some(5_000));
        let in_b = world.add(b, "mod.rs", Some(6_000));
        let new = world.add(NodeId::ROOT, "lib-1.1", None);
        let new_b = world.add(new, "b", None);
        assert_eq!(world.guess(new_b, &["b", "lib-1.1"], "mod.rs", 6_100), [in_b, in_a]);
    }
}
