//! The client: keeps one folder equal to one share.
//!
//! ```text
//! watch, pushes, poll timer ──> trigger ──> session (one cycle at a time)
//!    scan the disk ─> upload new blocks ─┐
//!    changes of others ──────────────────┴─> cycle (pure): reconcile, order ─> place on disk ─> commit ─> save state
//! ```
//! What decides is in [`cycle`] (no IO) and in `reconcile`; the other files carry out. The base tree is saved only after
//! the disk has what it says, so that a crash anywhere repeats work and never loses or invents a change.

pub mod cycle;
