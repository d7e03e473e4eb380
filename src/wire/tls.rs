//! TLS 1.3 around a stream. The only file that names `rustls` and `tokio_rustls`.
//!
//! A server shows its bare Ed25519 key (RFC 7250) and no certificate: there is nothing in one that would be looked at. The
//! client takes exactly the keys that its caller trusts; the handshake's signature is checked by rustls. No TLS 1.2, no
//! tickets (a client that closes with unread tickets resets the stream), no early data, no resumption.

use super::error::WireError;
use crate::auth::{Binding, Fingerprint, PublicKey, ServerKey};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What both ends say they will speak inside.
const ALPN: &[u8] = b"dropblock/1";
/// Label of the exporter that proofs are bound to.
const EXPORTER: &[u8] = b"EXPORTER-dropblock-proof-v1";
/// Never looked at: the key is the name. Not sent either.
const NAME: &str = "dropblock";
/// Bytes that wait to be encrypted or sent, per direction: a full pack at once, and not more.
const BUFFER_BYTES: usize = 1024 * 1024;

/// The first three bytes of a stream: a TLS handshake record. As the length of a frame it would be over every limit.
pub fn is_hello(first: [u8; 3]) -> bool {
    matches!(first, [0x16, 0x03, minor] if minor > 0)
}

/// A stream inside TLS, of the server.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;
/// A stream inside TLS, of the client.
pub type ClientStream<S> = tokio_rustls::client::TlsStream<S>;

/// The server's side of TLS. Cheap to clone.
#[derive(Clone)]
pub struct TlsServer(TlsAcceptor);

impl std::fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsServer")
    }
}

fn failed(error: impl std::fmt::Display) -> WireError {
    WireError::Tls(error.to_string())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

impl TlsServer {
    /// Prepares a key.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn new(key: &ServerKey) -> Result<Self, WireError> {
        let provider = provider();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8()));
        let private = provider.key_provider.load_private_key(private).map_err(failed)?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(key.public().to_spki())], private);
        let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The server's handshake.
    ///
    /// # Errors
    /// When the peer speaks something else, or the stream fails.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<(ServerStream<S>, Binding), WireError> {
        let mut stream = self.0.accept(stream).await.map_err(failed)?;
        let connection = stream.get_mut().1;
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(WireError::Tls("the peer speaks another protocol inside".to_owned()));
        }
        connection.set_buffer_limit(Some(BUFFER_BYTES));
        let bytes = connection.export_keying_material([0; 32], EXPORTER, None).map_err(failed)?;
        Ok((stream, Binding::exported(bytes)))
    }
}

/// Whether a server may be talked to: `Ok`, or why not.
pub type Trust = Arc<dyn Fn(&Fingerprint) -> Result<(), WireError> + Send + Sync>;

/// The client's handshake.
///
/// # Errors
/// What `trust` says of the server's key; or when the server is none, does not hold that key, or the stream fails.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    trust: Trust,
) -> Result<(ClientStream<S>, Binding, Fingerprint), WireError> {
    let provider = provider();
    let verifier = Arc::new(Pinned { trust, provider: provider.clone(), seen: Mutex::default() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    let name = ServerName::try_from(NAME).map_err(failed)?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let seen = verifier.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (mut stream, server) = match (connected, seen) {
        (Ok(stream), Some(Ok(server))) => (stream, server),
        // What was wrong with the key says more than that the handshake ended.
        (_, Some(Err(error))) => return Err(error),
        (Err(error), _) => {
            return Err(match error.kind() {
                ErrorKind::InvalidData => failed(error),
                ErrorKind::UnexpectedEof => WireError::Ended,
                // A line that breaks says nothing about the server.
                _ => WireError::Io(error),
            });
        }
        (Ok(_), None) => return Err(WireError::Tls("the server showed no key".to_owned())),
    };
    let connection = stream.get_mut().1;
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(WireError::Tls("the peer speaks another protocol inside".to_owned()));
    }
    connection.set_buffer_limit(Some(BUFFER_BYTES));
    let bytes = connection.export_keying_material([0; 32], EXPORTER, None).map_err(failed)?;
    Ok((stream, Binding::exported(bytes), server))
}

/// Takes the keys that are trusted. That the server holds the key is checked by the signature below, never skipped.
struct Pinned {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    /// What came of the server's key.
    seen: Mutex<Option<Result<Fingerprint, WireError>>>,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pinned")
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        if !intermediates.is_empty() {
            return Err(refused);
        }
        let key = PublicKey::from_spki(end_entity).map_err(|_| refused.clone())?;
        let server = key.fingerprint();
        let trusted = (self.trust)(&server).map(|()| server);
        let verdict = if trusted.is_ok() { Ok(ServerCertVerified::assertion()) } else { Err(refused) };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(trusted);
        verdict
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(cert.as_ref()),
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
