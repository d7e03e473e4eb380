//! An invite: one line that says where the server is, how it is recognised, and what lets a device in, once.
//!
//! ```text
//! dropblock://HOST:PORT/SHARE#FINGERPRINT.SECRET       share percent-encoded; fingerprint 52, secret 26 base32 digits
//! ```

use super::keys::sha256;
use super::{AuthError, Fingerprint, base32};
use crate::model::limits::SHARE_NAME_BYTES_MAX;
use std::fmt;

const SCHEME: &str = "dropblock://";
/// Longest address, bytes: a host name of 253, and a port.
const ADDRESS_BYTES_MAX: usize = 260;

/// 128 random bits that let one device in.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteSecret([u8; 16]);

impl InviteSecret {
    /// Its length.
    pub const BYTES: usize = 16;

    /// Takes random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// What the server keeps. The secret is random, so a plain hash hides it.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[b"dropblock invite v1", &self.0])
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret")
    }
}

/// An invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// `host:port`.
    pub address: String,
    /// The share that it opens.
    pub share: String,
    /// The only server that may be told the secret.
    pub server: Fingerprint,
    /// What lets in.
    pub secret: InviteSecret,
}

impl Invite {
    /// The line. It holds the secret.
    pub fn to_line(&self) -> String {
        let mut share = String::new();
        for byte in self.share.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                share.push(char::from(byte));
            } else {
                share.push_str(&format!("%{byte:02X}"));
            }
        }
        let secret = base32::encode(self.secret.as_bytes());
        format!("{SCHEME}{}/{share}#{}.{secret}", self.address, self.server)
    }

    /// Reads a line; blanks around it do not matter.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(line: &str) -> Result<Self, AuthError> {
        let parsed = || {
            let rest = line.trim().strip_prefix(SCHEME)?;
            let (place, keys) = rest.split_once('#')?;
            let (address, share) = place.split_once('/')?;
            let (server, secret) = keys.split_once('.')?;
            let (host, port) = address.rsplit_once(':')?;
            let plain = |c: char| c.is_ascii_graphic() && !"/#?@".contains(c);
            let address_ok = !host.is_empty()
                && address.len() <= ADDRESS_BYTES_MAX
                && address.chars().all(plain)
                && port.parse::<u16>().is_ok_and(|port| port > 0);
            let invite = Self {
                address: address.to_owned(),
                share: unescape(share)?,
                server: Fingerprint::parse(server)?,
                secret: InviteSecret(base32::decode(secret)?),
            };
            address_ok.then_some(invite)
        };
        parsed().ok_or(AuthError::Invite)
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    let share = String::from_utf8(bytes).ok()?;
    (!share.is_empty() && share.len() <= SHARE_NAME_BYTES_MAX).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(share: &str) -> Invite {
        Invite {
            address: "hub.example:7420".into(),
            share: share.into(),
            server: Fingerprint::from_bytes([5; 32]),
            secret: InviteSecret::from_bytes([6; 16]),
        }
    }

    #[test]
    fn a_line_comes_back_whatever_the_share_is_called() {
        for share in ["default", "my photos", "Füße #1 100%", "a.b~c_d-e"] {
            let line = invite(share).to_line();
            assert!(!line.contains(char::is_whitespace), "{line}");
            assert_eq!(Invite::parse(&format!("  {line}\n")), Ok(invite(share)), "{line}");
        }
        assert_eq!(
            Invite::parse(&Invite { address: "[::1]:9".into(), ..invite("s") }.to_line()).unwrap().address,
            "[::1]:9"
        );
    }

    #[test]
    fn anything_else_is_no_invite() {
        let line = invite("default").to_line();
        for wrong in [
            "",
            "https://hub.example:7420/default",
            &line.replace("dropblock", "dropblack"),
            &line.replace(":7420", ""),
            &line.replace(":7420", ":0"),
            &line.replace("/default", "/"),
            &line.replace("/default", "/%zz"),
            &line.replace('#', ""),
            &line[..line.len() - 1],
            &format!("{line}a"),
            &line.replace("hub.example", "user@hub"),
            &line.replace("hub.example", "hub\u{1b}[31m"),
        ] {
            assert_eq!(Invite::parse(wrong), Err(AuthError::Invite), "{wrong}");
        }
        assert!(!format!("{:?}", invite("s")).contains(&base32::encode(&[6; 16])));
    }
}
