//! R2: a server is recorded while it makes its store, takes commits and collects garbage. Then every prefix of what it had its
//! disk do, and what a disk may make of unsynced writes, must open as a store that has everything acknowledged by then.

use crate::campaign::{Point, campaign};
use crate::recording::{Luck, Recording, recorded};
use crate::support::world::World;
use crate::support::{DEADLINE, random_bytes};
use crate::tracer;
use dropblock::model::{BlockHash, Kind, Name};
use dropblock::storage::{Brake, CheckOptions, Journal, Position, Store, StoreOptions};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const ROUNDS: usize = 24;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// What a server did, and what it acknowledged.
struct Recorded {
    world: World,
    top: PathBuf,
    recording: Recording,
    /// When the n-th round was acknowledged.
    acknowledged: Vec<f64>,
}

fn kept(round: usize) -> Vec<u8> {
    random_bytes(round as u64 + 1, 900)
}

fn edited(round: usize) -> Vec<u8> {
    random_bytes(round as u64 + 1000, 700 + round)
}

fn record() -> Recorded {
    let world = World::empty();
    let (folder, log) = (world.folder("a"), world.path().join("recording"));
    let top = world.path().join("recorded store");
    let mut plain = world.serve_command(&top, ANY.into());
    plain.args(["--keep", "0"]);
    let mut server = world.try_serve_as(recorded(&plain, &log)).unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        folder.write(format!("kept-{round}"), kept(round));
        folder.save("edited", edited(round));
        folder.write(format!("gone-{round}"), random_bytes(round as u64 + 2000, 20_000));
        if round > 0 {
            folder.remove(format!("gone-{}", round - 1));
        }
        if round % 6 == 3 {
            folder.save("large", random_bytes(round as u64, 700_000));
        }
        world.once_at(&folder, server.addr, &[]).outcome(DEADLINE).code(0);
        acknowledged.push(now());
        if round % 8 == 7 {
            let gc = ["gc", "--grace", "0", "--sparse", "1", "--store"].map(std::ffi::OsStr::new);
            world.run(gc.into_iter().chain([top.as_os_str()])).code(0);
        }
    }
    tracer::signal(&mut server, Signal::TERM);
    server.process.outcome(DEADLINE).code(0);
    let recording = Recording::read(&log, &top);
    Recorded { world, top, recording, acknowledged }
}

/// Opens a state, and holds it against what was acknowledged.
fn check(store: &Path, rounds: usize) {
    let options = StoreOptions { free_bytes_min: 0, ..StoreOptions::default() };
    let store = Store::open(store, options).unwrap_or_else(|error| panic!("{rounds} rounds: {error}"));
    let (share, _) = run(store.open_share("default")).unwrap();
    let page = run(store.read_since(share, Position::default(), usize::MAX, false)).unwrap();
    let files: BTreeMap<Name, (u64, BlockHash)> = page
        .nodes
        .into_iter()
        .filter_map(|node| node.state)
        .filter_map(|state| match state.kind {
            Kind::File { content, .. } => Some((state.name, (content.size, content.root.hash))),
            _ => None,
        })
        .collect();
    let is = |name: &str, bytes: &[u8]| {
        let name = Name::new(name.as_bytes()).unwrap();
        files.get(&name) == Some(&(bytes.len() as u64, BlockHash::of(bytes)))
    };
    for round in 0..rounds {
        assert!(is(&format!("kept-{round}"), &kept(round)), "kept-{round} was acknowledged and is lost");
    }
    if let Some(last) = rounds.checked_sub(1) {
        assert!((last..ROUNDS).any(|round| is("edited", &edited(round))), "an acknowledged edit is lost");
        let gone = Name::new(format!("gone-{}", last.wrapping_sub(1)).as_bytes()).unwrap();
        assert!(!files.contains_key(&gone), "a deletion is lost");
    }
    let report = store.check(&CheckOptions::default(), &Brake::default()).unwrap();
    assert!(report.is_clean(), "{rounds} rounds: {:?}", report.findings);
    store.close().unwrap();
}

/// The same with the real programs.
fn serve(world: &World, store: &Path, rounds: usize) {
    let mut server = world.try_serve(store, ANY.into()).unwrap();
    let late = world.folder("late");
    world.once_at(&late, server.addr, &[]).outcome(DEADLINE).code(0);
    for round in 0..rounds {
        assert!(
            late.read(format!("kept-{round}")) == kept(round),
            "kept-{round} was acknowledged and is lost"
        );
    }
    std::fs::remove_dir_all(late.path()).unwrap();
    server.process.signal(Signal::TERM);
    server.process.outcome(DEADLINE).code(0);
}

#[test]
fn every_prefix_of_what_a_server_wrote_opens_with_everything_acknowledged() {
    if !tracer::is_there() {
        return;
    }
    let mut held: Option<Recorded> = None;
    let mut slowest = 0.0_f32;
    campaign("prefixes and reorders of a server's writes", 300, |mut point: Point| {
        let recorded = held.take().unwrap_or_else(record);
        let cuts = recorded.recording.cuts();
        // All over the recording before any place a second time, with another luck each time round.
        let number = usize::try_from(point.seed).unwrap();
        let cut = number * 7919 % cuts;
        let luck = [Luck::Everything, Luck::Synced, Luck::Some, Luck::Some][(number + number / cuts) % 4];
        let rounds = recorded.acknowledged.iter().filter(|at| **at < recorded.recording.time(cut)).count();
        let state = recorded.world.path().join("state");
        let _ = std::fs::remove_dir_all(&state);
        recorded.recording.replay(cut, luck, &mut point, &recorded.top, &state);
        let start = Instant::now();
        eprintln!("cut {cut} of {cuts}, {luck:?}: {rounds} rounds");
        if number.is_multiple_of(25) {
            serve(&recorded.world, &state, rounds);
        } else {
            check(&state, rounds);
        }
        slowest = slowest.max(start.elapsed().as_secs_f32());
        held = Some(recorded);
    });
    // Said, not asserted: the machine may be busy. The promise is 10 s.
    eprintln!("prefixes: the slowest state took {slowest:.2} s to open and check");
}
