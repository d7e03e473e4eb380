//! One server, a few machines, and everything that may go wrong between them, in the order that a seed decides.

use super::dice::{Dice, Trace};
use super::machine::{Machine, Strike};
use super::net::Network;
use super::saves::Saves;
use super::user::Tree;
use dropblock::folder::EntryKind;
use dropblock::folder::memory::Failure;
use dropblock::model::{Kind, NodeId, NodeState, RelPath, StoreId};
use dropblock::server;
use dropblock::storage::{Journal, MemoryStore, Position};
use dropblock::work::Work;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

/// After the faults stop, all machines are equal within this time…
const CONVERGE: Duration = Duration::from_secs(40);
/// …or this, when changes went unreported: then a rescan finds them.
const CONVERGE_DEAF: Duration = Duration::from_secs(110);
const YEAR_NS: i64 = 365 * 24 * 3600 * 1_000_000_000;

/// Seeds from here on also have what came later: clients that end when all is equal, edits of the very file that a client
/// replaces, and a server whose disk fails. The seeds before tell the stories they always told.
pub const WIDE: u64 = 1001;

/// Which story is told: that of a seed, or a part of it.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub seed: u64,
    /// Faults stop after so many steps.
    pub steps: Option<u64>,
    /// Steps in which nothing happens; for wide seeds only.
    pub without: BTreeSet<u64>,
    /// Machines from this one on are not there; for wide seeds only.
    pub machines: Option<usize>,
}

impl Story {
    pub fn of(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub const fn is_wide(&self) -> bool {
        self.seed >= WIDE
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub trace: Trace,
    pub violations: Vec<String>,
    /// From the end of the faults until all were equal.
    pub converged_ms: u128,
    pub saves: usize,
    pub frames: u64,
    /// Changes went unreported at some time: equality may have to wait for a full look.
    pub was_deaf: bool,
    /// Steps of users and faults, and machines.
    pub steps: u64,
    pub machines: usize,
}

struct World {
    story: Story,
    dice: Dice,
    trace: Trace,
    saves: Saves,
    net: Network,
    machines: Vec<Machine>,
    store: Arc<MemoryStore>,
    store_id: u8,
    server: Option<JoinHandle<String>>,
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
    /// Of what wide seeds have beside.
    wide: [u64; 4],
}

/// Runs one story in a runtime of its own.
pub fn run(story: &Story, aloud: bool) -> Ended {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let trace = Trace::new(aloud);
    let (told, story) = (trace.clone(), story.clone());
    runtime.block_on(async move {
        let mut world = World::new(story, told, aloud);
        let steps = world.live().await;
        let (violations, converged_ms) = world.settle().await;
        let (saves, frames, machines) = (world.saves.len(), world.net.frames(), world.machines.len());
        let was_deaf = world.was_deaf;
        Ended { trace, violations, converged_ms, saves, frames, was_deaf, steps, machines }
    })
}

impl World {
    fn new(story: Story, trace: Trace, aloud: bool) -> Self {
        let seed = story.seed;
        let mut dice = Dice::new(seed);
        let clients = 1 + dice.weighted(&[1, 6, 6, 2, 1]);
        let net = Network::new(clients, dice.split(), trace.clone());
        let saves = Saves::default();
        let mut machines: Vec<Machine> =
            (0..clients).map(|n| Machine::new(n, &net, &mut dice, &saves, &trace)).collect();
        let store = Arc::new(MemoryStore::new(dice.bytes32()));
        //                 act  on  mid partition reset hole slow kill power midkill midpower server store disk clock deaf
        let mut weights = [60, 20, 16, 6, 4, 2, 3, 3, 2, 4, 3, 4, 1, 3, 3, 2];
        for weight in &mut weights[2..] {
            if dice.one_in(3) {
                *weight = 0;
            }
        }
        trace.say(&format!("seed {seed}: {clients} machines, weights {weights:?}"));
        //              meddle full broken once
        let mut wide = [0; 4];
        if story.is_wide() {
            wide = [24, 3, 2, 2].map(|weight| if dice.one_in(3) { 0 } else { weight });
            if wide[3] > 0 {
                machines.iter_mut().for_each(|machine| machine.set_once(Some(dice.split())));
            }
            machines.truncate(story.machines.unwrap_or(clients));
            trace.say(&format!("wide {wide:?}"));
        }
        let clients = machines.len();
        Self {
            story,
            dice,
            trace,
            saves,
            net,
            machines,
            store,
            store_id: 1,
            server: None,
            backup: None,
            calm: Calm { weights, wide },
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
            format!("{ended:?}")
        }));
    }

    async fn stop_server(&mut self) {
        let Some(server) = self.server.take() else { return };
        self.trace.say("the server loses power");
        assert!(!server.is_finished() || self.store.is_broken(), "{:?}", server.await);
        server.abort();
        let _ = server.await;
        self.net.server_gone();
        self.store.crash();
    }

    /// A server ends by itself when its disk breaks, and only then.
    async fn tend_server(&mut self) {
        if self.server.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(server) = self.server.take()
        {
            let ended = server.await;
            assert!(self.store.is_broken(), "the server ended: {ended:?}");
            self.trace.say(&format!("the server ended: {ended:?}"));
            self.net.server_gone();
            self.store.crash();
        }
    }

    /// The time of users and faults. Says how many steps it had.
    async fn live(&mut self) -> u64 {
        self.serve();
        for machine in &mut self.machines {
            machine.start();
        }
        let steps = 30 + self.dice.below(90);
        let steps = self.story.steps.unwrap_or(steps).min(steps);
        for step in 0..steps {
            let mut pausing = None;
            if self.story.is_wide() {
                // Each step has dice of its own, so that others go on as they were when one is left out.
                let mut own = Dice::new(self.story.seed ^ (step + 1).wrapping_mul(0xd6e8_feb8_6659_fd93));
                (self.dice, pausing) = (own.split(), Some(own));
            }
            if !self.story.without.contains(&step) {
                let weights = self.calm.weights.iter().chain(&self.calm.wide).copied();
                let event = self.dice.weighted(&weights.take(self.kinds()).collect::<Vec<_>>());
                self.happen(event).await;
            }
            let dice = pausing.as_mut().unwrap_or(&mut self.dice);
            let pause = match dice.below(12) {
                0..=4 => dice.below(30),
                5..=9 => dice.below(400),
                10 => 1_000,
                _ => dice.below(4_000),
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.tend_server().await;
            for machine in &mut self.machines {
                machine.go_on();
                machine.tend().await;
            }
            self.show();
        }
        steps
    }

    /// Kinds of events.
    fn kinds(&self) -> usize {
        self.calm.weights.len() + if self.story.is_wide() { self.calm.wide.len() } else { 0 }
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
            15 => {
                self.was_deaf = true;
                self.machines[number].say("changes go unreported");
                self.machines[number].disk.set_deaf(true);
            }
            16 => {
                for _ in 0..1 + self.dice.below(3) {
                    let calls = 1 + u32::try_from(self.dice.below(4)).unwrap();
                    self.machines[number].strike_at(calls, Strike::Meddle);
                }
            }
            17 => {
                let times = 1 + u32::try_from(self.dice.below(20)).unwrap();
                self.trace.say(&format!("the server's disk is full, {times} times"));
                self.store.fill(times);
            }
            18 => {
                let spared = u32::try_from(self.dice.below(6)).unwrap();
                let recorded = self.dice.one_in(2);
                self.trace.say(&format!("the server's disk breaks after {spared}, recorded: {recorded}"));
                self.store.break_after(spared, recorded);
            }
            _ => {
                self.machines[number].stop().await;
                self.machines[number].start();
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
    async fn settle(&mut self) -> (Vec<String>, u128) {
        self.trace.say("--- faults stop ---");
        for machine in &mut self.machines {
            machine.calm();
            machine.let_go();
            machine.set_once(None);
            machine.tend().await;
            machine.start();
        }
        self.store.mend();
        self.tend_server().await;
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
            if self.difference().await.is_some() {
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
        if let Some(difference) = self.difference().await {
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
        (violations, converged_ms)
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

    /// The first difference between two machines, or between the first and the server: equal to each other they are also
    /// when none of them has reached it.
    async fn difference(&self) -> Option<String> {
        let first = self.machines[0].tree();
        let server = self.server_tree().await;
        let path = first.keys().chain(server.keys()).find(|path| {
            let here = first.get(path).map(|item| (item.kind, item.mtime_ns, item.exec));
            here != server.get(path).copied()
        });
        if let Some(path) = path {
            return Some(format!(
                "{path}: machine 0 has {:?}, the server has {:?}",
                first.get(path),
                server.get(path)
            ));
        }
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

    /// What the share holds.
    async fn server_tree(&self) -> BTreeMap<RelPath, (EntryKind, i64, bool)> {
        let (share, _) = self.store.open_share("default").await.unwrap();
        let page = self.store.read_since(share, Position::default(), usize::MAX, false).await.unwrap();
        let states: BTreeMap<NodeId, NodeState> =
            page.nodes.into_iter().filter_map(|node| Some((node.id, node.state?))).collect();
        let path_of = |state: &NodeState| {
            let mut names = vec![state.name.clone()];
            let mut parent = state.parent;
            while let Some(above) = states.get(&parent) {
                names.push(above.name.clone());
                parent = above.parent;
            }
            names.reverse();
            RelPath::from_names(names)
        };
        let look = |kind: &Kind| match kind {
            Kind::Folder => (EntryKind::Folder, 0, false),
            Kind::File { mtime_ns, exec, .. } => (EntryKind::File, *mtime_ns, *exec),
            Kind::Symlink { mtime_ns, .. } => (EntryKind::Symlink, *mtime_ns, false),
        };
        states.values().map(|state| (path_of(state), look(&state.kind))).collect()
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
