//! The server: takes connections, checks what comes, hands it to the store, and tells everyone else.
//!
//! ```text
//! listen -> door (TLS, or a proof in the clear) -> session (one per connection) -> requests | commit -> storage
//!                     ^------------ broadcast <- storage's commit events
//! control (gc, check, stats of the owner), collect (the rest of a gc), scrub, repair (blocks asked for from clients) -> storage
//! ```
//! It knows storage only through [`BlockStore`] and [`Journal`] (upkeep: through [`Store`]), and no folder. Invariants: nothing is acknowledged that
//! storage has not called durable; one session's fault or panic ends that session and nothing else; a store that can no
//! longer promise durability ends the server; whatever a peer can make the server hold is bounded in bytes.

mod account;
mod answer;
mod broadcast;
mod collect;
mod commit;
pub mod control;
mod deltas;
mod desk;
pub mod devices;
mod door;
pub mod gate;
mod history;
mod listen;
mod lobby;
mod luck;
pub mod office;
mod order;
pub mod porch;
mod repair;
mod requests;
mod scrub;
mod session;

pub use devices::{Device, Devices, DevicesError, Quota};
pub use gate::{Access, Gate};
pub use listen::{Accept, Accepted, run};

use crate::model::counters::Counters;
use crate::model::{IdSource, SessionId, StoreId};
use crate::storage::{BlockStore, Journal, StorageError, Store};
use crate::wire::{self, ServerLimits};
use crate::work::Work;
use broadcast::Registry;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc, watch};

/// Bounds and identity of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which store it serves.
    pub store: StoreId,
    /// Seed of session ids: random bytes, or fixed ones in a test.
    pub id_seed: [u8; 32],
    /// More connections than this are told `Busy`.
    pub connections_max: usize,
    /// A hello must come within this time.
    pub handshake_ms_max: u64,
    /// A session without a byte for this long ends; clients ping well before.
    pub silence_ms_max: u64,
    /// After the shutdown signal, sessions have this long to finish what is under way.
    pub drain_ms_max: u64,
    /// Requests under way per session, bytes of their frames.
    pub in_flight_bytes_max: u32,
    /// Pushes that may wait for one client; beyond, it is told to poll.
    pub pushes_max: usize,
    /// Bytes of pushes that may wait for one client.
    pub push_bytes_max: usize,
    /// Where hashing and decompression run.
    pub work: Work,
    /// Where work is counted.
    pub counters: Arc<Counters>,
    /// Who may connect.
    pub access: Access,
    /// The store, for what is done to it beside serving: scrub, repair, commands of its owner. `None`: nothing is.
    pub tended: Option<Tended>,
}

/// A store that is looked after while it is served.
#[derive(Debug, Clone)]
pub struct Tended {
    /// Which.
    pub store: Arc<Store>,
    /// Its folder, where commands find the server.
    pub folder: PathBuf,
    /// Everything is read again once in this time, ms; 0 never.
    pub scrub_ms: u64,
}

impl Config {
    /// The usual bounds.
    pub fn new(store: StoreId, id_seed: [u8; 32]) -> Self {
        Self {
            store,
            id_seed,
            connections_max: 1024,
            handshake_ms_max: 10_000,
            silence_ms_max: 90_000,
            drain_ms_max: 4_000,
            in_flight_bytes_max: 16 * 1024 * 1024,
            pushes_max: 1024,
            push_bytes_max: 8 * 1024 * 1024,
            work: Work::Threads,
            counters: Arc::default(),
            access: Access::Open,
            tended: None,
        }
    }

    fn limits(&self) -> ServerLimits {
        let u32_of = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        ServerLimits {
            frame_bytes_max: u32_of(crate::model::limits::FRAME_BYTES_MAX),
            in_flight_bytes_max: self.in_flight_bytes_max,
            inline_bytes_max: u32_of(crate::model::limits::INLINE_BYTES_MAX),
        }
    }
}

/// Why a server ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store cannot promise durability any more. Nothing was acknowledged after it.
    #[error("the store failed; nothing more is acknowledged")]
    Storage(#[source] StorageError),
    /// Commands could not find this server.
    #[error("cannot make control.sock in the store")]
    Control(#[source] std::io::Error),
    /// The task that tells clients about commits ended.
    #[error("the broadcast ended")]
    Broadcast,
}

/// What all sessions share.
struct Server {
    blocks: Arc<dyn BlockStore>,
    journal: Arc<dyn Journal>,
    config: Config,
    registry: Registry,
    /// Sessions at one time.
    connections: Arc<Semaphore>,
    /// What the sessions of each device share.
    desks: desk::Desks,
    ids: Mutex<IdSource>,
    /// Hashing and decompression at one time, over all sessions: more would only queue in the thread pool.
    workers: Semaphore,
    /// Plain bytes of blocks that came against a base and are not yet with storage, over all sessions.
    delta_bytes: Arc<Semaphore>,
    /// Blocks as they go to others.
    deltas: deltas::Deltas,
    /// The first failure of the store.
    fatal: mpsc::Sender<StorageError>,
    draining: watch::Receiver<bool>,
}

impl Server {
    fn session_id(&self) -> SessionId {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        SessionId::from_bytes(ids.bytes16())
    }

    /// Turns a failure of storage into what a request does about it.
    fn storage_fault(&self, error: StorageError) -> Fault {
        if error.is_fatal() {
            // A full channel means that the server is ending already.
            let _ = self.fatal.try_send(error);
            return Fault::Fatal;
        }
        if matches!(error, StorageError::OverQuota) {
            return Fault::OVER_QUOTA;
        }
        tracing::warn!(error = %error, "storage refused a request");
        if matches!(error, StorageError::Full(_)) {
            return Fault::Request(
                wire::ErrorCode::Full,
                "the server's disk is full, but for the room it keeps free",
            );
        }
        Fault::Request(wire::ErrorCode::Storage, "the store failed this request")
    }
}

/// Why a request was not answered as it wished.
#[derive(Debug)]
enum Fault {
    /// It is answered `Failed`; the session goes on.
    Request(wire::ErrorCode, &'static str),
    /// The session ends.
    Session(wire::WireError),
    /// The server ends; nothing is said.
    Fatal,
}

impl Fault {
    /// To clients like a full disk: what needs no room goes on.
    const OVER_QUOTA: Self = Self::Request(
        wire::ErrorCode::Full,
        "this device has used up its quota on the server, whose owner can raise it with `dropblock quota`",
    );
}

impl From<wire::WireError> for Fault {
    fn from(error: wire::WireError) -> Self {
        Self::Session(error)
    }
}
