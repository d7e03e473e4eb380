//! TCP: the one transport so far. TLS will wrap the halves that come from here.

use super::error::WireError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};

/// A connection attempt per address takes at most this long.
pub const DIAL_MS_MAX: u64 = 5_000;

/// The two halves of a stream, wherever it leads.
pub type Stream = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);
/// What [`Dial::dial`] returns.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = Result<Stream, WireError>> + Send + 'a>>;

/// Reaches a server.
pub trait Dial: Send + Sync {
    /// Connects to an address.
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a>;
}

/// Reaches a server over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDialer;

impl Dial for TcpDialer {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            let (reader, writer) = dial(address).await?;
            Ok((Box::new(reader) as Box<_>, Box::new(writer) as Box<_>))
        })
    }
}

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
