//! Servers and clients that stop, crash, come back, or come back with less than they had.

use crate::support::disk::Folder;
use crate::support::proxy::Proxy;
use crate::support::random_bytes;
use crate::support::story::{Mode, Story};
use crate::support::world::{World, assert_equal, free_addr, wait_equal, wait_for, wait_tree, wait_until};
use crate::support::{DEADLINE, LONG_DEADLINE};
use rustix::process::Signal;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

/// Copies a store as an administrator does.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn live_clients_outlive_a_server_restart() {
    let mut story = Story::new(Mode::Live, 2);
    let addr = story.world.addr();
    for round in 0..3 {
        story.world.stop_server();
        story.folders[0].write("while away", format!("{round}"));
        story.folders[1].write(format!("other {round}"), "x");
        story.world.serve_again(addr);
        wait_for(&story.all(), DEADLINE, "equal", |tree| {
            tree.content("while away") == Some(round.to_string()) && tree.has(&format!("other {round}"))
        });
        story.folders[1].write("after", format!("{round}"));
        wait_tree(&story.all(), &story.folders[1].tree());
    }
}

#[test]
fn live_clients_outlive_a_server_crash_in_the_middle_of_work() {
    let mut story = Story::new(Mode::Live, 2);
    for round in 0..5 {
        story.folders[0].many(&format!("round-{round}"), 200);
        story.folders[1].write(format!("big-{round}"), random_bytes(round + 1, 8_000_000));
        sleep(Duration::from_millis(40 * round));
        story.world.crash_server();
    }
    wait_for(&story.all(), LONG_DEADLINE, "equal", |tree| tree.names().len() == 5 * 202);
    assert_eq!(story.settle().copies(), Vec::<String>::new());
}

#[test]
fn a_client_killed_at_any_moment_comes_back_and_converges() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.many("d", 300);
    a.write("big", random_bytes(1, 20_000_000));
    for (round, folder) in [&a, &b].into_iter().cycle().take(16).enumerate() {
        let mut run = world.once_start(folder, &[]);
        sleep(Duration::from_millis(15 * round as u64));
        run.kill();
        let names = b.tree().names();
        assert!(names.iter().all(|n| n == "big" || n == "d" || n.starts_with("d/file-")), "{names:?}");
        assert!(!b.has("big") || b.read("big") == a.read("big"), "half a file is visible");
    }
    let tree = world.sync_all(&[&a, &b]);
    assert_eq!(tree.names().len(), 302);
}

#[test]
fn a_client_killed_in_the_middle_of_edits_makes_no_copies() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.many("d", 100);
    world.sync_all(&[&a, &b]);
    for round in 0..8_u64 {
        for i in 0..100 {
            a.write(format!("d/file-{i:06}"), format!("{i} in round {round}"));
        }
        let mut run = world.once_start(&a, &[]);
        sleep(Duration::from_millis(10 * round));
        run.kill();
        world.sync(&a);
        let mut run = world.once_start(&b, &[]);
        sleep(Duration::from_millis(10 * round));
        run.kill();
    }
    let tree = world.sync_all(&[&a, &b]);
    assert_eq!(tree.copies(), Vec::<String>::new());
    assert_eq!(tree.names().len(), 101);
    assert!(tree.contents().iter().all(|content| content.ends_with("round 7")));
}

#[test]
fn a_killed_rename_comes_back_and_converges() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.many("d", 200);
    world.sync_all(&[&a, &b]);
    for round in 0..6_u64 {
        a.rename(if round % 2 == 0 { "d" } else { "e" }, if round % 2 == 0 { "e" } else { "d" });
        for folder in [&a, &b] {
            let mut run = world.once_start(folder, &[]);
            sleep(Duration::from_millis(8 * round));
            run.kill();
        }
    }
    let tree = world.sync_all(&[&a, &b]);
    assert_eq!(tree.names().len(), 201);
    assert!(tree.has("d/file-000000"));
}

/// A client whose commit the server takes without its ever hearing of it: it ends, or loses the connection, and meanwhile
/// the same things are changed again. It must know its own work.
fn unheard(kill: bool) {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let proxy = Proxy::to(world.addr());
    for name in ["edited", "moved", "taken back", "deleted"] {
        a.write(name, "1");
    }
    a.many("d", 3);
    // No poll may wait for an answer in between.
    let mut live = world.live_at(&a, proxy.addr, &["--poll", "600"]);
    let _other = world.live(&b);
    wait_for(&[&a, &b], DEADLINE, "equal", |tree| tree.has("d/file-000002") && tree.has("deleted"));
    // All of it is one change, one commit: of a second one nothing would be sent before the first is answered.
    live.process.signal(Signal::STOP);
    proxy.deaf(true);
    let aside = world.path().join("aside");
    fs::rename(a.join("deleted"), &aside).unwrap();
    a.write("edited", "2");
    a.write("new", "2");
    a.write("f/new", "2");
    a.rename("taken back", "elsewhere");
    a.rename("d", "e");
    live.process.signal(Signal::CONT);
    wait_for(&[&b], DEADLINE, "sent", |tree| {
        tree.content("edited").as_deref() == Some("2")
            && (tree.has("new") && tree.has("f/new") && tree.has("elsewhere") && tree.has("e/file-000002"))
            && !tree.has("deleted")
    });
    let change_again = || {
        a.write("edited", "3");
        a.write("new", "3");
        a.rename("f", "g");
        a.append("g/new", "3");
        a.rename("elsewhere", "taken back");
        a.rename("e", "d");
        fs::rename(&aside, a.join("deleted")).unwrap();
    };
    let _again = if kill {
        live.kill();
        change_again();
        proxy.deaf(false);
        world.live_at(&a, proxy.addr, &[])
    } else {
        change_again();
        proxy.cut_now();
        proxy.deaf(false);
        live
    };
    let want = a.tree();
    wait_tree(&[&b, &a], &want);
    assert_eq!(want.copies(), Vec::<String>::new());
}

#[test]
fn a_client_killed_before_it_heard_of_its_commit_knows_its_own_work() {
    unheard(true);
}

#[test]
fn a_client_cut_off_before_it_heard_of_its_commit_knows_its_own_work() {
    unheard(false);
}

#[test]
fn a_server_killed_again_and_again_keeps_what_it_acknowledged() {
    let mut world = World::new();
    let a = world.folder("a");
    for round in 0..6 {
        a.write(format!("{round}/x"), random_bytes(round, 100_000));
        a.many(&format!("{round}/many"), 30);
        world.sync(&a);
        world.crash_server();
    }
    let b = world.folder("b");
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

#[test]
fn a_server_killed_in_the_middle_of_a_once_makes_it_fail_and_the_next_succeed() {
    let mut world = World::new();
    let addr = world.addr();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.many("d", 500);
    a.write("big", random_bytes(3, 60_000_000));
    for round in 0..4 {
        let mut run = world.once_start(&a, &[]);
        sleep(Duration::from_millis(30 + 60 * round));
        world.kill_server();
        let outcome = run.outcome(DEADLINE);
        // It may have been done already.
        if outcome.code != Some(0) {
            outcome.code_in(&[1, 30]).refusal();
        }
        world.serve_again(addr);
    }
    world.sync_all(&[&a, &b]);
}

#[test]
fn a_lost_index_is_rebuilt() {
    let mut story = Story::new(Mode::Once, 2);
    story.folders[0].many("d", 100);
    story.folders[0].write("big", random_bytes(4, 3_000_000));
    story.settle();
    story.folders[0].rename("d", "renamed");
    story.folders[0].remove("renamed/file-000001");
    let want = story.settle();
    let addr = story.world.addr();
    for crash in [false, true] {
        if crash {
            story.world.kill_server()
        } else {
            story.world.stop_server()
        }
        fs::remove_dir_all(story.world.store().join("db")).unwrap();
        story.world.serve_again(addr);
        let late = story.world.folder(if crash { "y" } else { "x" });
        story.world.sync(&late);
        assert_eq!(want.difference(&late.tree()), None);
        assert_eq!(want.difference(&story.settle()), None, "old clients saw a change");
    }
}

#[test]
fn an_index_full_of_garbage_is_rebuilt() {
    let mut story = Story::new(Mode::Once, 1);
    story.folders[0].many("d", 100);
    let want = story.settle();
    let addr = story.world.addr();
    story.world.kill_server();
    let mut damaged = 0;
    for entry in walk(&story.world.store().join("db")) {
        fs::write(&entry, random_bytes(5, 5_000)).unwrap();
        damaged += 1;
    }
    assert!(damaged > 0);
    story.world.serve_again(addr);
    let late = story.world.folder("late");
    story.world.sync(&late);
    assert_eq!(want.difference(&late.tree()), None);
}

/// All files below a folder.
fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn a_lost_store_deletes_nothing_and_is_filled_again() {
    for mode in [Mode::Once, Mode::Live] {
        let mut story = Story::new(mode, 2);
        story.folders[0].many("d", 150);
        story.folders[0].write("big", random_bytes(6, 2_000_000));
        let want = story.settle_as("complete", |tree| tree.names().len() == 152);
        let addr = story.world.addr();
        story.world.stop_server();
        fs::remove_dir_all(story.world.store()).unwrap();
        story.world.serve_again(addr);
        let late = story.world.folder("late");
        if mode == Mode::Once {
            assert_eq!(want.difference(&story.settle()), None);
            story.world.sync(&late);
        } else {
            let _live = story.world.live(&late);
            wait_for(&[&late, &story.folders[0], &story.folders[1]], DEADLINE, "as before", |tree| {
                *tree == want
            });
        }
        assert_eq!(want.difference(&late.tree()), None);
        assert_eq!(want.difference(&story.settle()), None);
    }
}

#[test]
fn a_rolled_back_store_deletes_nothing_and_gets_back_what_clients_have() {
    for mode in [Mode::Once, Mode::Live] {
        let mut story = Story::new(mode, 2);
        story.folders[0].many("old", 120);
        story.folders[0].write("edited later", "1");
        story.settle_as("first state", |tree| tree.has("edited later") && tree.names().len() == 122);
        let addr = story.world.addr();
        let backup = story.world.path().join("backup");
        story.world.stop_server();
        copy(story.world.store(), &backup);
        story.world.serve_again(addr);
        story.folders[1].many("new", 120);
        story.folders[1].write("edited later", "2");
        story.settle_as("second state", |tree| {
            tree.names().len() == 243 && tree.content("edited later").as_deref() == Some("2")
        });
        story.world.stop_server();
        copy(&backup, story.world.store());
        story.world.serve_again(addr);
        story.folders[0].write("third", "3");
        let tree = story.settle_as("the newest of all", |tree| {
            tree.has("third") && tree.names().iter().filter(|n| n.starts_with("new/")).count() == 120
        });
        assert!(tree.contents().contains(&"2".to_owned()), "{mode:?}: the later edit is lost");
        assert!(tree.names().iter().filter(|n| n.starts_with("old/")).count() == 120, "{mode:?}");
        let late = story.world.folder("late");
        story.world.sync(&late);
        wait_equal(&[&late, &story.folders[0], &story.folders[1]], DEADLINE);
    }
}

#[test]
fn a_second_server_on_the_same_store_is_refused() {
    let world = World::new();
    let refused = world.try_serve(world.store(), ([127, 0, 0, 1], 0).into());
    let Err(outcome) = refused else { panic!("two servers on one store") };
    outcome.code(11).one_line();
    let a = world.folder("a");
    a.write("x", "x");
    world.sync(&a);
}

#[test]
fn a_second_client_on_the_same_folder_is_refused() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "x");
    let _live = world.live(&a);
    let _other = world.live(&b);
    wait_for(&[&a, &b], DEADLINE, "equal", |tree| tree.has("x"));
    world.once(&a).code(11).one_line();
    world.live(&a).process.outcome(DEADLINE).code(11).one_line();
    a.write("y", "y");
    wait_tree(&[&a, &b], &a.tree());
}

#[test]
fn locks_of_killed_processes_are_free() {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("x", "x");
    let live = world.live(&a);
    world.sync(&world.folder("b"));
    live.kill();
    world.crash_server();
    world.sync(&a);
}

#[test]
fn sigterm_with_transfers_in_flight_loses_no_acknowledged_file() {
    let mut world = World::new();
    let addr = world.addr();
    let folders = world.folders(4);
    for (i, folder) in folders.iter().enumerate() {
        folder.many(&format!("{i}"), 200);
        folder.write(format!("big {i}"), random_bytes(i as u64 + 20, 10_000_000));
    }
    let mut runs: Vec<_> = folders.iter().map(|folder| world.once_start(folder, &[])).collect();
    sleep(Duration::from_millis(100));
    world.stop_server();
    let done: Vec<bool> = runs.iter_mut().map(|run| run.outcome(DEADLINE).code == Some(0)).collect();
    world.serve_again(addr);
    let late = world.folder("late");
    world.sync(&late);
    for (i, _) in done.iter().enumerate().filter(|(_, done)| **done) {
        assert!(late.has(format!("big {i}")), "folder {i} was told 0, and its file is not there");
    }
    world.sync_all(&folders.iter().chain([&late]).collect::<Vec<_>>());
}

/// A store may take long to open. Asked to stop meanwhile, the server ends as at any other time.
#[test]
fn a_server_that_is_stopped_while_it_opens_its_store_ends_with_0() {
    let mut world = World::new();
    world.stop_server();
    // Nobody writes into it: who reads it waits for ever.
    let store = Folder::at(world.store());
    store.fifo("keep");
    let addr = free_addr();
    let mut server = world.start("slow", world.serve_command(world.store(), addr));
    wait_until("the port is open", || TcpStream::connect(addr).is_ok());
    server.signal(Signal::TERM);
    server.outcome(DEADLINE).code(0);
    store.remove("keep");
    world.serve();
}
