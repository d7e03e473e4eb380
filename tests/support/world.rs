//! A world of its own for one test: temporary home, store and folders, one server on a free port, any number of clients.

use super::disk::Folder;
use super::process::{Outcome, Running, listening_on};
use super::sandbox::Sandbox;
use super::tree::Tree;
use super::{DEADLINE, LONG_DEADLINE};
use rustix::process::Signal;
use std::cell::Cell;
use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One test's private machine.
pub struct World {
    // Before the folder they live in, so that processes end first.
    server: Option<Server>,
    sandbox: Sandbox,
    dir: TempDir,
    home: PathBuf,
    store: PathBuf,
    runs: Cell<u32>,
}

/// A running `dropblock serve`.
pub struct Server {
    /// The process.
    pub process: Running,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// A running `dropblock sync` without `--once`.
pub struct Client {
    /// The process.
    pub process: Running,
}

impl World {
    /// A world with a server.
    pub fn new() -> Self {
        let mut world = Self::empty();
        world.serve();
        world
    }

    /// A world whose server is not started yet.
    pub fn empty() -> Self {
        Self::inside(Sandbox::none())
    }

    /// The same, for processes that run in a sandbox.
    pub fn inside(sandbox: Sandbox) -> Self {
        let dir = tempfile::Builder::new().prefix("dropblock-test-").tempdir().unwrap();
        for sub in ["logs", "home/config", "home/state", "home/run"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        sandbox.prepare(dir.path());
        let (home, store) = (dir.path().join("home"), dir.path().join("store"));
        Self { server: None, sandbox, dir, home, store, runs: Cell::new(0) }
    }

    /// The folder that holds everything of this world.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the store is.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Puts the store elsewhere.
    pub fn set_store(&mut self, store: PathBuf) {
        self.store = store;
    }

    /// The user of `other` works here too: the same home.
    pub fn set_home_of(&mut self, other: &Self) {
        self.home = other.home.clone();
    }

    /// Takes or makes a folder of this world.
    pub fn folder(&self, name: &str) -> Folder {
        let folder = Folder::at(self.path().join(name));
        self.sandbox.give(folder.path());
        folder
    }

    /// `count` folders named `a`, `b`, `c`, ...
    pub fn folders(&self, count: usize) -> Vec<Folder> {
        ["a", "b", "c", "d", "e", "f", "g", "h"].iter().take(count).map(|name| self.folder(name)).collect()
    }

    /// The program with arguments and an environment of its own.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let home = &self.home;
        let mut command = self.sandbox.command(self.path());
        command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", home).env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
        command.env("XDG_CONFIG_HOME", home.join("config")).env("XDG_STATE_HOME", home.join("state"));
        command.env("XDG_RUNTIME_DIR", home.join("run")).env("XDG_CACHE_HOME", home.join("cache"));
        command.current_dir(self.path());
        command
    }

    /// Starts a prepared command.
    pub fn start(&self, name: &str, command: Command) -> Running {
        let run = self.runs.get() + 1;
        self.runs.set(run);
        Running::start(name, command, self.path().join("logs").join(format!("{run:03}-{name}")))
    }

    /// Runs the program to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        self.start("run", self.command(args)).outcome(DEADLINE)
    }

    /// Starts the server on a free port and waits until it is ready.
    pub fn serve(&mut self) {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        self.server = Some(self.try_serve(&self.store, free).unwrap_or_else(|o| panic!("no server: {o:?}")));
    }

    /// Starts the server on the port it had before; waits for the port when something holds it for a moment.
    pub fn serve_again(&mut self, addr: SocketAddr) {
        self.server = None;
        let start = Instant::now();
        loop {
            match self.try_serve(&self.store, addr) {
                Ok(server) => {
                    self.server = Some(server);
                    return;
                }
                Err(outcome) => assert!(start.elapsed() < DEADLINE, "no server on {addr}: {outcome:?}"),
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// One attempt to serve `store`; how it ended when it did not come to listen.
    pub fn try_serve(&self, store: &Path, addr: SocketAddr) -> Result<Server, Outcome> {
        self.try_serve_as(self.serve_command(store, addr))
    }

    /// Arguments of `serve`.
    pub fn serve_command(&self, store: &Path, addr: SocketAddr) -> Command {
        let args = [OsStr::new("serve"), "--store".as_ref(), store.as_os_str(), "--listen".as_ref()];
        let mut command = self.command(args);
        command.arg(addr.to_string());
        command
    }

    /// One attempt to serve by a command that was prepared; how it ended when it did not come to listen.
    pub fn try_serve_as(&self, command: Command) -> Result<Server, Outcome> {
        let mut process = self.start("server", command);
        let start = Instant::now();
        loop {
            if let Some(addr) = listening_on(&process.stdout()).or_else(|| listening_on(&process.stderr())) {
                return Ok(Server { process, addr });
            }
            if !process.is_running() {
                return Err(process.outcome(DEADLINE));
            }
            assert!(start.elapsed() < DEADLINE, "the server is not ready: {}", process.stderr());
            sleep(Duration::from_millis(5));
        }
    }

    /// Takes a server that was started by hand.
    pub fn set_server(&mut self, server: Server) {
        self.server = Some(server);
    }

    /// The running server.
    pub fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("a server runs")
    }

    /// Where the server listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.as_ref().expect("a server runs").addr
    }

    /// SIGTERM; asserts that the server ends with 0.
    pub fn stop_server(&mut self) {
        let mut server = self.server.take().expect("a server runs");
        server.process.signal(Signal::TERM);
        server.process.outcome(DEADLINE).code(0);
    }

    /// kill -9.
    pub fn kill_server(&mut self) {
        self.server.take().expect("a server runs").process.kill();
    }

    /// kill -9, and starts it again on the same port.
    pub fn crash_server(&mut self) {
        let addr = self.addr();
        self.kill_server();
        self.serve_again(addr);
    }

    /// Arguments of `sync` for a folder: this server, the folder's name as the device's.
    pub fn sync_command(&self, folder: &Folder, addr: SocketAddr, more: &[&str]) -> Command {
        let mut command = self.command([OsStr::new("sync"), folder.path().as_os_str()]);
        command.arg("--server").arg(addr.to_string());
        if !more.contains(&"--device") {
            command.arg("--device").arg(folder.name());
        }
        command.args(more);
        command
    }

    /// `sync --once`, to its end.
    pub fn once(&self, folder: &Folder) -> Outcome {
        self.once_with(folder, &[])
    }

    /// `sync --once` with more arguments.
    pub fn once_with(&self, folder: &Folder, more: &[&str]) -> Outcome {
        self.once_start(folder, more).outcome(LONG_DEADLINE)
    }

    /// `sync --once`, not waited for.
    pub fn once_start(&self, folder: &Folder, more: &[&str]) -> Running {
        self.once_at(folder, self.addr(), more)
    }

    /// `sync --once` against another address, not waited for.
    pub fn once_at(&self, folder: &Folder, addr: SocketAddr, more: &[&str]) -> Running {
        let mut args = vec!["--once"];
        args.extend_from_slice(more);
        self.start(&format!("once-{}", folder.name()), self.sync_command(folder, addr, &args))
    }

    /// `sync --once` that must succeed.
    #[track_caller]
    pub fn sync(&self, folder: &Folder) -> Outcome {
        self.once(folder).code(0)
    }

    /// Syncs the folders one after the other, twice, so that the first has what the last sent; asserts equality.
    #[track_caller]
    pub fn sync_all(&self, folders: &[&Folder]) -> Tree {
        for _ in 0..2 {
            for folder in folders {
                self.sync(folder);
            }
        }
        assert_equal(folders)
    }

    /// Starts a live client.
    pub fn live(&self, folder: &Folder) -> Client {
        self.live_at(folder, self.addr(), &[])
    }

    /// Starts a live client against another address, with more arguments.
    pub fn live_at(&self, folder: &Folder, addr: SocketAddr, more: &[&str]) -> Client {
        let command = self.sync_command(folder, addr, more);
        Client { process: self.start(&format!("live-{}", folder.name()), command) }
    }

    /// The sandbox its processes run in.
    pub const fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Client {
    /// SIGTERM; asserts that the client ends with 0.
    #[track_caller]
    pub fn stop(mut self) {
        self.process.signal(Signal::TERM);
        self.process.outcome(DEADLINE).code(0);
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

/// Asserts that all folders are equal now, and returns their picture.
#[track_caller]
pub fn assert_equal(folders: &[&Folder]) -> Tree {
    let (first, rest) = folders.split_first().unwrap();
    let tree = first.tree();
    for folder in rest {
        if let Some(difference) = tree.difference(&folder.tree()) {
            panic!("{} (left) and {} (right) differ:\n{difference}", first.name(), folder.name());
        }
    }
    tree
}

/// Waits until all folders are equal and `accept` holds for their picture.
#[track_caller]
pub fn wait_for(folders: &[&Folder], deadline: Duration, what: &str, accept: impl Fn(&Tree) -> bool) -> Tree {
    let start = Instant::now();
    loop {
        let trees: Vec<Tree> = folders.iter().map(|folder| folder.tree()).collect();
        if trees.iter().all(|tree| tree == &trees[0]) && accept(&trees[0]) {
            return trees.into_iter().next().unwrap();
        }
        if start.elapsed() > deadline {
            let mut text = format!("not {what} after {deadline:?}\n");
            for (folder, tree) in folders.iter().zip(&trees).skip(1) {
                let difference = trees[0].difference(tree).unwrap_or_else(|| "  equal\n".to_owned());
                text.push_str(&format!(
                    "{} (left), {} (right):\n{difference}",
                    folders[0].name(),
                    folder.name()
                ));
            }
            panic!(
                "{text}{} holds {:?}",
                folders[0].name(),
                trees[0].names().iter().take(40).collect::<Vec<_>>()
            );
        }
        // Looking costs as much as a scan; a look every few ms on small folders, rarer on large ones.
        sleep(Duration::from_millis(10 + u64::try_from(trees[0].0.len()).unwrap_or(0) / 20));
    }
}

/// Waits until all folders are equal.
#[track_caller]
pub fn wait_equal(folders: &[&Folder], deadline: Duration) -> Tree {
    wait_for(folders, deadline, "equal", |_| true)
}

/// Waits until every folder looks exactly like `want`.
#[track_caller]
pub fn wait_tree(folders: &[&Folder], want: &Tree) {
    let start = Instant::now();
    for folder in folders {
        while let Some(difference) = want.difference(&folder.tree()) {
            assert!(
                start.elapsed() < DEADLINE,
                "{} (right) is not as it should be (left):\n{difference}",
                folder.name()
            );
            sleep(Duration::from_millis(10));
        }
    }
}

/// Waits for a condition.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "never: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// A port that nothing listens on (until something else takes it).
pub fn free_addr() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}
