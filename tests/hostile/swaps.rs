//! A program on the client's own machine that swaps a folder for a link, over and over, while files come in and go out.

use crate::support::random_bytes;
use crate::support::tree::Tree;
use crate::support::world::{World, wait_until};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Swaps at least.
const SWAPS_MIN: u64 = 100_000;
const SECRET: &str = "what lies outside and must not be read";

#[test]
fn a_folder_that_is_swapped_for_a_link_leads_nothing_outside() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let victim = world.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("secret"), SECRET).unwrap();
    fs::write(victim.join("f0"), "f0").unwrap();
    let before = Tree::of(&victim);
    a.mkdir("d");
    a.write("d/f0", "0");
    world.sync_all(&[&a, &b]);
    let (_one, _other) = (world.live(&a), world.live(&b));
    // The link stands inside the private part, which is not synced, until it takes the folder's place.
    let (place, beside) = (b.join("d"), b.join(".dropblock/swap"));
    std::os::unix::fs::symlink(&victim, &beside).unwrap();
    let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, counted, from, to) = (stop.clone(), swaps.clone(), place.clone(), beside.clone());
    let swapper = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            // Away and back, with as little between as the system takes.
            for _ in 0..2 {
                if renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    let mut round = 0u64;
    while swaps.load(Ordering::Relaxed) < SWAPS_MIN || round < 40 {
        round += 1;
        // What b said may have made a link of it here too: nothing of this test may follow that.
        if let Ok(dir) = openat(CWD, a.join("d"), OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            let name = format!("f{}", round % 7);
            let _ = match round % 5 {
                0 => unlinkat(&dir, &name, AtFlags::empty()),
                1 => renameat_with(&dir, &name, &dir, format!("r{}", round % 3), RenameFlags::NOREPLACE),
                _ => {
                    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW;
                    let file = openat(&dir, &name, flags, Mode::from_raw_mode(0o644)).map(fs::File::from);
                    let size = 3000 + 40_000 * usize::from(round.is_multiple_of(3));
                    file.map(|mut file| drop(file.write_all(&random_bytes(round, size))))
                }
            };
        } else {
            let _ = (fs::remove_file(a.join("d")), fs::create_dir(a.join("d")));
        }
        std::thread::sleep(std::time::Duration::from_millis(15));
        assert_eq!(before.difference(&Tree::of(&victim)), None, "after {swaps:?} swaps");
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    let _ = fs::remove_file(&beside);
    assert_eq!(before.difference(&Tree::of(&victim)), None, "after {swaps:?} swaps");
    a.write("after", "1");
    wait_until("arrived", || b.has("after"));
    // What lies outside has not been read either: it would be on its way to everybody.
    for folder in [&a, &b] {
        for (path, item) in &folder.tree().0 {
            let text = format!("{item:?}");
            assert!(
                !text.contains(SECRET) && !text.contains(&format!("{:?}", SECRET.as_bytes())),
                "{path:?}"
            );
        }
    }
}
