//! Live clients: what arrives without anyone asking, and how they start and stop.

use crate::support::story::{Mode, Story};
use crate::support::world::{World, free_addr, wait_equal, wait_for, wait_tree, wait_until};
use crate::support::{DEADLINE, random_bytes, skipped};
use rustix::process::Signal;

#[test]
fn changes_go_both_ways_between_two() {
    let story = Story::new(Mode::Live, 2);
    for round in 0..5 {
        for folder in &story.folders {
            folder.write("ping", format!("{round} from {}", folder.name()));
            wait_tree(&story.all(), &folder.tree());
        }
    }
}

#[test]
fn a_burst_of_edits_ends_with_the_last() {
    let story = Story::new(Mode::Live, 3);
    let a = &story.folders[0];
    for i in 0..200 {
        a.write("busy", format!("edit {i}"));
    }
    wait_tree(&story.all(), &a.tree());
    assert_eq!(story.folders[2].text("busy"), "edit 199");
}

#[test]
fn a_burst_of_atomic_saves_ends_with_the_last_and_no_copy() {
    let story = Story::new(Mode::Live, 2);
    let a = &story.folders[0];
    for i in 0..100 {
        a.save("busy", format!("edit {i}"));
    }
    wait_tree(&story.all(), &a.tree());
    assert_eq!(story.settle().copies(), Vec::<String>::new());
}

#[test]
fn files_made_at_once_in_new_folders_are_all_found() {
    let story = Story::new(Mode::Live, 2);
    let a = &story.folders[0];
    for i in 0..100 {
        a.write(format!("d{i}/e/f/file"), format!("{i}"));
    }
    wait_tree(&story.all(), &a.tree());
}

#[test]
fn a_folder_moved_in_from_outside_is_found() {
    let story = Story::new(Mode::Live, 2);
    let outside = story.world.folder("outside");
    outside.many("tree/deep", 50);
    let a = &story.folders[0];
    std::fs::rename(outside.join("tree"), a.join("tree")).unwrap();
    wait_tree(&story.all(), &a.tree());
    std::fs::rename(a.join("tree"), outside.join("tree")).unwrap();
    wait_tree(&story.all(), &a.tree());
}

#[test]
fn a_folder_that_was_renamed_is_still_watched() {
    let story = Story::new(Mode::Live, 2);
    let a = &story.folders[0];
    a.write("d/e/x", "1");
    wait_tree(&story.all(), &a.tree());
    a.rename("d", "renamed");
    wait_tree(&story.all(), &a.tree());
    a.write("renamed/e/x", "2");
    a.write("renamed/e/y", "3");
    wait_tree(&story.all(), &a.tree());
}

#[test]
fn folders_that_arrived_are_watched() {
    let story = Story::new(Mode::Live, 2);
    story.folders[0].write("d/e/x", "1");
    wait_tree(&story.all(), &story.folders[0].tree());
    story.folders[1].write("d/e/y", "2");
    wait_tree(&story.all(), &story.folders[1].tree());
}

#[test]
fn thousands_of_names_in_a_moment_are_all_found() {
    let story = Story::new(Mode::Live, 2);
    let a = &story.folders[0];
    // More than one queue of inotify events, made and renamed faster than anyone reads them.
    for i in 0..2_000 {
        a.write(format!("burst/{}", i % 20), format!("{i}"));
    }
    a.many("bulk", 5_000);
    let want = a.tree();
    wait_for(&story.all(), crate::support::LONG_DEADLINE, "complete", |tree| *tree == want);
}

#[test]
fn edits_on_both_sides_to_different_files_at_the_same_time_all_arrive() {
    let story = Story::new(Mode::Live, 3);
    for i in 0..50 {
        for folder in &story.folders {
            folder.write(format!("{}/{i}", folder.name()), format!("{i}"));
        }
    }
    wait_for(&story.all(), DEADLINE, "complete", |tree| tree.names().len() == 3 * 51);
}

#[test]
fn edits_to_the_same_file_on_both_sides_keep_both() {
    let story = Story::new(Mode::Live, 2);
    story.folders[0].write("x", "base");
    wait_tree(&story.all(), &story.folders[0].tree());
    story.folders[0].write("x", "one side");
    story.folders[1].write("x", "other side");
    // Either the second was made on top of the first after all, or both are kept; the last to be written is never lost.
    let tree =
        story.settle_as("keeping the later edit", |tree| tree.contents().contains(&"other side".to_owned()));
    assert!(tree.copies().len() <= 1, "{:?}", tree.copies());
}

#[test]
fn a_client_may_be_started_before_the_server() {
    let mut world = World::empty();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "x");
    let addr = free_addr();
    let mut early = world.live_at(&a, addr, &[]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(early.process.is_running(), "gave up: {}", early.process.stderr());
    world.serve_again(addr);
    let _late = world.live(&b);
    wait_for(&[&a, &b], DEADLINE, "equal", |tree| tree.has("x"));
}

#[test]
fn changes_made_while_the_client_was_away_arrive_when_it_comes_back() {
    let mut story = Story::new(Mode::Live, 2);
    story.folders[0].write("x", "one");
    story.folders[0].write("gone", "soon");
    wait_tree(&story.all(), &story.folders[0].tree());
    story.apart();
    story.folders[0].write("x", "two");
    story.folders[0].remove("gone");
    story.folders[0].write("new", "new");
    let want = story.folders[0].tree();
    story.together();
    wait_tree(&story.all(), &want);
}

#[test]
fn polling_alone_finds_what_others_sent() {
    // A client that never hears a broadcast is hard to force from outside; a long poll and a short one must both converge.
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let _slow = world.live_at(&a, world.addr(), &["--poll", "3600"]);
    let _fast = world.live_at(&b, world.addr(), &["--poll", "1"]);
    a.write("x", "from a");
    wait_for(&[&a, &b], DEADLINE, "equal", |tree| tree.has("x"));
    b.write("y", "from b");
    wait_for(&[&a, &b], DEADLINE, "equal", |tree| tree.has("y"));
}

#[test]
fn live_and_once_on_different_folders_work_together() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let _live = world.live(&a);
    b.write("x", "x");
    world.sync(&b);
    wait_equal(&[&a, &b], DEADLINE);
    a.write("y", "y");
    wait_until("the live edit reaches the other folder", || {
        world.sync(&b);
        b.has("y")
    });
}

/// The system reports a write for the name it went through, in that name's folder, and for no other name of the file.
#[test]
fn an_edit_through_one_name_of_a_hard_link_is_seen_at_the_others_at_once() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let _clients = (world.live(&a), world.live(&b));
    a.write("one/x", "first");
    a.mkdir("two");
    a.hard_link("one/x", "two/y");
    wait_equal(&[&a, &b], DEADLINE);
    for n in 0..5 {
        a.append("one/x", format!("more {n}"));
        // Well before the regular look at everything.
        wait_equal(&[&a, &b], std::time::Duration::from_secs(20));
    }
}

#[test]
fn sigterm_and_sigint_end_a_client_cleanly() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", random_bytes(3, 300_000));
    for signal in [Signal::TERM, Signal::INT] {
        let mut client = world.live(&a);
        world.sync(&b);
        wait_until("connected", || {
            world.sync(&b);
            b.has("x")
        });
        client.process.signal(signal);
        // 130 is the shell's word for "interrupted".
        client.process.outcome(DEADLINE).code_in(if signal == Signal::TERM { &[0] } else { &[0, 130] });
        b.remove("x");
        world.sync(&b);
        a.write("x", random_bytes(4, 300_000));
    }
    world.sync_all(&[&a, &b]);
}

#[test]
fn sigterm_and_sigint_end_the_server_cleanly_under_live_clients() {
    let mut story = Story::new(Mode::Live, 2);
    let addr = story.world.addr();
    for signal in [Signal::TERM, Signal::INT] {
        let server = story.world.server();
        server.process.signal(signal);
        server.process.outcome(DEADLINE).code_in(if signal == Signal::TERM { &[0] } else { &[0, 130] });
        story.folders[0].write("x", format!("{signal:?}"));
        story.world.serve_again(addr);
        wait_tree(&story.all(), &story.folders[0].tree());
    }
}

#[test]
fn a_client_stopped_in_the_middle_of_a_large_file_leaves_nothing_half() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("big", random_bytes(5, 60_000_000));
    world.sync(&a);
    for _ in 0..5 {
        let mut client = world.live(&b);
        wait_until("started", || b.has(".dropblock"));
        std::thread::sleep(std::time::Duration::from_millis(30));
        client.process.signal(Signal::TERM);
        // On a busy machine the signal may come before the program waits for it.
        let code = client.process.outcome(DEADLINE).code;
        assert!(code.is_none_or(|code| code == 0), "exit {code:?}");
        assert!(!b.has("big") || b.read("big") == a.read("big"), "half a file");
        assert!(b.tree().names().iter().all(|name| name == "big"), "{:?}", b.tree().names());
    }
    world.sync_all(&[&a, &b]);
}

#[test]
fn without_any_watches_changes_are_found_by_looking() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let sync = world.sync_command(&a, world.addr(), &[]);
    let mut limited = std::process::Command::new("unshare");
    let none = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    limited.args(["-Ur", "sh", "-c", none]).arg(sync.get_program()).args(sync.get_args());
    limited.envs(sync.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let probe = std::process::Command::new("unshare").args(["-Ur", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skipped("needs user namespaces");
    }
    let mut live = world.start("without watches", limited);
    live.wait_output("max_user_instances");
    a.write("x", "1");
    let _other = world.live(&b);
    wait_until("found", || b.has("x"));
}
