//! The pack on the wire: many sealed blocks behind one another in one frame.
//!
//! ```text
//! per block, no gaps, up to the end of the pack:
//! offset size  field
//! 0      1     codec: 0 raw, 1 zstd, 2 zstd against a base, 3 patch
//! 1      4     plain length, u32 LE, at most 262,144
//! 5      4     payload length n, u32 LE: the plain length for raw, less than it for zstd
//! 9      32    hash of the base block, codec 2 only
//! 9|41   n     payload
//! ```
//! It carries no hashes of its blocks: the receiver must compute them anyway. Packs on disk are another format.

use super::sealed::{Codec, SealedBlock, check_lengths};
use super::{BlockError, VerifiedBlock};
use crate::model::{BlockHash, limits};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the payload of a block without a base.
pub const HEADER_BYTES: usize = 9;
/// Payloads up to this size are copied together; longer ones become segments of their own. One large write beats many
/// small slices, and copying a large payload costs more than its slice.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// Bytes that a block takes in a pack.
pub fn encoded_bytes(block: &SealedBlock) -> usize {
    HEADER_BYTES + block.base.map_or(0, |hash| hash.as_bytes().len()) + block.payload.len()
}

/// Writes a pack as segments for a vectored write, in order. Large payloads are not copied.
pub fn encode(blocks: &[SealedBlock]) -> Vec<Bytes> {
    let mut segments = Vec::new();
    let mut small = BytesMut::new();
    for block in blocks {
        put_header(&mut small, block);
        if block.payload.len() <= COPY_BYTES_MAX {
            small.put_slice(&block.payload);
        } else {
            segments.push(small.split().freeze());
            segments.push(block.payload.clone());
        }
    }
    if !small.is_empty() {
        segments.push(small.freeze());
    }
    segments
}

/// Appends a pack to `out`, in one piece.
pub fn append(out: &mut BytesMut, blocks: &[SealedBlock]) {
    out.reserve(blocks.iter().map(encoded_bytes).sum());
    for block in blocks {
        put_header(out, block);
        out.put_slice(&block.payload);
    }
}

fn put_header(out: &mut BytesMut, block: &SealedBlock) {
    out.put_u8(block.codec.code());
    out.put_u32_le(block.plain_len);
    // A payload that does not fit in u32 was never a block; the receiver refuses it.
    out.put_u32_le(u32::try_from(block.payload.len()).unwrap_or(u32::MAX));
    if let Some(hash) = &block.base {
        out.put_slice(hash.as_bytes());
    }
}

/// Reads a whole pack. Payloads are slices of `pack`: nothing is copied, nothing is opened.
///
/// # Errors
/// Any byte out of place, any length out of bounds, or more than `PACK_BLOCKS_MAX` blocks.
pub fn decode(mut pack: Bytes) -> Result<Vec<SealedBlock>, BlockError> {
    let mut blocks = Vec::new();
    while !pack.is_empty() {
        if blocks.len() == limits::PACK_BLOCKS_MAX {
            return Err(BlockError::TooMany);
        }
        blocks.push(take_block(&mut pack)?);
    }
    Ok(blocks)
}

fn take_block(pack: &mut Bytes) -> Result<SealedBlock, BlockError> {
    let codec = Codec::from_code(pack.try_get_u8().map_err(|_| BlockError::Truncated)?)?;
    let plain_len = pack.try_get_u32_le().map_err(|_| BlockError::Truncated)?;
    let payload_len = pack.try_get_u32_le().map_err(|_| BlockError::Truncated)?;
    let payload_len = usize::try_from(payload_len).unwrap_or(usize::MAX);
    check_lengths(codec, plain_len, payload_len)?;
    let base = match codec {
        Codec::Raw | Codec::Zstd | Codec::Patch => None,
        Codec::ZstdBase => {
            let mut hash = [0; 32];
            pack.try_copy_to_slice(&mut hash).map_err(|_| BlockError::Truncated)?;
            Some(BlockHash::from_bytes(hash))
        }
    };
    if pack.len() < payload_len {
        return Err(BlockError::Truncated);
    }
    Ok(SealedBlock { codec, plain_len, base, payload: pack.split_to(payload_len) })
}

/// Collects blocks until a pack is full, so that no pack outgrows a frame.
#[derive(Debug, Default)]
pub struct Packer {
    blocks: Vec<SealedBlock>,
    bytes: usize,
}

impl Packer {
    /// Adds a block. Returns the blocks of a pack once it has `PACK_BYTES_TARGET` or `PACK_BLOCKS_MAX`.
    pub fn push(&mut self, block: SealedBlock) -> Option<Vec<SealedBlock>> {
        self.bytes += encoded_bytes(&block);
        self.blocks.push(block);
        let full = self.bytes >= limits::PACK_BYTES_TARGET || self.blocks.len() >= limits::PACK_BLOCKS_MAX;
        full.then(|| self.take())
    }

    /// What has not been returned yet; empty when nothing has been added since.
    pub fn take(&mut self) -> Vec<SealedBlock> {
        self.bytes = 0;
        std::mem::take(&mut self.blocks)
    }
}

impl From<VerifiedBlock> for SealedBlock {
    fn from(block: VerifiedBlock) -> Self {
        block.into_sealed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Block, Sealer, seal};
    use crate::model::hash::expand;

    fn blocks() -> Vec<SealedBlock> {
        let sealer = Sealer::default();
        let mut random = vec![0; 70_000];
        expand(&[5; 32], 0, &mut random);
        let old = Block::new(Bytes::from(random.clone()));
        random.insert(500, 1);
        let new = Block::new(Bytes::from(random));
        vec![
            sealer.seal(&Block::new(Bytes::from_static(b"a"))).into(),
            sealer.seal(&Block::new(Bytes::from(vec![b'x'; 100_000]))).into(),
            sealer.seal(&old).into(),
            sealer.seal_against(&new, &old).unwrap().into(),
        ]
    }

    fn joined(segments: &[Bytes]) -> Bytes {
        Bytes::from(segments.concat())
    }

    #[test]
    fn a_pack_comes_back_and_both_ways_to_write_it_are_the_same_bytes() {
        let blocks = blocks();
        assert_eq!(
            blocks.iter().map(|block| block.codec).collect::<Vec<_>>(),
            [Codec::Raw, Codec::Zstd, Codec::Raw, Codec::ZstdBase]
        );
        let pack = joined(&encode(&blocks));
        let mut appended = BytesMut::new();
        append(&mut appended, &blocks);
        assert_eq!(pack, appended);
        assert_eq!(pack.len(), blocks.iter().map(encoded_bytes).sum::<usize>());
        assert_eq!(decode(pack).unwrap(), blocks);
        assert!(decode(Bytes::new()).unwrap().is_empty());
    }

    #[test]
    fn large_payloads_are_slices_and_small_ones_share_a_segment() {
        let blocks = blocks();
        let segments = encode(&blocks);
        assert_eq!(segments.len(), 3);
        assert_eq!(segments[1].as_ptr(), blocks[2].payload.as_ptr());
        let pack = joined(&segments);
        let decoded = decode(pack.clone()).unwrap();
        assert!(pack.as_ptr_range().contains(&decoded[2].payload.as_ptr()));
    }

    #[test]
    fn a_pack_that_is_cut_short_anywhere_is_refused_unless_the_cut_is_between_blocks() {
        let pack = joined(&encode(&blocks()));
        let mut ends = vec![0];
        for block in blocks() {
            ends.push(ends.last().unwrap() + encoded_bytes(&block));
        }
        let near = |cut: &usize| ends.iter().any(|end| cut.abs_diff(*end) < 50);
        for cut in (0..pack.len()).filter(near) {
            assert_eq!(decode(pack.slice(..cut)).is_ok(), ends.contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn headers_out_of_bounds_are_refused() {
        let header = |codec: u8, plain: u32, payload: u32| {
            let mut bytes = vec![codec];
            bytes.extend_from_slice(&plain.to_le_bytes());
            bytes.extend_from_slice(&payload.to_le_bytes());
            bytes.resize(bytes.len() + 64, 0);
            decode(Bytes::from(bytes)).unwrap_err()
        };
        assert_eq!(header(4, 9, 9), BlockError::Codec(4));
        assert_eq!(header(0, 262_145, 262_145), BlockError::TooLarge(262_145));
        assert_eq!(header(1, u32::MAX, 10), BlockError::TooLarge(u32::MAX.into()));
        assert_eq!(header(0, 5, 6), BlockError::PayloadLength { payload: 6, plain: 5 });
        assert_eq!(header(1, 5, 5), BlockError::PayloadLength { payload: 5, plain: 5 });
        assert_eq!(header(1, 5, 0), BlockError::PayloadLength { payload: 0, plain: 5 });
        assert_eq!(header(2, 200_000, 40), BlockError::Truncated);
        assert_eq!(header(0, 200_000, 200_000), BlockError::Truncated);
    }

    #[test]
    fn more_blocks_than_allowed_are_refused() {
        let one =
            [SealedBlock { codec: Codec::Raw, plain_len: 1, base: None, payload: Bytes::from_static(b"a") }];
        let mut pack = BytesMut::new();
        for _ in 0..limits::PACK_BLOCKS_MAX {
            append(&mut pack, &one);
        }
        assert_eq!(decode(pack.clone().freeze()).unwrap().len(), limits::PACK_BLOCKS_MAX);
        append(&mut pack, &one);
        assert_eq!(decode(pack.freeze()).unwrap_err(), BlockError::TooMany);
    }

    #[test]
    fn a_packer_closes_before_a_frame_is_full() {
        let mut packer = Packer::default();
        let mut plain = vec![0; limits::BLOCK_BYTES_MAX];
        expand(&[6; 32], 0, &mut plain);
        let block: SealedBlock = Sealer::default().seal(&Block::new(Bytes::from(plain))).into();
        let packs: Vec<_> = (0..9).filter_map(|_| packer.push(block.clone())).collect();
        assert_eq!(packs.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
        assert!(packs.iter().all(|p| p.iter().map(encoded_bytes).sum::<usize>() < limits::FRAME_BYTES_MAX));
        assert_eq!(packer.take().len(), 1);
        assert!(packer.take().is_empty());
        assert!(seal::open(&block, None).is_ok());
    }
}
