//! Large appends to a pack, past the page cache: straight from memory to the disk.
//!
//! A pack is read long after it was written, if ever, so its pages would only push others out, and copying into pages
//! that nobody has touched lately was most of what a large upload cost the server. What is written is cut at the pages
//! of the file:
//!
//! ```text
//! append       |  head  |       middle, whole pages        |  tail  |
//! written with   cache    direct, two halves side by side    cache
//! ```
//! The page of a tail is the page of the next head, so no page is ever written both ways. Nothing else differs: bytes
//! of an append reach the disk in any order, as they do from the page cache, and a sync of the file is what makes them
//! durable. Where the filesystem cannot do it, everything goes through the cache.

use super::file::{self, write_all_at};
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Offset, length and memory of a direct write are multiples of this, bytes: the page size, and no disk asks for more.
const ALIGN: usize = 4096;
/// Middles below this go through the cache, bytes: a direct write waits for the disk.
const MIDDLE_BYTES_MIN: usize = 256 * 1024;
/// Written at once, bytes.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// From here on a window is written by two threads, bytes: a disk does more with two requests than with one.
const SPLIT_BYTES_MIN: usize = 1024 * 1024;

/// Writes the large appends of one pack at a time.
#[derive(Debug, Default)]
pub struct Direct(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The pack that `file` is, 0 for none yet.
    pack: u32,
    /// `None` where the filesystem cannot write directly.
    file: Option<File>,
    /// Kept from append to append: fresh memory costs more than the copy into it.
    window: Vec<u8>,
}

impl Direct {
    /// Writes all slices at `offset` of pack `number`, which is open as `cached`.
    ///
    /// # Errors
    /// Any part of the bytes may have been written then.
    pub fn write(
        &self,
        cached: &File,
        (number, path): (u32, &Path),
        offset: u64,
        slices: &mut [IoSlice<'_>],
    ) -> io::Result<()> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let head = in_page(offset).map_or(0, |used| ALIGN - used).min(total);
        let middle = (total - head) / ALIGN * ALIGN;
        if middle < MIDDLE_BYTES_MIN {
            return write_all_at(cached, offset, slices);
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { pack, file, window } = &mut *state;
        if *pack != number {
            // Refused by a filesystem that cannot; anything else will show in the write through the cache.
            (*pack, *file) = (number, file::open_direct(path).ok());
        }
        let Some(direct) = file else { return write_all_at(cached, offset, slices) };
        if window.is_empty() {
            *window = vec![0; WINDOW_BYTES + ALIGN];
        }
        let start = window.as_ptr().align_offset(ALIGN);
        let window = window.get_mut(start..).unwrap_or_default();

        let mut source = Source { slices, at: 0 };
        let mut edge = [0; ALIGN];
        let mut at = offset;
        at += source.write_cached(cached, at, edge.get_mut(..head).unwrap_or_default())?;
        let mut left = middle;
        while left > 0 {
            let part = window.get_mut(..left.min(WINDOW_BYTES)).unwrap_or_default();
            source.take(part);
            write_window(direct, cached, at, part)?;
            at += part.len() as u64;
            left -= part.len();
        }
        source.write_cached(cached, at, edge.get_mut(..total - head - middle).unwrap_or_default())?;
        Ok(())
    }
}

/// Bytes of `offset`'s page before it; `None` where a page begins.
fn in_page(offset: u64) -> Option<usize> {
    usize::try_from(offset % ALIGN as u64).ok().filter(|used| *used > 0)
}

/// The bytes of an append, front to back.
struct Source<'a, 'b> {
    slices: &'a [IoSlice<'b>],
    /// Bytes of the first slice that were taken.
    at: usize,
}

impl Source<'_, '_> {
    /// Fills `out` with the next bytes.
    fn take(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            let Some((first, rest)) = self.slices.split_first() else { return };
            let bytes = first.get(self.at..).unwrap_or_default();
            let len = bytes.len().min(out.len());
            let (now, later) = out.split_at_mut(len);
            now.copy_from_slice(bytes.get(..len).unwrap_or_default());
            out = later;
            self.at += len;
            if self.at == first.len() {
                (self.slices, self.at) = (rest, 0);
            }
        }
    }

    /// Writes the next bytes, as many as `edge` has, through the cache. Returns how many that are.
    fn write_cached(&mut self, cached: &File, at: u64, edge: &mut [u8]) -> io::Result<u64> {
        if !edge.is_empty() {
            self.take(edge);
            write_all_at(cached, at, &mut [IoSlice::new(edge)])?;
        }
        Ok(edge.len() as u64)
    }
}

/// Writes whole pages.
fn write_window(direct: &File, cached: &File, at: u64, pages: &[u8]) -> io::Result<()> {
    if pages.len() < SPLIT_BYTES_MIN {
        return write_pages(direct, cached, at, pages);
    }
    let (front, back) = pages.split_at(pages.len() / 2 / ALIGN * ALIGN);
    std::thread::scope(|scope| {
        let other = std::thread::Builder::new()
            .spawn_scoped(scope, || write_pages(direct, cached, at + front.len() as u64, back));
        let first = write_pages(direct, cached, at, front);
        let second = match other {
            Ok(other) => other.join().unwrap_or_else(|_| Err(io::Error::other("a write panicked"))),
            Err(_) => write_pages(direct, cached, at + front.len() as u64, back),
        };
        first.and(second)
    })
}

fn write_pages(direct: &File, cached: &File, at: u64, pages: &[u8]) -> io::Result<()> {
    match write_all_at(direct, at, &mut [IoSlice::new(pages)]) {
        // A disk with larger sectors, or a short write that left the rest unaligned. Writing it all again is harmless.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            write_all_at(cached, at, &mut [IoSlice::new(pages)])
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash::expand;

    #[test]
    fn bytes_are_the_same_whichever_way_they_went_and_pages_are_shared_by_appends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let cached = file::create_new(&path).unwrap();
        let direct = Direct::default();
        let mut bytes = vec![0; 11 * 1024 * 1024];
        expand(&[4; 32], 0, &mut bytes);
        let (mut at, mut written) = (40u64, 0);
        // Below and above every threshold, ends that are page ends by chance, many slices and few.
        for (len, cut) in [
            (100, 7),
            (4096 * 65 - 140, 3000),
            (4096 * 64, 100_000),
            (300_001, 64),
            (9_000_000, 70_000),
            (1, 1),
            (1_200_000, 1_200_000),
        ] {
            let part = &bytes[written..written + len];
            let mut slices: Vec<_> = part.chunks(cut).map(IoSlice::new).collect();
            direct.write(&cached, (1, &path), at, &mut slices).unwrap();
            at += len as u64;
            written += len;
            let found = std::fs::read(&path).unwrap();
            assert!(found[40..] == bytes[..written], "after {written}");
        }
    }

    #[test]
    fn a_pack_that_cannot_be_opened_directly_is_written_through_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let cached = file::create_new(&path).unwrap();
        let bytes = vec![7; 2 << 20];
        let gone = folder.path().join("gone");
        Direct::default().write(&cached, (1, &gone), 5, &mut [IoSlice::new(&bytes)]).unwrap();
        assert!(std::fs::read(&path).unwrap()[5..] == bytes);
    }
}
