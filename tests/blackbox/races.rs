//! Things that happen while dropblock is at work: readers, writers, files that change or vanish under its hands.

use crate::support::random_bytes;
use crate::support::story::{Mode, Story};
use crate::support::world::{World, wait_tree};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

/// Stops the other threads of a scope also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_reader_sees_the_old_or_the_new_file_and_never_a_temporary_name() {
    let story = Story::new(Mode::Live, 2);
    let (a, b) = (&story.folders[0], &story.folders[1]);
    let versions: Vec<Vec<u8>> = (0..20).map(|i| random_bytes(i + 1, 4_000_000)).collect();
    let known: BTreeSet<_> = versions.iter().map(|bytes| *blake3::hash(bytes).as_bytes()).collect();
    a.save("x", &versions[0]);
    wait_tree(&story.all(), &a.tree());
    let stop = AtomicBool::new(false);
    scope(|threads| {
        let reader = threads.spawn(|| {
            let mut seen = BTreeSet::new();
            while !stop.load(Ordering::SeqCst) {
                let hash = *blake3::hash(&b.read("x")).as_bytes();
                assert!(known.contains(&hash), "a mix of two versions was visible");
                seen.insert(hash);
                let mut names: Vec<_> =
                    std::fs::read_dir(b.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
                names.retain(|name| name != ".dropblock" && name != "x");
                assert!(names.is_empty(), "visible beside the file: {names:?}");
            }
            seen.len()
        });
        let guard = Stop(&stop);
        for version in &versions[1..] {
            a.save("x", version);
            wait_tree(&[b], &a.tree());
        }
        drop(guard);
        assert!(reader.join().unwrap() > 1);
    });
}

#[test]
fn a_save_between_plan_and_apply_is_never_overwritten() {
    let story = Story::new(Mode::Live, 2);
    let (a, b) = (&story.folders[0], &story.folders[1]);
    a.write("x", "base");
    wait_tree(&story.all(), &a.tree());
    for round in 0..30_u64 {
        let (ours, theirs) = (format!("a {round}"), format!("b {round}"));
        a.write("x", &ours);
        // Somewhere between the arrival of the broadcast and the rename into place.
        sleep(Duration::from_micros(round * 700));
        b.save("x", &theirs);
        // What b saved last is on top, or in a copy; a's edit is in a copy, or below an edit that was made on top of it.
        story.settle_as("keeping what was saved last", |tree| tree.contents().contains(&theirs));
        a.write("x", format!("calm {round}"));
        wait_tree(&story.all(), &a.tree());
    }
}

#[test]
fn a_delete_against_a_save_at_the_same_moment_keeps_the_save() {
    let story = Story::new(Mode::Live, 2);
    let (a, b) = (&story.folders[0], &story.folders[1]);
    for round in 0..20_u64 {
        a.write("x", format!("base {round}"));
        wait_tree(&story.all(), &a.tree());
        let saved = format!("saved {round}");
        a.remove("x");
        sleep(Duration::from_micros(round * 700));
        b.save("x", &saved);
        story.settle_as("keeping the save", |tree| tree.contents().contains(&saved));
    }
}

#[test]
fn files_renamed_while_they_arrive_are_not_lost() {
    let story = Story::new(Mode::Live, 2);
    let (a, b) = (&story.folders[0], &story.folders[1]);
    a.many("d", 50);
    wait_tree(&story.all(), &a.tree());
    for round in 0..50 {
        a.write(format!("d/file-{round:06}"), format!("edited {round}"));
        b.rename(format!("d/file-{round:06}"), format!("renamed-{round}"));
    }
    story.settle_as("all edits there", |tree| {
        (0..50).all(|i| tree.contents().contains(&format!("edited {i}")))
    });
}

#[test]
fn a_file_that_changes_while_it_is_read_ends_as_it_was_left() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("busy", vec![b'a'; 8_000_000]);
    a.write("calm", "calm");
    let stop = AtomicBool::new(false);
    scope(|threads| {
        threads.spawn(|| {
            let mut letter = 0_u8;
            while !stop.load(Ordering::SeqCst) {
                letter = letter.wrapping_add(1);
                for part in 0..8 {
                    a.patch("busy", part * 1_000_000, vec![letter; 1_000_000]);
                }
            }
        });
        let _guard = Stop(&stop);
        for _ in 0..5 {
            // 3: it never held still and was skipped.
            world.once(&a).code_in(&[0, 3]);
        }
    });
    world.sync(&b);
    assert_eq!(b.text("calm"), "calm", "one busy file held up the rest");
    world.sync_all(&[&a, &b]);
}

#[test]
fn a_file_that_grows_while_a_live_client_reads_it_ends_complete() {
    let story = Story::new(Mode::Live, 2);
    let a = &story.folders[0];
    a.write("log", "");
    for i in 0..300 {
        a.append("log", format!("line {i} {}\n", "x".repeat(500)));
        if i % 10 == 0 {
            sleep(Duration::from_millis(7));
        }
    }
    wait_tree(&story.all(), &a.tree());
    assert!(story.settle().copies().is_empty());
}

#[test]
fn files_that_vanish_while_they_are_read_are_no_error() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.many("d", 200);
    let stop = AtomicBool::new(false);
    scope(|threads| {
        threads.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::SeqCst) {
                round += 1;
                let name = format!("t{}", round % 7);
                a.write(&name, random_bytes(round, 200_000));
                a.write(format!("folder-{name}/x"), "x");
                sleep(Duration::from_millis(1));
                a.remove(&name);
                a.remove(format!("folder-{name}"));
            }
        });
        let _guard = Stop(&stop);
        for _ in 0..10 {
            let outcome = world.once(&a).code_in(&[0, 3]);
            assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        }
    });
    world.sync_all(&[&a, &b]);
}

#[test]
fn a_folder_that_vanishes_under_a_live_client_and_comes_back_is_synced() {
    let story = Story::new(Mode::Live, 2);
    let a = &story.folders[0];
    for round in 0..20 {
        a.write(format!("d/e/{round}"), "x");
        a.remove("d");
        a.write("d/e/f", format!("{round}"));
    }
    wait_tree(&story.all(), &a.tree());
}

#[test]
fn three_live_clients_changing_everything_at_once_converge_and_lose_no_last_word() {
    let story = Story::new(Mode::Live, 3);
    scope(|threads| {
        for (side, folder) in story.folders.iter().enumerate() {
            threads.spawn(move || {
                for round in 0..60 {
                    folder.write(format!("own-{side}/{}", round % 10), format!("{side} {round}"));
                    let shared = folder.join(format!("shared-{}", round % 3));
                    // The file may be in the middle of being replaced by another client's version.
                    let _ = std::fs::write(shared, format!("{side} wrote {round}"));
                    sleep(Duration::from_millis(5));
                }
            });
        }
    });
    let tree = story.settle_as("every side's last own files", |tree| {
        (0..3).all(|side| (50..60).all(|round| tree.contents().contains(&format!("{side} {round}"))))
    });
    assert!(tree.contents().iter().any(|content| content.contains("wrote 59")), "{:?}", tree.contents());
}
