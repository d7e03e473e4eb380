//! Scanning: moves are moves, and what only looks like one is not.

use super::*;
use std::fs;

#[test]
fn a_renamed_file_and_a_renamed_symlink_keep_their_nodes() {
    let mut world = World::new();
    world.write("a", b"1");
    world.write("d/x", b"1");
    std::os::unix::fs::symlink("t", world.path("link")).unwrap();
    world.agree();
    world.rename("a", "d/b");
    world.rename("link", "d/link2");
    let scan = world.scan();
    assert_eq!(shown(&world, &scan), ["d/b <- a touched", "d/link2 <- link touched"]);
    assert_eq!(scan.missing, 0);
    // The change time moves with a rename, the bytes as far as a stamp can tell do not.
    assert!(scan.found[0].entry.stamp().same_bytes(world.state.stamp(world.id("a")).unwrap()));
    world.agree();
}

#[test]
fn a_renamed_folder_is_one_move_also_with_edits_inside() {
    let mut world = World::new();
    for n in 0..20 {
        world.write(&format!("old/sub/{n}"), b"1");
    }
    world.write("old/top", b"1");
    world.agree();
    world.rename("old", "new");
    let scan = world.scan();
    assert_eq!(shown(&world, &scan), ["new <- old"]);
    world.write("new/sub/3", b"edit");
    world.write("new/sub/added", b"1");
    fs::remove_file(world.path("new/sub/4")).unwrap();
    world.rename("new/sub/5", "new/5");
    let scan = world.scan();
    assert_eq!(
        shown(&world, &scan),
        [
            "new <- old",
            "new/5 <- old/sub/5 touched",
            "old/sub/3 touched",
            "old/sub/added new",
            "old/sub/4 gone"
        ]
    );
    world.agree();
}

#[test]
fn two_files_that_swap_their_names_are_two_moves() {
    let mut world = World::new();
    world.write("a", b"1");
    world.write("b", b"2");
    world.agree();
    world.rename("a", "t");
    world.rename("b", "a");
    world.rename("t", "b");
    let scan = world.scan();
    assert_eq!(shown(&world, &scan), ["a <- b touched", "b <- a touched"]);
    world.agree();
}

#[test]
fn two_folders_that_swap_their_names_are_two_moves() {
    let mut world = World::new();
    world.write("a/1", b"1");
    world.write("b/2", b"2");
    world.agree();
    world.rename("a", "t");
    world.rename("b", "a");
    world.rename("t", "b");
    let scan = world.scan();
    assert_eq!(shown(&world, &scan), ["a <- b", "b <- a"]);
    let scan = world.scan_dirs(&["a"]);
    assert_eq!(shown(&world, &scan), ["a <- b", "b <- a"]);
    world.agree();
}

#[test]
fn rotations_and_folders_that_trade_places_with_their_parent_are_moves() {
    let mut world = World::new();
    for path in ["1", "2", "3", "p/c/file"] {
        world.write(path, path.as_bytes());
    }
    world.agree();
    // Log rotation: the last one goes. The first one is a new file under an old name, as many programs save, so the
    // name keeps its node; the file that had it is new under its new name.
    fs::remove_file(world.path("3")).unwrap();
    world.rename("2", "3");
    world.rename("1", "2");
    world.write("1", b"new");
    // p/c becomes c, and p goes inside it.
    world.rename("p/c", "c");
    world.rename("p", "c/p");
    let scan = world.scan();
    let mut shown = shown(&world, &scan);
    shown.sort();
    assert_eq!(shown, ["1 touched", "2 new", "3 <- 2 touched", "3 gone", "c <- p/c", "c/p <- p"]);
    world.agree();
}

#[test]
fn three_files_that_trade_names_in_a_ring_are_three_moves() {
    let mut world = World::new();
    for path in ["1", "2", "3"] {
        world.write(path, path.as_bytes());
    }
    world.agree();
    world.rename("3", "t");
    world.rename("2", "3");
    world.rename("1", "2");
    world.rename("t", "1");
    let scan = world.scan();
    assert_eq!(shown(&world, &scan), ["1 <- 3 touched", "2 <- 1 touched", "3 <- 2 touched"]);
}

#[test]
fn a_file_moved_out_of_a_deleted_folder_is_a_move() {
    let mut world = World::new();
    world.write("d/e/keep", b"1");
    world.write("d/e/drop", b"1");
    world.agree();
    world.rename("d/e/keep", "kept");
    fs::remove_dir_all(world.path("d")).unwrap();
    let scan = world.scan();
    let mut shown = shown(&world, &scan);
    shown.sort();
    assert_eq!(shown, ["d gone", "d/e gone", "d/e/drop gone", "kept <- d/e/keep touched"]);
    assert_eq!((scan.tracked, scan.missing), (2, 1));
}

#[test]
fn an_inode_number_that_is_used_again_is_no_move() {
    let mut world = World::new();
    world.write("old", b"1");
    world.agree();
    let before = world.stamp("old");
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut reused = false;
    for n in 0..50 {
        if n == 0 {
            fs::remove_file(world.path("old")).unwrap();
        }
        let path = format!("new {n}");
        world.write(&path, b"1");
        reused |= world.stamp(&path).ino == before.ino;
    }
    println!("inode number used again: {reused}");
    let scan = world.scan();
    assert!(scan.found.iter().all(|found| found.new));
    assert_eq!(scan.gone, [world.id("old")]);
}

#[test]
fn without_birth_times_an_inode_is_believed_only_with_size_and_mtime() {
    let mut world = World::new();
    world.write("a", b"1");
    world.write("b", b"1");
    world.agree();
    // As a filesystem without birth times would have recorded it: such a stamp fits no file on this one.
    let mut look = world.stamp("a");
    look.btime_ns = None;
    let entry = |size| crate::folder::walk::DiskEntry {
        name: name("x"),
        kind: crate::folder::EntryKind::File,
        stamp: Stamp { size, ctime_ns: 99, ..look },
        target: vec![],
        listing: None,
    };
    let id = world.id("a");
    world.state.save(vec![Update::Look(id, look)], false).unwrap();
    for (size, is_move) in [(1, true), (2, false)] {
        let listing = crate::folder::walk::Listing { entries: vec![entry(size)], ..Default::default() };
        let disk = crate::folder::walk::Disk {
            listings: vec![listing],
            roots: vec![(NodeId::ROOT, 0)],
            problems: vec![],
        };
        let scan = crate::folder::matching::compare(&world.state, &disk, &mut world.ids);
        assert_eq!(scan.found[0].moved, is_move);
        assert_eq!(scan.found[0].new, !is_move);
    }
}

#[test]
fn a_scan_of_some_folders_looks_where_a_moved_name_came_from() {
    let mut world = World::new();
    for path in ["a/1", "b/2", "c/sub/3", "c/4"] {
        world.write(path, b"1");
    }
    world.agree();
    world.rename("a/1", "b/1");
    world.rename("c/sub", "b/sub");
    fs::hard_link(world.path("c/4"), world.path("b/4")).unwrap();
    let scan = world.scan_dirs(&["b"]);
    let mut shown = shown(&world, &scan);
    shown.sort();
    assert_eq!(shown, ["b/1 <- a/1 touched", "b/4 new", "b/sub <- c/sub", "c/4 touched"]);
}

#[test]
fn a_folder_replaced_by_another_one_keeps_its_place_and_its_files_by_name() {
    let mut world = World::new();
    world.write("d/same", b"1");
    world.write("d/gone", b"1");
    world.agree();
    world.write("t/same", b"22");
    fs::remove_dir_all(world.path("d")).unwrap();
    world.rename("t", "d");
    let scan = world.scan();
    assert_eq!(shown(&world, &scan), ["d touched", "d/same touched", "d/gone gone"]);
    world.agree();
}

#[test]
fn what_an_unreadable_moved_folder_holds_is_not_gone() {
    use std::os::unix::fs::PermissionsExt;
    if is_root() {
        println!("skipped: root can read everything");
        return;
    }
    let mut world = World::new();
    world.write("d/file", b"1");
    world.agree();
    world.rename("d", "e");
    fs::set_permissions(world.path("e"), fs::Permissions::from_mode(0o000)).unwrap();
    let scan = world.scan();
    fs::set_permissions(world.path("e"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(shown(&world, &scan), ["e <- d"]);
}

#[test]
fn a_name_that_one_look_misses_is_not_gone() {
    use crate::folder::scan::settle;
    let mut ids = IdSource::new([1; 32]);
    let (a, b) = (ids.node(), ids.node());
    let settled = |looks: &[&[NodeId]]| {
        let mut looks = looks.iter();
        let scan = settle(|| Ok(Scan { gone: looks.next().unwrap().to_vec(), ..Scan::default() }));
        scan.unwrap().map(|scan| (scan.gone, looks.len()))
    };
    // Nothing gone: one look is enough. Gone twice is gone. Seen by the second look: it only moved.
    assert_eq!(settled(&[&[], &[a]]), Some((vec![], 1)));
    assert_eq!(settled(&[&[a], &[a], &[]]), Some((vec![a], 1)));
    assert_eq!(settled(&[&[a, b], &[b]]), Some((vec![b], 0)));
    assert_eq!(settled(&[&[a], &[b], &[b]]), Some((vec![b], 0)));
    assert_eq!(settled(&[&[a], &[b], &[a], &[b], &[a], &[b], &[a], &[b]]), None);
}

#[test]
fn a_folder_where_a_file_was_agreed_is_looked_into_whatever_its_identity() {
    let mut world = World::new();
    world.write("p/d", b"1");
    world.agree();
    let id = world.id("p/d");
    fs::remove_file(world.path("p/d")).unwrap();
    world.write("p/d/b", b"2");
    // The file was recorded with the look of the folder that had taken its name.
    let node = world.state.base.get(id).unwrap().clone();
    let stamp = Some(world.stamp("p/d").distrusted());
    world.state.save(vec![Update::Put { id, node, stamp }], false).unwrap();
    for scan in [world.scan_dirs(&["p"]), world.scan_dirs(&["p/d"]), world.scan()] {
        assert_eq!(shown(&world, &scan), ["p/d new", "p/d/b new", "p/d gone"]);
    }
}

#[test]
fn a_look_that_meets_a_folder_at_two_places_does_not_count() {
    use crate::folder::scan::settle;
    use crate::folder::{matching, walk};
    let mut world = World::new();
    world.write("b/old", b"1");
    world.write("d", b"1");
    world.agree();
    world.write("b/new", b"2");
    // The folder is listed in its place; the names above it only when it has changed places with a file.
    let mut disk = walk::scoped(&world.folder, &world.state, &[rel("b")].into()).unwrap();
    world.rename("b", "between");
    world.rename("d", "b");
    world.rename("between", "d");
    let above = walk::scoped(&world.folder, &world.state, &[rel("")].into()).unwrap();
    let first = disk.listings.len();
    disk.roots.extend(above.roots.iter().map(|(id, slot)| (*id, slot + first)));
    disk.listings.extend(above.listings.into_iter().map(|mut listing| {
        listing.entries.iter_mut().for_each(|entry| entry.listing = entry.listing.map(|slot| slot + first));
        listing
    }));
    let torn = matching::compare(&world.state, &disk, &mut world.ids.clone());
    assert!(torn.moving && torn.found.iter().filter(|found| found.name.as_bytes() == b"new").count() == 2);
    let mut looks = vec![world.scan(), torn];
    let scan = settle(|| Ok(looks.pop().unwrap())).unwrap().unwrap();
    assert_eq!(shown(&world, &scan), ["b <- d touched", "d <- b", "d/new new"]);
}
