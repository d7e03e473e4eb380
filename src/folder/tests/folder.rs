//! Opening a folder, and calls on single names.

use super::*;
use crate::folder::{EntryKind, FolderError};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_folder_is_made_when_only_its_last_part_is_absent() {
    let temp = tempfile::tempdir().unwrap();
    let open = |path: &str, create| Folder::open(&temp.path().join(path), create);
    assert!(matches!(open("a/b", true), Err(FolderError::NotFound { .. })));
    assert!(matches!(open("a", false), Err(FolderError::NotFound { .. })));
    let folder = open("a", true).unwrap();
    assert!(folder.is_new());
    drop(folder);
    assert!(!open("a", false).unwrap().is_new());
    std::fs::write(temp.path().join("file"), "x").unwrap();
    assert!(matches!(open("file", true), Err(FolderError::NotAFolder { .. })));
    assert!(matches!(open("file/x", true), Err(FolderError::NotAFolder { .. })));
}

#[test]
fn a_second_client_of_one_folder_is_refused() {
    let world = World::new();
    let error = Folder::open(&world.path(""), true).unwrap_err();
    assert_eq!(error.code(), "folder-locked");
    assert!(!error.is_retryable());
    world.restart();
}

#[test]
fn the_private_part_is_closed_to_others() {
    let mut world = World::new();
    world.write("a", b"x");
    world.agree();
    world.folder.save_manifest(&BlockHash::of(b"x"), b"y").unwrap();
    let mut paths = vec![world.path(".dropblock")];
    while let Some(path) = paths.pop() {
        let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} {mode:o}", path.display());
        if path.is_dir() {
            paths.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

#[test]
fn a_newer_or_unknown_state_version_is_refused_and_left_alone() {
    let world = World::new();
    let (path, version) = (world.path(""), world.path(".dropblock/version"));
    let World { folder, temp: _temp, .. } = world;
    drop(folder);
    for (text, code) in
        [("dropblock client state 2\n", "newer-state"), ("junk", "unknown-state"), ("", "unknown-state")]
    {
        std::fs::write(&version, text).unwrap();
        assert_eq!(Folder::open(&path, true).unwrap_err().code(), code);
        assert_eq!(std::fs::read_to_string(&version).unwrap(), text);
    }
    std::fs::write(&version, "dropblock client state 1\n").unwrap();
    Folder::open(&path, true).unwrap();
}

#[test]
fn a_private_part_that_is_a_file_or_a_symlink_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("elsewhere")).unwrap();
    std::fs::create_dir(temp.path().join("f")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", temp.path().join("f/.dropblock")).unwrap();
    let error = Folder::open(&temp.path().join("f"), true).unwrap_err();
    assert_eq!(error.code(), "not-a-folder");
    assert_eq!(std::fs::read_dir(temp.path().join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_read_only_filesystem_and_a_folder_of_somebody_else_are_refused_by_their_cause() {
    let temp = tempfile::tempdir().unwrap();
    if is_root() {
        println!("half skipped: root may write everywhere");
        let run = |program: &str, args: &[&str]| {
            let command = std::process::Command::new(program).args(args).arg(temp.path()).status();
            command.is_ok_and(|status| status.success())
        };
        if !run("mount", &["-t", "tmpfs", "-o", "ro", "none"]) {
            println!("skipped: cannot mount");
            return;
        }
        let error = Folder::open(temp.path(), true).unwrap_err();
        assert!(run("umount", &[]));
        assert_eq!(error.code(), "read-only");
    } else {
        println!("half skipped: needs root");
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
        let error = Folder::open(temp.path(), true).unwrap_err();
        let inside = Folder::open(&temp.path().join("new"), true).unwrap_err();
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!((error.code(), inside.code()), ("no-permission", "no-permission"));
    }
}

#[test]
fn a_folder_inside_a_synced_one_is_refused() {
    let world = World::new();
    std::fs::create_dir_all(world.path("in/it")).unwrap();
    for inner in ["in", "in/it", "in/new"] {
        assert_eq!(Folder::open(&world.path(inner), true).unwrap_err().code(), "folder-nested");
    }
    assert!(world.names("in/it").is_empty());
}

#[test]
fn a_folder_that_was_swapped_renamed_or_lost_its_private_part_is_replaced() {
    let mut world = World::new();
    world.write("a", b"x");
    world.agree();
    let (f, g) = (world.temp.path().join("f"), world.temp.path().join("g"));
    std::fs::rename(&f, &g).unwrap();
    assert!(matches!(world.folder.check(), Err(FolderError::Replaced { .. })));
    std::fs::create_dir(&f).unwrap();
    let replaced = scan(&world.folder, &world.state, &Scope::Full, &mut world.ids);
    assert!(matches!(replaced, Err(FolderError::Replaced { .. })));
    std::fs::remove_dir(&f).unwrap();
    std::fs::rename(&g, &f).unwrap();
    world.folder.check().unwrap();
    std::fs::rename(f.join(".dropblock"), f.join("x")).unwrap();
    assert!(matches!(world.folder.check(), Err(FolderError::Replaced { .. })));
}

#[test]
fn no_call_follows_a_symlink_or_blocks_on_a_fifo() {
    let world = World::new();
    let out = world.temp.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("secret"), "s").unwrap();
    std::os::unix::fs::symlink(&out, world.path("link")).unwrap();
    std::os::unix::fs::symlink(out.join("secret"), world.path("file")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, world.path("fifo"), rustix::fs::Mode::RWXU).unwrap();
    for path in ["link/secret", "file", "fifo", "absent", "absent/too"] {
        assert!(world.folder.open_file(&rel(path)).unwrap().is_none(), "{path}");
    }
    assert_eq!(world.folder.look(&rel("link/secret")).unwrap(), None);
    assert_eq!(world.folder.look(&rel("fifo")).unwrap().unwrap().kind, EntryKind::Special);
    assert_eq!(world.folder.make_folder(&rel("link/new")).unwrap(), crate::folder::apply::Outcome::Raced);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn folders_250_levels_deep_with_names_of_255_bytes_work_like_any_other() {
    let mut world = World::new();
    let long = Name::new(&[b'd'; 255]).unwrap();
    let mut path = RelPath::root();
    for _ in 0..250 {
        path = path.join(&long);
        let outcome = world.folder.make_folder(&path).unwrap();
        assert!(matches!(outcome, crate::folder::apply::Outcome::Done { .. }));
    }
    let id = world.ids.node();
    let staged = world.staged(id, b"deep");
    let file = path.join(&name("file"));
    world.folder.place(&staged, &file, None, &mut || name("x")).unwrap();
    world.agree();
    assert_eq!(world.state.base.len(), 251);
    assert_eq!(world.state.base.path_of(world.state.base.by_path(&file).unwrap()), Some(file.clone()));
    let (opened, _) = world.folder.open_file(&file).unwrap().unwrap();
    assert_eq!(std::io::read_to_string(opened).unwrap(), "deep");
    let stamp = world.folder.look(&file).unwrap().unwrap().stamp;
    world.folder.rename(&file, &path.join(&name("moved")), &stamp).unwrap();
    let scan = world.scan();
    assert_eq!((scan.found.len(), scan.gone.len()), (1, 0));
    assert!(scan.found[0].moved);
}

#[test]
fn manifests_come_back_and_damaged_or_unknown_ones_do_not() {
    let world = World::new();
    let (a, b) = (BlockHash::of(b"a"), BlockHash::of(b"b"));
    world.folder.save_manifest(&a, b"chunks of a").unwrap();
    world.folder.save_manifest(&b, b"").unwrap();
    assert_eq!(world.folder.load_manifest(&a).as_deref(), Some(&b"chunks of a"[..]));
    assert_eq!(world.folder.load_manifest(&b).as_deref(), Some(&b""[..]));
    assert_eq!(world.folder.load_manifest(&BlockHash::of(b"c")), None);
    let path = world.path(&format!(".dropblock/manifests/{a}"));
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(world.folder.load_manifest(&a), None, "byte {at}");
        std::fs::write(&path, &good[..at]).unwrap();
        assert_eq!(world.folder.load_manifest(&a), None, "cut at {at}");
    }
    // A whole file under another name is damage too.
    std::fs::copy(world.path(&format!(".dropblock/manifests/{b}")), &path).unwrap();
    assert_eq!(world.folder.load_manifest(&a), None);
    assert_eq!(world.folder.prune_manifests(&[b].into()).unwrap(), 1);
    assert!(world.folder.load_manifest(&b).is_some());
}
