//! The table of `docs/RECONCILE.md`, row by row: tests named after the row they hold (`r07_…` is row R-07).
//!
//! Each states a base, what was done here and there, and what must come out, in the small language of
//! `tests/reconcile/script.rs`. Whatever a test is about, every case also checks that the plan can be carried out step by
//! step on a disk, that the server takes the changes, and that nothing written on either side is lost.

#[cfg(test)]
#[path = "reconcile/case.rs"]
mod case;
#[cfg(test)]
#[path = "reconcile/disk.rs"]
mod disk;
#[cfg(test)]
#[path = "reconcile/document.rs"]
mod document;
#[cfg(test)]
#[path = "reconcile/joining.rs"]
mod joining;
#[cfg(test)]
#[path = "reconcile/metadata.rs"]
mod metadata;
#[cfg(test)]
#[path = "reconcile/names.rs"]
mod names;
#[cfg(test)]
#[path = "reconcile/one_node.rs"]
mod one_node;
#[cfg(test)]
#[path = "reconcile/order.rs"]
mod order;
#[cfg(test)]
#[path = "reconcile/script.rs"]
mod script;
#[cfg(test)]
#[path = "reconcile/share.rs"]
mod share;
#[cfg(test)]
#[path = "reconcile/structure.rs"]
mod structure;
