//! Trees in a few characters. A script is acts in a row, done on a tree one after the other; a picture is the same
//! language for what a tree holds.
//!
//! | act | does |
//! |---|---|
//! | `d/` | makes a folder |
//! | `f=1` | writes content 1 to a file: a new node, or the same node when the file is there |
//! | `f=1@5` `f=1!` `f=1@5!` | the same with time 5, with exec bit |
//! | `l:t` | makes a symlink to `t`, or points it there |
//! | `-f` `-d` | deletes, folders with all they hold |
//! | `f>g` | moves; the folder of `g` is there, `g` is not |
//!
//! Names have no blanks, but for conflict copies: `f{pc}` is the copy of `f` that device `pc` made, `f{pc_2}` the second.

use dropblock::model::{BlockHash, FileContent, IdSource, Kind, Name, NodeId, NodeState, RelPath, Root, Seq};
use dropblock::reconcile::Origin;
use dropblock::tree::{Diff, Tree, TreeNode};
use std::collections::BTreeSet;

/// Who merges, and when.
pub const ORIGIN: Origin<'static> = Origin { device: "pc", when: "now" };

/// A path as scripts write it.
pub fn path(text: &str) -> RelPath {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, mark)) = rest.split_once('{') {
        let (mark, after) = mark.split_once('}').expect("a mark ends");
        let (device, number) =
            mark.split_once('_').map_or((mark, String::new()), |(d, n)| (d, format!(" {n}")));
        out += &format!("{before} (conflict from {device} now{number})");
        rest = after;
    }
    RelPath::parse((out + rest).as_bytes()).unwrap()
}

/// A path as scripts write it, from the real one.
pub fn shown(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, mark)) = rest.split_once(" (conflict from ") {
        let (mark, after) = mark.split_once(')').expect("a mark ends");
        out += &format!("{before}{{{}}}", mark.replace(" now", "").replace(' ', "_"));
        rest = after;
    }
    out + rest
}

pub fn content(text: &str) -> FileContent {
    let root = Root { params: 1, level: 0, hash: BlockHash::of(text.as_bytes()) };
    FileContent { size: text.len() as u64, root }
}

pub fn file(text: &str) -> Kind {
    Kind::File { content: content(text), mtime_ns: 0, exec: false }
}

pub fn put(tree: &mut Tree, id: NodeId, state: NodeState) {
    tree.insert(id, TreeNode { version: Seq::ZERO, state });
}

pub fn id_at(tree: &Tree, at: &str) -> NodeId {
    tree.by_path(&path(at)).unwrap_or_else(|| panic!("nothing at {at}"))
}

/// Does a script on a tree.
pub fn run(tree: &mut Tree, script: &str, ids: &mut IdSource) {
    for act in script.split_whitespace() {
        if let Some(gone) = act.strip_prefix('-') {
            let id = id_at(tree, gone);
            for below in tree.descendants(id) {
                tree.remove(below);
            }
            tree.remove(id);
        } else if let Some((from, to)) = act.split_once('>') {
            let id = id_at(tree, from);
            let (parent, name) = place(tree, to);
            assert_eq!(tree.child(parent, &name), None, "{act}: taken");
            let kind = tree.get(id).unwrap().state.kind.clone();
            put(tree, id, NodeState { parent, name, kind });
        } else if let Some(folder) = act.strip_suffix('/') {
            write(tree, folder, Kind::Folder, ids);
        } else if let Some((link, target)) = act.split_once(':') {
            write(tree, link, Kind::Symlink { target: target.into(), mtime_ns: 0 }, ids);
        } else {
            let (at, value) = act.split_once('=').unwrap_or_else(|| panic!("not an act: {act}"));
            let (value, exec) = value.strip_suffix('!').map_or((value, false), |value| (value, true));
            let (text, mtime) = value.split_once('@').unwrap_or((value, "0"));
            let kind = Kind::File { content: content(text), mtime_ns: mtime.parse().unwrap(), exec };
            write(tree, at, kind, ids);
        }
    }
}

fn place(tree: &Tree, at: &str) -> (NodeId, Name) {
    let at = path(at);
    let (parent, name) = at.split_last().unwrap();
    let parent = if parent.is_root() { NodeId::ROOT } else { tree.by_path(&parent).unwrap() };
    (parent, name.clone())
}

fn write(tree: &mut Tree, at: &str, kind: Kind, ids: &mut IdSource) {
    let (parent, name) = place(tree, at);
    let id = tree.child(parent, &name).unwrap_or_else(|| ids.node());
    put(tree, id, NodeState { parent, name, kind });
}

/// What a tree holds, in order of paths; without ids.
pub fn picture(tree: &Tree) -> Vec<String> {
    let mut found: Vec<(RelPath, &Kind)> = tree
        .iter()
        .map(|(id, node)| (tree.path_of(id).expect("every node hangs on the root"), &node.state.kind))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let places: BTreeSet<&RelPath> = found.iter().map(|(path, _)| path).collect();
    assert_eq!(places.len(), found.len(), "two nodes at one place");
    found.into_iter().map(|(path, kind)| format!("{}{}", shown(&path.to_string()), value(kind))).collect()
}

fn value(kind: &Kind) -> String {
    match kind {
        Kind::Folder => "/".to_owned(),
        Kind::Symlink { target, .. } => format!(":{}", String::from_utf8_lossy(target)),
        Kind::File { content: held, mtime_ns, exec } => {
            // Contents are at most two digits, so a hash can be looked up.
            let text = (0..100).map(|n| n.to_string()).find(|text| content(text) == *held);
            let time = if *mtime_ns == 0 { String::new() } else { format!("@{mtime_ns}") };
            format!("={}{time}{}", text.unwrap_or_else(|| "?".to_owned()), if *exec { "!" } else { "" })
        }
    }
}

/// What leads from one tree to another.
pub fn diff(from: &Tree, to: &Tree) -> Diff {
    let ids: BTreeSet<NodeId> = from.iter().chain(to.iter()).map(|(id, _)| id).collect();
    let state = |tree: &Tree, id| tree.get(id).map(|node| node.state.clone());
    ids.into_iter().filter(|id| state(from, *id) != state(to, *id)).map(|id| (id, state(to, id))).collect()
}

/// A tree with differences applied.
pub fn patched(base: &Tree, changes: &Diff) -> Tree {
    let mut tree = base.clone();
    for (id, state) in changes {
        match state {
            Some(state) => put(&mut tree, *id, state.clone()),
            None => drop(tree.remove(*id)),
        }
    }
    tree
}
