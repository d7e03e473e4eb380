//! Trees: the nodes of a share at one moment, what differs between two moments, and the rules a commit must keep.
//!
//! Pure. The server judges commits with [`judge()`]; the client keeps its base as a [`Tree`] and looks at "base plus
//! differences" through an [`Overlay`], so that work follows the change and not the size of the tree.

mod judge;
mod overlay;
mod share_tree;

pub use judge::{Nodes, judge};
pub use overlay::{Diff, Overlay};
pub use share_tree::{Tree, TreeNode};
