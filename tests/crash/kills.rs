//! kill -9 at any system call that changes something, of the server or of a client (R3): what was acknowledged is there, what
//! was saved is there, no half file, no name of ours, no copy without a conflict.

use crate::campaign::campaign;
use crate::scenario::{Round, Scenario};
use crate::support::DEADLINE;
use crate::support::disk::Folder;
use crate::support::process::{Outcome, Running};
use crate::support::world::{Server, World, assert_equal, wait_until};
use crate::tracer::{self, Call};
use std::cell::Cell;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A port that is free.
const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// Who dies.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Victim {
    Uploader,
    Downloader,
    LiveUploader,
    LiveDownloader,
    Server,
}

/// How far a traced program came.
struct Came {
    /// The kill took place.
    killed: bool,
}

/// One campaign: the calls of one round without a kill are its points.
fn kills(name: &str, victim: Victim, gate: u64) {
    if !tracer::is_there() {
        return;
    }
    let (mut held, mut calls) = (None, Vec::new());
    let (reached, made) = (Cell::new(0), Cell::new(0_u64));
    campaign(name, gate, |mut point| {
        let mut scenario = held.take().unwrap_or_else(Scenario::new);
        if calls.is_empty() {
            let round = scenario.change(point.seed);
            run(&mut scenario, victim, &round, None);
            scenario.settle(&round);
            calls = tracer::calls(&scenario.world.path().join("trace"));
        }
        let call = tracer::pick(&calls, &mut point);
        made.set(made.get() + 1);
        let round = scenario.change(point.seed);
        let came = run(&mut scenario, victim, &round, Some(&call));
        reached.set(reached.get() + u64::from(came.killed));
        scenario.settle(&round);
        held = Some(scenario);
    });
    let (reached, made) = (reached.get(), made.get());
    eprintln!("{name}: {reached} of {made} were killed; {} different calls", calls.len());
    assert!(reached * 2 >= made, "{name}: most of the kills never took place");
}

fn run(scenario: &mut Scenario, victim: Victim, round: &Round, at: Option<&Call>) -> Came {
    match victim {
        Victim::Uploader => once(scenario, &scenario.a, round, at),
        Victim::Downloader => {
            scenario.world.sync(&scenario.a);
            once(scenario, &scenario.b, round, at)
        }
        Victim::LiveUploader => live(scenario, &scenario.a, &scenario.b, round, at),
        Victim::LiveDownloader => live(scenario, &scenario.b, &scenario.a, round, at),
        Victim::Server => server(scenario, round, at),
    }
}

/// Traced, and killed at the call if there is one.
fn command(scenario: &Scenario, command: &Command, at: Option<&Call>) -> Command {
    let log = scenario.world.path().join("trace");
    at.map_or_else(|| tracer::watched(command, &log), |call| tracer::killed_at(command, &log, call))
}

fn once(scenario: &Scenario, folder: &Folder, round: &Round, at: Option<&Call>) -> Came {
    let world = &scenario.world;
    let plain = world.sync_command(folder, world.addr(), &["--once"]);
    let outcome = world.start("victim", command(scenario, &plain, at)).outcome(DEADLINE);
    round.check_sane(folder);
    // Without a kill it must succeed.
    Came { killed: outcome.code.is_none() || outcome.code(0).code.is_none() }
}

/// Both live; the changes are there when they start, and a second one comes while they run.
fn live(scenario: &Scenario, victim: &Folder, other: &Folder, round: &Round, at: Option<&Call>) -> Came {
    let world = &scenario.world;
    let other_client = world.live(other);
    let plain = world.sync_command(victim, world.addr(), &[]);
    let mut client = world.start("victim", command(scenario, &plain, at));
    let start = Instant::now();
    while client.is_running() && !(victim.tree() == other.tree() && start.elapsed().as_millis() > 150) {
        assert!(start.elapsed() < DEADLINE, "neither killed nor done");
        sleep(Duration::from_millis(20));
    }
    let killed = !client.is_running();
    client.kill();
    round.check_sane(victim);
    other_client.kill();
    round.check_sane(other);
    Came { killed }
}

fn server(scenario: &mut Scenario, round: &Round, at: Option<&Call>) -> Came {
    scenario.world.stop_server();
    let world = &scenario.world;
    let serve = command(scenario, &world.serve_command(world.store(), ANY.into()), at);
    let mut acknowledged = Vec::new();
    let mut killed = true;
    if let Ok(mut server) = world.try_serve_as(serve) {
        for folder in scenario.folders() {
            let tree = folder.tree();
            let client = world.once_at(folder, server.addr, &[]);
            if while_served(client, &mut server).is_some_and(|outcome| outcome.code == Some(0)) {
                acknowledged.push(tree);
            }
            round.check_sane(folder);
        }
        // What it does at the end counts too.
        tracer::signal(&mut server, rustix::process::Signal::TERM);
        killed = server.process.outcome(DEADLINE).code.is_none();
    }
    scenario.world.serve();
    let late = scenario.world.folder("late");
    scenario.world.sync(&late);
    let found = late.tree();
    acknowledged.iter().for_each(|tree| round.check_acknowledged(tree, &found));
    std::fs::remove_dir_all(late.path()).unwrap();
    Came { killed }
}

/// Waits for a client as long as there is a server for it; how it ended, when it ended by itself.
fn while_served(mut client: Running, server: &mut Server) -> Option<Outcome> {
    let mut gone = None;
    while client.is_running() {
        if !server.process.is_running() {
            let gone: &Instant = gone.get_or_insert_with(Instant::now);
            // An answer may be under way; it does not wait for ever.
            if gone.elapsed() > Duration::from_millis(300) {
                client.kill();
                return None;
            }
        }
        sleep(Duration::from_millis(3));
    }
    Some(client.outcome(DEADLINE))
}

#[test]
fn an_uploading_client_killed_at_any_call_converges() {
    kills("kill -9: client uploads", Victim::Uploader, 28);
}

#[test]
fn a_downloading_client_killed_at_any_call_converges() {
    kills("kill -9: client downloads", Victim::Downloader, 32);
}

#[test]
fn a_live_client_killed_at_any_call_of_an_upload_converges() {
    kills("kill -9: live client uploads", Victim::LiveUploader, 8);
}

#[test]
fn a_live_client_killed_at_any_call_of_a_download_converges() {
    kills("kill -9: live client downloads", Victim::LiveDownloader, 12);
}

#[test]
fn a_server_killed_at_any_call_keeps_what_it_acknowledged() {
    kills("kill -9: server", Victim::Server, 32);
}

#[test]
fn a_client_killed_while_it_makes_its_state_starts_anew() {
    if !tracer::is_there() {
        return;
    }
    let (mut held, mut calls) = (None, Vec::new());
    campaign("kill -9: first start of a client", 8, |mut point| {
        let scenario = held.take().unwrap_or_else(Scenario::new);
        let (world, c) = (&scenario.world, scenario.world.folder("c"));
        c.write(format!("own-{}", point.seed), "own");
        let log = world.path().join("trace");
        let plain = world.sync_command(&c, world.addr(), &["--once"]);
        if calls.is_empty() {
            world.start("watched", tracer::watched(&plain, &log)).outcome(DEADLINE).code(0);
            calls = tracer::calls(&log);
            std::fs::remove_dir_all(c.join(".dropblock")).unwrap();
        }
        let call = tracer::pick(&calls, &mut point);
        world.start("victim", tracer::killed_at(&plain, &log, &call)).outcome(DEADLINE);
        wait_until("the lock is free", || world.once(&c).code == Some(0));
        world.sync_all(&[&scenario.a, &scenario.b, &c]);
        assert_equal(&[&scenario.a, &c]);
        assert_eq!(c.tree().copies(), Vec::<String>::new());
        std::fs::remove_dir_all(c.path()).unwrap();
        held = Some(scenario);
    });
}

#[test]
fn a_server_killed_while_it_makes_its_store_starts_anew() {
    if !tracer::is_there() {
        return;
    }
    let (mut held, mut calls) = (None, Vec::new());
    campaign("kill -9: first start of a server", 8, |mut point| {
        let scenario = held.take().unwrap_or_else(Scenario::new);
        let world = &scenario.world;
        let (store, log) = (world.path().join("fresh"), world.path().join("trace"));
        let plain = world.serve_command(&store, ANY.into());
        if calls.is_empty() {
            drop(world.try_serve_as(tracer::watched(&plain, &log)).unwrap());
            calls = tracer::calls(&log);
            std::fs::remove_dir_all(&store).unwrap();
        }
        let call = tracer::pick(&calls, &mut point);
        drop(world.try_serve_as(tracer::killed_at(&plain, &log, &call)));
        let server = loop {
            match world.try_serve(&store, ANY.into()) {
                Ok(server) => break server,
                // The one that was killed may hold its lock for an instant.
                Err(outcome) => assert_eq!(outcome.code, Some(11), "{}", outcome.stderr),
            }
        };
        let c = world.folder("c");
        c.write("x", format!("{}", point.seed));
        world.once_at(&c, server.addr, &[]).outcome(DEADLINE).code(0);
        drop(server);
        std::fs::remove_dir_all(&store).unwrap();
        std::fs::remove_dir_all(c.path()).unwrap();
        held = Some(scenario);
    });
}

#[test]
fn a_client_killed_while_it_deletes_nearly_everything_goes_on_and_is_not_held() {
    if !tracer::is_there() {
        return;
    }
    let (mut held, mut calls) = (None, Vec::new());
    campaign("kill -9: client deletes a folder of 120 files", 8, |mut point| {
        let scenario = held.take().unwrap_or_else(|| {
            let world = World::new();
            let (a, b) = (world.folder("a"), world.folder("b"));
            (world, a, b)
        });
        let (world, a, b) = &scenario;
        a.many("m/deep", 120);
        world.sync_all(&[a, b]);
        a.remove("m");
        world.once_with(a, &["--allow-mass-delete"]).code(0);
        let log = world.path().join("trace");
        let plain = world.sync_command(b, world.addr(), &["--once"]);
        if calls.is_empty() {
            world.start("watched", tracer::watched(&plain, &log)).outcome(DEADLINE).code(0);
            calls = tracer::calls(&log);
        } else {
            let call = tracer::pick(&calls, &mut point);
            world.start("victim", tracer::killed_at(&plain, &log, &call)).outcome(DEADLINE);
        }
        let tree = world.sync_all(&[b, a]);
        assert_eq!(tree.names(), Vec::<String>::new());
        held = Some(scenario);
    });
}
