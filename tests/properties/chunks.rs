//! Cut points and blocks: the same however bytes arrive, and the same in every release.

use crate::{golden, sample};
use bytes::{Bytes, BytesMut};
use dropblock::block::{Block, Sealer, pack, seal};
use dropblock::chunk::{ChunkReader, V1, chunk_lengths};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::io::{self, Read};

/// Delivers bytes in the given portions, over and over.
struct Portions<'a> {
    rest: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
}

impl Read for Portions<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let portion = *self.sizes.next().unwrap();
        let len = portion.clamp(1, buffer.len().max(1)).min(self.rest.len());
        let (now, rest) = self.rest.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.rest = rest;
        Ok(len)
    }
}

fn lengths_when_read_in(bytes: &[u8], sizes: &[usize], buffer_bytes: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    let portions = Portions { rest: bytes, sizes: sizes.iter().cycle() };
    let total = ChunkReader::with_buffer(&V1, buffer_bytes).read(portions, |offset, chunk| {
        let at = usize::try_from(offset).unwrap();
        assert_eq!(chunk, &bytes[at..at + chunk.len()]);
        lengths.push(chunk.len());
        Ok::<(), io::Error>(())
    });
    assert_eq!(total.unwrap(), bytes.len() as u64);
    lengths
}

/// Random, text and zeros, one behind the other.
fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let piece = (0..3u8, any::<u8>(), 0..400_000usize).prop_map(|(sort, seed, len)| match sort {
        0 => sample::random(len, seed),
        1 => sample::text(len, seed),
        _ => vec![0; len],
    });
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cuts_do_not_depend_on_how_the_reader_delivers(
        bytes in any_file(),
        sizes in prop::collection::vec(1..300_000usize, 1..8),
        buffer_bytes in 0..2_000_000usize,
    ) {
        prop_assert_eq!(lengths_when_read_in(&bytes, &sizes, buffer_bytes), chunk_lengths(&bytes, &V1));
    }

    #[test]
    fn lengths_are_in_bounds_and_cover_the_file(bytes in any_file()) {
        let lengths = chunk_lengths(&bytes, &V1);
        prop_assert_eq!(lengths.iter().sum::<usize>(), bytes.len());
        let body = lengths.split_last().map_or(&[][..], |(_, body)| body);
        prop_assert!(body.iter().all(|len| (V1.min_bytes()..=V1.max_bytes()).contains(len)));
        prop_assert!(lengths.iter().all(|len| (1..=V1.max_bytes()).contains(len)));
        prop_assert!(bytes.len() > V1.avg_bytes() || lengths.len() <= 1);
    }

    #[test]
    fn any_blocks_come_back_from_a_pack(bytes in any_file(), level in 1..4) {
        let sealer = Sealer::new(level);
        let (mut rest, mut sealed) = (Bytes::from(bytes.clone()), Vec::new());
        let mut previous: Option<Block> = None;
        for len in chunk_lengths(&bytes, &V1) {
            let block = Block::new(rest.split_to(len));
            let against = previous.as_ref().and_then(|base| sealer.seal_against(&block, base));
            sealed.push(against.unwrap_or_else(|| sealer.seal(&block)).into_sealed());
            previous = Some(block);
        }
        let mut wire = BytesMut::new();
        pack::append(&mut wire, &sealed);
        let mut back = BytesMut::new();
        let mut previous: Option<Block> = None;
        for block in pack::decode(wire.freeze()).unwrap() {
            let base = previous.as_ref().map(|block| &block.bytes()[..]);
            let block = seal::open(&block, base).unwrap();
            back.extend_from_slice(block.bytes());
            previous = Some(block);
        }
        prop_assert_eq!(&back[..], &bytes[..]);
    }

    #[test]
    fn no_bytes_make_a_pack_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), codec in 0..3u8) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = codec;
        }
        for block in pack::decode(Bytes::from(bytes)).unwrap_or_default() {
            let _ = seal::open(&block, Some(b"base"));
        }
    }
}

#[test]
fn one_byte_at_a_time_gives_the_same_cuts() {
    let bytes = [sample::random(500_000, 1), sample::text(200_000, 2)].concat();
    assert_eq!(lengths_when_read_in(&bytes, &[1], 0), chunk_lengths(&bytes, &V1));
}

#[test]
fn cut_points_are_those_of_the_golden_file() {
    let files: [(&str, Vec<u8>); 7] = [
        ("random seed 1", sample::random(2_000_000, 1)),
        ("random seed 2", sample::random(1_000_001, 2)),
        ("text seed 1", sample::text(2_000_000, 1)),
        ("zeros", vec![0; 700_000]),
        ("random seed 1", sample::random(65_536, 1)),
        ("random seed 1", sample::random(65_537, 1)),
        ("random seed 3, 300000 zeros inside", {
            let (head, tail) = (sample::random(150_000, 3), sample::random(250_000, 4));
            [head, vec![0; 300_000], tail].concat()
        }),
    ];
    let mut found = String::from(
        "# chunk parameters 1; per file: what (tests/properties/sample.rs), bytes: chunk lengths\n",
    );
    for (name, bytes) in files {
        let lengths = chunk_lengths(&bytes, &V1).iter().map(usize::to_string).collect::<Vec<_>>();
        writeln!(found, "{name}, {}: {}", bytes.len(), lengths.join(" ")).unwrap();
    }
    golden::check("chunks-v1.txt", &found);
}
