//! Identifiers. Sixteen random bytes each, except [`Seq`], which counts the commits of one share.

use super::hash;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Takes an id that came from a wire or a disk.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// 32 lower-case hex digits.
            pub fn to_hex(&self) -> String {
                hash::hex(&self.0)
            }

            /// Reads 32 hex digits; `None` for anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                let digits = text.as_bytes();
                if digits.len() != 32 {
                    return None;
                }
                let mut bytes = [0u8; 16];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    let pair = std::str::from_utf8(pair).ok()?;
                    *byte = u8::from_str_radix(pair, 16).ok()?;
                }
                Some(Self(bytes))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", stringify!($name), hash::hex(self.0.get(..4).unwrap_or_default()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }
    };
}

id16! {
    /// A file, folder or symlink of a share. Chosen by the client that creates it; survives renames and moves.
    NodeId
}
id16! {
    /// One store (one `--store` folder).
    StoreId
}
id16! {
    /// One life of a share's journal. A store that is made anew gets new ones.
    JournalId
}
id16! {
    /// One client identity.
    DeviceId
}
id16! {
    /// One connection of a client, so that a broadcast skips the sender.
    SessionId
}

impl NodeId {
    /// The top folder of every share. It exists always, has no name and is never changed.
    pub const ROOT: Self = Self([0; 16]);
}

/// Position in a share's journal: the first commit is 1, 0 is "before everything".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default, Debug)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first commit.
    pub const ZERO: Self = Self(0);

    /// The following position.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes ids from a seed: random in production, replayable in tests and simulation.
#[derive(Debug, Clone)]
pub struct IdSource {
    seed: [u8; 32],
    counter: u64,
}

impl IdSource {
    /// The same seed gives the same ids.
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// Sixteen fresh bytes.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut out = [0u8; 16];
        hash::expand(&self.seed, self.counter, &mut out);
        self.counter += 1;
        out
    }

    /// A fresh node id; never [`NodeId::ROOT`].
    pub fn node(&mut self) -> NodeId {
        loop {
            let id = NodeId(self.bytes16());
            if id != NodeId::ROOT {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_hex() {
        let id = IdSource::new([7; 32]).node();
        assert_eq!(NodeId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(NodeId::from_hex("+1"), None);
        assert_eq!(NodeId::from_hex(&"é".repeat(16)), None);
    }

    #[test]
    fn one_seed_gives_one_sequence_without_repeats() {
        let (mut a, mut b) = (IdSource::new([1; 32]), IdSource::new([1; 32]));
        let ids: Vec<_> = (0..100).map(|_| a.node()).collect();
        assert_eq!(ids, (0..100).map(|_| b.node()).collect::<Vec<_>>());
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
    }
}
