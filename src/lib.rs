//! dropblock keeps a folder the same on every machine and moves only the blocks that changed.

pub mod auth;
pub mod block;
pub mod chunk;
pub mod cli;
pub mod client;
pub mod folder;
pub mod manifest;
pub mod model;
pub mod reconcile;
pub mod server;
pub mod storage;
pub mod tree;
pub mod wire;
pub mod work;
