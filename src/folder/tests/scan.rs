//! Scanning: edits, deletions, odd names and odd files.

use super::*;
use crate::folder::scan::Cause;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

fn set_mtime(world: &World, path: &str, mtime_ns: i64) {
    let root = crate::folder::fs::Dir::open_root(&world.path("")).unwrap();
    root.set_mtime(&name(path), mtime_ns).unwrap();
}

#[test]
fn a_first_scan_finds_everything_parents_first_and_nothing_private() {
    let mut world = World::new();
    world.write("b/c/file", b"1");
    world.write("a", b"2");
    world.write("b/.dropblock/ordinary", b"3");
    symlink("nowhere", world.path("link")).unwrap();
    fs::create_dir(world.path("empty")).unwrap();
    let scan = world.scan();
    assert_eq!(
        shown(&world, &scan),
        [
            "a new",
            "b new",
            "empty new",
            "link new",
            "b/.dropblock new",
            "b/c new",
            "b/.dropblock/ordinary new",
            "b/c/file new"
        ]
    );
    assert_eq!((scan.tracked, scan.missing), (0, 0));
    let Entry::Symlink { target, .. } = &scan.found[3].entry else { panic!() };
    assert_eq!(target, b"nowhere");
    world.agree();
    assert_eq!(world.state.tracked_files(), 4);
}

#[test]
fn edits_deletions_and_kind_changes_are_found() {
    let mut world = World::new();
    for path in ["edited", "deleted", "exec", "d/e/f", "kind", "saved"] {
        world.write(path, b"1");
    }
    world.agree();
    world.write("edited", b"22");
    fs::remove_file(world.path("deleted")).unwrap();
    fs::set_permissions(world.path("exec"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir_all(world.path("d")).unwrap();
    fs::remove_file(world.path("kind")).unwrap();
    fs::create_dir(world.path("kind")).unwrap();
    world.write("saved.tmp", b"33");
    world.rename("saved.tmp", "saved");
    let scan = world.scan();
    let mut shown = shown(&world, &scan);
    shown.sort();
    assert_eq!(
        shown,
        [
            "d gone",
            "d/e gone",
            "d/e/f gone",
            "deleted gone",
            "edited touched",
            "exec touched",
            "kind gone",
            "kind new",
            "saved touched"
        ]
    );
    assert_eq!((scan.tracked, scan.missing), (6, 3));
    let at = |path| scan.gone.iter().position(|id| *id == world.id(path)).unwrap();
    assert!(at("d") < at("d/e") && at("d/e") < at("d/e/f"));
    world.agree();
}

#[test]
fn an_edit_that_restores_size_and_mtime_and_one_with_an_older_mtime_are_found() {
    let mut world = World::new();
    world.write("same", b"aaaa");
    world.write("older", b"aaaa");
    world.agree();
    let before = world.stamp("same");
    std::thread::sleep(std::time::Duration::from_millis(20));
    world.write("same", b"bbbb");
    set_mtime(&world, "same", before.mtime_ns);
    set_mtime(&world, "older", 1_000);
    assert_eq!(world.stamp("same").mtime_ns, before.mtime_ns);
    let scan = world.scan();
    assert_eq!(shown(&world, &scan), ["older touched", "same touched"]);
}

#[test]
fn names_are_kept_byte_for_byte_whatever_they_are() {
    use std::os::unix::ffi::OsStrExt;
    let mut world = World::new();
    let long = [b'x'; 255];
    let odd: Vec<&[u8]> = vec![
        b"\xff\xfe not utf-8",
        "e\u{301}".as_bytes(),
        "\u{e9}".as_bytes(),
        b" leading",
        b"trailing ",
        b"new\nline",
        b"\x1b[31m",
        b"-rf",
        b"...",
        b"\\",
        b"A",
        b"a",
        b"*?",
        &long,
    ];
    for bytes in &odd {
        fs::write(world.path("").join(std::ffi::OsStr::from_bytes(bytes)), bytes).unwrap();
    }
    let scan = world.scan();
    let mut found: Vec<_> = scan.found.iter().map(|found| found.name.as_bytes().to_vec()).collect();
    found.sort();
    let mut expected: Vec<_> = odd.iter().map(|bytes| bytes.to_vec()).collect();
    expected.sort();
    assert_eq!(found, expected);
    world.agree();
}

#[test]
fn fifos_sockets_and_devices_are_left_alone() {
    let mut world = World::new();
    world.write("pipe", b"a file once");
    world.agree();
    fs::remove_file(world.path("pipe")).unwrap();
    for path in ["pipe", "new pipe"] {
        rustix::fs::mkfifoat(rustix::fs::CWD, world.path(path), rustix::fs::Mode::RWXU).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(world.path("socket")).unwrap();
    let scan = world.scan();
    assert_eq!(scan.special, [rel("new pipe"), rel("pipe"), rel("socket")]);
    assert_eq!(shown(&world, &scan), ["pipe gone"]);
}

#[test]
fn what_cannot_be_read_is_a_problem_and_never_gone() {
    if is_root() {
        println!("skipped: root can read everything");
        return;
    }
    let mut world = World::new();
    world.write("closed/file", b"1");
    world.write("names only/file", b"1");
    world.agree();
    let mode =
        |path: &str, mode| fs::set_permissions(world.path(path), fs::Permissions::from_mode(mode)).unwrap();
    mode("closed", 0o000);
    mode("names only", 0o400);
    let scan = scan(&world.folder, &world.state, &Scope::Full, &mut IdSource::new([1; 32])).unwrap();
    mode("closed", 0o700);
    mode("names only", 0o700);
    assert!(scan.found.is_empty() && scan.gone.is_empty());
    assert_eq!(scan.problems.len(), 2);
    assert!(scan.problems.iter().all(|problem| problem.cause == Cause::NoPermission));
}

#[test]
fn a_mount_point_is_a_problem_and_what_it_hides_is_not_gone() {
    let mut world = World::new();
    world.write("mnt/hidden", b"1");
    world.agree();
    let top = world.path("");
    // Another filesystem, and a part of the same one.
    for what in
        [&["-t", "tmpfs", "none"].map(std::ffi::OsStr::new)[..], &["--bind".as_ref(), top.as_os_str()]]
    {
        let mut mount = std::process::Command::new("mount");
        mount.args(what).arg(world.path("mnt")).stderr(std::process::Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            println!("skipped: needs root");
            return;
        }
        let scan = world.scan();
        let unmounted = std::process::Command::new("umount").arg(world.path("mnt")).status().unwrap();
        assert!(unmounted.success());
        assert_eq!((scan.found.len(), scan.gone.len(), scan.moving), (0, 0, false));
        assert_eq!(scan.problems[0].cause, Cause::OtherFilesystem);
        assert!(world.scan().problems.is_empty());
    }
}

#[test]
fn hard_links_are_separate_files_also_when_one_goes() {
    let mut world = World::new();
    world.write("a", b"1");
    world.write("d/x", b"2");
    fs::hard_link(world.path("a"), world.path("b")).unwrap();
    world.agree();
    fs::hard_link(world.path("a"), world.path("c")).unwrap();
    let scan = world.scan();
    assert_eq!(shown(&world, &scan), ["a touched", "b touched", "c new"]);
    world.agree();
    fs::remove_file(world.path("b")).unwrap();
    let scan = world.scan();
    assert_eq!(shown(&world, &scan), ["a touched", "c touched", "b gone"]);
    world.agree();
    // `ln -f a d/x`: the place keeps its node.
    fs::remove_file(world.path("d/x")).unwrap();
    fs::hard_link(world.path("a"), world.path("d/x")).unwrap();
    let scan = world.scan();
    assert_eq!(shown(&world, &scan), ["a touched", "c touched", "d/x touched"]);
}

#[test]
fn a_scan_of_some_folders_sees_these_only_and_new_ones_whole() {
    let mut world = World::new();
    for path in ["a/1", "a/sub/2", "b/3"] {
        world.write(path, b"1");
    }
    world.agree();
    world.write("a/1", b"22");
    world.write("a/sub/2", b"22");
    world.write("b/3", b"22");
    world.write("a/new/deep/4", b"4");
    let scan = world.scan_dirs(&["a"]);
    assert_eq!(shown(&world, &scan), ["a/1 touched", "a/new new", "a/new/deep new", "a/new/deep/4 new"]);
    // A folder that is not known yet is found from the nearest one that is.
    let scan = world.scan_dirs(&["a/new/deep", "b"]);
    assert_eq!(
        shown(&world, &scan),
        ["a/1 touched", "a/new new", "b/3 touched", "a/new/deep new", "a/new/deep/4 new"]
    );
    fs::remove_dir_all(world.path("b")).unwrap();
    let scan = world.scan_dirs(&["b"]);
    assert_eq!(shown(&world, &scan), ["b gone", "b/3 gone"]);
}

#[test]
fn the_order_of_a_scan_depends_on_the_disk_only() {
    let mut world = World::new();
    for n in 0..300 {
        world.write(&format!("{}/{}/{n}", n % 7, n % 11), b"x");
    }
    let first = world.scan();
    for _ in 0..5 {
        world.ids = IdSource::new([9; 32]);
        assert_eq!(world.scan(), first);
    }
}
