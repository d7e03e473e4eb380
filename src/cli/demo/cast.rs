//! The processes of a demo: one server and a client for each device, all of them this very program, in a folder of
//! their own. Dropping a value ends what it started, by its own id, and removes what it made.

use super::relay::Relay;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A process that was asked to end and has not after this long is killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(5);

/// A folder that is removed with all below it when dropped, unless it is to be kept.
pub struct Place {
    path: PathBuf,
    keep: bool,
}

impl Place {
    /// Makes a folder for the user alone in the system's place for temporary files.
    pub fn make(unique: &[u8], keep: bool) -> io::Result<Self> {
        let mut name = String::from("dropblock-demo-");
        name.extend(unique.iter().take(8).map(|byte| format!("{byte:02x}")));
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, keep })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing more can be done about files that do not go.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A process that runs now.
struct Process {
    name: String,
    child: Child,
    /// All it writes.
    log: PathBuf,
}

impl Process {
    fn start(name: &str, log: PathBuf, command: &mut Command) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // Not in the terminal's group: at ctrl-C only the demo is told, and ends its processes in order.
        command.process_group(0);
        for (key, _) in std::env::vars_os() {
            if key.as_encoded_bytes().starts_with(b"DROPBLOCK_") {
                command.env_remove(key);
            }
        }
        Ok(Self { name: name.to_owned(), child: command.spawn()?, log })
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end. Its id cannot have passed to another process, because nobody has waited for it yet.
    fn ask_to_end(&mut self) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id.filter(|_| self.is_running()) {
            let _ = kill_process(id, Signal::TERM);
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().last().unwrap_or("nothing").to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.ask_to_end();
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() > PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(LOOK);
        }
    }
}

/// One device: a synced folder, its client, and the relay between the client and the server.
pub struct Device {
    /// As it appears in the names of conflict copies.
    pub name: &'static str,
    /// The synced folder.
    pub folder: PathBuf,
    /// What passes on its connection.
    pub relay: Relay,
    log: PathBuf,
    client: Option<Process>,
}

impl Device {
    /// Prepares a device; its client does not run yet.
    pub fn new(name: &'static str, place: &Path, server: SocketAddr) -> io::Result<Self> {
        let folder = place.join(name);
        fs::create_dir(&folder)?;
        let log = place.join(format!("{name}.log"));
        Ok(Self { name, folder, relay: Relay::to(server)?, log, client: None })
    }

    /// Starts its client.
    pub fn switch_on(&mut self) -> io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("sync").arg(&self.folder).args(["--device", self.name]);
        command.arg("--server").arg(self.relay.address().to_string());
        self.client = Some(Process::start(self.name, self.log.clone(), &mut command)?);
        Ok(())
    }

    /// Ends its client and waits until it is gone.
    pub fn switch_off(&mut self) {
        self.client = None;
    }
}

/// All processes. Clients end before the server does.
pub struct Cast {
    /// The devices.
    pub devices: Vec<Device>,
    server: Process,
}

impl Cast {
    /// Starts a server and a client for each name, in `place`. Comes back when the server answers.
    ///
    /// # Errors
    /// One line, when a process cannot be started or does not come up within `patience`.
    pub fn start(
        place: &Path,
        names: &[&'static str],
        goes_on: &dyn Fn() -> bool,
        patience: Duration,
    ) -> Result<Self, String> {
        let fail = |error: io::Error| format!("cannot start the demo: {error}");
        let mut command = Command::new(std::env::current_exe().map_err(fail)?);
        command.arg("serve").arg("--store").arg(place.join("store")).args(["--listen", "127.0.0.1:0"]);
        let mut server = Process::start("server", place.join("server.log"), &mut command).map_err(fail)?;
        let start = Instant::now();
        let address = loop {
            if let Some(address) = listening_on(&fs::read_to_string(&server.log).map_err(fail)?) {
                break address;
            }
            if !server.is_running() || start.elapsed() > patience || !goes_on() {
                return Err(format!("the server did not start; it said: {}", server.last_words()));
            }
            thread::sleep(LOOK);
        };
        let mut cast = Self { devices: Vec::new(), server };
        for name in names {
            let mut device = Device::new(name, place, address).map_err(fail)?;
            device.switch_on().map_err(fail)?;
            cast.devices.push(device);
        }
        Ok(cast)
    }

    /// Bytes that passed on each device's connection so far.
    pub fn traffic(&self) -> Vec<u64> {
        self.devices.iter().map(|device| device.relay.bytes()).collect()
    }

    /// The first process that has ended although nobody asked it to, with its last line.
    pub fn dropout(&mut self) -> Option<String> {
        let clients = self.devices.iter_mut().filter_map(|device| device.client.as_mut());
        let mut all = clients.chain([&mut self.server]);
        let gone = all.find_map(|process| (!process.is_running()).then_some(&*process))?;
        Some(format!("the process of {} ended; it said: {}", gone.name, gone.last_words()))
    }

    /// The last line that each process wrote.
    pub fn last_words(&self) -> Vec<String> {
        let clients = self.devices.iter().filter_map(|device| device.client.as_ref());
        clients.chain([&self.server]).map(|p| format!("{}: {}", p.name, p.last_words())).collect()
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        // All at once, so that they end side by side; the server waits for what is under way.
        for client in self.devices.iter_mut().filter_map(|device| device.client.as_mut()) {
            client.ask_to_end();
        }
        self.devices.clear();
    }
}

/// The address in the line that says the server is ready.
fn listening_on(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listening on ")?;
    // A line that is still being written has no end yet.
    let (address, _) = rest.split_once('\n')?;
    address.trim().parse().ok()
}
