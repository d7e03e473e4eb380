//! dropblock keeps a folder the same on every machine and moves only the blocks that changed.

pub mod block;
pub mod chunk;
pub mod manifest;
pub mod model;
pub mod storage;
pub mod tree;
