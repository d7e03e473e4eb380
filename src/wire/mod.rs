//! The protocol of `docs/PROTOCOL.md` over any byte stream: frames, messages, handshake, connections.
//!
//! ```text
//! TCP <-> TLS, or a proof in the clear (loopback only)
//! bytes <-> frame (length, request id, head, payload) <-> message (checked on both ends) <-> connection | server session
//! ```
//! Nothing here knows a store or a folder. Messages, handshake and codes are pure; `frame`, `outbox` and `connection`
//! work over any pair of `AsyncRead` and `AsyncWrite`, which is where TLS stands.
//!
//! Invariants: a length is capped before anything is allocated, every queue is bounded by bytes, block bytes are never
//! copied between socket and pack, and every way a connection can end has a [`ErrorCode`].

pub mod backlog;
pub mod connection;
pub mod dialer;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod opening;
pub mod outbox;
pub mod pace;
pub mod reply;
pub mod tcp;
pub mod tls;
mod waiting;

pub use connection::{Connection, Options, Push, Pushes};
pub use dialer::{Keyring, Pin, SecureDialer, Tls};
pub use error::{ErrorCode, WireError};
pub use frame::{EncodedFrame, Frame, FrameReader, FrameWriter};
pub use handshake::{Auth, Hello, ServerLimits, Welcome};
pub use message::{Head, Message, Position};
pub use reply::{Changes, Committed, Want, WantPart};
pub use tcp::{Dial, Link, TcpDialer};
