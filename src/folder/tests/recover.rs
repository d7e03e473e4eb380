//! What a crash leaves behind, made by hand at each step, and what recovery makes of it.

use super::*;
use crate::folder::names::{StageName, TrashName};
use crate::folder::recover::Recovered;
use std::fs;

fn recover(world: &World) -> Recovered {
    let now_ns = world.stamp("").mtime_ns;
    world.folder.recover(&world.state, now_ns, &mut crate::folder::rescue_name).unwrap()
}

fn private(world: &World, part: &str, name: Name) -> PathBuf {
    world.path(".dropblock").join(part).join(name.as_os_str())
}

/// A synced folder with `d/a` and what a crash in the middle of replacing `d/a` leaves: stage holds what came out.
fn crashed_after_swap(edit: Option<&[u8]>) -> World {
    let mut world = World::new();
    world.write("d/a", b"old");
    world.agree();
    world.agree_bytes("d/a", b"old");
    if let Some(edit) = edit {
        world.write("d/a", edit);
    }
    let staged = world.staged(world.id("d/a"), b"new");
    let out = private(&world, "stage", staged.name.clone());
    // Both names at once, as the kernel would.
    fs::rename(&out, world.path("t")).unwrap();
    fs::rename(world.path("d/a"), &out).unwrap();
    fs::rename(world.path("t"), world.path("d/a")).unwrap();
    world.restart()
}

#[test]
fn a_finished_file_that_was_not_placed_is_kept_as_a_download() {
    let mut world = World::new();
    let id = world.ids.node();
    world.staged(id, b"new");
    world.folder.stage_symlink(id, b"t", 1).unwrap();
    let world = world.restart();
    assert_eq!(recover(&world), Recovered { partials: 1, removed: 1, put_back: vec![] });
    let file = crate::folder::stage::StagedFile::create(&world.folder, id, &content(b"new")).unwrap();
    assert_eq!(file.check([(0, 3, BlockHash::of(b"new"))]).unwrap(), [true]);
}

#[test]
fn an_agreed_version_that_came_out_before_the_crash_is_not_put_back() {
    let world = crashed_after_swap(None);
    assert_eq!(recover(&world), Recovered::default());
    assert_eq!(world.read("d/a"), b"new");
    assert_eq!(world.names("d"), ["a"]);
    assert_eq!(world.folder.trash_len(), 1);
    assert!(world.names(".dropblock/stage").is_empty());
}

#[test]
fn an_edit_that_came_out_before_the_crash_is_put_back_beside() {
    let world = crashed_after_swap(Some(b"edited"));
    assert_eq!(recover(&world).put_back, [rel("d/a (recovered)")]);
    assert_eq!(world.read("d/a (recovered)"), b"edited");
    assert_eq!(world.read("d/a"), b"new");
    // Once is enough.
    assert_eq!(recover(&world), Recovered::default());
}

/// It was known for an edit by its time of change, which a rename sets (found by the simulation, seed 1795445444017948).
#[test]
fn an_edit_that_kept_size_and_time_is_told_from_the_agreed_version_by_its_bytes() {
    let mut world = World::new();
    world.write("d/a", b"old");
    world.agree();
    world.agree_bytes("d/a", b"old");
    let kept = fs::metadata(world.path("d/a")).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(world.path("d/a")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"wet", 0).unwrap();
    file.set_modified(kept).unwrap();
    let staged = world.staged(world.id("d/a"), b"new");
    let out = private(&world, "stage", staged.name.clone());
    fs::rename(&out, world.path("t")).unwrap();
    fs::rename(world.path("d/a"), &out).unwrap();
    fs::rename(world.path("t"), world.path("d/a")).unwrap();
    let world = world.restart();
    assert_eq!(recover(&world).put_back, [rel("d/a (recovered)")]);
    assert_eq!(world.read("d/a (recovered)"), b"wet");
}

#[test]
fn an_edit_without_a_base_goes_to_the_top() {
    let world = crashed_after_swap(Some(b"edited"));
    fs::write(world.path(".dropblock/state"), b"damaged").unwrap();
    let world = world.restart();
    assert!(world.state.base.is_empty());
    let put_back = recover(&world).put_back;
    assert_eq!(put_back.len(), 1);
    assert_eq!(world.read(&put_back[0].to_string()), b"edited");
}

#[test]
fn an_edit_whose_folder_is_gone_goes_to_the_top() {
    let world = crashed_after_swap(Some(b"edited"));
    fs::remove_dir_all(world.path("d")).unwrap();
    assert_eq!(recover(&world).put_back, [rel("a")]);
    assert_eq!(world.read("a"), b"edited");
}

#[test]
fn parked_nodes_return_to_their_places_parents_first_or_beside() {
    let mut world = World::new();
    world.write("d/sub/1", b"1");
    world.write("b", b"2");
    world.agree();
    for path in ["d/sub", "d", "b"] {
        let parked = StageName::Park(world.id(path)).to_name().unwrap();
        fs::rename(world.path(path), private(&world, "stage", parked)).unwrap();
    }
    world.write("b", b"another");
    let world = world.restart();
    assert_eq!(recover(&world).put_back, [rel("b (recovered)"), rel("d"), rel("d/sub")]);
    assert_eq!((world.read("d/sub/1"), world.read("b (recovered)")), (b"1".to_vec(), b"2".to_vec()));
}

#[test]
fn a_deletion_that_was_not_recorded_is_undone_and_one_that_was_stays() {
    let mut world = World::new();
    world.write("a", b"1");
    world.write("b", b"2");
    world.agree();
    for path in ["a", "b"] {
        world.folder.trash(world.id(path), &rel(path), &world.stamp(path)).unwrap();
    }
    let b = world.id("b");
    world.state.save(vec![Update::Remove(b)], true).unwrap();
    let world = world.restart();
    assert_eq!(recover(&world).put_back, [rel("a")]);
    assert_eq!(world.names(""), [".dropblock", "a"]);
    assert_eq!(world.folder.trash_len(), 1);
    let later = std::time::Instant::now() + crate::folder::trash::TRASH_WAIT;
    assert_eq!(world.folder.sweep_trash(later, &mut crate::folder::rescue_name).unwrap(), []);
    assert!(world.names(".dropblock/trash").is_empty());
}

#[test]
fn a_trashed_file_that_was_written_to_before_the_crash_is_put_back() {
    let mut world = World::new();
    world.write("a", b"1");
    world.agree();
    let (id, stamp) = (world.id("a"), world.stamp("a"));
    world.folder.trash(id, &rel("a"), &stamp).unwrap();
    let trashed = TrashName::of(id, &stamp).to_name().unwrap();
    fs::write(private(&world, "trash", trashed), b"late").unwrap();
    world.write("a", b"made since");
    let world = world.restart();
    assert_eq!(recover(&world).put_back, [rel("a (recovered)")]);
    assert_eq!((world.read("a"), world.read("a (recovered)")), (b"made since".to_vec(), b"late".to_vec()));
}

#[test]
fn names_that_are_not_ours_are_left_alone() {
    let world = World::new();
    for path in [".dropblock/stage/note", ".dropblock/trash/note", ".dropblock/stage/put-xyz"] {
        world.write(path, b"x");
    }
    assert_eq!(recover(&world), Recovered::default());
    assert_eq!(world.names(".dropblock/stage"), ["note", "put-xyz"]);
}

/// A client that was killed while it carried out the deletion of a folder put the files of that folder to the top.
#[test]
fn an_agreed_file_whose_folder_is_deleted_or_renamed_is_not_put_back() {
    for renamed in [false, true] {
        let mut world = World::new();
        world.write("d/a", b"1");
        world.write("d/b", b"2");
        world.agree();
        for path in ["d/a", "d/b"] {
            world.folder.trash(world.id(path), &rel(path), &world.stamp(path)).unwrap();
        }
        if renamed {
            // As after a replacement: the new content stands where the user renamed the folder to.
            world.rename("d", "e");
        } else {
            fs::remove_dir(world.path("d")).unwrap();
        }
        let world = world.restart();
        assert_eq!(recover(&world), Recovered::default());
        assert_eq!(world.folder.trash_len(), 2);
        assert!(!world.names("").contains(&"a".to_owned()));
    }
}
