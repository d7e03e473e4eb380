//! One server, a few machines, and everything that may go wrong between them, in the order that a seed decides.

use super::dice::{Dice, Trace};
use super::machine::{Machine, Strike};
use super::net::Network;
use super::saves::Saves;
use super::user::Tree;
use dropblock::folder::EntryKind;
use dropblock::folder::memory::Failure;
use dropblock::model::StoreId;
use dropblock::server;
use dropblock::storage::MemoryStore;
use dropblock::work::Work;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

/// After the faults stop, all machines are equal within this time…
const CONVERGE: Duration = Duration::from_secs(40);
/// …or this, when changes went unreported: then a rescan finds them.
const CONVERGE_DEAF: Duration = Duration::from_secs(110);
const YEAR_NS: i64 = 365 * 24 * 3600 * 1_000_000_000;

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub trace: Trace,
    pub violations: Vec<String>,
    /// From the end of the faults until all were equal.
    pub converged_ms: u128,
    pub saves: usize,
    pub frames: u64,
}

struct World {
    dice: Dice,
    trace: Trace,
    saves: Saves,
    net: Network,
    machines: Vec<Machine>,
    store: Arc<MemoryStore>,
    store_id: u8,
    server: Option<JoinHandle<()>>,
    /// An older copy of the store.
    backup: Option<(Arc<MemoryStore>, u8)>,
    calm: Calm,
    was_deaf: bool,
    /// Folders as they were shown last, when people look on.
    shown: Vec<Tree>,
    aloud: bool,
}

/// Which faults a seed has. Some seeds have few, so that each is also met without the others.
#[derive(Debug)]
struct Calm {
    weights: [u64; 16],
}

/// Runs one seed in a runtime of its own.
pub fn run(seed: u64, aloud: bool) -> Ended {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let trace = Trace::new(aloud);
    let told = trace.clone();
    let (violations, converged_ms, saves, frames) = runtime.block_on(async move {
        let mut world = World::new(seed, told, aloud);
        world.live().await;
        world.settle().await
    });
    Ended { trace, violations, converged_ms, saves, frames }
}

impl World {
    fn new(seed: u64, trace: Trace, aloud: bool) -> Self {
        let mut dice = Dice::new(seed);
        let clients = 1 + dice.weighted(&[1, 6, 6, 2, 1]);
        let net = Network::new(clients, dice.split(), trace.clone());
        let saves = Saves::default();
        let machines = (0..clients).map(|n| Machine::new(n, &net, &mut dice, &saves, &trace)).collect();
        let store = Arc::new(MemoryStore::new(dice.bytes32()));
        //                 act  on  mid partition reset hole slow kill power midkill midpower server store disk clock deaf
        let mut weights = [60, 20, 16, 6, 4, 2, 3, 3, 2, 4, 3, 4, 1, 3, 3, 2];
        for weight in &mut weights[2..] {
            if dice.one_in(3) {
                *weight = 0;
            }
        }
        trace.say(&format!("seed {seed}: {clients} machines, weights {weights:?}"));
        Self {
            dice,
            trace,
            saves,
            net,
            machines,
            store,
            store_id: 1,
            server: None,
            backup: None,
            calm: Calm { weights },
            was_deaf: false,
            shown: vec![Tree::new(); clients],
            aloud,
        }
    }

    fn serve(&mut self) {
        if self.server.is_some() {
            return;
        }
        self.trace.say("the server starts");
        let mut config = server::Config::new(StoreId::from_bytes([self.store_id; 16]), self.dice.bytes32());
        config.work = Work::Inline;
        let (listener, store) = (self.net.listen(), self.store.clone());
        self.server = Some(tokio::spawn(async move {
            let ended = server::run(listener, store.clone(), store, config, std::future::pending()).await;
            panic!("the server ended: {ended:?}");
        }));
    }

    async fn stop_server(&mut self) {
        let Some(server) = self.server.take() else { return };
        self.trace.say("the server loses power");
        assert!(!server.is_finished(), "{:?}", server.await);
        server.abort();
        let _ = server.await;
        self.net.server_gone();
        self.store.crash();
    }

    /// The time of users and faults.
    async fn live(&mut self) {
        self.serve();
        for machine in &mut self.machines {
            machine.start();
        }
        for _ in 0..30 + self.dice.below(90) {
            let event = self.dice.weighted(&self.calm.weights);
            self.happen(event).await;
            let pause = match self.dice.below(12) {
                0..=4 => self.dice.below(30),
                5..=9 => self.dice.below(400),
                10 => 1_000,
                _ => self.dice.below(4_000),
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            for machine in &mut self.machines {
                machine.go_on();
                machine.tend().await;
            }
            self.show();
        }
    }

    async fn happen(&mut self, event: usize) {
        let number = self.dice.index(self.machines.len());
        match event {
            0 => self.machines[number].act(),
            1 => self.revive(number),
            2 => {
                let calls = 1 + u32::try_from(self.dice.below(200)).unwrap();
                self.machines[number].strike_at(calls, Strike::Act);
            }
            3 => {
                let (up, down) =
                    *self.dice.pick(&[(true, true), (true, false), (false, true), (false, false)]);
                self.machines[number].say(&format!("network stands still: up {up}, down {down}"));
                self.net.block(number, up, down);
            }
            4 => {
                self.machines[number].say("network breaks off");
                self.net.break_off(number);
            }
            5 => {
                self.machines[number].say("network swallows everything");
                self.net.swallow(number);
            }
            6 => {
                let ms = self.dice.below(2_000);
                self.machines[number].say(&format!("network is slow, {ms} ms"));
                self.net.slow(number, ms);
            }
            7 => {
                if self.dice.one_in(2) {
                    self.machines[number].stop().await;
                } else {
                    self.machines[number].kill().await;
                }
            }
            8 => self.machines[number].lose_power().await,
            9 | 10 => {
                let calls = 1 + u32::try_from(self.dice.below(400)).unwrap();
                let strike = if event == 9 { Strike::Kill } else { Strike::PowerCut };
                self.machines[number].strike_at(calls, strike);
            }
            11 => {
                if self.server.is_some() {
                    self.stop_server().await;
                } else {
                    self.serve();
                }
            }
            12 => self.change_store().await,
            13 => self.break_disk(number),
            14 => self.set_clock(number),
            _ => {
                self.was_deaf = true;
                self.machines[number].say("changes go unreported");
                self.machines[number].disk.set_deaf(true);
            }
        }
    }

    /// Something that was broken works again.
    fn revive(&mut self, number: usize) {
        self.net.block(number, false, false);
        self.net.slow(number, 0);
        self.machines[number].calm();
        if self.dice.one_in(3) {
            self.machines[number].write_back();
        }
        self.machines[number].start();
        if self.dice.one_in(3) {
            self.serve();
        }
    }

    /// The store is copied, restored from an old copy, or lost.
    async fn change_store(&mut self) {
        match (self.dice.below(4), self.backup.take()) {
            (0, _) => {
                self.stop_server().await;
                self.trace.say("the store is lost");
                self.store = Arc::new(MemoryStore::new(self.dice.bytes32()));
                self.store_id += 1;
            }
            (1, Some((store, id))) => {
                self.stop_server().await;
                self.trace.say("the store is restored from its backup");
                (self.store, self.store_id) = (store, id);
            }
            (_, backup) => {
                self.trace.say("the store is backed up");
                self.backup = backup.or_else(|| Some((Arc::new(self.store.copy()), self.store_id)));
            }
        }
        self.serve();
    }

    fn break_disk(&mut self, number: usize) {
        let failure = *self.dice.pick(&[Failure::Broken, Failure::Full]);
        let spared = u32::try_from(self.dice.below(30)).unwrap();
        let times =
            1 + u32::try_from(self.dice.below(4)).unwrap() * u32::try_from(self.dice.below(30)).unwrap();
        if let Some(process) = self.machines[number].process() {
            process.fail(failure, spared, times);
            self.machines[number].say(&format!("disk: {failure:?} after {spared}, {times} times"));
        }
    }

    fn set_clock(&mut self, number: usize) {
        let machine = &self.machines[number];
        match self.dice.below(6) {
            0 => machine.clock.jump(10 * YEAR_NS),
            1 => machine.clock.jump(-10 * YEAR_NS),
            2 => machine.clock.jump(-3_600_000_000_000),
            3 => machine.clock.jump(i64::try_from(self.dice.below(2_000_000_000)).unwrap() - 1_000_000_000),
            _ => machine.clock.freeze(),
        }
        machine.say("the clock is set");
    }

    /// Faults stop; then everything must be as promised.
    async fn settle(&mut self) -> (Vec<String>, u128, usize, u64) {
        self.trace.say("--- faults stop ---");
        for machine in &mut self.machines {
            machine.calm();
            machine.let_go();
            machine.tend().await;
            machine.start();
        }
        self.serve();
        self.net.heal();
        let faults_end = Instant::now();
        let patience = if self.was_deaf { CONVERGE_DEAF } else { CONVERGE };
        let mut equal_since = None;
        while faults_end.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(250)).await;
            for machine in &mut self.machines {
                machine.tend().await;
                machine.start();
            }
            self.show();
            if self.difference().is_some() {
                equal_since = None;
                continue;
            }
            let since: Instant = *equal_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= Duration::from_secs(4) {
                break;
            }
        }
        let converged_ms = equal_since.map_or(faults_end.elapsed(), |since| since - faults_end).as_millis();
        let mut violations = Vec::new();
        if let Some(difference) = self.difference() {
            violations.push(format!("R6: after {converged_ms} ms: {difference}"));
        }
        self.check_contents(&mut violations);
        self.check_rest(&mut violations).await;
        for machine in &mut self.machines {
            self.trace.mix(machine.disk.digest() ^ machine.disk.calls());
            machine.kill().await;
        }
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
        (violations, converged_ms, self.saves.len(), self.net.frames())
    }

    /// Tells people what came to be in the folders. No part of the trace.
    fn show(&mut self) {
        if !self.aloud {
            return;
        }
        for (machine, shown) in self.machines.iter().zip(&mut self.shown) {
            let tree = machine.tree();
            let gone = shown.keys().filter(|path| !tree.contains_key(*path)).map(|path| format!("-{path}"));
            let came = tree.iter().filter(|(path, item)| shown.get(*path) != Some(item));
            let came = came.map(|(path, item)| format!("+{path} {:016x} {}", item.content, item.mtime_ns));
            let lines: Vec<String> = gone.chain(came).collect();
            for line in lines {
                eprintln!("          machine {}: {line}", machine.number);
            }
            *shown = tree;
        }
    }

    /// The first difference between two machines.
    fn difference(&self) -> Option<String> {
        let first = self.machines[0].tree();
        self.machines[1..].iter().find_map(|other| {
            let tree = other.tree();
            let gone = |a: &Tree, b: &Tree| {
                a.iter().find(|(path, item)| b.get(*path) != Some(item)).map(|(path, _)| path.clone())
            };
            let path = gone(&first, &tree).or_else(|| gone(&tree, &first))?;
            Some(format!(
                "{path}: machine 0 has {:?}, machine {} has {:?}",
                first.get(&path),
                other.number,
                tree.get(&path)
            ))
        })
    }

    fn check_contents(&self, violations: &mut Vec<String>) {
        let mut there = BTreeSet::new();
        for machine in &self.machines {
            for (path, item) in machine.tree() {
                there.insert(item.content);
                let known =
                    item.kind == EntryKind::Folder || self.saves.is_known(item.content) || is_empty(&item);
                if !known {
                    violations.push(format!(
                        "R9: machine {}: nobody ever saved {path} {:016x}",
                        machine.number, item.content
                    ));
                }
            }
        }
        violations.extend(self.saves.missing(&there));
    }

    /// R7: nothing more happens, also after every client has started anew.
    async fn check_rest(&mut self, violations: &mut Vec<String>) {
        if !violations.is_empty() {
            return;
        }
        let before = self.machines[0].tree();
        for machine in &mut self.machines {
            machine.stop().await;
            machine.start();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        for machine in &mut self.machines {
            machine.tend().await;
        }
        self.show();
        for machine in &mut self.machines {
            let after = machine.tree();
            if after != before {
                let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
                violations.push(format!("R7: machine {} does not rest: new {new:?}", machine.number));
            }
        }
    }
}

fn is_empty(item: &super::user::Item) -> bool {
    item.content == super::saves::of_file(b"")
}
