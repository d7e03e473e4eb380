//! Every bound of formats and protocol, with its unit in the name. A bound is checked before anything is allocated.

/// Longest name, bytes (Linux `NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// Deepest path, components.
pub const PATH_DEPTH_MAX: usize = 1024;
/// Longest symlink target, bytes (Linux `PATH_MAX` less the NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Longest name of a share, bytes.
pub const SHARE_NAME_BYTES_MAX: usize = 64;
/// Longest name of a device, bytes.
pub const DEVICE_NAME_BYTES_MAX: usize = 64;

/// Largest plain block, bytes. Chunks and manifest nodes stay below it.
pub const BLOCK_BYTES_MAX: usize = 256 * 1024;
/// Largest sealed payload, bytes: a raw block (a codec that would grow it is not used).
pub const SEALED_BYTES_MAX: usize = BLOCK_BYTES_MAX;
/// Most blocks in one pack on the wire.
pub const PACK_BLOCKS_MAX: usize = 4096;
/// A sender closes a pack on the wire at this payload size, bytes.
pub const PACK_BYTES_TARGET: usize = 1024 * 1024;

/// Most plain bytes of the blocks in one frame that are sealed against bases: a few bytes of frame make the receiver hold
/// as many as these.
pub const DELTA_PLAIN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Plain bytes of all blocks of one `PutBlocks` or `Commit`: what a few hundred bytes of zeros may unpack to.
pub const PUT_PLAIN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest frame on the wire, bytes: a full pack plus one block, headers and hashes.
pub const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Largest frame before the handshake is complete, bytes.
pub const FRAME_BYTES_MAX_UNAUTHENTICATED: usize = 4 * 1024;
/// Most hashes in one `Have` or `WantBlocks`.
pub const HASHES_PER_REQUEST_MAX: usize = 4096;
/// Most changes in one commit.
pub const CHANGES_PER_COMMIT_MAX: usize = 2048;
/// Most nodes in one page of `Changes`.
pub const NODES_PER_PAGE_MAX: usize = 2048;
/// Most versions in one page of `Versions`.
pub const VERSIONS_PER_PAGE_MAX: usize = 1024;
/// Shortest chunk, bytes; only the last of a file may be shorter.
pub const CHUNK_BYTES_MIN: u64 = 32 * 1024;
/// The chunk parameters that files are cut with; there are no others yet.
pub const CHUNK_PARAMS: u8 = 1;
/// New blocks of a commit ride inside it up to this many bytes; above it they are asked for and sent first.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Fan-out of a manifest node: entries at least, on average and at most.
pub const MANIFEST_ENTRIES_MIN: usize = 16;
/// See [`MANIFEST_ENTRIES_MIN`].
pub const MANIFEST_ENTRIES_AVG: usize = 64;
/// See [`MANIFEST_ENTRIES_MIN`].
pub const MANIFEST_ENTRIES_MAX: usize = 256;
/// Deepest manifest: 16^12 chunks are more than u64 bytes.
pub const MANIFEST_LEVEL_MAX: u8 = 12;
