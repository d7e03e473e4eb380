//! The client: keeps one folder equal to one share.
//!
//! ```text
//! watch, pushes, poll timer ──> trigger ──> session (one cycle at a time)
//!    observe the disk ─> upload new blocks ─┐
//!    changes of others ─────────────────────┴─> cycle (pure): reconcile, order ─> apply on disk ─> commit ─> save state
//! ```
//! What decides is in [`cycle`] (no IO) and in `reconcile`; the other files carry out. The base tree is saved only after
//! the disk has what it says, so that a crash anywhere repeats work and never loses or invents a change.

mod apply;
mod assemble;
mod basis;
mod commit;
pub mod cycle;
mod download;
mod durable;
mod error;
mod fresh;
mod greet;
pub mod history;
mod known;
mod large;
mod left;
mod live;
mod no_room;
mod observe;
mod origin;
mod patrol;
mod place;
pub mod progress;
mod pushed;
mod read;
mod reconnect;
mod repair;
pub mod restore;
mod reusable;
mod session;
mod similar;
mod sketching;
mod trigger;
mod upload;

pub use error::ClientError;
pub use progress::{Phase, Progress};

use crate::folder::{Cursor, Disk, Folder, FolderError, State, Update};
use crate::model::counters::Counters;
use crate::model::id_map::IdMap;
use crate::model::{BlockHash, DeviceId, FileContent, IdSource, Name, NodeId, RelPath};
use crate::tree::TreeNode;
use crate::wire::{Dial, Head};
use cycle::{Agreed, Cycle};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use trigger::Trigger;

/// What a client is to do.
#[derive(Clone)]
pub struct Config {
    /// `host:port`.
    pub server: String,
    /// Name of the share, if somebody says. A folder stays with its share, and a new one belongs to [`DEFAULT_SHARE`].
    pub share: Option<String>,
    /// Name of this device, part of the names of conflict copies.
    pub device_name: String,
    /// Time between polls.
    pub poll: Duration,
    /// Send deletes even when most files are gone.
    pub allow_mass_delete: bool,
    /// Threads that read and hash.
    pub threads: usize,
    /// The wall clock as `DATE TIME`, for names only.
    pub now: Arc<dyn Fn() -> String + Send + Sync>,
    /// How the server is reached.
    pub dialer: Arc<dyn Dial>,
    /// Random bytes from the system, for ids.
    pub seed: [u8; 32],
    /// Is told what happens.
    pub news: Arc<dyn Fn(News) + Send + Sync>,
}

/// The share when nobody says.
pub const DEFAULT_SHARE: &str = "default";
/// How it begins when this side's disk is full.
const NO_ROOM_HERE: &str = "the disk of this folder is full";

/// What happens, for whoever shows it.
#[derive(Debug)]
pub enum News {
    /// A session with the server began.
    Connected,
    /// The session ended, or none could be had; the next attempt follows.
    Lost(ClientError),
    /// The folder is equal to the share, for the first time in this session.
    InSync,
    /// Two versions of a file met; the other one is beside it under this path.
    Conflict(RelPath),
    /// One path cannot be synced now; the rest is.
    Problem(String),
    /// Sockets, fifos and devices: left alone. Said once.
    Special(Vec<RelPath>),
    /// A folder was deleted elsewhere; here it stays, because it holds sockets, fifos or devices. Said once.
    Stays(RelPath),
    /// Nothing is sent, because most files are gone.
    Held(ClientError),
    /// The server does not know this folder's past: nothing is deleted, both sides are joined.
    Rejoining,
    /// The folder is a copy of a synced one: so many files and folders that are missing or differ here are joined with the
    /// share, and nothing is deleted.
    Copied(usize),
    /// Files that an interrupted run had moved are in the folder again.
    Recovered(Vec<RelPath>),
    /// The state was damaged and set aside under this name; the folder joins as at first sync.
    StateSetAside(String),
    /// The system's limit of watches is reached.
    WatchLimited(&'static str),
}

/// How a one-time sync ended.
#[derive(Debug, Default)]
pub struct Done {
    /// Paths that could not be synced, with the cause.
    pub problems: Vec<String>,
}

/// A client of one folder.
pub struct Client {
    config: Config,
    /// The share that the folder belongs to.
    share: String,
    folder: Arc<Folder>,
    state: State,
    cycle: Cycle,
    /// A save failed: the cycle has agreed on more than the state knows, and the cursor must not pass it.
    is_behind: bool,
    /// The longest journal this session heard of: saved before nodes that may come from it.
    met_head: Option<Cursor>,
    /// What is gone here is neither sent as deleted nor a reason to stop, and what belongs to these paths comes back.
    leaves: Option<Vec<RelPath>>,
    /// How files look on disk that differ from the base, until both sides agree.
    looks: HashMap<NodeId, crate::folder::Stamp>,
    /// Other names of hard links whose folders were looked at for this look of the file.
    twins: HashMap<NodeId, crate::folder::Stamp>,
    /// Content root -> a node of the base that has it, so that copies are made here.
    roots: IdMap<u64, NodeId>,
    /// Nodes that cannot be read now; plans leave them alone.
    held: BTreeSet<NodeId>,
    /// How often in a row each path could not be read.
    unreadable: HashMap<RelPath, u32>,
    /// Nodes whose blocks the server turned out to lack.
    reupload: HashSet<NodeId>,
    /// Nodes that the user changed on disk, and that nobody has made durable since.
    unsynced: BTreeSet<NodeId>,
    /// What cannot be synced now, by path.
    problems: BTreeMap<String, String>,
    /// Problems that people know of.
    said: HashSet<String>,
    /// Both sides were equal in this session.
    was_equal: bool,
    /// The server was met in this run.
    met: bool,
    /// Sockets and the like have been mentioned.
    told_special: bool,
    /// Folders that stay for what is not synced have been mentioned.
    told_stays: BTreeSet<NodeId>,
    trigger: Trigger,
    /// Files are being put in place that are not recorded yet.
    placing: watch::Sender<bool>,
    counters: Arc<Counters>,
    progress: Arc<Progress>,
}

impl Client {
    /// Opens the folder (made if absent), loads its state and puts right what an interrupted run left.
    pub fn open(path: &Path, config: Config, now_ns: i64) -> Result<Self, ClientError> {
        Self::open_on(Disk::Kernel, path, config, now_ns)
    }

    /// [`Client::open`] on a disk of choice.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub fn open_on(disk: Disk, path: &Path, mut config: Config, now_ns: i64) -> Result<Self, ClientError> {
        let folder = Arc::new(Folder::open_on(disk, path, true)?);
        let (mut state, loaded) = folder.load_state()?;
        if let Some(name) = loaded.set_aside {
            (config.news)(News::StateSetAside(name));
        }
        state.starts_on(folder.disk());
        let mut ids = IdSource::new(config.seed);
        // Also when the state is lost: joined to another share, the folder would be poured into that one.
        let known = state.share.clone().or_else(|| folder.noted_share());
        let share = match (known, config.share.take()) {
            (Some(found), Some(asked)) if found != asked => {
                return Err(ClientError::OtherShare { found, asked });
            }
            (found, asked) => found.or(asked).unwrap_or_else(|| DEFAULT_SHARE.to_owned()),
        };
        if state.device.is_none() {
            let device = Some(DeviceId::from_bytes(ids.bytes16()));
            let share = state.share.clone();
            state.save(vec![Update::Account { store: state.store, share, device }], true)?;
        }
        if folder.is_copied() && !state.is_copied() {
            state.save(vec![Update::Copied(true)], true)?;
        }
        let recovered = folder.recover(&state, now_ns, &mut rescue_names(&config))?;
        if !recovered.put_back.is_empty() {
            (config.news)(News::Recovered(recovered.put_back));
        }
        let mut client = Self {
            config,
            share,
            folder,
            state,
            cycle: Cycle::new(ids),
            is_behind: false,
            met_head: None,
            leaves: None,
            looks: HashMap::new(),
            twins: HashMap::new(),
            roots: IdMap::default(),
            held: BTreeSet::new(),
            unreadable: HashMap::new(),
            reupload: HashSet::new(),
            unsynced: BTreeSet::new(),
            problems: BTreeMap::new(),
            said: HashSet::new(),
            was_equal: false,
            met: false,
            told_special: false,
            told_stays: BTreeSet::new(),
            trigger: Trigger::default(),
            placing: watch::Sender::new(false),
            counters: Arc::new(Counters::default()),
            progress: Arc::new(Progress::default()),
        };
        client.index_roots();
        Ok(client)
    }

    /// Work done so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// What is under way.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// From now on what is gone here is left as it is, here and on the server, however much it is; except what is at, below or
    /// above these paths, which comes back.
    pub fn leave_deleted(&mut self, back: Vec<RelPath>) {
        self.leaves = Some(back);
    }

    fn news(&self, news: News) {
        (self.config.news)(news);
    }

    fn index_roots(&mut self) {
        self.roots.clear();
        for (id, node) in self.state.base.iter() {
            let Some(content) = node.state.kind.content() else { continue };
            // Of twins the one with the lowest id, in whatever order they come.
            let twin = self.roots.entry(root_key(&content.root.hash)).or_insert(id);
            *twin = id.min(*twin);
        }
    }

    /// A file of the base that has these bytes.
    fn twin_of(&self, content: &FileContent) -> Option<NodeId> {
        let twin = *self.roots.get(&root_key(&content.root.hash))?;
        (self.state.base.get(twin)?.state.kind.content() == Some(content)).then_some(twin)
    }

    /// How a node's file looked last.
    fn stamp(&self, id: NodeId) -> Option<crate::folder::Stamp> {
        self.looks.get(&id).or_else(|| self.state.stamp(id)).copied()
    }

    /// Saves what both sides agree on.
    fn save(&mut self, agreed: Vec<Agreed>, durable: bool) -> Result<(), FolderError> {
        if agreed.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.sync_users(&agreed) {
            self.is_behind = true;
            return Err(error);
        }
        let mut batch = Vec::with_capacity(agreed.len());
        for (id, node) in agreed {
            match node {
                Some(node) => {
                    if let Some(content) = node.state.kind.content() {
                        self.roots.insert(root_key(&content.root.hash), id);
                    }
                    batch.push(self.put(id, node));
                }
                None => {
                    self.looks.remove(&id);
                    batch.push(Update::Remove(id));
                }
            }
        }
        let saved = self.save_nodes(batch, durable);
        self.is_behind |= saved.is_err();
        saved
    }

    /// Saves updates with nodes of the server's journal, after how long it was: if it turns out shorter at the next session,
    /// it lost them.
    fn save_nodes(&mut self, mut batch: Vec<Update>, durable: bool) -> Result<(), FolderError> {
        let head = self.met_head.filter(|head| !batch.is_empty() && self.state.head() != Some(*head));
        if let Some(head) = head {
            batch.insert(0, Update::Head(head));
        }
        self.state.save(batch, durable)
    }

    /// The journal of the server is this long.
    fn hear_of(&mut self, head: &Head) {
        if self.met_head.is_none_or(|met| met.journal != head.journal || met.seq < head.seq) {
            self.met_head = Some(Cursor { journal: head.journal, seq: head.seq, chain: head.chain });
        }
    }

    fn put(&mut self, id: NodeId, node: TreeNode) -> Update {
        Update::Put { id, node, stamp: self.looks.remove(&id) }
    }

    /// Starts over after the server lost its past, or another one answers: both sides are joined, nothing is deleted.
    fn rejoin(&mut self) -> Result<(), ClientError> {
        let old = std::mem::take(&mut self.state);
        // Without its log the client must not go on: what it agrees on would be forgotten.
        self.state = self.folder.forget_state(old).map_err(|error| {
            tracing::error!(%error, "state not set aside");
            FolderError::StateBroken { path: self.folder.path().into() }
        })?;
        self.cycle.forget_local();
        self.cycle.forget_remote();
        self.looks.clear();
        self.roots.clear();
        self.news(News::Rejoining);
        Ok(())
    }

    /// Everything is looked at again: what is still a problem is found again, and not said again.
    fn forget_settled_problems(&mut self) {
        self.unreadable.retain(|path, _| self.problems.contains_key(&path.to_string()));
        let known: HashSet<String> = std::mem::take(&mut self.problems).into_values().collect();
        self.said.retain(|line| known.contains(line));
    }

    /// This disk has no room for a file. Said once for all such files, by the first of them.
    fn has_no_room(&mut self, path: &str) {
        let known = self.said.iter().find(|line| line.starts_with(NO_ROOM_HERE)).cloned();
        let line = known.unwrap_or_else(|| {
            format!("{NO_ROOM_HERE}: no room for {path} and maybe others; what does not fit waits, everything else is synced")
        });
        self.problem(NO_ROOM_HERE.to_owned(), line);
    }

    /// One more path that cannot be synced now; said once until it is settled.
    fn problem(&mut self, path: String, line: String) {
        self.problems.insert(path, line.clone());
        if self.said.insert(line.clone()) {
            self.news(News::Problem(line));
        }
    }
}

/// The front of a content's hash: there is one for each file of the base, so they are kept short.
fn root_key(root: &BlockHash) -> u64 {
    root.as_bytes().first_chunk().map_or(0, |front| u64::from_le_bytes(*front))
}

/// Names for files that must not be lost: conflict names of this device.
fn rescue_names(config: &Config) -> impl FnMut(&Name, u32) -> Name + use<> {
    let (device, when) = (config.device_name.clone(), (config.now)());
    move |name, attempt| {
        let tried = std::cell::Cell::new(0);
        crate::reconcile::conflict_name(name, &device, &when, &|_| tried.replace(tried.get() + 1) < attempt)
    }
}
