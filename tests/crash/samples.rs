//! A share as version 1 wrote it, both sides: the server's store and a client's folder with its private state (R25). Later
//! versions open copies of it, or say clearly that they do not; they never make it anew.
//!
//! `tests/data/client-v1` was made by `cargo test --test crash write_the_sample -- --ignored`, and is never made anew: a
//! format that changes gets a sample of its own.

use crate::support::disk::Folder;
use crate::support::process::Outcome;
use crate::support::tree::Tree;
use crate::support::world::{World, assert_equal};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/client-v1")
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(
        Command::new("cp")
            .args(["-r", "--preserve=timestamps"])
            .arg(from)
            .arg(to)
            .status()
            .unwrap()
            .success()
    );
}

/// Copies of both sides, and a server on the store.
fn opened() -> (World, Folder) {
    let mut world = World::empty();
    let folder = world.path().join("laptop");
    copy(&sample().join("store"), world.store());
    copy(&sample().join("folder"), &folder);
    world.serve();
    (world, Folder::at(folder))
}

fn names(tree: &Tree) -> Vec<String> {
    tree.names()
}

#[test]
#[ignore = "writes the sample; only for a new format, under a new name"]
fn write_the_sample() {
    assert!(!sample().exists(), "samples are never made anew");
    let mut world = World::new();
    let folder = world.folder("laptop");
    folder.write("notes/first.txt", "first\n");
    folder.write("notes/deleted later.txt", "deleted\n");
    folder.write("empty", "");
    folder.mkdir("empty folder");
    folder.write("run.sh", "#!/bin/sh\nexit 0\n");
    folder.chmod("run.sh", 0o755);
    folder.symlink("notes/first.txt", "link");
    // Long enough for a manifest, a chunk list and more than one block.
    let lines: String = (0..4_000).map(|line| format!("line {line} of a longer text\n")).collect();
    folder.write("long.txt", &lines);
    world.sync(&folder);
    folder.write("notes/first.txt", "second\n");
    folder.remove("notes/deleted later.txt");
    folder.rename("notes", "papers");
    world.sync(&folder);
    world.stop_server();
    fs::create_dir_all(sample()).unwrap();
    copy(world.store(), &sample().join("store"));
    copy(folder.path(), &sample().join("folder"));
    // The index is no format, and the server's key is made when it is missing.
    fs::remove_dir_all(sample().join("store/db")).unwrap();
}

#[test]
fn a_share_of_version_1_opens_on_both_sides() {
    let (world, folder) = opened();
    let before = folder.tree();
    let expected = ["empty", "empty folder", "link", "long.txt", "papers", "papers/first.txt", "run.sh"]
        .map(str::to_owned);
    // git keeps no empty folders and no times.
    let found: Vec<_> = names(&before).into_iter().filter(|name| name != "empty folder").collect();
    assert_eq!(found, expected.iter().filter(|name| *name != "empty folder").cloned().collect::<Vec<_>>());
    folder.mkdir("empty folder");
    let said = world.sync(&folder).stderr;
    assert!(!said.contains("conflict"), "{said}");
    let late = world.folder("late");
    world.sync(&late);
    let tree = assert_equal(&[&folder, &late]);
    assert_eq!(names(&tree), expected);
    assert_eq!(tree.content("papers/first.txt").as_deref(), Some("second\n"));
    assert_eq!(late.mode("run.sh") & 0o100, 0o100);
}

#[test]
fn the_state_of_version_1_is_a_base_and_no_first_sync() {
    let (world, folder) = opened();
    // A first sync would bring it back.
    folder.remove("long.txt");
    folder.mkdir("empty folder");
    world.sync(&folder);
    let late = world.folder("late");
    world.sync(&late);
    assert!(!late.has("long.txt"), "the deletion was not sent: the state was not read");
    assert_equal(&[&folder, &late]);
}

/// Refused in one line, exit code not 0.
fn refused(outcome: Outcome, word: &str) {
    let line = outcome.refusal();
    assert!(line.contains(word), "{line}");
}

#[test]
fn a_share_of_a_later_version_is_refused_on_both_sides_and_left_alone() {
    let (mut world, folder) = opened();
    let version = folder.join(".dropblock/version");
    fs::set_permissions(&version, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&version, "dropblock client state 2\n").unwrap();
    let state = fs::read(folder.join(".dropblock/state")).unwrap();
    refused(world.once(&folder), "newer");
    assert_eq!(fs::read(folder.join(".dropblock/state")).unwrap(), state);
    world.stop_server();
    let store = world.store().join("store.toml");
    let text = fs::read_to_string(&store).unwrap().replace("format = \"1\"", "format = \"2\"");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&store, &text).unwrap();
    let Err(outcome) = world.try_serve(world.store(), ([127, 0, 0, 1], 0).into()) else {
        panic!("served a store of a later version")
    };
    refused(outcome, "newer");
    assert_eq!(fs::read_to_string(&store).unwrap(), text);
}
