//! Storms over real folders: one server, three live clients, three people who change the same few names at once, and
//! processes that are killed meanwhile. After each storm comes quiet, and then all folders must be the same to the byte,
//! every process must run, and no content that a person saved may be lost unless a person destroyed it.
//!
//! What people do follows from a seed; how it meets follows from the machine. `DROPBLOCK_FUZZ_SEED` sets the seed,
//! `DROPBLOCK_FUZZ_SECONDS` how long it goes on (then seeds are fresh each time), `DROPBLOCK_FUZZ_KEEP` a folder that
//! gets a copy of a world that failed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]
// Dice are small numbers.
#![allow(clippy::cast_possible_truncation)]

#[path = "fuzz_live/ledger.rs"]
mod ledger;
#[path = "fuzz_live/person.rs"]
mod person;
mod support;

use ledger::Ledger;
use person::{Dice, Person};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::disk::Folder;
use support::world::{Client, World, wait_equal};

/// How long rounds are begun for when nothing else is asked for.
const SECONDS: u64 = 25;
/// The first seed then.
const SEED: u64 = 1;
/// Where a world that failed is copied to.
const KEEP: &str = "DROPBLOCK_FUZZ_KEEP";
/// Worlds at once.
const WORLDS: usize = 4;
/// Folders must be equal this long after a storm. Below the time of the clients' regular look at everything, which
/// would hide what they missed.
const QUIET: Duration = Duration::from_secs(50);
/// A file that came out of a folder is looked at again, and comes back if it was written to, within this time.
const TRASH_WAIT: Duration = Duration::from_secs(4);
/// Asks for a long run, of so many seconds.
const LONG: &str = "DROPBLOCK_FUZZ_SECONDS";

#[test]
fn storms_leave_all_folders_equal_and_nothing_lost() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number(LONG);
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let first = number("DROPBLOCK_FUZZ_SEED").unwrap_or(if seconds.is_some() { fresh } else { SEED });
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..WORLDS {
            scope.spawn(|| {
                while Instant::now() < until && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let ledger = Ledger::new(seed);
                    if std::panic::catch_unwind(|| Round::new(seed, &ledger).run()).is_err() {
                        failed.store(true, Ordering::Relaxed);
                        ledger.tell();
                    }
                }
            });
        }
    });
    let rounds = next.load(Ordering::Relaxed) - first;
    eprintln!("storms: {rounds} rounds from seed {first}");
    assert!(!failed.load(Ordering::Relaxed), "a round failed; its seed is above");
}

/// A live client; one that says all it does when somebody will look into it.
fn start(world: &World, folder: &Folder) -> Client {
    let more: &[&str] = if std::env::var_os(KEEP).is_some() { &["-vvv"] } else { &[] };
    world.live_at(folder, world.addr(), more)
}

/// One world and its storms.
struct Round<'a> {
    seed: u64,
    dice: Dice,
    // Before the world they live in.
    clients: Vec<Option<Client>>,
    world: World,
    folders: Vec<Folder>,
    ledger: &'a Ledger,
}

impl<'a> Round<'a> {
    fn new(seed: u64, ledger: &'a Ledger) -> Self {
        let world = World::new();
        let folders = world.folders(3);
        let clients = folders.iter().map(|folder| Some(start(&world, folder))).collect();
        Self { seed, dice: Dice::new(seed), clients, world, folders, ledger }
    }

    fn run(mut self) {
        let storms = 1 + self.dice.below(4);
        for storm in 0..storms {
            self.ledger.note(format!("storm {storm} of seed {}", self.seed));
            self.storm(storm);
            self.bring_back();
            self.quiet();
        }
    }

    /// Three people at once, while processes are killed.
    fn storm(&mut self, storm: u64) {
        let kills = self.dice.below(2) == 0;
        let until = Instant::now() + Duration::from_millis(200 + self.dice.below(1800));
        let people: Vec<Person> = self
            .folders
            .iter()
            .map(|folder| {
                let out = self.world.path().join(format!("out-{}", folder.name()));
                std::fs::create_dir_all(&out).unwrap();
                let seed = self.dice.next();
                Person::new(folder, out, seed ^ storm, self.ledger)
            })
            .collect();
        thread::scope(|scope| {
            for person in people {
                scope.spawn(move || person.storm(until));
            }
            while Instant::now() < until {
                sleep(Duration::from_millis(50 + self.dice.below(400)));
                if kills {
                    self.kill();
                }
            }
        });
    }

    fn kill(&mut self) {
        let which = self.dice.below(3) as usize;
        match self.dice.below(6) {
            0 => {
                self.ledger.note("server killed and started again".to_owned());
                self.world.crash_server();
            }
            // Away for the rest of the storm.
            1 => self.kill_client(which),
            2 | 3 => {
                self.kill_client(which);
                self.bring_back();
            }
            _ => {}
        }
    }

    fn kill_client(&mut self, which: usize) {
        if let Some(client) = self.clients[which].take() {
            self.ledger.note(format!("client {} killed", self.folders[which].name()));
            client.kill();
        }
    }

    fn bring_back(&mut self) {
        for (client, folder) in self.clients.iter_mut().zip(&self.folders) {
            if client.is_none() {
                self.ledger.note(format!("client {} started", folder.name()));
                *client = Some(start(&self.world, folder));
            }
        }
    }

    /// Waits until all is equal, and asserts what must hold then.
    fn quiet(&mut self) {
        let start = Instant::now();
        let folders: Vec<&Folder> = self.folders.iter().collect();
        let kept = std::panic::catch_unwind(AssertUnwindSafe(|| {
            wait_equal(&folders, QUIET);
            sleep(Duration::from_millis(300));
            let mut tree = wait_equal(&folders, QUIET);
            self.ledger.note(format!("equal after {:?}: {} names", start.elapsed(), tree.names().len()));
            if !self.ledger.lost(&tree, self.world.path()).is_empty() {
                // What was written to while it was on its way out is in the trash, and comes back when it is looked at.
                sleep(TRASH_WAIT);
                tree = wait_equal(&folders, QUIET);
            }
            self.ledger.lost(&tree, self.world.path())
        }));
        let kept = kept.map_err(|_| ()).and_then(|lost| {
            if lost.is_empty() {
                return Ok(());
            }
            eprintln!("lost contents, seed {}:\n{}", self.seed, lost.join("\n"));
            Err(())
        });
        for (client, folder) in self.clients.iter_mut().zip(&self.folders) {
            let running = client.as_mut().is_some_and(|client| client.process.is_running());
            assert!(running, "the client of {} has ended", folder.name());
        }
        assert!(self.world.server().process.is_running(), "the server has ended");
        if kept.is_err() {
            self.keep();
            panic!("seed {} failed", self.seed);
        }
    }

    /// Leaves a copy of everything for whoever looks into it.
    fn keep(&self) {
        let Some(to) = std::env::var_os(KEEP) else { return };
        let to = std::path::Path::new(&to).join(format!("seed-{}", self.seed));
        let _ = std::process::Command::new("cp").arg("-a").arg(self.world.path()).arg(&to).status();
        let _ = std::fs::write(to.join("operations"), self.ledger.text(usize::MAX));
    }
}
