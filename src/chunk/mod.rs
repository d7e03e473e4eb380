//! Chunks: where the bytes of a file are cut.
//!
//! First step after a file is opened: bytes in, cut points out. The next room hashes each chunk and makes it a block.
//! Pure: no files, no clock. [`reader`] takes any `std::io::Read`, and that is all it knows of the world.
//!
//! Invariants, pinned by golden vectors in `tests/data/chunks-v1.txt`:
//! - Cut points depend on the bytes of the file and the [`Params`] only, never on how a reader delivers the bytes.
//! - A file of at most [`Params::avg_bytes`] is exactly one chunk; an empty file has none.
//! - Every chunk but the last is longer than `min_bytes`, or equal to it, and none is longer than `max_bytes`.

pub mod chunker;
mod gear;
pub mod parallel;
pub mod params;
pub mod reader;
pub mod shared;

pub use chunker::{Chunker, chunk_lengths};
pub use parallel::ParallelReader;
pub use params::{Params, V1};
pub use reader::ChunkReader;
pub use shared::{Buffers, SharedReader};
