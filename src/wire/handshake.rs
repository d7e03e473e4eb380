//! The first two messages, and what they agree on. Pure: values in, values out.
//!
//! A client opens with [`Hello`], the server answers [`Welcome`] or `Goodbye`. The layout of these three (and their
//! place in the enum of messages) never changes: whatever is new goes into `extensions`, of which unknown ones are
//! ignored, or behind a feature bit, of which unknown *required* ones are refused.

use super::error::WireError;
use super::message::Head;
use crate::auth::Proof;
use crate::model::limits;
use crate::model::{DeviceId, SessionId, StoreId};
use serde::{Deserialize, Serialize};

/// The first bytes of every hello.
pub const MAGIC: [u8; 8] = *b"dropblok";
/// Lowest protocol version spoken here.
pub const PROTO_MIN: u16 = 1;
/// Highest protocol version spoken here.
pub const PROTO_MAX: u16 = 1;

/// Feature bits. A bit is optional or required as the sender says in its hello.
pub mod features {
    /// The server opens blocks that are sealed against a base block it holds.
    pub const BASES: u64 = 1;
    /// The server tells the past of a share.
    pub const HISTORY: u64 = 2;
    /// The client may be asked for blocks that the store lacks.
    pub const REPAIR: u64 = 4;
    /// Both open patches and blocks against a base, and messages that were made shorter; the server seals what it sends
    /// against bases that the client names, and says which of the client's blocks did not open.
    pub const DELTAS: u64 = 32;
    /// Everything this version knows.
    pub const KNOWN: u64 = BASES | HISTORY | REPAIR | DELTAS;
}

/// Most extensions in a hello or a welcome.
pub const EXTENSIONS_MAX: usize = 16;
/// Longest extension, bytes.
pub const EXTENSION_BYTES_MAX: usize = 512;
/// Longest proof, bytes.
pub const AUTH_BYTES_MAX: usize = 1024;

/// A proof of identity, bound to this connection (`auth::Proof`). Method 0 has no bytes and proves nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Auth {
    /// Which kind of proof.
    pub method: u16,
    /// The proof, at most [`AUTH_BYTES_MAX`].
    pub bytes: Vec<u8>,
}

impl Auth {
    /// No proof.
    pub const NONE: u16 = 0;
}

impl From<Proof> for Auth {
    fn from(Proof { method, bytes }: Proof) -> Self {
        Self { method, bytes }
    }
}

/// Kinds of extensions.
pub mod extensions {
    /// In a welcome, without bytes: this device may look and not change.
    pub const READ_ONLY: u16 = 1;
}

/// A field that a later version added. Unknown kinds are ignored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Extension {
    /// Which field.
    pub kind: u16,
    /// Its value, at most [`EXTENSION_BYTES_MAX`].
    pub bytes: Vec<u8>,
}

/// What a client opens with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Lowest version the client speaks.
    pub proto_min: u16,
    /// Highest version the client speaks.
    pub proto_max: u16,
    /// Bits without which the client cannot work.
    pub features_required: u64,
    /// Bits that the client understands.
    pub features_optional: u64,
    /// The client's identity.
    pub device: DeviceId,
    /// Its name for people, 1 ..= 64 bytes of UTF-8.
    pub device_name: String,
    /// The share to open, 1 ..= 64 bytes of UTF-8 without control characters and `/`.
    pub share: String,
    /// The last head this client knows; `None` for a first sync.
    pub cursor: Option<Head>,
    /// Who the client is.
    pub auth: Auth,
    /// Fields of later versions.
    pub extensions: Vec<Extension>,
}

impl Hello {
    /// A hello of this version.
    pub const fn new(device: DeviceId, device_name: String, share: String, cursor: Option<Head>) -> Self {
        Self {
            magic: MAGIC,
            proto_min: PROTO_MIN,
            proto_max: PROTO_MAX,
            features_required: 0,
            features_optional: features::KNOWN,
            device,
            device_name,
            share,
            cursor,
            auth: Auth { method: Auth::NONE, bytes: Vec::new() },
            extensions: Vec::new(),
        }
    }

    /// Bounds that hold in every version.
    pub fn validate(&self) -> Result<(), WireError> {
        if self.magic != MAGIC {
            return Err(WireError::Unexpected("magic"));
        }
        bound(!self.device_name.is_empty(), "device name")?;
        bound(self.device_name.len() <= limits::DEVICE_NAME_BYTES_MAX, "device name")?;
        bound(self.auth.bytes.len() <= AUTH_BYTES_MAX, "proof")?;
        extensions_ok(&self.extensions)
    }
}

/// What the server will take from one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerLimits {
    /// Largest frame, bytes.
    pub frame_bytes_max: u32,
    /// Requests under way, bytes of their frames (each counts at least [`REQUEST_BYTES_MIN`]). The server reads no
    /// further than this; a client that keeps below it is never held up.
    pub in_flight_bytes_max: u32,
    /// New blocks of a commit ride inside it up to this many bytes.
    pub inline_bytes_max: u32,
}

/// What a request counts at least against [`ServerLimits::in_flight_bytes_max`].
pub const REQUEST_BYTES_MIN: usize = 4096;

/// What the server answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The version of this session.
    pub proto: u16,
    /// Bits of this session: known to both sides.
    pub features: u64,
    /// Which store this is.
    pub store: StoreId,
    /// Names this session; a broadcast skips the session that committed.
    pub session: SessionId,
    /// The share's head now.
    pub head: Head,
    /// True when the client's cursor is part of this journal's past. False means a store that lost its past, or
    /// another one: the client starts over and deletes nothing.
    pub cursor_known: bool,
    /// What the server will take.
    pub limits: ServerLimits,
    /// The server's own proof; empty for method 0.
    pub auth: Auth,
    /// Fields of later versions.
    pub extensions: Vec<Extension>,
}

impl Welcome {
    /// True when the server takes nothing from this device.
    pub fn is_read_only(&self) -> bool {
        self.extensions.iter().any(|extension| extension.kind == extensions::READ_ONLY)
    }

    /// Bounds.
    pub fn validate(&self) -> Result<(), WireError> {
        bound(self.auth.bytes.len() <= AUTH_BYTES_MAX, "proof")?;
        extensions_ok(&self.extensions)
    }
}

impl Head {
    /// False when the journal cannot have come here from `earlier`: it is another, shorter, or has another past.
    pub fn may_follow(&self, earlier: &Self) -> bool {
        let same = self.seq == earlier.seq;
        self.journal == earlier.journal && self.seq >= earlier.seq && (!same || self.chain == earlier.chain)
    }
}

/// What both sides agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// The highest common version.
    pub proto: u16,
    /// Bits known to both sides.
    pub features: u64,
}

/// The server's answer to a hello, as far as versions, features and names go.
///
/// # Errors
/// With the code for the `Goodbye`: no common version, an unknown required feature, or not a name of a share.
pub fn agree(hello: &Hello) -> Result<Agreed, WireError> {
    let proto = hello.proto_max.min(PROTO_MAX);
    if hello.proto_min > hello.proto_max || proto < hello.proto_min.max(PROTO_MIN) {
        return Err(WireError::Version { min: hello.proto_min, max: hello.proto_max });
    }
    let unknown = hello.features_required & !features::KNOWN;
    if unknown != 0 {
        return Err(WireError::Feature { bits: unknown });
    }
    if !is_share_name(&hello.share) {
        return Err(WireError::ShareName);
    }
    Ok(Agreed { proto, features: (hello.features_optional | hello.features_required) & features::KNOWN })
}

/// The client's look at a welcome.
///
/// # Errors
/// When the server chose what was not offered, or cannot do what is required.
pub const fn accept(hello: &Hello, welcome: &Welcome) -> Result<Agreed, WireError> {
    if welcome.proto < hello.proto_min || welcome.proto > hello.proto_max {
        return Err(WireError::Version { min: welcome.proto, max: welcome.proto });
    }
    let lacking = hello.features_required & !welcome.features;
    if lacking != 0 {
        return Err(WireError::Feature { bits: lacking });
    }
    Ok(Agreed { proto: welcome.proto, features: welcome.features })
}

/// 1 ..= 64 bytes, no control characters, no `/`, not `.` or `..`: it may name a folder of the store one day.
pub fn is_share_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= limits::SHARE_NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c.is_control() || c == '/')
}

fn extensions_ok(extensions: &[Extension]) -> Result<(), WireError> {
    bound(extensions.len() <= EXTENSIONS_MAX, "extensions")?;
    bound(extensions.iter().all(|e| e.bytes.len() <= EXTENSION_BYTES_MAX), "extension")
}

/// One check of a bound.
pub(super) const fn bound(holds: bool, what: &'static str) -> Result<(), WireError> {
    if holds { Ok(()) } else { Err(WireError::OverLimit(what)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello::new(DeviceId::from_bytes([1; 16]), "laptop".into(), "default".into(), None)
    }

    #[test]
    fn the_highest_common_version_wins_and_none_in_common_is_refused() {
        assert_eq!(agree(&Hello { proto_max: 900, ..hello() }).unwrap().proto, PROTO_MAX);
        let newer = Hello { proto_min: PROTO_MAX + 1, proto_max: PROTO_MAX + 5, ..hello() };
        assert!(matches!(agree(&newer), Err(WireError::Version { .. })));
        assert!(matches!(
            agree(&Hello { proto_max: 0, proto_min: 0, ..hello() }),
            Err(WireError::Version { .. })
        ));
        assert!(matches!(
            agree(&Hello { proto_min: 3, proto_max: 1, ..hello() }),
            Err(WireError::Version { .. })
        ));
    }

    #[test]
    fn an_unknown_optional_feature_is_dropped_and_an_unknown_required_one_refused() {
        let optional = Hello { features_optional: u64::MAX, ..hello() };
        assert_eq!(agree(&optional).unwrap().features, features::KNOWN);
        let required = Hello { features_required: 1 << 63, ..hello() };
        assert!(matches!(agree(&required), Err(WireError::Feature { bits }) if bits == 1 << 63));
    }

    #[test]
    fn share_names_are_plain_words() {
        assert!(is_share_name("my photos"));
        for name in ["", "a/b", "..", "a\nb", &"x".repeat(65)] {
            assert!(!is_share_name(name), "{name:?}");
        }
    }

    #[test]
    fn another_magic_is_no_hello() {
        assert!(Hello { magic: *b"GET / HT", ..hello() }.validate().is_err());
    }
}
