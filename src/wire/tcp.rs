//! TCP: the one transport so far. TLS will wrap the halves that come from here.

use super::error::WireError;
use std::io;
use std::time::Duration;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};

/// A connection attempt per address takes at most this long.
pub const DIAL_MS_MAX: u64 = 5_000;

/// Connects to the first address that answers.
///
/// # Errors
/// With the failure of the last address, or when the name has none.
pub async fn dial(address: impl ToSocketAddrs) -> Result<(OwnedReadHalf, OwnedWriteHalf), WireError> {
    let mut failure = WireError::Io(io::ErrorKind::AddrNotAvailable.into());
    for address in lookup_host(address).await? {
        let attempt = tokio::time::timeout(Duration::from_millis(DIAL_MS_MAX), TcpStream::connect(address));
        match attempt.await {
            Ok(Ok(stream)) => return split(stream),
            Ok(Err(error)) => failure = error.into(),
            Err(_) => failure = WireError::Timeout { what: "connection", ms: DIAL_MS_MAX },
        }
    }
    Err(failure)
}

/// Prepares an open stream. No delay: frames are batched before they are written, and a small commit must not wait for
/// an acknowledgement. Buffer sizes stay with the kernel: its tuning grows them to several MiB, a fixed size cannot.
pub fn split(stream: TcpStream) -> Result<(OwnedReadHalf, OwnedWriteHalf), WireError> {
    stream.set_nodelay(true)?;
    Ok(stream.into_split())
}
