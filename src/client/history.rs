//! Asking the server about the past of a share. Needs no folder and no lock: a sync of the folder may be running.

use super::ClientError;
use crate::model::counters::Counters;
use crate::model::past::{Found, LOOK_FOLDERS_MAX, Look, Moment, PastNode, Versions};
use crate::model::{DeviceId, Name, Node, NodeId, RelPath, Seq, StoreId, limits};
use crate::tree::{Tree, TreeNode};
use crate::wire::handshake::features;
use crate::wire::{Connection, Dial, ErrorCode, Hello, Options, WireError};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Why a question about the past has no answer, or a restore was not made.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The server, or the way to it, failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server is older than this.
    #[error("{0} tells no history: it runs an older dropblock")]
    NoHistory(String),
    /// The folder was synced with another store.
    #[error("{0} has another store than the one this folder was synced with")]
    OtherStore(String),
    /// Nothing like it ever was in the share.
    #[error("{0} never was in this share")]
    NeverWas(RelPath),
    /// It was not there at that time.
    #[error("{path} was not there {when}; `dropblock log` shows when it was")]
    NotThere {
        /// What was asked for.
        path: RelPath,
        /// As people say it.
        when: String,
    },
    /// The share did not exist at that time.
    #[error("nothing was in this share {0}")]
    TooEarly(String),
    /// The version is not there yet.
    #[error("there is no version {asked}; the latest is {head}")]
    NoVersion {
        /// As asked.
        asked: Seq,
        /// The head.
        head: Seq,
    },
    /// The content of files is gone, or may be.
    #[error(
        "{path} is not kept any more as it was then: the retention time of the server is over, or its store lacks blocks of it (see dropblock check)"
    )]
    NotKept {
        /// The first of them.
        path: RelPath,
        /// How many there are.
        lost: usize,
        /// How many of what was asked for can be restored.
        left: usize,
    },
    /// Something that is not a folder is where a folder must be.
    #[error("{0} is not a folder now; restore to another place with --to")]
    InTheWay(RelPath),
    /// The place for a copy is taken.
    #[error("{0} is there already; name a place that is free")]
    Exists(RelPath),
    /// This device may not change the share.
    #[error("this device may look and not change: restore on one that may")]
    ReadOnly,
    /// Others change the same files all the time.
    #[error("{0} keeps changing; a part of it may be restored, run it again")]
    Restless(RelPath),
    /// The server does not hold the content, though it should.
    #[error(
        "the server does not hold what {0} was made of; a part may be restored, see `dropblock log`; run `dropblock check` on its store"
    )]
    BlocksLost(RelPath),
}

impl From<WireError> for HistoryError {
    fn from(error: WireError) -> Self {
        Self::Client(error.into())
    }
}

/// Whom to ask about what.
#[derive(Clone)]
pub struct Ask {
    /// `host:port`.
    pub server: String,
    /// How the server is reached.
    pub dialer: Arc<dyn Dial>,
    /// Name of the share.
    pub share: String,
    /// The store that the folder was synced with.
    pub store: Option<StoreId>,
    /// The client, if the folder has one.
    pub device: Option<DeviceId>,
    /// Its name for people; a restore is logged under it.
    pub device_name: String,
}

/// An open session with a server that tells the past.
#[derive(Debug)]
pub struct Historian {
    pub(super) connection: Connection,
}

impl Historian {
    /// Connects.
    pub async fn open(ask: Ask) -> Result<Self, HistoryError> {
        let Ask { server, dialer, share, store, device, device_name } = ask;
        let link =
            dialer.dial(&server).await.map_err(|error| super::greet::unreachable_or(error, &server))?;
        let device = device.unwrap_or(DeviceId::from_bytes([0; 16]));
        let mut hello = Hello::new(device, device_name, share, None);
        hello.features_required |= features::HISTORY;
        hello.auth = link.auth;
        let counters = Arc::new(Counters::default());
        let opened = Connection::open(link.reader, link.writer, hello, Options::default(), counters);
        let (connection, _) = match opened.await {
            Ok(opened) => opened,
            Err(error) if error.code() == ErrorCode::Feature => return Err(HistoryError::NoHistory(server)),
            Err(source) => return Err(ClientError::Wire { server, source }.into()),
        };
        if store.is_some_and(|store| store != connection.welcome().store) {
            return Err(HistoryError::OtherStore(server));
        }
        Ok(Self { connection })
    }

    /// Ends the session.
    pub async fn close(&self) {
        self.connection.close(ErrorCode::Done, "").await;
    }

    /// Where a moment lies in the share's journal.
    pub async fn find(&self, at: Moment) -> Result<Found, HistoryError> {
        Ok(self.connection.find(at).await?)
    }

    /// A page of what became of everything that ever stood at a path or below it, latest first.
    pub async fn versions(
        &self,
        path: &RelPath,
        before: Option<(Seq, NodeId)>,
    ) -> Result<Versions, HistoryError> {
        Ok(self.connection.versions(path.names().to_vec(), before).await?)
    }

    /// The nodes along a path below `from` after a commit, as far as it goes.
    pub(super) async fn along(
        &self,
        at: Seq,
        from: NodeId,
        names: &[Name],
    ) -> Result<Vec<PastNode>, HistoryError> {
        let seen = self.connection.look(at, Look::Path { from, names: names.to_vec() }).await?;
        Ok(seen.nodes)
    }

    /// Single nodes after a commit.
    pub(super) async fn nodes(
        &self,
        at: Seq,
        ids: &[NodeId],
    ) -> Result<HashMap<NodeId, PastNode>, HistoryError> {
        let mut found = HashMap::with_capacity(ids.len());
        let mut next = 0;
        while let Some(rest) = ids.get(next..).filter(|rest| !rest.is_empty()) {
            let batch = rest.get(..limits::NODES_PER_PAGE_MAX).unwrap_or(rest);
            let seen = self.connection.look(at, Look::Nodes(batch.to_vec())).await?;
            let answered = seen.nodes.len().min(batch.len());
            if answered == 0 || seen.nodes.iter().zip(batch).any(|(past, id)| past.node.id != *id) {
                return Err(WireError::Unexpected("nodes").into());
            }
            found.extend(seen.nodes.into_iter().take(answered).map(|past| (past.node.id, past)));
            next += answered;
        }
        Ok(found)
    }

    /// Everything below a folder after a commit.
    pub(super) async fn below(&self, at: Seq, top: NodeId) -> Result<Vec<PastNode>, HistoryError> {
        let (mut found, mut seen_ids) = (Vec::new(), HashSet::from([top]));
        let (mut folders, mut after) = (vec![top], None);
        while !folders.is_empty() {
            let asked = folders.get(..LOOK_FOLDERS_MAX).unwrap_or(&folders).to_vec();
            let count = asked.len();
            let mark = after.take();
            let seen = self.connection.look(at, Look::Inside { folders: asked, after: mark.clone() }).await?;
            let done = match &seen.rest {
                Some(rest) => usize::try_from(rest.first).unwrap_or(count).min(count),
                None => count,
            };
            after = seen.rest.and_then(|rest| rest.after);
            if done == 0 && after <= mark {
                return Err(WireError::Unexpected("page without progress").into());
            }
            folders.drain(..done);
            for past in seen.nodes {
                let Some(state) = &past.node.state else { continue };
                if seen_ids.insert(past.node.id) {
                    if state.kind.is_folder() {
                        folders.push(past.node.id);
                    }
                    found.push(past);
                }
            }
        }
        Ok(found)
    }
}

/// Nodes as a tree.
pub(super) fn tree_of<'a>(nodes: impl Iterator<Item = &'a Node>) -> Tree {
    let mut tree = Tree::new();
    for node in nodes {
        if let Some(state) = &node.state {
            tree.insert(node.id, TreeNode { version: node.version, state: state.clone() });
        }
    }
    tree
}
