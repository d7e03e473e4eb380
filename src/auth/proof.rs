//! The proof inside a `Hello`: who the client is, for this connection only.
//!
//! | method | name | bytes |
//! |---|---|---|
//! | 1 | owner | MAC by the owner's secret (32), device key (32), signature by it (64) |
//! | 2 | device | device key (32), signature (64) |
//! | 3 | invite | secret of the invite (16), device key (32), signature (64) |
//!
//! The signature covers method and binding; the MAC covers binding and device key, so neither half can be put together
//! with another's.

use super::keys::SIGNATURE_BYTES;
use super::{AuthError, Binding, DeviceKey, InviteSecret, PublicKey, Secret};

const SERVER: &[u8] = b"dropblock server v1";
const CLIENT: &[u8] = b"dropblock client v1";
const DEVICE: &[u8] = b"dropblock device v1";

/// A proof as it crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Which kind.
    pub method: u16,
    /// See the module.
    pub bytes: Vec<u8>,
}

/// What a client claims, once its signature was found right. The claim itself is still to be looked up.
#[derive(Debug)]
pub enum Claim {
    /// It knows the owner's secret, if this MAC holds: see [`Claim::is_owner`].
    Owner {
        /// Its key.
        device: PublicKey,
        /// To be checked with the secret.
        mac: [u8; 32],
    },
    /// It is this device.
    Device {
        /// Its key.
        device: PublicKey,
    },
    /// It was invited.
    Invited {
        /// Its key, to be remembered.
        device: PublicKey,
        /// The invite's secret.
        invite: InviteSecret,
    },
}

impl Proof {
    /// Number of [`Proof::owner`].
    pub const OWNER: u16 = 1;
    /// Number of [`Proof::device`].
    pub const DEVICE: u16 = 2;
    /// Number of [`Proof::invited`].
    pub const INVITED: u16 = 3;

    /// By the server's own user.
    pub fn owner(secret: &Secret, device: &DeviceKey, binding: &Binding) -> Self {
        let public = device.public();
        let mac = secret.mac(&[CLIENT, binding.as_bytes(), public.as_bytes()]);
        Self::signed(Self::OWNER, &mac, device, binding)
    }

    /// By a device that the server knows.
    pub fn device(device: &DeviceKey, binding: &Binding) -> Self {
        Self::signed(Self::DEVICE, &[], device, binding)
    }

    /// By a device that has an invite. Only ever inside TLS to the server that the invite names.
    pub fn invited(invite: &InviteSecret, device: &DeviceKey, binding: &Binding) -> Self {
        Self::signed(Self::INVITED, invite.as_bytes(), device, binding)
    }

    fn signed(method: u16, first: &[u8], device: &DeviceKey, binding: &Binding) -> Self {
        let signature = device.sign(&signed_bytes(method, binding));
        let bytes = [first, device.public().as_bytes(), &signature].concat();
        Self { method, bytes }
    }

    /// Reads a proof and checks its signature.
    ///
    /// # Errors
    /// When it is none, or is one for another connection.
    pub fn open(method: u16, bytes: &[u8], binding: &Binding) -> Result<Claim, AuthError> {
        let first_bytes = match method {
            Self::OWNER => 32,
            Self::DEVICE => 0,
            Self::INVITED => InviteSecret::BYTES,
            _ => return Err(AuthError::Proof),
        };
        let (first, rest) = bytes.split_at_checked(first_bytes).ok_or(AuthError::Proof)?;
        let (key, signature) = rest.split_first_chunk::<32>().ok_or(AuthError::Proof)?;
        if signature.len() != SIGNATURE_BYTES {
            return Err(AuthError::Proof);
        }
        let device = PublicKey::from_bytes(*key);
        device.verify(&signed_bytes(method, binding), signature)?;
        match method {
            Self::OWNER => Ok(Claim::Owner { device, mac: first.try_into().map_err(|_| AuthError::Proof)? }),
            Self::INVITED => {
                let invite = InviteSecret::from_bytes(first.try_into().map_err(|_| AuthError::Proof)?);
                Ok(Claim::Invited { device, invite })
            }
            _ => Ok(Claim::Device { device }),
        }
    }
}

impl Claim {
    /// True for a claim by somebody who knows the owner's secret.
    pub fn is_owner(&self, secret: &Secret, binding: &Binding) -> bool {
        match self {
            Self::Owner { device, mac } => {
                secret.check(&[CLIENT, binding.as_bytes(), device.as_bytes()], mac).is_ok()
            }
            _ => false,
        }
    }
}

fn signed_bytes(method: u16, binding: &Binding) -> Vec<u8> {
    [DEVICE, &method.to_le_bytes(), binding.as_bytes()].concat()
}

impl Secret {
    /// The server's proof to its own user, in the clear.
    pub fn server_mac(&self, binding: &Binding) -> [u8; 32] {
        self.mac(&[SERVER, binding.as_bytes()])
    }

    /// Checks the server's proof.
    ///
    /// # Errors
    /// When it does not hold for this connection.
    pub fn check_server(&self, binding: &Binding, mac: &[u8]) -> Result<(), AuthError> {
        self.check(&[SERVER, binding.as_bytes()], mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Binding = Binding::exported([1; 32]);
    const ELSEWHERE: Binding = Binding::exported([2; 32]);

    fn key(n: u8) -> DeviceKey {
        DeviceKey::from_seed([n; 32]).unwrap()
    }

    #[test]
    fn a_proof_holds_on_its_own_connection_and_on_no_other() {
        let (secret, key) = (Secret::from_bytes([9; 32]), key(1));
        let proof = Proof::owner(&secret, &key, &HERE);
        let claim = Proof::open(proof.method, &proof.bytes, &HERE).unwrap();
        assert!(claim.is_owner(&secret, &HERE));
        assert!(!claim.is_owner(&Secret::from_bytes([8; 32]), &HERE));
        assert!(!claim.is_owner(&secret, &ELSEWHERE));
        assert!(Proof::open(proof.method, &proof.bytes, &ELSEWHERE).is_err(), "replayed");
    }

    #[test]
    fn halves_of_two_proofs_make_none() {
        let secret = Secret::from_bytes([9; 32]);
        let (mine, theirs) = (Proof::owner(&secret, &key(1), &HERE), Proof::device(&key(2), &HERE));
        // Somebody else's MAC before one's own key.
        let mixed = [&mine.bytes[..32], &theirs.bytes].concat();
        assert!(Proof::open(Proof::OWNER, &mixed, &HERE).is_err());
        let own = Proof::owner(&Secret::from_bytes([0; 32]), &key(2), &HERE);
        let mixed = [&mine.bytes[..32], &own.bytes[32..]].concat();
        assert!(!Proof::open(Proof::OWNER, &mixed, &HERE).unwrap().is_owner(&secret, &HERE));
    }

    #[test]
    fn bytes_that_are_no_proof_are_refused() {
        let proof = Proof::device(&key(1), &HERE);
        for method in [0, Proof::OWNER, Proof::INVITED, 4, u16::MAX] {
            assert!(Proof::open(method, &proof.bytes, &HERE).is_err(), "{method}");
        }
        for len in 0..proof.bytes.len() {
            assert!(Proof::open(proof.method, &proof.bytes[..len], &HERE).is_err(), "{len}");
        }
    }
}
