//! Who somebody is, and what they may do: keys, proofs, invites, scopes. Pure: values in, values out; whoever calls brings
//! random bytes, files and streams.
//!
//! ```text
//! server: one Ed25519 key for as long as the store lives    fingerprint = SHA-256 of the public key as SPKI
//! owner:  a secret that only the server's own user can read  proof = HMAC over what both ends saw of this connection
//! device: one Ed25519 key per synced folder                  proof = signature over the same
//! invite: 128 random bits, once, for a day                   the server keeps a hash
//! ```
//! A proof is worth nothing on any other connection: it covers a [`Binding`], which is the TLS exporter of the connection,
//! or, without TLS, both nonces and both ends' addresses as each side sees them. Secrets have no `Debug` and no `Display`.

mod base32;
mod binding;
mod invite;
pub mod keys;
mod proof;
mod scope;

pub use binding::{Binding, Ends};
pub use invite::{Invite, InviteSecret};
pub use keys::{DeviceKey, Fingerprint, PublicKey, Secret, ServerKey};
pub use proof::{Claim, Proof};
pub use scope::Scope;

/// Why a key, a proof or an invite is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Bytes that are no key.
    #[error("not a key")]
    Key,
    /// A proof that does not hold.
    #[error("the proof does not hold")]
    Proof,
    /// Text that is no invite.
    #[error("not an invite; it is one line that begins with dropblock://")]
    Invite,
}
