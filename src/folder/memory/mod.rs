//! A disk in memory, for the simulator: what the kernel does with folders and files, in one lock, with a clock that can be
//! set, and with everything a disk may do to a program.
//!
//! - **Processes.** Every handle belongs to one ([`MemoryDisk::process`]). A process that is [killed](MemoryDisk::kill)
//!   makes no further call; what it had written is there (the page cache survives).
//! - **Power cuts.** [`MemoryDisk::lose_power`] forgets what was not synced, in a way that is weaker than ext4: see
//!   `durable`.
//! - **Faults.** A call of a process may fail, or the disk be full: [`MemoryDisk::fail`].
//! - **Races.** [`MemoryDisk::on_call`] runs somebody else's work between any two calls of a process.
//! - **Watching.** Changes are reported as inotify would, unless the disk is told to lose them.

mod dir;
mod durable;
mod file;
mod inode;

#[cfg(test)]
mod tests;

pub use dir::MemoryDir;
pub use file::MemoryFile;

use super::watch::Hint;
use crate::model::{IdSource, Name};
use inode::{Body, Inner};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The time of a simulated machine.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// What the machine takes for the time, ns since 1970. Stamps files; may jump and stand.
    fn wall_ns(&self) -> i64;
    /// A clock that only goes forward.
    fn instant(&self) -> Instant;
}

/// What a call of a process does, for [`MemoryDisk::fail`] and the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Looks only.
    Look,
    /// Reads bytes of a file.
    Read,
    /// Writes bytes, or makes something that takes room.
    Write,
    /// Changes names or metadata.
    Change,
    /// Makes something durable.
    Sync,
}

/// How calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Reads, writes and syncs fail with EIO.
    Broken,
    /// Writes fail with ENOSPC.
    Full,
}

/// Calls of one process that fail.
#[derive(Debug, Clone, Copy)]
struct Fault {
    process: u32,
    failure: Failure,
    /// So many calls of that kind go well first.
    spared: u32,
    /// Then so many fail.
    times: u32,
}

type Hook = Box<dyn FnMut(&MemoryDisk, Option<u64>) + Send>;

/// See the module. Clones are the same process on the same disk.
#[derive(Clone)]
pub struct MemoryDisk {
    shared: Arc<Shared>,
    process: u32,
}

struct Shared {
    inner: Mutex<Inner>,
    control: Mutex<Control>,
    hook: Mutex<Option<Hook>>,
    clock: Arc<dyn Clock>,
}

type Report = Arc<dyn Fn(Hint) + Send + Sync>;

/// What the simulator has ordered.
#[derive(Default)]
struct Control {
    processes: u32,
    dead: BTreeSet<u32>,
    fault: Option<Fault>,
    watchers: Vec<(u32, Report)>,
    deaf: bool,
    calls: u64,
    boots: u64,
}

impl std::fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memory disk, process {}", self.process)
    }
}

impl MemoryDisk {
    /// An empty disk. The same seed makes the same choices at power cuts.
    pub fn new(clock: Arc<dyn Clock>, seed: [u8; 32]) -> Self {
        let inner = Inner::new(clock.wall_ns(), IdSource::new(seed));
        let shared =
            Shared { inner: Mutex::new(inner), control: Mutex::default(), hook: Mutex::new(None), clock };
        Self { shared: Arc::new(shared), process: 0 }
    }

    /// Another process on this disk.
    pub fn process(&self) -> Self {
        let mut control = self.control();
        control.processes += 1;
        let process = control.processes;
        drop(control);
        Self { shared: self.shared.clone(), process }
    }

    /// Ends this process: every further call of it fails and does nothing. Its locks are free.
    pub fn kill(&self) {
        let mut control = self.control();
        control.dead.insert(self.process);
        control.watchers.retain(|(process, _)| *process != self.process);
        drop(control);
        self.inner().unlock_all_of(self.process);
    }

    /// True after [`MemoryDisk::kill`].
    pub fn is_dead(&self) -> bool {
        self.control().dead.contains(&self.process)
    }

    /// Ends every process, forgets what was not durable, and starts anew.
    pub fn lose_power(&self) {
        let mut control = self.control();
        let processes = control.processes;
        control.dead.extend(0..=processes);
        control.watchers.clear();
        control.fault = None;
        control.boots += 1;
        drop(control);
        self.inner().lose_power();
    }

    /// How often it lost power.
    pub fn boots(&self) -> u64 {
        self.control().boots
    }

    /// Makes everything durable, as the system does by itself after a while.
    pub fn write_back(&self) {
        self.inner().persist_all();
    }

    /// The process's calls that `failure` concerns go well `spared` times, and then fail `times` times.
    pub fn fail(&self, failure: Failure, spared: u32, times: u32) {
        self.control().fault = Some(Fault { process: self.process, failure, spared, times });
    }

    /// Ends the faults of all processes.
    pub fn mend(&self) {
        self.control().fault = None;
    }

    /// Runs `hook` right before each call of any process; calls made inside it run none. It is told whose call it is, and
    /// for one that is about to take a name from something, the inode of that.
    pub fn on_call(&self, hook: impl FnMut(&Self, Option<u64>) + Send + 'static) {
        *self.hook() = Some(Box::new(hook));
    }

    /// From now on names that differ only by case, or by how an accent is written, are one.
    pub fn fold_names(&self) {
        self.inner().folds = true;
    }

    /// While deaf, changes are not reported to watchers.
    pub fn set_deaf(&self, deaf: bool) {
        self.control().deaf = deaf;
    }

    /// Calls so far, of all processes.
    pub fn calls(&self) -> u64 {
        self.control().calls
    }

    /// A number that depends on every change made so far.
    pub fn digest(&self) -> u64 {
        self.inner().digest
    }

    /// The number of the process.
    pub const fn number(&self) -> u32 {
        self.process
    }

    /// The process that wrote a file last; `None` for anything else.
    pub fn writer_of(&self, path: &[u8]) -> Option<u32> {
        let inner = self.inner();
        match &inner.get(inner.resolve(path).ok()?).ok()?.body {
            Body::File { writer, .. } => Some(*writer),
            _ => None,
        }
    }

    /// True when the bytes of a file and its whole path would survive a power cut.
    pub fn is_durable(&self, path: &[u8]) -> bool {
        self.inner().is_durable(path)
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    pub(super) fn open_root(&self, path: &[u8]) -> io::Result<MemoryDir> {
        let ino = self.call(Call::Look, |inner| {
            let ino = inner.resolve(path)?;
            inner.folder(ino)?;
            Ok(ino)
        })?;
        Ok(MemoryDir::new(self.clone(), ino))
    }

    pub(super) fn make_root(&self, path: &[u8]) -> io::Result<()> {
        let at = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (parent, name) = path.split_at(at);
        let name = Name::new(name.strip_prefix(b"/").unwrap_or(name)).map_err(|_| Errno::INVAL)?;
        self.open_root(if parent.is_empty() { b"/" } else { parent })?.make_dir(&name, 0o755)
    }

    /// Reports changes from now on, as long as this process lives.
    pub(super) fn watch(&self, report: Report) {
        self.control().watchers.push((self.process, report));
    }

    /// One call of this process: what others do first, then whether it fails, then what it does, then who hears of it.
    fn call<T>(&self, call: Call, work: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        self.call_on(call, None, work)
    }

    /// A call that takes this name of this folder from what has it.
    fn call_on<T>(
        &self,
        call: Call,
        name: Option<(u64, &Name)>,
        work: impl FnOnce(&mut Inner) -> io::Result<T>,
    ) -> io::Result<T> {
        let hook = self.hook().take();
        if let Some(mut hook) = hook {
            let ino = name.and_then(|(folder, name)| self.inner().child(folder, name).ok());
            hook(self, ino);
            self.hook().get_or_insert(hook);
        }
        self.admit(call)?;
        let mut inner = self.inner();
        inner.now_ns = self.shared.clock.wall_ns();
        inner.process = self.process;
        let done = work(&mut inner);
        let hints = std::mem::take(&mut inner.hints);
        drop(inner);
        self.report(hints);
        done
    }

    fn admit(&self, call: Call) -> io::Result<()> {
        let mut control = self.control();
        control.calls += 1;
        if control.dead.contains(&self.process) {
            return Err(Errno::IO.into());
        }
        let Some(fault) = control.fault.as_mut().filter(|fault| fault.process == self.process) else {
            return Ok(());
        };
        let error = match (fault.failure, call) {
            (Failure::Broken, Call::Read | Call::Write | Call::Sync) => Errno::IO,
            (Failure::Full, Call::Write) => Errno::NOSPC,
            _ => return Ok(()),
        };
        if fault.spared > 0 {
            fault.spared -= 1;
            return Ok(());
        }
        if fault.times == 0 {
            return Ok(());
        }
        fault.times -= 1;
        Err(error.into())
    }

    fn report(&self, hints: BTreeSet<Hint>) {
        let control = self.control();
        if hints.is_empty() || control.deaf {
            return;
        }
        let watchers: Vec<Report> = control.watchers.iter().map(|(_, report)| report.clone()).collect();
        drop(control);
        for hint in hints {
            watchers.iter().for_each(|report| report(hint.clone()));
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.shared.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hook(&self) -> MutexGuard<'_, Option<Hook>> {
        self.shared.hook.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
