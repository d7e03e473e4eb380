//! What the owner asks about devices, carried out by the server, or by the command itself while no server runs.

use super::control::Reply;
use super::devices::{Device, Devices, Quota};
use crate::auth::{InviteSecret, Scope};
use serde::{Deserialize, Serialize};

/// What the owner wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Let one more device in; the secret stays with whoever asks.
    Invite {
        /// The secret's bytes.
        secret: [u8; InviteSecret::BYTES],
        /// What it lets in.
        scope: Scope,
        /// What it may store, bytes; `None`: what fits.
        quota: Option<u64>,
    },
    /// List them.
    List,
    /// Let one in no more, named by id or name.
    Revoke(String),
    /// Set what one may store in all, bytes; `None`: what fits.
    Quota(String, Option<u64>),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// To `Invite`.
    Invited,
    /// To `List`.
    Devices(Vec<(Device, Option<Quota>)>),
    /// To `Revoke`: which one it was.
    Revoked(Device),
    /// To `Quota`: which one it was, and what it may store now.
    Quota(Device, Option<Quota>),
}

/// Does it. Blocks for the disk.
pub fn carry_out(devices: &Devices, ask: Ask) -> Reply {
    let done = match ask {
        Ask::Invite { secret, scope, quota } => {
            devices.invite(&InviteSecret::from_bytes(secret), scope, quota).map(|()| Told::Invited)
        }
        Ask::List => Ok(Told::Devices(devices.list())),
        Ask::Revoke(which) => devices.revoke(&which).map(Told::Revoked),
        Ask::Quota(which, bytes_max) => {
            devices.set_quota(&which, bytes_max).map(|(device, quota)| Told::Quota(device, quota))
        }
    };
    match done {
        Ok(told) => Reply::Devices(told),
        Err(error) => Reply::Failed(match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }),
    }
}
