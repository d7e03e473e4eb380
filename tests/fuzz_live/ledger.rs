//! What people saved, what people destroyed, and what happened last.

use crate::support::tree::{Item, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Lines of what happened that a failure shows.
const TOLD_LINES: usize = 120;

/// The name of a content.
pub type Content = [u8; 32];

/// The name of a file's bytes.
pub fn file(bytes: &[u8]) -> Content {
    *blake3::hash(bytes).as_bytes()
}

/// The name of a link's text.
pub fn link(target: &[u8]) -> Content {
    *blake3::Hasher::new().update(b"link to ").update(target).finalize().as_bytes()
}

/// Shared by the people of one world.
pub struct Ledger {
    seed: u64,
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    saved: BTreeMap<Content, String>,
    destroyed: BTreeSet<Content>,
    /// A person overwrote something that came to the place in that very instant: nobody knows what it was.
    blind: bool,
    happened: Vec<String>,
}

impl Ledger {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        Self { seed, start: Instant::now(), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened.
    pub fn note(&self, what: String) {
        let line = format!("{:>7} ms  {what}", self.start.elapsed().as_millis());
        self.inner().happened.push(line);
    }

    /// A person has saved this content.
    pub fn saved(&self, content: Content, place: String) {
        let at = self.start.elapsed().as_millis();
        self.inner().saved.insert(content, format!("{place} at {at} ms"));
    }

    /// A person has deleted, overwritten or edited this content, knowing it.
    pub fn destroyed(&self, content: Content) {
        self.inner().destroyed.insert(content);
    }

    /// A person has overwritten what nobody saw.
    pub fn blind(&self) {
        self.inner().blind = true;
    }

    /// Contents that were saved, that nobody destroyed, and that are nowhere.
    pub fn lost(&self, tree: &Tree, world: &Path) -> Vec<String> {
        let mut there: BTreeSet<Content> = contents(tree);
        // What people moved out of their folders.
        for entry in std::fs::read_dir(world).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("out-")) {
                there.extend(contents(&Tree::of(&path)));
            }
        }
        let inner = self.inner();
        if inner.blind {
            return Vec::new();
        }
        let lost = inner
            .saved
            .iter()
            .filter(|(content, _)| !there.contains(*content) && !inner.destroyed.contains(*content));
        lost.map(|(content, place)| format!("  {} saved in {place}", short(content))).collect()
    }

    /// The last things that happened.
    pub fn text(&self, lines: usize) -> String {
        let inner = self.inner();
        let from = inner.happened.len().saturating_sub(lines);
        let mut text = format!("seed {}; the last operations:\n", self.seed);
        for line in &inner.happened[from..] {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Prints the last things that happened.
    pub fn tell(&self) {
        eprintln!("{}", self.text(TOLD_LINES));
    }
}

/// The first digits of a content's name.
pub fn short(content: &Content) -> String {
    content[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn contents(tree: &Tree) -> BTreeSet<Content> {
    let one = |item: &Item| match item {
        Item::File { hash, .. } => Some(*hash.as_bytes()),
        Item::Symlink { target, .. } => Some(link(target)),
        _ => None,
    };
    tree.0.values().filter_map(one).collect()
}
