//! End to end: a real server and real clients over loopback TCP, in one process. `cargo bench --bench throughput`
//!
//! Timed is what `dropblock sync --once` does: open the folder, scan, cut, hash, send, commit durably; or list, fetch,
//! verify, place durably. `DROPBLOCK_BENCH_MIB` sets the size of the large file (128 by default; more than 1,000 shows
//! the pace of the disk instead of that of the processor). For ratios beside other tools see `benches/peers`.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark reports by stopping")]

#[path = "../tests/properties/sample.rs"]
mod sample;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use dropblock::client::{self, Client};
use dropblock::server;
use dropblock::storage::{Store, StoreOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const SMALL_FILES: usize = 2000;
const SMALL_FILE_BYTES_MAX: usize = 18_000;

/// A server with a store of its own, on a port of its own.
struct Hub {
    runtime: Runtime,
    store: Arc<Store>,
    address: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), server::ServerError>>,
    _dir: TempDir,
}

impl Hub {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let runtime = Runtime::new().expect("a runtime");
        let store = Store::open(&dir.path().join("store"), StoreOptions::default()).expect("a store");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (stop, stopped) = oneshot::channel();
        let config = server::Config::new(store.id(), [1; 32]);
        let (blocks, journal) = (store.clone(), store.clone());
        let running = runtime.spawn(async move {
            server::run(listener, blocks, journal, config, async {
                let _ = stopped.await;
            })
            .await
        });
        Self { runtime, store, address, stop, running, _dir: dir }
    }

    /// One `sync --once`, timed.
    fn sync(&self, folder: &Path) -> Duration {
        static SEED: AtomicU8 = AtomicU8::new(2);
        let config = client::Config {
            server: self.address.clone(),
            share: Some("bench".to_owned()),
            device_name: "bench".to_owned(),
            poll: Duration::from_secs(1),
            allow_mass_delete: false,
            threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            now: Arc::new(|| "now".to_owned()),
            dialer: Arc::new(dropblock::wire::TcpDialer),
            seed: [SEED.fetch_add(1, Ordering::Relaxed); 32],
            news: Arc::new(|_| {}),
        };
        let start = Instant::now();
        let mut client = Client::open(folder, config, 0).expect("a client");
        let done = self.runtime.block_on(client.run_once()).expect("a sync");
        let time = start.elapsed();
        assert!(done.problems.is_empty(), "{:?}", done.problems);
        time
    }

    fn end(self) {
        drop(self.stop);
        self.runtime.block_on(self.running).expect("the server did not panic").expect("the server was well");
        self.store.close().expect("the store closes");
    }
}

fn large_mib() -> usize {
    std::env::var("DROPBLOCK_BENCH_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(128)
}

/// Each sample is one run: what is measured takes seconds and cannot be repeated without setting up anew.
fn runs(group: &mut BenchmarkGroup<'_, WallTime>, bytes: u64) {
    group.throughput(Throughput::Bytes(bytes));
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(10));
}

fn total(times: u64, mut run: impl FnMut() -> Duration) -> Duration {
    (0..times).map(|_| run()).sum()
}

/// A folder that is not known to any server.
fn fresh(folder: &Path) {
    match std::fs::remove_dir_all(folder.join(".dropblock")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}

fn large_file(c: &mut Criterion) {
    let mut bytes = sample::random(large_mib() << 20, 1);
    let size = bytes.len() as u64;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("large");
    std::fs::write(&file, &bytes).expect("the file");
    let mut group = c.benchmark_group(format!("large file, {} MiB random", large_mib()));
    runs(&mut group, size);

    group.bench_function("upload", |b| {
        b.iter_custom(|times| {
            total(times, || {
                fresh(folder.path());
                let hub = Hub::start();
                let time = hub.sync(folder.path());
                hub.end();
                time
            })
        });
    });

    fresh(folder.path());
    let hub = Hub::start();
    hub.sync(folder.path());
    group.bench_function("download", |b| {
        b.iter_custom(|times| {
            total(times, || {
                let other = tempfile::tempdir().expect("a temporary folder");
                let time = hub.sync(other.path());
                let same = std::fs::read(other.path().join("large")).expect("it arrived") == bytes;
                assert!(same, "it arrived as another");
                time
            })
        });
    });

    group.bench_function("upload after one byte was inserted in the middle", |b| {
        b.iter_custom(|times| {
            total(times, || {
                bytes.insert(bytes.len() / 2, 7);
                std::fs::write(&file, &bytes).expect("the file");
                hub.sync(folder.path())
            })
        });
    });

    group.finish();

    // A time, not a rate: no byte of the file is read.
    hub.sync(folder.path());
    c.bench_function("large file, nothing changed", |b| {
        b.iter_custom(|times| total(times, || hub.sync(folder.path())));
    });
    hub.end();
}

fn small_files(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (random, text) = (sample::random(SMALL_FILE_BYTES_MAX, 2), sample::text(SMALL_FILE_BYTES_MAX, 2));
    let mut size = 0u64;
    for n in 0..SMALL_FILES {
        let dir = folder.path().join(format!("{:02}", n / 100));
        std::fs::create_dir_all(&dir).expect("a folder");
        let len = 1000 + n * 7919 % (SMALL_FILE_BYTES_MAX - 1000);
        // No two files are alike: each starts with its number.
        let body = if n % 2 == 0 { &random } else { &text };
        let mut bytes = n.to_le_bytes().to_vec();
        bytes.extend(body.iter().take(len));
        size += bytes.len() as u64;
        std::fs::write(dir.join(format!("file-{n}")), bytes).expect("a file");
    }
    let mut group = c.benchmark_group(format!("{SMALL_FILES} small files"));
    runs(&mut group, size);
    group.bench_function("through the server to a second folder", |b| {
        b.iter_custom(|times| {
            total(times, || {
                fresh(folder.path());
                let other = tempfile::tempdir().expect("a temporary folder");
                let hub = Hub::start();
                let time = hub.sync(folder.path()) + hub.sync(other.path());
                let arrived = std::fs::read_dir(other.path().join("00")).expect("it arrived").count();
                assert_eq!(arrived, 100);
                hub.end();
                time
            })
        });
    });
    group.finish();
}

criterion_group!(benches, large_file, small_files);
criterion_main!(benches);
