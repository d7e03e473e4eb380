//! A disk that answers with errors, at any call: of the server (R13) nothing is acknowledged afterwards, it ends with one clear
//! line, and what it acknowledged before is there when it starts again; of a client (R14) no half file, no lost edit.

use crate::campaign::campaign;
use crate::scenario::Scenario;
use crate::support::DEADLINE;
use crate::support::process::Outcome;
use crate::tracer::{self, Call};
use rustix::process::Signal;
use std::cell::Cell;
use std::process::Command;

const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
/// What a disk answers.
const ERRORS: [&str; 2] = ["EIO", "ENOSPC"];
/// Calls by which the store's own files are written: after an error nothing may be acknowledged.
const WRITES: [&str; 3] = ["pwritev", "fdatasync", "fsync"];
/// Calls that go to sockets, pipes and the terminal: not a disk.
const NOT_DISK: [&str; 3] = ["write", "writev", "sendto"];

fn on_disk(calls: Vec<Call>) -> Vec<Call> {
    calls.into_iter().filter(|(name, _)| !NOT_DISK.contains(&name.as_str())).collect()
}

/// It said why it ended, in one line of its own, last; warnings may stand before it.
fn assert_clear(outcome: &Outcome, what: &str) {
    if outcome.stderr.contains("error while loading shared libraries") {
        // The n-th file that a thread opens: the first thread opened those of the system.
        return;
    }
    let ours: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("dropblock: ")).collect();
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(ours.len() == 1 && ours[0] == last, "{what}: not one clear line: {}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
    assert!(outcome.code.is_some_and(|code| code != 0), "{what}: ended with {:?}", outcome.code);
}

#[test]
fn a_server_with_a_failing_disk_acknowledges_nothing_more_and_recovers() {
    if !tracer::is_there() {
        return;
    }
    let (mut held, mut calls) = (None, Vec::<Call>::new());
    let (injected, ended) = (Cell::new(0), Cell::new(0));
    campaign("EIO, ENOSPC: server", 32, |mut point| {
        let mut scenario = held.take().unwrap_or_else(Scenario::new);
        scenario.world.stop_server();
        let round = scenario.change(point.seed);
        let world = &scenario.world;
        let (log, plain) = (world.path().join("trace"), world.serve_command(world.store(), ANY.into()));
        if calls.is_empty() {
            let mut server = world.try_serve_as(tracer::watched(&plain, &log)).unwrap();
            scenario.a.write("first", "first");
            world.once_at(&scenario.a, server.addr, &[]).outcome(DEADLINE).code(0);
            tracer::signal(&mut server, Signal::TERM);
            server.process.outcome(DEADLINE).code(0);
            scenario.a.remove("first");
            calls = on_disk(tracer::calls(&log));
        }
        let (error, call) = (ERRORS[point.below(2) as usize], tracer::pick(&calls, &mut point));
        let serve = tracer::failing_at(&plain, &log, &call, error, point.below(4) == 0);
        let mut acknowledged = Vec::new();
        let what = format!("{error} at {call:?}");
        if std::env::var_os("DROPBLOCK_CRASH_SAY").is_some() {
            eprintln!("{what} {:?}", std::time::SystemTime::now());
        }
        match world.try_serve_as(serve) {
            // Refused at the start: in one line, which names what failed.
            Err(outcome) => assert_clear(&outcome, &what),
            Ok(mut server) => {
                let is_fatal =
                    || error == "EIO" && WRITES.contains(&call.0.as_str()) && tracer::has_injected(&log);
                for (folder, name) in [(&scenario.a, "a"), (&scenario.b, "b"), (&scenario.a, "later")] {
                    let failed_before = is_fatal();
                    if name == "later" {
                        // Something that needs a new commit.
                        folder.save("later", format!("later {}", point.seed));
                    }
                    let tree = folder.tree();
                    let outcome = world.once_at(folder, server.addr, &[]).outcome(DEADLINE);
                    assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
                    if outcome.code == Some(0) {
                        assert!(!failed_before, "{what}: acknowledged after a failed write");
                        acknowledged.push(tree);
                    }
                }
                let must_fail = is_fatal();
                tracer::signal(&mut server, Signal::TERM);
                let outcome = server.process.outcome(DEADLINE);
                assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
                if must_fail || outcome.code != Some(0) {
                    assert_clear(&outcome, &what);
                    ended.set(ended.get() + 1);
                }
            }
        }
        injected.set(injected.get() + u32::from(tracer::has_injected(&log)));
        scenario.world.serve();
        let late = scenario.world.folder("late");
        scenario.world.sync(&late);
        let found = late.tree();
        acknowledged.iter().for_each(|tree| round.check_acknowledged(tree, &found));
        std::fs::remove_dir_all(late.path()).unwrap();
        if scenario.a.has("later") {
            scenario.a.remove("later");
        }
        scenario.settle(&round);
        held = Some(scenario);
    });
    eprintln!("EIO, ENOSPC: server: {} errors took place, {} ended the server", injected.get(), ended.get());
    assert!(injected.get() > 0);
}

/// The command of the side whose disk fails; b has something to get then.
fn once(scenario: &Scenario, side: usize) -> Command {
    if side == 1 {
        scenario.world.sync(&scenario.a);
    }
    scenario.world.sync_command(scenario.folders()[side], scenario.world.addr(), &["--once"])
}

#[test]
fn a_client_with_a_failing_disk_leaves_no_half_file_and_loses_no_edit() {
    if !tracer::is_there() {
        return;
    }
    let (mut held, mut calls) = (None, [const { Vec::<Call>::new() }; 2]);
    let injected = Cell::new(0);
    campaign("EIO, ENOSPC: client", 32, |mut point| {
        let mut scenario = held.take().unwrap_or_else(Scenario::new);
        let side = usize::from(point.below(3) > 0);
        let log = scenario.world.path().join("trace");
        if calls[side].is_empty() {
            let round = scenario.change(point.seed);
            let plain = once(&scenario, side);
            scenario.world.start("watched", tracer::watched(&plain, &log)).outcome(DEADLINE).code(0);
            scenario.settle(&round);
            calls[side] = on_disk(tracer::calls(&log));
        }
        let round = scenario.change(point.seed);
        let (folder, plain) = (scenario.folders()[side], once(&scenario, side));
        let (error, on) = (ERRORS[point.below(2) as usize], point.below(4) == 0);
        let call = tracer::pick(&calls[side], &mut point);
        let failing = if point.below(8) == 0 {
            let state = folder.join(".dropblock/state");
            tracer::failing_write(&plain, &log, &state, 1 + point.below(3) as u32, error)
        } else {
            tracer::failing_at(&plain, &log, &call, error, on)
        };
        let outcome = scenario.world.start("victim", failing).outcome(DEADLINE);
        assert!(!outcome.stderr.contains("panicked"), "{error} at {call:?}: {}", outcome.stderr);
        assert!(outcome.code.is_some(), "{error} at {call:?}: ended by a signal");
        injected.set(injected.get() + u32::from(tracer::has_injected(&log)));
        round.check_sane(folder);
        scenario.settle(&round);
        held = Some(scenario);
    });
    eprintln!("EIO, ENOSPC: client: {} errors took place", injected.get());
    assert!(injected.get() > 0);
}
