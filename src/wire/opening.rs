//! The two frames before a hello on a connection in the clear. They reveal nothing of the client but a random number, and
//! the server speaks its proof first: who only listens on a port learns nothing, and who relays is found out.
//!
//! ```text
//! client  Knock     { proto 1, nonce }
//! server  Challenge { proto 1, nonce, fingerprint, clear, mac }     mac: of the owner's secret, over the binding
//! client  Hello     { auth: owner's proof over the same binding, .. }
//! ```
//! Frames like any other (request 0), whose head is eight bytes of magic and then the fields. A server of before takes
//! the magic for an unknown message and says `Malformed`. Pure.

use super::error::WireError;
use super::frame::{EncodedFrame, Frame};
use super::handshake::bound;
use crate::auth::Fingerprint;
use crate::model::codec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The first bytes of a knock.
const KNOCK: &[u8; 8] = b"dropknok";
/// The first bytes of a challenge.
const CHALLENGE: &[u8; 8] = b"dropchal";
/// Version of both.
pub const PROTO: u16 = 1;

/// The client wants to know who is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    /// [`PROTO`]; a server that knows only lower ones answers with its own.
    pub proto: u16,
    /// Random.
    pub nonce: [u8; 32],
}

/// The server says who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The version of this opening.
    pub proto: u16,
    /// Random.
    pub nonce: [u8; 32],
    /// Which server. A claim, until `mac` or TLS proves it.
    pub server: Fingerprint,
    /// A session in the clear may follow here; otherwise TLS on another connection.
    pub clear: bool,
    /// The server's proof, zeros without `clear`.
    pub mac: [u8; 32],
}

/// True for a frame that may be a knock: not a message.
pub fn is_knock(frame: &Frame) -> bool {
    frame.head().starts_with(KNOCK)
}

/// A frame.
pub fn knock(knock: &Knock) -> Result<EncodedFrame, WireError> {
    encode(KNOCK, knock)
}

/// A frame.
pub fn challenge(challenge: &Challenge) -> Result<EncodedFrame, WireError> {
    encode(CHALLENGE, challenge)
}

/// Reads a knock.
pub fn read_knock(frame: &Frame) -> Result<Knock, WireError> {
    let knock: Knock = decode(KNOCK, frame)?;
    bound(knock.proto > 0, "version of the opening")?;
    Ok(knock)
}

/// Reads a challenge; `None` for a frame that is a message.
pub fn read_challenge(frame: &Frame) -> Result<Option<Challenge>, WireError> {
    if !frame.head().starts_with(CHALLENGE) {
        return Ok(None);
    }
    let challenge: Challenge = decode(CHALLENGE, frame)?;
    if challenge.proto != PROTO {
        return Err(WireError::Version { min: challenge.proto, max: challenge.proto });
    }
    Ok(Some(challenge))
}

fn encode<T: Serialize>(magic: &[u8; 8], value: &T) -> Result<EncodedFrame, WireError> {
    let head = [magic.as_slice(), &codec::encode(value)?].concat();
    EncodedFrame::of_head(0, &head, Vec::new())
}

fn decode<T: DeserializeOwned>(magic: &[u8; 8], frame: &Frame) -> Result<T, WireError> {
    let body = frame.head().strip_prefix(magic.as_slice()).ok_or(WireError::Unexpected("frame"))?;
    if frame.request != 0 || !frame.payload.is_empty() {
        return Err(WireError::Unexpected("frame"));
    }
    Ok(codec::decode(body)?)
}
