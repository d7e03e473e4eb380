//! Looking at the whole folder again, for what the system does not tell (mmap, other mounts, hard links): a few folders at a
//! time, so that nobody who saves a file waits for the end of a look at everything.

use crate::folder::scan::Scope;
use crate::model::{NodeId, RelPath};
use crate::tree::Tree;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// Names looked at in one go: two or three milliseconds. A folder of more is one go all the same.
const NAMES_PER_LOOK: usize = 1_000;
/// Looking takes at most this part of the time: 1 in 50.
const LOOKING_SHARE: u32 = 50;

/// When to look where.
#[derive(Debug)]
pub struct Patrol {
    next: Instant,
    pause: Duration,
    /// Folders to look at in this round; none left before its end.
    left: Vec<NodeId>,
    /// The next look is at everything at once.
    whole: bool,
}

/// What a look of the patrol is.
#[derive(Debug)]
pub enum Look {
    /// At everything.
    Whole,
    /// At some folders; with `ends_round`, everything was looked at since the round began.
    Some {
        /// Which.
        dirs: BTreeSet<RelPath>,
        /// True for the last of a round.
        ends_round: bool,
    },
}

impl Patrol {
    /// The first look is at everything, at once.
    pub fn new() -> Self {
        Self { next: Instant::now(), pause: Duration::ZERO, left: Vec::new(), whole: true }
    }

    /// When the next look is due.
    pub const fn next(&self) -> Instant {
        self.next
    }

    /// What is to be looked at now, if anything. A tree that fits one look is looked at whole.
    pub fn due(&mut self, base: &Tree) -> Option<Look> {
        if self.next > Instant::now() {
            return None;
        }
        if self.whole || base.len() <= NAMES_PER_LOOK {
            return Some(Look::Whole);
        }
        if self.left.is_empty() {
            self.left.push(NodeId::ROOT);
            let folders = base.iter().filter(|(_, node)| node.state.kind.is_folder());
            self.left.extend(folders.map(|(id, _)| id));
        }
        let (mut names, mut dirs) = (0, BTreeSet::new());
        while names < NAMES_PER_LOOK
            && let Some(folder) = self.left.pop()
        {
            names += 1 + base.children(folder).count();
            dirs.extend(base.path_of(folder));
        }
        Some(Look::Some { dirs, ends_round: self.left.is_empty() })
    }

    /// Everything was looked at; the next round over `base` takes `period`, unless looking took longer.
    pub fn looked_at_all(&mut self, base: &Tree, period: Duration, took: Duration) {
        self.left.clear();
        self.whole = false;
        let looks = u32::try_from(base.len() / NAMES_PER_LOOK).unwrap_or(u32::MAX).saturating_add(1);
        self.pause = (period / looks).max(took * LOOKING_SHARE / looks);
        self.next = Instant::now() + self.pause;
    }

    /// Some folders were looked at.
    pub fn looked(&mut self, took: Duration) {
        self.next = Instant::now() + self.pause.max(took * LOOKING_SHARE);
    }

    /// Only a look at everything will do, after this time.
    pub fn all_in(&mut self, pause: Duration) {
        self.whole = true;
        self.next = Instant::now() + pause;
    }
}

impl Look {
    /// The folders; `None` for all.
    pub fn dirs(&self) -> Option<BTreeSet<RelPath>> {
        match self {
            Self::Whole => None,
            Self::Some { dirs, .. } => Some(dirs.clone()),
        }
    }

    /// With what else is to be looked at.
    pub fn and(self, other: Option<Scope>) -> Scope {
        match (self, other) {
            (Self::Whole, _) | (_, Some(Scope::Full)) => Scope::Full,
            (Self::Some { dirs, .. }, None) => Scope::Dirs(dirs),
            (Self::Some { mut dirs, .. }, Some(Scope::Dirs(more))) => {
                dirs.extend(more);
                Scope::Dirs(dirs)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Name, NodeState, Seq};
    use crate::tree::TreeNode;

    #[tokio::test(start_paused = true)]
    async fn a_round_comes_by_every_folder_once_a_few_at_a_time() {
        let mut base = Tree::new();
        let mut add = |n: u16, parent: NodeId| {
            let mut bytes = [7; 16];
            bytes[..2].copy_from_slice(&n.to_le_bytes());
            let id = NodeId::from_bytes(bytes);
            let name = Name::new(n.to_string().as_bytes()).unwrap();
            let state = NodeState { parent, name, kind: Kind::Folder };
            base.insert(id, TreeNode { version: Seq(1), state });
            id
        };
        for outer in 0..40 {
            let folder = add(outer, NodeId::ROOT);
            for n in 0..100 {
                add(1_000 + outer * 100 + n, folder);
            }
        }
        let mut patrol = Patrol::new();
        assert!(matches!(patrol.due(&base), Some(Look::Whole)));
        patrol.looked_at_all(&base, Duration::from_secs(60), Duration::from_millis(10));
        let (mut seen, mut looks, start) = (BTreeSet::new(), 0, Instant::now());
        loop {
            assert!(patrol.due(&base).is_none());
            tokio::time::sleep_until(patrol.next()).await;
            let Some(Look::Some { dirs, ends_round }) = patrol.due(&base) else { panic!("not due") };
            assert!(dirs.iter().all(|dir| seen.insert(dir.clone())));
            patrol.looked(Duration::from_millis(2));
            looks += 1;
            if ends_round {
                break;
            }
        }
        assert_eq!(seen.len(), 4_041);
        assert!((5..=10).contains(&looks), "{looks}");
        assert!((30..=120).contains(&start.elapsed().as_secs()));
        patrol.all_in(Duration::from_secs(5));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(matches!(patrol.due(&base), Some(Look::Whole)));
    }
}
