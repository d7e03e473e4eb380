//! What a power cut leaves.
//!
//! | what | survives a power cut |
//! |---|---|
//! | names of a folder | in the order in which they changed, up to some point per folder; all, once the folder was synced |
//! | a rename or swap of names | wholly or not at all, also across folders |
//! | bytes of a file | as last synced, as they are, cut short, with holes of zeros, or all zeros |
//! | mode and time of a file | as last synced or as they are |
//! | a symlink's text | with its name |
//!
//! Real filesystems promise more: ext4 keeps one order over all folders, and syncs a new file's name with its bytes.

use super::inode::{Body, Inner, Inode, NameOp, ROOT};
use crate::model::Name;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes are kept or lost in pieces of this size.
const SECTOR_BYTES: usize = 512;

impl Inner {
    pub fn open(&mut self, ino: u64) -> u64 {
        if let Some(node) = self.inodes.get_mut(&ino) {
            node.handles += 1;
        }
        self.handles += 1;
        self.handles
    }

    pub fn close(&mut self, ino: u64) {
        if let Some(node) = self.inodes.get_mut(&ino) {
            node.handles = node.handles.saturating_sub(1);
        }
    }

    /// fsync of a file: its bytes and metadata, not its name.
    pub fn persist_file(&mut self, ino: u64) {
        if let Some(node) = self.inodes.get_mut(&ino) {
            node.persist();
        }
    }

    /// fsync of a folder: its names, and what renames drag along.
    pub fn persist_names(&mut self, dir: u64) {
        let mut until = BTreeMap::from([(dir, self.pending.len())]);
        loop {
            let before = until.clone();
            for (at, op) in self.pending.iter().enumerate() {
                let asked = op.iter().any(|(dir, _, _)| until.get(dir).is_some_and(|until| at < *until));
                if asked {
                    for (dir, _, _) in op {
                        let until = until.entry(*dir).or_default();
                        *until = (*until).max(at + 1);
                    }
                }
            }
            if until == before {
                break;
            }
        }
        self.persist_until(&until);
    }

    /// Applies the pending changes of names of each folder before its point; every change is before all its points or
    /// after all of them.
    fn persist_until(&mut self, until: &BTreeMap<u64, usize>) {
        let pending = std::mem::take(&mut self.pending);
        for (at, op) in pending.into_iter().enumerate() {
            let now = op.iter().all(|(dir, _, _)| until.get(dir).is_some_and(|until| at < *until));
            if now { self.persist_op(&op) } else { self.pending.push(op) }
        }
    }

    fn persist_op(&mut self, op: &NameOp) {
        for (dir, name, new) in op {
            if let Some(Inode { body: Body::Folder { durable, .. }, .. }) = self.inodes.get_mut(dir) {
                match new {
                    Some(ino) => drop(durable.insert(name.clone(), *ino)),
                    None => drop(durable.remove(name)),
                }
            }
        }
    }

    /// syncfs.
    pub fn persist_all(&mut self) {
        for op in std::mem::take(&mut self.pending) {
            self.persist_op(&op);
        }
        self.inodes.values_mut().for_each(Inode::persist);
        self.collect();
    }

    /// Frees inodes that nothing leads to, so that their numbers are used again.
    fn collect(&mut self) {
        let mut kept: BTreeSet<u64> =
            self.pending.iter().flatten().flat_map(|(dir, _, new)| [Some(*dir), *new]).flatten().collect();
        kept.insert(ROOT);
        for node in self.inodes.values() {
            if let Body::Folder { names, durable } = &node.body {
                kept.extend(names.values().chain(durable.values()));
            }
        }
        let free = |(ino, node): (&u64, &Inode)| (node.handles == 0 && !kept.contains(ino)).then_some(*ino);
        let gone: Vec<u64> = self.inodes.iter().filter_map(free).collect();
        for ino in gone {
            self.inodes.remove(&ino);
            self.free.insert(ino);
        }
    }

    /// Throws away what was not synced, by chance; see the module.
    pub fn lose_power(&mut self) {
        let until = self.choose_names();
        self.persist_until(&until);
        self.pending.clear();
        self.locks.clear();
        for node in self.inodes.values_mut() {
            node.places.clear();
            node.handles = 0;
            if let Body::Folder { names, durable } = &mut node.body {
                names.clone_from(durable);
            }
        }
        self.place_all();
        self.collect_unplaced();
        let files: Vec<u64> = self.inodes.keys().copied().collect();
        for ino in files {
            self.tear(ino);
        }
    }

    /// Up to which pending change each folder's names survive.
    fn choose_names(&mut self) -> BTreeMap<u64, usize> {
        let ops = self.pending.clone();
        let dirs: BTreeSet<u64> = ops.iter().flatten().map(|(dir, _, _)| *dir).collect();
        let mut until = BTreeMap::new();
        for dir in dirs {
            let chosen = match self.roll(4) {
                0 => 0,
                1 => ops.len(),
                _ => usize::try_from(self.roll(ops.len() as u64 + 1)).unwrap_or(0),
            };
            until.insert(dir, chosen);
        }
        loop {
            let before = until.clone();
            for (at, op) in ops.iter().enumerate() {
                let whole = op.iter().all(|(dir, _, _)| until.get(dir).is_some_and(|until| at < *until));
                if !whole {
                    for (dir, _, _) in op {
                        let until = until.entry(*dir).or_default();
                        *until = (*until).min(at);
                    }
                }
            }
            if until == before {
                return until;
            }
        }
    }

    fn place_all(&mut self) {
        let mut queue = vec![ROOT];
        let mut seen = BTreeSet::new();
        while let Some(dir) = queue.pop() {
            if !seen.insert(dir) {
                continue;
            }
            let Some(Inode { body: Body::Folder { names, .. }, .. }) = self.inodes.get(&dir) else {
                continue;
            };
            let names: Vec<(Name, u64)> = names.iter().map(|(name, ino)| (name.clone(), *ino)).collect();
            for (name, ino) in names {
                if let Some(node) = self.inodes.get_mut(&ino) {
                    node.places.insert((dir, name));
                    queue.push(ino);
                }
            }
        }
    }

    fn collect_unplaced(&mut self) {
        let gone: Vec<u64> = self
            .inodes
            .iter()
            .filter(|(ino, node)| **ino != ROOT && node.places.is_empty())
            .map(|(ino, _)| *ino)
            .collect();
        for ino in gone {
            self.inodes.remove(&ino);
            self.free.insert(ino);
        }
    }

    fn tear(&mut self, ino: u64) {
        let (how, keep_meta, seed) = (self.roll(6), self.roll(2), self.roll(u64::MAX));
        let Some(node) = self.inodes.get_mut(&ino) else { return };
        if let Some((mode, mtime_ns)) = node.durable_meta
            && keep_meta == 0
        {
            (node.mode, node.mtime_ns) = (mode, mtime_ns);
        }
        node.durable_meta = Some((node.mode, node.mtime_ns));
        let Body::File { bytes, durable, .. } = &mut node.body else { return };
        if durable.as_ref() == Some(bytes) {
            return;
        }
        let old = durable.take().unwrap_or_default();
        match how {
            0 | 1 => *bytes = old,
            2 => {}
            3 => bytes.truncate(usize::try_from(seed).unwrap_or(0) % (bytes.len() + 1)),
            4 => bytes.fill(0),
            _ => {
                for (n, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
                    if (seed >> (n % 64)) & 1 == 0 {
                        let at = n * SECTOR_BYTES;
                        for (k, byte) in sector.iter_mut().enumerate() {
                            *byte = old.get(at + k).copied().unwrap_or(0);
                        }
                    }
                }
            }
        }
        node.persist();
    }

    /// True when a file's bytes and every name on its path are durable.
    pub fn is_durable(&self, path: &[u8]) -> bool {
        let mut at = ROOT;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            let Ok(name) = Name::new(part) else { return false };
            let Some(Inode { body: Body::Folder { names, durable }, .. }) = self.inodes.get(&at) else {
                return false;
            };
            match (names.get(&name), durable.get(&name)) {
                (Some(now), Some(then)) if now == then => at = *now,
                _ => return false,
            }
        }
        match self.inodes.get(&at).map(|node| &node.body) {
            Some(Body::File { bytes, durable, .. }) => durable.as_ref() == Some(bytes),
            Some(_) => true,
            None => false,
        }
    }
}

impl Inode {
    fn persist(&mut self) {
        self.durable_meta = Some((self.mode, self.mtime_ns));
        if let Body::File { bytes, durable, .. } = &mut self.body
            && durable.as_ref() != Some(bytes)
        {
            *durable = Some(bytes.clone());
        }
    }
}
