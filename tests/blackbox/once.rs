//! `sync --once`: what its exit code promises, and how it behaves.

use crate::support::process::Outcome;
use crate::support::random_bytes;
use crate::support::world::{World, assert_equal};

#[test]
fn exit_0_means_that_the_server_has_it_durably() {
    let mut world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.many("d", 300);
    a.write("big", random_bytes(1, 5_000_000));
    world.sync(&a);
    world.crash_server();
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

#[test]
fn both_ways_in_one_run() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("from a", "a");
    b.write("from b", "b");
    world.sync(&a);
    world.sync(&b);
    assert_eq!(b.tree().names(), ["from a", "from b"]);
    world.sync(&a);
    assert_equal(&[&a, &b]);
}

#[test]
fn an_empty_folder_is_fine() {
    let world = World::new();
    world.sync(&world.folder("a"));
}

#[test]
fn a_folder_that_does_not_exist_is_made_or_refused_in_one_line() {
    let world = World::new();
    let a = world.folder("a");
    a.write("x", "x");
    world.sync(&a);
    let missing = world.path().join("missing");
    let mut command = world.command(["sync", "--once", "--server"]);
    command.arg(world.addr().to_string()).arg(&missing);
    let outcome = world.start("missing", command).outcome(crate::support::DEADLINE);
    if outcome.code == Some(0) {
        assert_eq!(std::fs::read(missing.join("x")).unwrap(), b"x");
    } else {
        outcome.refusal();
    }
}

#[test]
fn a_second_run_changes_nothing() {
    let world = World::new();
    let a = world.folder("a");
    a.many("d", 50);
    world.sync(&a);
    let (tree, inode) = (a.tree(), a.inode("d/file-000001"));
    for _ in 0..3 {
        world.sync(&a);
    }
    assert_eq!(tree.difference(&a.tree()), None);
    assert_eq!(inode, a.inode("d/file-000001"));
}

#[test]
fn an_update_of_the_origin_does_not_rewrite_its_file() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "one");
    world.sync_all(&[&a, &b]);
    a.write("x", "two");
    let inode = a.inode("x");
    world.sync_all(&[&a, &b]);
    assert_eq!(inode, a.inode("x"));
}

#[test]
fn eight_at_once_on_different_folders_end_equal() {
    let world = World::new();
    let folders = world.folders(8);
    for (i, folder) in folders.iter().enumerate() {
        folder.many(&format!("own-{i}"), 40);
        folder.write("everyone", format!("content {i}"));
        folder.write("same", "equal everywhere");
    }
    let mut runs: Vec<_> = folders.iter().map(|folder| world.once_start(folder, &[])).collect();
    for run in &mut runs {
        run.outcome(crate::support::LONG_DEADLINE).code(0);
    }
    let all: Vec<_> = folders.iter().collect();
    let tree = world.sync_all(&all);
    for i in 0..8 {
        let content = format!("content {i}");
        assert!(tree.contents().contains(&content), "{content} is lost: {:?}", tree.names());
    }
    assert_eq!(tree.copies().len(), 7, "{:?}", tree.copies());
}

#[test]
fn three_folders_after_ten_rounds_of_changes_are_equal() {
    let world = World::new();
    let folders = world.folders(3);
    let all: Vec<_> = folders.iter().collect();
    for round in 0..10 {
        for (i, folder) in folders.iter().enumerate() {
            folder.write(format!("{i}/{round}"), format!("{i} {round}"));
            if round > 1 {
                folder.remove(format!("{i}/{}", round - 2));
            }
            world.sync(folder);
        }
    }
    let tree = world.sync_all(&all);
    assert_eq!(tree.names().len(), 3 + 6, "{:?}", tree.names());
}

#[test]
fn quiet_when_piped_with_one_summary_line() {
    let world = World::new();
    let a = world.folder("a");
    a.many("d", 200);
    a.write("big", random_bytes(2, 8_000_000));
    let output = world.sync_command(&a, world.addr(), &["--once"]).output().unwrap();
    assert!(output.status.success());
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(!err.chars().any(|c| c.is_control() && c != '\n'), "control characters: {err:?}");
    assert_eq!(err.lines().count(), 1, "not one line:\n{err}");
    assert_eq!(output.stdout, b"", "data only on stdout");
}

#[test]
fn shares_do_not_mix() {
    let world = World::new();
    let folders = world.folders(4);
    for (i, folder) in folders.iter().enumerate() {
        folder.write(format!("{i}"), format!("{i}"));
    }
    for _ in 0..2 {
        for (i, folder) in folders.iter().enumerate() {
            world.once_with(folder, &["--share", if i % 2 == 0 { "even" } else { "odd" }]).code(0);
        }
    }
    assert_eq!(folders[0].tree().names(), ["0", "2"]);
    assert_eq!(folders[1].tree().names(), ["1", "3"]);
    assert_equal(&[&folders[0], &folders[2]]);
}

#[test]
fn flags_have_environment_twins() {
    let world = World::new();
    let a = world.folder("a");
    a.write("x", "x");
    let mut command = world.command(["sync", "--once"]);
    command.arg(a.path()).env("DROPBLOCK_SERVER", world.addr().to_string()).env("DROPBLOCK_DEVICE", "other");
    world.start("twin", command).outcome(crate::support::DEADLINE).code(0);
    let b = world.folder("b");
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

#[test]
fn usage_errors_exit_2() {
    let world = World::empty();
    let usage = |args: &[&str]| -> Outcome { world.run(args).code(2) };
    usage(&["sync"]);
    usage(&["sync", "x", "--no-such-flag"]);
    usage(&["no-such-command"]);
    usage(&["serve", "--store", "s", "--listen", "not an address"]);
    let said = usage(&["sync", "x", "--poll", "soon"]);
    assert_eq!(said.stdout, "");
    assert!(!said.stderr.contains("panicked"));
    assert!(
        !world.path().join("s").exists() && !world.path().join("x").exists(),
        "a usage error left something"
    );
}

#[test]
fn help_and_version_exit_0() {
    let world = World::empty();
    for args in
        [&["--help"][..], &["--version"], &["sync", "--help"], &["serve", "--help"], &["demo", "--help"]]
    {
        assert!(world.run(args).code(0).stdout.contains("dropblock"), "{args:?}");
    }
}

#[test]
fn demo_shows_the_whole_thing_and_cleans_up() {
    let world = World::empty();
    let temp = world.folder("tmp");
    let mut command = world.command(["demo"]);
    command.env("TMPDIR", temp.path());
    let outcome = world.start("demo", command).outcome(crate::support::LONG_DEADLINE).code(0);
    assert!(!(outcome.stdout + &outcome.stderr).contains('\u{1b}'), "escape sequences without a terminal");
    assert_eq!(temp.tree().names(), Vec::<String>::new(), "left behind");
}
