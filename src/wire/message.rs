//! Every message of the protocol, and the bounds that both ends check: the sender before it encodes, the receiver after
//! it decodes. Pure. Block bytes are not part of a message; they follow it in the frame's payload.
//!
//! The order of the variants is the format (bincode writes their index): append only.

use super::error::{ErrorCode, WireError};
use super::handshake::{Hello, Welcome, bound};
use crate::model::past::{Found, LOOK_FOLDERS_MAX, Look, Moment, Seen, Versions};
use crate::model::{
    BlockHash, ChainHash, Change, JournalId, Kind, Name, Node, NodeId, Refusal, Seq, limits, path,
};
use serde::{Deserialize, Serialize};

/// Longest text of a `Goodbye` or `Failed`, bytes.
pub const TEXT_BYTES_MAX: usize = 512;

/// The end of a share's journal: where it is, and the hash that binds everything before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Which life of the journal.
    pub journal: JournalId,
    /// Its last commit.
    pub seq: Seq,
    /// The chain up to that commit.
    pub chain: ChainHash,
}

/// A place in the list of nodes ordered by (version, id): after all nodes up to version `seq`, or, inside `seq`, after
/// the node named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    /// The version.
    pub seq: Seq,
    /// `None`: everything of `seq` was seen. `Some`: only nodes of `seq` up to this id.
    pub node: Option<NodeId>,
}

impl Position {
    /// Before everything.
    pub const START: Self = Self { seq: Seq::ZERO, node: None };

    /// After everything up to `seq`.
    pub const fn after(seq: Seq) -> Self {
        Self { seq, node: None }
    }
}

/// One bit per hash of a request, in its order: bit `i` is bit `i % 8` (lowest first) of byte `i / 8`; bits past the
/// last are 0.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Bitmap {
    len: u32,
    bits: Vec<u8>,
}

impl Bitmap {
    /// From one flag per place.
    pub fn from_flags(flags: &[bool]) -> Self {
        let bits = flags
            .chunks(8)
            .map(|eight| eight.iter().rev().fold(0u8, |byte, flag| (byte << 1) | u8::from(*flag)))
            .collect();
        Self { len: u32::try_from(flags.len()).unwrap_or(u32::MAX), bits }
    }

    /// Number of places.
    pub fn len(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }

    /// True without places.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The flags in order.
    pub fn iter(&self) -> impl Iterator<Item = bool> {
        self.bits.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).take(self.len())
    }

    /// Places whose flag is set.
    pub fn count_ones(&self) -> usize {
        self.iter().filter(|set| *set).count()
    }

    fn validate(&self) -> Result<(), WireError> {
        bound(self.len() <= limits::HASHES_PER_REQUEST_MAX, "bitmap")?;
        bound(self.bits.len() == self.len().div_ceil(8), "bitmap")?;
        let padding = self.bits.last().map_or(0, |last| match self.len() % 8 {
            0 => 0,
            used => last >> used,
        });
        bound(padding == 0, "bitmap padding")
    }
}

/// A message. Each says first who sends it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Client: Opens a session.
    Hello(Box<Hello>),
    /// Server: Takes it.
    Welcome(Box<Welcome>),
    /// Both: The session ends. Nothing follows.
    Goodbye {
        /// See [`ErrorCode`].
        code: u16,
        /// For people, at most [`TEXT_BYTES_MAX`].
        text: String,
    },
    /// Client: A sign of life is wanted.
    Ping,
    /// Server: Here it is.
    Pong,
    /// Server: One request failed; the session goes on.
    Failed {
        /// See [`ErrorCode`].
        code: u16,
        /// For people, at most [`TEXT_BYTES_MAX`].
        text: String,
    },
    /// Client: What changed after a position?
    Poll {
        /// Only nodes after it.
        after: Position,
        /// At most this many nodes, 1 ..= `NODES_PER_PAGE_MAX`.
        nodes_max: u32,
        /// Tombstones of this version and below are of no interest. A first listing sets it to the head of its
        /// welcome: what was deleted before needs no word, what is deleted while it lists does.
        tombstones_after: Seq,
    },
    /// Server: Each node that changed, once, at its latest version, ordered by (version, id).
    Changes {
        /// The nodes.
        nodes: Vec<Node>,
        /// Where the next poll goes on.
        next: Position,
        /// Nothing remained after these nodes.
        complete: bool,
        /// The head; `None` when the poll stood at it already.
        head: Option<Head>,
    },
    /// Client: An atomic batch of changes; its new blocks may follow as payload.
    Commit {
        /// 1 ..= `CHANGES_PER_COMMIT_MAX`.
        changes: Vec<Change>,
    },
    /// Server: The commit is durable. `head.seq == prev` when every change was refused.
    Committed {
        /// The head before it.
        prev: Seq,
        /// The head after it.
        head: Head,
        /// Which changes were refused, by their place in the commit, ascending.
        refused: Vec<(u32, Refusal)>,
        /// The nodes as they are now; `None` when they are what was sent, at version `head.seq`.
        nodes: Option<Vec<Node>>,
    },
    /// Client: Which of these blocks are missing at the server?
    Have {
        /// 1 ..= `HASHES_PER_REQUEST_MAX`.
        hashes: Vec<BlockHash>,
    },
    /// Server: A set bit: the block is missing, send it.
    Missing {
        /// One bit per hash of the request.
        bitmap: Bitmap,
    },
    /// Client: Blocks follow as payload.
    PutBlocks {
        /// How many, 1 ..= `PACK_BLOCKS_MAX`.
        count: u32,
    },
    /// Server: They are verified and will be durable with the next commit that is answered.
    Stored {
        /// How many.
        count: u32,
    },
    /// Client: Send these blocks.
    WantBlocks {
        /// 1 ..= `HASHES_PER_REQUEST_MAX`.
        hashes: Vec<BlockHash>,
        /// Blocks that the client holds and that answers may be sealed against: none, or one per hash, which is thought
        /// to be like it; [`BlockHash::NONE`] where there is none. Only with the feature `DELTAS`.
        bases: Vec<BlockHash>,
    },
    /// Server: A part of the answer: blocks `first ..` of the request. Parts come in order and leave nothing out.
    Blocks {
        /// Place of the first bit in the request.
        first: u32,
        /// A set bit: the block is in this frame's payload, in this order. A clear one: the server does not hold it.
        present: Bitmap,
        /// No further part follows.
        last: bool,
    },
    /// [S push] Someone else committed; the new small blocks follow as payload.
    Changed {
        /// The head before that commit.
        prev: Seq,
        /// The head after it.
        head: Head,
        /// The nodes it changed.
        nodes: Vec<Node>,
    },
    /// [S push] Pushes were left out: poll from your position.
    Behind,
    /// Client: Where in the share's journal is this moment? This and the following need `features::HISTORY`.
    Find {
        /// The moment.
        at: Moment,
    },
    /// Server: There.
    Found(Found),
    /// Client: What became of everything that ever stood at a path or below it?
    History {
        /// At most `PATH_DEPTH_MAX` names; none for the whole share.
        path: Vec<Name>,
        /// Only versions before this one; `None` from the latest on.
        before: Option<(Seq, NodeId)>,
        /// At most this many versions, 1 ..= `VERSIONS_PER_PAGE_MAX`.
        versions_max: u32,
    },
    /// Server: Versions, latest first.
    Versions(Versions),
    /// Client: What was there after a commit?
    Look {
        /// The commit; the head, for one that is not there yet.
        at: Seq,
        /// What to look at.
        look: Look,
        /// At most about this many nodes, 1 ..= `NODES_PER_PAGE_MAX`.
        nodes_max: u32,
    },
    /// Server: That was there.
    Seen(Seen),
    /// [S push] Blocks of the store are damaged or missing: whoever holds one may put it. Only with the feature `REPAIR`.
    Wanted {
        /// 1 ..= `HASHES_PER_REQUEST_MAX`.
        hashes: Vec<BlockHash>,
    },
    /// Server: Some blocks of a put or a commit do not open with their bases: send these without. Of a put, the others are
    /// taken; of a commit, nothing is. Only with the feature `DELTAS`.
    Unopened {
        /// One bit per block of the payload, at least one set.
        bitmap: Bitmap,
    },
    /// Both: Another message, made shorter. Only with the feature `DELTAS`, and never one in another.
    Shrunk {
        /// Bytes of that message.
        len: u32,
        /// As [`seal::shrink`](crate::block::seal::shrink) makes them.
        bytes: Vec<u8>,
    },
}

impl Message {
    /// A goodbye; the text is escaped and cut to its bound.
    pub fn goodbye(code: ErrorCode, text: &str) -> Self {
        Self::Goodbye { code: code.to_u16(), text: clean_text(text) }
    }

    /// The answer to a request that failed; the text is escaped and cut to its bound.
    pub fn failed(code: ErrorCode, text: &str) -> Self {
        Self::Failed { code: code.to_u16(), text: clean_text(text) }
    }

    /// Checks every bound that the types do not hold. Both ends call it.
    pub fn validate(&self) -> Result<(), WireError> {
        match self {
            Self::Hello(hello) => hello.validate(),
            Self::Welcome(welcome) => welcome.validate(),
            Self::Goodbye { text, .. } | Self::Failed { text, .. } => {
                bound(text.len() <= TEXT_BYTES_MAX, "text")
            }
            Self::Ping | Self::Pong | Self::Behind | Self::Find { .. } | Self::Found(_) => Ok(()),
            Self::History { path, versions_max, .. } => {
                bound(path.len() <= limits::PATH_DEPTH_MAX, "path")?;
                within(*versions_max, limits::VERSIONS_PER_PAGE_MAX, "versions of a page")
            }
            Self::Versions(page) => versions_ok(page),
            Self::Look { look, nodes_max, .. } => {
                within(*nodes_max, limits::NODES_PER_PAGE_MAX, "nodes of a page")?;
                look_ok(look)
            }
            Self::Seen(seen) => {
                bound(seen.nodes.len() <= limits::NODES_PER_PAGE_MAX, "nodes")?;
                nodes_valid(seen.nodes.iter().map(|past| &past.node))
            }
            Self::Poll { nodes_max, .. } => within(*nodes_max, limits::NODES_PER_PAGE_MAX, "nodes of a page"),
            Self::Changes { nodes, complete, .. } => {
                bound(*complete || !nodes.is_empty(), "progress of a page")?;
                bound(nodes.is_sorted_by_key(|n| (n.version, n.id)), "order of a page")?;
                nodes_ok(nodes, limits::NODES_PER_PAGE_MAX)
            }
            Self::Commit { changes } => {
                bound(!changes.is_empty() && changes.len() <= limits::CHANGES_PER_COMMIT_MAX, "changes")
            }
            Self::Committed { refused, nodes, .. } => {
                bound(refused.len() <= limits::CHANGES_PER_COMMIT_MAX, "refusals")?;
                bound(refused.is_sorted_by(|a, b| a.0 < b.0), "order of refusals")?;
                nodes_ok(nodes.as_deref().unwrap_or_default(), limits::CHANGES_PER_COMMIT_MAX)
            }
            Self::Have { hashes } | Self::Wanted { hashes } => hashes_ok(hashes),
            Self::Missing { bitmap } | Self::Unopened { bitmap } => bitmap.validate(),
            Self::Shrunk { len, bytes } => bound(
                usize::try_from(*len).is_ok_and(|len| len <= limits::FRAME_BYTES_MAX && bytes.len() < len),
                "shrunk",
            ),
            Self::PutBlocks { count } => within(*count, limits::PACK_BLOCKS_MAX, "blocks of a pack"),
            Self::Stored { .. } => Ok(()),
            Self::WantBlocks { hashes, bases } => {
                bound(bases.is_empty() || bases.len() == hashes.len(), "bases")?;
                hashes_ok(hashes)
            }
            Self::Blocks { present, .. } => present.validate(),
            Self::Changed { prev, head, nodes } => {
                bound(*prev < head.seq, "order of heads")?;
                nodes_ok(nodes, limits::CHANGES_PER_COMMIT_MAX)
            }
        }
    }

    /// True when a payload may follow.
    pub const fn may_carry_blocks(&self) -> bool {
        matches!(
            self,
            Self::Commit { .. } | Self::PutBlocks { .. } | Self::Blocks { .. } | Self::Changed { .. }
        )
    }

    /// For logs and errors.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Welcome(_) => "Welcome",
            Self::Goodbye { .. } => "Goodbye",
            Self::Ping => "Ping",
            Self::Pong => "Pong",
            Self::Failed { .. } => "Failed",
            Self::Poll { .. } => "Poll",
            Self::Changes { .. } => "Changes",
            Self::Commit { .. } => "Commit",
            Self::Committed { .. } => "Committed",
            Self::Have { .. } => "Have",
            Self::Missing { .. } => "Missing",
            Self::PutBlocks { .. } => "PutBlocks",
            Self::Stored { .. } => "Stored",
            Self::WantBlocks { .. } => "WantBlocks",
            Self::Blocks { .. } => "Blocks",
            Self::Changed { .. } => "Changed",
            Self::Behind => "Behind",
            Self::Find { .. } => "Find",
            Self::Found(_) => "Found",
            Self::History { .. } => "History",
            Self::Versions(_) => "Versions",
            Self::Look { .. } => "Look",
            Self::Seen(_) => "Seen",
            Self::Wanted { .. } => "Wanted",
            Self::Unopened { .. } => "Unopened",
            Self::Shrunk { .. } => "Shrunk",
        }
    }
}

/// Escapes text for a terminal or a log and cuts it to [`TEXT_BYTES_MAX`].
pub fn clean_text(text: &str) -> String {
    let mut clean = path::escape(text.as_bytes());
    let mut end = clean.len().min(TEXT_BYTES_MAX);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean.truncate(end);
    clean
}

fn within(count: u32, max: usize, what: &'static str) -> Result<(), WireError> {
    bound(count > 0 && usize::try_from(count).is_ok_and(|n| n <= max), what)
}

fn hashes_ok(hashes: &[BlockHash]) -> Result<(), WireError> {
    bound(!hashes.is_empty() && hashes.len() <= limits::HASHES_PER_REQUEST_MAX, "hashes")
}

/// What a server says about nodes is checked like what a client says: a bad name or target never reaches a folder.
fn nodes_ok(nodes: &[Node], max: usize) -> Result<(), WireError> {
    bound(nodes.len() <= max, "nodes")?;
    nodes_valid(nodes.iter())
}

fn nodes_valid<'a>(mut nodes: impl Iterator<Item = &'a Node>) -> Result<(), WireError> {
    let valid = |node: &Node| node.id != NodeId::ROOT && node.state.as_ref().is_none_or(|s| s.is_valid());
    bound(nodes.all(valid), "node")
}

fn look_ok(look: &Look) -> Result<(), WireError> {
    match look {
        Look::Path { names, .. } => bound(names.len() <= limits::PATH_DEPTH_MAX, "path"),
        Look::Inside { folders, .. } => {
            bound(!folders.is_empty() && folders.len() <= LOOK_FOLDERS_MAX, "folders")
        }
        Look::Nodes(ids) => {
            bound(!ids.is_empty() && ids.len() <= limits::NODES_PER_PAGE_MAX, "nodes")?;
            bound(!ids.contains(&NodeId::ROOT), "node")
        }
    }
}

fn versions_ok(page: &Versions) -> Result<(), WireError> {
    let versions = &page.versions;
    bound(versions.len() <= limits::VERSIONS_PER_PAGE_MAX, "versions")?;
    bound(versions.is_sorted_by(|a, b| (a.seq, a.node) > (b.seq, b.node)), "order of versions")?;
    let mut shapes = versions.iter().flat_map(|version| [&version.before, &version.after]).flatten();
    let fits = |shape: &crate::model::past::Shape| {
        let target_ok = match &shape.kind {
            Kind::Symlink { target, .. } => target.len() <= limits::SYMLINK_BYTES_MAX,
            _ => true,
        };
        target_ok && !shape.path.is_empty() && shape.path.len() <= limits::PATH_DEPTH_MAX
    };
    bound(shapes.all(fits), "version")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::codec;

    #[test]
    fn a_bitmap_gives_its_flags_back_at_every_length() {
        for len in 0..40usize {
            let flags: Vec<bool> = (0..len).map(|i| i % 3 == 0).collect();
            let bitmap = Bitmap::from_flags(&flags);
            bitmap.validate().unwrap();
            assert_eq!(bitmap.iter().collect::<Vec<_>>(), flags);
        }
        assert!(Bitmap { len: 3, bits: vec![0b1000] }.validate().is_err());
        assert!(Bitmap { len: 9, bits: vec![0] }.validate().is_err());
        assert!(Bitmap { len: u32::MAX, bits: vec![] }.validate().is_err());
    }

    #[test]
    fn an_idle_poll_and_its_answer_fit_sixty_bytes_with_their_frames() {
        let seq = Seq(u64::MAX);
        let poll =
            Message::Poll { after: Position::after(seq), nodes_max: 2048, tombstones_after: Seq::ZERO };
        let answer =
            Message::Changes { nodes: vec![], next: Position::after(seq), complete: true, head: None };
        let bytes: usize = [&poll, &answer].iter().map(|m| codec::encode(m).unwrap().len() + 12).sum();
        assert!(bytes <= 60, "{bytes}");
    }

    #[test]
    fn the_first_messages_keep_their_numbers_for_ever() {
        let goodbye = codec::encode(&Message::goodbye(ErrorCode::Version, "x")).unwrap();
        assert_eq!(goodbye, [2, 5, 1, b'x']);
        assert_eq!(codec::encode(&Message::Ping).unwrap(), [3]);
        assert_eq!(codec::encode(&Message::Behind).unwrap(), [17]);
        assert_eq!(codec::encode(&Message::Wanted { hashes: vec![] }).unwrap(), [24, 0]);
        assert_eq!(codec::encode(&Message::Find { at: Moment::Age(5) }).unwrap(), [18, 2, 5]);
        assert_eq!(codec::encode(&Message::Seen(Seen::default())).unwrap(), [23, 0, 0]);
    }

    #[test]
    fn text_from_outside_is_escaped_and_cut_at_a_character() {
        let clean = clean_text(&"\u{1b}é".repeat(400));
        assert!(clean.len() <= TEXT_BYTES_MAX && !clean.contains('\u{1b}'));
    }

    #[test]
    fn a_version_out_of_order_or_without_a_path_is_refused() {
        let version = |seq, path: &[&[u8]]| crate::model::past::Version {
            seq: Seq(seq),
            node: NodeId::from_bytes([1; 16]),
            time_ms: 0,
            device: String::new(),
            before: None,
            after: Some(crate::model::past::Shape {
                path: path.iter().map(|name| Name::new(name).unwrap()).collect(),
                kind: Kind::Folder,
            }),
            kept: true,
        };
        let page = |versions| Message::Versions(Versions { versions, rest: None }).validate();
        assert!(page(vec![version(2, &[b"a"]), version(1, &[b"a"])]).is_ok());
        assert!(page(vec![version(1, &[b"a"]), version(2, &[b"a"])]).is_err());
        assert!(page(vec![version(1, &[b"a"]), version(1, &[b"a"])]).is_err());
        assert!(page(vec![version(1, &[])]).is_err());
    }

    #[test]
    fn a_page_that_could_loop_for_ever_is_refused() {
        let page = Message::Changes { nodes: vec![], next: Position::START, complete: false, head: None };
        assert!(page.validate().is_err());
    }
}
