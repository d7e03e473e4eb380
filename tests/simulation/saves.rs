//! What users saved, and what became of it: the oracle of R5 and R9.
//!
//! A content must exist at the end unless a user removed it knowingly: overwrote or deleted a file while it held that
//! content on that user's own disk. What a power cut took before it was durable is excused. A copy of a content that was
//! removed elsewhere keeps it as long as the copy lasts: when the power takes the copy, the removal counts again.

use super::dice::hash;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// A content by its hash.
pub type Content = u64;

/// The hash of a file's bytes.
pub fn of_file(bytes: &[u8]) -> Content {
    hash(bytes)
}

/// The hash of a symlink's text, apart from files.
pub fn of_link(text: &[u8]) -> Content {
    hash(text).rotate_left(32)
}

/// Everything users did, over all machines.
#[derive(Debug, Clone, Default)]
pub struct Saves(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// Content -> where and when it was saved first.
    saved: BTreeMap<Content, String>,
    removed: BTreeMap<Content, String>,
    /// Removed contents that were saved anew, with the story of the removal.
    revived: BTreeMap<Content, String>,
    excused: BTreeSet<Content>,
    /// Contents that a power cut made of a user's own unsynced file.
    torn: BTreeSet<Content>,
    secured: BTreeSet<Content>,
}

impl Saves {
    pub fn saved(&self, content: Content, story: String) {
        let mut book = self.0.lock().unwrap();
        book.saved.entry(content).or_insert(story);
        // Written anew on top of whatever happened before.
        if let Some(removal) = book.removed.remove(&content) {
            book.revived.insert(content, removal);
        }
        book.excused.remove(&content);
    }

    pub fn removed(&self, content: Content, story: String) {
        self.0.lock().unwrap().removed.entry(content).or_insert(story);
    }

    /// The user had the system make it durable.
    pub fn secured(&self, content: Content) {
        self.0.lock().unwrap().secured.insert(content);
    }

    /// A power cut took it.
    pub fn lost_power(&self, content: Content) {
        let mut book = self.0.lock().unwrap();
        if !book.secured.contains(&content) {
            book.excused.insert(content);
        }
    }

    /// A power cut took one of several files that had it.
    pub fn lost_copy(&self, content: Content) {
        let mut book = self.0.lock().unwrap();
        if let Some(removal) = book.revived.remove(&content) {
            book.removed.entry(content).or_insert(removal);
        }
    }

    pub fn torn(&self, content: Content) {
        self.0.lock().unwrap().torn.insert(content);
    }

    pub fn is_known(&self, content: Content) -> bool {
        let book = self.0.lock().unwrap();
        book.saved.contains_key(&content) || book.torn.contains(&content)
    }

    /// What must be there and is not.
    pub fn missing(&self, there: &BTreeSet<Content>) -> Vec<String> {
        let book = self.0.lock().unwrap();
        let lost = book.saved.iter().filter(|(content, _)| {
            !there.contains(content) && !book.removed.contains_key(content) && !book.excused.contains(content)
        });
        lost.map(|(content, story)| format!("R5: {content:016x} is lost: {story}")).collect()
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().saved.len()
    }
}
