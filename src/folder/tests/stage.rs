//! Staged files: sparse, resumed, finished.

use super::*;
use crate::folder::apply::Outcome;
use crate::folder::stage::{Staged, StagedFile};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const KIB: usize = 1024;

fn allocated(world: &World) -> u64 {
    let entry = fs::read_dir(world.path(".dropblock/stage")).unwrap().next().unwrap().unwrap();
    entry.metadata().unwrap().blocks() * 512
}

#[test]
fn zeros_become_holes_wherever_they_stand_and_the_bytes_are_right() {
    let mut world = World::new();
    let mut bytes = vec![0; 300 * KIB];
    bytes[10] = 1;
    bytes[100 * KIB + 7..101 * KIB].fill(2);
    bytes[299 * KIB + 3] = 3;
    // Pieces that do not begin at pages.
    for piece in [64 * KIB, 5000, 3 * KIB] {
        let id = world.ids.node();
        let file = StagedFile::create(&world.folder, id, &content(&bytes)).unwrap();
        for (n, part) in bytes.chunks(piece).enumerate() {
            file.write_at((n * piece) as u64, part).unwrap();
        }
        if piece == 64 * KIB {
            assert!(allocated(&world) < 40 * KIB as u64, "{}", allocated(&world));
        }
        let staged = file.finish(&world.folder, false, 5).unwrap();
        assert_eq!(fs::read(world.path(".dropblock/stage").join(staged.name.as_os_str())).unwrap(), bytes);
        world.folder.discard_staged(&staged).unwrap();
    }
}

#[test]
fn an_interrupted_download_goes_on_with_its_good_blocks() {
    let mut world = World::new();
    let bytes: Vec<u8> = (0..=250).cycle().take(100 * KIB).collect();
    let chunks: Vec<_> = bytes
        .chunks(10 * KIB)
        .enumerate()
        .map(|(n, chunk)| ((n * 10 * KIB) as u64, u32::try_from(chunk.len()).unwrap(), BlockHash::of(chunk)))
        .collect();
    let id = world.ids.node();
    let file = StagedFile::create(&world.folder, id, &content(&bytes)).unwrap();
    assert!(!file.is_resumed());
    assert_eq!(file.check(chunks.clone()).unwrap(), [false; 10]);
    for n in [0, 3, 9] {
        file.write_at((n * 10 * KIB) as u64, &bytes[n * 10 * KIB..][..10 * KIB]).unwrap();
    }
    file.write_at(5 * 10 * KIB as u64, &[7; 100]).unwrap();
    drop(file);
    let mut world = world.restart();
    let now_ns = world.stamp("").mtime_ns;
    let recovered = world.folder.recover(&world.state, now_ns, &mut crate::folder::rescue_name).unwrap();
    assert_eq!(recovered.partials, 1);
    let file = StagedFile::create(&world.folder, id, &content(&bytes)).unwrap();
    assert!(file.is_resumed());
    let good = file.check(chunks.clone()).unwrap();
    assert_eq!(good, [true, false, false, true, false, false, false, false, false, true]);
    for (n, _) in good.iter().enumerate().filter(|(_, good)| !**good) {
        file.write_at((n * 10 * KIB) as u64, &bytes[n * 10 * KIB..][..10 * KIB]).unwrap();
    }
    let staged = file.finish(&world.folder, false, 5).unwrap();
    world.folder.place(&staged, &rel("a"), None, &mut || name("x")).unwrap();
    assert_eq!(world.read("a"), bytes);
    // A week later nobody wants the rest any more.
    let other = world.ids.node();
    drop(StagedFile::create(&world.folder, other, &content(&bytes)).unwrap());
    let later = now_ns + 2 * crate::folder::recover::PARTIAL_KEEP_NS;
    let recovered = world.folder.recover(&world.state, later, &mut crate::folder::rescue_name).unwrap();
    assert_eq!((recovered.partials, recovered.removed), (0, 1));
}

#[test]
fn zeros_over_old_bytes_of_a_resumed_file_are_zeros() {
    let mut world = World::new();
    let bytes = vec![0; 64 * KIB];
    let id = world.ids.node();
    let file = StagedFile::create(&world.folder, id, &content(&bytes)).unwrap();
    file.write_at(0, &vec![9; 64 * KIB]).unwrap();
    drop(file);
    let file = StagedFile::create(&world.folder, id, &content(&bytes)).unwrap();
    file.write_at(0, &bytes).unwrap();
    let staged = file.finish(&world.folder, false, 5).unwrap();
    world.folder.place(&staged, &rel("a"), None, &mut || name("x")).unwrap();
    assert_eq!(world.read("a"), bytes);
}

#[test]
fn bytes_are_copied_from_a_file_that_is_here_with_its_holes() {
    let mut world = World::new();
    let mut old = vec![0; 2048 * KIB];
    old[1000 * KIB..1010 * KIB].fill(5);
    world.write("old", b"");
    let file = fs::OpenOptions::new().write(true).open(world.path("old")).unwrap();
    file.set_len(old.len() as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[5; 10 * KIB], 1000 * KIB as u64).unwrap();
    let (from, _) = world.folder.open_file(&rel("old")).unwrap().unwrap();
    let mut new = vec![1; 100];
    new.extend_from_slice(&old[500 * KIB..1500 * KIB]);
    let id = world.ids.node();
    let staged = StagedFile::create(&world.folder, id, &content(&new)).unwrap();
    staged.write_at(0, &new[..100]).unwrap();
    assert!(staged.copy_from(&from, 500 * KIB as u64, 100, 1000 * KIB as u64).unwrap());
    assert!(allocated(&world) < 64 * KIB as u64);
    assert!(!staged.copy_from(&from, 2000 * KIB as u64, 0, 100 * KIB as u64).unwrap());
    let staged = staged.finish(&world.folder, true, 5).unwrap();
    world.folder.place(&staged, &rel("new"), None, &mut || name("x")).unwrap();
    assert!(world.read("new") == new);
    assert_eq!(fs::metadata(world.path("new")).unwrap().permissions().mode() & 0o111, 0o111);
}

#[test]
fn many_finished_files_are_synced_at_once() {
    let mut world = World::new();
    let mut all = Vec::new();
    for n in 0..300u32 {
        let id = world.ids.node();
        all.push(world.staged(id, &n.to_le_bytes()));
    }
    let id = world.ids.node();
    all.push(world.folder.stage_symlink(id, b"target", 5).unwrap());
    world.folder.sync_staged(&all).unwrap();
    world.folder.sync_staged(&all[290..]).unwrap();
}

#[test]
fn a_whole_file_is_staged_with_holes_time_and_exec_bit_and_resumes_what_was_left() {
    let mut world = World::new();
    let mut bytes = vec![0; 40 * KIB];
    bytes[10_000] = 1;
    let id = world.ids.node();
    // Left by an earlier run, and longer and other than it should be.
    let left = StagedFile::create(&world.folder, id, &content(&bytes)).unwrap();
    left.write_at(0, &vec![7; 50 * KIB]).unwrap();
    drop(left);
    for (path, id, exec) in [("a", id, false), ("b", world.ids.node(), true), ("c", world.ids.node(), false)]
    {
        let staged = world.folder.stage_whole(id, &content(&bytes), &bytes, exec, 5_000_000_007).unwrap();
        assert_eq!((staged.stamp.exec, staged.stamp.size), (exec, 40 * KIB as u64));
        world.folder.sync_staged(std::slice::from_ref(&staged)).unwrap();
        world.folder.place(&staged, &rel(path), None, &mut || name("x")).unwrap();
        let meta = fs::metadata(world.path(path)).unwrap();
        assert!(world.read(path) == bytes);
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (5, 7));
        assert_eq!(meta.permissions().mode() & 0o111 != 0, exec);
        assert_eq!(world.stamp(path).ctime_ns, meta.ctime() * 1_000_000_000 + meta.ctime_nsec());
    }
    assert!(fs::metadata(world.path("c")).unwrap().blocks() * 512 <= 8 * KIB as u64);
    assert!(world.names(".dropblock/stage").is_empty());
}

#[test]
fn a_whole_file_that_is_swapped_in_tells_after_a_crash_which_of_the_two_it_is() {
    let mut world = World::new();
    world.write("a", b"old");
    world.agree();
    let id = world.id("a");
    let staged = world.folder.stage_whole(id, &content(b"new"), b"new", false, 5).unwrap();
    let mut seen = Vec::new();
    let expect = world.stamp("a");
    let stale = Stamp { mtime_ns: 1, ..expect };
    let outcome = world.folder.place(&staged, &rel("a"), Some(&stale), &mut || name("x")).unwrap();
    assert_eq!(outcome, crate::folder::apply::Outcome::Raced);
    let path = world.path("a");
    // Gone between the look and the swap: it stays staged, under the name it had.
    let outcome = world.folder.place_with(&staged, &rel("a"), Some(&expect), &mut || name("x"), &mut || {
        fs::rename(&path, path.with_file_name("away")).unwrap();
    });
    assert_eq!(outcome.unwrap(), crate::folder::apply::Outcome::Raced);
    assert_eq!(world.names(".dropblock/stage"), [staged.name.to_string()]);
    fs::rename(path.with_file_name("away"), &path).unwrap();
    let expect = world.stamp("a");
    world
        .folder
        .place_with(&staged, &rel("a"), Some(&expect), &mut || name("x"), &mut || seen.push(()))
        .unwrap();
    assert_eq!((seen.len(), world.read("a")), (1, b"new".to_vec()));
    assert!(world.names(".dropblock/stage").is_empty());
    assert_eq!(world.folder.trash_len(), 1);
}

/// On a filesystem without `O_TMPFILE` this says the same about files with a name.
#[test]
fn a_file_without_a_name_is_placed_swapped_and_gone_with_its_holder() {
    let mut world = World::new();
    world.write("d/taken", b"old");
    world.agree();
    let stage = |world: &mut World, to: &str, bytes: &[u8]| {
        let id = world.ids.node();
        let mut near = world.folder.nearby();
        let staged =
            world.folder.stage_for(&mut near, &rel(to), (id, &content(bytes)), bytes, (true, 5_000_000_007));
        let staged = staged.unwrap();
        world.folder.sync_staged(std::slice::from_ref(&staged)).unwrap();
        staged
    };
    let place = |world: &World, staged: &Staged, to: &str, expect: Option<&Stamp>| {
        world.folder.place(staged, &rel(to), expect, &mut || name("x")).unwrap()
    };

    let staged = stage(&mut world, "d/new", b"new");
    let Outcome::Done { stamp } = place(&world, &staged, "d/new", None) else { panic!("not placed") };
    assert_eq!((world.read("d/new"), world.stamp("d/new")), (b"new".to_vec(), stamp));
    let meta = fs::metadata(world.path("d/new")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec(), meta.permissions().mode() & 0o100), (5, 7, 0o100));
    drop(staged);

    let staged = stage(&mut world, "d/taken", b"newer");
    assert_eq!(place(&world, &staged, "d/taken", None), Outcome::Raced);
    // Gone between the look and the swap: nothing of it stays.
    let (expect, path) = (world.stamp("d/taken"), world.path("d/taken"));
    let outcome =
        world.folder.place_with(&staged, &rel("d/taken"), Some(&expect), &mut || name("x"), &mut || {
            fs::rename(&path, path.with_file_name("away")).unwrap();
        });
    assert_eq!(outcome.unwrap(), Outcome::Raced);
    assert_eq!(fs::read(path.with_file_name("away")).unwrap(), b"old");
    assert!(world.names(".dropblock/stage").is_empty());
    fs::rename(path.with_file_name("away"), &path).unwrap();
    let staged = stage(&mut world, "d/taken", b"newer");
    let expect = world.stamp("d/taken");
    assert!(matches!(place(&world, &staged, "d/taken", Some(&expect)), Outcome::Done { .. }));
    assert_eq!((world.read("d/taken"), world.folder.trash_len()), (b"newer".to_vec(), 1));
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);

    let staged = stage(&mut world, "d/other", b"never placed");
    world.folder.discard_staged(&staged).unwrap();
    drop(staged);
    // A folder that is not there: then it is staged with a name, and has no place to go.
    let staged = stage(&mut world, "no/folder", b"nowhere");
    assert_eq!(place(&world, &staged, "no/folder", None), Outcome::Raced);
    world.folder.discard_staged(&staged).unwrap();
    assert!(world.names(".dropblock/stage").is_empty());
    assert_eq!(world.names("d"), ["new", "taken"]);
}
