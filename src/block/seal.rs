//! Sealing and opening blocks. The only file that names the `zstd` crate.
//!
//! Sealing decides once, on the client, how a block is encoded; the same bytes are stored and sent on. Opening trusts
//! nothing: lengths are checked before memory is taken, a frame must be one frame and decode to exactly the declared
//! length, and the hash is computed from what came out.
//!
//! Contexts of zstd (some 100 KiB each) live in thread locals, so that a [`Sealer`] is a plain value that any worker
//! may use, and no call pays for setting one up. Compression against a base makes a context per call: a context that
//! refers to a base borrows it, which costs 10 µs here and saves `unsafe`.

use super::patch::{self, Form, Patch};
use super::sealed::{Codec, SealedBlock, VerifiedBlock};
use super::sketch::Shared;
use super::{Block, BlockError};
use crate::model::BlockHash;
use bytes::Bytes;
use std::cell::RefCell;
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, ResetDirective};

/// Starts every zstd frame. Checked because a build may contain decoders of frames older than zstd 1.0.
const FRAME_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Level for frames against a base: 109-133 µs a block; level 1 loses its grip on bases above 256 KiB, level 6 takes
/// four times as long for 6 % less.
const BASE_LEVEL: i32 = 3;
/// Level for what [`shrink`] is given: lists of some hundred bytes, mostly hashes and names.
const SHRINK_LEVEL: i32 = 3;
/// Below this a frame with a base cannot save more than its 32-byte name and header cost.
const BASE_BYTES_MIN: usize = 512;
/// Fewer new bytes of a patch gain nothing from a frame.
const FRAME_NEWS_MIN: usize = 16;
/// A frame of at most one in this many bytes of the block is taken without trying the block on its own.
const SHORT_FRAME: usize = 16;

struct Scratch {
    compress: CCtx<'static>,
    compressed: Vec<u8>,
    decompress: DCtx<'static>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        compress: CCtx::create(),
        compressed: Vec::new(),
        decompress: DCtx::create(),
    });
}

/// Encodes blocks at one zstd level. Usable from many threads at once.
#[derive(Debug, Clone, Copy)]
pub struct Sealer {
    level: i32,
}

impl Default for Sealer {
    /// Level 1: the best ratio per time, and nearly 3 GB/s on what cannot be compressed.
    fn default() -> Self {
        Self::new(1)
    }
}

impl Sealer {
    /// A sealer with a zstd level of 1 to 19; other levels are moved into that range.
    pub fn new(level: i32) -> Self {
        Self { level: level.clamp(1, 19) }
    }

    /// Encodes with zstd, or raw when that gains less than 3 % or a probe sees that it will not.
    pub fn seal(&self, block: &Block) -> VerifiedBlock {
        let plain = block.bytes();
        // A frame that does not fit here gains too little. Opening costs time on every machine that reads the block.
        let frame_bytes_max = plain.len() - plain.len().div_ceil(33);
        if plain.len() < 16 || looks_random(plain) {
            return self.seal_raw(block);
        }
        match compress(plain, self.level, frame_bytes_max) {
            Some(payload) => verified(block, Codec::Zstd, None, payload),
            None => self.seal_raw(block),
        }
    }

    /// Takes the plain bytes as they are, without a copy. For a network that is faster than zstd.
    pub fn seal_raw(&self, block: &Block) -> VerifiedBlock {
        verified(block, Codec::Raw, None, block.bytes().clone())
    }

    /// Encodes against `base`, a block that the receiver holds. `None` when that is not clearly shorter (90 %) than
    /// [`Self::seal`]: send that instead.
    ///
    /// A frame of at most a sixteenth of the block is taken without trying the other way, which would cost three
    /// times as much time as this one.
    pub fn seal_against(&self, block: &Block, base: &Block) -> Option<VerifiedBlock> {
        Self::against(block, base, || self.seal(block).sealed().payload.len())
    }

    /// The same where the block is here sealed without a base, in so many bytes.
    pub fn reseal_against(block: &Block, base: &Block, alone_bytes: usize) -> Option<VerifiedBlock> {
        Self::against(block, base, || alone_bytes)
    }

    fn against(block: &Block, base: &Block, alone_bytes: impl FnOnce() -> usize) -> Option<VerifiedBlock> {
        let plain = block.bytes();
        if plain.len() < BASE_BYTES_MIN || base.bytes().is_empty() {
            return None;
        }
        let payload = compress_against(plain, base.bytes())?;
        let cost = payload.len() + base.hash().as_bytes().len();
        let taken = cost <= plain.len() / SHORT_FRAME || cost <= alone_bytes() / 10 * 9;
        taken.then(|| verified(block, Codec::ZstdBase, Some(base.hash()), payload))
    }

    /// Says a block as parts of `bases`, which the receiver holds and which are known here by their sketches only. `None`
    /// when that is not clearly shorter (90 %) than [`Self::seal`].
    ///
    /// `shared` is what [`sketch::shared`](super::sketch::shared) found in the bases, in this order. It may be wrong: the
    /// receiver finds out.
    pub fn seal_patch(&self, block: &Block, bases: &[BlockHash], shared: &[Shared]) -> Option<VerifiedBlock> {
        let plain = block.bytes();
        if plain.len() < BASE_BYTES_MIN
            || shared.is_empty()
            || bases.is_empty()
            || bases.len() > patch::BASES_MAX
        {
            return None;
        }
        let (mut news, mut copied) = (Vec::new(), Vec::new());
        let mut at = 0;
        for copy in shared {
            news.extend_from_slice(plain.get(at..copy.at)?);
            copied.extend_from_slice(plain.get(copy.at..copy.at + copy.len)?);
            at = copy.at + copy.len;
        }
        news.extend_from_slice(plain.get(at..)?);
        let frame = if news.len() < FRAME_NEWS_MIN { None } else { compress_against(&news, &copied) };
        let frame =
            frame.map(|frame| frame.slice(FRAME_MAGIC.len()..)).filter(|frame| frame.len() < news.len());
        let (form, news) = frame.map_or_else(|| (Form::Raw, Bytes::from(news)), |frame| (Form::Frame, frame));
        let check = *block.hash().as_bytes().first_chunk()?;
        let payload = Patch { bases: bases.to_vec(), check, copies: shared.to_vec(), form, news }.encode();
        let alone = || self.seal(block).sealed().payload.len();
        let taken = payload.len() <= plain.len() / SHORT_FRAME || payload.len() <= alone() / 10 * 9;
        taken.then(|| verified(block, Codec::Patch, None, payload))
    }
}

fn verified(block: &Block, codec: Codec, base: Option<BlockHash>, payload: Bytes) -> VerifiedBlock {
    // Never saturates: a block has at most BLOCK_BYTES_MAX bytes.
    let plain_len = u32::try_from(block.bytes().len()).unwrap_or(u32::MAX);
    VerifiedBlock::trust(block.hash(), SealedBlock { codec, plain_len, base, payload })
}

/// One frame of at most `frame_bytes_max`; `None` when it would be longer.
fn compress(plain: &[u8], level: i32, frame_bytes_max: usize) -> Option<Bytes> {
    SCRATCH.with_borrow_mut(|scratch| {
        let Scratch { compress, compressed, .. } = scratch;
        // A frame that was given up leaves the context in the middle of it.
        compress.reset(ResetDirective::SessionAndParameters).ok()?;
        compress.set_parameter(CParameter::CompressionLevel(level)).ok()?;
        // zstd is at its fastest with room for the worst case, so the limit is applied afterwards.
        compressed.clear();
        compressed.reserve(zstd_safe::compress_bound(plain.len()));
        let len = compress.compress2(compressed, plain).ok()?;
        (len <= frame_bytes_max).then(|| Bytes::copy_from_slice(compressed))
    })
}

/// One frame with `base` as its prefix (the `ref_prefix` of zstd), so that what they share is a few bytes.
fn compress_against(plain: &[u8], base: &[u8]) -> Option<Bytes> {
    let near = frame_against(plain, base, BASE_LEVEL, false)?;
    // Text that repeats itself a lot leads the search to near matches past the one long match in the base: 6,330
    // bytes instead of 51 for a line edited in 40 KiB of few words. The long-distance search finds it, but takes
    // twice as long, so only what looks like that pays for it.
    if near.len() <= plain.len() / 64 || near.len() >= plain.len() / 2 {
        return Some(near);
    }
    match frame_against(plain, base, 1, true) {
        Some(far) if far.len() < near.len() => Some(far),
        _ => Some(near),
    }
}

fn frame_against(plain: &[u8], base: &[u8], level: i32, long_distance: bool) -> Option<Bytes> {
    let mut context = CCtx::try_create()?;
    // The window must reach from the end of the block to the start of the base: 256 + 256 KiB is 2^19.
    let window_log = (plain.len() + base.len()).next_power_of_two().ilog2().max(10);
    context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
    context.set_parameter(CParameter::WindowLog(window_log)).ok()?;
    if long_distance {
        context.set_parameter(CParameter::EnableLongDistanceMatching(true)).ok()?;
        context.set_parameter(CParameter::LdmMinMatch(32)).ok()?;
        context.set_parameter(CParameter::LdmHashRateLog(4)).ok()?;
    }
    context.ref_prefix(base).ok()?;
    let mut compressed = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    let len = context.compress2(&mut compressed, plain).ok()?;
    (len < plain.len()).then(|| Bytes::copy_from_slice(&compressed))
}

/// True when four samples of 1 KiB have the byte collision probability of random bytes (1/256, plus 15 %).
///
/// Measured on 1,024 blocks of programs and 1,024 of random bytes: no compressible block was taken for random.
fn looks_random(plain: &[u8]) -> bool {
    const SAMPLE_BYTES: usize = 1024;
    // Fewer bytes than the samples need: trying is cheap.
    if plain.len() < 4 * SAMPLE_BYTES {
        return false;
    }
    let mut counts = [0u32; 256];
    let stride = (plain.len() - SAMPLE_BYTES) / 3;
    for start in (0..4).map(|i| i * stride) {
        for &byte in plain.get(start..start + SAMPLE_BYTES).unwrap_or_default() {
            if let Some(count) = counts.get_mut(usize::from(byte)) {
                *count += 1;
            }
        }
    }
    // Sum of p squared < 1.15/256 with p = count/4096, in whole numbers; 4096 * 4096 * 1.15 / 256 = 75366.4.
    counts.iter().map(|count| count * count).sum::<u32>() <= 75_366
}

/// Decodes a block and computes its hash. The caller compares that with the hash it asked for.
///
/// `base` is needed for [`Codec::ZstdBase`] and [`Codec::Patch`] and ignored otherwise: the plain bytes of
/// [`SealedBlock::bases`], one after the other. A wrong base gives an error or another hash.
///
/// # Errors
/// Anything but exactly the declared number of plain bytes, see [`BlockError`].
pub fn open(sealed: &SealedBlock, base: Option<&[u8]>) -> Result<Block, BlockError> {
    sealed.check()?;
    let plain = match (sealed.codec, sealed.base, base) {
        (Codec::Raw, ..) => sealed.payload.clone(),
        (Codec::Zstd, ..) => {
            SCRATCH.with_borrow_mut(|s| decompress(&mut s.decompress, &sealed.payload, declared(sealed)))?
        }
        (Codec::ZstdBase, _, Some(base)) => {
            let mut context = DCtx::try_create().ok_or(BlockError::Decode)?;
            context.ref_prefix(base).map_err(|_| BlockError::Decode)?;
            decompress(&mut context, &sealed.payload, declared(sealed))?
        }
        (Codec::ZstdBase, Some(hash), None) => return Err(BlockError::BaseNeeded(hash)),
        (Codec::ZstdBase, None, None) => return Err(BlockError::BaseMismatch),
        (Codec::Patch, _, Some(base)) => return open_patch(sealed, base),
        (Codec::Patch, _, None) => {
            let first = sealed.bases()?.into_iter().next();
            return Err(first.map_or(BlockError::Patch, BlockError::BaseNeeded));
        }
    };
    Ok(Block::new(plain))
}

fn open_patch(sealed: &SealedBlock, base: &[u8]) -> Result<Block, BlockError> {
    let declared = declared(sealed);
    let patch = Patch::decode(&sealed.payload, declared)?;
    let parts: Option<Vec<&[u8]>> =
        patch.copies.iter().map(|copy| base.get(copy.from..copy.from + copy.len)).collect();
    let parts = parts.ok_or(BlockError::Patch)?;
    let news_len = patch.new_bytes(declared);
    let news = match patch.form {
        Form::Raw if patch.news.len() == news_len => patch.news.clone(),
        Form::Raw => {
            return Err(BlockError::PlainLength {
                declared: sealed.plain_len,
                found: patch.news.len() as u64,
            });
        }
        Form::Frame => {
            let copied = parts.concat();
            let frame = [&FRAME_MAGIC[..], &patch.news].concat();
            let mut context = DCtx::try_create().ok_or(BlockError::Decode)?;
            context.ref_prefix(&copied).map_err(|_| BlockError::Decode)?;
            decompress(&mut context, &frame, news_len)?
        }
    };
    let mut plain = Vec::with_capacity(declared);
    let mut rest: &[u8] = &news;
    for (copy, part) in patch.copies.iter().zip(parts) {
        let (before, after) = rest.split_at_checked(copy.at - plain.len()).ok_or(BlockError::Patch)?;
        plain.extend_from_slice(before);
        plain.extend_from_slice(part);
        rest = after;
    }
    plain.extend_from_slice(rest);
    let block = Block::new(Bytes::from(plain));
    if block.hash().as_bytes().starts_with(&patch.check) { Ok(block) } else { Err(BlockError::Check) }
}

fn declared(sealed: &SealedBlock) -> usize {
    usize::try_from(sealed.plain_len).unwrap_or(0)
}

/// As [`open`], but keeps the sealed form for a store or for others, now with a hash that is true.
///
/// # Errors
/// As [`open`].
pub fn verify(sealed: SealedBlock, base: Option<&[u8]>) -> Result<VerifiedBlock, BlockError> {
    verify_with_plain(sealed, base).map(|(verified, _)| verified)
}

/// As [`verify`], and gives the plain bytes too (a store seals a block that came against a base anew).
///
/// # Errors
/// As [`open`].
pub fn verify_with_plain(
    sealed: SealedBlock,
    base: Option<&[u8]>,
) -> Result<(VerifiedBlock, Block), BlockError> {
    let block = open(&sealed, base)?;
    Ok((VerifiedBlock::trust(block.hash(), sealed), block))
}

/// Makes bytes that are no block shorter: the head of a frame. `None` when they do not get shorter.
pub fn shrink(plain: &[u8]) -> Option<Bytes> {
    compress(plain, SHRINK_LEVEL, plain.len().saturating_sub(1)).map(|frame| frame.slice(FRAME_MAGIC.len()..))
}

/// The bytes that [`shrink`] was given, of which there must be exactly so many. The caller has bounded that number.
///
/// # Errors
/// Anything else.
pub fn grow(shrunk: &[u8], plain_len: usize) -> Result<Bytes, BlockError> {
    let frame = [&FRAME_MAGIC[..], shrunk].concat();
    SCRATCH.with_borrow_mut(|scratch| decompress(&mut scratch.decompress, &frame, plain_len))
}

/// Decodes one frame into exactly so many bytes, which the caller has bounded.
fn decompress(context: &mut DCtx<'_>, payload: &[u8], declared: usize) -> Result<Bytes, BlockError> {
    // zstd itself would accept further frames and skippable ones, so that one block could have endless encodings.
    let one_frame = payload.starts_with(&FRAME_MAGIC)
        && zstd_safe::find_frame_compressed_size(payload).is_ok_and(|len| len == payload.len());
    if !one_frame {
        return Err(BlockError::Frame);
    }
    // The capacity is the bound: a frame that holds more fails inside zstd.
    let mut plain = Vec::with_capacity(declared);
    context.decompress(&mut plain, payload).map_err(|_| BlockError::Decode)?;
    if plain.len() == declared {
        Ok(Bytes::from(plain))
    } else {
        let declared = u32::try_from(declared).unwrap_or(u32::MAX);
        Err(BlockError::PlainLength { declared, found: plain.len() as u64 })
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
