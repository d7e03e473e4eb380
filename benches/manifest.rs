//! Speed of building, walking and comparing the manifest of a 100 GB file. `cargo bench --bench manifest`

#![allow(clippy::expect_used, clippy::print_stderr, missing_docs, reason = "a benchmark reports by stopping")]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dropblock::block::Block;
use dropblock::manifest::{Builder, ManifestError, chunk_list, diff};
use dropblock::model::hash::expand;
use dropblock::model::{BlockHash, FileContent};
use std::collections::HashMap;
use std::time::Duration;

/// Chunks of a file of 100 GiB.
const ENTRIES: usize = 1_600_000;

type Nodes = HashMap<BlockHash, Bytes>;

fn entries() -> Vec<BlockHash> {
    let mut bytes = vec![0; ENTRIES * 32];
    expand(&[1; 32], 0, &mut bytes);
    bytes.chunks_exact(32).map(|hash| BlockHash::from_bytes(hash.try_into().expect("32 bytes"))).collect()
}

fn build(list: &[BlockHash], mut keep: impl FnMut(Block)) -> FileContent {
    let mut builder = Builder::new(1);
    for hash in list {
        builder.push(*hash, 65_536).expect("in bounds").into_iter().for_each(&mut keep);
    }
    let (content, rest) = builder.finish().expect("in bounds");
    rest.into_iter().for_each(keep);
    content
}

fn build_into(list: &[BlockHash], nodes: &mut Nodes) -> FileContent {
    build(list, |block| {
        nodes.insert(block.hash(), block.into_bytes());
    })
}

fn fetch(nodes: &Nodes) -> impl FnMut(&[BlockHash]) -> Result<Vec<Bytes>, ManifestError> {
    |need| Ok(need.iter().filter_map(|hash| nodes.get(hash).cloned()).collect())
}

fn manifests(c: &mut Criterion) {
    let list = entries();
    let mut nodes = Nodes::new();
    let old = build_into(&list, &mut nodes);
    let bytes: usize = nodes.values().map(Bytes::len).sum();
    let (mut changed_nodes, mut changed_bytes, mut news) = (0, 0, Vec::new());
    for i in 0..20 {
        let mut edited = list.clone();
        if let Some(hash) = edited.get_mut(i * 79_999) {
            *hash = BlockHash::of(&i.to_le_bytes());
        }
        let new = build_into(&edited, &mut nodes);
        let diff = diff(&old, &new, &mut fetch(&nodes)).expect("all nodes are here");
        changed_nodes += diff.new_nodes.len();
        changed_bytes +=
            diff.new_nodes.iter().filter_map(|hash| nodes.get(hash)).map(Bytes::len).sum::<usize>();
        news.push(new);
    }
    eprintln!(
        "{ENTRIES} entries: depth {}, {bytes} bytes; one changed chunk changes {:.1} nodes, {} bytes on average",
        old.root.level,
        f64::from(u32::try_from(changed_nodes).unwrap_or(0)) / 20.0,
        changed_bytes / 20
    );

    let mut group = c.benchmark_group("manifest of 1.6 M chunks");
    // Bytes of the file that the manifest describes.
    let file = Throughput::Bytes(ENTRIES as u64 * 65_536);
    group.throughput(file.clone());
    group.bench_function("build", |b| b.iter(|| build(&list, drop)));
    group.bench_function("walk", |b| b.iter(|| chunk_list(&old, &mut fetch(&nodes))));
    group.finish();

    let mut group = c.benchmark_group("manifest edit");
    group.throughput(file);
    let mut turn = news.iter().cycle();
    group.bench_function("difference after one changed chunk", |b| {
        b.iter(|| turn.next().map(|new| diff(&old, new, &mut fetch(&nodes))));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = manifests
}
criterion_main!(benches);
