//! Watching: every change leads to a hint for its folder, in time.

use super::*;
use crate::folder::watch::{Hint, Watcher};
use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

fn start(world: &World) -> (Watcher, Receiver<Hint>) {
    let (sender, inbox) = channel();
    let watcher = Watcher::start(world.folder.path(), move |hint| drop(sender.send(hint))).unwrap();
    assert!(!watcher.is_limited());
    (watcher, inbox)
}

fn wait_for(inbox: &Receiver<Hint>, path: &str) {
    let wanted = Hint::Dirty(rel(path));
    let until = Instant::now() + Duration::from_secs(5);
    while let Ok(hint) = inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
        if hint == wanted {
            return;
        }
    }
    panic!("no hint for {path:?}");
}

#[test]
fn every_kind_of_change_is_reported_for_its_folder() {
    let world = World::new();
    world.write("d/a", b"1");
    let (_watcher, inbox) = start(&world);
    let steps: [(&str, &dyn Fn()); 6] = [
        ("", &|| world.write("new", b"1")),
        ("d", &|| world.write("d/a", b"2")),
        ("d", &|| world.rename("d/a", "d/b")),
        ("", &|| world.rename("d/b", "b")),
        ("", &|| fs::remove_file(world.path("b")).unwrap()),
        ("d", &|| std::os::unix::fs::symlink("t", world.path("d/link")).unwrap()),
    ];
    for (path, change) in steps {
        std::thread::sleep(Duration::from_millis(5));
        while inbox.try_recv().is_ok() {}
        change();
        wait_for(&inbox, path);
    }
}

#[test]
fn a_file_that_is_written_to_but_never_closed_is_reported() {
    use std::io::Write;
    let world = World::new();
    world.write("d/log", b"1");
    let (_watcher, inbox) = start(&world);
    let mut file = fs::OpenOptions::new().append(true).open(world.path("d/log")).unwrap();
    for _ in 0..3 {
        file.write_all(b"line").unwrap();
        wait_for(&inbox, "d");
    }
}

#[test]
fn reading_files_and_private_files_is_not_reported() {
    let mut world = World::new();
    world.write("a", b"1");
    let (_watcher, inbox) = start(&world);
    world.read("a");
    world.names("");
    let id = world.ids.node();
    world.staged(id, b"x");
    world.state.save(vec![Update::Cursor(None)], true).unwrap();
    assert!(inbox.recv_timeout(Duration::from_millis(100)).is_err());
}

#[test]
fn nothing_made_in_new_folders_is_missed() {
    let mut world = World::new();
    world.agree();
    let (_watcher, inbox) = start(&world);
    for n in 0..100 {
        world.write(&format!("{n}/b/c/file"), b"1");
    }
    fs::create_dir(world.temp.path().join("outside")).unwrap();
    fs::create_dir(world.temp.path().join("outside/in")).unwrap();
    fs::rename(world.temp.path().join("outside"), world.path("moved in")).unwrap();
    // A client that believes every hint and never looks anywhere else.
    let until = Instant::now() + Duration::from_secs(10);
    let mut dirty = BTreeSet::new();
    while world.state.tracked_files() < 100 && Instant::now() < until {
        while let Ok(hint) = inbox.recv_timeout(Duration::from_millis(60)) {
            match hint {
                Hint::Dirty(path) => dirty.insert(path),
                Hint::Rescan => panic!("not needed"),
            };
        }
        let scope = Scope::Dirs(std::mem::take(&mut dirty));
        let scan = scan(&world.folder, &world.state, &scope, &mut world.ids).unwrap();
        assert!(scan.gone.is_empty());
        world.accept(&scan);
    }
    assert_eq!(world.state.tracked_files(), 100);
    // New folders are watched like old ones, also after they moved.
    world.write("moved in/in/x", b"1");
    wait_for(&inbox, "moved in/in");
    world.rename("7/b", "b7");
    wait_for(&inbox, "b7/c");
    std::thread::sleep(Duration::from_millis(100));
    while inbox.try_recv().is_ok() {}
    world.write("b7/c/file", b"2");
    wait_for(&inbox, "b7/c");
}

#[test]
fn symlinks_to_folders_are_not_watched() {
    let world = World::new();
    let out = world.temp.path().join("out");
    fs::create_dir(&out).unwrap();
    std::os::unix::fs::symlink(&out, world.path("link")).unwrap();
    let (_watcher, inbox) = start(&world);
    fs::write(out.join("x"), "1").unwrap();
    assert!(inbox.recv_timeout(Duration::from_millis(100)).is_err());
}

#[test]
fn a_top_folder_that_moves_away_asks_for_a_rescan() {
    let world = World::new();
    let (_watcher, inbox) = start(&world);
    fs::rename(world.path(""), world.temp.path().join("g")).unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while inbox.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap() != Hint::Rescan {}
}

#[test]
fn folders_that_changed_places_are_still_watched() {
    let world = World::new();
    const PAIRS: usize = 60;
    for n in 0..PAIRS {
        world.write(&format!("{n}a/x"), b"1");
        world.write(&format!("{n}b/x"), b"1");
    }
    let (_watcher, inbox) = start(&world);
    for _ in 0..3 {
        for n in 0..PAIRS {
            let (a, b) = (world.path(&format!("{n}a")), world.path(&format!("{n}b")));
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, b, flags).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    while inbox.try_recv().is_ok() {}
    for n in 0..PAIRS {
        world.write(&format!("{n}a/x"), b"2");
        wait_for(&inbox, &format!("{n}a"));
        world.write(&format!("{n}b/x"), b"2");
        wait_for(&inbox, &format!("{n}b"));
    }
}
