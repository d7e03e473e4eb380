//! Where folders hang while a commit is judged: which reach the root and how deep they are, remembered for as long as
//! nothing above them falls.

use crate::model::id_map::IdMap;
use crate::model::{NodeId, Refusal, limits};

/// See the module.
#[derive(Debug, Default)]
pub struct Places {
    spots: IdMap<NodeId, Spot>,
    /// Changes whose place is to be looked at.
    pending: Vec<usize>,
    /// Number of the walk up that is going on, and its steps.
    walk: usize,
    steps: usize,
}

/// A folder, or what somebody takes for one.
#[derive(Debug, Default)]
struct Spot {
    above: Above,
    /// Folders above it and itself, if it is known to hang on the root. Then so are all above it.
    depth: Option<usize>,
    /// The last walk that came by.
    walk: usize,
    /// Spots that had it above them when they were looked at.
    below: Vec<NodeId>,
    /// Changes that put a node into it.
    expected: Vec<usize>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Above {
    /// Nobody has looked.
    #[default]
    Unknown,
    In(NodeId),
    /// It is no live folder.
    Nowhere,
}

impl Places {
    /// A change puts a node into this folder, and is to be looked at.
    pub fn expect(&mut self, index: usize, parent: NodeId) {
        self.spots.entry(parent).or_default().expected.push(index);
        self.pending.push(index);
    }

    /// The changes that are to be looked at; some may have fallen, or come twice.
    pub fn take(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.pending)
    }

    /// Steps of the last walk.
    pub const fn steps(&self) -> usize {
        self.steps
    }

    /// True when somebody came by this node on the way up.
    pub fn knows(&self, id: NodeId) -> bool {
        self.spots.get(&id).is_some_and(|spot| spot.above != Above::Unknown)
    }

    /// Whether a node may be in a folder. `look` says what holds a folder, `None` of what is no live folder.
    pub fn judge<E>(
        &mut self,
        id: NodeId,
        parent: NodeId,
        look: &mut dyn FnMut(NodeId) -> Result<Option<NodeId>, E>,
    ) -> Result<Option<Refusal>, E> {
        self.walk += 1;
        self.steps = 0;
        let mut chain = Vec::new();
        let mut at = parent;
        let top = loop {
            let spot = self.spots.entry(at).or_default();
            let known = if at == NodeId::ROOT { Some(0) } else { spot.depth };
            if let Some(depth) = known {
                if depth + chain.len() >= limits::PATH_DEPTH_MAX {
                    return Ok(Some(Refusal::Invalid));
                }
                break depth;
            }
            if at == id || spot.walk == self.walk {
                return Ok(Some(Refusal::Cycle));
            }
            if chain.len() >= limits::PATH_DEPTH_MAX {
                return Ok(Some(Refusal::Invalid));
            }
            spot.walk = self.walk;
            self.steps += 1;
            if spot.above == Above::Unknown {
                let above = look(at)?;
                self.set(at, above);
            }
            match self.spots.get(&at).map(|spot| spot.above) {
                Some(Above::In(above)) => {
                    chain.push(at);
                    at = above;
                }
                _ => return Ok(Some(Refusal::ParentGone)),
            }
        };
        // So that a thousand siblings walk up once.
        for (up, id) in chain.iter().rev().enumerate() {
            if let Some(spot) = self.spots.get_mut(id) {
                spot.depth = Some(top + up + 1);
            }
        }
        Ok(None)
    }

    fn set(&mut self, id: NodeId, above: Option<NodeId>) {
        self.spots.entry(id).or_default().above = above.map_or(Above::Nowhere, Above::In);
        if let Some(above) = above {
            self.spots.entry(above).or_default().below.push(id);
        }
    }

    /// A folder stays where it was, or what it was: what hangs on it is to be looked at again. Returns how many folders
    /// that are.
    pub fn moved(&mut self, id: NodeId, above: Option<NodeId>) -> usize {
        let before = self.spots.get(&id).map(|spot| spot.above);
        if before == Some(above.map_or(Above::Nowhere, Above::In)) {
            return 0;
        }
        self.set(id, above);
        let mut moved = vec![id];
        let mut steps = 0;
        while let Some(id) = moved.pop() {
            // Nobody relies on what is not known to hang on the root.
            let Some(spot) = self.spots.get_mut(&id).filter(|spot| spot.depth.is_some()) else { continue };
            spot.depth = None;
            steps += 1;
            self.pending.extend_from_slice(&spot.expected);
            // Some have moved away meanwhile.
            let below = spot.below.clone();
            let still =
                |below: &NodeId| self.spots.get(below).is_some_and(|spot| spot.above == Above::In(id));
            moved.extend(below.into_iter().filter(still));
        }
        steps
    }
}
