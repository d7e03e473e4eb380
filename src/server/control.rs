//! Commands of the store's owner: `gc`, `check` and `stats` while the server runs. They come over a unix socket in the
//! store (0600: whoever may open it could open the store itself), one request and one answer per connection, and are
//! carried out in this process, gently. A command that goes away is stopped between two steps.
//!
//! ```text
//! request and answer: length n (u32 LE, at most 2 MiB), then n bytes: codec-encoded (version u32 = 1, message)
//! ```

use super::Tended;
use super::gate::Access;
use super::office::{self, Ask, Told};
use super::scrub::CancelOnDrop;
use crate::model::codec;
use crate::storage::{Brake, CheckOptions, CheckReport, GcOptions, GcReport, Stats, StorageError, Store};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Of requests and answers. Both ends are of one program, mostly of one version.
const VERSION: u32 = 1;
/// Name of the socket in the store's folder.
const SOCKET: &str = "control.sock";
/// Commands at one time; others wait.
const COMMANDS_MAX: usize = 8;
/// And these before they are accepted.
const COMMANDS_WAIT: u32 = 128;
/// A command says what it wants within this time.
const REQUEST_MS_MAX: u64 = 5_000;

/// What the owner wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Collect garbage.
    Gc(GcOptions),
    /// Check the store.
    Check(CheckOptions),
    /// Count it.
    Stats,
    /// About devices.
    Devices(Ask),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Gc`.
    Gc(GcReport),
    /// To `Check`.
    Check(CheckReport),
    /// To `Stats`.
    Stats(Stats),
    /// It could not be done.
    Failed(String),
    /// To `Devices`.
    Devices(Told),
}

/// Makes the socket. One that is there is left from a server that is gone: this process holds the store's lock.
pub fn listen(tended: &Tended) -> io::Result<UnixListener> {
    let folder = File::open(&tended.folder)?;
    let path = through(&folder);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixSocket::new_stream()?;
    // Before it has a name: the file of a socket gets the mode that the socket has, less the umask. Set afterwards, anybody
    // could open it for an instant.
    File::from(socket.as_fd().try_clone_to_owned()?).set_permissions(Permissions::from_mode(0o600))?;
    socket.bind(&path)?;
    socket.listen(COMMANDS_WAIT)
}

/// The socket by a path that is short whatever the folder's is: the system takes 107 bytes.
fn through(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}

/// Takes commands, for good.
pub async fn run(tended: Tended, access: Access, listener: UnixListener) {
    let turns = Arc::new(Semaphore::new(COMMANDS_MAX));
    let mut commands = JoinSet::new();
    loop {
        while commands.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (store, access, turns) = (tended.store.clone(), access.clone(), turns.clone());
                commands.spawn(async move {
                    let Ok(_turn) = turns.acquire().await else { return };
                    if let Err(error) = serve(stream, store, access).await {
                        tracing::debug!(%error, "a command ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a command");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(mut stream: UnixStream, store: Arc<Store>, access: Access) -> io::Result<()> {
    let patience = Duration::from_millis(REQUEST_MS_MAX);
    let bytes = tokio::time::timeout(patience, read(&mut stream)).await??;
    let reply = match unpack(&bytes) {
        Err(error) => Reply::Failed(error.to_string()),
        Ok(Request::Devices(ask)) => match access {
            Access::Open => Reply::Failed("this server lets everybody in".to_owned()),
            Access::Proved(gate) => {
                let told = tokio::task::spawn_blocking(move || office::carry_out(&gate.devices, ask));
                told.await.unwrap_or_else(|error| Reply::Failed(error.to_string()))
            }
        },
        Ok(request) => {
            let cancel = CancelOnDrop::default();
            let brake = Brake { cancel: cancel.0.clone(), gentle: true };
            let mut working = tokio::task::spawn_blocking(move || carry_out(&store, request, &brake));
            let mut nothing = [0; 1];
            tokio::select! {
                done = &mut working => done.unwrap_or_else(|error| Reply::Failed(error.to_string())),
                // It says nothing more: this is its end. The work is told by the drop of `cancel`.
                _ = stream.read(&mut nothing) => return Ok(()),
            }
        }
    };
    stream.write_all(&pack(&reply)?).await?;
    stream.shutdown().await
}

/// Does what was asked for. Also for a command that has opened the store itself.
pub fn carry_out(store: &Store, request: Request, brake: &Brake) -> Reply {
    let gentle = brake.gentle;
    let done = match request {
        Request::Gc(options) => {
            let brake = brake.clone();
            store.gc(&GcOptions { gentle, ..options }, &brake, &mut |_| Ok(())).map(Reply::Gc)
        }
        Request::Check(options) => store.check(&CheckOptions { gentle, ..options }, brake).map(Reply::Check),
        Request::Stats => store.stats(brake).map(Reply::Stats),
        Request::Devices(_) => return Reply::Failed("not a matter of the store".to_owned()),
    };
    done.unwrap_or_else(|error| Reply::Failed(causes(&error)))
}

fn causes(error: &StorageError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Asks the server that has the store in `folder` open; `None` when no server answers there.
pub fn ask(folder: &Path, request: &Request) -> io::Result<Option<Reply>> {
    let folder = File::open(folder)?;
    let mut stream = match std::os::unix::net::UnixStream::connect(through(&folder)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        other => other?,
    };
    stream.write_all(&pack(request)?)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; checked(length)?];
    stream.read_exact(&mut bytes)?;
    unpack(&bytes).map(Some)
}

async fn read(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut bytes = vec![0; checked(length)?];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn checked(length: [u8; 4]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length <= codec::BYTES_MAX { Ok(length) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn pack<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = codec::encode(&(VERSION, message)).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let other_version = || io::Error::other("the server and this command are of different versions");
    // The version is the first varint: below 251 it is one byte.
    if bytes.first() != Some(&1) {
        return Err(other_version());
    }
    let (_, message): (u32, T) = codec::decode(bytes).map_err(|_| other_version())?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_and_other_versions_are_named() {
        let request = Request::Check(CheckOptions { quick: true, ..CheckOptions::default() });
        let bytes = pack(&request).unwrap();
        assert_eq!(unpack::<Request>(&bytes[4..]).unwrap(), request);
        let mut newer = bytes[4..].to_vec();
        newer[0] = 2;
        assert!(unpack::<Request>(&newer).unwrap_err().to_string().contains("versions"));
        assert!(unpack::<Request>(&bytes[4..bytes.len() - 1]).is_err());
        assert!(checked([0xff; 4]).is_err());
    }
}
