//! The chunker: finds the next cut in a window of a file's bytes. The only file that names the `fastcdc` crate.
//!
//! FastCDC (Xia et al., USENIX ATC 2016 and IEEE TPDS 2020) restarts its rolling hash at every cut, so a cut depends on
//! at most `max_bytes` from the chunk's start. That is why a window of `max_bytes` is always enough to decide, and
//! why the way in which the bytes arrive cannot matter: with fewer, the chunker asks for more.

use super::gear::Scan;
use super::params::Params;
use fastcdc::v2020::{self, Normalization};

/// Cuts one file, front to back. Holds no bytes: the caller keeps the window and drops what was cut off.
#[derive(Debug, Clone)]
pub struct Chunker {
    params: Params,
    mask_small: u64,
    mask_large: u64,
    at_start: bool,
}

impl Chunker {
    /// A chunker at the start of a file.
    pub fn new(params: &Params) -> Self {
        let (mask_small, mask_large) = v2020::select_masks(params.avg_bytes(), Normalization::Level2);
        Self { params: *params, mask_small, mask_large, at_start: true }
    }

    /// A chunker at a later cut of a file.
    pub fn inside(params: &Params) -> Self {
        Self { at_start: false, ..Self::new(params) }
    }

    /// Length of the next chunk, which starts where `window` starts.
    ///
    /// `last` says that the file ends where `window` ends. `None`: the window is shorter than `max_bytes` and more of
    /// the file follows (call again with a longer one), or nothing remains. After `Some(n)`, the next window starts
    /// `n` bytes further on.
    pub fn cut(&mut self, window: &[u8], last: bool) -> Option<usize> {
        if window.is_empty() || (!last && window.len() < self.params.max_bytes()) {
            return None;
        }
        let whole_file = self.at_start && last;
        self.at_start = false;
        if whole_file && window.len() <= self.params.avg_bytes() {
            return Some(window.len());
        }
        let window = window.get(..self.params.max_bytes()).unwrap_or(window);
        // A window of zeros has no cut in it; seeing that is ten times cheaper than scanning it.
        if is_zero(window) {
            return Some(window.len());
        }
        Some(self.scan(window))
    }

    /// Where a window of at most `max_bytes` is cut: at the first place from `min_bytes` on where the hash fits the
    /// stricter mask, from `avg_bytes` on the other one. Places come in pairs; the odd one at the end is none.
    fn scan(&self, window: &[u8]) -> usize {
        let (min, avg) = (self.params.min_bytes(), self.params.avg_bytes());
        let even = window.len() / 2 * 2;
        let mut scan = Scan::new();
        let mut find = |from: usize, to: usize, mask| Some(from + scan.find(window.get(from..to)?, mask)?);
        let cut = find(min, avg.min(even), self.mask_small)
            .or_else(|| find(avg.min(even).max(min), even, self.mask_large));
        cut.unwrap_or(window.len())
    }
}

/// What each byte adds to the hash of FastCDC v2020.
pub(super) fn gear_table() -> [u64; 256] {
    let (gear, _) = v2020::get_gear_with_seed(0);
    std::array::from_fn(|byte| gear.get(byte).copied().unwrap_or_default())
}

/// True when every byte is zero. Other bytes are noticed within the first 64 in practice.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|part| part.iter().fold(0, |seen, byte| seen | byte) == 0)
}

/// The lengths of all chunks of a file that is in memory, in file order.
pub fn chunk_lengths(bytes: &[u8], params: &Params) -> Vec<usize> {
    let mut chunker = Chunker::new(params);
    let mut rest = bytes;
    let mut lengths = Vec::with_capacity(bytes.len() / params.avg_bytes() + 1);
    while let Some(len) = chunker.cut(rest, true) {
        lengths.push(len);
        rest = rest.get(len..).unwrap_or_default();
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::V1;
    use crate::model::hash::expand;

    fn random(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        expand(&[7; 32], 0, &mut bytes);
        bytes
    }

    #[test]
    fn a_file_of_at_most_the_average_is_one_chunk() {
        assert!(chunk_lengths(&[], &V1).is_empty());
        for len in [1, V1.min_bytes(), V1.min_bytes() + 1, V1.avg_bytes() - 1, V1.avg_bytes()] {
            assert_eq!(chunk_lengths(&random(len), &V1), [len]);
        }
    }

    #[test]
    fn lengths_stay_in_bounds_and_cover_the_file() {
        let bytes = random(3_000_001);
        let lengths = chunk_lengths(&bytes, &V1);
        assert_eq!(lengths.iter().sum::<usize>(), bytes.len());
        let (_, body) = lengths.split_last().unwrap();
        assert!(body.iter().all(|len| (V1.min_bytes()..=V1.max_bytes()).contains(len)));
        assert!(lengths.len() > 30);
    }

    #[test]
    fn the_shortcut_for_zeros_cuts_where_the_scan_cuts() {
        let (small, large) = v2020::select_masks(V1.avg_bytes(), Normalization::Level2);
        for len in [V1.min_bytes() + 1, V1.avg_bytes() + 3, V1.max_bytes(), V1.max_bytes() + 10] {
            let zeros = vec![0; len];
            let (_, scanned) = v2020::cut(
                &zeros,
                V1.min_bytes(),
                V1.avg_bytes(),
                V1.max_bytes(),
                small,
                large,
                small << 1,
                large << 1,
            );
            let mut chunker = Chunker { at_start: false, ..Chunker::new(&V1) };
            assert_eq!(chunker.cut(&zeros, true), Some(scanned));
        }
    }

    #[test]
    fn cuts_are_those_of_the_fastcdc_iterator_behind_the_rule_for_short_files() {
        let bytes = random(5_000_000);
        let theirs: Vec<usize> = v2020::FastCDC::with_level(
            &bytes,
            V1.min_bytes(),
            V1.avg_bytes(),
            V1.max_bytes(),
            Normalization::Level2,
        )
        .map(|chunk| chunk.length)
        .collect();
        assert_eq!(chunk_lengths(&bytes, &V1), theirs);
    }

    /// Contents in which cuts come early, late, at the forced end, and side by side; windows of every odd length.
    #[test]
    fn cuts_are_those_of_the_crate_for_any_content_and_length() {
        let mut contents = vec![random(3_000_000), b"0123456789abcdef".repeat(50_000)];
        let mut sparse = vec![b' '; 3_000_000];
        for (at, byte) in random(4_000).iter().enumerate() {
            sparse[at * 701 + usize::from(*byte)] = *byte;
        }
        contents.push(sparse);
        let (small, large) = v2020::select_masks(V1.avg_bytes(), Normalization::Level2);
        let mut chunker = Chunker { at_start: false, ..Chunker::new(&V1) };
        for bytes in contents {
            let mut rest = &bytes[..];
            let mut odd = 1;
            while !rest.is_empty() {
                for len in [rest.len(), V1.min_bytes() + odd, V1.avg_bytes() - odd, V1.avg_bytes() + odd] {
                    let window = &rest[..len.min(rest.len())];
                    let (_, theirs) = v2020::cut(
                        window,
                        V1.min_bytes(),
                        V1.avg_bytes(),
                        V1.max_bytes(),
                        small,
                        large,
                        small << 1,
                        large << 1,
                    );
                    assert_eq!(chunker.cut(window, true), Some(theirs), "{} bytes", window.len());
                }
                rest = &rest[chunker.cut(rest, true).unwrap()..];
                odd = (odd * 37 + 11) % 5_000;
            }
        }
    }

    #[test]
    fn a_short_window_asks_for_more_and_an_empty_end_is_the_end() {
        let bytes = random(V1.max_bytes());
        let mut chunker = Chunker::new(&V1);
        assert_eq!(chunker.cut(&bytes[..V1.max_bytes() - 1], false), None);
        assert!(chunker.cut(&bytes, false).is_some());
        assert_eq!(chunker.cut(&[], true), None);
    }
}
