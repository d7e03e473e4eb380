//! The gate: who may come in, and what for. A connection is TLS, or (loopback only) in the clear after both sides have
//! proved that they know the owner's secret; what a hello claims is believed only as far as its proof goes.

use super::devices::{Devices, DevicesError};
use crate::auth::{Binding, Claim, Ends, InviteSecret, Proof, PublicKey, Scope, Secret, ServerKey};
use crate::model::{IdSource, SessionId};
use crate::wire::handshake::Hello;
use crate::wire::opening::{self, Challenge, Knock};
use crate::wire::tls::TlsServer;
use crate::wire::{ErrorCode, WireError};
use std::sync::{Arc, Mutex, PoisonError};

/// Who may connect.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// Anybody, without a proof: for tests and simulation, whose links nobody else can reach. `serve` never uses it.
    #[default]
    Open,
    /// Whoever proves to be somebody.
    Proved(Arc<Gate>),
}

/// What a session knows of its device beside its key.
#[derive(Debug)]
pub struct Sight<'a> {
    /// As it calls itself.
    pub name: &'a str,
}

/// How a hello came.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// In the clear, after a knock: only for the owner.
    Clear(Binding),
    /// Inside TLS.
    Tls(Binding),
    /// In the clear, and nobody has knocked.
    Bare,
}

/// Who was let in.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The device; `None` where nobody proves anything.
    pub key: Option<PublicKey>,
    /// It is let in by its own key, not as the owner.
    pub invited: bool,
    /// What it may do.
    pub scope: Scope,
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    key: ServerKey,
    /// The server's TLS.
    pub tls: TlsServer,
    owner: Secret,
    /// Sessions in the clear are allowed on loopback.
    clear: bool,
    nonces: Mutex<IdSource>,
    machine: Vec<u8>,
    /// Who is known.
    pub devices: Arc<Devices>,
}

/// Said to whoever is not let in, whatever the reason: it must not tell a stranger which part of a guess was right.
const REFUSED: &str = "this device is not known here, or was revoked; ask the owner for `dropblock invite`";
/// Said to a client that opens as clients did before there were proofs.
const TOO_OLD: &str = "this server asks who you are: update dropblock on this device";

/// A refusal with a reason.
fn refused(text: &str) -> WireError {
    WireError::Goodbye { code: ErrorCode::Auth, text: text.to_owned() }
}

impl Gate {
    /// A gate. `seed` is random, for nonces; `machine` names this machine and its loopback.
    ///
    /// # Errors
    /// When the key cannot be used for TLS.
    pub fn new(
        key: ServerKey,
        clear: bool,
        seed: [u8; 32],
        machine: Vec<u8>,
        devices: Arc<Devices>,
    ) -> Result<Self, WireError> {
        let (tls, owner) = (TlsServer::new(&key)?, owner_secret(&key));
        Ok(Self { key, tls, owner, clear, nonces: Mutex::new(IdSource::new(seed)), machine, devices })
    }

    /// Answers a knock. The binding is there when a hello in the clear may follow.
    pub fn answer(&self, knock: &Knock, ends: Ends) -> (Challenge, Option<Binding>) {
        let nonce = {
            let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
            let mut nonce = [0; 32];
            let (low, high) = nonce.split_at_mut(16);
            low.copy_from_slice(&nonces.bytes16());
            high.copy_from_slice(&nonces.bytes16());
            nonce
        };
        let server = self.key.fingerprint();
        let clear = self.clear && ends.are_loopback();
        let binding = clear.then(|| Binding::clear(&knock.nonce, &nonce, &server, ends, &self.machine));
        let mac = binding.map_or([0; 32], |binding| self.owner.server_mac(&binding));
        (Challenge { proto: opening::PROTO, nonce, server, clear, mac }, binding)
    }

    /// Decides about a hello. An invite is looked at here and taken in [`Gate::redeem`], after everything else was found
    /// right.
    ///
    /// # Errors
    /// The reason for the goodbye.
    pub fn admit(&self, hello: &Hello, way: Way) -> Result<(Guest, Option<InviteSecret>), WireError> {
        let (binding, is_clear) = match way {
            Way::Clear(binding) => (binding, true),
            Way::Tls(binding) => (binding, false),
            Way::Bare => return Err(refused(TOO_OLD)),
        };
        let claim = Proof::open(hello.auth.method, &hello.auth.bytes, &binding);
        let claim = claim.map_err(|_| refused(REFUSED))?;
        let (key, scope, invite) = match &claim {
            Claim::Owner { device, .. } if claim.is_owner(&self.owner, &binding) => {
                (*device, (!self.devices.is_revoked(device)).then_some(Scope::OWNER), None)
            }
            Claim::Device { device } if !is_clear => (*device, self.devices.scope_of_invited(device), None),
            Claim::Invited { device, invite } if !is_clear => {
                let scope = self.devices.scope_of_invite(invite);
                (*device, scope.filter(|_| !self.devices.is_revoked(device)), Some(invite.clone()))
            }
            _ => return Err(refused(REFUSED)),
        };
        let scope = scope.ok_or_else(|| refused(REFUSED))?;
        if !scope.admits(&hello.share) {
            // The same for a share that is there and one that is not.
            return Err(refused("this device may not open that share"));
        }
        let invited = !matches!(claim, Claim::Owner { .. });
        Ok((Guest { key: Some(key), invited, scope }, invite))
    }

    /// Takes the invite by which a guest came. Blocks for the disk.
    ///
    /// # Errors
    /// When somebody else was faster, or it cannot be written down.
    pub fn redeem(&self, guest: &Guest, invite: &InviteSecret, name: &str) -> Result<(), WireError> {
        let Some(key) = &guest.key else { return Err(WireError::Auth) };
        match self.devices.redeem(invite, key, &Sight { name }) {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused(REFUSED)),
            Err(error) => {
                tracing::error!(%error, "a device was not written down");
                let code = ErrorCode::Storage;
                Err(WireError::Goodbye { code, text: "the device could not be written down".to_owned() })
            }
        }
    }

    /// True while a guest may stay.
    pub fn still_admits(&self, guest: &Guest) -> bool {
        match &guest.key {
            Some(key) if guest.invited => self.devices.scope_of_invited(key).as_ref() == Some(&guest.scope),
            Some(key) => !self.devices.is_revoked(key),
            None => true,
        }
    }

    /// Writes down who was here.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remember(&self) -> Result<(), DevicesError> {
        self.devices.remember()
    }
}

/// What a server leaves for its own user to find. Made from its key, so that it is the same wherever and whenever it is
/// left.
pub fn owner_secret(key: &ServerKey) -> Secret {
    Secret::from_bytes(Secret::from_bytes(key.seed()).mac(&[b"dropblock owner secret v1"]))
}

/// Ends a session whose device was revoked.
pub fn revoked(session: SessionId) -> WireError {
    tracing::info!(?session, "the device was revoked");
    refused("this device was revoked")
}
