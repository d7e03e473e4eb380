//! R18: the memory that a large file takes, on both sides: 1 GiB in the gate, 10 GiB in the long run. The most that a process
//! ever held is what the system says (VmHWM).

use crate::campaign::{campaign, is_long};
use crate::support::process::Running;
use crate::support::world::{World, assert_equal};
use crate::support::{LONG_DEADLINE, random_bytes, skipped};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Waits for a run that must succeed; the most memory it took, bytes.
fn watch(mut run: Running) -> u64 {
    let (mut most, start) = (0, Instant::now());
    while run.is_running() {
        most = run.memory_bytes_max().map_or(most, |now| most.max(now));
        assert!(start.elapsed() < LONG_DEADLINE * 9, "hung: {}", run.stderr());
        sleep(Duration::from_millis(10));
    }
    run.outcome(LONG_DEADLINE).code(0);
    most
}

#[test]
fn a_large_file_takes_little_memory_on_both_sides() {
    let mib: u64 = if is_long() { 10_240 } else { 1024 };
    campaign("memory of a large file", 1, |point| {
        let mut world = World::new();
        let disk = rustix::fs::statvfs(world.path()).unwrap();
        if disk.f_bavail * disk.f_frsize < (mib << 20) * 4 {
            skipped(&format!("needs {} GiB of disk", mib * 4 / 1024));
            return;
        }
        let (a, b) = (world.folder("a"), world.folder("b"));
        let mut file = BufWriter::new(File::create(a.join("big")).unwrap());
        for part in 0..mib {
            file.write_all(&random_bytes(point.seed << 32 | part, 1 << 20)).unwrap();
        }
        file.into_inner().unwrap();
        let up = watch(world.once_start(&a, &[]));
        let down = watch(world.once_start(&b, &[]));
        assert_equal(&[&a, &b]);
        let server = world.server().process.memory_bytes_max().unwrap();
        eprintln!("{mib} MiB: bytes held at most: up {up}, down {down}, server {server}");
        assert!(up.max(down).max(server) < MEMORY_BYTES_MAX, "up {up}, down {down}, server {server}");
    });
}
