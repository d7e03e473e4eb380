//! What happens when both sides changed something: the table of `docs/RECONCILE.md`, from outside.

use crate::merges;
use crate::support::disk::Folder;
use crate::support::random_bytes;
use crate::support::story::{Deed, Mode, Story, merged};
use crate::support::tree::{Item, Tree};
use crate::support::world::World;

/// One file with this content, and nothing else.
fn only(tree: &Tree, path: &str, content: &str) -> bool {
    tree.names() == [path] && tree.content(path).as_deref() == Some(content)
}

/// `x.txt` and one conflict copy of it, which together hold exactly these contents.
fn both_kept(tree: &Tree, one: &str, other: &str) -> bool {
    let copies = tree.copies();
    let well_named = |copy: &String| copy.starts_with("x (conflict from ") && copy.ends_with(").txt");
    let mut want = [one.to_owned(), other.to_owned()];
    want.sort();
    tree.has("x.txt") && copies.len() == 1 && copies.iter().all(well_named) && tree.contents() == want
}

fn no_copies(tree: &Tree) -> bool {
    tree.copies().is_empty()
}

merges! {
    // The rows of the table; the row "unchanged | unchanged" is every second run of every other test.
    unchanged_takes_an_edit: |f| { f.write("x", "1"); }, |_f| {}, |f| { f.write("x", "2"); } => |t| only(t, "x", "2");
    unchanged_takes_a_delete: |f| { f.write("x", "1"); }, |_f| {}, |f| { f.remove("x"); } => |t| t.names().is_empty();
    unchanged_takes_a_move: |f| { f.write("x", "1"); }, |_f| {}, |f| { f.rename("x", "y"); } => |t| only(t, "y", "1");
    edited_alike_agrees: |f| { f.write("x", "1"); }, |f| { f.write("x", "same"); }, |f| { f.write("x", "same"); }
        => |t| only(t, "x", "same");
    edited_differently_keeps_both: |f| { f.write("x.txt", "base"); },
        |f| { f.write("x.txt", "one"); }, |f| { f.write("x.txt", "other"); } => |t| both_kept(t, "one", "other");
    an_edit_survives_a_delete: |f| { f.write("x", "1"); }, |f| { f.write("x", "2"); }, |f| { f.remove("x"); }
        => |t| only(t, "x", "2");
    deleted_on_both_sides_is_gone: |f| { f.write("x", "1"); f.write("y", "y"); }, |f| { f.remove("x"); },
        |f| { f.remove("x"); } => |t| only(t, "y", "y");

    // Bigger and odder contents.
    large_binaries_edited_differently_keep_both: |f| { f.write("x.txt", random_bytes(1, 2_000_000)); },
        |f| { f.patch("x.txt", 1_000_000, "one"); }, |f| { f.patch("x.txt", 1_000_000, "other"); } => |t| {
        let files = t.0.values().filter(|item| matches!(item, Item::File { size: 2_000_000, .. })).count();
        files == 2 && t.names().len() == 2 && t.copies().len() == 1
    };
    edited_against_emptied_keeps_both: |f| { f.write("x.txt", "base"); }, |f| { f.write("x.txt", "one"); },
        |f| { f.write("x.txt", ""); } => |t| both_kept(t, "one", "");
    edited_in_a_folder_keeps_both_there: |f| { f.write("d/e/x.txt", "base"); }, |f| { f.write("d/e/x.txt", "one"); },
        |f| { f.write("d/e/x.txt", "other"); } => |t| {
        t.copies().len() == 1 && t.copies()[0].starts_with("d/e/x (conflict from ") && t.contents() == ["one", "other"]
    };
    edited_with_equal_size_and_mtime_keeps_both: |f| { f.write("x.txt", "base"); f.set_mtime("x.txt", 5_000, 1); },
        |f| { f.write("x.txt", "oone"); f.set_mtime("x.txt", 5_000, 1); },
        |f| { f.write("x.txt", "twoo"); f.set_mtime("x.txt", 5_000, 1); } => |t| both_kept(t, "oone", "twoo");
    symlinks_changed_differently_keep_both: |f| { f.symlink("base", "x"); },
        |f| { f.remove("x"); f.symlink("one", "x"); }, |f| { f.remove("x"); f.symlink("other", "x"); } => |t| {
        let target = |want: &str| t.0.values().any(|i| matches!(i, Item::Symlink { target, .. } if target == want.as_bytes()));
        t.names().len() == 2 && t.has("x") && target("one") && target("other")
    };
    a_file_that_became_a_symlink_meets_an_edit: |f| { f.write("x", "base"); },
        |f| { f.remove("x"); f.symlink("target", "x"); }, |f| { f.write("x", "edit"); } => |t| {
        t.has("x") && t.contents() == ["edit"] && t.0.values().any(|i| matches!(i, Item::Symlink { .. }))
    };
    a_file_that_became_a_folder_meets_an_edit: |f| { f.write("x", "base"); },
        |f| { f.remove("x"); f.write("x/inside", "in"); }, |f| { f.write("x", "edit"); } => |t| {
        t.content("x/inside").as_deref() == Some("in") && t.contents() == ["edit", "in"]
    };
    a_folder_that_became_a_file_meets_an_edit_inside: |f| { f.write("x/inside", "base"); },
        |f| { f.remove("x"); f.write("x", "file"); }, |f| { f.write("x/inside", "edit"); } => |t| {
        t.content("x/inside").as_deref() == Some("edit") && t.contents() == ["edit", "file"]
    };

    // Edit beats delete, also deep inside.
    an_edit_deep_in_a_deleted_folder_keeps_only_that: |f| { f.many("d", 9); f.write("d/e/f/x", "1"); f.write("d/e/y", "y"); },
        |f| { f.write("d/e/f/x", "2"); }, |f| { f.remove("d"); }
        => |t| t.names() == ["d", "d/e", "d/e/f", "d/e/f/x"] && t.contents() == ["2"];
    a_file_created_in_a_deleted_folder_keeps_only_that: |f| { f.many("d/e", 9); }, |f| { f.write("d/e/new", "new"); },
        |f| { f.remove("d"); } => |t| t.names() == ["d", "d/e", "d/e/new"];
    an_empty_folder_created_in_a_deleted_folder_stays: |f| { f.many("d", 9); }, |f| { f.mkdir("d/new"); },
        |f| { f.remove("d"); } => |t| t.names() == ["d", "d/new"];
    a_folder_deleted_on_both_sides_is_gone: |f| { f.many("d/e", 9); }, |f| { f.remove("d"); }, |f| { f.remove("d"); }
        => |t| t.names().is_empty();
    a_folder_deleted_in_part_on_each_side_is_empty: |f| { f.write("d/x", "x"); f.write("d/y", "y"); },
        |f| { f.remove("d/x"); }, |f| { f.remove("d/y"); } => |t| t.names() == ["d"];
    an_emptied_folder_meets_a_deleted_folder: |f| { f.write("d/x", "x"); }, |f| { f.remove("d/x"); },
        |f| { f.remove("d"); } => |t| t.names().is_empty();
    a_deleted_file_created_again_meets_a_delete: |f| { f.write("x", "1"); },
        |f| { f.remove("x"); f.write("x", "again"); }, |f| { f.remove("x"); } => |t| only(t, "x", "again");

    // The same name made on both sides.
    created_alike_merges_silently: |_f| {}, |f| { f.write("x", "same"); }, |f| { f.write("x", "same"); }
        => |t| only(t, "x", "same");
    created_alike_with_other_times_merges_silently: |_f| {}, |f| { f.write("x", "same"); f.set_mtime("x", 10, 1); },
        |f| { f.write("x", "same"); f.set_mtime("x", 20, 2); } => |t| only(t, "x", "same");
    created_alike_with_other_exec_bits_merges_silently: |_f| {}, |f| { f.write("x", "same"); f.chmod("x", 0o755); },
        |f| { f.write("x", "same"); } => |t| only(t, "x", "same");
    created_differently_keeps_both: |_f| {}, |f| { f.write("x.txt", "one"); }, |f| { f.write("x.txt", "other"); }
        => |t| both_kept(t, "one", "other");
    empty_against_something_created_keeps_both: |_f| {}, |f| { f.write("x.txt", ""); }, |f| { f.write("x.txt", "other"); }
        => |t| both_kept(t, "", "other");
    folders_of_the_same_name_merge: |_f| {}, |f| { f.write("d/one", "1"); f.write("d/same", "s"); f.mkdir("d/e"); },
        |f| { f.write("d/other", "2"); f.write("d/same", "s"); f.mkdir("d/e"); }
        => |t| t.names() == ["d", "d/e", "d/one", "d/other", "d/same"];
    files_in_folders_of_the_same_name_keep_both: |_f| {}, |f| { f.write("d/e/x", "one"); }, |f| { f.write("d/e/x", "other"); }
        => |t| t.copies().len() == 1 && t.has("d/e/x") && t.contents() == ["one", "other"];
    empty_folders_of_the_same_name_are_one: |_f| {}, |f| { f.mkdir("d"); }, |f| { f.mkdir("d"); } => |t| t.names() == ["d"];
    a_file_against_a_folder_leaves_the_name_to_the_folder: |_f| {}, |f| { f.write("x", "file"); },
        |f| { f.write("x/inside", "in"); }
        => |t| t.content("x/inside").as_deref() == Some("in") && t.contents() == ["file", "in"] && t.names().len() == 3;
    a_file_against_an_empty_folder_leaves_the_name_to_the_folder: |_f| {}, |f| { f.write("x", "file"); },
        |f| { f.mkdir("x"); }
        => |t| t.0.get(b"x".as_slice()) == Some(&Item::Folder) && t.contents() == ["file"] && t.names().len() == 2;
    a_symlink_against_a_folder_leaves_the_name_to_the_folder: |_f| {}, |f| { f.symlink("target", "x"); },
        |f| { f.write("x/inside", "in"); } => |t| {
        t.has("x/inside") && t.names().len() == 3 && t.0.values().any(|i| matches!(i, Item::Symlink { .. }))
    };
    equal_symlinks_created_merge_silently: |_f| {}, |f| { f.symlink("target", "x"); }, |f| { f.symlink("target", "x"); }
        => |t| t.names() == ["x"];

    // Metadata never makes a copy.
    exec_here_and_edit_there_keeps_both_changes: |f| { f.write("x", "1"); }, |f| { f.chmod("x", 0o755); },
        |f| { f.write("x", "2"); } => |t| {
        only(t, "x", "2") && matches!(t.0.get(b"x".as_slice()), Some(Item::File { exec: true, .. }))
    };
    mtime_here_and_edit_there_keeps_the_edit: |f| { f.write("x", "1"); }, |f| { f.set_mtime("x", 9, 9); },
        |f| { f.write("x", "2"); } => |t| only(t, "x", "2");
    mtimes_on_both_sides_make_no_copy: |f| { f.write("x", "1"); }, |f| { f.set_mtime("x", 10, 1); },
        |f| { f.set_mtime("x", 20, 2); } => |t| only(t, "x", "1");
    exec_here_and_mtime_there_make_no_copy: |f| { f.write("x", "1"); }, |f| { f.chmod("x", 0o755); },
        |f| { f.set_mtime("x", 20, 2); } => |t| only(t, "x", "1");
    exec_here_and_rename_there_make_no_copy: |f| { f.write("x", "1"); }, |f| { f.chmod("x", 0o755); },
        |f| { f.rename("x", "y"); } => |t| t.contents() == ["1"] && t.has("y") && no_copies(t);
    a_touch_here_and_a_delete_there_make_no_copy: |f| { f.write("x", "1"); }, |f| { f.set_mtime("x", 10, 1); },
        |f| { f.remove("x"); } => |t| no_copies(t) && t.names().len() <= 1;

    // Nothing to do with each other.
    different_files_edited_are_no_conflict: |f| { f.write("x", "1"); f.write("y", "1"); }, |f| { f.write("x", "2"); },
        |f| { f.write("y", "2"); } => |t| t.contents() == ["2", "2"] && no_copies(t);
    different_files_of_a_folder_deleted_and_edited: |f| { f.many("d", 50); },
        |f| { for i in 0..25 { f.remove(format!("d/file-{i:06}")); } },
        |f| { for i in 25..50 { f.write(format!("d/file-{i:06}"), "edited"); } }
        => |t| t.names().len() == 26 && no_copies(t) && t.contents().iter().all(|c| c == "edited");
}

#[test]
fn the_first_to_reach_the_server_keeps_the_name() {
    let base = |f: &Folder| f.write("x.txt", "base");
    let (one, other) = (|f: &Folder| f.write("x.txt", "first"), |f: &Folder| f.write("x.txt", "second"));
    let tree = merged(Mode::Once, &base, &[&one, &other], "kept", &|_| true);
    assert_eq!(tree.content("x.txt").as_deref(), Some("first"));
    let copies = tree.copies();
    assert!(
        copies[0].starts_with("x (conflict from b "),
        "names the device whose edit moved aside: {copies:?}"
    );
    assert_eq!(tree.content(&copies[0]).as_deref(), Some("second"));
}

#[test]
fn n_clients_n_contents() {
    for mode in [Mode::Once, Mode::Live] {
        let base = |f: &Folder| f.write("x.txt", "base");
        let deed: Deed<'_> = &|f| f.write("x.txt", format!("by {}", f.name()));
        let tree = merged(mode, &base, &[deed; 5], "all five contents", &|tree: &Tree| {
            tree.contents() == ["by a", "by b", "by c", "by d", "by e"]
        });
        assert_eq!(tree.copies().len(), 4, "{mode:?}: {:?}", tree.names());
    }
}

#[test]
fn n_clients_n_contents_with_equal_device_names() {
    let world = World::new();
    let folders = world.folders(4);
    let all: Vec<_> = folders.iter().collect();
    for folder in &folders {
        folder.write("x.txt", format!("by {}", folder.name()));
    }
    for _ in 0..3 {
        for folder in &folders {
            world.once_with(folder, &["--device", "laptop"]).code(0);
        }
    }
    let tree = crate::support::world::assert_equal(&all);
    assert_eq!(tree.contents(), ["by a", "by b", "by c", "by d"]);
    assert_eq!(tree.copies().len(), 3, "{:?}", tree.names());
}

#[test]
fn a_second_conflict_on_the_same_file_makes_a_second_copy() {
    let story = Story::new(Mode::Once, 2);
    for round in 0..4 {
        for folder in &story.folders {
            folder.write("x.txt", format!("{} {round}", folder.name()));
        }
        let tree = story.settle();
        assert_eq!(tree.copies().len(), round + 1, "{:?}", tree.names());
        for old in 0..=round {
            assert!(tree.contents().contains(&format!("b {old}")), "round {round} lost b {old}");
        }
    }
    story.stays_settled();
}

#[test]
fn a_conflict_copy_is_an_ordinary_file() {
    let story = Story::new(Mode::Once, 2);
    for folder in &story.folders {
        folder.write("x", folder.name());
    }
    let copy = story.settle().copies().remove(0);
    story.folders[0].write(&copy, "edited");
    story.settle_as("edited", |tree| tree.content(&copy).as_deref() == Some("edited"));
    story.folders[1].rename(&copy, "resolved");
    story.settle_as("renamed", |tree| tree.names() == ["resolved", "x"]);
    story.folders[0].remove("resolved");
    story.settle_as("deleted", |tree| tree.names() == ["x"]);
}

#[test]
fn both_sides_editing_a_conflict_copy_conflicts_again() {
    let story = Story::new(Mode::Once, 2);
    for folder in &story.folders {
        folder.write("x", folder.name());
    }
    let copy = story.settle().copies().remove(0);
    for folder in &story.folders {
        folder.write(&copy, format!("copy by {}", folder.name()));
    }
    let tree = story.settle();
    assert_eq!(tree.contents(), ["a", "copy by a", "copy by b"]);
}

#[test]
fn an_untouched_file_deleted_elsewhere_never_comes_back() {
    let world = World::new();
    let folders = world.folders(3);
    let all: Vec<_> = folders.iter().collect();
    folders[0].many("d", 20);
    world.sync_all(&all);
    folders[0].remove("d");
    world.sync(&folders[0]);
    // The others were away; one of them looked, but did not touch.
    let _ = folders[1].tree();
    world.sync(&folders[1]);
    world.sync(&folders[0]);
    world.sync(&folders[2]);
    assert!(world.sync_all(&all).names().is_empty());
}

#[test]
fn three_sides_edit_delete_and_rename_the_same_file() {
    let base = |f: &Folder| f.write("x", "base");
    let edit = |f: &Folder| f.write("x", "edited");
    let delete = |f: &Folder| f.remove("x");
    let rename = |f: &Folder| f.rename("x", "y");
    for mode in [Mode::Once, Mode::Live] {
        merged(mode, &base, &[&edit, &delete, &rename], "edited at the new place", &|tree| {
            only(tree, "y", "edited")
        });
        merged(mode, &base, &[&delete, &rename, &edit], "edited at the new place", &|tree| {
            only(tree, "y", "edited")
        });
    }
}

#[test]
fn a_client_that_was_away_for_many_conflicts_gets_them_all() {
    let world = World::new();
    let folders = world.folders(3);
    let all: Vec<_> = folders.iter().collect();
    folders[0].write("x", "base");
    world.sync_all(&all);
    for round in 0..3 {
        folders[0].write("x", format!("a {round}"));
        folders[1].write("x", format!("b {round}"));
        world.sync_all(&[&folders[0], &folders[1]]);
    }
    folders[2].write("x", "c, after all that time");
    let tree = world.sync_all(&all);
    assert_eq!(tree.contents().len(), 5, "{:?}", tree.contents());
    assert!(tree.contents().contains(&"c, after all that time".to_owned()));
}
