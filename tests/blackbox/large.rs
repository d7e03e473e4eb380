//! Much of everything: files in one folder, bytes in one file, and the memory it takes.
//!
//! Sizes for every day; `BLACKBOX_FILES=100000 BLACKBOX_MIB=4096` for the full ones.

use crate::support::disk::Folder;
use crate::support::process::Running;
use crate::support::world::{World, assert_equal, wait_tree};
use crate::support::{LONG_DEADLINE, random_bytes};
use std::io::{BufWriter, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Most memory that client or server may take, bytes.
const MEMORY_BYTES_MAX: u64 = 128 << 20;

/// A size from the environment, or the one for every day.
fn size(variable: &str, everyday: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(everyday)
}

/// Waits for the end of a run that must succeed, and returns the most memory it took, bytes.
fn watch(mut run: Running) -> u64 {
    let (mut most, start) = (0, Instant::now());
    while run.is_running() {
        most = run.memory_bytes_max().map_or(most, |now| most.max(now));
        assert!(start.elapsed() < LONG_DEADLINE * 5, "hung: {}", run.stderr());
        sleep(Duration::from_millis(10));
    }
    run.outcome(LONG_DEADLINE).code(0);
    most
}

/// A file of `mib` MiB that nothing can shrink.
fn big(folder: &Folder, name: &str, mib: usize) {
    let mut file = BufWriter::new(std::fs::File::create(folder.join(name)).unwrap());
    for part in 0..mib {
        file.write_all(&random_bytes(part as u64 + 1, 1 << 20)).unwrap();
    }
    file.flush().unwrap();
}

#[test]
fn twenty_thousand_files_in_one_folder() {
    let files = size("BLACKBOX_FILES", 20_000);
    let mut world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.many("d", files);
    let up = watch(world.once_start(&a, &[]));
    let down = watch(world.once_start(&b, &[]));
    let tree = assert_equal(&[&a, &b]);
    assert_eq!(tree.0.len(), files + 1);
    let server = world.server().process.memory_bytes_max().unwrap();
    assert!(up.max(down).max(server) < MEMORY_BYTES_MAX * 2, "bytes: up {up}, down {down}, server {server}");
    // And one edit among them, live.
    let _clients = [world.live(&a), world.live(&b)];
    a.write("d/file-000007", "edited");
    wait_tree(&[&b], &a.tree());
    b.remove("d/file-000008");
    wait_tree(&[&a], &b.tree());
}

#[test]
fn a_large_file_takes_no_more_memory() {
    let mib = size("BLACKBOX_MIB", 300);
    let mut world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    big(&a, "big", mib);
    let up = watch(world.once_start(&a, &[]));
    let down = watch(world.once_start(&b, &[]));
    assert_equal(&[&a, &b]);
    let server = world.server().process.memory_bytes_max().unwrap();
    assert!(up < MEMORY_BYTES_MAX, "the sending client took {up} bytes");
    assert!(down < MEMORY_BYTES_MAX, "the receiving client took {down} bytes");
    assert!(server < MEMORY_BYTES_MAX, "the server took {server} bytes");
    // An edit in the middle, back the other way.
    b.patch("big", (mib as u64) << 19, "edited");
    watch(world.once_start(&b, &[]));
    watch(world.once_start(&a, &[]));
    assert_equal(&[&a, &b]);
}

#[test]
fn a_large_sparse_file_takes_no_more_memory() {
    let mib = size("BLACKBOX_MIB", 300) as u64 * 4;
    let mut world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.set_len("sparse", mib << 20);
    for part in 0..20 {
        a.patch("sparse", (mib << 20) / 20 * part, random_bytes(part + 1, 1 << 20));
    }
    let up = watch(world.once_start(&a, &[]));
    let down = watch(world.once_start(&b, &[]));
    assert_equal(&[&a, &b]);
    let server = world.server().process.memory_bytes_max().unwrap();
    assert!(up.max(down).max(server) < MEMORY_BYTES_MAX, "bytes: up {up}, down {down}, server {server}");
    let taken = b.disk_bytes("sparse");
    assert!(taken < (mib << 20) / 4, "holes were filled: {taken} bytes on disk");
}

#[test]
fn ten_thousand_files_of_mixed_sizes_in_many_folders() {
    let files = size("BLACKBOX_FILES", 20_000) / 4;
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    for i in 0..files {
        let len = if i % 100 == 0 { 200_000 } else { i % 5_000 };
        a.write(format!("{}/{}/{i}", i % 13, i % 101), random_bytes(i as u64 + 1, len));
    }
    watch(world.once_start(&a, &[]));
    watch(world.once_start(&b, &[]));
    assert_equal(&[&a, &b]);
}

#[test]
fn a_tree_of_a_thousand_nested_and_wide_folders() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    for i in 0..1_000_usize {
        a.mkdir(format!("{}/{}/{}", i % 10, i / 10 % 10, i / 100));
        a.mkdir(format!("wide/{i}"));
    }
    world.sync_all(&[&a, &b]);
    a.rename("wide", "0/0/0/wide");
    a.rename("1", "0/0/1");
    world.sync_all(&[&a, &b]);
}
