//! One machine: a disk, its clock, a user, and the client that syncs the folder, which may be killed at any call.

use super::clock::SimClock;
use super::dice::{Dice, Trace};
use super::net::{Dialer, Network};
use super::saves::{Content, Saves};
use super::user::{FOLDER, Tree, User, contents};
use dropblock::client::{Client, ClientError, Config, News};
use dropblock::folder::memory::Clock;
use dropblock::folder::{Disk, MemoryDisk};
use dropblock::model::{Name, RelPath};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Duration;

/// What happens to a client in the middle of its work, at a call of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// The user does something at this very moment.
    Act,
    /// The user does something to the very file that the client is about to replace, move or remove. Counts only calls that do
    /// that to a file of the user.
    Meddle,
    /// The client is killed. What it had written is there.
    Kill,
    /// The machine loses power.
    PowerCut,
}

/// See the module.
pub struct Machine {
    pub number: usize,
    pub disk: MemoryDisk,
    pub clock: Arc<SimClock>,
    shared: Arc<Mutex<Shared>>,
    running: Option<Running>,
    net: Network,
    dice: Dice,
    saves: Saves,
    trace: Trace,
    poll: Duration,
    /// Of `--once`: asked in seeds that have it.
    once: Option<Dice>,
}

/// What the disk's hook reaches too.
struct Shared {
    user: User,
    /// The strike comes at the n-th call from now.
    strikes: Vec<(u32, Strike)>,
    client: u32,
    struck: Option<Strike>,
}

struct Running {
    process: MemoryDisk,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ClientError>>,
}

impl Machine {
    pub fn new(number: usize, net: &Network, dice: &mut Dice, saves: &Saves, trace: &Trace) -> Self {
        let mut dice = dice.split();
        let clock =
            Arc::new(SimClock::new(i64::try_from(dice.below(5)).unwrap() * 777_000_000, dice.one_in(2)));
        let disk = MemoryDisk::new(clock.clone(), dice.bytes32());
        Disk::Memory(disk.clone()).make_folder(Path::new(FOLDER)).unwrap();
        disk.write_back();
        let user = User::new(number, &disk, dice.split(), saves.clone(), trace.clone());
        let shared = Shared { user, strikes: Vec::new(), client: 0, struck: None };
        let shared = Arc::new(Mutex::new(shared));
        let (hook, clock_of_hook, net_of_hook) = (shared.clone(), clock.clone(), net.clone());
        let (saves_of_hook, trace_of_hook, machine) = (saves.clone(), trace.clone(), disk.clone());
        disk.on_call(move |caller, ino| {
            // Taken by the simulator itself: a call of the user.
            let Ok(mut shared) = hook.try_lock() else { return };
            if caller.number() != shared.client {
                return;
            }
            // Asked only when it is needed: a fine clock moves with each look.
            let when = || format!("[{}]   in the middle:", clock_of_hook.label());
            let meddles = shared.strikes.iter().position(|(_, strike)| *strike == Strike::Meddle);
            if let (Some(at), Some(ino)) = (meddles, ino)
                && let Some(path) = shared.user.path_of(ino)
            {
                shared.strikes[at].0 -= 1;
                if shared.strikes[at].0 == 0 {
                    shared.strikes.remove(at);
                    shared.user.meddle(path, &when());
                }
            }
            let due: Vec<Strike> = {
                let counted = |strike: &Strike| *strike != Strike::Meddle;
                let calls = shared.strikes.iter_mut().filter(|(_, strike)| counted(strike));
                calls.for_each(|(n, _)| *n = n.saturating_sub(1));
                let due = shared.strikes.iter().filter(|(n, _)| *n == 0).map(|(_, strike)| *strike).collect();
                shared.strikes.retain(|(n, _)| *n > 0);
                due
            };
            for strike in due {
                let when = when();
                match strike {
                    Strike::Meddle => {}
                    Strike::Act => shared.user.act(&when),
                    Strike::Kill => {
                        trace_of_hook.say(&format!("{when} client {number} is killed"));
                        caller.kill();
                        net_of_hook.client_gone(number, false);
                        shared.struck = Some(strike);
                    }
                    Strike::PowerCut => {
                        trace_of_hook.say(&format!("{when} machine {number} loses power"));
                        net_of_hook.client_gone(number, true);
                        cut_power(&machine, &mut shared, &saves_of_hook, &trace_of_hook);
                        shared.struck = Some(strike);
                    }
                }
            }
        });
        Self {
            number,
            disk,
            clock,
            shared,
            running: None,
            net: net.clone(),
            poll: Duration::from_millis(*dice.pick(&[200, 1000, 1000])),
            once: None,
            dice,
            saves: saves.clone(),
            trace: trace.clone(),
        }
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    pub fn say(&self, what: &str) {
        self.trace.say(&format!("[{}] machine {}: {what}", self.clock.label(), self.number));
    }

    fn when(&self) -> String {
        format!("[{}]", self.clock.label())
    }

    /// Starts the client.
    pub fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        let once = self.once.as_mut().is_some_and(|dice| dice.one_in(3));
        self.say(if once { "the client starts, once" } else { "the client starts" });
        let process = self.disk.process();
        self.shared().client = process.number();
        let config = self.config();
        let (stop, stopped) = oneshot::channel::<()>();
        let (disk, now_ns) = (Disk::Memory(process.clone()), self.clock.wall_ns());
        let task = tokio::spawn(async move {
            let mut client = Client::open_on(disk, Path::new(FOLDER), config, now_ns)?;
            if once {
                return client.run_once().await.map(drop);
            }
            client
                .run_forever(async move {
                    let _ = stopped.await;
                })
                .await
        });
        self.running = Some(Running { process, stop: Some(stop), task });
    }

    fn config(&mut self) -> Config {
        let (number, clock, trace) = (self.number, self.clock.clone(), self.trace.clone());
        let clock_of_now = clock.clone();
        // Names of devices may be equal.
        let device =
            if self.number.is_multiple_of(3) { "twin".to_owned() } else { format!("device{number}") };
        Config {
            server: "server:7420".to_owned(),
            share: None,
            device_name: device,
            poll: self.poll,
            allow_mass_delete: false,
            threads: 2,
            now: Arc::new(move || format!("at {}", clock_of_now.wall_ns() / 1_000_000_000)),
            dialer: Arc::new(Dialer { net: self.net.clone(), client: self.number }),
            seed: self.dice.bytes32(),
            news: Arc::new(move |news| {
                if !matches!(news, News::Connected | News::InSync) {
                    trace.say(&format!("[{}]   client {number}: {news:?}", clock.label()));
                }
            }),
        }
    }

    /// Takes note of a client that ended: killed from inside a call, or by an error.
    pub async fn tend(&mut self) {
        let struck = self.shared().struck.take();
        if let Some(strike) = struck {
            self.drop_client().await;
            if strike == Strike::PowerCut {
                self.boot();
            }
            return;
        }
        if self.running.as_ref().is_some_and(|running| running.task.is_finished()) {
            let Some(running) = self.running.take() else { return };
            let ended = running.task.await;
            assert!(
                !ended.as_ref().is_err_and(tokio::task::JoinError::is_panic),
                "the client panicked: {ended:?}"
            );
            self.say(&format!("the client ended: {ended:?}"));
            running.process.kill();
            self.net.client_gone(self.number, false);
        }
    }

    async fn drop_client(&mut self) {
        if let Some(running) = self.running.take() {
            running.process.kill();
            running.task.abort();
            let _ = running.task.await;
        }
    }

    fn boot(&self) {
        self.shared().user.log_in(&self.disk);
    }

    /// From now on clients often are of the kind that ends when both sides are equal; or never again.
    pub fn set_once(&mut self, dice: Option<Dice>) {
        self.once = dice;
    }

    /// Ends the client as a service manager does.
    pub async fn stop(&mut self) {
        let Some(running) = self.running.as_mut() else { return };
        self.trace.say(&format!("[{}] machine {}: the client is stopped", self.clock.label(), self.number));
        if let Some(stop) = running.stop.take() {
            let _ = stop.send(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.tend().await;
        self.kill().await;
    }

    pub async fn kill(&mut self) {
        if self.running.is_none() {
            return;
        }
        self.say("the client is killed");
        if let Some(running) = &self.running {
            running.process.kill();
        }
        self.net.client_gone(self.number, false);
        self.drop_client().await;
    }

    pub async fn lose_power(&mut self) {
        self.say("loses power");
        self.net.client_gone(self.number, true);
        cut_power(&self.disk, &mut self.shared(), &self.saves, &self.trace);
        self.drop_client().await;
        self.boot();
    }

    /// Has something happen in the middle of the client's work.
    pub fn strike_at(&mut self, calls: u32, strike: Strike) {
        if self.running.is_some() {
            self.say(&format!("in {calls} calls: {strike:?}"));
            self.shared().strikes.push((calls, strike));
        }
    }

    pub fn calm(&mut self) {
        self.shared().strikes.clear();
        self.disk.mend();
        self.disk.set_deaf(false);
        self.clock.thaw();
    }

    /// The client's process, if it runs.
    pub fn process(&self) -> Option<&MemoryDisk> {
        self.running.as_ref().map(|running| &running.process)
    }

    pub fn act(&mut self) {
        let when = self.when();
        self.shared().user.act(&when);
    }

    pub fn go_on(&mut self) {
        let when = self.when();
        let mut shared = self.shared();
        if shared.user.is_holding() {
            shared.user.go_on(&when);
        }
    }

    pub fn write_back(&self) {
        self.shared().user.write_back();
    }

    pub fn let_go(&mut self) {
        self.shared().user.log_in(&self.disk);
    }

    pub fn tree(&self) -> Tree {
        self.shared().user.tree()
    }
}

impl Drop for Machine {
    /// The disk holds the hook and the hook the disk: kept, a long run would fill the memory with worlds that have ended.
    fn drop(&mut self) {
        self.disk.on_call(|_, _| {});
    }
}

/// A power cut, and what it took.
fn cut_power(machine: &MemoryDisk, shared: &mut Shared, saves: &Saves, trace: &Trace) {
    let (places_before, known) = (contents(machine), |places: &BTreeSet<(Content, RelPath)>| {
        places.iter().cloned().collect::<BTreeMap<Content, RelPath>>()
    });
    machine.lose_power();
    let places_after = contents(machine);
    for (content, path) in places_before.difference(&places_after) {
        let is_private = path.names().get(1).is_some_and(Name::is_private_dir);
        if !is_private && saves.is_known(*content) {
            saves.lost_copy(*content);
        }
    }
    let (before, after) = (known(&places_before), known(&places_after));
    for (content, path) in &before {
        if !after.contains_key(content) && saves.is_known(*content) {
            trace.say(&format!("      lost with the power: {path} {content:016x}"));
            saves.lost_power(*content);
        }
    }
    for (content, path) in places_after.difference(&places_before) {
        let is_private = path.names().get(1).is_some_and(Name::is_private_dir);
        if saves.is_known(*content) {
            continue;
        }
        let full = [b"/".as_slice(), path.to_os_path().as_os_str().as_bytes()].concat();
        let by_user = machine.writer_of(&full).is_some_and(|writer| shared.user.was(writer));
        if is_private && !by_user {
            continue;
        }
        trace.say(&format!("      torn with the power: {path} {content:016x}, by the user: {by_user}"));
        // What a client placed must not come out torn; if it does, nobody may ever get it (R9).
        if by_user {
            saves.torn(*content);
        }
    }
}
