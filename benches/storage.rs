//! Puts and commits into a store on disk, reads from it, and the latency of one small commit; beside them the plain
//! write and sync of the same bytes, which is what the disk allows.
//!
//! `cargo bench --bench storage`. The store lies in `DROPBLOCK_BENCH_DIR`, or in the system's temporary folder; put it
//! on a real disk.

#![allow(clippy::expect_used, missing_docs)]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dropblock::block::{Block, Sealer, VerifiedBlock};
use dropblock::model::{Change, FileContent, Kind, Name, NodeId, NodeState, Root, Seq, SessionId, hash};
use dropblock::storage::{BlockStore, CommitRequest, Journal, ShareId, Store, StoreOptions};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Runtime;

const BLOCK_BYTES: usize = 64 * 1024;
/// Blocks per put, as they come off the wire: 1 MiB.
const PER_PUT: usize = 16;
/// Puts per commit: 128 MiB.
const PUTS: usize = 128;

static FRESH: AtomicU64 = AtomicU64::new(1);

fn folder() -> tempfile::TempDir {
    match std::env::var_os("DROPBLOCK_BENCH_DIR") {
        Some(path) => tempfile::tempdir_in(path),
        None => tempfile::tempdir(),
    }
    .expect("a folder for the bench")
}

/// A block nobody has had before: the front of a fixed random one is replaced by a number.
fn fresh_block(pattern: &[u8]) -> VerifiedBlock {
    let mut bytes = pattern.to_vec();
    let number = FRESH.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    bytes.iter_mut().zip(number).for_each(|(slot, byte)| *slot = byte);
    Sealer::new(1).seal_raw(&Block::new(bytes.into()))
}

fn fresh_puts(pattern: &[u8], puts: usize) -> Vec<Vec<VerifiedBlock>> {
    (0..puts).map(|_| (0..PER_PUT).map(|_| fresh_block(pattern)).collect()).collect()
}

fn small_files(share: ShareId, count: usize) -> CommitRequest {
    let mut changes = Vec::new();
    let mut inline = Vec::new();
    for _ in 0..count {
        let number = FRESH.fetch_add(1, Ordering::Relaxed);
        let block = Block::new(Bytes::from(format!("small file {number}")));
        let mut id = [1; 16];
        id.iter_mut().zip(number.to_le_bytes()).for_each(|(slot, byte)| *slot = byte);
        let root = Root { params: 1, level: 0, hash: block.hash() };
        let content = FileContent { size: block.bytes().len() as u64, root };
        let kind = Kind::File { content, mtime_ns: 0, exec: false };
        let name = Name::new(number.to_string().as_bytes()).expect("digits are a name");
        let state = Some(NodeState { parent: NodeId::ROOT, name, kind });
        changes.push(Change { id: NodeId::from_bytes(id), base: Seq::ZERO, state });
        inline.push(Sealer::new(1).seal(&block));
    }
    CommitRequest {
        share,
        device: "bench".to_owned(),
        session: SessionId::from_bytes([1; 16]),
        changes,
        inline,
    }
}

fn storage(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = folder();
    let store = Store::open(&folder.path().join("store"), StoreOptions::default()).expect("a store");
    let (share, _) = runtime.block_on(store.open_share("bench")).expect("a share");
    let mut pattern = vec![0; BLOCK_BYTES];
    hash::expand(&[7; 32], 0, &mut pattern);

    let mut group = criterion.benchmark_group("storage");
    group.sample_size(10);
    group.throughput(Throughput::Bytes((BLOCK_BYTES * PER_PUT * PUTS) as u64));
    group.bench_function("plain write and fdatasync, 128 MiB", |bencher| {
        let puts = fresh_puts(&pattern, PUTS);
        let mut file = std::fs::File::create(folder.path().join("plain")).expect("a file");
        bencher.iter(|| {
            for put in &puts {
                let bytes: Vec<u8> = put.iter().flat_map(|block| block.sealed().payload.clone()).collect();
                file.write_all(&bytes).expect("written");
            }
            file.sync_data().expect("synced");
        });
    });
    group.bench_function("put 64 KiB blocks and commit, 128 MiB", |bencher| {
        let upload = |puts: Vec<Vec<VerifiedBlock>>| {
            runtime.block_on(async {
                for put in puts {
                    store.put_many(put).await.expect("taken");
                }
                store.commit(small_files(share, 1)).await.expect("committed");
            });
        };
        bencher.iter_batched(|| fresh_puts(&pattern, PUTS), upload, BatchSize::PerIteration);
    });
    let held = fresh_puts(&pattern, PUTS);
    let hashes: Vec<Vec<_>> = held.iter().map(|put| put.iter().map(VerifiedBlock::hash).collect()).collect();
    runtime.block_on(async {
        for put in held {
            store.put_many(put).await.expect("taken");
        }
        store.commit(small_files(share, 1)).await.expect("committed");
    });
    group.bench_function("get 64 KiB blocks, 16 at a time, 128 MiB", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                for want in &hashes {
                    store.get_many(want.clone()).await.expect("read");
                }
            });
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("commit");
    group.bench_function("one small file", |bencher| {
        let commit = |request| runtime.block_on(store.commit(request)).expect("committed");
        bencher.iter_batched(|| small_files(share, 1), commit, BatchSize::PerIteration);
    });
    group.sample_size(20);
    group.throughput(Throughput::Elements(500));
    group.bench_function("500 small files", |bencher| {
        let commit = |request| runtime.block_on(store.commit(request)).expect("committed");
        bencher.iter_batched(|| small_files(share, 500), commit, BatchSize::PerIteration);
    });
    group.finish();
    store.close().expect("closed");
}

criterion_group!(benches, storage);
criterion_main!(benches);
