//! The client's end: one connection, any number of requests under way, answers matched by id.
//!
//! Two tasks per connection. The writer takes frames from an [`outbox::Outbox`]; the reader matches answers, hands pushes to a
//! [`Backlog`] and keeps the line alive with pings. The reader never waits for a consumer, so a slow user of one answer
//! cannot hold up another. What may pile up is bounded at its source: requests by the server's byte limit, asked-for
//! blocks by [`WANTED_BYTES_MAX`], pushes by the backlog.
//!
//! However a connection ends, every waiting request gets the reason, and so does every later one.

use super::backlog::{Backlog, Next};
use super::error::{ErrorCode, WireError};
use super::frame::{EncodedFrame, FrameReader, FrameWriter};
use super::handshake::{self, Agreed, Hello, REQUEST_BYTES_MIN, Welcome, features};
use super::message::{Bitmap, Head, Message, Position};
use super::outbox;
use super::pace::Pace;
use super::reply::{Changes, Committed, PartCheck, Want, nodes_as_sent};
use super::waiting::{Answer, Shared, Waiter};
use crate::block::{SealedBlock, pack};
use crate::model::counters::Counters;
use crate::model::past::{Found, Look, Moment, Seen, Versions};
use crate::model::{BlockHash, Change, Name, Node, NodeId, Seq, limits};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

/// Plain bytes that may be asked for and not yet taken, over all [`Want`]s of a connection.
pub const WANTED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Pushes that may wait for the client's code.
const PUSHES_MAX: usize = 1024;
/// Bytes of pushes that may wait for the client's code.
const PUSH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A goodbye has this long to go out.
const CLOSE_MS_MAX: u64 = 2_000;

/// Times of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The welcome must come within this time.
    pub handshake_ms_max: u64,
    /// After this long without a byte from the server, a ping is sent.
    pub ping_ms: u64,
    /// After this long without a byte, the connection is lost.
    pub silence_ms_max: u64,
    /// A request that takes longer than this ends the connection. Generous: silence is found much earlier.
    pub request_ms_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { handshake_ms_max: 10_000, ping_ms: 15_000, silence_ms_max: 60_000, request_ms_max: 600_000 }
    }
}

/// What the server says unasked.
#[derive(Debug)]
pub enum Push {
    /// Someone else committed.
    Changed {
        /// The head before that commit; the change fits only a client that stands there.
        prev: Seq,
        /// The head after it.
        head: Head,
        /// The nodes it changed.
        nodes: Vec<Node>,
        /// New small blocks. Untrusted: open them, and know them by the hash that comes out.
        blocks: Vec<SealedBlock>,
    },
    /// Pushes were left out: poll.
    Behind,
    /// The store lacks these blocks: whoever holds one may put it.
    Wanted(Vec<BlockHash>),
}

/// The pushes of one connection, in order.
#[derive(Debug)]
pub struct Pushes(Arc<Backlog<Push>>);

impl Pushes {
    /// The next push; `None` when the connection has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self) -> Option<Push> {
        match self.0.next().await {
            Next::Item(push) => Some(push),
            Next::Behind => Some(Push::Behind),
            Next::Closed => None,
        }
    }

    /// The next push if it is here already.
    pub fn try_next(&mut self) -> Option<Push> {
        match self.0.try_next()? {
            Next::Item(push) => Some(push),
            Next::Behind => Some(Push::Behind),
            Next::Closed => None,
        }
    }
}

/// A handle on an open connection. Clones share it; dropping the last one ends it without a word.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    welcome: Welcome,
    agreed: Agreed,
    options: Options,
    in_flight: Arc<Semaphore>,
    in_flight_bytes_max: usize,
    wanted: Arc<Semaphore>,
    puts: Pace,
    /// Reader and writer, aborted with the last handle.
    _tasks: JoinSet<()>,
}

impl Connection {
    /// Opens a session over a stream.
    ///
    /// # Errors
    /// With the server's reason when it refuses, or with what is wrong with the stream or the answer.
    pub async fn open<R, W>(
        reader: R,
        writer: W,
        hello: Hello,
        options: Options,
        counters: Arc<Counters>,
    ) -> Result<(Self, Pushes), WireError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let mut reader = FrameReader::new(reader, counters.clone());
        let mut writer = FrameWriter::new(writer, counters.clone());
        let ms = options.handshake_ms_max;
        let welcome = shake_hands(&mut reader, &mut writer, &hello);
        let welcome = tokio::time::timeout(Duration::from_millis(ms), welcome)
            .await
            .map_err(|_| WireError::Timeout { what: "welcome", ms })??;
        let agreed = handshake::accept(&hello, &welcome)?;
        reader.admit_large_frames();

        let pushes = Arc::new(Backlog::new(PUSHES_MAX, PUSH_BYTES_MAX));
        let (outbox, outgoing) = outbox::outbox();
        let shared = Arc::new(Shared::new(outbox, pushes.clone(), counters));
        let mut tasks = JoinSet::new();
        let ended = shared.clone();
        tasks.spawn(async move {
            if let Err(error) = outbox::write_all(writer, outgoing, None).await {
                ended.lose(error);
            }
        });
        let ended = shared.clone();
        let deltas = agreed.features & features::DELTAS != 0;
        tasks.spawn(async move {
            let Err(error) = read_all(reader, &ended, options, deltas).await;
            ended.lose(error);
        });
        let in_flight_bytes_max = usize::try_from(welcome.limits.in_flight_bytes_max)
            .unwrap_or(usize::MAX)
            .clamp(limits::FRAME_BYTES_MAX, Semaphore::MAX_PERMITS);
        let inner = Inner {
            shared,
            welcome,
            agreed,
            options,
            in_flight: Arc::new(Semaphore::new(in_flight_bytes_max)),
            in_flight_bytes_max,
            wanted: Arc::new(Semaphore::new(WANTED_BYTES_MAX)),
            puts: Pace::default(),
            _tasks: tasks,
        };
        Ok((Self(Arc::new(inner)), Pushes(pushes)))
    }

    /// What the server said at the start.
    pub fn welcome(&self) -> &Welcome {
        &self.0.welcome
    }

    /// Version and features of this session.
    pub fn agreed(&self) -> Agreed {
        self.0.agreed
    }

    /// What changed after a position. A first listing passes the welcome's head as `tombstones_after`, any other poll
    /// [`Seq::ZERO`].
    pub async fn poll(
        &self,
        after: Position,
        nodes_max: usize,
        tombstones_after: Seq,
    ) -> Result<Changes, WireError> {
        let nodes_max = u32::try_from(nodes_max.clamp(1, limits::NODES_PER_PAGE_MAX)).unwrap_or(1);
        match self.request(&Message::Poll { after, nodes_max, tombstones_after }, Vec::new()).await? {
            Message::Changes { nodes, next, complete, head } => {
                if !complete && next <= after {
                    return Err(self.violation("page without progress"));
                }
                Ok(Changes { nodes, next, complete, head })
            }
            other => Err(self.violation(other.name())),
        }
    }

    /// Commits changes and, with them, new small blocks. Comes back when the server has them durably.
    ///
    /// Every `put` and `commit` sent before it on this connection is done first.
    ///
    /// # Errors
    /// [`WireError::Unopened`]: nothing was committed; some blocks must be sent without a base.
    pub async fn commit(&self, changes: Vec<Change>, blocks: &[SealedBlock]) -> Result<Committed, WireError> {
        let commit = Message::Commit { changes };
        let answer = self.request(&commit, pack::encode(blocks)).await?;
        if let Message::Unopened { bitmap } = answer {
            return Err(self.unopened(&bitmap, blocks));
        }
        let (Message::Committed { prev, head, refused, nodes }, Message::Commit { changes }) =
            (answer, commit)
        else {
            return Err(self.violation("answer to a commit"));
        };
        if refused.last().is_some_and(|(place, _)| usize::try_from(*place).is_ok_and(|p| p >= changes.len()))
        {
            return Err(self.violation("refusal of nothing"));
        }
        self.count_sent(blocks);
        let nodes = match nodes {
            Some(nodes) => nodes,
            None => nodes_as_sent(&changes, &refused, head.seq),
        };
        let counters = self.0.shared.counters();
        counters.commits.add(1);
        counters.nodes_sent.add_len(nodes.len());
        Ok(Committed { prev, head, nodes, refused })
    }

    /// Which of at most `HASHES_PER_REQUEST_MAX` blocks the server lacks: one flag per hash, true = send it.
    pub async fn missing(&self, hashes: Vec<BlockHash>) -> Result<Vec<bool>, WireError> {
        let count = hashes.len();
        match self.request(&Message::Have { hashes }, Vec::new()).await? {
            Message::Missing { bitmap } if bitmap.len() == count => Ok(bitmap.iter().collect()),
            other => Err(self.violation(other.name())),
        }
    }

    /// Sends blocks that fit one frame (see [`pack::Packer`]). Comes back when the server has verified them; they are
    /// durable with the next commit.
    ///
    /// # Errors
    /// [`WireError::Unopened`]: some blocks must be sent without a base; the others were taken.
    pub async fn put(&self, blocks: &[SealedBlock]) -> Result<(), WireError> {
        let count = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
        let _under_way = self.0.puts.begin(blocks.iter().map(|block| block.payload.len() as u64).sum());
        match self.request(&Message::PutBlocks { count }, pack::encode(blocks)).await? {
            Message::Stored { count: stored } if stored == count => {
                self.count_sent(blocks);
                Ok(())
            }
            Message::Unopened { bitmap } => Err(self.unopened(&bitmap, blocks)),
            other => Err(self.violation(other.name())),
        }
    }

    /// How fast blocks are taken, as far as it is known.
    pub fn put_bytes_per_second(&self) -> Option<u64> {
        self.0.puts.bytes_per_second()
    }

    fn unopened(&self, bitmap: &Bitmap, blocks: &[SealedBlock]) -> WireError {
        if bitmap.len() != blocks.len() || bitmap.count_ones() == 0 {
            return self.violation("blocks that do not open");
        }
        WireError::Unopened { which: bitmap.iter().collect() }
    }

    /// True when blocks may go against bases, both ways.
    pub fn has_deltas(&self) -> bool {
        self.0.agreed.features & features::DELTAS != 0
    }

    /// Asks for at most `HASHES_PER_REQUEST_MAX` blocks that have at most `plain_bytes_max` bytes together (an answer
    /// that is longer ends the connection). Waits while [`WANTED_BYTES_MAX`] are asked for and not taken.
    pub async fn want(&self, hashes: Vec<BlockHash>, plain_bytes_max: u64) -> Result<Want, WireError> {
        self.want_against(hashes, Vec::new(), plain_bytes_max).await
    }

    /// As [`Self::want`], with a block for each hash that is held here and may be like it ([`BlockHash::NONE`]: none is).
    /// Blocks may come sealed against any of them.
    pub async fn want_against(
        &self,
        hashes: Vec<BlockHash>,
        mut bases: Vec<BlockHash>,
        plain_bytes_max: u64,
    ) -> Result<Want, WireError> {
        if !self.has_deltas() || bases.iter().all(|base| *base == BlockHash::NONE) {
            bases.clear();
        }
        let asked = usize::try_from(plain_bytes_max).unwrap_or(usize::MAX);
        let permits = u32::try_from(asked.clamp(1, WANTED_BYTES_MAX)).unwrap_or(u32::MAX);
        let wanted = self.0.wanted.clone();
        let budget = wanted.acquire_many_owned(permits).await.map_err(|_| WireError::Ended)?;
        let (sender, parts) = mpsc::unbounded_channel();
        let unanswered = hashes.len();
        let check = PartCheck::new(unanswered, asked);
        let message = Message::WantBlocks { hashes, bases };
        self.send(&message, Vec::new(), Answer::Parts { sender, check }).await?;
        Ok(Want { parts, unanswered, _budget: budget })
    }

    /// Where a moment lies in the share's journal. This and the following are for sessions with
    /// [`features::HISTORY`].
    pub async fn find(&self, at: Moment) -> Result<Found, WireError> {
        match self.request(&Message::Find { at }, Vec::new()).await? {
            Message::Found(found) => Ok(found),
            other => Err(self.violation(other.name())),
        }
    }

    /// A page of what became of everything that ever stood at a path or below it, latest first.
    pub async fn versions(
        &self,
        path: Vec<Name>,
        before: Option<(Seq, NodeId)>,
    ) -> Result<Versions, WireError> {
        let versions_max = u32::try_from(limits::VERSIONS_PER_PAGE_MAX).unwrap_or(1);
        match self.request(&Message::History { path, before, versions_max }, Vec::new()).await? {
            Message::Versions(page) => {
                if before.is_some() && page.rest.is_some() && page.rest >= before {
                    return Err(self.violation("page without progress"));
                }
                Ok(page)
            }
            other => Err(self.violation(other.name())),
        }
    }

    /// A page of what was there after a commit.
    pub async fn look(&self, at: Seq, look: Look) -> Result<Seen, WireError> {
        let nodes_max = u32::try_from(limits::NODES_PER_PAGE_MAX).unwrap_or(1);
        match self.request(&Message::Look { at, look, nodes_max }, Vec::new()).await? {
            Message::Seen(seen) => Ok(seen),
            other => Err(self.violation(other.name())),
        }
    }

    /// One round trip; how long it took.
    pub async fn ping(&self) -> Result<Duration, WireError> {
        let start = Instant::now();
        match self.request(&Message::Ping, Vec::new()).await? {
            Message::Pong => Ok(start.elapsed()),
            other => Err(self.violation(other.name())),
        }
    }

    /// Says goodbye and waits until it is out. Answers that have not come by now are lost: ask for nothing before.
    pub async fn close(&self, code: ErrorCode, text: &str) {
        self.0.shared.say_goodbye(code, text);
        let _ = tokio::time::timeout(Duration::from_millis(CLOSE_MS_MAX), self.closed()).await;
        self.0.shared.lose(WireError::Ended);
    }

    /// Waits for the end of the connection and says why it ended.
    pub async fn closed(&self) -> Arc<WireError> {
        self.0.shared.closed().await
    }

    /// True when the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.0.shared.is_closed()
    }

    async fn request(&self, message: &Message, payload: Vec<Bytes>) -> Result<Message, WireError> {
        let (sender, receiver) = oneshot::channel();
        self.send(message, payload, Answer::One(sender)).await?;
        let ms = self.0.options.request_ms_max;
        let answer = match tokio::time::timeout(Duration::from_millis(ms), receiver).await {
            Ok(Ok(answer)) => answer.map_err(WireError::shared)?,
            Ok(Err(_)) => return Err(WireError::Ended),
            Err(_) => {
                self.0.shared.lose(WireError::Timeout { what: message.name(), ms });
                return Err(WireError::Timeout { what: message.name(), ms });
            }
        };
        match answer {
            Message::Failed { code, text } => Err(WireError::Failed {
                code: ErrorCode::from_u16(code),
                text: super::message::clean_text(&text),
            }),
            answer => Ok(answer),
        }
    }

    /// Sends a request once the server's byte limit has room for it. Registering and queueing happen without an await
    /// between them, so a caller that gives up leaves nothing behind.
    async fn send(&self, message: &Message, payload: Vec<Bytes>, answer: Answer) -> Result<(), WireError> {
        let shared = &self.0.shared;
        let request = shared.next_request();
        let encode = if self.has_deltas() { EncodedFrame::shrunk } else { EncodedFrame::new };
        let frame = encode(request, message, payload)?;
        let bytes = frame.counted_bytes().clamp(REQUEST_BYTES_MIN, self.0.in_flight_bytes_max);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let in_flight = self.0.in_flight.clone();
        let permit = in_flight.acquire_many_owned(permits).await.map_err(|_| WireError::Ended)?;
        shared.counters().requests_sent.add(1);
        shared.send(request, frame, Waiter::new(answer, permit))
    }

    fn count_sent(&self, blocks: &[SealedBlock]) {
        let counters = self.0.shared.counters();
        counters.blocks_sent.add_len(blocks.len());
        counters.block_bytes_sent.add(blocks.iter().map(|b| u64::from(b.plain_len)).sum());
    }

    /// The server broke the protocol: ends the connection.
    fn violation(&self, what: &'static str) -> WireError {
        self.0.shared.lose(WireError::Unexpected(what));
        WireError::Unexpected(what)
    }
}

async fn shake_hands<R, W>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    hello: &Hello,
) -> Result<Welcome, WireError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    writer.push(&EncodedFrame::new(0, &Message::Hello(Box::new(hello.clone())), Vec::new())?);
    let written = writer.flush().await;
    // A server that is full says so without reading: its goodbye tells more than a failed write.
    match (reader.next().await, written) {
        (Ok(Some(frame)), _) => match frame.message()? {
            Message::Welcome(welcome) => Ok(*welcome),
            Message::Goodbye { code, text } => Err(goodbye(code, &text)),
            other => Err(WireError::Unexpected(other.name())),
        },
        (_, Err(error)) | (Err(error), _) => Err(error),
        (Ok(None), Ok(())) => Err(WireError::Ended),
    }
}

fn goodbye(code: u16, text: &str) -> WireError {
    WireError::Goodbye { code: ErrorCode::from_u16(code), text: super::message::clean_text(text) }
}

/// Reads until the stream ends, which is always for a reason.
async fn read_all<R: AsyncRead + Unpin>(
    mut reader: FrameReader<R>,
    shared: &Shared,
    options: Options,
    deltas: bool,
) -> Result<std::convert::Infallible, WireError> {
    let mut silent_ms = 0;
    let mut bytes_seen = 0;
    loop {
        match tokio::time::timeout(Duration::from_millis(options.ping_ms), reader.next()).await {
            Ok(frame) => {
                silent_ms = 0;
                let frame = frame?.ok_or(WireError::Ended)?;
                let message = if deltas { frame.whole_message()?.0 } else { frame.message()? };
                match (frame.request, message) {
                    (0, Message::Goodbye { code, text }) => return Err(goodbye(code, &text)),
                    (0, message) => shared.push(message, frame.payload)?,
                    (request, message) => shared.answer(request, message, frame.payload)?,
                }
            }
            Err(_) if reader.bytes_read() != bytes_seen => {
                // A large frame on a slow link: bytes came, a whole frame did not.
                silent_ms = 0;
                bytes_seen = reader.bytes_read();
            }
            Err(_) => {
                silent_ms += options.ping_ms;
                if silent_ms >= options.silence_ms_max {
                    return Err(WireError::Timeout { what: "sign of life", ms: silent_ms });
                }
                shared.ping()?;
            }
        }
    }
}

#[cfg(test)]
mod tests;
