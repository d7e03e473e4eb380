//! The vocabulary of dropblock: the words of `docs/ARCHITECTURE.md` as types.
//!
//! No IO, no clock, no async. Everything that crosses a border (wire, disk, command line) is parsed into one of
//! these types once, and is trusted from then on.

pub mod codec;
pub mod counters;
pub mod hash;
pub mod id;
pub mod id_map;
pub mod limits;
pub mod node;
pub mod past;
pub mod path;
pub mod record;

pub use hash::{BlockHash, ChainHash};
pub use id::{DeviceId, IdSource, JournalId, NodeId, Seq, SessionId, StoreId};
pub use node::{Change, FileContent, Kind, Node, NodeState, Refusal, Root};
pub use path::{Name, RelPath};
