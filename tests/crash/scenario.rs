//! What happens again and again while programs die: two folders, one round of changes on both sides, and what must be
//! there in the end.

use crate::support::disk::Folder;
use crate::support::tree::{Item, Tree};
use crate::support::world::{World, assert_equal};
use crate::support::{random_bytes, text};
use std::collections::BTreeSet;

/// Two folders in step, and a server.
pub struct Scenario {
    /// The machine.
    pub world: World,
    /// Makes most of the changes.
    pub a: Folder,
    /// Gets them, and has some of its own.
    pub b: Folder,
    round: u64,
}

/// What one round must come to.
pub struct Round {
    /// Everything except `both`.
    want: Tree,
    /// What the sides wrote into `both`: the one that b had written, and a after it.
    both: [String; 2],
    /// What was there before.
    before: BTreeSet<[u8; 32]>,
    /// Every content that may be seen at any time.
    known: BTreeSet<[u8; 32]>,
    /// Every name that may be seen at any time.
    names: BTreeSet<Vec<u8>>,
}

const COPY: &str = "both (conflict from ";

impl Scenario {
    /// A server, and two folders that agree.
    pub fn new() -> Self {
        let world = World::new();
        let (a, b) = (world.folder("a"), world.folder("b"));
        for i in 0..6 {
            a.write(format!("dir-0/{i}"), format!("{i}"));
        }
        a.write("dir-0/deep/er", "deep");
        a.write("new-0/one", "one");
        a.write("gone-0", "gone");
        a.write("from-b-0", "from b");
        a.write("big", random_bytes(1, 2_000_000));
        a.write("doc", text(1, 50_000));
        a.write("run", "#!/bin/sh\n");
        a.write("both", "start");
        a.symlink("doc", "link");
        world.sync_all(&[&a, &b]);
        Self { world, a, b, round: 0 }
    }

    /// Both folders, in the order in which they sync.
    pub fn folders(&self) -> [&Folder; 2] {
        [&self.a, &self.b]
    }

    /// One round of changes: create, edit, rename a folder, edit inside it, delete, replace a large file, conflict.
    pub fn change(&mut self, seed: u64) -> Round {
        let before = assert_equal(&self.folders());
        let last = self.round;
        self.round += 1;
        let now = self.round;
        let unique = format!("{now} of {seed}");
        let (a, b) = (&self.a, &self.b);
        // First b: its edit inside the folder must not meet a live rename.
        b.save(format!("dir-{last}/4"), format!("edited by b {unique}"));
        b.save(format!("from-b-{now}"), format!("from b {unique}"));
        b.remove(format!("from-b-{last}"));
        let both = [format!("b {unique}"), format!("a {unique}")];
        b.save("both", &both[0]);
        let (from_b, edited_by_b) = (format!("from-b-{now}"), b.item(format!("dir-{last}/4")).unwrap());
        let (from_b_item, b_tree) = (b.item(&from_b).unwrap(), b.tree());

        a.save("both", &both[1]);
        before.copies().iter().for_each(|copy| a.remove(copy));
        a.write(format!("new-{now}/one"), format!("one {unique}"));
        a.write(format!("new-{now}/two"), format!("two {unique}"));
        a.remove(format!("new-{last}"));
        a.rename(format!("dir-{last}"), format!("dir-{now}"));
        a.save(format!("dir-{now}/2"), format!("edited by a {unique}"));
        a.write(format!("gone-{now}"), format!("gone {unique}"));
        a.remove(format!("gone-{last}"));
        a.save(
            "big",
            random_bytes(seed.wrapping_mul(7919) + now, 2_000_000 + (seed % 4) as usize * 1_500_000),
        );
        a.save("doc", format!("{unique}\n{}", text(1, 50_000)));
        a.chmod("run", if now % 2 == 1 { 0o755 } else { 0o644 });
        a.remove("link");
        a.symlink(format!("new-{now}/one"), "link");

        let a_tree = a.tree();
        let mut want = a_tree.clone();
        want.0.retain(|path, _| path != b"both" && !path.starts_with(b"from-b-"));
        want.0.insert(from_b.into_bytes(), from_b_item);
        want.0.insert(format!("dir-{now}/4").into_bytes(), edited_by_b);
        let trees = [&before, &a_tree, &b_tree, &want];
        let known = trees.iter().flat_map(|tree| tree.0.values()).filter_map(hash).collect();
        let names = trees.iter().flat_map(|tree| tree.0.keys().cloned()).collect();
        let before = before.0.values().filter_map(hash).collect();
        Round { want, both, before, known, names }
    }

    /// Everybody syncs; then everything must be as `round` says.
    pub fn settle(&self, round: &Round) {
        let tree = self.world.sync_all(&self.folders());
        round.check(&tree, true);
    }
}

impl Round {
    /// A folder in the middle of it: whole files of contents that somebody saved, under names that somebody gave.
    pub fn check_sane(&self, folder: &Folder) {
        for (path, item) in &folder.tree().0 {
            let name = String::from_utf8_lossy(path);
            assert!(
                self.names.contains(path) || name.starts_with(COPY),
                "{name} in {} is nobody's name",
                folder.name()
            );
            if let Some(hash) = hash(item) {
                assert!(
                    self.known.contains(&hash),
                    "{name} in {} has a content that nobody wrote",
                    folder.name()
                );
            }
        }
    }

    /// Everything that was in `acknowledged` when a client was told so is in `found`, at its place or (a conflict) anywhere.
    pub fn check_acknowledged(&self, acknowledged: &Tree, found: &Tree) {
        let contents: BTreeSet<_> = found.0.values().filter_map(hash).collect();
        for (path, item) in &acknowledged.0 {
            // What was there before may have been replaced by the other side.
            if let Some(hash) = hash(item).filter(|hash| !self.before.contains(hash)) {
                let name = String::from_utf8_lossy(path);
                assert!(contents.contains(&hash), "{name} was acknowledged and is lost");
            }
        }
    }

    /// The end of the round. With `apart`, the sides did not see one another while they wrote: the conflict has one copy.
    pub fn check(&self, tree: &Tree, apart: bool) {
        let copies = tree.copies();
        let mut rest = tree.clone();
        rest.0.retain(|path, _| path != b"both" && !path.starts_with(COPY.as_bytes()));
        if let Some(difference) = self.want.difference(&rest) {
            panic!("not (left) but (right):\n{difference}");
        }
        let mut contents: Vec<_> =
            copies.iter().map(String::as_str).chain(["both"]).filter_map(|name| tree.content(name)).collect();
        contents.sort();
        match copies.len() {
            1 => assert_eq!(contents, [self.both[1].as_str(), self.both[0].as_str()], "{copies:?}"),
            // b's was known where a's was written: a's is an edit of it.
            0 if !apart => assert_eq!(contents, [self.both[1].as_str()]),
            _ => panic!("copies: {copies:?} with {contents:?}"),
        }
    }
}

fn hash(item: &Item) -> Option<[u8; 32]> {
    match item {
        Item::File { hash, .. } => Some(*hash.as_bytes()),
        _ => None,
    }
}
