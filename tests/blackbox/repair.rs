//! Damage and loss in a store that is served: what comes back from clients by itself, and what `check` says afterwards.

use super::maintenance::{change, find, number, packs, packs_bytes, tend};
use crate::support::disk::Folder;
use crate::support::world::{World, assert_equal};
use crate::support::{DEADLINE, LONG_DEADLINE, random_bytes};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The list of its chunks has two levels.
const LARGE_BYTES: usize = 14_000_000;

/// What the server says when everything that versions need is there again.
const WHOLE: &str = "everything is there again";

/// A folder with a large file and small ones, synced to a store whose server is stopped.
fn filled() -> (World, Folder) {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("deep/large.bin", random_bytes(1, LARGE_BYTES));
    for n in 0..20 {
        a.write(format!("small-{n}"), random_bytes(100 + n, 3_000));
    }
    world.sync(&a);
    world.stop_server();
    (world, a)
}

/// Waits for something that takes as long as moving the content.
#[track_caller]
fn wait_long(what: &str, mut accept: impl FnMut() -> bool) {
    let start = Instant::now();
    while !accept() {
        assert!(start.elapsed() < LONG_DEADLINE, "not {what} after {LONG_DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the server itself has found everything again. Nobody runs a check meanwhile: that would drive the repair.
#[track_caller]
fn wait_whole(world: &mut World) {
    wait_long("whole again", || world.server().process.stderr().contains(WHOLE));
}

/// `check` is content, whichever way it is asked.
#[track_caller]
fn assert_clean(world: &World) {
    for args in [&["--quick"][..], &[], &["--repair"]] {
        let clean = tend(world, "check", args).code(0);
        assert!(clean.stdout.is_empty() && clean.stderr.contains("clean"), "{args:?}: {clean:?}");
    }
}

/// Somebody who has nothing gets everything.
#[track_caller]
fn assert_served(world: &World, a: &Folder, name: &str) {
    let other = world.folder(name);
    world.sync(&other);
    assert_equal(&[a, &other]);
}

#[test]
fn a_lost_pack_comes_back_by_itself_with_all_levels_of_chunk_lists() {
    let (mut world, a) = filled();
    fs::remove_file(&packs(&world)[0]).unwrap();
    let lost = tend(&world, "check", &["--quick"]).code(2);
    assert!(lost.stdout.contains("pack 1: missing"), "{}", lost.stdout);
    world.serve();
    let client = world.live(&a);
    wait_whole(&mut world);
    client.stop();
    assert!(packs_bytes(&world) > LARGE_BYTES as u64);
    assert_served(&world, &a, "b");
    assert_clean(&world);
    assert_eq!(number(&tend(&world, "stats", &["--json"]).code(0).stdout, "damaged_blocks"), 0);
    world.stop_server();
    assert_clean(&world);
    // Neither does a start speak of it any more, nor one with a new index.
    for with_index in [true, false] {
        if !with_index {
            fs::remove_dir_all(world.store().join("db")).unwrap();
        }
        world.serve();
        assert_served(&world, &a, if with_index { "c" } else { "d" });
        let said = world.server().process.stderr();
        assert!(!said.contains("missing") && !said.contains("damaged"), "{said}");
        world.stop_server();
    }
    assert_clean(&world);
}

#[test]
fn a_repair_that_is_killed_in_the_middle_goes_on_at_the_next_start() {
    let (mut world, a) = filled();
    fs::remove_file(&packs(&world)[0]).unwrap();
    for bytes in [1, 2_000_000, 8_000_000] {
        world.serve();
        let client = world.live(&a);
        wait_long("begun", || packs_bytes(&world) > bytes);
        world.kill_server();
        client.kill();
    }
    world.serve();
    let client = world.live(&a);
    wait_whole(&mut world);
    client.stop();
    assert_clean(&world);
    assert_served(&world, &a, "b");
    world.stop_server();
    assert_clean(&world);
}

/// What another share names is asked for there and told nobody else; both have it afterwards.
#[test]
fn a_lost_pack_of_two_shares_comes_back_to_each_from_its_own_clients() {
    let (mut world, a) = filled();
    let (other, same) = (world.folder("other"), random_bytes(1, LARGE_BYTES));
    other.write("same.bin", same);
    other.write("own.bin", random_bytes(7, 3_000_000));
    world.serve();
    world.once_with(&other, &["--share", "second"]).code(0);
    world.stop_server();
    fs::remove_file(&packs(&world)[0]).unwrap();
    world.serve();
    // Nobody of the second share is here: what only that has stays lost, and check says so.
    let client = world.live(&a);
    wait_long("back", || packs_bytes(&world) > LARGE_BYTES as u64);
    wait_long("the first share whole", || {
        let found = tend(&world, "check", &["--quick"]).code(2).stdout;
        assert!(found.contains("second: own.bin") && found.contains("pack 1: missing"), "{found}");
        !found.contains("default: ")
    });
    client.stop();
    assert_served(&world, &a, "b");
    let client = world.live_at(&other, world.addr(), &["--share", "second"]);
    wait_whole(&mut world);
    client.stop();
    assert_clean(&world);
    let fresh = world.folder("fresh");
    world.once_with(&fresh, &["--share", "second"]).code(0);
    assert_equal(&[&other, &fresh]);
}

/// Bits of a chunk, of a chunk list and of a record's header, which hides its block: all come back, the pack is written anew
/// without them, and check is content.
#[test]
fn flipped_bits_come_back_and_check_is_content_afterwards() {
    let (mut world, a) = filled();
    let pack = packs(&world)[0].clone();
    let large = a.read("deep/large.bin");
    change(&pack, find(&pack, &large[1000..1200]), |byte| byte ^ 1, 1);
    change(&pack, find(&pack, b"DBMN") + 30, |byte| byte ^ 1, 1);
    let hidden = find(&pack, &a.read("small-3")) - 20;
    change(&pack, hidden, |byte| byte ^ 1, 1);
    tend(&world, "check", &[]).code(2);
    world.serve();
    // A bit that nobody has read yet is found by a check, or by the scrub.
    let found = tend(&world, "check", &[]).code(2);
    assert!(found.stdout.contains("deep/large.bin") && found.stdout.contains("small-3"), "{}", found.stdout);
    let client = world.live(&a);
    wait_whole(&mut world);
    client.stop();
    assert_clean(&world);
    assert!(!pack.exists(), "the damaged pack was written anew");
    // Only what was bent is kept of it.
    let aside = fs::read(world.store().join("packs/00000001.bad")).unwrap();
    assert!(aside.len() < 1_000_000 && aside.starts_with(b"DBLKBENT"), "{}", aside.len());
    assert_served(&world, &a, "b");
    world.stop_server();
    assert_clean(&world);
    world.serve();
    assert_clean(&world);
}

/// A pack that is put back is a pack like any other.
#[test]
fn a_lost_pack_that_comes_back_is_not_thrown_away() {
    let (mut world, a) = filled();
    let (pack, parked) = (packs(&world)[0].clone(), world.path().join("parked"));
    fs::rename(&pack, &parked).unwrap();
    world.serve();
    let client = world.live(&a);
    wait_whole(&mut world);
    client.stop();
    world.stop_server();
    fs::rename(&parked, &pack).unwrap();
    assert_clean(&world);
    world.serve();
    assert_served(&world, &a, "b");
    world.stop_server();
    assert!(pack.exists());
    // When it goes once more, and nothing needs it, nobody minds.
    fs::remove_file(&pack).unwrap();
    assert_clean(&world);
}

/// Its server has the file open, and reads on in it; who looks sees that it has no name any more.
#[test]
fn a_pack_that_vanishes_under_a_running_server_comes_back_too() {
    let (mut world, a) = filled();
    world.serve();
    let client = world.live(&a);
    a.write("late", "later");
    wait_long("sent", || number(&tend(&world, "stats", &["--json"]).code(0).stdout, "files") == 22);
    fs::remove_file(&packs(&world)[0]).unwrap();
    let lost = tend(&world, "check", &["--quick"]).code(2);
    assert!(lost.stdout.contains("pack 1: missing"), "{}", lost.stdout);
    wait_whole(&mut world);
    client.stop();
    assert_clean(&world);
    world.crash_server();
    assert_served(&world, &a, "b");
    assert_clean(&world);
}

/// The same, when nothing is read or written and nobody looks.
#[test]
fn a_pack_that_vanishes_while_nothing_happens_is_missed_by_the_server_itself() {
    let (mut world, a) = filled();
    world.serve();
    let client = world.live(&a);
    a.write("late", "later");
    wait_long("sent", || number(&tend(&world, "stats", &["--json"]).code(0).stdout, "files") == 22);
    fs::remove_file(&packs(&world)[0]).unwrap();
    wait_whole(&mut world);
    client.stop();
    world.crash_server();
    assert_served(&world, &a, "b");
    assert_clean(&world);
}

/// Nothing but the journal says what a share holds. One that vanished right after its first commits was not missed: the
/// store was clean and empty.
#[test]
fn a_journal_that_vanishes_ends_the_server_and_is_missed_from_its_first_commit_on() {
    for writes in [false, true] {
        let mut world = World::new();
        let a = world.folder("a");
        a.write("f", "content");
        world.sync(&a);
        let journals = world.store().join("journal");
        let journal = fs::read_dir(&journals).unwrap().next().unwrap().unwrap().path();
        fs::remove_file(&journal).unwrap();
        if writes {
            a.write("g", "content");
            world.once(&a).code_in(&[1, 30]);
        }
        let ended = world.server().process.outcome(DEADLINE);
        assert!(ended.code(1).stderr.contains(journal.to_str().unwrap()));
        for args in [&["--quick"][..], &[]] {
            let said = tend(&world, "check", args).code(2).stdout;
            assert!(said.contains("is missing") && said.contains("put it back"), "{said}");
        }
        let (store, addr) = (world.store().to_owned(), world.addr());
        assert!(world.try_serve(&store, addr).err().unwrap().stderr.contains("is missing"));
    }
}

/// Somebody keeps another name of the old file, or moves it away: it can still be written, and nobody will look there.
#[test]
fn a_journal_or_pack_that_is_replaced_by_a_copy_is_missed_although_the_old_one_has_a_name() {
    for kind in ["journal", "packs"] {
        let mut world = World::new();
        let a = world.folder("a");
        a.write("f", random_bytes(1, 50_000));
        world.sync(&a);
        let folder = world.store().join(kind);
        let is_one = |path: &PathBuf| path.extension().is_some_and(|e| e == "journal" || e == "pack");
        let one = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).find(is_one).unwrap();
        let aside = world.path().join("aside");
        fs::rename(&one, &aside).unwrap();
        fs::copy(&aside, &one).unwrap();
        a.write("g", random_bytes(2, 50_000));
        let code = world.once(&a).code;
        if kind == "journal" {
            assert_ne!(code, Some(0));
            world.server().process.outcome(DEADLINE).code(1);
        } else {
            wait_long("synced", || world.once(&a).code == Some(0));
            world.stop_server();
        }
        fs::remove_file(&aside).unwrap();
        world.serve();
        world.sync(&a);
        assert_served(&world, &a, "b");
        assert_clean(&world);
    }
}

/// What would be acknowledged would be in a file that the next start refuses.
#[test]
fn a_journal_that_is_cut_or_bent_under_its_server_takes_no_more_commits() {
    for bent in [false, true] {
        let mut world = World::new();
        let a = world.folder("a");
        for n in 0..6 {
            a.write(format!("{n}"), format!("{n}"));
            world.sync(&a);
        }
        let journals = world.store().join("journal");
        let journal = fs::read_dir(&journals).unwrap().next().unwrap().unwrap().path();
        let mut bytes = fs::read(&journal).unwrap();
        let middle = bytes.len() / 2;
        if bent {
            bytes[middle] ^= 1;
            let file = fs::File::options().write(true).open(&journal).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
            let found = tend(&world, "check", &["--quick"]).code(2);
            assert!(found.stdout.contains(".journal"), "{found:?}");
        } else {
            fs::File::options().write(true).open(&journal).unwrap().set_len(middle as u64).unwrap();
            a.write("late", "late");
            world.once(&a).code_in(&[1, 30]);
        }
        let ended = world.server().process.outcome(DEADLINE).code(1);
        assert!(ended.stderr.contains(".journal"), "{ended:?}");
    }
}

/// A server would refuse the store for them.
#[test]
fn a_check_looks_at_the_key_and_the_book_of_devices_too() {
    let (world, _a) = filled();
    assert_clean(&world);
    for name in ["identity", "devices"] {
        let path = world.store().join(name);
        let bytes = fs::read(&path).unwrap();
        let mut bent = bytes.clone();
        let middle = bent.len() / 2;
        bent[middle] ^= 0x80;
        fs::write(&path, bent).unwrap();
        let found = tend(&world, "check", &["--quick"]).code(2);
        assert!(found.stdout.contains(name), "{found:?}");
        fs::write(&path, bytes).unwrap();
    }
    assert_clean(&world);
}

#[test]
fn a_store_with_blocks_and_no_journal_is_not_clean_and_nothing_is_collected() {
    let (mut world, a) = filled();
    fs::remove_dir_all(world.store().join("journal")).unwrap();
    fs::remove_dir_all(world.store().join("db")).unwrap();
    let found = tend(&world, "check", &[]).code(2);
    assert!(found.stdout.contains("put the journals back"), "{found:?}");
    let bytes = packs_bytes(&world);
    assert!(tend(&world, "gc", &["--grace", "0s"]).code(1).stderr.contains("put the journals back"));
    assert_eq!(packs_bytes(&world), bytes);
    // Whoever has something makes a new share of it.
    world.serve();
    let state = a.join(".dropblock/state");
    fs::remove_file(state).unwrap();
    world.once(&a).code_in(&[0, 1]);
}

/// Packs were listed before everything was read, and what came meanwhile counted as missing.
#[test]
fn a_check_beside_clients_that_write_is_content() {
    let (mut world, a) = filled();
    world.serve();
    let b = world.folder("b");
    b.write("large", random_bytes(77, 40_000_000));
    world.sync(&b);
    let client = world.live(&a);
    for round in 0..8 {
        let which = world.store().to_str().unwrap().to_owned();
        let mut check = world.command(["check", "--store", &which]);
        let check = std::thread::spawn(move || check.output().unwrap());
        let mut n = 0;
        while !check.is_finished() {
            n += 1;
            a.write(format!("new-{round}-{n}"), random_bytes(1000 * round + n, 200_000));
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = check.join().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    client.stop();
}

/// What nobody has any more stays on the list, and so does the pack that it was in.
#[test]
fn check_goes_on_saying_so_while_something_is_missing() {
    let (mut world, a) = filled();
    fs::remove_file(&packs(&world)[0]).unwrap();
    world.serve();
    a.remove("small-7");
    let found = tend(&world, "check", &["--repair"]).code(2);
    assert!(found.stdout.contains("pack 1: missing") && found.stdout.contains("small-7"), "{}", found.stdout);
    let client = world.live(&a);
    wait_long("all but one", || {
        let found = tend(&world, "check", &["--quick"]).code(2).stdout;
        !found.contains("large.bin") && !found.contains("small-6")
    });
    client.stop();
    for online in [true, false] {
        if !online {
            world.stop_server();
        }
        for args in [&["--quick"][..], &[], &["--repair"]] {
            let found = tend(&world, "check", args).code(2);
            let names = found.stdout.contains("small-7") && found.stdout.contains("pack 1: missing");
            assert!(names, "{online} {args:?}: {}", found.stdout);
        }
    }
}

#[test]
fn one_time_syncs_bring_back_all_levels_before_they_say_that_they_are_in_sync() {
    let (mut world, a) = filled();
    fs::remove_file(&packs(&world)[0]).unwrap();
    world.serve();
    world.sync(&a);
    tend(&world, "check", &["--quick"]).code(0);
    assert_served(&world, &a, "b");
}

#[test]
fn what_the_server_asks_for_is_sent_before_its_news_replace_or_delete_it_here() {
    for live in [false, true] {
        let mut world = World::new();
        let (a, b) = (world.folder("a"), world.folder("b"));
        let content = |version: u64, n: u64| {
            random_bytes(10 * version + n, [3_000, 50_000, 3_000_000][usize::try_from(n).unwrap()])
        };
        for n in 0..3 {
            a.write(format!("edited-{n}"), content(1, n));
            a.write(format!("deleted-{n}"), content(3, n));
        }
        world.sync(&a);
        world.sync(&b);
        for n in 0..3 {
            a.write(format!("edited-{n}"), content(2, n));
            a.remove(format!("deleted-{n}"));
        }
        world.sync(&a);
        world.stop_server();
        for pack in packs(&world) {
            fs::remove_file(pack).unwrap();
        }
        world.serve();
        // Who has the new versions comes first; the old ones are in one folder only, which is about to change.
        world.sync(&a);
        if live {
            let client = world.live(&b);
            crate::support::world::wait_equal(&[&a, &b], LONG_DEADLINE);
            client.stop();
        } else {
            world.sync(&b);
        }
        assert_equal(&[&a, &b]);
        wait_long("whole", || tend(&world, "check", &["--quick"]).code == Some(0));
        assert_clean(&world);
    }
}
