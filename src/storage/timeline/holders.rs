//! Who ever stood at a path.

use super::{Timeline, stands_at};
use crate::model::{Name, NodeId, Seq};
use crate::storage::Result;
use std::collections::BTreeMap;

/// Nodes that ever stood at one path; of more, these are followed.
pub(super) const HOLDERS_MAX: usize = 1024;
/// Look-ups to find them. Where that is not enough, a node may count for longer than it was there, and further down the path
/// only what was there last is followed.
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
            for id in self.line.left(*parent, name, None, room)? {
                if standing != Some(id) {
                    let left = self.left_at(id, *parent, name)?.min(*until);
                    below.entry(id).and_modify(|known: &mut Seq| *known = left.max(*known)).or_insert(left);
                }
            }
            if below.len() >= HOLDERS_MAX || (self.looks_left == 0 && !below.is_empty()) {
                break;
            }
        }
        Ok(below)
    }

    /// When a node left a place for the last time.
    fn left_at(&mut self, id: NodeId, parent: NodeId, name: &Name) -> Result<Seq> {
        let mut at = Seq(u64::MAX);
        while let Some(replaced) = self.line.replaced(id, at)? {
            self.pay();
            if self.looks_left == 0
                || replaced.node.state.as_ref().is_some_and(|state| stands_at(state, parent, name))
            {
                return Ok(replaced.by);
            }
            match replaced.node.version.0.checked_sub(1) {
                Some(before) => at = Seq(before),
                None => break,
            }
        }
        Ok(Seq::ZERO)
    }

    fn pay(&mut self) {
        self.looks_left = self.looks_left.saturating_sub(1);
    }
}
