//! One session per connection: handshake, then a reader that hands each request to a task of its own.
//!
//! Requests run concurrently, bounded by the bytes of their frames: when a session's limit is reached, its reader stops
//! reading and TCP holds the client up. A request that breaks the protocol, and a request whose task panics, ends this
//! session with a code and one line in the log. What is under way is finished and answered first.

use super::answer::{InFlight, Turn, answer};
use super::broadcast::{self, Registered, Registry};
use super::desk::Seat;
use super::door::Opening;
use super::gate::{self, Access, Guest, Sight, Way};
use super::lobby::Waiting;
use super::order::Order;
use super::{Fault, Server};
use crate::auth::Scope;
use crate::model::{SessionId, path};
use crate::storage::ShareId;
use crate::wire::backlog::Backlog;
use crate::wire::handshake::{self, REQUEST_BYTES_MIN, features};
use crate::wire::handshake::{Extension, extensions};
use crate::wire::outbox::{self, Outbox};
use crate::wire::{
    Auth, EncodedFrame, ErrorCode, Frame, FrameReader, FrameWriter, Hello, Message, Welcome, WireError,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tracing::{info, warn};

/// `WantBlocks` that one session reads at a time.
const READS_MAX: usize = 2;
/// A session that ends has this long for each of: requests under way, queued answers.
const FINISH_MS_MAX: u64 = 3_000;
/// After its last word, a session listens this long for the client's, so that closing does not reset the stream.
const LINGER_MS_MAX: u64 = 500;
/// What is read and forgotten meanwhile, bytes.
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the requests of one session share.
pub struct Session {
    pub server: Arc<Server>,
    pub id: SessionId,
    pub share: ShareId,
    /// The client's name for people, as it was sent.
    pub device: String,
    /// The client has the feature `DELTAS`.
    pub deltas: bool,
    /// Who was let in, and what for.
    pub guest: Guest,
    /// Its place among the sessions of its device.
    pub seat: Seat,
    pub outbox: Outbox,
    pub reads: Semaphore,
}

/// Runs a session to its end; every end is logged here.
pub async fn run<R, W>(
    server: Arc<Server>,
    peer: SocketAddr,
    mut reader: FrameReader<R>,
    mut writer: FrameWriter<W>,
    opening: Opening,
) where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let Opening { way, first, deadline, waiting } = opening;
    let through_tls = matches!(way, Way::Tls(_));
    match deadline.keep(&waiting, open(&server, &mut reader, way, first)).await {
        Ok(opened) => {
            drop(waiting);
            reader.admit_large_frames();
            serve(server, peer, reader, writer, opened).await;
        }
        Err(error) => {
            // Whoever only shakes hands has had the most that a stranger can ask for.
            if through_tls && matches!(error, WireError::Ended | WireError::Truncated | WireError::Io(_)) {
                waiting.failed();
            }
            turn_away(peer, &mut reader, &mut writer, &error, waiting).await;
        }
    }
}

/// Says goodbye on a connection that has no session. It keeps its place among the strangers meanwhile.
pub async fn turn_away<R, W>(
    peer: SocketAddr,
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    error: &WireError,
    waiting: Waiting,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let code = error.code();
    if code == ErrorCode::Auth || error.is_violation() {
        waiting.failed();
    }
    info!(%peer, ?code, reason = %path::escape(error.to_string().as_bytes()), "no session");
    let text = match error {
        WireError::Goodbye { text, .. } => text.clone(),
        error => error.to_string(),
    };
    let Ok(goodbye) = EncodedFrame::new(0, &Message::goodbye(code, &text), Vec::new()) else { return };
    writer.push(&goodbye);
    let last_word = async {
        let said = writer.flush().await.is_ok() && writer.shutdown().await.is_ok();
        // Whoever has to make room gets no more time than this took.
        if said && code != ErrorCode::Busy {
            reader.discard_rest(LINGER_BYTES_MAX).await;
        }
    };
    tokio::select! {
        () = waiting.must_go() => {}
        // A peer that does not listen gets no more patience than this.
        _ = tokio::time::timeout(Duration::from_millis(LINGER_MS_MAX), last_word) => {}
    }
}

/// A handshake that went well.
struct Opened {
    hello: Hello,
    welcome: Welcome,
    share: ShareId,
    guest: Guest,
    pushes: broadcast::Pushes,
    registered: Registered,
    place: Place,
}

/// A place among all sessions, and one among those of the device.
struct Place {
    _connection: OwnedSemaphorePermit,
    seat: Seat,
}

async fn open<R: AsyncRead + Unpin>(
    server: &Arc<Server>,
    reader: &mut FrameReader<R>,
    way: Way,
    first: Option<Frame>,
) -> Result<Opened, WireError> {
    let frame = match first {
        Some(frame) => frame,
        None => reader.next().await?.ok_or(WireError::Ended)?,
    };
    let hello = match frame.message()? {
        Message::Hello(hello) => *hello,
        other => return Err(WireError::Unexpected(other.name())),
    };
    let agreed = handshake::agree(&hello)?;
    let (guest, place) = admit(server, &hello, way).await?;
    let unavailable = |error| match server.storage_fault(error) {
        Fault::Request(code, text) => WireError::Goodbye { code, text: text.to_owned() },
        _ => WireError::Goodbye { code: ErrorCode::Storage, text: "the store failed".to_owned() },
    };
    let (share, _) = server.journal.open_share(&hello.share).await.map_err(unavailable)?;
    // Registered before the head is read: a commit in between is pushed, known already, and ignored by the client.
    // The other order would lose it.
    let id = server.session_id();
    let deltas = agreed.features & features::DELTAS != 0;
    let pushes = Arc::new(Backlog::new(server.config.pushes_max, server.config.push_bytes_max));
    let repairs = agreed.features & features::REPAIR != 0;
    let registered = Registry::add(server, share, id, pushes.clone(), repairs, deltas);
    let cursor_known = match &hello.cursor {
        Some(c) => server.journal.knows(share, c.journal, c.seq, c.chain).await.map_err(unavailable)?,
        None => false,
    };
    let read_only =
        guest.scope.read_only.then(|| Extension { kind: extensions::READ_ONLY, bytes: Vec::new() });
    let welcome = Welcome {
        proto: agreed.proto,
        features: agreed.features,
        store: server.config.store,
        session: id,
        head: broadcast::head(&server.journal.head(share)),
        cursor_known,
        limits: server.config.limits(),
        auth: Auth::default(),
        extensions: read_only.into_iter().collect(),
    };
    if repairs {
        super::repair::ask(server, share, std::slice::from_ref(&pushes)).await;
    }
    Ok(Opened { hello, welcome, share, guest, pushes, registered, place })
}

/// Who it is, and a place among the sessions.
async fn admit(server: &Arc<Server>, hello: &Hello, way: Way) -> Result<(Guest, Place), WireError> {
    let busy = |text: &str| WireError::Goodbye { code: ErrorCode::Busy, text: text.to_owned() };
    let place = |key| -> Result<Place, WireError> {
        let seat = server.desks.sit(key, in_flight_bytes(server));
        let seat = seat.ok_or_else(|| busy("this device has too many connections"))?;
        let connection = server.connections.clone().try_acquire_owned();
        let _connection = connection.map_err(|_| busy("too many connections"))?;
        Ok(Place { _connection, seat })
    };
    let gate = match &server.config.access {
        Access::Open if hello.auth.method == Auth::NONE => {
            return Ok((Guest { key: None, invited: false, scope: Scope::OWNER }, place(None)?));
        }
        Access::Open => return Err(WireError::Auth),
        Access::Proved(gate) => gate.clone(),
    };
    let (guest, invite) = gate.admit(hello, way)?;
    let place = place(guest.key.as_ref())?;
    if let Some(invite) = invite {
        let (guest, name) = (guest.clone(), hello.device_name.clone());
        let redeeming = server.config.work.beside(move || gate.redeem(&guest, &invite, &name));
        redeeming.await.map_err(|_| WireError::Auth)??;
    } else if let Some(key) = &guest.key {
        gate.devices.saw(key, &Sight { name: &hello.device_name });
    }
    Ok((guest, place))
}

/// Why a session ends.
enum End {
    /// The client said goodbye or closed the stream.
    Client,
    /// The server is stopping.
    Drain,
    /// A violation, a broken stream, or silence.
    Fault(WireError),
    /// A task of this session panicked.
    Panic(JoinError),
    /// The server cannot go on; nothing is said.
    Fatal,
}

async fn serve<R, W>(
    server: Arc<Server>,
    peer: SocketAddr,
    mut reader: FrameReader<R>,
    writer: FrameWriter<W>,
    opened: Opened,
) where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let Opened { hello, welcome, share, guest, pushes, registered, place } = opened;
    let Place { _connection, seat } = place;
    reader.read_within(seat.desk.reading.clone());
    let id = welcome.session;
    let deltas = welcome.features & features::DELTAS != 0;
    let (device, share_name) =
        (path::escape(hello.device_name.as_bytes()), path::escape(hello.share.as_bytes()));
    info!(%peer, session = ?id, %device, share = %share_name, "session begins");
    let (outbox, outgoing) = outbox::outbox_within(Some(seat.desk.answers.clone()));
    let outbox = outbox.shrinking(deltas);
    let welcome = EncodedFrame::new(0, &Message::Welcome(Box::new(welcome)), Vec::new());
    // Queued before the writer sees a push, and outside of budgets: other sessions of the device may have stalled.
    let welcomed = welcome.and_then(|welcome| outbox.send_now(welcome));
    let mut writing = JoinSet::new();
    writing.spawn(outbox::write_all(writer, outgoing, Some(pushes)));
    let (device, reads) = (hello.device_name, Semaphore::new(READS_MAX));
    let session = Session { server, id, share, device, guest, deltas, seat, outbox, reads };
    let mut running = Running {
        in_flight: Arc::new(Semaphore::new(in_flight_bytes(&session.server))),
        session: Arc::new(session),
        reader,
        requests: JoinSet::new(),
        order: Order::new(),
        bytes_seen: 0,
    };
    let end = match welcomed {
        Ok(()) => running.run(&mut writing).await,
        Err(error) => End::Fault(error),
    };
    // No further pushes; the session is not told of what it cannot hear.
    drop(registered);
    let (code, text) = match &end {
        End::Client => (ErrorCode::Done, "goodbye".to_owned()),
        End::Drain => (ErrorCode::ShuttingDown, "the server is stopping".to_owned()),
        End::Fault(WireError::Goodbye { code, text }) => (*code, text.clone()),
        End::Fault(error) => (error.code(), error.to_string()),
        End::Panic(_) => (ErrorCode::Internal, "internal error".to_owned()),
        End::Fatal => return,
    };
    match &end {
        End::Panic(error) => tracing::error!(%peer, session = ?id, error = %error, "session task panicked"),
        End::Fault(error) if error.is_violation() => {
            warn!(%peer, session = ?id, ?code, reason = %path::escape(text.as_bytes()), "session ended by a violation");
        }
        _ => info!(%peer, session = ?id, ?code, "session ends"),
    }
    running.finish(writing, code, &text).await;
}

fn in_flight_bytes(server: &Server) -> usize {
    let bytes = usize::try_from(server.config.in_flight_bytes_max).unwrap_or(usize::MAX);
    bytes.clamp(crate::model::limits::FRAME_BYTES_MAX, Semaphore::MAX_PERMITS)
}

/// A session at work.
struct Running<R> {
    session: Arc<Session>,
    reader: FrameReader<R>,
    requests: JoinSet<Result<(), Fault>>,
    order: Order,
    in_flight: Arc<Semaphore>,
    bytes_seen: u64,
}

impl<R: AsyncRead + Unpin> Running<R> {
    async fn run(&mut self, writing: &mut JoinSet<Result<(), WireError>>) -> End {
        let session = self.session.clone();
        let mut draining = session.server.draining.clone();
        let mut revoked = std::pin::pin!(revoked(session.clone()));
        let silence = Duration::from_millis(session.server.config.silence_ms_max);
        loop {
            let frame = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return End::Drain,
                () = &mut revoked => return End::Fault(gate::revoked(session.id)),
                written = writing.join_next() => return written_to_end(written),
                Some(done) = self.requests.join_next() => match done {
                    Ok(Ok(()) | Err(Fault::Request(..))) => continue,
                    Ok(Err(Fault::Session(error))) => return End::Fault(error),
                    Ok(Err(Fault::Fatal)) => return End::Fatal,
                    Err(panic) => return End::Panic(panic),
                },
                frame = tokio::time::timeout(silence, self.reader.next()) => frame,
            };
            match frame {
                Ok(Ok(Some(frame))) => {
                    // A client that does not read its answers can make this wait for long.
                    let begun = tokio::select! {
                        biased;
                        _ = draining.wait_for(|draining| *draining) => return End::Drain,
                        () = &mut revoked => return End::Fault(gate::revoked(session.id)),
                        written = writing.join_next() => return written_to_end(written),
                        begun = self.begin(frame) => begun,
                    };
                    match begun {
                        Ok(Goes::On) => {}
                        Ok(Goes::Away) => return End::Client,
                        Err(error) => return End::Fault(error),
                    }
                }
                Ok(Ok(None)) => return End::Client,
                Ok(Err(error)) => return End::Fault(error),
                // A large frame on a slow link is no silence.
                Err(_) if self.reader.bytes_read() != self.bytes_seen => {
                    self.bytes_seen = self.reader.bytes_read();
                }
                Err(_) => {
                    let ms = session.server.config.silence_ms_max;
                    return End::Fault(WireError::Timeout { what: "sign of life", ms });
                }
            }
        }
    }

    /// Checks a frame and starts what it asks for, once the session's byte limit has room.
    async fn begin(&mut self, mut frame: Frame) -> Result<Goes, WireError> {
        let (message, bytes) =
            if self.session.deltas { frame.whole_message()? } else { (frame.message()?, frame.wire_bytes()) };
        if let Message::Goodbye { .. } = message {
            return Ok(Goes::Away);
        }
        if frame.request == 0 {
            return Err(WireError::Unexpected("request without an id"));
        }
        let bytes = bytes.max(REQUEST_BYTES_MIN);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let in_flight = self.in_flight.clone();
        let own = in_flight.acquire_many_owned(permits).await.map_err(|_| WireError::Ended)?;
        // After its own, so that whoever waits here keeps nothing from the device's other sessions.
        let of_device = self.session.seat.desk.in_flight.clone();
        let of_device = of_device.acquire_many_owned(permits).await.map_err(|_| WireError::Ended)?;
        let permit = InFlight { _own: own, _of_device: of_device };
        frame.give_back_room();
        let turn = match &message {
            Message::Commit { .. } => {
                let (before, ticket) = self.order.barrier();
                Turn { before: Some(before), _ticket: Some(ticket) }
            }
            Message::PutBlocks { .. } => Turn { before: None, _ticket: Some(self.order.ticket()) },
            _ => Turn { before: None, _ticket: None },
        };
        self.requests.spawn(answer(self.session.clone(), frame, message, turn, permit));
        Ok(Goes::On)
    }

    /// Finishes what is under way, says goodbye, writes what is queued, and listens a moment longer.
    async fn finish(mut self, mut writing: JoinSet<Result<(), WireError>>, code: ErrorCode, text: &str) {
        // Whoever may stay no longer finishes nothing either.
        let is_out = code == ErrorCode::Auth;
        let patience = Duration::from_millis(if is_out { LINGER_MS_MAX } else { FINISH_MS_MAX });
        if is_out {
            self.requests.abort_all();
        }
        let _ = tokio::time::timeout(patience, async {
            while let Some(done) = self.requests.join_next().await {
                // The others were cancelled, because the server ends at once.
                if let Err(error) = done
                    && error.is_panic()
                {
                    tracing::error!(session = ?self.session.id, error = %error, "session task panicked");
                }
            }
        })
        .await;
        self.requests.shutdown().await;
        self.session.server.blocks.end_lease(self.session.id);
        if let Ok(goodbye) = EncodedFrame::new(0, &Message::goodbye(code, text), Vec::new()) {
            // A writer that has ended cannot say it.
            let _ = self.session.outbox.send_now(goodbye);
        }
        // The last outbox goes with the session: the writer then writes what is queued, and ends.
        drop(self.session);
        let _ = tokio::time::timeout(patience, writing.join_next()).await;
        let linger = self.reader.discard_rest(LINGER_BYTES_MAX);
        let _ = tokio::time::timeout(Duration::from_millis(LINGER_MS_MAX), linger).await;
    }
}

/// The writer has ended: why the session does.
fn written_to_end(written: Option<Result<Result<(), WireError>, JoinError>>) -> End {
    match written {
        Some(Ok(Err(error))) => End::Fault(error),
        Some(Err(panic)) => End::Panic(panic),
        Some(Ok(Ok(()))) | None => End::Client,
    }
}

/// Comes back when the session's device may stay no longer.
async fn revoked(session: Arc<Session>) {
    if let Access::Proved(gate) = &session.server.config.access {
        let mut changes = gate.devices.changes();
        while gate.still_admits(&session.guest) {
            if changes.changed().await.is_err() {
                break;
            }
        }
        if !gate.still_admits(&session.guest) {
            return;
        }
    }
    std::future::pending().await
}

enum Goes {
    On,
    Away,
}
