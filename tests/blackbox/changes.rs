//! Every change a user can make arrives as it was made: with `--once` and two folders, live and with three.

use crate::support::disk::Folder;
use crate::support::{random_bytes, text};

/// One table, two tests a row: what stands in the folder before, and what is done to it then.
macro_rules! every_change {
    ($($name:ident: |$before:ident| $setup:block, |$folder:ident| $change:block;)*) => {
        mod deeds {
            use super::*;
            $(pub mod $name {
                use super::*;
                pub fn before($before: &Folder) $setup
                pub fn change($folder: &Folder) $change
            })*
        }
        every_change!(@mode once_with_two, Mode::Once, 2, $($name)*);
        every_change!(@mode live_with_three, Mode::Live, 3, $($name)*);
    };
    (@mode $module:ident, $mode:expr, $count:expr, $($name:ident)*) => {
        mod $module {
            use super::deeds;
            use crate::support::story::{Mode, arrives};
            $(#[test]
            fn $name() {
                arrives($mode, $count, &deeds::$name::before, &deeds::$name::change);
            })*
        }
    };
}

every_change! {
    create_text: |_f| {}, |f| { f.write("note.txt", "hello\n"); };
    create_empty_file: |_f| {}, |f| { f.write("empty", ""); };
    create_binary: |_f| {}, |f| { f.write("data.bin", random_bytes(1, 3_000_000)); };
    create_file_of_exactly_one_chunk: |_f| {}, |f| {
        f.write("65535", random_bytes(2, 65_535));
        f.write("65536", random_bytes(3, 65_536));
        f.write("65537", random_bytes(4, 65_537));
    };
    create_file_in_new_deep_folders: |_f| {}, |f| { f.write("a/b/c/d/e/f.txt", "deep"); };
    create_empty_folder: |_f| {}, |f| { f.mkdir("nothing"); };
    create_nested_empty_folders: |_f| {}, |f| { f.mkdir("a/b/c"); f.mkdir("a/d"); };
    create_five_hundred_files: |_f| {}, |f| { f.many("many", 500); };
    create_equal_files: |_f| {}, |f| { for i in 0..5 { f.write(format!("copy{i}"), random_bytes(5, 100_000)); } };
    create_file_full_of_zeros: |_f| {}, |f| { f.write("zeros", vec![0; 1_000_000]); };

    update_text: |f| { f.write("t", "one\n"); }, |f| { f.write("t", "two and more\n"); };
    update_in_place_same_size: |f| { f.write("t", "one\n"); }, |f| { f.patch("t", 0, "two"); };
    update_by_rename_over: |f| { f.write("t", "one\n"); }, |f| { f.save("t", "saved\n"); };
    append_to_text: |f| { f.write("log", text(1, 200_000)); }, |f| { f.append("log", "one more line\n"); };
    edit_one_line_in_the_middle: |f| { f.write("t", text(2, 300_000)); }, |f| { f.patch("t", 150_000, "edited"); };
    insert_at_the_front_of_a_binary: |f| { f.write("b", random_bytes(6, 2_000_000)); }, |f| {
        let old = f.read("b");
        f.write("b", [b"!".as_slice(), &old].concat());
    };
    overwrite_inside_a_binary: |f| { f.write("b", random_bytes(7, 2_000_000)); }, |f| {
        f.patch("b", 1_000_001, random_bytes(8, 4096));
    };
    grow_a_small_file_to_a_large_one: |f| { f.write("b", "s"); }, |f| { f.write("b", random_bytes(9, 2_000_000)); };
    shrink_a_large_file_to_a_small_one: |f| { f.write("b", random_bytes(10, 2_000_000)); }, |f| { f.write("b", "s"); };
    truncate_to_nothing: |f| { f.write("b", random_bytes(11, 200_000)); }, |f| { f.write("b", ""); };
    cut_off_the_end: |f| { f.write("b", random_bytes(12, 2_000_000)); }, |f| { f.set_len("b", 777_777); };
    fill_an_empty_file: |f| { f.write("b", ""); }, |f| { f.write("b", "now something"); };
    edit_a_file_in_a_folder: |f| { f.write("d/e/t", "1"); }, |f| { f.write("d/e/t", "22"); };

    delete_file: |f| { f.write("gone", "x"); f.write("stays", "y"); }, |f| { f.remove("gone"); };
    delete_the_last_file: |f| { f.write("gone", "x"); }, |f| { f.remove("gone"); };
    delete_empty_folder: |f| { f.mkdir("d"); }, |f| { f.remove("d"); };
    delete_folder_with_all_it_holds: |f| { f.many("d/e", 20); f.mkdir("d/empty"); }, |f| { f.remove("d"); };
    delete_the_file_but_not_its_folder: |f| { f.write("d/x", "x"); }, |f| { f.remove("d/x"); };
    delete_and_create_again_with_other_bytes: |f| { f.write("x", "old"); }, |f| { f.remove("x"); f.write("x", "new!"); };

    rename_file: |f| { f.write("old", "x"); }, |f| { f.rename("old", "new"); };
    rename_file_to_another_case: |f| { f.write("readme", "x"); }, |f| { f.rename("readme", "README"); };
    rename_large_file: |f| { f.write("old", random_bytes(13, 3_000_000)); }, |f| { f.rename("old", "new"); };
    rename_empty_file: |f| { f.write("old", ""); f.write("other", ""); }, |f| { f.rename("old", "new"); };
    rename_over_another_file: |f| { f.write("a1", "first"); f.write("b1", "second"); }, |f| { f.rename("a1", "b1"); };
    rename_and_edit: |f| { f.write("old", text(3, 100_000)); }, |f| {
        f.rename("old", "new");
        f.append("new", "and edited\n");
    };
    rename_and_put_another_in_its_place: |f| { f.write("x", "old"); }, |f| { f.rename("x", "x.bak"); f.write("x", "n"); };
    swap_two_files: |f| { f.write("x", "xx"); f.write("y", "yyy"); }, |f| {
        f.rename("x", "t");
        f.rename("y", "x");
        f.rename("t", "y");
    };
    rotate_logs: |f| { for i in 0..5 { f.write(format!("log.{i}"), format!("log {i}")); } }, |f| {
        for i in (0..5).rev() { f.rename(format!("log.{i}"), format!("log.{}", i + 1)); }
        f.write("log.0", "fresh");
    };
    rename_folder: |f| { f.many("old/deep", 30); }, |f| { f.rename("old", "new"); };
    rename_empty_folder: |f| { f.mkdir("old"); }, |f| { f.rename("old", "new"); };
    rename_folder_and_edit_inside: |f| { f.many("old/deep", 30); }, |f| {
        f.rename("old", "new");
        f.write("new/deep/file-000007", "edited");
        f.remove("new/deep/file-000008");
        f.write("new/deep/fresh", "created");
    };
    rename_folder_and_put_another_in_its_place: |f| { f.many("d", 10); }, |f| {
        f.rename("d", "d.old");
        f.write("d/other", "fresh");
    };
    swap_two_folders: |f| { f.many("x", 5); f.write("y/z", "z"); }, |f| {
        f.rename("x", "t");
        f.rename("y", "x");
        f.rename("t", "y");
    };
    move_file_into_folder: |f| { f.write("x", "x"); f.mkdir("d"); }, |f| { f.rename("x", "d/x"); };
    move_file_into_new_folder: |f| { f.write("x", "x"); }, |f| { f.mkdir("d/e"); f.rename("x", "d/e/x"); };
    move_file_up: |f| { f.write("d/e/x", "x"); }, |f| { f.rename("d/e/x", "x"); };
    move_file_out_and_delete_its_folder: |f| { f.write("d/x", "x"); f.write("d/y", "y"); }, |f| {
        f.rename("d/x", "x");
        f.remove("d");
    };
    move_folder_into_another: |f| { f.many("d", 10); f.mkdir("e"); }, |f| { f.rename("d", "e/d"); };
    turn_parent_and_child_around: |f| { f.write("p/c/x", "x"); f.write("p/y", "y"); }, |f| {
        f.rename("p/c", "c");
        f.rename("p", "c/p");
    };
    move_all_files_to_other_names_at_once: |f| { f.many("d", 200); }, |f| {
        f.mkdir("e");
        for i in 0..200 { f.rename(format!("d/file-{i:06}"), format!("e/renamed-{i}")); }
    };
    copy_file: |f| { f.write("x", random_bytes(14, 1_000_000)); }, |f| { f.copy("x", "y"); };
    copy_and_edit_the_copy: |f| { f.write("x", random_bytes(15, 1_000_000)); }, |f| {
        f.copy("x", "y");
        f.patch("y", 500_000, "edited");
    };

    create_symlink: |f| { f.write("x", "x"); }, |f| { f.symlink("x", "link"); };
    create_symlink_to_a_folder: |f| { f.write("d/x", "x"); }, |f| { f.symlink("d", "link"); };
    create_dangling_symlink: |_f| {}, |f| { f.symlink("nowhere/at all", "link"); };
    create_symlink_to_outside: |_f| {}, |f| { f.symlink("/etc/passwd", "link"); f.symlink("../..", "up"); };
    create_symlink_to_itself: |_f| {}, |f| { f.symlink("loop", "loop"); };
    create_symlink_with_a_long_target: |_f| {}, |f| { f.symlink("t/".repeat(2000), "long"); };
    change_target_of_symlink: |f| { f.symlink("one", "link"); }, |f| { f.remove("link"); f.symlink("two", "link"); };
    delete_symlink_but_not_what_it_names: |f| { f.write("d/x", "x"); f.symlink("d", "link"); }, |f| { f.remove("link"); };
    rename_symlink: |f| { f.symlink("x", "link"); }, |f| { f.rename("link", "other"); };
    edit_behind_a_symlink: |f| { f.write("x", "x"); f.symlink("x", "link"); }, |f| { f.write("link", "through it"); };

    file_becomes_folder: |f| { f.write("x", "x"); }, |f| { f.remove("x"); f.write("x/y", "y"); };
    folder_becomes_file: |f| { f.write("x/y", "y"); }, |f| { f.remove("x"); f.write("x", "x"); };
    file_becomes_symlink: |f| { f.write("x", "x"); }, |f| { f.remove("x"); f.symlink("y", "x"); };
    symlink_becomes_file: |f| { f.symlink("y", "x"); }, |f| { f.remove("x"); f.write("x", "x"); };
    symlink_becomes_folder: |f| { f.symlink("y", "x"); }, |f| { f.remove("x"); f.write("x/y", "y"); };
    folder_becomes_symlink: |f| { f.many("x", 5); }, |f| { f.remove("x"); f.symlink("/", "x"); };
    folder_becomes_symlink_to_where_it_moved: |f| { f.many("x", 5); }, |f| { f.rename("x", "y"); f.symlink("y", "x"); };

    set_exec_bit: |f| { f.write("run", "#!/bin/sh\n"); }, |f| { f.chmod("run", 0o755); };
    clear_exec_bit: |f| { f.write("run", "#!/bin/sh\n"); f.chmod("run", 0o755); }, |f| { f.chmod("run", 0o644); };
    create_with_exec_bit: |_f| {}, |f| { f.write("run", "#!/bin/sh\n"); f.chmod("run", 0o700); };
    set_mtime_to_the_nanosecond: |f| { f.write("t", "t"); }, |f| { f.set_mtime("t", 1_234_567_890, 123_456_789); };
    set_mtime_before_1970: |f| { f.write("t", "t"); }, |f| { f.set_mtime("t", -86_400, 999_999_999); };
    set_mtime_in_the_far_future: |f| { f.write("t", "t"); }, |f| { f.set_mtime("t", 7_000_000_000, 1); };
    set_mtime_backwards: |f| { f.write("t", "t"); }, |f| { f.set_mtime("t", 1_000_000_000, 0); };
    set_mtime_of_symlink: |f| { f.symlink("x", "link"); }, |f| { f.set_mtime("link", 1_111_111_111, 222_222_222); };
    mtime_of_a_large_file: |_f| {}, |f| {
        f.write("b", random_bytes(16, 1_000_000));
        f.set_mtime("b", 1_500_000_000, 5);
    };
    edit_with_an_older_mtime: |f| { f.write("t", "first"); }, |f| { f.write("t", "older"); f.set_mtime("t", 1_000, 7); };
    edit_with_the_same_size_and_mtime: |f| { f.write("t", "first"); f.set_mtime("t", 1_600_000_000, 42); }, |f| {
        f.write("t", "secnd");
        f.set_mtime("t", 1_600_000_000, 42);
    };
    replace_with_the_same_size_and_mtime: |f| { f.write("t", "first"); f.set_mtime("t", 1_600_000_000, 42); }, |f| {
        f.save("t", "secnd");
        f.set_mtime("t", 1_600_000_000, 42);
    };
    swap_two_files_of_the_same_size_and_mtime: |f| {
        for name in ["x", "y"] { f.write(name, format!("i am {name}")); f.set_mtime(name, 1_600_000_000, 0); }
    }, |f| {
        f.rename("x", "t");
        f.rename("y", "x");
        f.rename("t", "y");
    };
    sparse_file: |_f| {}, |f| { f.set_len("sparse", 40_000_000); f.patch("sparse", 20_000_000, "middle"); };
    everything_at_once: |f| {
        f.many("d", 50);
        f.write("big", random_bytes(17, 500_000));
        f.symlink("big", "link");
        f.mkdir("empty");
    }, |f| {
        f.rename("d", "moved");
        f.patch("big", 100_000, "edited");
        f.rename("big", "moved/large");
        f.remove("link");
        f.write("link", "a file now");
        f.remove("empty");
        for i in 0..10 { f.remove(format!("moved/file-{i:06}")); }
        f.mkdir("fresh/empty");
        f.chmod("moved/file-000020", 0o755);
        f.set_mtime("moved/file-000021", 1, 1);
    };
}
