//! dropblock keeps a folder the same on every machine and moves only the blocks that changed.

pub mod client;
pub mod model;
pub mod reconcile;
pub mod tree;
