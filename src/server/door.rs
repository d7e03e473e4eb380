//! What happens on a connection before its hello: TLS, or knock and challenge, or (where nobody proves anything) nothing.
//! All of it, the hello included, has one deadline, and holds a few KiB.

use super::gate::{Access, Gate, Way};
use super::lobby::Waiting;
use super::session;
use super::{Accepted, Server};
use crate::auth::Ends;
use crate::model::path;
use crate::wire::opening;
use crate::wire::{EncodedFrame, ErrorCode, Frame, FrameReader, FrameWriter, WireError, tls};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;
use tracing::info;

/// Until when a connection must have proved who it is.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    ms: u64,
    at: Instant,
}

impl Deadline {
    pub fn new(ms: u64) -> Self {
        Self { ms, at: Instant::now() + Duration::from_millis(ms) }
    }

    /// Runs something that must be done by then, unless the connection has to make room for another.
    pub async fn keep<T>(
        &self,
        waiting: &Waiting,
        what: impl Future<Output = Result<T, WireError>>,
    ) -> Result<T, WireError> {
        tokio::select! {
            biased;
            () = waiting.must_go() => Err(WireError::Goodbye {
                code: ErrorCode::Busy,
                text: "too many connections have not said who they are".to_owned(),
            }),
            done = tokio::time::timeout_at(self.at, what) => {
                done.unwrap_or(Err(WireError::Timeout { what: "hello", ms: self.ms }))
            }
        }
    }
}

/// Runs a connection to its end; every end is logged.
pub async fn enter<R, W>(server: Arc<Server>, stream: Accepted<R, W>, waiting: Waiting)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let deadline = Deadline::new(server.config.handshake_ms_max);
    match server.config.access.clone() {
        Access::Open => {
            let counters = &server.config.counters;
            let reader = FrameReader::new(stream.reader, counters.clone());
            let writer = FrameWriter::new(stream.writer, counters.clone());
            session::run(
                server,
                stream.peer,
                reader,
                writer,
                Opening { way: Way::Bare, first: None, deadline, waiting },
            )
            .await;
        }
        Access::Proved(gate) => guarded(server, &gate, stream, waiting, deadline).await,
    }
}

/// A connection as far as its hello.
pub struct Opening {
    /// How it came.
    pub way: Way,
    /// A frame that was read already and should be the hello.
    pub first: Option<Frame>,
    /// The hello must have been taken by then.
    pub deadline: Deadline,
    /// Its place among those that have not proved anything.
    pub waiting: Waiting,
}

async fn guarded<R, W>(
    server: Arc<Server>,
    gate: &Gate,
    stream: Accepted<R, W>,
    waiting: Waiting,
    deadline: Deadline,
) where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let counters = server.config.counters.clone();
    let Accepted { peer, local, mut reader, writer } = stream;
    let mut first = [0; 3];
    let read = async { Ok(reader.read_exact(&mut first).await.map(drop)?) };
    if let Err(error) = deadline.keep(&waiting, read).await {
        // From elsewhere clients speak TLS, in which nothing can be said yet: that it ends tells them more than noise.
        if error.code() == ErrorCode::Busy && !peer.ip().is_loopback() {
            info!(%peer, reason = %error, "no session");
            return;
        }
        let mut writer = FrameWriter::new(writer, counters.clone());
        let mut reader = FrameReader::new(reader, counters);
        return session::turn_away(peer, &mut reader, &mut writer, &error, waiting).await;
    }
    if tls::is_hello(first) {
        let stream = tokio::io::join(Cursor::new(first).chain(reader), writer);
        match deadline.keep(&waiting, Box::pin(gate.tls.accept(stream))).await {
            Ok((stream, binding)) => {
                let (reader, writer) = tokio::io::split(stream);
                let reader = FrameReader::new(reader, counters.clone());
                let writer = FrameWriter::new(writer, counters);
                let opening = Opening { way: Way::Tls(binding), first: None, deadline, waiting };
                session::run(server, peer, reader, writer, opening).await;
            }
            // Nothing can be said that the peer would understand.
            Err(error) => {
                if error.code() != ErrorCode::Busy {
                    waiting.failed();
                }
                info!(%peer, reason = %path::escape(error.to_string().as_bytes()), "no session");
            }
        }
        return;
    }
    let mut reader = FrameReader::after(reader, &first, counters.clone());
    let mut writer = FrameWriter::new(writer, counters);
    let knocked = knock(gate, &mut reader, &mut writer, Ends { client: peer, server: local });
    match deadline.keep(&waiting, knocked).await {
        Ok((way, first)) => {
            session::run(server, peer, reader, writer, Opening { way, first, deadline, waiting }).await;
        }
        Err(error) => session::turn_away(peer, &mut reader, &mut writer, &error, waiting).await,
    }
}

/// Reads the first frame, and answers it when it is a knock.
async fn knock<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    gate: &Gate,
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    ends: Ends,
) -> Result<(Way, Option<Frame>), WireError> {
    let frame = reader.next().await?.ok_or(WireError::Ended)?;
    if !opening::is_knock(&frame) {
        return Ok((Way::Bare, Some(frame)));
    }
    let (challenge, binding) = gate.answer(&opening::read_knock(&frame)?, ends);
    let answer: EncodedFrame = opening::challenge(&challenge)?;
    writer.push(&answer);
    writer.flush().await?;
    Ok((binding.map_or(Way::Bare, Way::Clear), None))
}
