//! What a proof is bound to: one connection, as both of its ends see it.

use super::Fingerprint;
use super::keys::sha256;
use std::net::{IpAddr, SocketAddr};

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The server's address and port.
    pub server: SocketAddr,
}

impl Ends {
    /// True when both ends are on the loopback of one machine, where only its root can listen in.
    pub fn are_loopback(&self) -> bool {
        self.client.ip().to_canonical().is_loopback() && self.server.ip().to_canonical().is_loopback()
    }

    /// Addresses as 16 bytes, IPv4 in its mapped form (a socket for both sees it so), and ports.
    fn to_bytes(self) -> Vec<u8> {
        let bytes = |end: SocketAddr| {
            let address = match end.ip().to_canonical() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            [address.octets().as_slice(), &end.port().to_be_bytes()].concat()
        };
        [bytes(self.client), bytes(self.server)].concat()
    }
}

/// 32 bytes that differ for every connection, and between the ends of two connections that a relay joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding([u8; 32]);

impl Binding {
    /// Of a TLS connection: its exporter (RFC 8446, 7.5).
    pub const fn exported(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Of a connection in the clear: both nonces, the server's name, both addresses as the caller sees them, and the
    /// machine with its loopback (two namespaces may have equal addresses).
    pub fn clear(
        client_nonce: &[u8; 32],
        server_nonce: &[u8; 32],
        server: &Fingerprint,
        ends: Ends,
        machine: &[u8],
    ) -> Self {
        let ends = ends.to_bytes();
        Self(sha256(&[b"dropblock clear v1", client_nonce, server_nonce, server.as_bytes(), &ends, machine]))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, server: &str) -> Ends {
        Ends { client: client.parse().unwrap(), server: server.parse().unwrap() }
    }

    fn bind(ends: Ends, boot: &[u8]) -> Binding {
        Binding::clear(&[1; 32], &[2; 32], &Fingerprint::from_bytes([3; 32]), ends, boot)
    }

    #[test]
    fn a_relay_on_another_port_or_address_makes_another_binding() {
        let direct = bind(ends("127.0.0.1:5000", "127.0.0.1:7420"), b"boot");
        for other in [
            ends("127.0.0.1:5001", "127.0.0.1:7420"),
            ends("127.0.0.1:5000", "127.0.0.1:7421"),
            ends("127.0.0.1:5000", "127.0.0.2:7420"),
            ends("[::1]:5000", "[::1]:7420"),
        ] {
            assert_ne!(direct, bind(other, b"boot"), "{other:?}");
        }
        assert_ne!(direct, bind(ends("127.0.0.1:5000", "127.0.0.1:7420"), b"other"));
        assert_eq!(direct, bind(ends("[::ffff:127.0.0.1]:5000", "127.0.0.1:7420"), b"boot"));
    }

    #[test]
    fn loopback_is_both_ends() {
        assert!(ends("127.0.0.1:1", "127.9.9.9:2").are_loopback());
        assert!(ends("[::1]:1", "[::ffff:127.0.0.1]:2").are_loopback());
        assert!(!ends("127.0.0.1:1", "192.168.0.2:2").are_loopback());
        assert!(!ends("192.168.0.2:1", "192.168.0.2:2").are_loopback());
    }
}
