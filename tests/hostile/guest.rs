//! A client of bare frames, let in as the owner of a real server.

use crate::liar::{machine, say};
use crate::support::world::World;
use bytes::Bytes;
use dropblock::auth::{DeviceKey, Fingerprint, Secret};
use dropblock::model::DeviceId;
use dropblock::wire::{Dial, FrameReader, Hello, Keyring, Message, Pin, SecureDialer, Tls, WireError};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Nothing here takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

struct Ring {
    secret: Secret,
    device: DeviceKey,
}

impl Keyring for Ring {
    fn secrets(&self, _: &Fingerprint) -> Vec<Secret> {
        vec![self.secret.clone()]
    }
    fn pin(&self) -> Option<Pin> {
        None
    }
    fn device(&self) -> &DeviceKey {
        &self.device
    }
    fn nonce(&self) -> Result<[u8; 32], WireError> {
        Ok([6; 32])
    }
    fn machine(&self) -> Vec<u8> {
        machine()
    }
    fn met(&self, _: &Fingerprint) {}
}

/// Reaches a real server as its owner, with the key of this device.
pub fn dialer(world: &World, device: usize) -> SecureDialer {
    let place = world.path().join("home/config/dropblock/local");
    let file = fs::read_dir(place).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(file).unwrap();
    let secret = Secret::from_text(text.split_once('\n').unwrap().1).unwrap();
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&device.to_le_bytes());
    let device = DeviceKey::from_seed(seed).unwrap();
    SecureDialer { keyring: Arc::new(Ring { secret, device }), tls: Tls::Auto, invite: None }
}

pub struct Guest {
    pub reader: FrameReader<Box<dyn AsyncRead + Send + Unpin>>,
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Guest {
    /// Opens a session of the share `default`.
    pub async fn open(dialer: &SecureDialer, server: SocketAddr) -> Self {
        let link = dialer.dial(&server.to_string()).await.unwrap();
        let mut hello = Hello::new(DeviceId::from_bytes([8; 16]), "guest".into(), "default".into(), None);
        hello.auth = link.auth;
        let (mut writer, mut reader) = (link.writer, FrameReader::new(link.reader, Arc::default()));
        writer.write_all(&say(0, &Message::Hello(Box::new(hello)), &[])).await.unwrap();
        reader.admit_large_frames();
        let welcome = tokio::time::timeout(PATIENCE, reader.next()).await.unwrap().unwrap().unwrap();
        assert!(matches!(welcome.whole_message().unwrap().0, Message::Welcome(_)));
        Self { reader, writer }
    }

    pub async fn send(&mut self, request: u32, message: &Message, payload: &[u8]) {
        self.send_bytes(&say(request, message, payload)).await;
    }

    /// Whatever: the server may have hung up.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = tokio::time::timeout(PATIENCE, self.writer.write_all(bytes)).await.expect("takes too long");
        let _ = self.writer.flush().await;
    }

    /// The next answer; `None` at the end.
    pub async fn next(&mut self) -> Option<(u32, Message, Bytes)> {
        let frame =
            tokio::time::timeout(PATIENCE, self.reader.next()).await.expect("takes too long").ok()??;
        Some((frame.request, frame.whole_message().unwrap().0, frame.payload))
    }

    /// Reads to the end; the code of the goodbye.
    pub async fn goodbye(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((_, message, _)) = self.next().await {
            if let Message::Goodbye { code: said, .. } = message {
                code = Some(said);
            }
        }
        code
    }
}
