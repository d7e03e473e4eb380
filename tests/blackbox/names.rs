//! Every name a Linux folder can hold arrives byte for byte.

use crate::support::disk::Folder;
use crate::support::sandbox::{Sandbox, SmallDisk};
use crate::support::story::{Mode, Story, arrives};
use crate::support::world::World;
use crate::support::{random_bytes, skipped};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes as a path.
fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// A file, a folder, a link and a file inside the folder, all with names that start with these bytes.
fn make(folder: &Folder, bytes: &[u8]) {
    folder.write(path(bytes), "content");
    folder.write(PathBuf::from("in").join(path(bytes)).join(path(bytes)), "inside");
    folder.mkdir("links");
    folder.symlink(path(bytes), PathBuf::from("links").join(path(bytes)));
}

/// Edits one, renames one, deletes one.
fn change(folder: &Folder, bytes: &[u8]) {
    folder.write(path(bytes), "edited");
    folder.rename(PathBuf::from("in").join(path(bytes)), PathBuf::from("links").join("was a folder"));
    folder.remove(PathBuf::from("links").join(path(bytes)));
    folder.rename(path(bytes), PathBuf::from("in").join(path(bytes)));
}

macro_rules! names_arrive {
    ($($name:ident: $bytes:expr;)*) => {
        $(#[test]
        fn $name() {
            let bytes: &[u8] = $bytes;
            arrives(Mode::Once, 2, &|f| make(f, bytes), &|f| change(f, bytes));
        })*

        #[test]
        fn all_of_them_live() {
            let all: Vec<&[u8]> = vec![$($bytes),*];
            arrives(Mode::Live, 2, &|_| {}, &|f| {
                for (i, bytes) in all.iter().enumerate() {
                    f.write(PathBuf::from(format!("{i}")).join(path(bytes)), "content");
                    f.mkdir(PathBuf::from(format!("folder {i}")).join(path(bytes)));
                }
            });
        }
    };
}

names_arrive! {
    not_utf8: b"\xff\xfe latin-1 caf\xe9";
    a_lone_byte_above_127: b"\x80";
    nfc: "caf\u{e9}".as_bytes();
    nfd: "cafe\u{301}".as_bytes();
    emoji_and_right_to_left: "\u{1f980} \u{202e}gnp.exe".as_bytes();
    leading_and_trailing_blanks: b"  both  ";
    only_a_blank: b" ";
    newline: b"two\nlines";
    control_characters: b"\x01\x07\x1b[31m\x7f";
    tab_and_carriage_return: b"a\tb\r";
    leading_dash: b"--once";
    backslash_and_quotes: b"C:\\x \"'`$(id)";
    glob_characters: b"*?[a-z]{}!";
    trailing_dot: b"dot.";
    three_dots: b"...";
    windows_device: b"CON";
    colon: b"a:b";
    percent_and_hash: b"100%25 #1";
    hidden: b".hidden";
    git_folder_name: b".git";
    editor_backup: b"#note#~";
    like_a_conflict_copy: b"x (conflict from a 2026-01-01 00-00-00).txt";
    like_a_temporary_file: b".tmp.swp.part";
    two_hundred_and_fifty_five_bytes: &[b'n'; 255];
    two_hundred_and_fifty_five_bytes_of_umlauts: "\u{e4}".repeat(127).leak().as_bytes();
    two_hundred_and_fifty_five_bytes_not_utf8: &[0xfe; 255];
}

#[test]
fn nfc_and_nfd_are_two_names() {
    arrives(Mode::Once, 2, &|_| {}, &|f| {
        f.write("caf\u{e9}", "composed");
        f.write("cafe\u{301}", "decomposed");
    });
}

#[test]
fn case_twins_are_two_names() {
    arrives(Mode::Once, 2, &|_| {}, &|f| {
        for name in ["readme", "README", "Readme"] {
            f.write(name, name);
            f.write(format!("folder {name}/x"), name);
        }
    });
}

#[test]
fn two_hundred_and_fifty_levels_deep() {
    let deep = vec!["d"; 250].join("/");
    for mode in [Mode::Once, Mode::Live] {
        arrives(mode, 2, &|_| {}, &|f| f.write(format!("{deep}/x"), "deep"));
    }
}

#[test]
fn a_deep_file_is_edited_renamed_and_deleted() {
    let deep = vec!["d"; 250].join("/");
    arrives(Mode::Once, 2, &|f| f.write(format!("{deep}/x"), "deep"), &|f| {
        f.write(format!("{deep}/x"), "edited")
    });
    arrives(Mode::Once, 2, &|f| f.write(format!("{deep}/x"), "deep"), &|f| {
        f.rename(format!("{deep}/x"), format!("{deep}/y"));
    });
    arrives(Mode::Once, 2, &|f| f.write(format!("{deep}/x"), "deep"), &|f| f.remove("d"));
}

#[test]
fn a_path_of_nearly_four_thousand_bytes() {
    let long = vec!["fifteen-letters"; 240].join("/");
    for mode in [Mode::Once, Mode::Live] {
        arrives(mode, 2, &|f| f.write(format!("{long}/x"), "far"), &|f| {
            f.write(format!("{long}/x"), "edited")
        });
    }
}

#[test]
fn dropblock_at_the_top_is_private_and_below_it_is_ordinary() {
    for mode in [Mode::Once, Mode::Live] {
        arrives(mode, 2, &|f| f.write("d/x", "x"), &|f| {
            f.write("d/.dropblock/secret", "an ordinary file");
            f.mkdir("d/e/.dropblock");
            f.write("d/f/.dropblock", "a file of that name");
        });
        let story = Story::new(mode, 2);
        story.folders[0].write(".dropblock/mine", "mine");
        story.folders[0].write("x", "x");
        story.settle_as("there", |tree| tree.has("x"));
        assert!(!story.folders[1].has(".dropblock/mine"), "the private folder was synced");
    }
}

#[test]
fn a_folder_synced_inside_a_synced_folder_keeps_its_own_state() {
    // The inner folder is a share of its own; its private folder is an ordinary folder to the outer one.
    let story = Story::new(Mode::Once, 2);
    let inner = crate::support::disk::Folder::at(story.folders[0].join("inner"));
    inner.write("x", "x");
    story.world.once_with(&inner, &["--share", "inner"]).code(0);
    story.world.sync(&story.folders[0]);
    story.world.sync(&story.folders[1]);
    assert_eq!(story.folders[1].text("inner/x"), "x");
}

#[test]
fn conflict_copies_of_the_longest_names_are_shortened() {
    let names: [&[u8]; 4] = [
        &[b'n'; 255],
        "\u{e4}".repeat(127).leak().as_bytes(),
        &[0xfe; 255],
        &[[b'n'; 250].as_slice(), b".text"].concat(),
    ];
    for bytes in names {
        let story = Story::new(Mode::Once, 2);
        for folder in &story.folders {
            folder.write(path(bytes), folder.name());
        }
        let tree = story.settle();
        assert_eq!(tree.contents(), ["a", "b"]);
        assert_eq!(tree.copies().len(), 1, "{:?}", tree.names());
        let utf8 = std::str::from_utf8(bytes).is_ok();
        for name in tree.0.keys() {
            assert!(name.len() <= 255);
            assert!(
                !utf8 || std::str::from_utf8(name).is_ok(),
                "cut inside a character: {}",
                name.escape_ascii()
            );
        }
        story.stays_settled();
    }
}

#[test]
fn conflict_copies_of_odd_names_keep_what_matters() {
    for (name, extension) in
        [("archive.tar.gz", ".gz"), (".bashrc", ""), ("no extension", ""), ("dot.", ""), ("a b.txt", ".txt")]
    {
        let story = Story::new(Mode::Once, 2);
        for folder in &story.folders {
            folder.write(name, folder.name());
        }
        let tree = story.settle();
        assert_eq!(tree.contents(), ["a", "b"], "{name}");
        assert!(tree.has(name), "{name}: {:?}", tree.names());
        assert!(tree.copies()[0].ends_with(extension), "{name}: {:?}", tree.names());
        story.stays_settled();
    }
}

#[test]
fn names_from_others_cannot_write_to_a_terminal() {
    let story = Story::new(Mode::Once, 2);
    story.folders[0].write("\u{1b}]0;owned\u{7}\n[error] fake", "x");
    for folder in &story.folders {
        let outcome = story.world.once_with(folder, &["-v"]);
        let said = outcome.code(0).stderr;
        assert!(
            !said.contains('\u{1b}') && !said.contains('\u{7}') && !said.contains("\n[error]"),
            "{said:?}"
        );
    }
}

#[test]
fn a_thousand_names_of_random_bytes() {
    for mode in [Mode::Once, Mode::Live] {
        arrives(mode, 2, &|_| {}, &|f| {
            for seed in 0..1_000_u64 {
                let len = 1 + usize::try_from(seed % 60).unwrap();
                let mut name = random_bytes(seed + 1, len);
                name.retain(|byte| *byte != 0 && *byte != b'/');
                name.push(b'n');
                f.write(path(&name), seed.to_string());
            }
        });
    }
}

/// A folder with `chattr +F`, where the kernel can have one. `protocol`: `folding` asks more, on a disk in memory.
#[test]
fn a_folder_that_folds_case_holds_one_of_two_names_and_mixes_nothing_up() {
    if !Path::new("/sys/fs/ext4/features/casefold").exists() {
        // Not counted among the skips: few kernels have it, and the same is asked on a disk in memory everywhere.
        eprintln!("skipped: needs a kernel with casefold");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    let mkfs = Command::new("mkfs.ext4").args(["-q", "-F", "-O", "casefold"]).arg(&image).status();
    if !mkfs.is_ok_and(|status| status.success()) {
        return skipped("needs a mkfs.ext4 that knows casefold");
    }
    let mount = place.path().join("disk");
    // Says so itself where the kernel cannot.
    let Some(disk) = SmallDisk::of_image(&mount, &image) else { return };
    let seen = Folder::at(disk.seen().join("f"));
    std::fs::create_dir(seen.path()).unwrap();
    if !Command::new("chattr").arg("+F").arg(seen.path()).status().is_ok_and(|status| status.success()) {
        return skipped("needs chattr +F");
    }
    let mut world = World::inside(Sandbox::on(&disk));
    world.serve();
    let (a, b) = (world.folder("a"), Folder::at(mount.join("f")));
    for (path, text) in
        [("README", "one"), ("readme", "two"), ("d/x", "x"), ("D/y", "y"), (".Dropblock/server", "z")]
    {
        a.write(path, text);
    }
    world.sync(&a);
    let all = a.tree();
    let said = world.once(&b).code(3).stderr;
    assert!(said.contains("the same as"), "{said}");
    assert!(!seen.has(".dropblock/server"));
    world.once(&b).code(3);
    world.sync(&a);
    assert_eq!(a.tree(), all, "nothing is taken for deleted or moved");
    for (path, text) in [("README", "one"), ("readme", "two")] {
        let is_there =
            std::fs::read_dir(seen.path()).unwrap().any(|entry| entry.unwrap().file_name() == path);
        assert!(!is_there || seen.text(path) == text);
    }
    // One goes, the other one comes.
    a.remove("README");
    a.rename("D", "other");
    a.rename(".Dropblock", "harmless");
    world.sync(&a);
    world.once(&b).code(0);
    assert_eq!(seen.tree(), a.tree());
}
