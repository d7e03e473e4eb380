//! Who ever stood at a path.

use super::Timeline;
use crate::model::{Name, NodeId, Seq};
use crate::storage::Result;
use std::collections::BTreeMap;

/// Nodes that ever stood at one path; of more, those that left it last are followed.
pub(super) const HOLDERS_MAX: usize = 1024;
/// Look-ups to find them. Where that is not enough, only what was there last is followed further down the path.
const LOOKS_MAX: usize = 16_384;

/// Nodes, and up to which version each counts: for ever, or until it left.
pub(super) type Holders = BTreeMap<NodeId, Seq>;

/// Every node that ever stood at a path.
pub(super) fn holders(line: &impl Timeline, names: &[Name]) -> Result<Holders> {
    let mut search = Search { line, looks_left: LOOKS_MAX };
    let mut holders = BTreeMap::from([(NodeId::ROOT, Seq(u64::MAX))]);
    for name in names {
        if search.looks_left == 0 {
            let last = holders.into_iter().max_by_key(|(_, until)| *until);
            holders = last.into_iter().collect();
        }
        holders = search.below(&holders, name)?;
    }
    Ok(holders)
}

struct Search<'a, L> {
    line: &'a L,
    looks_left: usize,
}

impl<L: Timeline> Search<'_, L> {
    /// Those of that name in any of these folders.
    fn below(&mut self, folders: &Holders, name: &Name) -> Result<Holders> {
        let mut below = BTreeMap::new();
        let was_spent = self.looks_left == 0;
        for (parent, until) in folders {
            let standing = self.line.child(*parent, name)?;
            below.extend(standing.map(|id| (id, *until)));
            self.pay();
            let room = if was_spent {
                usize::from(below.is_empty())
            } else {
                HOLDERS_MAX.saturating_sub(below.len())
            };
            for (id, by) in self.line.left_last(*parent, name, room.min(self.looks_left.max(1)))? {
                self.pay();
                if standing != Some(id) {
                    let left = by.min(*until);
                    below.entry(id).and_modify(|known: &mut Seq| *known = left.max(*known)).or_insert(left);
                }
            }
            if below.len() >= HOLDERS_MAX || (self.looks_left == 0 && !below.is_empty()) {
                break;
            }
        }
        Ok(below)
    }

    fn pay(&mut self) {
        self.looks_left = self.looks_left.saturating_sub(1);
    }
}
