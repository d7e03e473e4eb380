//! dropblock keeps a folder the same on every machine and moves only the blocks that changed.

pub mod folder;
pub mod model;
pub mod tree;
