//! Bent, cut, emptied and lost files of every kind, in a store (R12) and in a folder's private state: no wrong byte reaches a
//! client, nothing is silently made anew, nobody's files are deleted.

use crate::campaign::{Point, campaign};
use crate::support::disk::Folder;
use crate::support::tree::Tree;
use crate::support::world::{World, assert_equal};
use crate::support::{DEADLINE, random_bytes, text};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// All files below a folder, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path {
                path if path.is_dir() => folders.push(path),
                // Not the socket that a killed server leaves.
                path if path.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// A copy with inodes of its own.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Kinds of files: by the folder they are in, or by name at the top.
fn kind(top: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(top).unwrap();
    let first = inside.iter().next().unwrap().to_string_lossy().into_owned();
    if inside.iter().count() > 1 { format!("{first}/") } else { first }
}

/// One file of `top`, every kind as often as the others, and what happened to it.
fn hurt(top: &Path, point: &mut Point) -> (String, String) {
    let all = files(top);
    let mut kinds: Vec<String> = all.iter().map(|file| kind(top, file)).collect();
    kinds.sort();
    kinds.dedup();
    let chosen = kinds[(point.seed % kinds.len() as u64) as usize].clone();
    let of_kind: Vec<&PathBuf> = all.iter().filter(|file| kind(top, file) == chosen).collect();
    let path = *point.pick(&of_kind);
    let len = fs::metadata(path).unwrap().len();
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = point.below(len);
    let what = match point.below(6) {
        _ if len == 0 => {
            fs::write(path, "not empty").unwrap();
            "filled".to_owned()
        }
        0..3 => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << point.below(8);
            file.write_all_at(&byte, at).unwrap();
            format!("bit flipped in byte {at} of {len}")
        }
        3 => {
            file.set_len(at).unwrap();
            format!("cut at {at} of {len}")
        }
        4 => {
            file.write_all_at(&vec![0; 4096.min(len - at) as usize], at).unwrap();
            format!("zeros from {at} of {len}")
        }
        _ => {
            fs::remove_file(path).unwrap();
            "removed".to_owned()
        }
    };
    (chosen, format!("{}: {what}", path.strip_prefix(top).unwrap().display()))
}

/// Whole files that were there, nothing else.
fn assert_true_files(found: &Tree, want: &Tree, what: &str) {
    for (path, item) in &found.0 {
        assert!(want.0.get(path) == Some(item), "{what}: {} is wrong", String::from_utf8_lossy(path));
    }
}

/// A store and a folder that agree, both at rest.
struct Rest {
    world: World,
    want: Tree,
}

impl Rest {
    fn new() -> Self {
        let mut world = World::new();
        let a = world.folder("a");
        a.many("many", 30);
        a.write("big", random_bytes(3, 1_500_000));
        a.write("doc", text(3, 200_000));
        world.sync(&a);
        a.write("doc", text(4, 200_000));
        a.rename("many", "renamed");
        a.remove("renamed/file-000003");
        world.sync(&a);
        world.stop_server();
        let want = a.tree();
        Self { world, want }
    }
}

#[test]
fn a_damaged_store_gives_nobody_a_wrong_byte_and_is_never_made_anew() {
    let mut held: Option<Rest> = None;
    let mut seen = std::collections::BTreeMap::new();
    campaign("damage: store", 36, |mut point| {
        let rest = held.take().unwrap_or_else(Rest::new);
        let world = &rest.world;
        let (store, a) = (world.path().join("hurt"), world.path().join("a2"));
        copy(world.store(), &store);
        copy(&world.path().join("a"), &a);
        let (kind, what) = hurt(&store, &mut point);
        let hurt_files: Vec<_> =
            files(&store).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
        let late = world.folder("late");
        let result = match world.try_serve(&store, ANY.into()) {
            Err(outcome) => {
                // Refused: says on which file, and changed none that counts.
                let line = outcome.stderr.lines().last().unwrap_or_default().to_owned();
                assert!(
                    line.starts_with("dropblock: ") && outcome.code.is_some_and(|c| c != 0),
                    "{what}: {line}"
                );
                for (bytes, path) in hurt_files {
                    let counts = ["journal", "packs", "store.toml"]
                        .iter()
                        .any(|part| path.starts_with(store.join(part)));
                    assert!(
                        !counts || fs::read(&path).is_ok_and(|now| now == bytes),
                        "{what}: changed {path:?}"
                    );
                }
                "refused"
            }
            Ok(server) => {
                let joined = world.once_at(&late, server.addr, &[]).outcome(DEADLINE);
                let found = late.tree();
                assert_true_files(&found, &rest.want, &what);
                let whole = found == rest.want;
                assert!(whole || joined.code != Some(0), "{what}: exit 0 with less than everything");
                assert!(!joined.stderr.contains("panicked"), "{what}: {}", joined.stderr);
                // Whoever has the files keeps them, and what they bring makes the store whole.
                let a = Folder::at(&a);
                let healing = world.sync_command(&a, server.addr, &["--once", "--device", "a"]);
                world.start("healing", healing).outcome(DEADLINE).code_in(&[0, 1, 3]);
                let after = a.tree();
                assert_eq!(rest.want.difference(&after), None, "{what}: a folder was changed");
                if whole { "no effect or rebuilt" } else { "reported" }
            }
        };
        *seen.entry((kind, result)).or_insert(0_u32) += 1;
        fs::remove_dir_all(late.path()).unwrap();
        held = Some(rest);
    });
    seen.iter().for_each(|((kind, result), count)| eprintln!("damage: store: {kind} {result}: {count}"));
}

/// A folder whose private state has files of every kind: half a download, a replaced file in the trash, chunk lists.
fn rich(world: &World, b: &Folder, a: &Folder) {
    a.write("big", random_bytes(5, 1_500_000));
    world.sync(a);
    world.sync(b);
    a.write("second", random_bytes(6, 8_000_000));
    a.patch("big", 700_000, "edited");
    world.sync(a);
    let private = b.join(".dropblock");
    // Killed in the middle: a staged file stays. When it was too quick, there is none this time.
    let mut client = world.once_start(b, &[]);
    for _ in 0..2_000 {
        if !client.is_running() || fs::read_dir(private.join("stage")).unwrap().next().is_some() {
            break;
        }
        sleep(Duration::from_millis(1));
    }
    client.kill();
}

#[test]
fn a_damaged_private_state_deletes_nothing_and_loses_no_edit() {
    let mut held = None;
    let mut seen = std::collections::BTreeMap::new();
    campaign("damage: client state", 30, |mut point| {
        let (world, a, b) = held.take().unwrap_or_else(|| {
            let world = World::new();
            let (a, b) = (world.folder("a"), world.folder("b"));
            a.many("many", 20);
            a.write("doc", text(7, 100_000));
            world.sync(&a);
            rich(&world, &b, &a);
            (world, a, b)
        });
        let hurt_path = world.path().join("hurt");
        copy(b.path(), &hurt_path);
        let c = Folder::at(&hurt_path);
        // An edit of its own that nobody else has.
        c.write("mine", format!("mine {}", point.seed));
        let (before, share) = (c.tree(), a.tree());
        let (kind, what) = hurt(&c.join(".dropblock"), &mut point);
        let outcome = world.once_with(&c, &["--device", "b"]);
        assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
        let after = c.tree();
        for (path, item) in &before.0 {
            let name = String::from_utf8_lossy(path);
            let replaced = share.0.get(path) == after.0.get(path);
            assert!(after.0.get(path) == Some(item) || replaced, "{what}: {name} was changed or deleted");
        }
        let result = if outcome.code == Some(0) { "went on, or joined anew" } else { "refused" };
        if outcome.code != Some(0) {
            assert!(
                outcome.code.is_some() && outcome.stderr.lines().last().unwrap().starts_with("dropblock: "),
                "{what}"
            );
            // Its owner may always say: begin anew.
            fs::remove_dir_all(c.join(".dropblock")).unwrap();
            world.once_with(&c, &["--device", "b"]).code(0);
        }
        world.sync(&a);
        let tree = assert_equal(&[&a, &c]);
        assert_eq!(tree.content("mine"), Some(format!("mine {}", point.seed)), "{what}");
        for (path, item) in &share.0 {
            // The last point's `mine` is edited by this one's.
            let name = String::from_utf8_lossy(path);
            assert!(
                path.starts_with(b"mine") || tree.0.get(path) == Some(item),
                "{what}: {name} is lost or wrong"
            );
        }
        *seen.entry((kind, result)).or_insert(0_u32) += 1;
        // b's state is from before; `mine` goes, so that the next one starts alike.
        tree.names().iter().filter(|name| name.starts_with("mine")).for_each(|name| a.remove(name));
        world.sync(&a);
        held = Some((world, a, b));
    });
    seen.iter()
        .for_each(|((kind, result), count)| eprintln!("damage: client state: {kind} {result}: {count}"));
}
