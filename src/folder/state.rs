//! What the client remembers between runs: the agreed tree, how its files looked on disk, and how far it has read.
//!
//! The whole state is in memory; every change goes through [`State::save`] as one batch that is on disk whole or not
//! at all. A state that was damaged is set aside and the client starts as at a first sync: it is never trusted in part.
//!
//! Invariant: a node is put here only after its file is durable in the folder. Otherwise a power cut would leave a
//! short file that looks like an edit of the user.

use super::state_log::{self, StateLog};
use super::{Disk, Folder, FolderError, Identity, Stamp, names};
use crate::model::id_map::IdMap;
use crate::model::{ChainHash, DeviceId, JournalId, NodeId, NodeState, Seq, StoreId};
use crate::tree::{Tree, TreeNode};
use serde::{Deserialize, Serialize};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// How far the client has read the share's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which life of the journal.
    pub journal: JournalId,
    /// Everything up to here is in the base.
    pub seq: Seq,
    /// The chain at `seq`: a server that answers with another one has lost or changed its past.
    pub chain: ChainHash,
}

/// One step of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The node is agreed at this version and state. `None` keeps the stamp it has.
    Put {
        /// Which node.
        id: NodeId,
        /// Version and state.
        node: TreeNode,
        /// How its file looks on disk.
        stamp: Option<Stamp>,
    },
    /// The node is agreed to be gone. Its children are updates of their own.
    Remove(NodeId),
    /// Only the look of the file changed, not the node.
    Look(NodeId, Stamp),
    /// Read up to here; `None` to read from the start again.
    Cursor(Option<Cursor>),
    /// The journal was at least this long when the nodes that follow came from it.
    Head(Cursor),
    /// Which share of which store this folder belongs to, and as which device.
    Account {
        /// The store.
        store: Option<StoreId>,
        /// The share's name.
        share: Option<String>,
        /// This client.
        device: Option<DeviceId>,
    },
    /// A file with this look is about to be put in place as this node. If that happened, and the program ended before
    /// it could be recorded, [`Folder::settle_intents`] records it: a file that came from the server must not look like
    /// one that the user made.
    Intend {
        /// Which node.
        id: NodeId,
        /// Version and state.
        node: TreeNode,
        /// How the staged file looks; [`Stamp::NONE`] for a folder that is to be made.
        stamp: Stamp,
    },
    /// This state (`None`: a deletion) is about to be sent. If the server took it and the answer never came, what it
    /// then has is this client's own work, and no one else's.
    Sent {
        /// Which node.
        id: NodeId,
        /// As sent.
        sent: Sent,
    },
    /// The server refused what was sent last for this node, or it was never sent.
    Unsent(NodeId),
    /// The machine has run since then without a stop, under this id. A power cut may have torn what was sent: it is not
    /// known again.
    Boot([u8; 16]),
    /// The folder is a copy of a synced one, and what it lacks or has otherwise was not compared with the share yet.
    Copied(bool),
}

/// What was sent for a node and not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The state; `None` for a deletion.
    pub state: Option<NodeState>,
    /// How its file looked.
    pub stamp: Option<Stamp>,
}

/// Unanswered states kept for one node; the oldest goes first.
const SENT_PER_NODE_MAX: usize = 4;
/// Nodes with unanswered states. Past it all of them are forgotten: then such a commit is taken for another device's.
const SENT_NODES_MAX: usize = 65_536;

impl Update {
    /// The node it is about.
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::Put { id, .. }
            | Self::Remove(id)
            | Self::Look(id, _)
            | Self::Intend { id, .. }
            | Self::Sent { id, .. }
            | Self::Unsent(id) => Some(*id),
            Self::Cursor(_) | Self::Head(_) | Self::Boot(_) | Self::Copied(_) | Self::Account { .. } => None,
        }
    }
}

/// Updates that become true together.
pub type Batch = Vec<Update>;

/// What was found when the state was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// There was no state: a first sync.
    pub first: bool,
    /// Bytes of an unfinished batch that were cut off.
    pub torn_bytes: u64,
    /// The state was damaged; its file is kept under this name in the private part.
    pub set_aside: Option<String>,
}

/// The persistent state of one synced folder.
#[derive(Debug, Default)]
pub struct State {
    /// The nodes both sides last agreed on.
    pub base: Tree,
    /// How far the journal was read.
    pub cursor: Option<Cursor>,
    /// How long the journal was when nodes of the base came from it; the cursor may lag behind.
    head: Option<Cursor>,
    /// True in a copy of a synced folder until [`State::join_copy`].
    copied: bool,
    /// The run of the machine in which everything of `sent` was sent.
    boot: Option<[u8; 16]>,
    /// The store.
    pub store: Option<StoreId>,
    /// The share's name.
    pub share: Option<String>,
    /// This client.
    pub device: Option<DeviceId>,
    looks: Looks,
    /// Announced and not recorded since.
    pub(super) intents: BTreeMap<NodeId, (TreeNode, Stamp)>,
    /// Sent and not answered, oldest first.
    sent: BTreeMap<NodeId, Vec<Sent>>,
    log: Option<StateLog>,
}

/// How the files of the base looked on disk, also found by identity.
#[derive(Debug, Default)]
struct Looks {
    stamps: IdMap<NodeId, Stamp>,
    owners: IdMap<Identity, NodeId>,
    /// Further nodes of one identity: hard links.
    more_owners: BTreeSet<(Identity, NodeId)>,
    files: usize,
}

impl Looks {
    fn put(&mut self, id: NodeId, stamp: Stamp) {
        let old = self.stamps.insert(id, stamp);
        if old.is_some_and(|old| old.identity() == stamp.identity()) {
            return;
        }
        if let Some(old) = old {
            self.disown(id, old.identity());
        }
        match self.owners.entry(stamp.identity()) {
            Entry::Vacant(free) => {
                free.insert(id);
            }
            Entry::Occupied(_) => {
                self.more_owners.insert((stamp.identity(), id));
            }
        }
    }

    fn remove(&mut self, id: NodeId) {
        if let Some(old) = self.stamps.remove(&id) {
            self.disown(id, old.identity());
        }
    }

    fn disown(&mut self, id: NodeId, identity: Identity) {
        self.more_owners.remove(&(identity, id));
        if self.owners.get(&identity) != Some(&id) {
            return;
        }
        let next = self.others(identity).next();
        match next {
            Some(next) => {
                self.more_owners.remove(&(identity, next));
                self.owners.insert(identity, next);
            }
            None => {
                self.owners.remove(&identity);
            }
        }
    }

    fn others(&self, identity: Identity) -> impl Iterator<Item = NodeId> {
        self.more_owners
            .range((identity, NodeId::ROOT)..)
            .take_while(move |(at, _)| *at == identity)
            .map(|(_, id)| *id)
    }
}

impl State {
    /// A state without a file: for tests and simulation. [`State::save`] changes memory only.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// How a node's file looked when it was last agreed.
    pub fn stamp(&self, id: NodeId) -> Option<&Stamp> {
        self.looks.stamps.get(&id)
    }

    /// The nodes whose file had this identity: one, or more with hard links.
    pub fn owners(&self, identity: Identity) -> impl Iterator<Item = NodeId> {
        self.looks.owners.get(&identity).copied().into_iter().chain(self.looks.others(identity))
    }

    /// The end of the journal that the base may have nodes of. A server whose journal has it no more has lost its past, even
    /// if it still has the cursor.
    pub fn head(&self) -> Option<Cursor> {
        let newer =
            |head: &Cursor| self.cursor.is_none_or(|at| at.journal == head.journal && at.seq <= head.seq);
        self.head.filter(newer).or(self.cursor)
    }

    /// Forgets what was sent before the machine last started. Call before anything is sent. A disk that is full does not
    /// keep it from that: unsaved, it is forgotten once more the next time.
    pub fn starts_on(&mut self, disk: &Disk) {
        let boot = Update::Boot(disk.boot());
        if self.boot == Some(disk.boot()) {
            return;
        }
        if let Err(error) = self.save(vec![boot.clone()], false) {
            tracing::debug!(%error, "start of the machine not saved");
            self.apply(boot);
        }
    }

    /// True when the folder is a copy of a synced one and nobody knows whether it is whole.
    pub const fn is_copied(&self) -> bool {
        self.copied
    }

    /// In a copy, or for what shall come back: forgets that `differing` nodes, and all below them, were ever agreed, and how
    /// far the journal was read. The next sync joins them with the share, in which nothing is deleted. What is as it was
    /// stays agreed, so that nothing that others deleted comes back. Returns how many nodes were forgotten.
    ///
    /// # Errors
    /// As [`State::save`].
    pub fn join_copy(&mut self, differing: &BTreeSet<NodeId>) -> Result<usize, FolderError> {
        let is_below = |id| self.base.upwards(id).any(|(above, _)| differing.contains(&above));
        let gone: Vec<NodeId> = self.base.iter().map(|(id, _)| id).filter(|id| is_below(*id)).collect();
        let count = gone.len();
        let forgotten = gone.into_iter().map(Update::Remove);
        self.save(forgotten.chain([Update::Cursor(None), Update::Copied(false)]).collect(), true)?;
        Ok(count)
    }

    /// What was sent and not answered, oldest first for each node.
    pub const fn sent(&self) -> &BTreeMap<NodeId, Vec<Sent>> {
        &self.sent
    }

    /// Files and symlinks in the base.
    pub const fn tracked_files(&self) -> usize {
        self.looks.files
    }

    /// Makes a batch true, on disk first. With `durable` it survives a power cut when this returns; without, it
    /// becomes durable together with the next durable batch.
    ///
    /// # Errors
    /// Nothing of the batch is true, in memory or after a restart. After a failed sync every further call fails too:
    /// what is on disk is no longer known.
    pub fn save(&mut self, batch: Batch, durable: bool) -> Result<(), FolderError> {
        if let Some(log) = &mut self.log {
            log.append(&batch, durable)?;
        }
        for update in batch {
            self.apply(update);
        }
        self.rewrite_if(StateLog::is_mostly_garbage)
    }

    /// Rewrites the file when much of it is void: at rest, when nobody waits for it. The next start then reads less.
    ///
    /// # Errors
    /// As [`State::save`]; a full disk is none.
    pub fn tidy(&mut self) -> Result<(), FolderError> {
        self.rewrite_if(StateLog::is_partly_garbage)
    }

    fn rewrite_if(&mut self, pays: fn(&StateLog, usize) -> bool) -> Result<(), FolderError> {
        let live = self.base.len() + self.sent.len();
        let Some(mut log) = self.log.take() else { return Ok(()) };
        let done = if pays(&log, live) { log.rewrite(self.everything()) } else { Ok(()) };
        self.log = Some(log);
        done
    }

    /// Changes memory only.
    pub(super) fn apply(&mut self, update: Update) {
        match update {
            Update::Put { id, node, stamp } => {
                self.intents.remove(&id);
                self.sent.remove(&id);
                self.looks.files += usize::from(!node.state.kind.is_folder());
                let old = self.base.insert(id, node);
                self.looks.files -= usize::from(old.is_some_and(|old| !old.state.kind.is_folder()));
                if let Some(stamp) = stamp {
                    self.looks.put(id, stamp);
                }
            }
            Update::Remove(id) => {
                self.intents.remove(&id);
                self.sent.remove(&id);
                let old = self.base.remove(id);
                self.looks.files -= usize::from(old.is_some_and(|old| !old.state.kind.is_folder()));
                self.looks.remove(id);
            }
            Update::Look(id, stamp) => self.looks.put(id, stamp),
            Update::Cursor(cursor) => {
                // Everything up to there is in the base: nothing is on its way to its place.
                self.intents.clear();
                self.cursor = cursor;
            }
            Update::Head(head) => self.head = Some(head),
            Update::Copied(copied) => self.copied = copied,
            Update::Boot(boot) => {
                if self.boot.replace(boot) != Some(boot) {
                    self.sent.clear();
                }
            }
            Update::Intend { id, node, stamp } => drop(self.intents.insert(id, (node, stamp))),
            Update::Sent { id, sent } => {
                if self.sent.len() >= SENT_NODES_MAX && !self.sent.contains_key(&id) {
                    self.sent.clear();
                }
                let list = self.sent.entry(id).or_default();
                if list.len() >= SENT_PER_NODE_MAX {
                    list.remove(0);
                }
                list.push(sent);
            }
            Update::Unsent(id) => {
                if let std::collections::btree_map::Entry::Occupied(mut list) = self.sent.entry(id) {
                    list.get_mut().pop();
                    if list.get().is_empty() {
                        list.remove();
                    }
                }
            }
            Update::Account { store, share, device } => {
                (self.store, self.share, self.device) = (store, share, device);
            }
        }
    }

    /// Everything there is, as one batch: folders before what they hold.
    fn everything(&self) -> impl Iterator<Item = Update> {
        let account = Update::Account { store: self.store, share: self.share.clone(), device: self.device };
        let nodes = self.base.iter().map(|(id, node)| Update::Put {
            id,
            node: node.clone(),
            stamp: self.stamp(id).copied(),
        });
        let intents = self.intents.iter().map(|(id, (node, stamp))| Update::Intend {
            id: *id,
            node: node.clone(),
            stamp: *stamp,
        });
        let sent = self.sent.iter().flat_map(|(id, list)| list.iter().map(|sent| (*id, sent.clone())));
        let sent = sent.map(|(id, sent)| Update::Sent { id, sent });
        let head = self.head.map(Update::Head);
        let boot = self.boot.map(Update::Boot);
        let copied = self.copied.then_some(Update::Copied(true));
        let facts = head.into_iter().chain(boot).chain(copied);
        [account, Update::Cursor(self.cursor)]
            .into_iter()
            .chain(facts)
            .chain(nodes)
            .chain(intents)
            .chain(sent)
    }
}

impl Folder {
    /// Loads the state, or starts a new one when there is none or it is damaged.
    ///
    /// # Errors
    /// [`FolderError::NewerVersion`] when a newer program wrote it, and failures of the disk. Damage is no error.
    pub fn load_state(&self) -> Result<(State, Loaded), FolderError> {
        let shown = || self.path().join(crate::model::path::PRIVATE_DIR).join("state");
        let Some(bytes) = StateLog::read(&self.private).map_err(self.failed_private("read the state in"))?
        else {
            return Ok((self.new_state()?, Loaded { first: true, ..Loaded::default() }));
        };
        match state_log::replay(&bytes) {
            Ok(replayed) => {
                let len = bytes.len() as u64;
                let torn_bytes = len.saturating_sub(replayed.whole_bytes);
                let mut state = replayed.state;
                let log = StateLog::open(&self.private, shown(), replayed.whole_bytes, replayed.updates);
                state.log = Some(log.map_err(self.failed_private("open the state in"))?);
                Ok((state, Loaded { torn_bytes, ..Loaded::default() }))
            }
            Err(state_log::Unreadable::Newer(found)) => Err(FolderError::NewerVersion {
                path: shown().as_path().into(),
                found,
                known: super::STATE_VERSION,
            }),
            Err(state_log::Unreadable::Damaged) => {
                let name = self.set_state_aside("damaged")?;
                Ok((self.new_state()?, Loaded { set_aside: Some(name), ..Loaded::default() }))
            }
        }
    }

    /// Forgets everything that was agreed, after the server lost or rolled back its store: the next sync is a union,
    /// in which nothing is deleted. Share and device are kept; the old file is set aside.
    pub fn forget_state(&self, old: State) -> Result<State, FolderError> {
        self.set_state_aside("forgotten")?;
        let mut state = self.new_state()?;
        let account = Update::Account { store: None, share: old.share, device: old.device };
        state.save(std::iter::once(account).chain(old.boot.map(Update::Boot)).collect(), true)?;
        Ok(state)
    }

    fn new_state(&self) -> Result<State, FolderError> {
        let path = self.path().join(crate::model::path::PRIVATE_DIR).join("state");
        let log = StateLog::create(&self.private, path).map_err(self.failed_private("make the state in"))?;
        Ok(State { log: Some(log), ..State::default() })
    }

    /// Renames the state file to the first free `state.WHY-N`.
    fn set_state_aside(&self, why: &str) -> Result<String, FolderError> {
        let moved = || -> io::Result<String> {
            for n in 1..=10_000u32 {
                let text = format!("state.{why}-{n}");
                match self.private.rename_to_free(&names::own("state")?, &self.private, &names::own(&text)?) {
                    Ok(()) => {
                        self.private.sync()?;
                        return Ok(text);
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
            }
            Err(io::ErrorKind::AlreadyExists.into())
        };
        moved().map_err(self.failed_private("set aside the state in"))
    }
}
