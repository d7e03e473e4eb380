//! Sizes that must not hurt. Times are printed, for people; a machine may be busy, so none is asserted.

use super::*;
use std::time::{Duration, Instant};

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> (T, Duration) {
    let (start, cpu) = (Instant::now(), cpu_ms());
    let result = run();
    let took = start.elapsed();
    println!("{what}: {took:?}, {} ms of processor", cpu_ms() - cpu);
    (result, took)
}

/// Processor time of this process, ms, in steps of 10: what a busy machine does not distort.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
}

#[test]
fn twenty_thousand_files_in_one_folder_are_no_trouble() {
    let mut world = World::new();
    std::fs::create_dir(world.path("d")).unwrap();
    for n in 0..20_000 {
        std::fs::File::create(world.path(&format!("d/{n}"))).unwrap();
    }
    let (scan, _) = timed("first scan of 20,000 files", || world.scan());
    assert_eq!(scan.found.len(), 20_001);
    world.agree();
    let (scan, _) = timed("scan of 20,000 unchanged files in one folder", || world.scan());
    assert!(scan.found.is_empty());
    world.rename("d", "e");
    let (scan, _) = timed("scan after the folder was renamed", || world.scan());
    assert_eq!((scan.found.len(), scan.gone.len()), (1, 0));
}

#[test]
#[ignore = "seconds; run it for figures"]
fn a_hundred_thousand_unchanged_files_in_a_thousand_folders() {
    let mut world = World::new();
    for d in 0..1000 {
        std::fs::create_dir(world.path(&format!("{d}"))).unwrap();
        for n in 0..100 {
            std::fs::File::create(world.path(&format!("{d}/file {n}"))).unwrap();
        }
    }
    timed("first scan of 100,000 files", || world.scan());
    world.agree();
    for _ in 0..5 {
        timed("scan of 100,000 unchanged files", || assert!(world.scan().found.is_empty()));
    }
    timed("scan of one folder of them", || world.scan_dirs(&["7"]));
    timed("ten scans of 100,000 unchanged files", || (0..10).for_each(|_| drop(world.scan())));
    timed("only listing them", || crate::folder::walk::full(&world.folder, &world.state).unwrap());
    let mut staged = Vec::new();
    timed("staging 2,000 files of 4 KiB", || {
        for _ in 0..2000 {
            let id = world.ids.node();
            staged.push(world.staged(id, &[7; 4096]));
        }
    });
    timed("syncing them", || world.folder.sync_staged(&staged).unwrap());
    timed("placing them", || {
        for (n, staged) in staged.iter().enumerate() {
            world.folder.place(staged, &rel(&format!("7/new {n}")), None, &mut || name("x")).unwrap();
        }
    });
}
