//! Chunk parameters: a stored format. A manifest carries the id of the parameters that its file was cut with.
//!
//! A set of parameters never changes once it is released; another set gets another id.

/// How files are cut. Only the sets named here exist, so an id and its sizes always belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    id: u8,
    min_bytes: usize,
    avg_bytes: usize,
    max_bytes: usize,
}

/// FastCDC v2020, normalization level 2, 32 / 64 / 256 KiB.
///
/// A minimum of half the average cuts 1.34 times faster than a quarter, because the scan starts behind the minimum.
/// Random bytes give chunks of 75 KiB on average, between 29 and 111 KiB for nine in ten.
pub const V1: Params = Params { id: 1, min_bytes: 32 * 1024, avg_bytes: 64 * 1024, max_bytes: 256 * 1024 };

// The scan takes bytes in pairs, so odd sizes would shift cut points; and a chunk must fit into a block.
const _: () = assert!((V1.min_bytes | V1.avg_bytes | V1.max_bytes) & 1 == 0);
const _: () = assert!(V1.min_bytes < V1.avg_bytes && V1.avg_bytes < V1.max_bytes);
const _: () = assert!(V1.id == crate::model::limits::CHUNK_PARAMS);
const _: () = assert!(V1.min_bytes as u64 == crate::model::limits::CHUNK_BYTES_MIN);
const _: () = assert!(V1.max_bytes <= crate::model::limits::BLOCK_BYTES_MAX);

impl Params {
    /// The set that a manifest names; `None` for one that this build does not know.
    pub const fn by_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(V1),
            _ => None,
        }
    }

    /// As stored in manifests.
    pub const fn id(&self) -> u8 {
        self.id
    }

    /// Shortest chunk, bytes; only the last of a file may be shorter.
    pub const fn min_bytes(&self) -> usize {
        self.min_bytes
    }

    /// Where the cut condition turns from hard to easy, bytes. Files up to this size are not cut.
    pub const fn avg_bytes(&self) -> usize {
        self.avg_bytes
    }

    /// Longest chunk, bytes.
    pub const fn max_bytes(&self) -> usize {
        self.max_bytes
    }
}
