//! TCP: the one transport. TLS goes around it (`tls`), and `dialer` decides whether.

use super::error::WireError;
use super::handshake::Auth;
use crate::auth::Fingerprint;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};

/// A connection attempt per address takes at most this long.
pub const DIAL_MS_MAX: u64 = 5_000;

/// A stream to a server, and who is at both ends of it.
pub struct Link {
    /// What the server says.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// To the server.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The client's proof, bound to this stream: for the hello.
    pub auth: Auth,
    /// Who the server has proved to be; `None` where nobody asked.
    pub server: Option<Fingerprint>,
}

impl Link {
    /// A stream on which nobody proves anything: for servers that ask for no proof, in tests and simulation.
    pub fn open(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self { reader: Box::new(reader), writer: Box::new(writer), auth: Auth::default(), server: None }
    }
}

/// What [`Dial::dial`] returns.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = Result<Link, WireError>> + Send + 'a>>;

/// Reaches a server.
pub trait Dial: Send + Sync {
    /// Connects to an address.
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a>;

    /// The server of the last dial took the hello.
    fn welcomed(&self, _server: &Fingerprint) {}
}

/// Reaches a server over TCP, in the clear and without a proof: for servers in tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDialer;

impl Dial for TcpDialer {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            let (reader, writer) = dial(address).await?;
            Ok(Link::open(reader, writer))
        })
    }
}

/// Connects to the first address that answers.
///
/// # Errors
/// With the failure of the last address, or when the name has none.
pub async fn dial(address: impl ToSocketAddrs) -> Result<(OwnedReadHalf, OwnedWriteHalf), WireError> {
    split(connect(address).await?)
}

/// The same, not yet split.
///
/// # Errors
/// As [`dial`].
pub async fn connect(address: impl ToSocketAddrs) -> Result<TcpStream, WireError> {
    let mut failure = WireError::Io(io::ErrorKind::AddrNotAvailable.into());
    for address in lookup_host(address).await? {
        let attempt = tokio::time::timeout(Duration::from_millis(DIAL_MS_MAX), TcpStream::connect(address));
        match attempt.await {
            Ok(Ok(stream)) => return Ok(stream),
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
