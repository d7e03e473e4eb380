//! Keys and the arithmetic over them. The only file that names the `ring` crate.
//!
//! Ed25519 (RFC 8032) for servers and devices, HMAC-SHA-256 for the owner's secret. Comparisons are ring's, in constant
//! time. Nothing here can be printed.

use super::{AuthError, base32};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// What comes before the 32 bytes of a public key in its SPKI form (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What comes before the 32 bytes of a seed in its PKCS #8 form.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// SHA-256 of several parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes bytes from a wire or a disk. Whether they are a key shows when something is verified.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key as `SubjectPublicKeyInfo`.
    pub fn to_spki(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.0].concat()
    }

    /// Reads a `SubjectPublicKeyInfo` that holds an Ed25519 key.
    pub fn from_spki(spki: &[u8]) -> Result<Self, AuthError> {
        let key = spki.strip_prefix(SPKI_PREFIX.as_slice()).and_then(|key| key.try_into().ok());
        key.map(Self).ok_or(AuthError::Key)
    }

    /// What names the key: 16 base32 digits (80 bits) of its hash.
    pub fn short(&self) -> String {
        base32::encode(sha256(&[b"dropblock device v1", &self.0]).get(..10).unwrap_or_default())
    }

    /// SHA-256 of the SPKI.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(sha256(&[&self.to_spki()]))
    }

    /// Checks a signature.
    ///
    /// # Errors
    /// When it is not this key's over these bytes.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), AuthError> {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).map_err(|_| AuthError::Proof)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// Names a server: the SHA-256 of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Takes bytes from a wire or a disk.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 52 base32 digits.
    pub fn parse(text: &str) -> Option<Self> {
        base32::decode(text).map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server:{self}")
    }
}

/// An Ed25519 key pair from 32 random bytes.
struct Pair {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl Pair {
    fn from_seed(seed: [u8; 32]) -> Result<Self, AuthError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| AuthError::Key)?;
        Ok(Self { seed, pair })
    }

    fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }
}

macro_rules! key_pair {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Arc<Pair>);

        impl $name {
            /// The key of 32 random bytes.
            ///
            /// # Errors
            /// Never for 32 bytes, as far as is known.
            pub fn from_seed(seed: [u8; 32]) -> Result<Self, AuthError> {
                Ok(Self(Arc::new(Pair::from_seed(seed)?)))
            }

            /// Reads the text that [`to_text`](Self::to_text) makes.
            pub fn from_text(text: &str) -> Result<Self, AuthError> {
                Self::from_seed(base32::decode(text.trim()).ok_or(AuthError::Key)?)
            }

            /// The seed as 52 base32 digits: for a file that nobody else can read.
            pub fn to_text(&self) -> String {
                base32::encode(&self.0.seed)
            }

            /// What everybody may know of it.
            pub fn public(&self) -> PublicKey {
                self.0.public()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.public())
            }
        }
    };
}

key_pair! {
    /// The key of a server, for as long as its store lives.
    ServerKey
}
key_pair! {
    /// The key of one synced folder.
    DeviceKey
}

impl ServerKey {
    /// Names the server.
    pub fn fingerprint(&self) -> Fingerprint {
        self.public().fingerprint()
    }

    /// What other secrets of the server are made from.
    pub fn seed(&self) -> [u8; 32] {
        self.0.seed
    }

    /// The key pair as PKCS #8, for TLS.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        [PKCS8_PREFIX.as_slice(), &self.0.seed].concat()
    }
}

impl DeviceKey {
    /// Signs.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut out = [0; SIGNATURE_BYTES];
        out.copy_from_slice(self.0.pair.sign(message).as_ref());
        out
    }
}

/// What only a server and its own user know: 256 random bits.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 52 base32 digits.
    pub fn from_text(text: &str) -> Option<Self> {
        base32::decode(text.trim()).map(Self)
    }

    /// 52 base32 digits: for a file that nobody else can read.
    pub fn to_text(&self) -> String {
        base32::encode(&self.0)
    }

    /// HMAC-SHA-256 over the parts.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        parts.iter().for_each(|part| context.update(part));
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    /// Checks a MAC over the parts, in constant time.
    ///
    /// # Errors
    /// When it is not this secret's over these bytes.
    pub fn check(&self, parts: &[&[u8]], mac: &[u8]) -> Result<(), AuthError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::verify(&key, &parts.concat(), mac).map_err(|_| AuthError::Proof)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_the_standard_has_the_public_key_and_signature_of_the_standard() {
        // RFC 8032, section 7.1, test 1.
        let seed: [u8; 32] = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let key = DeviceKey::from_seed(seed).unwrap();
        assert_eq!(key.public().as_bytes()[..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(key.sign(b"")[..4], [0xe5, 0x56, 0x43, 0x00]);
        key.public().verify(b"", &key.sign(b"")).unwrap();
        assert!(key.public().verify(b"x", &key.sign(b"")).is_err());
    }

    #[test]
    fn keys_come_back_from_their_texts_and_a_printed_key_is_its_public_half() {
        let key = ServerKey::from_seed([7; 32]).unwrap();
        let again = ServerKey::from_text(&format!("{}\n", key.to_text())).unwrap();
        assert_eq!(key.fingerprint(), again.fingerprint());
        assert_eq!(Fingerprint::parse(&key.fingerprint().to_string()), Some(key.fingerprint()));
        assert_eq!(PublicKey::from_spki(&key.public().to_spki()), Ok(key.public()));
        assert!(!format!("{key:?} {:?}", Secret::from_bytes([7; 32])).contains(&key.to_text()));
    }

    #[test]
    fn a_mac_holds_for_its_own_parts_only() {
        let secret = Secret::from_bytes([1; 32]);
        let mac = secret.mac(&[b"server", b"binding"]);
        secret.check(&[b"server", b"binding"], &mac).unwrap();
        assert!(secret.check(&[b"client", b"binding"], &mac).is_err());
        assert!(Secret::from_bytes([2; 32]).check(&[b"server", b"binding"], &mac).is_err());
        assert!(secret.check(&[b"server", b"binding"], &mac[..31]).is_err());
    }
}
