//! The mass-delete guard: when nearly everything vanishes at once, nobody else loses it.

use crate::support::DEADLINE;
use crate::support::disk::Folder;
use crate::support::process::Outcome;
use crate::support::sandbox::{Sandbox, SmallDisk};
use crate::support::world::{World, assert_equal, wait_for, wait_until};

/// Two folders with 150 files in sync.
fn two_with(files: usize) -> (World, Folder, Folder) {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.many("d", files);
    world.sync_all(&[&a, &b]);
    (world, a, b)
}

/// Deletes all but the folder's own `.dropblock`.
fn empty(folder: &Folder) {
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let name = entry.unwrap().file_name();
        if name != ".dropblock" {
            folder.remove(name);
        }
    }
}

fn held(outcome: Outcome) {
    let line = outcome.code(3).one_line();
    assert!(line.contains("--allow-mass-delete"), "does not say what to do: {line}");
}

#[test]
fn deleting_everything_is_held() {
    let (world, a, b) = two_with(150);
    empty(&a);
    held(world.once(&a));
    held(world.once(&a));
    world.sync(&b);
    assert_eq!(b.tree().names().len(), 151, "the other side lost files");
}

#[test]
fn allow_mass_delete_lets_it_through() {
    let (world, a, b) = two_with(150);
    empty(&a);
    held(world.once(&a));
    world.once_with(&a, &["--allow-mass-delete"]).code(0);
    world.sync(&b);
    assert!(assert_equal(&[&a, &b]).names().is_empty());
}

#[test]
fn putting_the_files_back_ends_the_hold() {
    let (world, a, b) = two_with(150);
    let parked = world.path().join("parked");
    std::fs::rename(a.join("d"), &parked).unwrap();
    held(world.once(&a));
    std::fs::rename(&parked, a.join("d")).unwrap();
    world.sync_all(&[&a, &b]);
}

#[test]
fn small_trees_are_never_held() {
    let (world, a, b) = two_with(50);
    empty(&a);
    world.sync(&a);
    world.sync(&b);
    assert!(b.tree().names().is_empty());
}

#[test]
fn deleting_four_of_five_is_not_held() {
    let (world, a, b) = two_with(200);
    for i in 0..160 {
        a.remove(format!("d/file-{i:06}"));
    }
    world.sync(&a);
    world.sync(&b);
    assert_eq!(b.tree().names().len(), 41);
}

#[test]
fn renaming_everything_is_not_held() {
    let (world, a, b) = two_with(200);
    a.rename("d", "e");
    world.sync(&a);
    world.sync(&b);
    assert_eq!(b.tree().names().len(), 201);
    for i in 0..200 {
        a.rename(format!("e/file-{i:06}"), format!("file {i}"));
    }
    world.sync_all(&[&a, &b]);
}

#[test]
fn a_folder_swapped_for_an_empty_one_deletes_nothing() {
    let (world, a, b) = two_with(150);
    // As when a disk is not mounted: the folder is there, and nothing in it.
    std::fs::rename(a.path(), world.path().join("elsewhere")).unwrap();
    let a = world.folder("a");
    world.once(&a).code_in(&[0, 3]);
    world.sync(&b);
    assert_eq!(b.tree().names().len(), 151, "the other side lost files");
}

#[test]
fn deletes_by_others_are_never_held_here() {
    let (world, a, b) = two_with(150);
    empty(&a);
    world.once_with(&a, &["--allow-mass-delete"]).code(0);
    world.sync(&b);
    assert!(b.tree().names().is_empty());
}

/// As a client does that is killed while it carries out what another one deleted.
#[test]
fn what_is_gone_on_the_server_too_is_not_held() {
    let (world, a, b) = two_with(150);
    empty(&a);
    world.once_with(&a, &["--allow-mass-delete"]).code(0);
    empty(&b);
    world.sync(&b);
    assert_eq!(b.tree().names(), Vec::<String>::new());
}

#[test]
fn a_live_client_holds_and_says_so() {
    let (mut world, a, b) = two_with(150);
    let mut client = world.live(&a);
    b.write("x", "x");
    world.sync(&b);
    wait_until("connected", || a.has("x"));
    empty(&a);
    client.process.wait_output("--allow-mass-delete");
    let again = client.process.stderr().len();
    let addr = world.addr();
    world.stop_server();
    world.serve_again(addr);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let since = client.process.stderr().split_off(again);
    assert!(!since.contains("in sync"), "held, but {since}");
    // What a newcomer sees is what the server holds.
    let c = world.folder("c");
    world.sync(&c);
    assert!(
        c.tree().names().len() >= 151 - 100,
        "the live client sent {} deletes",
        152 - c.tree().names().len()
    );
    let left = c.tree().names().len();
    world.sync(&b);
    assert_eq!(b.tree().names().len(), left);
}

#[test]
fn a_live_client_whose_folder_vanishes_deletes_nothing() {
    let (world, a, b) = two_with(150);
    let mut client = world.live(&a);
    b.write("x", "x");
    world.sync(&b);
    wait_until("connected", || a.has("x"));
    std::fs::rename(a.path(), world.path().join("elsewhere")).unwrap();
    // It does not wait for another folder to appear under the name.
    client.process.outcome(DEADLINE).code(3);
    world.sync(&b);
    assert_eq!(b.tree().names().len(), 152, "the other side lost files");
}

#[test]
fn a_live_client_with_allow_mass_delete_sends_it() {
    let (world, a, b) = two_with(150);
    let _one = world.live_at(&a, world.addr(), &["--allow-mass-delete"]);
    let _other = world.live(&b);
    b.write("x", "x");
    wait_until("connected", || a.has("x"));
    empty(&a);
    wait_for(&[&a, &b], DEADLINE, "empty", |tree| tree.names().is_empty());
}

/// A folder that is unmounted under a client reports no change, and what its user does at that path goes elsewhere.
#[test]
fn a_disk_that_is_unmounted_live_ends_the_client_although_nothing_happens() {
    let place = tempfile::tempdir().unwrap();
    let mount = place.path().join("disk");
    let Some(disk) = SmallDisk::new(&mount, 20) else { return };
    let mut world = World::inside(Sandbox::on(&disk));
    world.serve();
    let b = world.folder("b");
    Folder::at(disk.seen()).many("d", 150);
    let mut client = world.live(&Folder::at(&mount));
    client.process.wait_output("is in sync");
    disk.unmount();
    let outcome = client.process.outcome(DEADLINE).code(3);
    assert!(outcome.stderr.contains("was replaced or removed"), "{}", outcome.stderr);
    world.sync(&b);
    assert_eq!(b.tree().names().len(), 151, "the other side lost files");
}
