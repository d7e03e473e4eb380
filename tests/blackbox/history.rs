//! What was once acknowledged can be looked at and brought back: files, folders, the whole share, deleted things too.

use crate::support::disk::Folder;
use crate::support::process::Outcome;
use crate::support::tree::Tree;
use crate::support::world::{World, assert_equal, wait_for, wait_tree};
use crate::support::{DEADLINE, LONG_DEADLINE, random_bytes};
use std::ffi::OsStr;

/// `log` or `restore` with this world's server.
fn ask(world: &World, command: &str, folder: &Folder, more: &[&str]) -> Outcome {
    let mut prepared = world.command([OsStr::new(command), folder.path().as_os_str()]);
    prepared.args(more).arg("--server").arg(world.addr().to_string()).arg("--device").arg(folder.name());
    world.start(command, prepared).outcome(LONG_DEADLINE)
}

fn log(world: &World, folder: &Folder, more: &[&str]) -> String {
    ask(world, "log", folder, more).code(0).stdout
}

fn restore(world: &World, folder: &Folder, more: &[&str]) -> String {
    ask(world, "restore", folder, more).code(0).stderr
}

/// The number of the latest version of a path (`.` for anything).
#[track_caller]
fn latest(world: &World, folder: &Folder, path: &str) -> String {
    let text = log(world, folder, &[path, "--limit", "1"]);
    text.split_whitespace().next().unwrap_or_else(|| panic!("no version of {path}")).to_owned()
}

/// What `log` says happened, latest first.
fn deeds(log: &str) -> Vec<String> {
    let words = ["created", "edited", "moved and edited", "moved", "deleted", "touched"];
    let deed = |line: &str| words.iter().find(|word| line.contains(&format!("  {word} "))).copied();
    log.lines().map(|line| deed(line).unwrap_or_else(|| panic!("{line}")).to_owned()).collect()
}

fn undo(said: &str) -> String {
    let (_, rest) = said.split_once("--version ").unwrap_or_else(|| panic!("no way back: {said}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().to_owned()
}

#[test]
fn a_file_is_followed_through_edits_and_names_and_every_version_comes_back() {
    let world = World::new();
    let a = world.folder("a");
    let mut versions = Vec::new();
    for text in ["one", "two and more", "three"] {
        a.write("note.txt", text);
        world.sync(&a);
        versions.push((latest(&world, &a, "note.txt"), text));
    }
    a.rename("note.txt", "essay.txt");
    world.sync(&a);
    let text = log(&world, &a, &["essay.txt"]);
    assert_eq!(deeds(&text), ["moved", "edited", "edited", "created"], "{text}");
    assert!(text.lines().next().unwrap().ends_with("note.txt -> essay.txt"), "{text}");
    assert!(text.lines().nth(2).unwrap().contains("12 B"), "{text}");
    for (version, text) in versions {
        restore(&world, &a, &["essay.txt", "--version", &version]);
        assert_eq!(a.text("essay.txt"), text);
        assert_eq!(a.tree().names(), ["essay.txt"]);
    }
}

#[test]
fn json_has_one_object_a_line_with_times_and_whole_numbers() {
    let world = World::new();
    let a = world.folder("a");
    a.write("quo\"te.txt", "12345");
    world.sync(&a);
    a.remove("quo\"te.txt");
    world.sync(&a);
    let text = log(&world, &a, &["--json"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].starts_with("{\"version\":2,\"time\":\"20") && lines[0].ends_with("\"restorable\":false}")
    );
    assert!(
        lines[1].contains("\"change\":\"created\",\"kind\":\"file\",\"path\":\"quo\\\"te.txt\",\"size\":5")
    );
    assert!(lines[1].contains("Z\",\"device\":\"a\"") && lines[1].ends_with("\"restorable\":true}"));
}

/// It would bring back a file that nobody can read.
#[test]
fn a_version_of_which_the_server_lacks_blocks_is_not_restored() {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("large", random_bytes(1, 3_000_000));
    a.write("other", "1");
    world.sync(&a);
    let version = latest(&world, &a, ".");
    let middle = a.read("large")[1_500_000..1_500_100].to_vec();
    let mut edited = a.read("large");
    edited[10] ^= 1;
    edited[1_500_050] ^= 1;
    a.write("large", &edited);
    a.write("other", "2");
    world.sync(&a);
    world.stop_server();
    let pack = world.store().join("packs/00000001.pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    let at = bytes.windows(100).position(|window| window == middle).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    world.serve();
    let check = world.run(["check", "--store", world.store().to_str().unwrap()]).code(2).stdout;
    assert!(check.contains("large: replaced version"), "{check}");
    let before = a.tree();
    for args in [&["large"][..], &["large", "--partial"], &["."]] {
        let args = [args, &["--version", &version]].concat();
        let line = ask(&world, "restore", &a, &args).code(1).one_line();
        assert!(line.contains("large is not kept") && line.contains("lacks blocks"), "{line}");
        assert_eq!(line.contains("--partial restores the other 1"), args[0] == ".", "{line}");
    }
    assert_eq!(before.difference(&a.tree()), None);
    let shown = log(&world, &a, &["large", "--json"]);
    let restorable: Vec<bool> = shown.lines().map(|line| line.contains("\"restorable\":true")).collect();
    assert_eq!(restorable, [true, false], "{shown}");
    restore(&world, &a, &["other", "--version", &version]);
    assert_eq!(a.text("other"), "1");
    a.write("other", "3");
    a.rename("large", "renamed");
    world.sync(&a);
    let args = [".", "--version", &version, "--partial"];
    for more in [&["-n"][..], &[]] {
        let done = ask(&world, "restore", &a, &[&args[..], more].concat()).code(3);
        assert!(done.stderr.contains("large: not restored"), "{done:?}");
    }
    assert_eq!(
        (a.tree().names(), a.text("other")),
        (vec!["large".to_owned(), "other".to_owned()], "1".into())
    );
    assert_eq!(a.read("large"), edited);
}

/// The node that a commit changed is not what had its path then.
#[test]
fn what_had_the_path_at_a_version_is_meant_and_the_printed_undo_brings_it_back() {
    let world = World::new();
    let a = world.folder("a");
    a.write("p", "old");
    world.sync(&a);
    let first = latest(&world, &a, ".");
    a.rename("p", "q");
    a.write("p/other", "precious");
    world.sync(&a);
    a.rename("q", "p/x");
    let before = world.sync_all(&[&a]);
    let said = ask(&world, "restore", &a, &["p", "--version", &first]).code(0).stderr;
    assert_eq!(a.text("p"), "old");
    let undo = said.rsplit("--version ").next().unwrap().split_whitespace().next().unwrap().to_owned();
    restore(&world, &a, &["p", "--version", &undo]);
    assert_eq!(before.difference(&a.tree()), None);
}

/// A content that stands somewhere and lacks blocks cannot be given to another file. Nothing is changed before that is known.
#[test]
fn a_restore_that_would_copy_what_is_lost_changes_nothing() {
    let mut world = World::new();
    let (a, m) = (world.folder("a"), world.folder("m"));
    a.write("d/x", "equal content");
    a.write("d/y", "equal content");
    world.sync(&a);
    let first = latest(&world, &a, ".");
    a.mkdir("e");
    a.rename("d/x", "e/x");
    world.sync(&a);
    a.write("d/new", "new");
    world.sync(&a);
    world.stop_server();
    std::fs::remove_file(world.store().join("packs/00000001.pack")).unwrap();
    m.write("d/new", "new");
    world.serve();
    world.once(&m).code(3);
    let head = latest(&world, &m, ".");
    for args in [
        &["d", "--version", &first][..],
        &["d", "--version", &first, "-n"],
        &["d", "--version", &first, "--to", "d3"],
    ] {
        let line = ask(&world, "restore", &m, args).code(1).stderr;
        assert!(line.contains("not kept any more"), "{args:?}: {line}");
    }
    assert_eq!(latest(&world, &m, "."), head);
}

#[test]
fn a_deleted_file_and_a_deleted_folder_come_back() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("gone.bin", random_bytes(1, 300_000));
    a.write("d/x", "x");
    a.write("d/deep/y", "y");
    a.mkdir("d/empty");
    a.symlink("x", "d/link");
    a.chmod("d/x", 0o755);
    let before = world.sync_all(&[&a, &b]);
    let version = latest(&world, &a, ".");
    b.remove("gone.bin");
    b.remove("d");
    world.sync_all(&[&b, &a]);
    assert_eq!(a.tree().names(), Vec::<String>::new());
    assert_eq!(deeds(&log(&world, &a, &["d/deep/y"])), ["deleted", "created"]);
    restore(&world, &a, &["gone.bin", "--version", &version]);
    restore(&world, &a, &["d", "--version", &version]);
    assert_eq!(before.difference(&a.tree()), None);
    world.sync(&b);
    assert_equal(&[&a, &b]);
    // One file of a folder that is gone: the folders above it come back too.
    a.remove("d");
    world.sync(&a);
    restore(&world, &a, &["d/deep/y", "--version", &version]);
    assert_eq!(a.tree().names(), ["d", "d/deep", "d/deep/y", "gone.bin"]);
}

/// A share with all sorts of changes after a version: that version, the picture then and the picture now.
fn before_and_after(world: &World, a: &Folder) -> (String, Tree, Tree) {
    a.write("top.txt", "top");
    a.write("d/edited", "old");
    a.write("d/moved", "moved");
    a.write("d/away", "away");
    a.write("d/deleted", "deleted");
    a.write("d/swap1", "one");
    a.write("d/swap2", "two");
    a.many("d/sub", 20);
    world.sync(a);
    let then = a.tree();
    let version = latest(world, a, ".");
    a.write("d/edited", "new text");
    a.rename("d/moved", "d/sub/moved");
    a.rename("d/away", "away");
    a.remove("d/deleted");
    a.rename("d/swap1", "d/swap");
    a.rename("d/swap2", "d/swap1");
    a.rename("d/swap", "d/swap2");
    a.rename("d/sub", "d/other");
    a.write("d/created", "created");
    a.write("d/sub", "a file now");
    a.write("top.txt", "top changed");
    world.sync(a);
    (version, then, a.tree())
}

#[test]
fn a_folder_becomes_what_it_was_and_the_restore_is_undone_by_another() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let (version, then, now) = before_and_after(&world, &a);
    let said = restore(&world, &a, &["d", "--version", &version]);
    let mut expected = then.clone();
    // Nothing outside of it changes.
    for outside in ["top.txt", "away"] {
        expected.0.insert(outside.into(), now.0[outside.as_bytes()].clone());
    }
    assert_eq!(expected.difference(&a.tree()), None);
    world.sync(&b);
    assert_equal(&[&a, &b]);
    restore(&world, &b, &["d", "--version", &undo(&said)]);
    assert_eq!(now.difference(&b.tree()), None);
    world.sync(&a);
    assert_equal(&[&a, &b]);
}

#[test]
fn the_whole_share_becomes_what_it_was_and_the_restore_is_undone_by_another() {
    let world = World::new();
    let a = world.folder("a");
    let (version, then, now) = before_and_after(&world, &a);
    let said = restore(&world, &a, &[".", "--version", &version]);
    assert_eq!(then.difference(&a.tree()), None);
    restore(&world, &a, &[".", "--version", &undo(&said)]);
    assert_eq!(now.difference(&a.tree()), None);
    let text = ask(&world, "restore", &a, &[".", "--at", "0"]).code(0).one_line();
    assert!(text.contains("nothing to restore"), "{text}");
}

#[test]
fn a_time_names_the_state_that_was_then() {
    let world = World::new();
    let a = world.folder("a");
    a.write("t", "first");
    world.sync(&a);
    let json = log(&world, &a, &["t", "--json"]);
    let (_, time) = json.split_once("\"time\":\"").unwrap();
    let time = time.split('"').next().unwrap().to_owned();
    // The next commit is in a later millisecond.
    std::thread::sleep(std::time::Duration::from_millis(5));
    a.write("t", "second");
    world.sync(&a);
    restore(&world, &a, &["t", "--at", &time]);
    assert_eq!(a.text("t"), "first");
    let line = ask(&world, "restore", &a, &["t", "--at", "400d"]).code(1).one_line();
    assert!(line.contains("400d ago"), "{line}");
    ask(&world, "restore", &a, &["t", "--at", "2001-01-01 00:00"]).code(1).one_line();
}

#[test]
fn a_copy_goes_beside_and_what_is_there_stays() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("d/x", "old");
    a.write("d/e/y", "y");
    world.sync(&a);
    let version = latest(&world, &a, ".");
    a.write("d/x", "new and longer");
    world.sync(&a);
    let before = a.tree();
    restore(&world, &a, &["d", "--version", &version, "--to", "copies/of/d"]);
    restore(&world, &a, &["d/x", "--version", &version, "--to", "x.old"]);
    restore(&world, &a, &[".", "--version", &version, "--to", "all"]);
    assert_eq!((a.text("copies/of/d/x"), a.text("copies/of/d/e/y")), ("old".into(), "y".into()));
    assert_eq!((a.text("x.old"), a.text("all/d/x")), ("old".into(), "old".into()));
    let mut rest = a.tree();
    rest.0.retain(|path, _| before.0.contains_key(path));
    assert_eq!(before.difference(&rest), None);
    let line =
        ask(&world, "restore", &a, &["d/x", "--version", &version, "--to", "x.old"]).code(1).one_line();
    assert!(line.contains("x.old is there already"), "{line}");
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

#[test]
fn live_clients_get_a_restore_like_any_change_while_they_run() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let (live_a, live_b) = (world.live(&a), world.live(&b));
    a.write("d/t", "one");
    a.write("d/u", "u");
    let then = wait_for(&[&a, &b], DEADLINE, "there", |tree| tree.has("d/u") && tree.has("d/t"));
    let version = latest(&world, &b, ".");
    b.remove("d/u");
    a.write("d/t", "two, a longer one");
    wait_for(&[&a, &b], DEADLINE, "changed", |tree| {
        !tree.has("d/u") && tree.content("d/t").is_some_and(|text| text.contains("two"))
    });
    let said = restore(&world, &a, &["d", "--version", &version]);
    assert!(said.contains("the sync that is running"), "{said}");
    wait_tree(&[&a, &b], &then);
    live_a.stop();
    live_b.stop();
}

#[test]
fn what_was_not_synced_yet_is_not_lost_by_a_restore() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("t", "one");
    world.sync_all(&[&a, &b]);
    let version = latest(&world, &a, "t");
    a.write("t", "two!");
    world.sync_all(&[&a, &b]);
    // In the folder where the restore is asked for: it is synced first, and can be brought back.
    a.write("t", "three, not synced");
    let said = restore(&world, &a, &["t", "--version", &version]);
    assert_eq!((a.text("t"), a.tree().copies()), ("one".into(), vec![]));
    // Elsewhere: two versions meet.
    b.write("t", "an edit of b");
    world.sync(&b);
    world.sync(&a);
    assert_eq!(b.text("t"), "one");
    assert!(b.tree().contents().contains(&"an edit of b".to_owned()));
    assert_equal(&[&a, &b]);
    restore(&world, &a, &["t", "--version", &undo(&said)]);
    assert_eq!(a.text("t"), "three, not synced");
}

#[test]
fn a_dry_run_shows_what_would_change_and_changes_nothing() {
    let world = World::new();
    let a = world.folder("a");
    let (version, _, now) = before_and_after(&world, &a);
    let before = log(&world, &a, &[]);
    for flag in ["-n", "--dry-run"] {
        let shown = ask(&world, "restore", &a, &["d", "--version", &version, flag]).code(0);
        let lines: Vec<&str> = shown.stdout.lines().collect();
        for line in
            ["create  d/deleted", "change  d/edited", "move    d/sub/moved -> d/moved", "delete  d/created"]
        {
            let line = line.replace("d/sub/moved", "d/other/moved");
            assert!(lines.contains(&line.as_str()), "{line} is not in\n{}", shown.stdout);
        }
        assert!(shown.stderr.contains("nothing was changed"), "{}", shown.stderr);
    }
    assert_eq!((log(&world, &a, &[]), now.difference(&a.tree())), (before, None));
}

#[test]
fn history_survives_the_loss_of_the_index() {
    let mut world = World::new();
    let a = world.folder("a");
    let (version, then, _) = before_and_after(&world, &a);
    let before = log(&world, &a, &["d"]);
    world.stop_server();
    std::fs::remove_dir_all(world.store().join("db")).unwrap();
    world.serve();
    assert_eq!(log(&world, &a, &["d"]), before);
    restore(&world, &a, &[".", "--version", &version]);
    assert_eq!(then.difference(&a.tree()), None);
}

#[test]
fn thousands_of_files_come_back_in_one_go() {
    let world = World::new();
    let a = world.folder("a");
    a.many("d/many", 5000);
    world.sync(&a);
    let (then, version) = (a.tree(), latest(&world, &a, "."));
    a.rename("d/many", "elsewhere");
    for n in 0..30 {
        a.write(format!("d/many/new{n}"), "x");
    }
    world.sync(&a);
    a.remove("elsewhere");
    world.once_with(&a, &["--allow-mass-delete"]).code(0);
    restore(&world, &a, &["d", "--version", &version]);
    assert_eq!(then.difference(&a.tree()), None);
    assert_eq!(deeds(&log(&world, &a, &["d/many", "--limit", "5000"])).len(), 5000);
}

#[test]
fn a_folder_emptied_by_mistake_comes_back_although_the_guard_holds() {
    let world = World::new();
    let a = world.folder("a");
    a.many("d", 150);
    world.sync(&a);
    let (then, version) = (a.tree(), latest(&world, &a, "."));
    a.remove("d");
    let line = ask(&world, "restore", &a, &["d", "--version", &version]).code(3).one_line();
    assert!(line.contains("--allow-mass-delete"), "{line}");
    restore(&world, &a, &["d", "--version", &version, "--allow-mass-delete"]);
    assert_eq!(then.difference(&a.tree()), None);
}

/// The deletes that the guard held were sent first, to everybody, and only then was one file restored.
#[test]
fn a_restore_in_a_held_folder_sends_none_of_the_deletes() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.many("d", 150);
    a.many("e", 150);
    a.write("top", "one");
    world.sync(&a);
    let version = latest(&world, &a, "top");
    a.write("top", "two!");
    world.sync_all(&[&a, &b]);
    let before = b.tree();
    for name in ["d", "e", "top"] {
        a.remove(name);
    }
    // A running sync that is held would bring nothing.
    let mut client = world.live(&a);
    client.process.wait_output("--allow-mass-delete");
    let args = ["top", "--version", &version, "--allow-mass-delete"];
    let line = ask(&world, "restore", &a, &args).code(11).one_line();
    assert!(line.contains("stop it first"), "{line}");
    client.stop();
    world.once(&a).code(3);
    restore(&world, &a, &args);
    restore(&world, &a, &["d/file-000007", "--version", &version, "--to", "new/copy", "--allow-mass-delete"]);
    assert_eq!(a.text("top"), "one");
    assert_eq!(a.tree().names(), ["new", "new/copy", "top"]);
    // Held as before; nobody else has lost anything.
    world.once(&a).code(3);
    world.sync(&b);
    assert_eq!(b.tree().names().len(), before.names().len() + 2);
    assert_eq!(b.text("top"), "one");
    // What is restored comes back here too, although it never went anywhere else.
    restore(&world, &a, &["d", "--version", &version, "--allow-mass-delete"]);
    assert_eq!(a.tree().names().len(), 151 + 3);
    world.sync(&b);
    assert_eq!(
        b.tree().names().len(),
        before.names().len() + 2,
        "not even now that the guard would let them go"
    );
}

#[test]
fn with_a_keep_time_of_nothing_only_what_stands_is_kept() {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("t", "one");
    world.sync(&a);
    let version = latest(&world, &a, "t");
    a.write("t", "two!");
    world.sync(&a);
    world.stop_server();
    let mut command = world.command(["serve", "--store", "store", "--keep", "0", "--listen", "127.0.0.1:0"]);
    command.env("DROPBLOCK_KEEP", "30d");
    let mut server = world.start("keep", command);
    server.wait_output("listening on");
    let addr = crate::support::process::listening_on(&server.stdout()).unwrap();
    let server_arg = addr.to_string();
    let at = |more: &[&str]| {
        let mut args = vec![more[0], a.path().to_str().unwrap(), "--server", &server_arg];
        args.extend_from_slice(&more[1..]);
        world.run(args)
    };
    let line = at(&["restore", "t", "--version", &version]).code(1).one_line();
    assert!(line.contains("not kept any more"), "{line}");
    let shown = at(&["log", "t"]).code(0).stdout;
    assert_eq!(shown.matches("(not restorable)").count(), 1, "{shown}");
    server.kill();
    // It is remembered.
    world.serve();
    ask(&world, "restore", &a, &["t", "--version", &version]).code(1).one_line();
}

#[test]
fn bad_questions_get_one_clear_line() {
    let world = World::new();
    let a = world.folder("a");
    a.write("t", "one");
    world.sync(&a);
    let before = a.tree();
    let refused = |command: &str, more: &[&str], code: i32, says: &str| {
        let line = ask(&world, command, &a, more).code(code).one_line();
        assert!(line.contains(says), "{command} {more:?}: {line}");
    };
    refused("log", &["never/was"], 1, "never/was never was in this share");
    refused("restore", &["never", "--version", "1"], 1, "never never was");
    refused("restore", &["t", "--version", "99"], 1, "no version 99; the latest is 1");
    refused("restore", &["t", "--version", "0"], 1, "no version 0");
    refused("restore", &["../t", "--version", "1"], 1, "not inside the folder");
    refused("log", &["/etc/passwd"], 1, "not inside the folder");
    refused("restore", &["t", "--version", "1", "--to", "."], 1, "is there already");
    refused("restore", &["t", "--version", "1", "--to", ".dropblock/x"], 1, "dropblock's own");
    refused("restore", &[".dropblock/version", "--version", "1"], 1, "dropblock's own");
    refused("log", &[".dropblock"], 1, "dropblock's own");
    refused("log", &["--share", "other"], 1, "belongs to the share");
    a.remove("t");
    world.sync(&a);
    refused("restore", &["t", "--version", "2"], 1, "t was not there with version 2");
    a.write("t/x", "a folder now");
    world.sync(&a);
    restore(&world, &a, &["t", "--version", "1"]);
    assert_eq!(a.tree().difference(&before), None);
    for args in [vec!["t"], vec!["t", "--at", "yesterday"], vec!["t", "--at", "1h", "--version", "1"]] {
        ask(&world, "restore", &a, &args).code(2);
    }
    let stranger = world.folder("stranger");
    let line = ask(&world, "log", &stranger, &[]).code(1).one_line();
    assert!(line.contains("never synced"), "{line}");
    assert!(!stranger.has(".dropblock"));
    let line = world.run(["log", "nowhere", "--server", "127.0.0.1:1"]).code(1).one_line();
    assert!(line.contains("does not exist"), "{line}");
    let line = world.run(["log", "a", "--server", &crate::support::world::free_addr().to_string()]);
    assert!(line.code(1).one_line().contains("cannot reach"));
}

#[test]
fn the_log_of_a_deep_tree_with_many_files_at_its_end_is_told_to_the_end() {
    let world = World::new();
    let a = world.folder("a");
    let deep = vec!["d"; 250].join("/");
    a.many(&deep, 1_100);
    world.sync(&a);
    let text = log(&world, &a, &[]);
    assert_eq!(deeds(&text), vec!["created"; 1_350]);
    assert_eq!(log(&world, &a, &[&deep]).lines().count(), 1_101);
    let name = a.tree().names().into_iter().find(|name| !name.ends_with("/d") && name != "d").unwrap();
    a.write(&name, "another");
    world.sync(&a);
    assert_eq!(deeds(&log(&world, &a, &[&name])), ["edited", "created"]);
}

#[test]
fn a_restore_asked_of_another_store_is_refused() {
    let (world, other) = (World::new(), World::new());
    let a = world.folder("a");
    a.write("t", "one");
    world.sync(&a);
    let mut command = world.command(["restore", "a", "t", "--version", "1", "--server"]);
    command.arg(other.addr().to_string());
    let line = world.start("other", command).outcome(DEADLINE).code(1).one_line();
    assert!(line.contains("another store"), "{line}");
}
