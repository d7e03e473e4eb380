//! Watching the folder: which folders to scan, as soon as something changes in them. The only file that names the
//! `notify` crate.
//!
//! Hints, not facts: every hint leads to a scan of a folder, and a hint too many costs a few microseconds. Each folder
//! is watched by itself, watch first and list second, so that nothing made in a new folder is missed; `.dropblock` and
//! symlinks are never watched. What the kernel does not tell (writes through mmap, other hosts on a network
//! filesystem, folders beyond `PATH_MAX`) is left to the periodic full scan of the client.

use super::fs::Dir;
use super::{Disk, EntryKind, FolderError, is_absent};
use crate::model::path::PRIVATE_DIR;
use crate::model::{Name, RelPath};
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RemoveKind, RenameMode};
use notify::{Config, ErrorKind, Event, INotifyWatcher, RecursiveMode, Watcher as _};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A new folder is reported a second time after this: what was made in it in the first instants, before it was
/// watched, may have been listed before it was complete.
const SECOND_LOOK: Duration = Duration::from_millis(40);

/// A file that is written to without being closed is reported after this, and then at most this often.
const WRITING: Duration = Duration::from_millis(200);

/// What to do about a limit of the system.
const WATCH_LIMIT_ADVICE: &str = "too many folders to watch them all: changes are found by scanning, which is \
     slower; raise the limit with `sysctl fs.inotify.max_user_watches=1048576`";
const INSTANCE_LIMIT_ADVICE: &str = "too many programs watch folders: changes are found by scanning, which is slower; \
     raise the limit with `sysctl fs.inotify.max_user_instances=1024`";

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// Names in this folder, or files under them.
    Dirty(RelPath),
    /// Anything: events were lost, or the top folder itself changed.
    Rescan,
}

/// A running watch. Stops when dropped.
#[derive(Debug)]
pub struct Watcher {
    /// `None` for a disk in memory, which reports by itself, and when the system has none left.
    inotify: Option<Inotify>,
    is_blind: bool,
    limited: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Inotify {
    jobs: Sender<Job>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    /// A folder was made, moved or removed here: what is here now has to be watched.
    Changed(RelPath),
    /// These folders, or all, should be watched already.
    Again(Option<BTreeSet<RelPath>>),
    /// A file in this folder is being written to.
    Writing(RelPath),
    Stop,
}

type Report = Arc<Mutex<dyn Fn(Hint) + Send>>;

impl Watcher {
    /// Watches everything below `root` (absolute). `on_event` is called from threads of its own and should only push
    /// into a queue. Returns when all folders are watched, so that what changes from now on is reported.
    ///
    /// # Errors
    /// The folder cannot be opened. Too few watches, or none, are no error: see [`Watcher::is_limited`].
    pub fn start(root: &Path, on_event: impl Fn(Hint) + Send + 'static) -> Result<Self, FolderError> {
        Self::start_kernel(root, Arc::new(Mutex::new(on_event)))
    }

    /// [`Watcher::start`] for a folder on a disk of choice.
    ///
    /// # Errors
    /// As [`Watcher::start`].
    pub fn start_on(
        disk: &Disk,
        root: &Path,
        on_event: impl Fn(Hint) + Send + Sync + 'static,
    ) -> Result<Self, FolderError> {
        match disk {
            Disk::Kernel => Self::start(root, on_event),
            Disk::Memory(disk) => {
                disk.watch(Arc::new(on_event));
                Ok(Self { inotify: None, is_blind: false, limited: Arc::default() })
            }
        }
    }

    fn start_kernel(root: &Path, report: Report) -> Result<Self, FolderError> {
        let (jobs, inbox) = channel();
        let handler = {
            let (root, report, jobs) = (root.to_owned(), Arc::clone(&report), jobs.clone());
            move |event| handle(&root, event, &report, &jobs)
        };
        let config = Config::default().with_follow_symlinks(false);
        let inotify = match INotifyWatcher::new(handler, config) {
            Ok(inotify) => inotify,
            Err(error) => {
                tracing::debug!(%error, "no watches");
                return Ok(Self { inotify: None, is_blind: true, limited: Arc::new(AtomicBool::new(true)) });
            }
        };
        let dir = Dir::open_root(root).map_err(|error| FolderError::from_io("watch", root, error))?;
        let limited = Arc::new(AtomicBool::new(false));
        let mut settler =
            Settler { root: root.to_owned(), dir, inotify, report, limited: Arc::clone(&limited) };
        settler.watch_tree(&RelPath::root());
        let thread = std::thread::Builder::new()
            .name("folder-watch".into())
            .spawn(move || settler.run(&inbox))
            .map_err(|error| FolderError::from_io("watch", root, error))?;
        Ok(Self { inotify: Some(Inotify { jobs, thread: Some(thread) }), is_blind: false, limited })
    }

    /// True when some folders, or all, are not watched because a limit was reached: scan periodically.
    pub fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    /// Makes sure that these folders are watched, or all: watches can get lost when folders change places faster than the
    /// events about it are read. To be called now and then; comes back at once.
    pub fn watch_again(&self, folders: Option<BTreeSet<RelPath>>) {
        if let Some(inotify) = self.inotify.as_ref().filter(|_| !self.is_limited()) {
            let _ = inotify.jobs.send(Job::Again(folders));
        }
    }

    /// What to do about it, for people.
    pub fn limit_advice(&self) -> Option<&'static str> {
        self.is_limited().then_some(if self.is_blind { INSTANCE_LIMIT_ADVICE } else { WATCH_LIMIT_ADVICE })
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        let _ = self.jobs.send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn send(report: &Report, hint: Hint) {
    report.lock().unwrap_or_else(PoisonError::into_inner)(hint);
}

/// Runs on notify's thread: must not call notify.
fn handle(root: &Path, event: notify::Result<Event>, report: &Report, jobs: &Sender<Job>) {
    let event = match event {
        // Our own reading of files makes floods of these.
        Ok(event) if is_only_reading(event.kind) => return,
        Ok(event) => event,
        Err(_) => return send(report, Hint::Rescan),
    };
    // Before the paths: the event of a full queue has none.
    if event.need_rescan() {
        return send(report, Hint::Rescan);
    }
    let changed = is_of_a_folder(event.kind);
    for path in &event.paths {
        let Some(path) = relative(root, path) else { continue };
        match path.split_last() {
            // The top itself: deleted, moved or its mode changed.
            None => send(report, Hint::Rescan),
            Some((parent, _)) if matches!(event.kind, EventKind::Modify(ModifyKind::Data(_))) => {
                let _ = jobs.send(Job::Writing(parent));
            }
            Some((parent, _)) => send(report, Hint::Dirty(parent)),
        }
        if changed {
            let _ = jobs.send(Job::Changed(path));
        }
    }
}

const fn is_only_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}

/// True when a folder may be at the path now, or another one than before. Also when one has left: notify then forgets the watch
/// of the path, and of all paths below it, although a folder that came after may be watched there by now.
const fn is_of_a_folder(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Create(CreateKind::Folder)
            | EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::To))
            | EventKind::Remove(RemoveKind::Folder | RemoveKind::Other)
    )
}

/// The path below the top; `None` outside, in the private part, and for what is no valid path.
fn relative(root: &Path, path: &Path) -> Option<RelPath> {
    let below = RelPath::parse(path.strip_prefix(root).ok()?.as_os_str().as_bytes()).ok()?;
    let is_private = below.names().first().is_some_and(Name::is_private_dir);
    (!is_private).then_some(below)
}

/// Folders to report later, each once.
#[derive(Default)]
struct Later {
    by_path: BTreeMap<RelPath, Instant>,
    by_time: BTreeSet<(Instant, RelPath)>,
}

impl Later {
    fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// A folder that is waiting already keeps its time.
    fn add(&mut self, path: RelPath, at: Instant) {
        if !self.by_path.contains_key(&path) {
            self.by_path.insert(path.clone(), at);
            self.by_time.insert((at, path));
        }
    }

    fn due(&mut self, now: Instant) -> Vec<RelPath> {
        let mut due = Vec::new();
        while self.next().is_some_and(|at| at <= now) {
            if let Some((_, path)) = self.by_time.pop_first() {
                self.by_path.remove(&path);
                due.push(path);
            }
        }
        due
    }
}

/// Adds watches for new folders, and reports these a second time.
struct Settler {
    root: PathBuf,
    dir: Dir,
    inotify: INotifyWatcher,
    report: Report,
    limited: Arc<AtomicBool>,
}

impl Settler {
    fn run(mut self, inbox: &Receiver<Job>) {
        let mut later = Later::default();
        loop {
            let wait = later
                .next()
                .map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
            let mut changed = BTreeSet::new();
            let mut job = inbox.recv_timeout(wait);
            loop {
                match job {
                    Ok(Job::Changed(path)) => drop(changed.insert(path)),
                    Ok(Job::Again(folders)) => self.watch_again(folders),
                    Ok(Job::Writing(path)) => later.add(path, Instant::now() + WRITING),
                    Err(RecvTimeoutError::Timeout) => break,
                    Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                }
                job = inbox.try_recv().map_err(|_| RecvTimeoutError::Timeout);
            }
            for path in self.watch_all(&changed) {
                later.add(path, Instant::now() + SECOND_LOOK);
            }
            for path in later.due(Instant::now()) {
                send(&self.report, Hint::Dirty(path));
            }
        }
    }

    fn watch_again(&mut self, folders: Option<BTreeSet<RelPath>>) {
        let Some(folders) = folders else { return drop(self.watch_tree(&RelPath::root())) };
        for path in folders {
            if self.is_folder(&path) {
                self.watch_one(&path);
            }
        }
    }

    /// Watches and reports whole subtrees; those inside another one only once.
    fn watch_all(&mut self, roots: &BTreeSet<RelPath>) -> BTreeSet<RelPath> {
        let mut folders = BTreeSet::new();
        let mut last: Option<&RelPath> = None;
        for path in roots {
            if last.is_some_and(|last| path.starts_with(last)) {
                continue;
            }
            last = Some(path);
            folders.extend(self.watch_tree(path));
        }
        for path in &folders {
            send(&self.report, Hint::Dirty(path.clone()));
        }
        folders
    }

    /// Watches a folder and all below it; nothing when it is not a folder. Returns the folders.
    fn watch_tree(&mut self, path: &RelPath) -> Vec<RelPath> {
        if !self.is_folder(path) {
            return Vec::new();
        }
        let mut folders = vec![path.clone()];
        let mut next = 0;
        while let Some(path) = folders.get(next).cloned() {
            next += 1;
            self.watch_one(&path);
            let Ok(dir) = self.dir.open_below(&path) else { continue };
            let Ok(names) = dir.list() else { continue };
            for listed in names {
                let kind = listed.hint.or_else(|| dir.meta(&listed.name).ok().map(|meta| meta.kind));
                let is_private = path.is_root() && listed.name.as_bytes() == PRIVATE_DIR.as_bytes();
                if kind == Some(EntryKind::Folder) && !is_private {
                    folders.push(path.join(&listed.name));
                }
            }
        }
        folders
    }

    fn is_folder(&self, path: &RelPath) -> bool {
        match self.dir.open_below(path) {
            Ok(_) => true,
            Err(error) => !is_absent(&error),
        }
    }

    fn watch_one(&mut self, path: &RelPath) {
        let full = if path.is_root() { self.root.clone() } else { self.root.join(path.to_os_path()) };
        match self.inotify.watch(&full, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                self.limited.store(true, Ordering::Relaxed);
            }
            // Gone meanwhile, unreadable, or its path too long: left to the periodic scan.
            Err(error) => tracing::debug!(%path, %error, "cannot watch"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_a_path_makes_it_watched_anew() {
        let (jobs, inbox) = channel();
        let (hints, _hinted) = channel();
        let report: Report = Arc::new(Mutex::new(move |hint| drop(hints.send(hint))));
        let changed = |kind: EventKind| {
            let event = Event::new(kind).add_path(PathBuf::from("/top/d/e"));
            handle(Path::new("/top"), Ok(event), &report, &jobs);
            inbox.try_iter().any(|job| matches!(job, Job::Changed(path) if path.to_string() == "d/e"))
        };
        let renamed = |mode| EventKind::Modify(ModifyKind::Name(mode));
        assert!(changed(renamed(RenameMode::From)) && changed(renamed(RenameMode::To)));
        assert!(
            changed(EventKind::Remove(RemoveKind::Folder)) && changed(EventKind::Create(CreateKind::Folder))
        );
        assert!(
            !changed(EventKind::Remove(RemoveKind::File)) && !changed(EventKind::Create(CreateKind::File))
        );
    }

    #[test]
    fn a_watch_that_got_lost_is_set_again() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("d/e")).unwrap();
        let (hints, hinted) = channel();
        let report: Report = Arc::new(Mutex::new(move |hint| drop(hints.send(hint))));
        let (jobs, _inbox) = channel();
        let handler = {
            let (root, report) = (root.clone(), Arc::clone(&report));
            move |event| handle(&root, event, &report, &jobs)
        };
        let inotify = INotifyWatcher::new(handler, Config::default()).unwrap();
        let dir = Dir::open_root(&root).unwrap();
        let mut settler = Settler { root: root.clone(), dir, inotify, report, limited: Arc::default() };
        let e = RelPath::parse(b"d/e").unwrap();
        let mut is_seen = |again: Option<BTreeSet<RelPath>>, path: &RelPath| {
            settler.inotify.unwatch(&root.join(path.to_os_path())).ok();
            settler.watch_again(again);
            while hinted.recv_timeout(Duration::from_millis(100)).is_ok() {}
            std::fs::write(root.join(path.to_os_path()).join("x"), "1").unwrap();
            hinted.recv_timeout(Duration::from_millis(if path == &e { 5000 } else { 200 })).is_ok()
        };
        assert!(is_seen(Some([e.clone()].into()), &e) && is_seen(None, &e));
        assert!(
            !is_seen(Some([e.clone()].into()), &RelPath::parse(b"d").unwrap()),
            "only what was asked for"
        );
    }
}
