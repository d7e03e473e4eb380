//! The bytes of `STORE/devices`.
//!
//! ```text
//! 0    8  magic "DBLKDEVS"
//! 8    4  version, u32 LE: 1, or 2 when somebody has a quota
//! 12   n  codec-encoded: 1 (devices, invites), 2 ((devices, invites), quotas)
//! ..   8  checksum of everything before
//! ```
//! A book without quotas is written as version 1, which every dropblock reads.

use super::{Device, DevicesError};
use crate::auth::{PublicKey, Scope};
use crate::model::codec;
use crate::model::hash::checksum8;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"DBLKDEVS";

/// What a device may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes that it may bring in all.
    pub bytes_max: u64,
    /// Bytes that it has brought.
    pub bytes_used: u64,
}

impl Quota {
    /// Nothing was brought yet.
    pub const fn of(bytes_max: u64) -> Self {
        Self { bytes_max, bytes_used: 0 }
    }

    /// Bytes that it may still bring.
    pub const fn left(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes_used)
    }
}

/// Who is known, and who may come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct People {
    /// By key.
    pub devices: BTreeMap<PublicKey, Device>,
    /// Hash of the secret -> what it lets in, and until when.
    pub invites: BTreeMap<[u8; 32], (Scope, u64)>,
}

/// Who may store how much; whoever is not here may store what fits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Quotas {
    /// Of devices, bytes.
    pub devices: BTreeMap<PublicKey, Quota>,
    /// Of whoever takes an invite, by the hash of its secret, bytes.
    pub invites: BTreeMap<[u8; 32], u64>,
}

/// Everything that the file says.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// Who.
    pub people: People,
    /// How much.
    pub quotas: Quotas,
}

impl Book {
    /// As a file.
    pub fn encode(&self) -> Result<Vec<u8>, DevicesError> {
        let Self { people, quotas } = self;
        let (version, body) = if quotas.devices.is_empty() && quotas.invites.is_empty() {
            (1u32, codec::encode(people))
        } else {
            (2, codec::encode(&(people, quotas)))
        };
        let body = body.map_err(|_| DevicesError::TooMany)?;
        let mut bytes = [MAGIC.as_slice(), &version.to_le_bytes(), &body].concat();
        let sum = checksum8(&[&bytes]);
        bytes.extend_from_slice(&sum);
        Ok(bytes)
    }

    /// From a file; `None` for one that is damaged or of a later version.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        if checksum8(&[body]) != *sum {
            return None;
        }
        let (version, rest) = body.strip_prefix(MAGIC.as_slice())?.split_first_chunk::<4>()?;
        match u32::from_le_bytes(*version) {
            1 => Some(Self { people: codec::decode(rest).ok()?, quotas: Quotas::default() }),
            2 => codec::decode(rest).ok().map(|(people, quotas)| Self { people, quotas }),
            _ => None,
        }
    }
}

/// True for what stands in the file between its version and its checksum. For whoever feeds it any bytes (`fuzz/`).
pub fn probe(bytes: &[u8]) -> bool {
    let is_book = |version: u32| {
        let body = [MAGIC.as_slice(), &version.to_le_bytes(), bytes].concat();
        Book::parse(&[body.as_slice(), &checksum8(&[&body])].concat()).is_some()
    };
    let (plain, with_quotas) = (is_book(1), is_book(2));
    plain || with_quotas
}
