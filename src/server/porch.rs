//! Who comes while the store is still being opened, which takes long after a crash of a large one: is told so, and comes
//! again. Without a word a client would take the server for a dead one.
//!
//! Nothing is believed here and nothing is shown but the server's key, which anybody may see.

use super::door::Deadline;
use super::listen::ACCEPT_PAUSE_MS;
use super::lobby::{Lobby, Waiting};
use super::{Accept, Accepted, session};
use crate::auth::ServerKey;
use crate::wire::tls::{self, TlsServer};
use crate::wire::{ErrorCode, FrameReader, FrameWriter, WireError};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Whoever says nothing for so long goes, ms.
const SILENCE_MS_MAX: u64 = 5_000;

/// Waits for `opening`. Connections that come meanwhile wait too, for as long as `quiet`; from then on, which is told to
/// `slow`, they are answered. Without a key those that want TLS go on waiting.
///
/// # Cancel safety
/// As that of `opening`.
pub async fn until<L: Accept, T>(
    listener: &mut L,
    key: Option<&ServerKey>,
    quiet: Duration,
    slow: impl FnOnce(),
    opening: impl Future<Output = T>,
) -> T {
    tokio::pin!(opening);
    tokio::select! {
        biased;
        opened = &mut opening => return opened,
        () = tokio::time::sleep(quiet) => slow(),
    }
    let tls = key.and_then(|key| TlsServer::new(key).ok());
    let lobby = Arc::new(Lobby::default());
    loop {
        tokio::select! {
            biased;
            opened = &mut opening => return opened,
            accepted = listener.accept() => match accepted {
                Ok(Some(stream)) => {
                    // Not ended with this: a goodbye that was begun is said.
                    if let Some(waiting) = Lobby::enter(&lobby, stream.peer.ip()) {
                        tokio::spawn(answer(stream, tls.clone(), waiting));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            },
        }
    }
}

/// Says that the store is being opened, in the way in which the client came.
async fn answer<R, W>(stream: Accepted<R, W>, tls: Option<TlsServer>, waiting: Waiting)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let deadline = Deadline::new(SILENCE_MS_MAX);
    let Accepted { peer, mut reader, writer, .. } = stream;
    let mut first = [0; 3];
    let read = async { Ok(reader.read_exact(&mut first).await.map(drop)?) };
    if deadline.keep(&waiting, read).await.is_err() {
        return;
    }
    let why =
        WireError::Goodbye { code: ErrorCode::Opening, text: "its store is still being opened".to_owned() };
    if !tls::is_hello(first) {
        let mut reader = FrameReader::after(reader, &first, Arc::default());
        let mut writer = FrameWriter::new(writer, Arc::default());
        return session::turn_away(peer, &mut reader, &mut writer, &why, waiting).await;
    }
    let Some(tls) = tls else {
        // To hang up would say that this is no server.
        let _ = deadline.keep(&waiting, std::future::pending::<Result<(), WireError>>()).await;
        return;
    };
    let stream = tokio::io::join(Cursor::new(first).chain(reader), writer);
    if let Ok((stream, _)) = deadline.keep(&waiting, Box::pin(tls.accept(stream))).await {
        let (reader, writer) = tokio::io::split(stream);
        let mut reader = FrameReader::new(reader, Arc::default());
        let mut writer = FrameWriter::new(writer, Arc::default());
        session::turn_away(peer, &mut reader, &mut writer, &why, waiting).await;
    }
}
