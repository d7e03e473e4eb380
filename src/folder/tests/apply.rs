//! Changes of the folder, and the races each of them must survive.

use super::*;
use crate::folder::apply::Outcome;
use crate::folder::trash::TRASH_WAIT;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Instant;

fn done(outcome: Outcome) -> Stamp {
    match outcome {
        Outcome::Done { stamp } => stamp,
        other => panic!("{other:?}"),
    }
}

fn beside() -> Name {
    name("beside")
}

fn sweep(world: &World) -> Vec<RelPath> {
    world.folder.sweep_trash(Instant::now() + TRASH_WAIT, &mut crate::folder::rescue_name).unwrap()
}

#[test]
fn a_new_file_is_placed_with_its_time_and_a_stamp_that_the_next_scan_believes() {
    let mut world = World::new();
    world.agree();
    let id = world.ids.node();
    let staged = world.staged(id, b"new");
    let stamp = done(world.folder.place(&staged, &rel("a"), None, &mut beside).unwrap());
    assert_eq!((world.read("a"), stamp), (b"new".to_vec(), world.stamp("a")));
    assert_eq!(stamp.mtime_ns, 1_000_000_007);
    assert!(world.names(".dropblock/stage").is_empty());
}

#[test]
fn a_place_that_is_taken_meanwhile_is_left_alone() {
    let mut world = World::new();
    let id = world.ids.node();
    let staged = world.staged(id, b"new");
    world.write("a", b"user");
    assert_eq!(world.folder.place(&staged, &rel("a"), None, &mut beside).unwrap(), Outcome::Raced);
    assert_eq!(world.folder.place(&staged, &rel("no/folder"), None, &mut beside).unwrap(), Outcome::Raced);
    assert_eq!(world.read("a"), b"user");
    // The staged file is still good for another try.
    done(world.folder.place(&staged, &rel("b"), None, &mut beside).unwrap());
}

#[test]
fn a_replaced_file_goes_to_the_trash_and_from_there_after_a_while() {
    let mut world = World::new();
    world.write("a", b"old");
    world.agree();
    let staged = world.staged(world.id("a"), b"new");
    let expect = world.stamp("a");
    let stamp = done(world.folder.place(&staged, &rel("a"), Some(&expect), &mut beside).unwrap());
    assert_eq!((world.read("a"), stamp), (b"new".to_vec(), world.stamp("a")));
    assert_eq!(world.names(".dropblock/trash").len(), 1);
    assert_eq!(world.folder.sweep_trash(Instant::now(), &mut crate::folder::rescue_name).unwrap(), []);
    assert_eq!(world.folder.trash_len(), 1);
    assert_eq!(sweep(&world), []);
    assert!(world.names(".dropblock/trash").is_empty());
    assert_eq!(world.names(""), [".dropblock", "a"]);
}

#[test]
fn what_is_written_between_the_look_at_what_came_out_and_the_trash_goes_back() {
    let mut world = World::new();
    world.write("a", b"old");
    world.agree();
    let known = world.stamp("a");
    let folder = &world.folder;
    let (dir, _) = folder.parent_dir(&rel("a")).unwrap().unwrap();
    let out = folder.move_to_trash(&dir, &name("a"), world.id("a"), &known).unwrap();
    world.write(&format!(".dropblock/trash/{}", out.as_os_str().display()), b"late");
    folder.watch_trash(out, rel("a"), &known).unwrap();
    assert_eq!(sweep(&world), [rel("a")]);
    assert_eq!(world.read("a"), b"late");
}

/// A disk that fails right after the swap: here because there is no trash any more.
#[test]
fn what_came_out_and_cannot_be_put_into_the_trash_goes_later_and_is_no_edit() {
    let mut world = World::new();
    world.write("a", b"old");
    world.agree();
    let staged = world.staged(world.id("a"), b"new");
    let expect = world.stamp("a");
    fs::remove_dir(world.path(".dropblock/trash")).unwrap();
    let stamp = done(world.folder.place(&staged, &rel("a"), Some(&expect), &mut beside).unwrap());
    assert_eq!((world.read("a"), stamp), (b"new".to_vec(), world.stamp("a")));
    assert_eq!(world.names(".dropblock/stage").len(), 1);
    assert_eq!(world.folder.sweep_wait(), Some(TRASH_WAIT));
    assert_eq!(sweep(&world), []);
    assert_eq!((world.folder.sweep_wait(), world.names("")), (None, vec![".dropblock".into(), "a".into()]));
    assert!(world.names(".dropblock/stage").is_empty());
}

/// The same for an edit that came out and finds no place: here because every name beside it is taken.
#[test]
fn an_edit_that_came_out_and_finds_no_place_is_not_thrown_away_with_the_staged_file() {
    for with_copy in [false, true] {
        let mut world = World::new();
        world.write("a", b"old");
        world.write("beside", b"taken");
        world.agree();
        let staged = world.staged(world.id("a"), b"new");
        let expect = world.stamp("a");
        let path = world.path("a");
        let placed = if with_copy {
            fs::write(&path, b"edit").unwrap();
            world.folder.displace(&staged, &rel("a"), &mut beside)
        } else {
            let mut edit = || fs::write(&path, b"edit").unwrap();
            world.folder.place_with(&staged, &rel("a"), Some(&expect), &mut beside, &mut edit)
        };
        placed.unwrap_err();
        world.folder.discard_staged(&staged).unwrap();
        assert_eq!(world.read("a"), b"new");
        let back = sweep(&world);
        assert_eq!(back.len(), 1, "{back:?}");
        assert_eq!(fs::read(world.path(&back[0].to_string())).unwrap(), b"edit");
    }
}

#[test]
fn an_edit_before_the_look_stops_the_change() {
    let mut world = World::new();
    world.write("a", b"old");
    world.agree();
    let expect = world.stamp("a");
    world.write("a", b"edit");
    let staged = world.staged(world.id("a"), b"new");
    assert_eq!(world.folder.place(&staged, &rel("a"), Some(&expect), &mut beside).unwrap(), Outcome::Raced);
    assert_eq!(world.folder.trash(world.id("a"), &rel("a"), &expect).unwrap(), Outcome::Raced);
    assert_eq!(world.read("a"), b"edit");
    fs::remove_file(world.path("a")).unwrap();
    assert_eq!(world.folder.place(&staged, &rel("a"), Some(&expect), &mut beside).unwrap(), Outcome::Raced);
}

#[test]
fn an_edit_between_look_and_swap_comes_out_beside_under_a_free_name() {
    // In place, by rename, and something else under the name: what the user did last is never lost.
    for way in ["write", "rename", "folder", "symlink"] {
        let mut world = World::new();
        world.write("a", b"old");
        world.write("beside 0", b"taken");
        world.agree();
        let staged = world.staged(world.id("a"), b"new");
        let expect = world.stamp("a");
        let mut n = 0;
        let mut names = || {
            n += 1;
            name(&format!("beside {}", n - 1))
        };
        let path = world.path("a");
        let mut edit = || match way {
            "write" => fs::write(&path, b"an edit").unwrap(),
            "rename" => {
                fs::write(path.with_extension("tmp"), b"an edit").unwrap();
                fs::rename(path.with_extension("tmp"), &path).unwrap();
            }
            other => {
                fs::remove_file(&path).unwrap();
                if other == "folder" { fs::create_dir(&path).unwrap() } else { symlink("t", &path).unwrap() }
            }
        };
        let outcome =
            world.folder.place_with(&staged, &rel("a"), Some(&expect), &mut names, &mut edit).unwrap();
        let Outcome::DoneBeside { stamp, beside } = outcome else { panic!("{way}: {outcome:?}") };
        assert_eq!((beside, stamp), (name("beside 1"), world.stamp("a")));
        assert_eq!(world.read("a"), b"new");
        match way {
            "folder" => assert!(world.path("beside 1").is_dir()),
            "symlink" => assert!(world.path("beside 1").is_symlink()),
            _ => assert_eq!(world.read("beside 1"), b"an edit"),
        }
        assert!(world.names(".dropblock/stage").is_empty() && world.names(".dropblock/trash").is_empty());
    }
}

#[test]
fn a_delete_between_look_and_swap_is_a_race() {
    let mut world = World::new();
    world.write("a", b"old");
    world.agree();
    let staged = world.staged(world.id("a"), b"new");
    let (expect, path) = (world.stamp("a"), world.path("a"));
    let mut delete = || fs::remove_file(&path).unwrap();
    let outcome =
        world.folder.place_with(&staged, &rel("a"), Some(&expect), &mut beside, &mut delete).unwrap();
    assert_eq!(outcome, Outcome::Raced);
    assert_eq!(world.names(""), [".dropblock"]);
}

#[test]
fn a_writer_that_still_holds_the_replaced_file_open_loses_nothing() {
    let mut world = World::new();
    world.write("d/a.txt", b"old");
    world.agree();
    let mut writer = fs::OpenOptions::new().append(true).open(world.path("d/a.txt")).unwrap();
    let staged = world.staged(world.id("d/a.txt"), b"new");
    let expect = world.stamp("d/a.txt");
    done(world.folder.place(&staged, &rel("d/a.txt"), Some(&expect), &mut beside).unwrap());
    std::thread::sleep(std::time::Duration::from_millis(10));
    writer.write_all(b" and more").unwrap();
    assert_eq!(sweep(&world), [rel("d/a (recovered).txt")]);
    assert_eq!(world.read("d/a (recovered).txt"), b"old and more");
    assert_eq!(world.read("d/a.txt"), b"new");
    assert_eq!(world.folder.trash_len(), 0);
}

#[test]
fn a_conflict_moves_what_is_there_beside_in_one_step() {
    let mut world = World::new();
    world.write("a", b"mine");
    let id = world.ids.node();
    let staged = world.staged(id, b"theirs");
    let outcome = world.folder.displace(&staged, &rel("a"), &mut || name("a (conflict)")).unwrap();
    let Outcome::DoneBeside { stamp, beside } = outcome else { panic!() };
    assert_eq!((stamp, beside), (world.stamp("a"), name("a (conflict)")));
    assert_eq!((world.read("a"), world.read("a (conflict)")), (b"theirs".to_vec(), b"mine".to_vec()));
    let staged = world.staged(id, b"theirs");
    assert_eq!(world.folder.displace(&staged, &rel("b"), &mut self::beside).unwrap(), Outcome::Raced);
}

#[test]
fn hard_links_of_a_changed_file_keep_the_old_content_and_time() {
    let mut world = World::new();
    world.write("a", b"old");
    fs::hard_link(world.path("a"), world.path("b")).unwrap();
    world.agree();
    let staged = world.staged(world.id("a"), b"new");
    let expect = world.stamp("a");
    done(world.folder.place(&staged, &rel("a"), Some(&expect), &mut beside).unwrap());
    assert_eq!((world.read("a"), world.read("b")), (b"new".to_vec(), b"old".to_vec()));
    // Written to through its other name: that is where the bytes are, no copy is made.
    world.write("b", b"older");
    assert_eq!(sweep(&world), []);
    fs::hard_link(world.path("b"), world.path("c")).unwrap();
    let (expect, id) = (world.stamp("b"), world.id("b"));
    let stamp = done(
        world.folder.set_meta((id, &content(b"older")), &rel("b"), &expect, true, 42_000_000_000).unwrap(),
    );
    assert_eq!((stamp, stamp.exec, stamp.mtime_ns), (world.stamp("b"), true, 42_000_000_000));
    assert_eq!(world.read("b"), b"older");
    assert!(!world.stamp("c").exec && world.stamp("c").mtime_ns == expect.mtime_ns);
    assert_ne!(world.stamp("c").ino, stamp.ino);
}

#[test]
fn exec_bit_and_time_are_set_in_place_and_never_over_an_edit() {
    let mut world = World::new();
    world.write("a", b"1");
    symlink("t", world.path("l")).unwrap();
    world.agree();
    let (id, expect) = (world.id("a"), world.stamp("a"));
    let set = |world: &World, expect: &Stamp, exec| {
        world.folder.set_meta((id, &content(b"1")), &rel("a"), expect, exec, -1_500_000_000).unwrap()
    };
    let stamp = done(set(&world, &expect, true));
    let now = world.stamp("a");
    // An edit of the same size in the instant before would be hidden by the time just set.
    assert_eq!(
        (now.mtime_ns, now.exec, stamp),
        (-1_500_000_000, true, now.distrusted()),
        "it must be read again"
    );
    assert_eq!(stamp.ino, expect.ino);
    assert_eq!(set(&world, &expect, false), Outcome::Raced);
    let link = world.stamp("l");
    let stamp = done(world.folder.set_symlink_mtime(&rel("l"), &link, 7).unwrap());
    assert_eq!((stamp, stamp.mtime_ns), (world.stamp("l"), 7));
    assert_eq!(world.folder.set_symlink_mtime(&rel("a"), &link, 7).unwrap(), Outcome::Raced);
}

#[test]
fn a_replaced_file_keeps_its_permission_bits_but_no_setuid() {
    let mut world = World::new();
    world.write("private", b"old");
    world.agree();
    fs::set_permissions(world.path("private"), fs::Permissions::from_mode(0o4700)).unwrap();
    let expect = world.stamp("private");
    let staged = world.staged(world.id("private"), b"new");
    let stamp = done(world.folder.place(&staged, &rel("private"), Some(&expect), &mut beside).unwrap());
    assert_eq!(fs::metadata(world.path("private")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(stamp, world.stamp("private"));
}

#[test]
fn symlinks_are_placed_as_text_and_replaced_like_files() {
    let mut world = World::new();
    world.write("a", b"old");
    world.agree();
    let id = world.id("a");
    let text = b"/etc/../\xff nowhere";
    let staged = world.folder.stage_symlink(id, text, -7).unwrap();
    let expect = world.stamp("a");
    let stamp = done(world.folder.place(&staged, &rel("a"), Some(&expect), &mut beside).unwrap());
    assert_eq!((stamp, stamp.mtime_ns), (world.stamp("a"), -7));
    use std::os::unix::ffi::OsStrExt;
    assert_eq!(fs::read_link(world.path("a")).unwrap().as_os_str().as_bytes(), text);
    done(world.folder.trash(id, &rel("a"), &stamp).unwrap());
    assert_eq!(sweep(&world), []);
    assert_eq!(world.names(""), [".dropblock"]);
}

#[test]
fn nothing_is_placed_through_a_symlink_however_it_came_there() {
    let mut world = World::new();
    let out = world.temp.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("f"), "victim").unwrap();
    symlink(&out, world.path("d")).unwrap();
    symlink(out.join("f"), world.path("f")).unwrap();
    let id = world.ids.node();
    let staged = world.staged(id, b"new");
    let victim = Stamp { ..world.folder.stamp_of(&fs::File::open(out.join("f")).unwrap().into()).unwrap() };
    let folder = &world.folder;
    assert_eq!(folder.place(&staged, &rel("d/f"), None, &mut beside).unwrap(), Outcome::Raced);
    assert_eq!(folder.place(&staged, &rel("d/f"), Some(&victim), &mut beside).unwrap(), Outcome::Raced);
    assert_eq!(folder.place(&staged, &rel("f"), Some(&victim), &mut beside).unwrap(), Outcome::Raced);
    assert_eq!(folder.trash(id, &rel("d/f"), &victim).unwrap(), Outcome::Gone);
    assert_eq!(folder.rename(&rel("d/f"), &rel("g"), &victim).unwrap(), Outcome::Raced);
    let meta = folder.set_meta((id, &content(b"")), &rel("f"), &victim, true, 1).unwrap();
    assert_eq!(meta, Outcome::Raced);
    // In the place of the symlink, not through it.
    done(folder.place(&staged, &rel("f"), Some(&world.stamp("f")), &mut beside).unwrap());
    assert_eq!(fs::read(out.join("f")).unwrap(), b"victim");
    assert_eq!(world.read("f"), b"new");
}

#[test]
fn folders_are_made_moved_and_removed_only_when_empty() {
    let world = World::new();
    let made = done(world.folder.make_folder(&rel("d")).unwrap());
    assert_eq!(done(world.folder.make_folder(&rel("d")).unwrap()), made);
    world.write("file", b"1");
    assert_eq!(world.folder.make_folder(&rel("file")).unwrap(), Outcome::Raced);
    world.write("d/x", b"1");
    assert_eq!(world.folder.remove_folder(&rel("d"), &made).unwrap(), Outcome::NotEmpty);
    assert_eq!(world.folder.rename(&rel("d"), &rel("file"), &made).unwrap(), Outcome::Raced);
    assert_eq!(world.folder.rename(&rel("d"), &rel("d/inside"), &made).unwrap(), Outcome::Raced);
    let moved = done(world.folder.rename(&rel("d"), &rel("e"), &made).unwrap());
    fs::remove_file(world.path("e/x")).unwrap();
    let other = world.stamp("file");
    assert_eq!(world.folder.remove_folder(&rel("e"), &other).unwrap(), Outcome::Raced);
    done(world.folder.remove_folder(&rel("e"), &moved).unwrap());
    assert_eq!(world.folder.remove_folder(&rel("e"), &moved).unwrap(), Outcome::Gone);
    assert_eq!(world.names(""), [".dropblock", "file"]);
}

#[test]
fn an_edited_file_moves_with_its_edit_and_is_found_touched() {
    let mut world = World::new();
    world.write("a", b"1");
    world.agree();
    let expect = world.stamp("a");
    world.write("a", b"edit");
    let stamp = done(world.folder.rename(&rel("a"), &rel("b"), &expect).unwrap());
    assert_eq!(world.read("b"), b"edit");
    assert_ne!(stamp, world.stamp("b"));
    assert_eq!(stamp.identity(), world.stamp("b").identity());
    let now = world.stamp("b");
    let stamp = done(world.folder.rename(&rel("b"), &rel("c"), &now).unwrap());
    assert_eq!(stamp, world.stamp("c"));
}

#[test]
fn names_are_exchanged_through_a_parking_place() {
    let mut world = World::new();
    world.write("a/1", b"1");
    world.write("b", b"2");
    world.agree();
    let (a, b) = (world.stamp("a"), world.stamp("b"));
    let id = world.id("a");
    done(world.folder.park(id, &rel("a"), &a).unwrap());
    done(world.folder.rename(&rel("b"), &rel("a"), &b).unwrap());
    done(world.folder.unpark(id, &rel("b"), &a).unwrap());
    assert_eq!((world.read("a"), world.read("b/1")), (b"2".to_vec(), b"1".to_vec()));
    let paths = [RelPath::root(), rel("b"), rel("absent")].into();
    world.folder.sync_folders(&paths).unwrap();
}

#[test]
fn a_folder_that_goes_as_soon_as_it_is_made_was_made() {
    let world = World::new();
    let path = world.path("d");
    let mut remove = || fs::remove_dir(&path).unwrap();
    // Left undone it would be made again, and bring back what the user deleted or renamed.
    let outcome = world.folder.make_folder_with(&rel("d"), &mut remove).unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    world.write("e", b"in the way");
    assert_eq!(world.folder.make_folder(&rel("e")).unwrap(), Outcome::Raced);
}

#[test]
fn an_edit_between_look_and_delete_is_put_back() {
    let mut world = World::new();
    world.write("a", b"1");
    world.agree();
    let (expect, path) = (world.stamp("a"), world.path("a"));
    let mut edit = || fs::write(&path, b"edit").unwrap();
    assert_eq!(
        world.folder.trash_with(world.id("a"), &rel("a"), &expect, &mut edit).unwrap(),
        Outcome::Raced
    );
    assert_eq!(world.read("a"), b"edit");
    assert!(world.names(".dropblock/trash").is_empty());
    let expect = world.stamp("a");
    done(world.folder.trash(world.id("a"), &rel("a"), &expect).unwrap());
    assert_eq!(world.folder.trash(world.id("a"), &rel("a"), &expect).unwrap(), Outcome::Gone);
}

#[test]
fn a_user_who_saves_all_the_time_never_loses_a_save() {
    let mut world = World::new();
    world.write("a", b"0");
    world.agree();
    let (path, id) = (world.path("a"), world.id("a"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut copies = 0;
    let last = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut n = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                // Saved under the same name, as most editors do; each save is one the user made on top of what was.
                fs::write(path.with_extension("tmp"), format!("user {n}")).unwrap();
                fs::rename(path.with_extension("tmp"), &path).unwrap();
                std::thread::sleep(std::time::Duration::from_micros(u64::from(n % 7) * 30));
            }
            n
        });
        for n in 0..500u32 {
            let staged = world.staged(id, format!("server {n}").as_bytes());
            let Ok(Some(meta)) = world.folder.look(&rel("a")) else { continue };
            let mut names = || {
                copies += 1;
                name(&format!("copy {copies}"))
            };
            match world.folder.place(&staged, &rel("a"), Some(&meta.stamp), &mut names).unwrap() {
                Outcome::Raced => world.folder.discard_staged(&staged).unwrap(),
                Outcome::DoneBeside { beside, .. } => {
                    assert!(fs::read(world.path("").join(beside.as_os_str())).unwrap().starts_with(b"user"));
                }
                _ => {}
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap()
    });
    // The last save is where it was saved, in a copy, or was agreed (its stamp was looked at) and is in the trash.
    let places = ["", ".dropblock/trash"];
    let found = places.iter().any(|place| {
        world.names(place).iter().any(|name| {
            let path = world.path(place).join(name);
            path.is_file() && fs::read(path).unwrap() == format!("user {last}").as_bytes()
        })
    });
    assert!(found);
    println!("{last} saves against 500 changes, {copies} copies");
}
