//! Speed of cutting, hashing and sealing, on one thread and on two. `cargo bench --bench chunking`
//!
//! Read the ratios, not the figures: "plain fastcdc" and "plain blake3" are measured beside ours on the same bytes.

#![allow(clippy::expect_used, clippy::print_stderr, missing_docs, reason = "a benchmark reports by stopping")]

#[path = "../tests/properties/sample.rs"]
mod sample;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dropblock::block::{Block, Sealer, seal};
use dropblock::chunk::{ChunkReader, V1, chunk_lengths};
use dropblock::model::BlockHash;
use std::hint::black_box;
use std::io;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Larger than any cache, small enough for any machine.
const FILE_BYTES: usize = 64 << 20;

/// The `fastcdc` crate by itself, the lower bound for ours.
fn plain_fastcdc(bytes: &[u8]) -> usize {
    use fastcdc::v2020::{FastCDC, Normalization};
    let cuts =
        FastCDC::with_level(bytes, V1.min_bytes(), V1.avg_bytes(), V1.max_bytes(), Normalization::Level2);
    cuts.map(|chunk| chunk.length).fold(0, usize::max)
}

fn read_and_hash(reader: &mut ChunkReader, bytes: &[u8]) -> u64 {
    let read = reader.read(bytes, |_, chunk| {
        black_box(BlockHash::of(chunk));
        Ok::<(), io::Error>(())
    });
    read.expect("memory can be read")
}

/// One thread cuts, the other hashes; segments of 4 MiB go between them.
fn two_threads(bytes: &Bytes) {
    let (sender, receiver) = sync_channel::<Vec<Bytes>>(4);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for chunk in receiver.into_iter().flatten() {
                black_box(BlockHash::of(&chunk));
            }
        });
        let mut rest = bytes.clone();
        let mut chunker = dropblock::chunk::Chunker::new(&V1);
        let (mut segment, mut segment_bytes) = (Vec::new(), 0);
        while let Some(len) = chunker.cut(&rest, true) {
            segment.push(rest.split_to(len));
            segment_bytes += len;
            if segment_bytes >= 4 << 20 {
                let _ = sender.send(std::mem::take(&mut segment));
                segment_bytes = 0;
            }
        }
        let _ = sender.send(segment);
        drop(sender);
    });
}

fn whole_files(c: &mut Criterion) {
    let files = [
        ("random", sample::random(FILE_BYTES, 1)),
        ("text", sample::text(FILE_BYTES, 1)),
        ("zeros", vec![0; FILE_BYTES]),
    ];
    for (name, bytes) in files {
        let bytes = Bytes::from(bytes);
        let mut group = c.benchmark_group(format!("file/{name}"));
        group.throughput(Throughput::Bytes(FILE_BYTES as u64));
        group.bench_function("plain fastcdc", |b| b.iter(|| plain_fastcdc(&bytes)));
        group.bench_function("chunk", |b| b.iter(|| chunk_lengths(&bytes, &V1)));
        group.bench_function("plain blake3 by 64 KiB", |b| {
            b.iter(|| bytes.chunks(65_536).map(blake3::hash).map(black_box).count());
        });
        for buffer_bytes in [1 << 20, 4 << 20] {
            let mut reader = ChunkReader::with_buffer(&V1, buffer_bytes);
            group.bench_function(BenchmarkId::new("read + chunk", buffer_bytes), |b| {
                b.iter(|| {
                    reader.read(&bytes[..], |_, chunk| {
                        black_box(chunk.len());
                        Ok::<_, io::Error>(())
                    })
                });
            });
            group.bench_function(BenchmarkId::new("read + chunk + hash", buffer_bytes), |b| {
                b.iter(|| read_and_hash(&mut reader, &bytes));
            });
        }
        group.bench_function("chunk + hash, two threads", |b| b.iter(|| two_threads(&bytes)));
        group.finish();
    }
}

fn small_files(c: &mut Criterion) {
    let mut group = c.benchmark_group("small files");
    for len in [1024, 4096, 65_536] {
        let bytes = sample::random(len, 1);
        let mut reader = ChunkReader::new(&V1);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("read + chunk + hash", len), |b| {
            b.iter(|| read_and_hash(&mut reader, &bytes));
        });
    }
    group.finish();
}

fn sealing(c: &mut Criterion) {
    let sealer = Sealer::default();
    for (name, plain) in [("random", sample::random(65_536, 1)), ("text", sample::text(65_536, 1))] {
        let block = Block::new(Bytes::from(plain.clone()));
        let mut edited = plain;
        edited.insert(30_000, b'!');
        let edited = Block::new(Bytes::from(edited));
        let sealed = sealer.seal(&block).into_sealed();
        let against = sealer.seal_against(&edited, &block).expect("one byte was inserted").into_sealed();
        let mut group = c.benchmark_group(format!("block/{name}"));
        group.throughput(Throughput::Bytes(65_536));
        group.bench_function("seal", |b| b.iter(|| sealer.seal(&block)));
        group.bench_function("seal against a base", |b| b.iter(|| sealer.seal_against(&edited, &block)));
        group.bench_function("open and hash", |b| b.iter(|| seal::open(&sealed, None)));
        group.bench_function("open against a base and hash", |b| {
            b.iter(|| seal::open(&against, Some(block.bytes())));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = whole_files, small_files, sealing
}
criterion_main!(benches);
