//! The listener: accepts connections, gives each a session in a task of its own, and ends them all in order.

use super::gate::Access;
use super::lobby::Lobby;
use super::{Config, Server, ServerError, broadcast, collect, control, door, repair, scrub};
use crate::model::IdSource;
use crate::storage::{BlockStore, Journal};
use crate::wire::tcp;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::{error, info, warn};

/// Pause after an accept that failed (no file descriptors, most often).
pub(super) const ACCEPT_PAUSE_MS: u64 = 100;
/// Who was here is written down this often.
const REMEMBER: Duration = Duration::from_secs(60);

/// A stream that came in.
#[derive(Debug)]
pub struct Accepted<R, W> {
    /// Who it is.
    pub peer: SocketAddr,
    /// Where it came in.
    pub local: SocketAddr,
    /// What the peer sends.
    pub reader: R,
    /// To the peer.
    pub writer: W,
}

/// Where streams come in.
pub trait Accept: Send {
    /// The half that is read.
    type Reader: AsyncRead + Send + Unpin + 'static;
    /// The half that is written.
    type Writer: AsyncWrite + Send + Unpin + 'static;

    /// The next stream; `None` for one that is gone already.
    ///
    /// # Cancel safety
    /// Safe: no stream is lost.
    fn accept(
        &mut self,
    ) -> impl Future<Output = io::Result<Option<Accepted<Self::Reader, Self::Writer>>>> + Send;
}

impl Accept for TcpListener {
    type Reader = OwnedReadHalf;
    type Writer = OwnedWriteHalf;

    async fn accept(&mut self) -> io::Result<Option<Accepted<OwnedReadHalf, OwnedWriteHalf>>> {
        let (stream, _) = Self::accept(self).await?;
        // A peer that has gone already has no address and no session.
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return Ok(None) };
        Ok(tcp::split(stream).ok().map(|(reader, writer)| Accepted { peer, local, reader, writer }))
    }
}

/// Serves until `shutdown` completes, then finishes what is under way and comes back within a few seconds.
///
/// # Errors
/// When the store cannot promise durability any more: at once, with nothing further acknowledged.
pub async fn run<L: Accept>(
    mut listener: L,
    blocks: Arc<dyn BlockStore>,
    journal: Arc<dyn Journal>,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let (fatal, mut failed) = mpsc::channel(1);
    let (drain, draining) = watch::channel(false);
    let lobby = Arc::new(Lobby::default());
    let events = journal.watch();
    let server = Arc::new(Server {
        blocks,
        journal,
        registry: broadcast::Registry::default(),
        delta_bytes: Arc::new(Semaphore::new(super::requests::DELTA_BYTES_MAX)),
        deltas: super::deltas::Deltas::default(),
        desks: super::desk::Desks::default(),
        ids: Mutex::new(IdSource::new(config.id_seed)),
        workers: Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)),
        connections: Arc::new(Semaphore::new(config.connections_max)),
        config,
        fatal,
        draining,
    });
    let mut broadcasting = JoinSet::new();
    broadcasting.spawn(broadcast::run(server.clone(), events));
    let tended = server.config.tended.clone();
    // Ends with this function, whatever way.
    let mut tending = JoinSet::new();
    if let Some(tended) = tended {
        let commands = control::listen(&tended).map_err(ServerError::Control)?;
        tending.spawn(control::run(tended.clone(), server.config.access.clone(), commands));
        tending.spawn(repair::run(server.clone(), tended.store.clone()));
        tending.spawn(collect::run(tended.clone()));
        tending.spawn(scrub::run(tended));
    }
    tending.spawn(remember(server.clone()));
    let mut sessions = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            Some(error) = failed.recv() => return Err(ServerError::Storage(error)),
            () = &mut shutdown => break,
            ended = broadcasting.join_next() => {
                log_panic(ended.and_then(Result::err));
                return Err(ServerError::Broadcast);
            }
            Some(ended) = sessions.join_next() => log_panic(ended.err()),
            accepted = listener.accept() => match accepted {
                Ok(None) => {}
                Ok(Some(stream)) => {
                    // Without a word to whoever failed too often: that would cost more.
                    if let Some(waiting) = Lobby::enter(&lobby, stream.peer.ip()) {
                        sessions.spawn(door::enter(server.clone(), stream, waiting));
                    }
                }
                Err(error) => {
                    warn!(error = %error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            },
        }
    }
    drop(listener);
    info!(sessions = sessions.len(), "stopping");
    drain.send_replace(true);
    let patience = tokio::time::sleep(Duration::from_millis(server.config.drain_ms_max));
    tokio::pin!(patience);
    loop {
        tokio::select! {
            biased;
            Some(error) = failed.recv() => return Err(ServerError::Storage(error)),
            ended = sessions.join_next() => match ended {
                Some(ended) => log_panic(ended.err()),
                None => break,
            },
            () = &mut patience => {
                warn!(sessions = sessions.len(), "sessions did not end in time");
                break;
            }
        }
    }
    // A failure in the last moment is still one.
    failed.try_recv().map_or(Ok(()), |error| Err(ServerError::Storage(error)))
}

/// Writes down who was here, now and then.
async fn remember(server: Arc<Server>) {
    let Access::Proved(gate) = server.config.access.clone() else { return };
    loop {
        tokio::time::sleep(REMEMBER).await;
        let gate = gate.clone();
        let written = tokio::task::spawn_blocking(move || gate.remember()).await;
        if let Ok(Err(error)) = written {
            warn!(%error, "when devices were seen was not written down");
        }
    }
}

/// A panic ended one task; the server goes on.
fn log_panic(ended: Option<JoinError>) {
    if let Some(error) = ended.filter(JoinError::is_panic) {
        error!(error = %error, "task panicked");
    }
}
