//! What the user did is made durable before it is recorded as agreed.
//!
//! A program saves without a sync, the client sends the bytes, the server answers, and then the power fails: the file
//! comes back empty, torn, or not at all. If the state says that both sides had agreed, that looks like the user's edit
//! or delete, and destroys the good version everywhere. So files and names that the user changed are synced first; until
//! then a power cut leaves a base that is older than the server, and the good version is taken from there.
//!
//! What is gone is synced before its delete is even sent. It may have been moved to where nobody looked yet; were the move
//! undone, the only copy left would be the one that the server wants deleted.

use super::Client;
use super::cycle::Agreed;
use crate::folder::FolderError;
use crate::model::{NodeId, RelPath};
use std::collections::BTreeSet;

impl Client {
    /// The disk showed a node as the user made it.
    pub(super) fn made_by_user(&mut self, id: NodeId) {
        self.unsynced.insert(id);
    }

    /// A node is on disk as this client placed it, which is durable.
    pub(super) fn made_by_us(&mut self, id: NodeId) {
        self.unsynced.remove(&id);
    }

    /// Makes those of the nodes durable that the user changed. Called before they are recorded, while the base still
    /// says where they were.
    pub(super) fn sync_users(&mut self, agreed: &[Agreed]) -> Result<(), FolderError> {
        let ids: Vec<NodeId> =
            agreed.iter().map(|(id, _)| *id).filter(|id| self.unsynced.contains(id)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        // What was agreed is no difference any more, and not in the base yet.
        let mut disk = self.cycle.disk(&self.state.base);
        for (id, node) in agreed {
            disk.set(*id, node.as_ref().map(|node| node.state.clone()));
        }
        let (mut files, mut folders) = (BTreeSet::new(), BTreeSet::new());
        for id in &ids {
            let was = self.state.base.path_of(*id);
            let is = disk.path_of(*id);
            let parent = |path: &RelPath| path.split_last().map(|(parent, _)| parent);
            folders.extend(was.as_ref().and_then(parent));
            folders.extend(is.as_ref().and_then(parent));
            let is_file = disk.state(*id).is_some_and(|state| state.kind.content().is_some());
            files.extend(is.filter(|_| is_file));
        }
        let folder = &self.folder;
        folder.work().here(|| folder.sync_users(&files, &folders))?;
        for id in &ids {
            self.unsynced.remove(id);
        }
        Ok(())
    }
}
