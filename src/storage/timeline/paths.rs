//! Paths of the past, and what they cost.

use super::{Timeline, node_at};
use crate::model::past::Shape;
use crate::model::{Kind, Name, NodeId, NodeState, Seq, limits};
use crate::storage::Result;
use std::collections::HashMap;

/// Folders that are remembered while a question is answered.
const KNOWN_MAX: usize = 2048;
/// What a question may spend in all.
const MEANS: usize = 128 * 1024;
/// Of that, a look into the index, and one at what is remembered.
const LOOK_COST: usize = 8;
const GLANCE_COST: usize = 1;

/// Where a folder stood from one commit on, and until before another.
struct Stood {
    from: Seq,
    until: Option<Seq>,
    place: Option<(NodeId, Name)>,
}

/// Finds paths, and remembers the folders along them: what was changed together mostly lies together.
pub(super) struct Paths<'a, L> {
    line: &'a L,
    known: HashMap<NodeId, Stood>,
    means: usize,
}

impl<'a, L: Timeline> Paths<'a, L> {
    pub(super) fn new(line: &'a L) -> Self {
        Self { line, known: HashMap::new(), means: MEANS }
    }

    /// Nothing more should be looked at for this question.
    pub(super) const fn is_spent(&self) -> bool {
        self.means == 0
    }

    pub(super) fn spend(&mut self, looks: usize) {
        self.means = self.means.saturating_sub(looks.saturating_mul(LOOK_COST));
    }

    /// A node with its path after commit `at`; `meets` is told of every id along it, the root's too.
    pub(super) fn shape(
        &mut self,
        id: NodeId,
        state: Option<NodeState>,
        at: Seq,
        meets: &mut impl FnMut(NodeId),
    ) -> Result<Option<Shape>> {
        let Some(NodeState { mut parent, name, kind }) = state else { return Ok(None) };
        let mut path = vec![name];
        meets(id);
        meets(parent);
        while parent != NodeId::ROOT && path.len() < limits::PATH_DEPTH_MAX {
            let Some((above, name)) = self.place(parent, at)? else { break };
            path.push(name);
            parent = above;
            meets(parent);
        }
        path.reverse();
        Ok(Some(Shape { path, kind }))
    }

    /// Where a node stood after commit `at`.
    fn place(&mut self, id: NodeId, at: Seq) -> Result<Option<(NodeId, Name)>> {
        self.means = self.means.saturating_sub(GLANCE_COST);
        let stood = self.known.get(&id);
        let holds = |stood: &&Stood| stood.from <= at && stood.until.is_none_or(|until| at < until);
        if let Some(stood) = stood.filter(holds) {
            return Ok(stood.place.clone());
        }
        self.spend(2);
        let Some((node, until)) = node_at(self.line, id, at)? else { return Ok(None) };
        let place = node.state.map(|state| (state.parent, state.name));
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(id, Stood { from: node.version, until, place: place.clone() });
        Ok(place)
    }
}

/// What a name takes beside its bytes, in memory as on the wire.
const NAME_COST_BYTES: usize = 16;
/// What a kind takes at most, beside the target of a link.
const KIND_COST_BYTES: usize = 96;

/// Bytes of a shape, rather too many.
pub(super) fn shape_bytes(shape: &Shape) -> usize {
    let names: usize = shape.path.iter().map(|name| NAME_COST_BYTES + name.as_bytes().len()).sum();
    names + kind_bytes(&shape.kind)
}

/// Bytes of a state, rather too many.
pub(super) fn state_bytes(state: &NodeState) -> usize {
    NAME_COST_BYTES + state.name.as_bytes().len() + kind_bytes(&state.kind)
}

fn kind_bytes(kind: &Kind) -> usize {
    KIND_COST_BYTES
        + match kind {
            Kind::Symlink { target, .. } => target.len(),
            Kind::Folder | Kind::File { .. } => 0,
        }
}
