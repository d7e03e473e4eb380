//! One large file on several threads, with the cuts that one thread would make.
//!
//! A file is cut from the front, and where a chunk ends depends on where it begins. But two cutters that begin at different
//! places soon find the same cut (within three chunks, mostly), and from there on agree. So threads take segments and cut
//! each from its own start, which is a guess; whoever puts the segments together goes on from the last true cut by itself until it
//! meets one of the guesses, and takes over what follows it. Where nothing is ever met (a run of zeros, of which every chunk
//! has the longest length) it cuts all by itself: slower, never different.

use super::{Buffers, Chunker, Params};
use bytes::Bytes;
use std::io::{self, ErrorKind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of a segment. What is read and cut twice at its edges is 5 % of this.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;

/// Reads files and hands out what is made of their chunks.
#[derive(Debug)]
pub struct ParallelReader {
    params: Params,
    buffers: Buffers,
    threads: usize,
}

/// What a thread found in a segment.
struct Segment<T> {
    /// The buffer.
    whole: Bytes,
    /// Bytes in it: of the segment, and of the longest chunk that begins in it.
    filled: usize,
    /// The file ends there.
    ends: bool,
    /// Where a chunk begins if one begins at the start, its length, and what is made of it.
    guesses: Vec<(usize, usize, T)>,
}

impl ParallelReader {
    /// A reader on so many threads besides the caller's, at least one. It holds two segments for each.
    pub fn new(params: &Params, threads: usize) -> Self {
        let buffers = Buffers::of(SEGMENT_BYTES + params.max_bytes());
        Self { params: *params, buffers, threads: threads.max(1) }
    }

    /// Reads to the end by `read_at(buffer, offset)`, and calls `on_chunk(offset, made)` for what `make` makes of each chunk, in
    /// order and on this thread. Returns the number of bytes read.
    ///
    /// # Errors
    /// The first error of `read_at` (interrupted reads are repeated) or of `on_chunk`; nothing is called after it.
    pub fn read<T, E>(
        &self,
        read_at: impl Fn(&mut [u8], u64) -> io::Result<usize> + Sync,
        make: impl Fn(Bytes) -> T + Sync,
        on_chunk: impl FnMut(u64, T) -> Result<(), E>,
    ) -> Result<u64, E>
    where
        T: Send,
        E: From<io::Error>,
    {
        std::thread::scope(|scope| {
            let mut segments = Vec::with_capacity(self.threads);
            for first in 0..self.threads {
                // One waits while the next is worked on.
                let (sender, receiver) = sync_channel(1);
                let (read_at, make) = (&read_at, &make);
                scope.spawn(move || self.cut_segments(first, read_at, make, &sender));
                segments.push(receiver);
            }
            // Gone when this is done, early or not: then the threads end.
            self.put_together(&segments, &make, on_chunk)
        })
    }

    /// Cuts every `threads`-th segment until the file ends or nobody wants more.
    fn cut_segments<T>(
        &self,
        first: usize,
        read_at: &(impl Fn(&mut [u8], u64) -> io::Result<usize> + Sync),
        make: &(impl Fn(Bytes) -> T + Sync),
        sender: &SyncSender<io::Result<Segment<T>>>,
    ) {
        for index in (first..).step_by(self.threads) {
            let segment = self.cut_segment(index, read_at, make);
            let is_last =
                segment.as_ref().map_or(true, |segment| segment.ends && segment.filled <= SEGMENT_BYTES);
            if sender.send(segment).is_err() || is_last {
                return;
            }
        }
    }

    fn cut_segment<T>(
        &self,
        index: usize,
        read_at: &impl Fn(&mut [u8], u64) -> io::Result<usize>,
        make: &impl Fn(Bytes) -> T,
    ) -> io::Result<Segment<T>> {
        let mut buffer = self.buffers.take();
        let filled = fill(read_at, &mut buffer, start_of(index))?;
        let ends = filled < buffer.len();
        let whole = buffer.freeze();
        let bytes = whole.slice(..filled);
        let mut chunker = if index == 0 { Chunker::new(&self.params) } else { Chunker::inside(&self.params) };
        let mut guesses = Vec::with_capacity(SEGMENT_BYTES / self.params.avg_bytes());
        let mut at = 0;
        while at < SEGMENT_BYTES
            && let Some(len) = bytes.get(at..).and_then(|rest| chunker.cut(rest, ends))
        {
            guesses.push((at, len, make(bytes.slice(at..at + len))));
            at += len;
        }
        Ok(Segment { whole, filled, ends, guesses })
    }

    fn put_together<T, E: From<io::Error>>(
        &self,
        segments: &[Receiver<io::Result<Segment<T>>>],
        make: &impl Fn(Bytes) -> T,
        mut on_chunk: impl FnMut(u64, T) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut offset = 0;
        for (index, receiver) in segments.iter().cycle().enumerate() {
            let Ok(segment) = receiver.recv() else { break };
            let Segment { whole, filled, ends, guesses } = segment?;
            let bytes = whole.slice(..filled);
            // At the start of the file the guess is true.
            let mut chunker = Chunker::inside(&self.params);
            let mut guesses = guesses.into_iter().peekable();
            let place = |offset: u64| usize::try_from(offset.checked_sub(start_of(index))?).ok();
            // A file that becomes shorter meanwhile may end before what was cut: whoever looks at its length sees that.
            while let Some(at) = place(offset).filter(|at| *at < filled.min(SEGMENT_BYTES)) {
                while guesses.next_if(|(guess, ..)| *guess < at).is_some() {}
                let (len, made) = match guesses.next_if(|(guess, ..)| *guess == at) {
                    Some((_, len, made)) => (len, made),
                    None => {
                        let rest = bytes.slice(at..);
                        let Some(len) = chunker.cut(&rest, ends) else { break };
                        (len, make(rest.slice(..len)))
                    }
                };
                on_chunk(offset, made)?;
                offset += len as u64;
            }
            drop((bytes, guesses));
            self.buffers.give_back(whole);
            if ends && filled <= SEGMENT_BYTES {
                break;
            }
        }
        Ok(offset)
    }
}

fn start_of(index: usize) -> u64 {
    index as u64 * SEGMENT_BYTES as u64
}

/// Reads until the buffer is full or the file has ended; how much is in it.
fn fill(
    read_at: &impl Fn(&mut [u8], u64) -> io::Result<usize>,
    buffer: &mut [u8],
    start: u64,
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(space) = buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
        match read_at(space, start + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{V1, chunk_lengths};
    use crate::model::hash::expand;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn random(seed: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        expand(&[seed; 32], 0, &mut bytes);
        bytes
    }

    fn at<'a>(bytes: &'a [u8], step: usize) -> impl Fn(&mut [u8], u64) -> io::Result<usize> + Sync + 'a {
        move |buffer, offset| {
            let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let len = rest.len().min(buffer.len()).min(step);
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
    }

    /// The lengths, and how many chunks were made.
    fn lengths(bytes: &[u8], threads: usize, step: usize) -> (Vec<usize>, usize) {
        let (mut lengths, mut expected) = (Vec::new(), 0);
        let made = AtomicUsize::new(0);
        let make = |chunk: Bytes| {
            made.fetch_add(1, Ordering::Relaxed);
            chunk
        };
        let read = ParallelReader::new(&V1, threads).read(at(bytes, step), make, |offset, chunk| {
            assert_eq!(offset, expected);
            assert!(chunk == bytes[usize::try_from(offset).unwrap()..][..chunk.len()]);
            expected += chunk.len() as u64;
            lengths.push(chunk.len());
            Ok::<(), io::Error>(())
        });
        assert_eq!(read.unwrap(), expected);
        (lengths, made.load(Ordering::Relaxed))
    }

    #[test]
    fn cuts_are_those_of_one_thread() {
        let segment = SEGMENT_BYTES;
        let mut mixed = random(1, 3 * segment + 12_345);
        mixed[segment - 700_000..segment + 900_000].fill(0);
        mixed[2 * segment..2 * segment + 100_000].fill(7);
        let long = random(2, 5 * segment);
        let files: [&[u8]; 9] = [
            &[],
            &long[..1],
            &long[..V1.avg_bytes()],
            &long[..segment],
            &long[..segment + 1],
            &long[..segment + V1.max_bytes()],
            &long,
            &mixed,
            &vec![0; 2 * segment + 5],
        ];
        for bytes in files {
            let whole = chunk_lengths(bytes, &V1);
            for threads in [1, 2, 3, 8] {
                assert!(lengths(bytes, threads, usize::MAX).0 == whole, "{} bytes", bytes.len());
            }
            assert!(lengths(bytes, 2, 100_003).0 == whole);
        }
        let (found, made) = lengths(&long, 2, usize::MAX);
        assert!(made < found.len() * 115 / 100, "{made} made for {}", found.len());
    }

    #[test]
    fn an_error_of_the_source_or_of_the_caller_ends_it() {
        let bytes = random(3, 40 * 1024 * 1024);
        let reader = ParallelReader::new(&V1, 3);
        let broken = |buffer: &mut [u8], offset: u64| match offset {
            20_000_000.. => Err(io::Error::other("broken")),
            _ => at(&bytes, usize::MAX)(buffer, offset),
        };
        let mut seen = 0;
        let read = reader.read(
            broken,
            |chunk| chunk.len() as u64,
            |offset, len| {
                seen = offset + len;
                Ok::<(), io::Error>(())
            },
        );
        assert_eq!(
            (read.unwrap_err().to_string(), seen < 21_300_000),
            ("broken".into(), true),
            "five segments are whole"
        );
        let refused = reader.read(
            at(&bytes, usize::MAX),
            |_| (),
            |offset, ()| match offset {
                5_000_000.. => Err(io::Error::other("no")),
                _ => Ok(()),
            },
        );
        assert_eq!(refused.unwrap_err().to_string(), "no");
    }

    #[test]
    fn a_file_that_changes_its_length_meanwhile_ends_somewhere() {
        let bytes = random(4, 30 * 1024 * 1024);
        for (early, late) in [(bytes.len(), 9_000_000), (9_000_000, bytes.len()), (bytes.len(), 0)] {
            let calls = AtomicUsize::new(0);
            let source = |buffer: &mut [u8], offset: u64| {
                let len = if calls.fetch_add(1, Ordering::Relaxed) < 3 { early } else { late };
                at(&bytes[..len], usize::MAX)(buffer, offset)
            };
            let read = ParallelReader::new(&V1, 2).read(source, |_| (), |_, ()| Ok::<(), io::Error>(()));
            assert!(read.unwrap() <= bytes.len() as u64);
        }
    }
}
