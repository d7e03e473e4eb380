//! Reaching a server and knowing that it is the right one, before anything is said that a stranger must not hear.
//!
//! ```text
//! loopback, not `always`, no invite:  knock, challenge. The server proves that it knows a secret of this user: in the clear.
//!                                     It does not, or not for this connection (a relay, a port forward): TLS, below.
//! anything else:                      TLS to a key that is pinned, or of a server of this user.
//! ```
//! There is no way down from here: whatever a man in the middle breaks, the outcome is TLS to a trusted key, or an error.

use super::error::{ErrorCode, WireError};
use super::frame::{FrameReader, FrameWriter};
use super::message::Message;
use super::opening::{self, Challenge, Knock};
use super::tcp::{self, Dial, Dialing, Link};
use super::tls;
use crate::auth::{Binding, DeviceKey, Ends, Fingerprint, InviteSecret, Proof, Secret};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A server says who it is within this time.
const OPENING_MS_MAX: u64 = 10_000;

/// When to encrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    /// Everywhere but between two processes of one user on one machine.
    #[default]
    Auto,
    /// There too.
    Always,
}

/// The server that a folder belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// Its name.
    pub server: Fingerprint,
    /// It came with an invite: no other server will do, and the device's own key is what lets in.
    pub invited: bool,
}

/// What a client knows of itself and of servers.
pub trait Keyring: Send + Sync {
    /// Secrets that a server of this name has left for its own user here, if any.
    fn secrets(&self, server: &Fingerprint) -> Vec<Secret>;

    /// The server that the folder belongs to.
    fn pin(&self) -> Option<Pin>;

    /// The folder's own key.
    fn device(&self) -> &DeviceKey;

    /// A random number.
    fn nonce(&self) -> Result<[u8; 32], WireError>;

    /// What names this machine and its loopback, the same for every process that shares it.
    fn machine(&self) -> Vec<u8>;

    /// This server took the client in.
    fn met(&self, server: &Fingerprint);
}

/// Reaches servers over TCP, with proof of both ends.
pub struct SecureDialer {
    /// Keys.
    pub keyring: Arc<dyn Keyring>,
    /// When to encrypt.
    pub tls: Tls,
    /// What lets in, for the first time.
    pub invite: Option<InviteSecret>,
}

impl Dial for SecureDialer {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(self.reach(address))
    }

    fn welcomed(&self, server: &Fingerprint) {
        self.keyring.met(server);
    }
}

impl SecureDialer {
    async fn reach(&self, address: &str) -> Result<Link, WireError> {
        let stream = tcp::connect(address).await?;
        let ends = Ends { client: stream.local_addr()?, server: stream.peer_addr()? };
        let invited = self.invite.is_some() || self.keyring.pin().is_some_and(|pin| pin.invited);
        if self.tls == Tls::Always || invited || !ends.are_loopback() {
            return within("TLS handshake", self.encrypted(stream)).await;
        }
        match within("proof of the server", self.clear(stream, ends)).await? {
            Some(link) => Ok(link),
            // The challenge was used up: another connection, to the address that answered this one.
            None => {
                let stream = tcp::connect(ends.server).await?;
                within("TLS handshake", self.encrypted(stream)).await
            }
        }
    }

    /// Knocks; `None` when only TLS can tell whether this is the right server.
    async fn clear(&self, stream: TcpStream, ends: Ends) -> Result<Option<Link>, WireError> {
        let (reader, writer) = tcp::split(stream)?;
        let mut reader = FrameReader::new(reader, Arc::default());
        let mut writer = FrameWriter::new(writer, Arc::default());
        let nonce = self.keyring.nonce()?;
        writer.push(&opening::knock(&Knock { proto: opening::PROTO, nonce })?);
        let written = writer.flush().await;
        // A server that is full says so without reading.
        let frame = match (reader.next().await, written) {
            (Ok(Some(frame)), _) => frame,
            (_, Err(error)) | (Err(error), _) => return Err(error),
            (Ok(None), Ok(())) => return Err(WireError::Ended),
        };
        let Some(challenge) = opening::read_challenge(&frame)? else { return Err(instead(&frame)) };
        let Challenge { nonce: theirs, server, clear, mac, .. } = challenge;
        let binding = Binding::clear(&nonce, &theirs, &server, ends, &self.keyring.machine());
        let secrets = if clear { self.keyring.secrets(&server) } else { Vec::new() };
        let proved = secrets.iter().find(|secret| secret.check_server(&binding, &mac).is_ok());
        let Some(secret) = proved else {
            tracing::debug!(%server, clear, "no proof in the clear, going on with TLS");
            return Ok(None);
        };
        let auth = Proof::owner(secret, self.keyring.device(), &binding).into();
        let (reader, writer) = (Box::new(reader.into_stream()?), Box::new(writer.into_stream()));
        Ok(Some(Link { reader, writer, auth, server: Some(server) }))
    }

    async fn encrypted(&self, stream: TcpStream) -> Result<Link, WireError> {
        stream.set_nodelay(true)?;
        let (keyring, has_invite) = (self.keyring.clone(), self.invite.is_some());
        let trust = move |server: &Fingerprint| match keyring.pin() {
            Some(pin) if pin.server == *server && pin.invited => Ok(()),
            Some(pin) if pin.invited || has_invite => {
                Err(WireError::OtherServer { found: *server, pinned: pin.server })
            }
            _ if keyring.secrets(server).is_empty() => Err(WireError::Stranger(*server)),
            _ => Ok(()),
        };
        let (stream, binding, server) = tls::connect(stream, Arc::new(trust)).await?;
        let device = self.keyring.device();
        let invited = self.keyring.pin().is_some_and(|pin| pin.invited);
        let proof = match (&self.invite, self.keyring.secrets(&server).first()) {
            (Some(invite), _) => Proof::invited(invite, device, &binding),
            (None, Some(secret)) if !invited => Proof::owner(secret, device, &binding),
            (None, _) => Proof::device(device, &binding),
        };
        let (reader, writer) = tokio::io::split(stream);
        let (reader, writer) = (Box::new(reader), Box::new(writer));
        Ok(Link { reader, writer, auth: proof.into(), server: Some(server) })
    }
}

/// What a server says that does not answer a knock.
fn instead(frame: &super::Frame) -> WireError {
    match frame.message() {
        Ok(Message::Goodbye { code, .. }) if ErrorCode::from_u16(code) == ErrorCode::Malformed => {
            WireError::OldServer
        }
        Ok(Message::Goodbye { code, text }) => {
            let (code, text) = (ErrorCode::from_u16(code), super::message::clean_text(&text));
            // A refusal for good counts only from the server.
            if code.is_retryable() { WireError::Goodbye { code, text } } else { WireError::Unproved(text) }
        }
        Ok(other) => WireError::Unexpected(other.name()),
        Err(error) => error,
    }
}

async fn within<T>(
    what: &'static str,
    opening: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    let late = |_| WireError::Timeout { what, ms: OPENING_MS_MAX };
    tokio::time::timeout(Duration::from_millis(OPENING_MS_MAX), opening).await.map_err(late)?
}
