//! What is not bytes: modes, times, hard links, holes, and the things in a folder that are no files.

use crate::support::story::{Mode, Story};
use crate::support::tree::Item;
use crate::support::world::{World, assert_equal, wait_for, wait_tree, wait_until};
use crate::support::{DEADLINE, random_bytes};
use std::os::unix::net::UnixListener;

#[test]
fn only_the_exec_bit_of_the_mode_travels() {
    let story = Story::new(Mode::Once, 2);
    let a = &story.folders[0];
    for (name, mode) in
        [("suid", 0o4755), ("sgid", 0o2755), ("world", 0o666), ("secret", 0o600), ("sticky", 0o1644)]
    {
        a.write(name, name);
        a.chmod(name, mode);
    }
    story.settle();
    let b = &story.folders[1];
    for name in ["suid", "sgid", "world", "secret", "sticky"] {
        assert_eq!(b.mode(name) & 0o7000, 0, "{name} arrived with {:o}", b.mode(name));
        assert_eq!(b.mode(name) & 0o002, 0, "{name} arrived writable for others: {:o}", b.mode(name));
        assert_eq!(b.mode(name) & 0o100 != 0, name.ends_with("id"), "{name} arrived with {:o}", b.mode(name));
    }
    assert_eq!(a.mode("secret"), 0o600, "the origin's own mode stays");
}

#[test]
fn a_read_only_file_is_read_and_replaced() {
    let story = Story::new(Mode::Once, 2);
    for folder in &story.folders {
        folder.write("x", "1");
        folder.chmod("x", 0o444);
    }
    story.settle();
    story.folders[0].save("x", "2");
    story.settle_as("replaced", |tree| tree.content("x").as_deref() == Some("2"));
}

#[test]
fn a_mode_change_alone_does_not_touch_the_bytes_of_others() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].write("x", random_bytes(1, 200_000));
    story.settle();
    let inode = story.folders[1].inode("x");
    story.folders[0].chmod("x", 0o755);
    story.folders[0].set_mtime("x", 1_000_000_000, 7);
    story.settle();
    assert_eq!(story.folders[1].inode("x"), inode, "written again for a bit and a time");
}

#[test]
fn private_state_is_closed_to_others() {
    let story = Story::new(Mode::Once, 1);
    story.folders[0].write("x", "x");
    story.settle();
    for path in [story.folders[0].join(".dropblock"), story.world.store().to_owned()] {
        let mut open = Vec::new();
        walk(&path, &mut open);
        assert!(open.is_empty(), "readable by others: {open:?}");
    }
}

/// Collects what group or others may use. A closed folder closes all it holds.
fn walk(path: &std::path::Path, open: &mut Vec<std::path::PathBuf>) {
    use std::os::unix::fs::PermissionsExt;
    let stat = path.symlink_metadata().unwrap();
    if stat.permissions().mode() & 0o077 == 0 {
        return;
    }
    open.push(path.to_owned());
    if stat.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), open);
        }
    }
}

#[test]
fn hard_links_arrive_as_separate_files() {
    for mode in [Mode::Once, Mode::Live] {
        let story = Story::new(mode, 2);
        story.folders[0].write("x", "shared");
        story.folders[0].hard_link("x", "y");
        story.settle_as("both there", |tree| tree.has("x") && tree.has("y"));
        assert_ne!(story.folders[1].inode("x"), story.folders[1].inode("y"));
    }
}

/// Two names of one file here, two files there: moving one changes how the other one looks.
#[test]
fn hard_links_that_others_move_and_edit_arrive() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    for n in 0..8 {
        a.write(format!("{n}-one"), format!("content {n}"));
        a.hard_link(format!("{n}-one"), format!("{n}-two"));
    }
    world.sync_all(&[&a, &b]);
    for n in 0..8 {
        for half in ["one", "two"] {
            b.mkdir(format!("{half}/{n}"));
            b.rename(format!("{n}-{half}"), format!("{half}/{n}/file"));
            b.save(format!("{half}/{n}/file"), format!("edit of {half} {n}"));
        }
    }
    world.sync(&b);
    for _ in 0..4 {
        world.once(&a).code_in(&[0, 3]);
    }
    world.once(&a).code(0);
    assert_equal(&[&a, &b]);
}

#[test]
fn a_remote_change_breaks_a_hard_link_and_never_writes_through_it() {
    for mode in [Mode::Once, Mode::Live] {
        let story = Story::new(mode, 2);
        story.folders[0].write("x", "before");
        story.folders[0].write("z", "before");
        story.settle_as("there", |tree| tree.has("z"));
        let outside = story.world.folder("outside");
        for name in ["x", "z"] {
            std::fs::hard_link(story.folders[1].join(name), outside.join(name)).unwrap();
        }
        story.folders[0].write("x", "after, and longer");
        story.folders[0].append("z", " and after");
        story.settle_as("changed", |tree| tree.content("z").as_deref() == Some("before and after"));
        assert_eq!(outside.text("x"), "before");
        assert_eq!(outside.text("z"), "before");
    }
}

#[test]
fn editing_one_of_two_hard_links_is_seen_at_both_names() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].write("x", "1");
    story.folders[0].hard_link("x", "y");
    story.settle();
    story.folders[0].write("x", "through both");
    story.settle_as("both edited", |tree| tree.contents() == ["through both", "through both"]);
}

#[test]
fn removing_one_of_two_hard_links_keeps_the_other() {
    for mode in [Mode::Once, Mode::Live] {
        let story = Story::new(mode, 2);
        story.folders[0].write("x", "1");
        story.folders[0].hard_link("x", "y");
        story.settle_as("both there", |tree| tree.names().len() == 2);
        story.folders[0].remove("x");
        story.settle_as("one left", |tree| tree.names() == ["y"]);
    }
}

#[test]
fn holes_stay_cheap_on_disk() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].set_len("sparse", 300_000_000);
    story.folders[0].patch("sparse", 150_000_000, random_bytes(2, 1_000_000));
    story.settle();
    let taken = story.folders[1].disk_bytes("sparse");
    assert!(taken < 30_000_000, "300 MB of holes and 1 MB of bytes take {taken} bytes");
}

#[test]
fn sockets_and_fifos_are_left_alone_without_blocking() {
    for mode in [Mode::Once, Mode::Live] {
        let story = Story::new(mode, 2);
        let (a, b) = (&story.folders[0], &story.folders[1]);
        a.fifo("pipe");
        let _socket = UnixListener::bind(a.join("socket")).unwrap();
        a.write("x", "x");
        let without = |tree: &crate::support::tree::Tree| {
            let mut tree = tree.clone();
            tree.0.retain(|_, item| *item != Item::Special);
            tree
        };
        if mode == Mode::Once {
            for folder in [a, b, a] {
                story.world.sync(folder);
            }
        } else {
            wait_tree(&[b], &without(&a.tree()));
        }
        assert_eq!(b.tree().names(), ["x"]);
        assert_eq!(a.tree().names(), ["pipe", "socket", "x"]);
    }
}

/// The folder stays with what is not synced, is no failure, does not come back, and goes with the fifo.
#[test]
fn a_folder_that_was_deleted_elsewhere_and_holds_a_fifo_stays_until_the_fifo_goes() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    for name in ["once", "live"] {
        a.write(format!("{name}/f"), "1");
        a.write(format!("{name}/sub/f"), "1");
    }
    world.sync_all(&[&a, &b]);
    a.fifo("once/sub/p");
    b.remove("once");
    world.sync(&b);
    let said = world.sync(&a).stderr;
    assert!(said.contains("once: deleted elsewhere"), "not mentioned:\n{said}");
    a.write("other", "1");
    for _ in 0..2 {
        world.sync(&a);
        world.sync(&b);
        assert_eq!(
            a.tree().names(),
            ["live", "live/f", "live/sub", "live/sub/f", "once", "once/sub", "once/sub/p", "other"]
        );
        assert!(!b.has("once") && b.has("other"));
    }
    let (one, other) = (world.live(&a), world.live(&b));
    a.fifo("live/sub/p");
    b.remove("live");
    wait_until("deleted", || !a.has("live/f") && !a.has("live/sub/f"));
    a.write("other", "2");
    wait_until("goes on", || b.text("other") == "2");
    assert!(a.has("live/sub/p") && !b.has("live"));
    a.remove("live/sub/p");
    wait_until("gone", || !a.has("live"));
    // A new file in what stays is an edit against a delete.
    a.write("once/new", "1");
    wait_until("made again", || b.has("once/new"));
    b.remove("once");
    wait_until("deleted again", || !a.has("once/new"));
    one.stop();
    other.stop();
    a.remove("once/sub/p");
    world.sync_all(&[&a, &b]);
    assert_eq!(a.tree().names(), ["other"]);
}

#[test]
fn a_fifo_in_the_place_of_a_file_is_not_lost_to_a_remote_edit() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "1");
    world.sync_all(&[&a, &b]);
    b.remove("x");
    b.fifo("x");
    a.write("x", "2");
    world.sync(&a);
    world.once(&b).code_in(&[0, 3]);
    world.sync(&a);
    assert!(
        b.tree().0.values().any(|item| *item == Item::Special),
        "the fifo is gone: {:?}",
        b.tree().names()
    );
    assert_eq!(a.text("x"), "2", "the edit is lost");
}

#[test]
fn mtimes_survive_a_late_join() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    for (i, secs) in [-1_i64, 0, 1, 1_700_000_000, 4_000_000_000].into_iter().enumerate() {
        a.write(format!("{i}"), "x");
        a.set_mtime(format!("{i}"), secs, 123_456_789);
    }
    world.sync(&a);
    let _live = world.live(&b);
    wait_for(&[&a, &b], DEADLINE, "equal", |tree| tree.names().len() == 5);
    assert_eq!(b.mtime("0"), (-1, 123_456_789));
}

#[test]
fn times_of_an_edit_after_a_sync_are_those_of_the_edit() {
    let story = Story::new(Mode::Live, 3);
    story.folders[1].write("x", "1");
    wait_tree(&story.all(), &story.folders[1].tree());
    story.folders[2].write("x", "2");
    story.folders[2].set_mtime("x", 1_600_000_000, 999_999_999);
    wait_tree(&story.all(), &story.folders[2].tree());
}
