//! Reconcile: from what both sides agreed on last (base), what the disk shows (local) and what the server has
//! (remote) to one tree that both shall have. Then: which disk operations lead there, and which changes to commit.
//!
//! Pure and deterministic. `docs/RECONCILE.md` has the table; `tests/properties/reconcile.rs` holds what must be true of
//! any three trees: both sides become equal, a second run does nothing, and no content is lost.

mod collide;
mod guard;
mod line;
mod merge;
mod names;
mod order;
pub mod restore;

pub use guard::{Held, mass_delete};
pub use merge::{Merge, Origin, Sides, reconcile};
pub use names::conflict_name;
pub use order::{DiskOp, plan_disk};
