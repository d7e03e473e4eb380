//! More changes at once than the kernel reports (R20): nothing is missed.

use crate::campaign::{campaign, is_long};
use crate::support::LONG_DEADLINE;
use crate::support::sandbox::is_root;
use crate::support::skipped;
use crate::support::story::{Mode, Story};
use crate::support::world::wait_tree;
use std::fs;
use std::os::fd::AsFd;
use std::thread::scope;

const EVENTS: &str = "/proc/sys/fs/inotify/max_queued_events";

/// A client's watcher takes the limit when it starts: low for that moment only, and for one test at a time.
struct Low {
    before: String,
    _lock: fs::File,
}

impl Low {
    fn new(events: u32) -> Option<Self> {
        if !is_root() {
            skipped("needs root");
            return None;
        }
        let lock = fs::File::create(std::env::temp_dir().join("dropblock-test-inotify.lock")).unwrap();
        rustix::fs::flock(lock.as_fd(), rustix::fs::FlockOperation::LockExclusive).unwrap();
        let before = fs::read_to_string(EVENTS).unwrap();
        // One who was killed may have left it low.
        let before = if before.trim().parse::<u32>().unwrap() < 16_384 { "16384".to_owned() } else { before };
        if fs::write(EVENTS, events.to_string()).is_err() {
            skipped("needs the right to set fs.inotify.max_queued_events");
            return None;
        }
        Some(Self { before, _lock: lock })
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        let _ = fs::write(EVENTS, &self.before);
    }
}

#[test]
fn more_files_at_once_than_the_kernel_reports_are_all_found() {
    let files: usize = if is_long() { 100_000 } else { 8_000 };
    campaign(&format!("inotify overflow: {files} files at once"), 1, |point| {
        let Some(low) = Low::new(16) else { return };
        let story = Story::new(Mode::Live, 2);
        drop(low);
        let (a, b) = (&story.folders[0], &story.folders[1]);
        scope(|threads| {
            for side in 0..2 {
                threads.spawn(move || {
                    for i in 0..files / 2 {
                        if i % 500 == 0 {
                            a.mkdir(format!("{side}/{}", i / 500));
                        }
                        fs::write(a.join(format!("{side}/{}/{i}", i / 500)), format!("{}", i % 7)).unwrap();
                    }
                });
            }
        });
        let wait = || {
            let start = std::time::Instant::now();
            while b.tree() != a.tree() {
                assert!(start.elapsed() < LONG_DEADLINE * 3, "{:?}", a.tree().difference(&b.tree()));
                std::thread::sleep(std::time::Duration::from_millis(500));
            }
        };
        wait();
        assert!(b.tree().0.len() >= files, "{}", point.seed);
        // Changes of the same kind: edits and removals in a burst.
        for i in 0..files / 40 {
            let dir = format!("0/{}", i / 500);
            if i % 2 == 0 { a.write(format!("{dir}/{i}"), "edited") } else { a.remove(format!("{dir}/{i}")) }
        }
        wait();
        wait_tree(&[b], &a.tree());
    });
}
