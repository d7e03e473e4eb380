//! Disks that are really full (R14): 24 MiB for a client, and a store whose disk fills up behind its back. No half file, no lost
//! edit, nothing acknowledged is lost, and everything goes on when there is room again.

use crate::campaign::campaign;
use crate::image::Image;
use crate::support::disk::Folder;
use crate::support::world::{World, assert_equal};
use crate::support::{DEADLINE, random_bytes};

#[test]
fn a_client_on_a_full_disk_leaves_no_half_file_and_recovers() {
    if !Image::works() {
        return;
    }
    campaign("full disk: client", 3, |mut point| {
        let server = World::new();
        let a = server.folder("a");
        let disk = Image::new(24).unwrap();
        let mut world = World::inside(disk.sandbox());
        world.set_home_of(&server);
        let (b, seen) = (Folder::at(disk.mount.join("b")), Folder::at(disk.seen().join("b")));
        a.write("big", random_bytes(point.seed, 3_000_000));
        a.many("many", 50);
        server.sync(&a);
        world.once_at(&b, server.addr(), &[]).outcome(DEADLINE).code(0);
        // Its user saves something, then the disk is full to the last few KiB.
        seen.write("mine", "mine");
        disk.fill(point.below(600));
        let old = a.tree();
        a.save("big", random_bytes(point.seed + 1, 3_000_000));
        a.write("new", random_bytes(point.seed + 2, 2_000_000));
        a.many("more", 30);
        server.sync(&a);
        let new = a.tree();
        let outcome = world.once_at(&b, server.addr(), &[]).outcome(DEADLINE).code_in(&[0, 1, 3]);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        for (path, item) in &seen.tree().0 {
            let known = old.0.get(path) == Some(item) || new.0.get(path) == Some(item) || path == b"mine";
            assert!(known, "{} is nobody's", String::from_utf8_lossy(path));
        }
        assert_eq!(seen.text("mine"), "mine");
        disk.free();
        world.once_at(&b, server.addr(), &[]).outcome(DEADLINE).code(0);
        server.sync(&a);
        let tree = assert_equal(&[&a, &seen]);
        assert_eq!((tree.content("mine").as_deref(), tree.copies()), (Some("mine"), vec![]));
    });
}

#[test]
fn a_server_refuses_new_blocks_below_64_mib_and_takes_the_rest() {
    if !Image::works() {
        return;
    }
    let disk = Image::new(140).unwrap();
    let mut world = World::inside(disk.sandbox());
    world.set_store(disk.mount.join("store"));
    world.serve();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("first", "first");
    a.many("many", 20);
    world.sync(&a);
    disk.fill(60 * 1024);
    a.write("more", random_bytes(1, 100_000));
    let line = world.once(&a).refusal();
    assert!(line.contains("full") || line.contains("room"), "{line}");
    // What needs no room makes the disk emptier in the end.
    a.remove("more");
    a.remove("many/file-000001");
    a.rename("many", "renamed");
    world.sync(&a);
    world.sync(&b);
    assert_equal(&[&a, &b]);
    disk.free();
    a.write("more", random_bytes(1, 100_000));
    world.sync_all(&[&a, &b]);
}

#[test]
fn a_store_whose_disk_fills_up_behind_its_back_loses_nothing_acknowledged() {
    if !Image::works() {
        return;
    }
    campaign("full disk: server", 3, |mut point| {
        let disk = Image::new(140).unwrap();
        let mut world = World::inside(disk.sandbox());
        world.set_store(disk.mount.join("store"));
        world.serve();
        let a = world.folder("a");
        a.write("first", random_bytes(point.seed, 400_000));
        a.many("many", 100);
        world.sync(&a);
        disk.fill(0);
        // Renames and deletions need a little room in the journal, until there is none.
        let mut acknowledged = a.tree();
        for round in 0..4 + point.below(40) {
            a.rename(format!("many/file-{:06}", round * 2), format!("many/renamed-{round}"));
            a.remove(format!("many/file-{:06}", round * 2 + 1));
            let outcome = world.once(&a);
            assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
            if outcome.code != Some(0) {
                break;
            }
            acknowledged = a.tree();
        }
        if point.below(2) == 0 {
            world.kill_server();
        } else {
            // It may have ended by itself; its index may not be written any more.
            world.server().process.signal(rustix::process::Signal::TERM);
            let outcome = world.server().process.outcome(DEADLINE);
            assert!(!outcome.stderr.contains("panicked") && outcome.code.is_some(), "{}", outcome.stderr);
        }
        disk.free();
        world.serve();
        let late = world.folder("late");
        world.sync(&late);
        let (found, last) = (late.tree(), a.tree());
        assert!(
            found == acknowledged || found == last,
            "acknowledged (left), there (right):\n{}",
            acknowledged.difference(&found).unwrap_or_default()
        );
        world.sync_all(&[&a, &late]);
    });
}
