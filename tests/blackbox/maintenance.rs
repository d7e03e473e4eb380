//! The store's owner at work: `gc`, `check` and `stats`, with and without a running server, and what the server does by
//! itself about damage.

use crate::support::disk::Folder;
use crate::support::process::Outcome;
use crate::support::world::{World, assert_equal, wait_equal, wait_until};
use crate::support::{DEADLINE, LONG_DEADLINE, random_bytes, text};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// A command on the world's store.
pub fn tend(world: &World, command: &str, more: &[&str]) -> Outcome {
    let mut all: Vec<&OsStr> = vec![command.as_ref(), "--store".as_ref(), world.store().as_os_str()];
    all.extend(more.iter().map(OsStr::new));
    world.start(command, world.command(all)).outcome(LONG_DEADLINE)
}

/// The number after `"name":` in a line of JSON.
pub fn number(json: &str, name: &str) -> u64 {
    let (_, rest) = json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {json}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{name} is no number in {json}"))
}

pub fn packs(world: &World) -> Vec<PathBuf> {
    let mut packs: Vec<PathBuf> = fs::read_dir(world.store().join("packs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pack"))
        .collect();
    packs.sort();
    packs
}

pub fn packs_bytes(world: &World) -> u64 {
    packs(world).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

/// From its next start on the server keeps nothing that was replaced.
fn keep_nothing(world: &mut World) {
    let addr = world.addr();
    world.stop_server();
    fs::write(world.store().join("keep"), "keep_ms = \"0\"\n").unwrap();
    world.serve_again(addr);
}

const AT_ONCE: &[&str] = &["--grace", "0", "--json"];

/// Where the bytes of a file lie in a pack: the first place where these stand.
pub fn find(pack: &Path, bytes: &[u8]) -> usize {
    let all = fs::read(pack).unwrap();
    all.windows(bytes.len())
        .position(|window| window == bytes)
        .expect("the bytes are in the pack as they are")
}

pub fn change(path: &Path, at: usize, with: impl Fn(u8) -> u8, len: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + len].iter_mut().for_each(|byte| *byte = with(*byte));
    fs::write(path, bytes).unwrap();
}

#[test]
fn gc_gives_the_space_back_while_clients_write() {
    let mut world = World::new();
    keep_nothing(&mut world);
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("stays", random_bytes(1, 3_000_000));
    for n in 0..8 {
        a.write(format!("goes-{n}"), random_bytes(100 + n, 2_000_000));
    }
    let clients = [world.live(&a), world.live(&b)];
    wait_equal(&[&a, &b], LONG_DEADLINE);
    (0..8).for_each(|n| a.remove(format!("goes-{n}")));
    wait_equal(&[&a, &b], DEADLINE);
    let before = packs_bytes(&world);
    assert!(before > 19_000_000);
    // Both write all the time; each run finds other garbage.
    let mut deleted = 0;
    for round in 0..5u64 {
        a.write("changes", random_bytes(200 + round, 400_000));
        b.write(format!("new-{round}"), random_bytes(300 + round, 300_000));
        let run = tend(&world, "gc", AT_ONCE).code(0);
        deleted += number(&run.stdout, "deleted_blocks");
        a.write(format!("more-{round}"), random_bytes(400 + round, 300_000));
        b.append("new-0", text(round, 1000));
    }
    assert!(deleted > 100, "{deleted}");
    wait_equal(&[&a, &b], LONG_DEADLINE);
    // The last edits left garbage of their own.
    tend(&world, "gc", AT_ONCE).code(0);
    let after = packs_bytes(&world);
    assert!(after < before * 60 / 100, "{before} -> {after}");
    for client in clients {
        client.stop();
    }
    tend(&world, "check", &[]).code(0);
    let c = world.folder("c");
    world.sync(&c);
    assert_equal(&[&a, &b, &c]);
}

#[test]
fn gc_waits_for_the_grace_time_and_a_dry_run_changes_nothing() {
    let mut world = World::new();
    keep_nothing(&mut world);
    let a = world.folder("a");
    a.write("stays", random_bytes(1, 500_000));
    a.write("goes", random_bytes(2, 1_500_000));
    world.sync(&a);
    a.remove("goes");
    world.sync(&a);
    for online in [true, false] {
        if !online {
            world.stop_server();
        }
        let picture =
            || packs(&world).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>();
        let before = picture();
        let plan = tend(&world, "gc", &["--dry-run", "--grace", "0", "--json"]).code(0);
        assert!(number(&plan.stdout, "planned_bytes") > 1_400_000, "{}", plan.stdout);
        assert_eq!(number(&plan.stdout, "freed_bytes"), 0);
        let waits = tend(&world, "gc", &["--json"]).code(0);
        assert_eq!(number(&waits.stdout, "deleted_blocks"), 0);
        assert!(number(&waits.stdout, "waiting_blocks") > 10);
        let people = tend(&world, "gc", &["--dry-run"]).code(0);
        assert!(people.stdout.contains("waiting") && people.stderr.contains("nothing was changed"));
        assert!(picture() == before);
    }
    let done = tend(&world, "gc", AT_ONCE).code(0);
    assert!(number(&done.stdout, "freed_bytes") > 1_400_000, "{}", done.stdout);
    assert!(packs_bytes(&world) < 700_000);
    tend(&world, "check", &[]).code(0);
}

/// A second run was needed, so without a timer the space never came back.
#[test]
fn the_server_finishes_what_a_gc_began() {
    let mut world = World::new();
    keep_nothing(&mut world);
    let a = world.folder("a");
    a.write("stays", random_bytes(1, 500_000));
    a.write("goes", random_bytes(2, 1_500_000));
    world.sync(&a);
    a.remove("goes");
    world.sync(&a);
    let waits = tend(&world, "gc", &["--grace", "1s", "--json"]).code(0);
    assert_eq!(number(&waits.stdout, "deleted_blocks"), 0);
    wait_until("the space is back", || packs_bytes(&world) < 700_000);
    tend(&world, "check", &[]).code(0);
}

#[test]
fn replaced_versions_are_not_garbage_for_thirty_days() {
    let world = World::new();
    let a = world.folder("a");
    a.write("file", random_bytes(1, 500_000));
    world.sync(&a);
    a.remove("file");
    world.sync(&a);
    let done = tend(&world, "gc", AT_ONCE).code(0);
    assert_eq!(number(&done.stdout, "garbage_blocks"), 0, "{}", done.stdout);
}

#[test]
fn a_gc_that_is_killed_at_any_moment_loses_nothing() {
    let mut world = World::new();
    keep_nothing(&mut world);
    let a = world.folder("a");
    for n in 0..12 {
        a.write(format!("{n}"), random_bytes(n, 700_000));
    }
    world.sync(&a);
    for n in (0..12).step_by(2) {
        a.remove(format!("{n}"));
    }
    world.sync(&a);
    world.stop_server();
    for round in 0..6u64 {
        let mut command = world.command(["gc".as_ref(), "--store".as_ref(), world.store().as_os_str()]);
        command.args(AT_ONCE);
        let mut run = world.start("gc", command);
        sleep(Duration::from_millis(7 * round * round));
        run.kill();
        tend(&world, "check", &[]).code(0);
    }
    tend(&world, "gc", AT_ONCE).code(0);
    assert!(packs_bytes(&world) < 4_600_000);
    world.serve();
    let b = world.folder("b");
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

/// A store with two shares, stopped, and the file that will be damaged.
fn damaged(damage: impl Fn(&World, &Folder)) -> (World, Folder) {
    let mut world = World::new();
    let (a, other) = (world.folder("a"), world.folder("other"));
    a.write("deep/in/poem.bin", random_bytes(7, 900_000));
    a.write("well.bin", random_bytes(8, 200_000));
    world.sync(&a);
    other.write("elsewhere", random_bytes(9, 100_000));
    world.once_with(&other, &["--share", "second"]).code(0);
    let clean = tend(&world, "check", &[]).code(0);
    assert!(clean.stdout.is_empty() && clean.stderr.contains("clean"), "{clean:?}");
    world.stop_server();
    tend(&world, "check", &["--quick"]).code(0);
    damage(&world, &a);
    (world, a)
}

fn bytes_of_poem(a: &Folder) -> Vec<u8> {
    // In the middle, so that no cut falls into it.
    a.read("deep/in/poem.bin")[1000..1200].to_vec()
}

#[test]
fn check_lists_the_file_whose_block_has_a_flipped_bit() {
    let (world, _) = damaged(|world, a| {
        let pack = &packs(world)[0];
        change(pack, find(pack, &bytes_of_poem(a)), |byte| byte ^ 1, 1);
    });
    let found = tend(&world, "check", &[]).code(2);
    assert!(found.stdout.contains("default: deep/in/poem.bin: current version"), "{}", found.stdout);
    assert!(!found.stdout.contains("well.bin") && !found.stdout.contains("elsewhere"), "{}", found.stdout);
    assert!(found.stdout.lines().any(|line| line.starts_with("block ")));
    found.one_line();
    // Nobody is there to ask: repair adds nothing, and takes nothing away.
    let before = fs::read(&packs(&world)[0]).unwrap();
    tend(&world, "check", &["--repair"]).code(2);
    assert!(fs::read(&packs(&world)[0]).unwrap() == before);
    let json = tend(&world, "check", &["--json"]).code(2);
    assert!(json.stdout.contains("\"path\":\"deep/in/poem.bin\""), "{}", json.stdout);
    assert!(json.stdout.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
}

#[test]
fn check_lists_the_file_that_lies_in_a_zeroed_page() {
    let (world, _) = damaged(|world, a| {
        let pack = &packs(world)[0];
        change(pack, find(pack, &bytes_of_poem(a)) / 4096 * 4096, |_| 0, 4096);
    });
    let found = tend(&world, "check", &[]).code(2);
    assert!(found.stdout.contains("default: deep/in/poem.bin: current version"), "{}", found.stdout);
}

#[test]
fn check_lists_everything_in_a_dropped_pack_also_when_quick() {
    let (world, _) = damaged(|world, _| fs::remove_file(&packs(world)[0]).unwrap());
    for args in [&[][..], &["--quick"]] {
        let found = tend(&world, "check", args).code(2);
        for path in ["default: deep/in/poem.bin", "default: well.bin", "second: elsewhere", "pack 1: missing"]
        {
            assert!(found.stdout.contains(path), "{path} is not in\n{}", found.stdout);
        }
    }
}

#[test]
fn check_names_a_damaged_journal_and_the_server_refuses_it() {
    let mut world = World::new();
    let a = world.folder("a");
    for n in 0..4 {
        a.write(format!("{n}"), "x");
        world.sync(&a);
    }
    world.stop_server();
    let journal = fs::read_dir(world.store().join("journal")).unwrap().next().unwrap().unwrap().path();
    change(&journal, 150, |byte| byte ^ 1, 1);
    let found = tend(&world, "check", &[]).code(2);
    assert!(found.stdout.contains(".journal is damaged at byte"), "{}", found.stdout);
    let refused = world.try_serve(world.store(), ([127, 0, 0, 1], 0).into()).err().expect("refused").code(1);
    let line = refused.one_line();
    assert!(line.contains("is damaged at byte") && line.contains("put back a copy"), "{line}");
}

/// Damages the poem and a whole manifest, starts the server, and waits until clients have brought everything back.
fn repaired_by(client: impl Fn(&World, &Folder)) {
    let (mut world, a) = damaged(|world, a| {
        let pack = &packs(world)[0];
        change(pack, find(pack, &bytes_of_poem(a)), |byte| byte ^ 1, 1);
        change(pack, find(pack, b"DBMN") + 30, |byte| byte ^ 1, 1);
    });
    world.serve();
    // Finds it, and asks for it from now on.
    tend(&world, "check", &[]).code(2);
    client(&world, &a);
    // Everything can be read again, by somebody who has nothing.
    let b = world.folder("b");
    world.sync(&b);
    assert_equal(&[&a, &b]);
    // The bent bytes still stand in the pack; no version needs them.
    let after = tend(&world, "check", &[]);
    assert!(!after.stdout.contains("version") && !after.stdout.contains("block "), "{}", after.stdout);
    // The next rewrite of the pack leaves them behind.
    tend(&world, "gc", &["--grace", "0", "--sparse", "1"]).code(0);
    tend(&world, "check", &[]).code(0);
}

#[test]
fn a_connected_client_repairs_damaged_blocks() {
    repaired_by(|world, a| {
        let client = world.live(a);
        wait_until("repaired", || !tend(world, "check", &[]).stdout.contains("version"));
        client.stop();
    });
}

#[test]
fn a_client_that_syncs_once_repairs_damaged_blocks() {
    repaired_by(|world, a| drop(world.sync(a)));
}

#[test]
fn a_lost_pack_is_noticed_at_the_start_and_comes_back_from_a_client() {
    let (mut world, a) = damaged(|world, _| fs::remove_file(&packs(world)[0]).unwrap());
    world.serve();
    let client = world.live(&a);
    wait_until("repaired", || {
        let found = tend(&world, "check", &["--quick"]).stdout;
        !found.contains("default: ") && found.contains("second: elsewhere")
    });
    client.stop();
    let b = world.folder("b");
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

#[test]
fn stats_count_what_is_there_with_and_without_a_server() {
    let mut world = World::new();
    let a = world.folder("a");
    let poem = random_bytes(1, 1_000_000);
    a.write("one", &poem);
    a.write("two", &poem);
    let prose = &text(3, 300_000)[..300_000];
    a.write("sub/text", prose);
    a.symlink("one", "link");
    world.sync(&a);
    let first = tend(&world, "stats", &["--json"]).code(0).stdout;
    assert_eq!(number(&first, "logical_bytes"), 2_300_000);
    assert_eq!((number(&first, "files"), number(&first, "folders"), number(&first, "symlinks")), (3, 1, 1));
    let unique = number(&first, "unique_bytes");
    assert!((1_300_000..1_320_000).contains(&unique), "{first}");
    assert_eq!(number(&first, "dedup_permille"), 2_300_000_000 / unique);
    assert!(number(&first, "compression_permille") > 1050, "{first}");
    assert_eq!(number(&first, "stored_bytes"), packs_bytes(&world));
    assert_eq!((number(&first, "history_stored_bytes"), number(&first, "garbage_bytes")), (0, 0));
    a.remove("sub");
    world.sync(&a);
    let second = tend(&world, "stats", &["--json"]).code(0).stdout;
    assert_eq!(number(&second, "logical_bytes"), 2_000_000);
    assert!(number(&second, "history_stored_bytes") > 10_000, "{second}");
    keep_nothing(&mut world);
    let third = tend(&world, "stats", &["--json"]).code(0).stdout;
    assert_eq!(number(&third, "garbage_bytes"), number(&second, "history_stored_bytes"), "{third}");
    world.stop_server();
    assert_eq!(tend(&world, "stats", &["--json"]).code(0).stdout, third);
    let people = tend(&world, "stats", &[]).code(0).stdout;
    assert!(people.contains("share default: 2.0 MB, 2 files"), "{people}");
    assert!(people.contains("dedup") && people.contains("compression"), "{people}");
    for (keep_ms, said) in
        [(0u64, "(kept 0 seconds)"), (3_600_000, "(kept 1 hour)"), (864_000_000, "(kept 10 days)")]
    {
        fs::write(world.store().join("keep"), format!("keep_ms = \"{keep_ms}\"\n")).unwrap();
        let people = tend(&world, "stats", &[]).code(0).stdout;
        assert!(people.contains(said), "{people}");
    }
}

/// One damaged chunk list of a replaced version: everything else can be counted.
#[test]
fn stats_say_what_they_cannot_count() {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("large", random_bytes(7, 5_000_000));
    world.sync(&a);
    a.write("large", random_bytes(8, 900));
    world.sync(&a);
    world.stop_server();
    let whole = tend(&world, "stats", &["--json"]).code(0).stdout;
    assert!(whole.contains("\"garbage_bytes\":0") && number(&whole, "unread_history") == 0, "{whole}");
    let pack = &packs(&world)[0];
    change(pack, find(pack, b"DBMN") + 30, |byte| byte ^ 1, 1);
    fs::write(pack.with_extension("bad"), [1; 1234]).unwrap();
    let part = tend(&world, "stats", &["--json"]).code(0).stdout;
    assert!(part.contains("\"garbage_bytes\":null") && part.contains("\"garbage_blocks\":null"), "{part}");
    assert_eq!((number(&part, "unread_current"), number(&part, "unread_history")), (0, 1));
    for name in ["logical_bytes", "unique_bytes", "stored_bytes", "blocks", "current_stored_bytes"] {
        assert_eq!(number(&part, name), number(&whole, name), "{name}");
    }
    assert!(number(&part, "history_stored_bytes") < number(&whole, "history_stored_bytes"));
    assert_eq!((number(&part, "aside_files"), number(&part, "aside_bytes")), (1, 1234));
    let people = tend(&world, "stats", &[]).code(0).stdout;
    for said in
        ["history    at least ", "garbage    unknown", "chunk lists of 1 version ", "set aside    1.2 KB"]
    {
        assert!(people.contains(said), "{said} is not in\n{people}");
    }
}

#[test]
fn commands_without_a_store_or_beside_another_command_say_so() {
    let world = World::empty();
    for command in ["gc", "check", "stats"] {
        let line = tend(&world, command, &[]).code(10).one_line();
        assert!(line.contains("there is no store"), "{line}");
        assert!(!world.store().exists());
    }
    let world = World::new();
    tend(&world, "gc", &["--grace", "soon"]).code(2);
}

#[test]
fn a_store_with_a_very_long_path_can_be_tended_while_it_is_served() {
    let mut world = World::empty();
    let deep = world.path().join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    world.set_store(deep.join("store"));
    world.serve();
    let a = world.folder("a");
    a.write("file", "x");
    world.sync(&a);
    assert_eq!(number(&tend(&world, "stats", &["--json"]).code(0).stdout, "files"), 1);
    world.crash_server();
    assert_eq!(number(&tend(&world, "stats", &["--json"]).code(0).stdout, "files"), 1);
    world.kill_server();
    assert_eq!(number(&tend(&world, "stats", &["--json"]).code(0).stdout, "files"), 1);
}
