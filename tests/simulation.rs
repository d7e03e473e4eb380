//! The real client and the real server in one thread, with a network, disks and clocks that a seed makes go wrong
//! (docs/adr/0007-simulation.md). One command replays a seed:
//!
//! ```text
//! DROPBLOCK_SIM_SEED=123 cargo test --test simulation -- --nocapture replay
//! DROPBLOCK_SIM_SEED=1234 cargo test --test simulation -- --nocapture shrink
//! DROPBLOCK_SIM_HOURS=2 cargo test --release --test simulation -- --nocapture long_run
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_possible_truncation
)]

#[path = "simulation/clock.rs"]
mod clock;
#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/machine.rs"]
mod machine;
#[path = "simulation/net.rs"]
mod net;
#[path = "simulation/saves.rs"]
mod saves;
#[path = "simulation/smaller.rs"]
mod smaller;
#[path = "simulation/user.rs"]
mod user;
#[path = "simulation/world.rs"]
mod world;

use world::Story;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seeds that once failed, with what they found.
const REGRESSIONS: &str = include_str!("data/simulation-seeds.txt");
/// Fixed seeds of every run: so many from 1 on, and as many from [`world::WIDE`] on.
const FIXED: u64 = 500;
/// Fixed seeds that may fail. Zero for good.
const OPEN_MAX: usize = 0;
/// Parts of a failing seed that are run to find a small one.
const SHRINK_RUNS: usize = 400;
/// Seeds that are run twice.
const TWICE: u64 = 50;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

fn command(seed: u64) -> String {
    command_of(&Story::of(seed))
}

fn command_of(story: &Story) -> String {
    let mut parts = vec![format!("DROPBLOCK_SIM_SEED={}", story.seed)];
    parts.extend(story.steps.map(|steps| format!("DROPBLOCK_SIM_STEPS={steps}")));
    parts.extend(story.machines.map(|machines| format!("DROPBLOCK_SIM_MACHINES={machines}")));
    if !story.without.is_empty() {
        let steps: Vec<String> = story.without.iter().map(u64::to_string).collect();
        parts.push(format!("DROPBLOCK_SIM_WITHOUT={}", steps.join(",")));
    }
    format!("{} cargo test --test simulation -- --nocapture replay", parts.join(" "))
}

/// What many runs came to.
#[derive(Debug, Default)]
struct Sum {
    runs: u64,
    saves: usize,
    frames: u64,
    slowest: (u128, u64),
    /// The same, of runs in which all changes were reported; and how many of those took more than the 10 s of R6.
    slowest_told: (u128, u64),
    late: usize,
    failed: Vec<(u64, Vec<String>)>,
}

/// Runs seeds on as many threads as there are cores, until `next` has none.
fn run_all(next: impl Fn() -> Option<u64> + Send + Sync) -> Sum {
    let sum = Mutex::new(Sum::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    let ended = std::panic::catch_unwind(|| world::run(&Story::of(seed), false));
                    let mut sum = sum.lock().unwrap();
                    sum.runs += 1;
                    match ended {
                        Ok(ended) => {
                            sum.saves += ended.saves;
                            sum.frames += ended.frames;
                            sum.slowest = sum.slowest.max((ended.converged_ms, seed));
                            if !ended.was_deaf {
                                sum.slowest_told = sum.slowest_told.max((ended.converged_ms, seed));
                                sum.late += usize::from(ended.converged_ms > 10_000);
                            }
                            if !ended.violations.is_empty() {
                                sum.failed.push((seed, ended.violations));
                            }
                        }
                        Err(_) => sum.failed.push((seed, vec!["panic".to_owned()])),
                    }
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

fn check(what: &str, start: Instant, mut sum: Sum, open_max: usize) {
    sum.failed.sort();
    let worst = sum.failed.first().map_or("-".to_owned(), |(seed, _)| seed.to_string());
    eprintln!(
        "| {what} | {} runs, {} saves, {} frames, {:.0} s | violations: {} | worst seed: {worst} | slowest to be equal: {} ms (seed {}) |",
        sum.runs,
        sum.saves,
        sum.frames,
        start.elapsed().as_secs_f64(),
        sum.failed.len(),
        sum.slowest.0,
        sum.slowest.1,
    );
    let (ms, seed) = sum.slowest_told;
    eprintln!(
        "with all changes reported: {} took more than 10 s, the slowest {ms} ms (seed {seed})",
        sum.late
    );
    for (seed, violations) in sum.failed.iter().take(10) {
        eprintln!("seed {seed}: {}", violations.iter().take(3).cloned().collect::<Vec<_>>().join("\n    "));
    }
    for (seed, _) in &sum.failed {
        eprintln!("{}", command(*seed));
    }
    if let Some((seed, _)) = sum.failed.first()
        && sum.failed.len() > open_max
    {
        let (story, tried) = smaller::smallest(&Story::of(*seed), SHRINK_RUNS);
        eprintln!("smallest of {tried} parts of seed {seed} that fail:\n{}", command_of(&story));
        panic!("{} of {} seeds failed; replay with\n{}", sum.failed.len(), sum.runs, command(*seed));
    }
}

fn counted(seeds: Vec<u64>) -> impl Fn() -> Option<u64> + Send + Sync {
    let at = AtomicU64::new(0);
    move || seeds.get(usize::try_from(at.fetch_add(1, Ordering::Relaxed)).unwrap()).copied()
}

#[test]
fn seeds_that_once_failed_and_fixed_ones_and_a_fresh_one_lose_nothing_and_converge() {
    let start = Instant::now();
    let regressions = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    let mut seeds: Vec<u64> =
        regressions.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    let fixed = env("DROPBLOCK_SIM_SEEDS").unwrap_or(FIXED);
    seeds.extend((1..=fixed).chain(world::WIDE..world::WIDE + fixed));
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("fresh seed: {}", command(fresh));
    seeds.push(fresh);
    check("simulation", start, run_all(counted(seeds)), OPEN_MAX);
}

#[test]
fn the_same_seed_twice_has_the_same_trace() {
    for seed in (1..=TWICE / 2).chain(world::WIDE..world::WIDE + TWICE / 2) {
        let story = Story::of(seed);
        let (one, two) = (world::run(&story, false), world::run(&story, false));
        let differs = one.trace.lines().into_iter().zip(two.trace.lines()).find(|(a, b)| a != b);
        assert_eq!(
            one.trace.hash(),
            two.trace.hash(),
            "seed {seed} differs at {differs:?}\n{}",
            command(seed)
        );
    }
}

/// Runs the seed in `DROPBLOCK_SIM_SEED` aloud.
#[test]
fn replay() {
    let Some(seed) = env("DROPBLOCK_SIM_SEED") else { return };
    // RUST_LOG=trace tells what the programs thought.
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_default_env() {
        let log =
            tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr);
        log.init();
    }
    let number = |name: &str| env(name).map(|n| usize::try_from(n).unwrap());
    let without = std::env::var("DROPBLOCK_SIM_WITHOUT").unwrap_or_default();
    let story = Story {
        seed,
        steps: env("DROPBLOCK_SIM_STEPS"),
        without: without.split(',').filter_map(|step| step.trim().parse().ok()).collect(),
        machines: number("DROPBLOCK_SIM_MACHINES"),
    };
    let ended = world::run(&story, true);
    eprintln!("equal after {} ms, trace {:016x}", ended.converged_ms, ended.trace.hash());
    assert!(ended.violations.is_empty(), "seed {seed}:\n{}", ended.violations.join("\n"));
}

/// Looks for the smallest part of the seed in `DROPBLOCK_SIM_SEED` that fails.
#[test]
fn shrink() {
    let Some(seed) = env("DROPBLOCK_SIM_SEED") else { return };
    let (story, tried) = smaller::smallest(&Story::of(seed), SHRINK_RUNS);
    eprintln!("{tried} parts were told; the smallest that fails:\n{}", command_of(&story));
}

/// A story that fails when a certain step is told, and only then, comes down to that step.
#[test]
fn a_failing_story_comes_down_to_what_makes_it_fail() {
    let fails = |story: &Story| story.steps.is_none_or(|steps| steps > 17) && !story.without.contains(&17);
    let (story, _) = smaller::smallest_by(&Story::of(world::WIDE), (60, 3), 1000, fails);
    assert_eq!((story.steps, story.machines, story.without), (Some(18), Some(1), (0..17).collect()));
    // Before, a story can only be cut short.
    let (story, _) = smaller::smallest_by(&Story::of(7), (60, 3), 1000, fails);
    assert_eq!((story.steps, story.machines, story.without.len()), (Some(18), None, 0));
}

/// Runs fresh seeds for `DROPBLOCK_SIM_HOURS`.
#[test]
fn long_run() {
    let Ok(hours) = std::env::var("DROPBLOCK_SIM_HOURS") else { return };
    let time = Duration::from_secs_f64(hours.parse::<f64>().expect("a number of hours") * 3600.0);
    let base = env("DROPBLOCK_SIM_BASE")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() * 1_000_000);
    let (start, at) = (Instant::now(), Arc::new(AtomicU64::new(base)));
    let next = move || (start.elapsed() < time).then(|| at.fetch_add(1, Ordering::Relaxed));
    check("simulation, long run", start, run_all(next), 0);
}
