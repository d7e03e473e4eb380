//! Clients that come late, come with a copy, or come without their state.

use crate::support::random_bytes;
use crate::support::story::{Mode, Story};
use crate::support::world::{World, assert_equal, wait_for, wait_until};
use crate::support::{DEADLINE, LONG_DEADLINE};
use std::fs;

#[test]
fn a_late_joiner_gets_everything() {
    let mut story = Story::new(Mode::Live, 2);
    story.folders[0].many("d", 300);
    story.folders[1].write("big", random_bytes(1, 5_000_000));
    story.folders[0].symlink("big", "link");
    story.folders[0].mkdir("empty");
    story.settle_as("complete", |tree| tree.names().len() == 304);
    story.folders[0].rename("d", "renamed");
    wait_until("renamed there too", || story.folders[1].has("renamed/file-000001"));
    story.folders[1].remove("renamed/file-000001");
    let late = story.world.folder("late");
    let _live = story.world.live(&late);
    story.folders.push(late);
    wait_for(&story.all(), LONG_DEADLINE, "equal", |tree| tree.names().len() == 303);
}

#[test]
fn many_pages_of_a_first_listing_are_complete() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    for i in 0..50 {
        a.many(&format!("d{i}"), 120);
    }
    world.sync(&a);
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

#[test]
fn joining_with_an_equal_copy_changes_nothing() {
    for mode in [Mode::Once, Mode::Live] {
        let world = World::new();
        let (a, b) = (world.folder("a"), world.folder("b"));
        for folder in [&a, &b] {
            folder.many("d", 50);
            folder.write("big", random_bytes(2, 1_000_000));
            folder.symlink("big", "link");
            folder.mkdir("empty");
        }
        let names = a.tree().names();
        let inode = b.inode("big");
        let clients: Vec<_> = match mode {
            Mode::Once => {
                world.sync_all(&[&a, &b]);
                Vec::new()
            }
            Mode::Live => [&a, &b].map(|folder| world.live(folder)).into(),
        };
        let tree = wait_for(&[&a, &b], DEADLINE, "equal", |_| true);
        assert_eq!(tree.names(), names);
        assert_eq!(b.inode("big"), inode, "{mode:?}: written again though the bytes were there");
        drop(clients);
    }
}

#[test]
fn joining_with_an_older_copy_keeps_both_only_where_they_differ() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    for folder in [&a, &b] {
        folder.many("d", 50);
    }
    a.write("d/file-000001", "newer");
    a.write("only a", "a");
    b.write("only b", "b");
    let tree = world.sync_all(&[&a, &b]);
    assert_eq!(tree.copies().len(), 1, "{:?}", tree.copies());
    assert!(
        tree.contents().contains(&"newer".to_owned()) && tree.contents().contains(&"content 1\n".to_owned())
    );
    assert!(tree.has("only a") && tree.has("only b"));
}

#[test]
fn a_copy_of_a_synced_folder_with_its_state_removed_joins_silently() {
    let world = World::new();
    let a = world.folder("a");
    a.many("d", 50);
    world.sync(&a);
    assert!(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(a.path())
            .arg(world.path().join("b"))
            .status()
            .unwrap()
            .success()
    );
    let b = world.folder("b");
    fs::remove_dir_all(b.join(".dropblock")).unwrap();
    let tree = world.sync_all(&[&a, &b]);
    assert_eq!(tree.names().len(), 51);
}

#[test]
fn lost_state_is_a_first_sync_and_deletes_nothing() {
    for mode in [Mode::Once, Mode::Live] {
        let mut story = Story::new(mode, 2);
        story.folders[0].many("d", 20);
        let before = story.settle_as("complete", |tree| tree.names().len() == 21);
        story.apart();
        fs::remove_dir_all(story.folders[1].join(".dropblock")).unwrap();
        story.folders[1].remove("d/file-000001");
        story.together();
        let tree = story.settle_as("as before", |tree| tree.has("d/file-000001"));
        assert_eq!(before.names(), tree.names(), "{mode:?}");
    }
}

#[test]
fn lost_state_and_edits_keep_both_contents() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].write("x", "1");
    story.folders[0].write("untouched", "u");
    story.settle();
    fs::remove_dir_all(story.folders[1].join(".dropblock")).unwrap();
    story.folders[1].write("x", "edited here");
    story.folders[0].write("x", "edited there");
    let tree = story.settle();
    assert_eq!(tree.contents(), ["edited here", "edited there", "u"]);
}

#[test]
fn lost_state_of_everyone_changes_nothing() {
    let story = Story::new(Mode::Once, 3);
    story.folders[0].many("d", 150);
    let before = story.settle();
    for folder in &story.folders {
        fs::remove_dir_all(folder.join(".dropblock")).unwrap();
    }
    assert_eq!(before.difference(&story.settle()), None);
}

#[test]
fn damaged_state_is_refused_or_treated_as_lost_and_deletes_nothing() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].many("d", 30);
    let before = story.settle();
    let state = story.folders[1].join(".dropblock");
    let mut damaged = 0;
    for entry in fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.metadata().unwrap().len() > 0 {
            fs::write(path, random_bytes(3, 3_000)).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0, "no state to damage");
    story.world.once(&story.folders[1]);
    story.world.sync(&story.folders[0]);
    let late = story.world.folder("late");
    story.world.sync(&late);
    assert_eq!(before.difference(&late.tree()), None, "damaged state changed the share");
    assert_eq!(before.difference(&story.folders[1].tree()), None, "damaged state changed the folder");
}

#[test]
fn truncated_state_deletes_nothing() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].many("d", 30);
    let before = story.settle();
    for entry in fs::read_dir(story.folders[1].join(".dropblock")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let len = path.metadata().unwrap().len();
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len / 2).unwrap();
        }
    }
    story.world.once(&story.folders[1]);
    let late = story.world.folder("late");
    story.world.sync(&late);
    assert_eq!(before.difference(&late.tree()), None, "truncated state changed the share");
}

/// Nobody says of which format or which folder the rest of it is.
#[test]
fn a_state_without_its_version_file_is_not_trusted() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].many("d", 20);
    let before = story.settle();
    fs::remove_file(story.folders[1].join(".dropblock/version")).unwrap();
    story.folders[1].remove("d/file-000001");
    story.world.once(&story.folders[1]).code(0);
    assert_eq!(story.settle().names(), before.names());
    // It is written anew, and the folder is like any other.
    story.folders[1].remove("d/file-000002");
    assert!(!story.settle().has("d/file-000002"));
}

#[test]
fn a_folder_moved_with_its_state_goes_on() {
    let mut story = Story::new(Mode::Once, 2);
    story.folders[0].many("d", 20);
    story.settle();
    let moved = story.world.path().join("moved");
    fs::rename(story.folders[1].path(), &moved).unwrap();
    story.folders[1] = crate::support::disk::Folder::at(moved);
    story.folders[1].remove("d/file-000001");
    story.settle_as("deleted", |tree| tree.names().len() == 20);
}

#[test]
fn a_folder_that_belonged_to_another_server_deletes_nothing() {
    let (one, other) = (World::new(), World::new());
    let a = one.folder("a");
    a.many("d", 20);
    one.sync(&a);
    let outcome = other.once(&a);
    assert_eq!(a.tree().names().len(), 21, "files are gone");
    if outcome.code == Some(0) {
        let b = other.folder("b");
        other.sync(&b);
        assert_eq!(b.tree().names(), a.tree().names());
    } else {
        outcome.refusal();
    }
}

#[test]
fn a_client_with_a_state_from_the_past_deletes_nothing() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].many("d", 30);
    story.settle();
    let (state, old) = (story.folders[1].join(".dropblock"), story.world.path().join("old state"));
    assert!(std::process::Command::new("cp").arg("-a").arg(&state).arg(&old).status().unwrap().success());
    story.folders[0].many("e", 30);
    story.folders[0].write("d/file-000001", "edited");
    let want = story.settle();
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&old, &state).unwrap();
    let tree = story.settle();
    assert_eq!(want.names(), tree.names());
    assert_eq!(tree.content("d/file-000001").as_deref(), Some("edited"));
}

#[test]
fn a_copied_folder_does_not_bring_back_what_others_replaced_or_deleted() {
    for copy in ["cp -a", "cp -r"] {
        let world = World::new();
        let (a, b) = (world.folder("a"), world.folder("b"));
        a.write("secret.txt", "old");
        a.write("doc.txt", "v1");
        world.sync_all(&[&a, &b]);
        b.remove("secret.txt");
        b.write("doc.txt", "v2");
        world.sync_all(&[&b, &a]);
        // Both old versions still lie in its trash.
        let to = world.path().join("moved");
        let (program, flag) = copy.split_once(' ').unwrap();
        let copied = std::process::Command::new(program).arg(flag).arg(a.path()).arg(&to).status().unwrap();
        assert!(copied.success());
        std::fs::remove_dir_all(a.path()).unwrap();
        std::fs::rename(&to, a.path()).unwrap();
        let tree = world.sync_all(&[&a, &b]);
        assert_eq!(tree.names(), ["doc.txt"], "{copy}");
        assert_eq!(b.read("doc.txt"), b"v2");
    }
}

#[test]
fn half_a_copy_of_a_synced_folder_deletes_and_truncates_nothing() {
    let world = World::new();
    let (a, b, copy) = (world.folder("a"), world.folder("b"), world.folder("copy"));
    for i in 0..100 {
        a.write(format!("f{i}"), format!("content {i}"));
    }
    a.write("d/deep/file", "below");
    a.write("gone.txt", "deleted by b later");
    world.sync_all(&[&a, &b]);
    // A copy that was broken off: some files, half of one, and the whole private part.
    for name in [".dropblock", "f1", "f20", "gone.txt"] {
        let status =
            std::process::Command::new("cp").arg("-a").arg(a.path().join(name)).arg(copy.path()).status();
        assert!(status.unwrap().success());
    }
    copy.write("f20", "con");
    copy.write("new.txt", "made in the copy");
    b.remove("gone.txt");
    world.sync_all(&[&b]);

    let said = world.once(&copy).stderr;
    assert!(said.contains("this is a copy of a synced folder"), "{said}");
    let tree = world.sync_all(&[&a, &b, &copy]);
    for i in 0..100 {
        assert_eq!(tree.content(&format!("f{i}")).unwrap_or_default(), format!("content {i}"));
    }
    assert_eq!(tree.content("d/deep/file").as_deref(), Some("below"));
    assert_eq!(tree.content("new.txt").as_deref(), Some("made in the copy"));
    assert_eq!(tree.content("gone.txt"), None, "what was whole and is deleted elsewhere goes");
    assert!(tree.names().iter().any(|name| name.starts_with("f20 (conflict from")), "{:?}", tree.names());
    // From now on it is a folder like any other.
    copy.remove("f1");
    let tree = world.sync_all(&[&copy, &a]);
    assert_eq!(tree.content("f1"), None);
}
