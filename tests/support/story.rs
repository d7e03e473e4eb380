//! The shape of most tests: folders that are equal, a change, folders that are equal again. In both modes.

use super::DEADLINE;
use super::disk::Folder;
use super::tree::Tree;
use super::world::{Client, World, assert_equal, wait_equal, wait_for, wait_tree};

/// How folders are synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// `sync --once` per folder, one after the other.
    Once,
    /// A live client per folder.
    Live,
}

/// A world with folders that are kept equal.
pub struct Story {
    clients: Vec<Client>,
    /// The machine.
    pub world: World,
    /// The folders, `a` first.
    pub folders: Vec<Folder>,
    mode: Mode,
}

/// What someone does to a folder.
pub type Deed<'a> = &'a dyn Fn(&Folder);

impl Story {
    /// Empty folders, all clients connected in live mode.
    pub fn new(mode: Mode, count: usize) -> Self {
        let world = World::new();
        let folders = world.folders(count);
        let mut story = Self { clients: Vec::new(), world, folders, mode };
        story.together();
        if mode == Mode::Live {
            // A file that arrives everywhere, and vanishes everywhere, shows that all clients are there.
            story.folders[0].write("start", "here\n");
            story.settle();
            story.folders[0].remove("start");
            story.settle();
        }
        story
    }

    /// The folders.
    pub fn all(&self) -> Vec<&Folder> {
        self.folders.iter().collect()
    }

    /// Starts the clients (live mode).
    pub fn together(&mut self) {
        if self.mode == Mode::Live {
            self.clients = self.folders.iter().map(|folder| self.world.live(folder)).collect();
        }
    }

    /// Stops the clients (live mode): what is done now is done offline.
    pub fn apart(&mut self) {
        for client in self.clients.drain(..) {
            client.stop();
        }
    }

    /// Syncs until all folders are equal.
    #[track_caller]
    pub fn settle(&self) -> Tree {
        match self.mode {
            Mode::Once => self.world.sync_all(&self.all()),
            Mode::Live => wait_equal(&self.all(), DEADLINE),
        }
    }

    /// Syncs until all folders are equal and `accept` holds.
    #[track_caller]
    pub fn settle_as(&self, what: &str, accept: impl Fn(&Tree) -> bool) -> Tree {
        match self.mode {
            Mode::Once => {
                let tree = self.world.sync_all(&self.all());
                assert!(accept(&tree), "not {what}: {:?} with contents {:?}", tree.names(), tree.contents());
                tree
            }
            Mode::Live => wait_for(&self.all(), DEADLINE, what, accept),
        }
    }

    /// Five more rounds, each with a harmless change that must arrive, and no other name may appear.
    #[track_caller]
    pub fn stays_settled(&self) {
        let before = self.settle();
        for round in 0..5 {
            let origin = &self.folders[round % self.folders.len()];
            origin.write("round", format!("{round}"));
            let want = origin.tree();
            match self.mode {
                // The origin first, then the others: once around is enough when there is nothing else to tell.
                Mode::Once => {
                    self.world.sync(origin);
                    self.all().into_iter().for_each(|folder| drop(self.world.sync(folder)));
                }
                Mode::Live => wait_tree(&self.all(), &want),
            }
            let mut after = assert_equal(&self.all());
            after.0.remove(b"round".as_slice());
            assert_eq!(before.difference(&after), None, "round {round} changed something");
        }
    }
}

/// `before` is made in the first folder and synced; `change` is made in the last; then every folder must look exactly as
/// the last looked right after the change.
#[track_caller]
pub fn arrives(mode: Mode, count: usize, before: Deed<'_>, change: Deed<'_>) {
    let story = Story::new(mode, count);
    before(&story.folders[0]);
    story.settle();
    let origin = &story.folders[count - 1];
    change(origin);
    let want = origin.tree();
    match mode {
        Mode::Once => {
            story.world.sync_all(&story.all());
        }
        Mode::Live => wait_tree(&story.all(), &want),
    }
    let tree = assert_equal(&story.all());
    if let Some(difference) = want.difference(&tree) {
        panic!("the change (left) did not arrive as it was made (right):\n{difference}");
    }
}

/// `base` is made in the first folder and synced; then, apart, the i-th deed is done in the i-th folder; then all sync,
/// the first folder first, until all are equal and `accept` holds; five more rounds add nothing.
#[track_caller]
pub fn merged(
    mode: Mode,
    base: Deed<'_>,
    deeds: &[Deed<'_>],
    what: &str,
    accept: &dyn Fn(&Tree) -> bool,
) -> Tree {
    let mut story = Story::new(mode, deeds.len());
    base(&story.folders[0]);
    story.settle();
    story.apart();
    for (folder, deed) in story.folders.iter().zip(deeds) {
        deed(folder);
    }
    story.together();
    let tree = story.settle_as(what, accept);
    story.stays_settled();
    tree
}

/// A table of merges, three tests a row: what both had, what one did, what the other did, and what must come out however
/// they meet: one syncs first, the other syncs first, or both come back at once.
#[macro_export]
macro_rules! merges {
    ($($name:ident: |$base:ident| $setup:block, |$one:ident| $first:block, |$other:ident| $second:block
        => |$tree:ident| $accept:expr;)*) => {
        mod rows {
            use super::*;
            $(pub mod $name {
                use super::*;
                pub fn base($base: &Folder) $setup
                pub fn one($one: &Folder) $first
                pub fn other($other: &Folder) $second
                pub fn accept($tree: &Tree) -> bool { $accept }
            })*
        }
        $crate::merges!(@order one_first, Mode::Once, one, other, $($name)*);
        $crate::merges!(@order other_first, Mode::Once, other, one, $($name)*);
        $crate::merges!(@order live, Mode::Live, one, other, $($name)*);
    };
    (@order $module:ident, $mode:expr, $first:ident, $second:ident, $($name:ident)*) => {
        mod $module {
            use super::rows;
            use $crate::support::story::{Mode, merged};
            $(#[test]
            fn $name() {
                use rows::$name::{accept, base, one, other};
                let _ = (&one, &other);
                merged($mode, &base, &[&$first, &$second], stringify!($name), &accept);
            })*
        }
    };
}
