//! Tests of the room on real folders. [`World`] is one client's folder with its state, and "agreeing" stands for
//! everything a sync does: what the scan shows becomes the base.

mod apply;
mod folder;
mod recover;
mod scan;
mod scan_moves;
mod sketches;
mod speed;
mod stage;
mod state;
mod watch;

use super::scan::{Entry, Found, Scan, Scope, scan};
use super::{Folder, Stamp, State, Update};
use crate::model::{BlockHash, FileContent, IdSource, Kind, Name, NodeId, NodeState, RelPath, Root, Seq};
use crate::tree::TreeNode;
use std::path::PathBuf;

pub struct World {
    temp: tempfile::TempDir,
    pub folder: Folder,
    pub state: State,
    pub ids: IdSource,
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub fn rel(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

pub fn content(bytes: &[u8]) -> FileContent {
    let root = Root { params: 1, level: 0, hash: BlockHash::of(bytes) };
    FileContent { size: bytes.len() as u64, root }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl World {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temp.path().join("f"), true).unwrap();
        let (state, loaded) = folder.load_state().unwrap();
        assert!(loaded.first && folder.is_new());
        Self { temp, folder, state, ids: IdSource::new([9; 32]) }
    }

    /// Stops the client without a word and starts it again.
    pub fn restart(self) -> Self {
        let Self { temp, folder, state, ids } = self;
        drop((folder, state));
        let folder = Folder::open(&temp.path().join("f"), false).unwrap();
        let (state, _) = folder.load_state().unwrap();
        Self { temp, folder, state, ids }
    }

    pub fn path(&self, text: &str) -> PathBuf {
        self.temp.path().join("f").join(text)
    }

    pub fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.path(path)).unwrap()
    }

    pub fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.path(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    pub fn scan(&mut self) -> Scan {
        scan(&self.folder, &self.state, &Scope::Full, &mut self.ids).unwrap()
    }

    pub fn scan_dirs(&mut self, dirs: &[&str]) -> Scan {
        let dirs = dirs.iter().map(|dir| rel(dir)).collect();
        scan(&self.folder, &self.state, &Scope::Dirs(dirs), &mut self.ids).unwrap()
    }

    /// Makes what is on disk the base.
    pub fn agree(&mut self) {
        let scan = self.scan();
        self.accept(&scan);
        assert_eq!(self.scan(), Scan { tracked: self.state.tracked_files(), ..still(&scan) });
    }

    /// Makes these bytes those that are agreed on for a file: `agree` says that all are empty.
    pub fn agree_bytes(&mut self, path: &str, bytes: &[u8]) {
        let id = self.id(path);
        let mut node = self.state.base.get(id).unwrap().clone();
        if let Kind::File { content: agreed, .. } = &mut node.state.kind {
            *agreed = content(bytes);
        }
        self.state.save(vec![Update::Put { id, node, stamp: None }], false).unwrap();
    }

    /// Makes what a scan shows the base.
    pub fn accept(&mut self, scan: &Scan) {
        let mut batch: Vec<Update> = scan.gone.iter().map(|id| Update::Remove(*id)).collect();
        batch.extend(scan.found.iter().map(|found| {
            let kind = match &found.entry {
                Entry::Folder { .. } => Kind::Folder,
                Entry::Symlink { stamp, target } => {
                    Kind::Symlink { target: target.clone(), mtime_ns: stamp.mtime_ns }
                }
                Entry::File { stamp } => {
                    Kind::File { content: content(b""), mtime_ns: stamp.mtime_ns, exec: stamp.exec }
                }
            };
            let state = NodeState { parent: found.parent, name: found.name.clone(), kind };
            let node = TreeNode { version: Seq(1), state };
            Update::Put { id: found.id, node, stamp: Some(*found.entry.stamp()) }
        }));
        self.state.save(batch, false).unwrap();
    }

    pub fn id(&self, path: &str) -> NodeId {
        self.state.base.by_path(&rel(path)).unwrap()
    }

    pub fn stamp(&self, path: &str) -> Stamp {
        self.folder.look(&rel(path)).unwrap().unwrap().stamp
    }

    /// A staged file that is ready to be placed.
    pub fn staged(&mut self, id: NodeId, bytes: &[u8]) -> super::stage::Staged {
        let file = super::stage::StagedFile::create(&self.folder, id, &content(bytes)).unwrap();
        file.write_at(0, bytes).unwrap();
        file.finish(&self.folder, false, 1_000_000_007).unwrap()
    }
}

/// A scan after which nothing changed: only what stays a problem is reported again.
fn still(scan: &Scan) -> Scan {
    Scan { problems: scan.problems.clone(), special: scan.special.clone(), ..Scan::default() }
}

/// `path kind` of what a scan found, for comparison: n new, m moved, t touched.
pub fn shown(world: &World, scan: &Scan) -> Vec<String> {
    let mut new_paths = std::collections::HashMap::from([(NodeId::ROOT, String::new())]);
    let mut lines = Vec::new();
    for found in &scan.found {
        let parent = match new_paths.get(&found.parent) {
            Some(path) => path.clone(),
            None => format!("{}/", world.state.base.path_of(found.parent).unwrap()),
        };
        let path = format!("{parent}{}", found.name);
        new_paths.insert(found.id, format!("{path}/"));
        lines.push(format!("{path} {}", flags(world, found)));
    }
    lines.extend(scan.gone.iter().map(|id| format!("{} gone", world.state.base.path_of(*id).unwrap())));
    lines
}

fn flags(world: &World, found: &Found) -> String {
    assert_eq!(found.new, world.state.base.get(found.id).is_none());
    let was = world.state.base.path_of(found.id).map(|path| format!("<- {path}"));
    match (found.new, found.moved, found.touched) {
        (true, false, true) => "new".to_owned(),
        (false, true, true) => format!("{} touched", was.unwrap()),
        (false, true, false) => was.unwrap(),
        (false, false, true) => "touched".to_owned(),
        other => panic!("{other:?}"),
    }
}
