//! Why a connection or a request failed. [`ErrorCode`] crosses the wire as a number that never changes its meaning.

use crate::auth::Fingerprint;
use crate::block::BlockError;
use crate::model::codec::CodecError;
use std::io;
use std::sync::Arc;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, retry $retry:literal;)*) => {
        /// A reason that crosses the wire, in `Goodbye` (the session ends) and `Failed` (one request ends).
        /// Append-only: a number is never given a second meaning.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $name,)* /** A code that this version does not know. */ Unknown(u16) }

        impl ErrorCode {
            /// Every code that this version knows.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            pub const fn to_u16(self) -> u16 {
                match self { $(Self::$name => $number,)* Self::Unknown(number) => number }
            }

            /// Takes a number from the wire.
            pub const fn from_u16(number: u16) -> Self {
                match number { $($number => Self::$name,)* other => Self::Unknown(other) }
            }

            /// True when the same attempt may succeed later, without a change on this side.
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retry,)* Self::Unknown(_) => true }
            }
        }
    };
}

codes! {
    /// The peer is done; nothing is wrong.
    Done = 0, retry true;
    /// Bytes that are not the protocol.
    Malformed = 1, retry false;
    /// A frame is longer than the limit of this state.
    FrameTooLarge = 2, retry false;
    /// A count or length inside a message is over its bound.
    OverLimit = 3, retry false;
    /// A message that has no place here.
    Unexpected = 4, retry false;
    /// No protocol version in common.
    Version = 5, retry false;
    /// A required feature that the other side does not have.
    Feature = 6, retry false;
    /// The proof of identity was refused.
    Auth = 7, retry false;
    /// The name of the share is not one.
    ShareName = 8, retry false;
    /// The handshake, or the next sign of life, came too late.
    Timeout = 9, retry true;
    /// Too many connections.
    Busy = 10, retry true;
    /// The server is stopping.
    ShuttingDown = 11, retry true;
    /// A sealed block does not open, or is longer than it says.
    BadBlock = 12, retry false;
    /// A block is sealed against a base that the receiver does not hold: send it again without one.
    BaseMissing = 13, retry false;
    /// The store failed; nothing of this request is promised.
    Storage = 14, retry true;
    /// A fault inside the peer.
    Internal = 15, retry true;
    /// The server's disk has no room; nothing of this request was taken.
    Full = 16, retry true;
    /// This device may look and not change.
    ReadOnly = 17, retry false;
    /// The server is still opening its store.
    Opening = 18, retry true;
}

/// Why the wire failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream failed.
    #[error("connection failed")]
    Io(#[from] io::Error),
    /// The stream ended in the middle of a frame.
    #[error("connection ended inside a frame")]
    Truncated,
    /// The peer went away without a word.
    #[error("connection ended")]
    Ended,
    /// A frame is longer than this state allows.
    #[error("frame of {bytes} bytes is larger than {bytes_max}")]
    FrameTooLarge {
        /// As announced.
        bytes: u64,
        /// The limit of this state.
        bytes_max: usize,
    },
    /// The lengths of a frame contradict each other.
    #[error("frame lengths do not fit")]
    FrameShape,
    /// The head is not a message.
    #[error("message does not decode")]
    Codec(#[from] CodecError),
    /// The payload is not a pack of sealed blocks.
    #[error("pack does not decode")]
    Pack(#[from] BlockError),
    /// A bound of a message is broken.
    #[error("{0} is over its bound")]
    OverLimit(&'static str),
    /// A message that has no place here.
    #[error("unexpected {0}")]
    Unexpected(&'static str),
    /// No version in common.
    #[error("protocol versions {min} to {max} of the peer do not meet ours")]
    Version {
        /// Lowest that the peer speaks.
        min: u16,
        /// Highest that the peer speaks.
        max: u16,
    },
    /// A required feature is unknown here.
    #[error("feature bits {bits:#x} are required by the peer and unknown here")]
    Feature {
        /// The unknown bits.
        bits: u64,
    },
    /// The proof of identity was refused.
    #[error("authentication was refused")]
    Auth,
    /// The server is nobody's that this side knows.
    #[error("unknown server {0}")]
    Stranger(Fingerprint),
    /// The server is not the one that was expected there.
    #[error("this is server {found}, and not {pinned}")]
    OtherServer {
        /// Which one answered.
        found: Fingerprint,
        /// Which one was expected.
        pinned: Fingerprint,
    },
    /// The encrypted channel could not be made.
    #[error("no encrypted channel: {0}")]
    Tls(String),
    /// The server asks for no proof, or speaks in the clear where it must not.
    #[error("the server runs an older dropblock, which asks nobody who they are; update it")]
    OldServer,
    /// Somebody who has not proved to be a server refuses.
    #[error("refused, by somebody who does not show who it is: {0}")]
    Unproved(String),
    /// Not a name of a share.
    #[error("not a name of a share")]
    ShareName,
    /// Nothing came in time.
    #[error("no {what} within {}", time(*ms))]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        ms: u64,
    },
    /// The peer ended the session.
    #[error("the peer ended the session: {text} ({code:?})")]
    Goodbye {
        /// Why.
        code: ErrorCode,
        /// For people; escaped.
        text: String,
    },
    /// The peer refused one request; the session goes on.
    #[error("the peer refused the request: {text} ({code:?})")]
    Failed {
        /// Why.
        code: ErrorCode,
        /// For people; escaped.
        text: String,
    },
    /// Some blocks do not open with their bases at the server: send those without.
    #[error("blocks do not open with their bases")]
    Unopened {
        /// One per block that was sent.
        which: Vec<bool>,
    },
    /// The server shows a journal that cannot be a continuation of what it showed before.
    #[error("the server's past is not what it was: it was put back, or shows a different one to others")]
    OtherPast,
    /// The connection had ended already, for this reason.
    #[error("connection lost: {0}")]
    Lost(#[source] Arc<WireError>),
}

/// `10 s`; `250 ms` where that says more.
fn time(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{ms} ms") }
}

impl WireError {
    /// One failure that ended many requests.
    pub fn shared(reason: Arc<Self>) -> Self {
        match Arc::try_unwrap(reason) {
            Ok(error) => error,
            Err(reason) => Self::Lost(reason),
        }
    }

    /// The code this failure has on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Io(_) | Self::Ended => ErrorCode::Done,
            Self::Truncated | Self::FrameShape | Self::Codec(_) => ErrorCode::Malformed,
            Self::FrameTooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::Pack(_) => ErrorCode::BadBlock,
            Self::OverLimit(_) => ErrorCode::OverLimit,
            Self::Unexpected(_) | Self::OtherPast => ErrorCode::Unexpected,
            Self::Version { .. } => ErrorCode::Version,
            Self::Feature { .. } => ErrorCode::Feature,
            Self::Auth | Self::Stranger(_) | Self::OtherServer { .. } | Self::OldServer => ErrorCode::Auth,
            Self::Tls(_) => ErrorCode::Malformed,
            Self::Unproved(_) => ErrorCode::Unexpected,
            Self::ShareName => ErrorCode::ShareName,
            Self::Timeout { .. } => ErrorCode::Timeout,
            Self::Unopened { .. } => ErrorCode::BaseMissing,
            Self::Goodbye { code, .. } | Self::Failed { code, .. } => *code,
            Self::Lost(reason) => reason.code(),
        }
    }

    /// True when connecting again (or asking again) may help without a change on this side.
    pub fn is_retryable(&self) -> bool {
        match self {
            // Of another past the next welcome tells, and both sides are joined anew.
            Self::Io(_) | Self::Ended | Self::Truncated | Self::OtherPast => true,
            Self::Lost(reason) => reason.is_retryable(),
            other => other.code().is_retryable(),
        }
    }

    /// True when the peer did not answer, or gave no sign of life, in time.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Lost(reason) => reason.is_timeout(),
            _ => false,
        }
    }

    /// True when the peer broke the protocol (as opposed to a stream that broke).
    pub fn is_violation(&self) -> bool {
        !matches!(
            self,
            Self::Io(_)
                | Self::Ended
                | Self::Truncated
                | Self::Goodbye { .. }
                | Self::Failed { .. }
                | Self::Unopened { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_number_and_comes_back() {
        let numbers: std::collections::BTreeSet<_> = ErrorCode::ALL.iter().map(|c| c.to_u16()).collect();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_u16(code.to_u16()), *code);
        }
        assert_eq!(ErrorCode::from_u16(60_000).to_u16(), 60_000);
    }

    #[test]
    fn a_broken_stream_is_worth_a_retry_and_a_broken_rule_is_not() {
        assert!(WireError::Ended.is_retryable());
        assert!(!WireError::Auth.is_retryable());
        assert!(!WireError::Lost(Arc::new(WireError::Version { min: 9, max: 9 })).is_retryable());
    }
}
