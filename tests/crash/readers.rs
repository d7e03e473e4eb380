//! What other programs on the same folder live through: a reader sees whole contents only (R4), a writer never loses a save
//! (R8), while files are replaced and programs are killed.

use crate::campaign::{campaign, is_long};
use crate::support::disk::Folder;
use crate::support::random_bytes;
use crate::support::world::{World, wait_equal, wait_for, wait_tree};
use crate::support::{DEADLINE, LONG_DEADLINE};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

/// Stops the other threads of a scope also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Only these names may be seen in a folder.
fn assert_names(folder: &Folder, known: &[&str]) {
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == ".dropblock" || known.contains(&name.as_str()), "visible: {name}");
    }
}

#[test]
fn a_reader_of_64_mib_sees_whole_contents_during_replacements_and_kills() {
    // In the gate most of the file stays, so that a swap is quick in a build for debugging too; the whole is read either way.
    let mib = 64;
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let mut bytes = random_bytes(9, mib << 20);
    a.save("x", &bytes);
    world.sync_all(&[&a, &b]);
    let known = std::sync::Mutex::new(BTreeSet::from([*blake3::hash(&bytes).as_bytes()]));
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    scope(|threads| {
        let reader = threads.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let hash = *blake3::hash(&b.read("x")).as_bytes();
                assert!(known.lock().unwrap().contains(&hash), "a content that nobody wrote was visible");
                assert_names(&b, &["x"]);
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
        let guard = Stop(&stop);
        campaign("reader of 64 MiB: swaps and kills", 16, |mut point| {
            assert!(!reader.is_finished(), "the reader saw something wrong");
            let part = if is_long() { bytes.len() } else { 2 << 20 };
            let at = point.below((bytes.len() - part) as u64 + 1) as usize;
            bytes[at..at + part].copy_from_slice(&random_bytes(point.seed, part));
            known.lock().unwrap().insert(*blake3::hash(&bytes).as_bytes());
            a.save("x", &bytes);
            world.sync(&a);
            if point.below(2) == 0 {
                let mut client = world.once_start(&b, &[]);
                sleep(point.wait(250));
                client.kill();
            }
            world.sync(&b);
        });
        drop(guard);
        reader.join().unwrap();
    });
    eprintln!("reader of 64 MiB: {} reads", reads.load(Ordering::SeqCst));
    wait_equal(&[&a, &b], DEADLINE);
}

#[test]
fn a_save_that_meets_an_incoming_change_is_never_lost() {
    const FILES: usize = 50;
    let mut held = None;
    campaign("save against incoming change, 50 races each", 10, |mut point| {
        let (world, a, b) = held.take().unwrap_or_else(|| {
            let world = World::new();
            let (a, b) = (world.folder("a"), world.folder("b"));
            (world, a, b)
        });
        let clients = [world.live(&a), world.live(&b)];
        for i in 0..FILES {
            a.save(format!("{i}"), format!("base {i} {}", point.seed));
        }
        wait_for(&[&a, &b], LONG_DEADLINE, "agreed", |tree| {
            (0..FILES).all(|i| tree.content(&i.to_string()) == Some(format!("base {i} {}", point.seed)))
        });
        let seed = point.seed;
        let (ours, theirs) = (|i: usize| format!("a {i} {seed}"), |i: usize| format!("b {i} {seed}"));
        let delays: Vec<Duration> = (0..FILES).map(|_| point.wait(6)).collect();
        let saved = AtomicUsize::new(0);
        scope(|threads| {
            threads.spawn(|| {
                for i in 0..FILES {
                    a.save(format!("{i}"), ours(i));
                    saved.store(i + 1, Ordering::SeqCst);
                    sleep(Duration::from_millis(3));
                }
            });
            threads.spawn(|| {
                for (i, delay) in delays.iter().enumerate() {
                    // Never before a's: so nothing can be made on top of b's.
                    while saved.load(Ordering::SeqCst) <= i {
                        sleep(Duration::from_micros(200));
                    }
                    sleep(*delay);
                    // In place or beside: programs do both.
                    if i % 2 == 0 {
                        b.save(format!("{i}"), theirs(i));
                    } else {
                        b.write(format!("{i}"), theirs(i));
                    }
                }
            });
        });
        let tree = wait_for(&[&a, &b], LONG_DEADLINE, "all saves of b there", |tree| {
            let contents: BTreeSet<String> = tree.contents().into_iter().collect();
            (0..FILES).all(|i| contents.contains(&theirs(i)))
        });
        // a's save is on top, in a copy, or below a save of b's that was made on top of it.
        let contents: BTreeSet<String> = tree.contents().into_iter().collect();
        for i in 0..FILES {
            let on_top = tree.content(&i.to_string());
            assert!(
                contents.contains(&ours(i)) || on_top == Some(theirs(i)),
                "a's save of {i} is lost: {on_top:?}"
            );
        }
        tree.copies().iter().for_each(|copy| a.remove(copy));
        wait_tree(&[&b], &a.tree());
        clients.into_iter().for_each(|client| client.stop());
        held = Some((world, a, b));
    });
}
