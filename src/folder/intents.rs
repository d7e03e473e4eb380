//! What was announced and not recorded: at the start of a session it is looked for in its place.

use super::state::{Batch, State, Update};
use super::{EntryKind, Folder, FolderError, Meta, Stamp};
use crate::tree::TreeNode;
use std::collections::BTreeMap;

/// How what was announced looks in its place, for the state, if this is it.
fn placed_stamp(node: &TreeNode, announced: &Stamp, there: &Meta) -> Option<Stamp> {
    if node.state.kind.is_folder() && *announced == Stamp::NONE {
        // One that was to be made: whoever made it, folders of one name are one.
        return (there.kind == EntryKind::Folder).then_some(there.stamp);
    }
    (there.stamp.identity() == announced.identity()).then(|| announced.distrusted())
}

impl Folder {
    /// Records what had been put in place and not been recorded, because the run ended or the disk failed in between. Call
    /// after [`Folder::recover`], and before the first scan of a session, which reads those files again: taken for the
    /// user's own, they would bring back what others delete meanwhile.
    ///
    /// # Errors
    /// Failures of the disk.
    pub fn settle_intents(&self, state: &mut State) -> Result<usize, FolderError> {
        let mut open = std::mem::take(&mut state.intents);
        let mut settled = 0;
        // What was put into a folder that was made for it is found once the folder is known.
        loop {
            let (mut batch, mut waiting) = (Batch::new(), BTreeMap::new());
            for (id, (node, stamp)) in open {
                let Some(parent) = state.base.path_of(node.state.parent) else {
                    waiting.insert(id, (node, stamp));
                    continue;
                };
                let there = self.look(&parent.join(&node.state.name))?;
                let placed = there.and_then(|meta| placed_stamp(&node, &stamp, &meta));
                // Agreed as another node since then: as that it stays.
                let is_other = |place: &Stamp| {
                    state.base.child(node.state.parent, &node.state.name).is_some_and(|there| there != id)
                        || state.owners(place.identity()).any(|owner| owner != id)
                };
                if let Some(stamp) = placed.filter(|stamp| !is_other(stamp)) {
                    batch.push(Update::Put { id, node, stamp: Some(stamp) });
                }
            }
            let count = batch.len();
            settled += count;
            state.save(batch, true)?;
            open = waiting;
            if count == 0 || open.is_empty() {
                return Ok(settled);
            }
        }
    }
}
