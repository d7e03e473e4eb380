//! Sketches: short sums of a block's bytes, by which a later version finds what it shares with a block whose bytes are gone.
//!
//! A client that was told of an edit has the new bytes only; the old ones were overwritten. It keeps a sketch of every
//! block instead: one 16-bit sum per grain of 64 bytes (3 % of the block). What of an old block is still there is found by
//! sliding a window over the new block, at any offset. Sums may agree by chance, so a sketch proves nothing: whoever
//! uses what is found here lets the receiver compare the hash of the whole.
//!
//! Pure. The sum of bytes `b` is the polynomial `b[0] M^(n-1) + … + b[n-1]` modulo 2^16 (Karp, Rabin 1987), because a
//! window moves on by one byte in three operations. `M - 1` has one factor 2 only, so that no two bytes of a grain can
//! change places unseen.

use std::cell::RefCell;

/// Smallest grain, bytes.
pub const GRAIN_BYTES_MIN: usize = 64;
/// Largest grain, bytes: coarser ones find too little in a block of 64 KiB.
pub const GRAIN_BYTES_MAX: usize = 1024;
/// A file has about this many sums at most, as long as the grain may grow: 16 MiB.
const SUMS_MAX: u64 = 8 << 20;
/// Grains in a row that must agree where something is found at another place than expected: 48 bits.
const JUMP_GRAINS: usize = 3;
/// The same at the place where it would be if bytes were only overwritten: 32 bits.
const STEP_GRAINS: usize = 2;
/// Places with equal sums that are looked at.
const CHAIN_MAX: usize = 16;
const MULTIPLIER: u16 = 0x6F4B;

/// The grain for a file of so many bytes.
pub fn grain_bytes(file_bytes: u64) -> usize {
    let grain = file_bytes.div_ceil(SUMS_MAX).next_power_of_two();
    usize::try_from(grain).unwrap_or(GRAIN_BYTES_MAX).clamp(GRAIN_BYTES_MIN, GRAIN_BYTES_MAX)
}

/// Number of sums in the sketch of a block of so many bytes.
pub const fn sums_of(block_bytes: usize, grain: usize) -> usize {
    block_bytes.div_ceil(grain)
}

/// Appends the sketch of a block: a sum per grain, the last one of what is left.
pub fn append(sums: &mut Vec<u16>, block: &[u8], grain: usize) {
    let powers = powers(grain);
    sums.extend(block.chunks(grain).map(|bytes| sum(bytes, &powers)));
}

/// `M^(n-1) … M^0`.
fn powers(grain: usize) -> Vec<u16> {
    let mut powers = vec![1u16; grain];
    for at in (1..grain).rev() {
        let next = powers.get(at).copied().unwrap_or(1).wrapping_mul(MULTIPLIER);
        if let Some(power) = powers.get_mut(at - 1) {
            *power = next;
        }
    }
    powers
}

/// The sum of at most a grain. Plain multiplications of equal width: the compiler does eight at a time.
fn sum(bytes: &[u8], powers: &[u16]) -> u16 {
    let powers = powers.get(powers.len() - bytes.len()..).unwrap_or_default();
    bytes
        .iter()
        .zip(powers)
        .fold(0u16, |sum, (byte, power)| sum.wrapping_add(u16::from(*byte).wrapping_mul(*power)))
}

/// An old block by its sketch.
#[derive(Debug, Clone, Copy)]
pub struct Sketched<'a> {
    /// Bytes of the block.
    pub len: usize,
    /// Its sums, [`sums_of`] of them.
    pub sums: &'a [u16],
}

/// A run of bytes that stands in the old blocks too, as far as sums can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// Where in the new block.
    pub at: usize,
    /// Where in the old blocks, written one after the other.
    pub from: usize,
    /// Bytes, at least 1.
    pub len: usize,
}

/// Room for the work of [`shared`], kept per thread.
#[derive(Default)]
struct Scratch {
    /// The sum of the window at each place of the new block.
    windows: Vec<u16>,
    /// The last grain with a sum, plus 1; 0: none.
    heads: Vec<u32>,
    /// The grain before with the same sum, plus 1.
    chain: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a new block seems to share with old ones, in order and without overlap. All sketches have the same grain.
///
/// Takes about 2 ns a byte of the new block; memory for 2 bytes a byte.
pub fn shared(new: &[u8], old: &[Sketched<'_>], grain: usize) -> Vec<Shared> {
    if new.len() < grain || old.is_empty() {
        return Vec::new();
    }
    let mut grains = Vec::new();
    let mut start = 0;
    for block in old {
        let lens = (0..block.len).step_by(grain).map(|at| grain.min(block.len - at));
        let places = (start..).step_by(grain);
        grains.extend(places.zip(lens).zip(block.sums).map(|((at, len), sum)| Grain { at, len, sum: *sum }));
        start += block.len;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        slide(&mut scratch.windows, new, grain);
        index(scratch, &grains, grain);
        let powers = powers(grain);
        Finder { new, grains: &grains, grain, scratch, powers: &powers }.find()
    })
}

/// A grain of the old blocks.
#[derive(Debug, Clone, Copy)]
struct Grain {
    /// Where in the old blocks, written one after the other.
    at: usize,
    /// Bytes; fewer than the grain at the end of a block.
    len: usize,
    sum: u16,
}

/// The sum of every window.
fn slide(windows: &mut Vec<u16>, new: &[u8], grain: usize) {
    let out_power = powers(grain).first().copied().unwrap_or(1);
    let mut now = sum(new.get(..grain).unwrap_or_default(), &powers(grain));
    windows.clear();
    windows.reserve(new.len());
    windows.push(now);
    for (out, into) in new.iter().zip(new.get(grain..).unwrap_or_default()) {
        now = now
            .wrapping_sub(out_power.wrapping_mul(u16::from(*out)))
            .wrapping_mul(MULTIPLIER)
            .wrapping_add(u16::from(*into));
        windows.push(now);
    }
}

/// Makes grains findable by their sum.
fn index(scratch: &mut Scratch, grains: &[Grain], grain: usize) {
    scratch.heads.clear();
    scratch.heads.resize(1 << 16, 0);
    scratch.chain.clear();
    scratch.chain.resize(grains.len(), 0);
    // Backwards, so that of equal grains the first is found first.
    for (index, one) in grains.iter().enumerate().rev().filter(|(_, one)| one.len == grain) {
        let (Some(head), Some(next)) =
            (scratch.heads.get_mut(usize::from(one.sum)), scratch.chain.get_mut(index))
        else {
            continue;
        };
        *next = std::mem::replace(head, u32::try_from(index + 1).unwrap_or(0));
    }
}

struct Finder<'a> {
    new: &'a [u8],
    grains: &'a [Grain],
    grain: usize,
    scratch: &'a Scratch,
    powers: &'a [u16],
}

impl Finder<'_> {
    fn find(&self) -> Vec<Shared> {
        let mut found: Vec<Shared> = Vec::new();
        let (mut at, mut next) = (0, 0);
        loop {
            // Where the run goes on, or began, one sum has to agree.
            if let Some(len) = self.agrees(at, next) {
                let from = self.grains.get(next).map_or(0, |grain| grain.at);
                match found.last_mut() {
                    Some(last) if last.at + last.len == at && last.from + last.len == from => last.len += len,
                    _ => found.push(Shared { at, from, len }),
                }
                (at, next) = (at + len, next + 1);
                continue;
            }
            match self.jump(at, next) {
                Some(place) => (at, next) = place,
                None => return found,
            }
        }
    }

    /// The length of a grain that stands at `at`.
    fn agrees(&self, at: usize, index: usize) -> Option<usize> {
        let grain = self.grains.get(index)?;
        let sum = if grain.len == self.grain {
            *self.scratch.windows.get(at)?
        } else {
            sum(self.new.get(at..at + grain.len)?, self.powers)
        };
        (sum == grain.sum).then_some(grain.len)
    }

    fn agree(&self, mut at: usize, first: usize, count: usize) -> bool {
        (first..first + count).all(|index| match self.agrees(at, index) {
            Some(len) => {
                at += len;
                true
            }
            None => false,
        })
    }

    /// The next place at or after `at` where some grains in a row agree, and the first of them.
    fn jump(&self, at: usize, next: usize) -> Option<(usize, usize)> {
        let mut straight = next;
        let mut straight_at = at;
        for place in at..self.scratch.windows.len() {
            while straight_at < place {
                straight_at += self.grains.get(straight).map_or(usize::MAX / 2, |grain| grain.len);
                straight += 1;
            }
            if straight_at == place && self.agree(place, straight, STEP_GRAINS) {
                return Some((place, straight));
            }
            let sum = *self.scratch.windows.get(place)?;
            let mut one = *self.scratch.heads.get(usize::from(sum))?;
            for _ in 0..CHAIN_MAX {
                let Some(index) = usize::try_from(one).ok().and_then(|one| one.checked_sub(1)) else { break };
                if self.agree(place, index, JUMP_GRAINS) {
                    return Some((place, index));
                }
                one = *self.scratch.chain.get(index)?;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash::expand;

    fn random(len: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; len];
        expand(&[seed; 32], 0, &mut bytes);
        bytes
    }

    fn find(new: &[u8], old: &[&[u8]], grain: usize) -> Vec<Shared> {
        let sketches: Vec<Vec<u16>> = old
            .iter()
            .map(|block| {
                let mut sums = Vec::new();
                append(&mut sums, block, grain);
                assert_eq!(sums.len(), sums_of(block.len(), grain));
                sums
            })
            .collect();
        let old: Vec<_> =
            old.iter().zip(&sketches).map(|(block, sums)| Sketched { len: block.len(), sums }).collect();
        shared(new, &old, grain)
    }

    /// All that was found is true, and this many bytes were not found.
    fn lost(new: &[u8], old: &[&[u8]], grain: usize) -> usize {
        let found = find(new, old, grain);
        let joined = old.concat();
        let mut end = 0;
        for run in &found {
            assert!(run.at >= end && run.len > 0);
            end = run.at + run.len;
            assert_eq!(new[run.at..end], joined[run.from..run.from + run.len]);
        }
        new.len() - found.iter().map(|run| run.len).sum::<usize>()
    }

    #[test]
    fn an_unchanged_block_is_one_run_whatever_its_length() {
        for len in [64, 65, 200, 4096, 70_001] {
            let old = random(len, 1);
            assert_eq!(find(&old, &[&old], 64), [Shared { at: 0, from: 0, len }]);
        }
    }

    #[test]
    fn around_an_edit_less_than_two_grains_are_lost() {
        let old = random(60_000, 2);
        for (at, cut, put) in [(0, 0, 1), (30_000, 0, 1), (30_000, 5, 0), (30_007, 40, 40), (59_990, 10, 30)]
        {
            let mut new = old.clone();
            new.splice(at..at + cut, random(put, 3));
            assert!(lost(&new, &[&old], 64) < put + 2 * 64, "{at} {cut} {put}");
        }
    }

    #[test]
    fn moved_parts_and_several_old_blocks_are_found() {
        let (a, b) = (random(50_000, 4), random(40_000, 5));
        let new = [&b[10_000..30_000], &random(500, 6), &a[..20_000], &b[..5_000]].concat();
        assert!(lost(&new, &[&a, &b], 64) < 500 + 4 * 128);
        let across = [&a[20_000..], &b[..20_000]].concat();
        assert!(lost(&across, &[&a, &b], 64) <= 64 + 20_000 % 64);
    }

    #[test]
    fn nothing_is_found_in_other_bytes_and_repetition_costs_no_more() {
        assert_eq!(lost(&random(60_000, 7), &[&random(60_000, 8)], 64), 60_000);
        let zeros = vec![0; 200_000];
        assert_eq!(lost(&zeros, &[&zeros], 64), 0);
        assert_eq!(lost(&zeros, &[&zeros[..100_000]], 64), 0);
        assert!(find(&[1; 10], &[&zeros], 64).is_empty());
    }

    #[test]
    fn the_grain_grows_with_the_file_up_to_its_bound() {
        assert_eq!(grain_bytes(0), 64);
        assert_eq!(grain_bytes(512 << 20), 64);
        assert_eq!(grain_bytes(1 << 30), 128);
        assert_eq!(grain_bytes(u64::MAX), 1024);
    }
}
