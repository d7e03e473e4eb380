//! A patch: the payload of a block that is said as parts of other blocks and a few new bytes ([`Codec::Patch`]).
//!
//! ```text
//! size     field
//! 1        number of bases, 1 to 4
//! 32 each  their hashes; the bases written one after the other are what is copied from
//! 4        the first bytes of the block's own hash
//! v        number of copies
//! per copy:
//!   v      new bytes before it
//!   v      zigzag of (where it is copied from - the end of the copy before it; 0 for the first)
//!   v      bytes copied, at least 1
//! 1        how the new bytes are held: 0 raw, 1 zstd
//! rest     all new bytes: plain, or one zstd frame without its four bytes of magic whose prefix is all that is copied,
//!          in the order of the copies
//! ```
//! `v` is LEB128 of at most 32 bits. New bytes behind the last copy are what is left of the block's plain length. Here is the
//! layout only: [`seal`](super::seal) compresses and opens.
//!
//! Why: the sender knows the bases by their [sketches](super::sketch) alone, so it can neither compress against them
//! nor be sure; the own hash lets the receiver say at once that it did not come out.
//!
//! [`Codec::Patch`]: super::Codec::Patch

use super::BlockError;
use super::sketch::Shared;
use crate::model::{BlockHash, limits};
use bytes::{Buf, Bytes};

/// Most bases of one block.
pub const BASES_MAX: usize = 4;
/// Bytes of the block's own hash in its patch.
pub const CHECK_BYTES: usize = 4;
const HASH_BYTES: usize = 32;

/// How the new bytes of a patch are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Raw,
    /// A frame without magic, against what is copied.
    Frame,
}

/// A patch as read. Lengths are checked against each other and the plain length; nothing else is true of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// What is copied from.
    pub bases: Vec<BlockHash>,
    /// The first bytes of the hash of the result.
    pub check: [u8; CHECK_BYTES],
    /// In order, without overlap.
    pub copies: Vec<Shared>,
    /// How [`Self::news`] are held.
    pub form: Form,
    /// The new bytes.
    pub news: Bytes,
}

/// The bases that a payload names.
///
/// # Errors
/// Bytes that are no patch.
pub fn bases(payload: &[u8]) -> Result<Vec<BlockHash>, BlockError> {
    let (&count, rest) = payload.split_first().ok_or(BlockError::Truncated)?;
    let count = usize::from(count);
    if count == 0 || count > BASES_MAX {
        return Err(BlockError::Patch);
    }
    let hashes = rest.get(..count * HASH_BYTES).ok_or(BlockError::Truncated)?;
    let hashes = hashes.chunks_exact(HASH_BYTES).filter_map(|hash| hash.first_chunk::<HASH_BYTES>());
    Ok(hashes.map(|hash| BlockHash::from_bytes(*hash)).collect())
}

impl Patch {
    /// New bytes of a block of this length.
    pub fn new_bytes(&self, plain_len: usize) -> usize {
        plain_len - self.copies.iter().map(|copy| copy.len).sum::<usize>().min(plain_len)
    }

    /// The payload.
    pub fn encode(&self) -> Bytes {
        let mut out =
            Vec::with_capacity(64 + HASH_BYTES * self.bases.len() + 6 * self.copies.len() + self.news.len());
        out.push(u8::try_from(self.bases.len()).unwrap_or(u8::MAX));
        self.bases.iter().for_each(|base| out.extend_from_slice(base.as_bytes()));
        out.extend_from_slice(&self.check);
        put(&mut out, self.copies.len());
        let (mut at, mut from) = (0, 0);
        for copy in &self.copies {
            put(&mut out, copy.at - at);
            put(
                &mut out,
                if copy.from >= from { (copy.from - from) * 2 } else { (from - copy.from) * 2 - 1 },
            );
            put(&mut out, copy.len);
            (at, from) = (copy.at + copy.len, copy.from + copy.len);
        }
        out.push(match self.form {
            Form::Raw => 0,
            Form::Frame => 1,
        });
        out.extend_from_slice(&self.news);
        Bytes::from(out)
    }

    /// Reads all of a payload.
    ///
    /// # Errors
    /// Bytes that [`Self::encode`] gives for no block of this length.
    pub fn decode(payload: &Bytes, plain_len: usize) -> Result<Self, BlockError> {
        let bases = bases(payload)?;
        let mut rest = payload.clone();
        rest.advance(1 + HASH_BYTES * bases.len());
        let mut check = [0; CHECK_BYTES];
        rest.try_copy_to_slice(&mut check).map_err(|_| BlockError::Truncated)?;
        let count = take(&mut rest)?;
        // A copy takes three bytes at least: no number that is written here makes memory of its own size.
        if count > rest.len() / 3 || count > limits::BLOCK_BYTES_MAX {
            return Err(BlockError::Patch);
        }
        let mut copies = Vec::with_capacity(count);
        let (mut at, mut from) = (0usize, 0usize);
        for _ in 0..count {
            at += take(&mut rest)?;
            let step = take(&mut rest)?;
            let place =
                if step % 2 == 0 { from.checked_add(step / 2) } else { from.checked_sub(step / 2 + 1) };
            let (place, len) = (place.ok_or(BlockError::Patch)?, take(&mut rest)?);
            copies.push(Shared { at, from: place, len });
            (at, from) = (at + len, place + len);
            if len == 0 || at > plain_len || from > BASES_MAX * limits::BLOCK_BYTES_MAX {
                return Err(BlockError::Patch);
            }
        }
        let form = match rest.try_get_u8().map_err(|_| BlockError::Truncated)? {
            0 => Form::Raw,
            1 => Form::Frame,
            _ => return Err(BlockError::Patch),
        };
        Ok(Self { bases, check, copies, form, news: rest })
    }
}

fn put(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(0x80 | u8::try_from(value & 0x7F).unwrap_or(0));
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// At most 32 bits, so that sums of a few never overflow.
fn take(bytes: &mut Bytes) -> Result<usize, BlockError> {
    let mut value = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = bytes.try_get_u8().map_err(|_| BlockError::Truncated)?;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return u32::try_from(value)
                .ok()
                .and_then(|value| usize::try_from(value).ok())
                .ok_or(BlockError::Patch);
        }
    }
    Err(BlockError::Patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch() -> Patch {
        Patch {
            bases: vec![BlockHash::of(b"a"), BlockHash::of(b"b")],
            check: [1, 2, 3, 4],
            copies: vec![
                Shared { at: 0, from: 300, len: 1000 },
                Shared { at: 1010, from: 5, len: 70_000 },
                Shared { at: 71_010, from: 200_000, len: 1 },
            ],
            form: Form::Raw,
            news: Bytes::from_static(b"0123456789new"),
        }
    }

    #[test]
    fn a_patch_comes_back_and_its_bases_are_known_without_the_rest() {
        let payload = patch().encode();
        assert_eq!(Patch::decode(&payload, 71_014), Ok(patch()));
        assert_eq!(bases(&payload).unwrap(), patch().bases);
        assert_eq!(patch().new_bytes(71_014), 13);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let payload = patch().encode();
        assert!(Patch::decode(&payload, 71_010).is_err(), "copies past the end");
        for cut in 0..payload.len() - 13 {
            assert!(Patch::decode(&payload.slice(..cut), 71_014).is_err(), "cut at {cut}");
        }
        let with = |at: usize, value: u8| {
            let mut changed = payload.to_vec();
            changed[at] = value;
            Patch::decode(&Bytes::from(changed), 71_014)
        };
        assert!(with(0, 0).is_err() && with(0, 5).is_err());
        assert!(with(69, 0xFF).is_err(), "a number of copies that cannot be");
        let huge = [&[1u8][..], &[0; 36], &[0xFF; 5], &[0; 9]].concat();
        assert!(Patch::decode(&Bytes::from(huge), 100).is_err());
    }
}
