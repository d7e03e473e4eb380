//! Renames and moves against everything else that can happen on the other side at the same time.

use crate::merges;
use crate::support::disk::Folder;
use crate::support::story::{Mode, Story};
use crate::support::tree::Tree;

/// Exactly these paths.
fn is(tree: &Tree, names: &[&str]) -> bool {
    tree.names() == names
}

/// A file at `path` holds `content`.
fn holds(tree: &Tree, path: &str, content: &str) -> bool {
    tree.content(path).as_deref() == Some(content)
}

merges! {
    rename_and_edit: |f| { f.write("x", "1"); }, |f| { f.rename("x", "y"); }, |f| { f.write("x", "2"); }
        => |t| is(t, &["y"]) && holds(t, "y", "2");
    rename_and_edit_by_atomic_save: |f| { f.write("x", "1"); }, |f| { f.rename("x", "y"); }, |f| { f.save("x", "2"); }
        => |t| is(t, &["y"]) && holds(t, "y", "2");
    rename_and_delete: |f| { f.write("x", "1"); f.write("z", "z"); }, |f| { f.rename("x", "y"); }, |f| { f.remove("x"); }
        => |t| is(t, &["y", "z"]) && holds(t, "y", "1");
    rename_to_the_same_name: |f| { f.write("x", "1"); }, |f| { f.rename("x", "y"); }, |f| { f.rename("x", "y"); }
        => |t| is(t, &["y"]) && holds(t, "y", "1");
    rename_to_two_names_leaves_one: |f| { f.write("x", "1"); }, |f| { f.rename("x", "y"); }, |f| { f.rename("x", "z"); }
        => |t| is(t, &["y"]) || is(t, &["z"]);
    rename_to_two_names_with_an_edit: |f| { f.write("x", "1"); }, |f| { f.rename("x", "y"); },
        |f| { f.rename("x", "z"); f.write("z", "2"); } => |t| t.contents().contains(&"2".to_owned()) && t.copies().is_empty();
    rename_to_the_same_name_with_an_edit: |f| { f.write("x", "1"); }, |f| { f.rename("x", "y"); },
        |f| { f.rename("x", "y"); f.append("y", "2"); } => |t| is(t, &["y"]) && holds(t, "y", "12");
    rename_to_the_same_name_with_two_edits: |f| { f.write("x", "1"); }, |f| { f.rename("x", "y"); f.append("y", "a"); },
        |f| { f.rename("x", "y"); f.append("y", "b"); } => |t| t.has("y") && t.contents() == ["1a", "1b"];
    two_files_renamed_to_the_same_name: |f| { f.write("x", "xx"); f.write("y", "yy"); }, |f| { f.rename("x", "t"); },
        |f| { f.rename("y", "t"); } => |t| t.has("t") && t.contents() == ["xx", "yy"] && !t.has("x") && !t.has("y");
    rename_onto_a_name_created_elsewhere: |f| { f.write("x", "xx"); }, |f| { f.rename("x", "t"); },
        |f| { f.write("t", "tt"); } => |t| t.has("t") && t.contents() == ["tt", "xx"] && !t.has("x");
    rename_onto_a_name_created_alike: |f| { f.write("x", "same"); }, |f| { f.rename("x", "t"); },
        |f| { f.write("t", "same"); } => |t| t.has("t") && t.contents().iter().all(|c| c == "same") && !t.contents().is_empty();
    rename_over_a_file_that_was_edited: |f| { f.write("x", "xx"); f.write("y", "yy"); }, |f| { f.rename("x", "y"); },
        |f| { f.write("y", "edited"); } => |t| t.has("y") && t.contents() == ["edited", "xx"];
    a_chain_of_renames_by_two: |f| { f.write("x", "xx"); f.write("y", "yy"); }, |f| { f.rename("y", "z"); f.rename("x", "y"); },
        |f| { f.rename("y", "w"); } => |t| t.contents() == ["xx", "yy"] && t.has("y") && t.copies().is_empty();
    a_swap_and_an_edit: |f| { f.write("x", "xx"); f.write("y", "yy"); },
        |f| { f.rename("x", "t"); f.rename("y", "x"); f.rename("t", "y"); }, |f| { f.write("x", "edited"); }
        => |t| t.contents() == ["edited", "yy"] && t.copies().is_empty();
    a_swap_and_a_delete: |f| { f.write("x", "xx"); f.write("y", "yy"); f.write("z", "z"); },
        |f| { f.rename("x", "t"); f.rename("y", "x"); f.rename("t", "y"); }, |f| { f.remove("x"); }
        => |t| t.contents().contains(&"yy".to_owned()) && t.copies().is_empty();
    the_same_swap_on_both_sides: |f| { f.write("x", "xx"); f.write("y", "yy"); },
        |f| { f.rename("x", "t"); f.rename("y", "x"); f.rename("t", "y"); },
        |f| { f.rename("x", "t"); f.rename("y", "x"); f.rename("t", "y"); }
        => |t| is(t, &["x", "y"]) && holds(t, "x", "yy") && holds(t, "y", "xx");
    a_folder_and_the_one_of_its_name_inside_it_change_places: |f| { f.write("e/e/x", "xx"); f.write("e/y", "yy"); },
        |f| { f.rename("e/e", "t"); f.rename("e", "t/e"); f.rename("t", "e"); }, |f| { f.write("z", "zz"); }
        => |t| is(t, &["e", "e/e", "e/e/y", "e/x", "z"]) && holds(t, "e/x", "xx") && holds(t, "e/e/y", "yy");
    rename_to_another_case_and_edit: |f| { f.write("readme", "1"); }, |f| { f.rename("readme", "README"); },
        |f| { f.write("readme", "2"); } => |t| is(t, &["README"]) && holds(t, "README", "2");
    rename_to_another_folder_and_edit: |f| { f.write("d/x", "1"); f.mkdir("e"); }, |f| { f.rename("d/x", "e/x"); },
        |f| { f.write("d/x", "2"); } => |t| is(t, &["d", "e", "e/x"]) && holds(t, "e/x", "2");
    rename_symlink_and_change_its_target: |f| { f.symlink("one", "l"); }, |f| { f.rename("l", "m"); },
        |f| { f.remove("l"); f.symlink("two", "l"); } => |t| t.copies().is_empty() && (t.has("m") || t.has("l"));

    folder_renamed_and_a_file_inside_edited: |f| { f.many("d/e", 20); }, |f| { f.rename("d", "r"); },
        |f| { f.write("d/e/file-000003", "edited"); }
        => |t| !t.has("d") && holds(t, "r/e/file-000003", "edited") && t.names().len() == 22;
    folder_renamed_and_a_file_created_inside: |f| { f.many("d/e", 20); }, |f| { f.rename("d", "r"); },
        |f| { f.write("d/e/new", "new"); } => |t| !t.has("d") && holds(t, "r/e/new", "new") && t.names().len() == 23;
    folder_renamed_and_a_folder_created_inside: |f| { f.many("d", 5); }, |f| { f.rename("d", "r"); },
        |f| { f.write("d/new/x", "x"); } => |t| !t.has("d") && holds(t, "r/new/x", "x");
    folder_renamed_and_a_file_inside_deleted: |f| { f.many("d", 5); }, |f| { f.rename("d", "r"); },
        |f| { f.remove("d/file-000003"); } => |t| !t.has("d") && t.names().len() == 5 && !t.has("r/file-000003");
    folder_renamed_and_a_file_inside_renamed: |f| { f.many("d", 5); }, |f| { f.rename("d", "r"); },
        |f| { f.rename("d/file-000003", "d/renamed"); } => |t| !t.has("d") && t.has("r/renamed") && t.names().len() == 6;
    folder_renamed_and_a_folder_inside_renamed: |f| { f.many("d/s", 5); }, |f| { f.rename("d", "r"); },
        |f| { f.rename("d/s", "d/t"); } => |t| t.has("r/t/file-000001") && t.names().len() == 7;
    folder_renamed_and_a_file_moved_out: |f| { f.many("d", 5); }, |f| { f.rename("d", "r"); },
        |f| { f.rename("d/file-000003", "out"); } => |t| !t.has("d") && t.has("out") && !t.has("r/file-000003");
    folder_renamed_and_a_file_moved_in: |f| { f.many("d", 5); f.write("x", "x"); }, |f| { f.rename("d", "r"); },
        |f| { f.rename("x", "d/x"); } => |t| !t.has("d") && holds(t, "r/x", "x");
    folder_renamed_and_deleted: |f| { f.many("d", 5); f.write("z", "z"); }, |f| { f.rename("d", "r"); },
        |f| { f.remove("d"); } => |t| t.has("r") && !t.has("d") && t.copies().is_empty();
    folder_renamed_with_an_edit_inside_and_deleted: |f| { f.many("d", 5); f.write("z", "z"); },
        |f| { f.rename("d", "r"); f.write("r/file-000001", "edited"); },
        |f| { f.remove("d"); } => |t| holds(t, "r/file-000001", "edited") && !t.has("d");
    folder_renamed_to_the_same_name: |f| { f.many("d", 5); }, |f| { f.rename("d", "r"); }, |f| { f.rename("d", "r"); }
        => |t| t.has("r/file-000001") && t.names().len() == 6;
    folder_renamed_to_two_names_leaves_one: |f| { f.many("d", 5); }, |f| { f.rename("d", "r"); }, |f| { f.rename("d", "s"); }
        => |t| t.names().len() == 6 && (t.has("r/file-000001") || t.has("s/file-000001"));
    folder_renamed_to_two_names_with_edits_inside: |f| { f.many("d", 5); },
        |f| { f.rename("d", "r"); f.write("r/file-000001", "one"); },
        |f| { f.rename("d", "s"); f.write("s/file-000002", "other"); }
        => |t| t.contents().contains(&"one".to_owned()) && t.contents().contains(&"other".to_owned()) && !t.has("d");
    folder_renamed_onto_a_name_created_elsewhere: |f| { f.write("d/x", "x"); }, |f| { f.rename("d", "r"); },
        |f| { f.write("r/y", "y"); } => |t| t.contents() == ["x", "y"] && t.has("r") && !t.has("d");
    folder_renamed_onto_a_file_created_elsewhere: |f| { f.write("d/x", "x"); }, |f| { f.rename("d", "r"); },
        |f| { f.write("r", "file"); } => |t| t.contents() == ["file", "x"] && holds(t, "r/x", "x");
    both_move_the_folders_into_each_other: |f| { f.write("p/x", "x"); f.write("q/y", "y"); }, |f| { f.rename("p", "q/p"); },
        |f| { f.rename("q", "p/q"); } => |t| t.contents() == ["x", "y"] && t.names().len() == 4;
    both_move_deep_folders_into_each_other: |f| { f.write("p/s/x", "x"); f.write("q/t/y", "y"); },
        |f| { f.rename("p", "q/t/p"); }, |f| { f.rename("q", "p/s/q"); } => |t| t.contents() == ["x", "y"] && t.names().len() == 6;
    a_file_moved_into_a_folder_that_is_deleted: |f| { f.many("d", 5); f.write("x", "x"); }, |f| { f.rename("x", "d/x"); },
        |f| { f.remove("d"); } => |t| is(t, &["d", "d/x"]);
    a_file_moved_out_of_a_folder_that_is_deleted: |f| { f.many("d", 5); }, |f| { f.rename("d/file-000001", "x"); },
        |f| { f.remove("d"); } => |t| is(t, &["x"]);
    a_file_renamed_in_a_folder_that_is_deleted: |f| { f.many("d", 5); }, |f| { f.rename("d/file-000001", "d/x"); },
        |f| { f.remove("d"); } => |t| is(t, &["d", "d/x"]);
    a_folder_moved_into_a_folder_that_is_deleted: |f| { f.mkdir("d"); f.write("e/x", "x"); }, |f| { f.rename("e", "d/e"); },
        |f| { f.remove("d"); } => |t| is(t, &["d", "d/e", "d/e/x"]);
    a_parent_deleted_after_its_child_was_moved_out_and_edited: |f| { f.write("d/s/x", "1"); f.write("d/y", "y"); },
        |f| { f.rename("d/s", "s"); f.remove("d"); }, |f| { f.write("d/s/x", "2"); } => |t| is(t, &["s", "s/x"]) && holds(t, "s/x", "2");
    a_child_moved_out_there_and_the_parent_renamed_here: |f| { f.write("d/s/x", "x"); f.write("d/y", "y"); },
        |f| { f.rename("d", "r"); }, |f| { f.rename("d/s", "s"); } => |t| is(t, &["r", "r/y", "s", "s/x"]);
    parent_and_child_turned_around_against_an_edit: |f| { f.write("p/c/x", "1"); },
        |f| { f.rename("p/c", "c"); f.rename("p", "c/p"); }, |f| { f.write("p/c/x", "2"); }
        => |t| is(t, &["c", "c/p", "c/x"]) && holds(t, "c/x", "2");
}

#[test]
fn the_first_rename_to_reach_the_server_wins_the_place() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].write("x", "1");
    story.settle();
    story.folders[0].rename("x", "first");
    story.folders[1].rename("x", "second");
    story.settle_as("at the first's place", |tree| is(tree, &["first"]));
}

#[test]
fn a_renamed_file_keeps_its_inode_on_the_other_side() {
    for mode in [Mode::Once, Mode::Live] {
        let story = Story::new(mode, 2);
        story.folders[0].write("d/x", "1");
        story.settle();
        let before = story.folders[1].inode("d/x");
        story.folders[0].rename("d", "e");
        story.folders[0].rename("e/x", "y");
        story.settle_as("renamed", |tree| tree.has("y"));
        assert_eq!(before, story.folders[1].inode("y"), "{mode:?}: moved, not written again");
    }
}

#[test]
fn renamed_back_and_forth_while_away_is_no_change() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].many("d", 5);
    let tree = story.settle();
    story.folders[0].rename("d", "e");
    story.folders[0].rename("e", "d");
    story.folders[1].write("d/file-000001", "edited");
    let after = story.settle();
    assert_eq!(tree.names(), after.names());
    assert_eq!(after.content("d/file-000001").as_deref(), Some("edited"));
}

#[test]
fn many_renames_on_both_sides_lose_nothing() {
    for mode in [Mode::Once, Mode::Live] {
        let mut story = Story::new(mode, 3);
        story.folders[0].many("d", 60);
        story.settle();
        story.apart();
        for (side, folder) in story.folders.iter().enumerate() {
            folder.mkdir(format!("to-{side}"));
            for i in (0..60).filter(|i| i % 4 == side || i % 4 == 3) {
                folder.rename(format!("d/file-{i:06}"), format!("to-{side}/file-{i:06}"));
            }
        }
        story.together();
        let names = |tree: &Tree| tree.names().iter().filter(|name| name.contains("file-")).count();
        let tree = story.settle_as("every file once", |tree| names(tree) == 60);
        assert_eq!(tree.contents().len(), 60);
        story.stays_settled();
    }
}
