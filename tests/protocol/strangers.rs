//! Those that fail to prove who they are, again and again, from one address.

use super::proofs::{Guarded, guarded_on};
use super::support::*;
use dropblock::server::{Accept, Accepted};
use dropblock::wire::{Connection, ErrorCode, Pushes, SecureDialer, Tls, WireError, tcp};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Says that whoever comes, comes from another address.
struct Elsewhere {
    listener: TcpListener,
    from: Arc<Mutex<IpAddr>>,
}

impl Accept for Elsewhere {
    type Reader = OwnedReadHalf;
    type Writer = OwnedWriteHalf;

    async fn accept(&mut self) -> io::Result<Option<Accepted<OwnedReadHalf, OwnedWriteHalf>>> {
        let (stream, peer) = self.listener.accept().await?;
        let local = stream.local_addr()?;
        let (reader, writer) = tcp::split(stream).map_err(io::Error::other)?;
        let peer = SocketAddr::new(*self.from.lock().unwrap(), peer.port());
        Ok(Some(Accepted { peer, local, reader, writer }))
    }
}

struct World {
    server: Guarded,
    from: Arc<Mutex<IpAddr>>,
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, from) = (listener.local_addr().unwrap(), Arc::new(Mutex::new([10, 9, 9, 1].into())));
        Self { server: guarded_on(Elsewhere { listener, from: from.clone() }, address), from }
    }

    async fn open(&self, from: [u8; 4], dialer: &SecureDialer) -> Result<(Connection, Pushes), WireError> {
        *self.from.lock().unwrap() = from.into();
        self.server.open(dialer, "default").await
    }

    fn owner(&self) -> SecureDialer {
        SecureDialer { tls: Tls::Always, ..self.server.owner(1) }
    }
}

#[tokio::test]
async fn an_address_that_fails_again_and_again_waits_outside_for_a_while() {
    let world = World::new().await;
    let (bad, good) = ([10, 9, 9, 9], [10, 9, 9, 8]);
    let (inside, _p) = world.open(bad, &world.owner()).await.unwrap();
    let stranger = world.server.invited(5, None);
    let mut tries = 0;
    loop {
        match world.open(bad, &stranger).await.map(drop).expect_err("nobody invited it") {
            error if error.code() == ErrorCode::Auth => tries += 1,
            _ => break,
        }
        assert!(tries < 1000, "it may try for ever");
    }
    assert!(tries > 15, "{tries} failures are nothing yet");
    // Whoever has proved itself stays, and others come in as ever.
    inside.ping().await.unwrap();
    world.open(good, &world.owner()).await.unwrap();
    // The owner's own folder at that address waits too, and is heard again.
    let heard = async {
        while world.open(bad, &world.owner()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon(heard).await;
}

#[tokio::test]
async fn on_loopback_no_user_keeps_another_out() {
    let world = World::new().await;
    let stranger = world.server.invited(5, None);
    for _ in 0..100 {
        let error = world.open([127, 0, 0, 1], &stranger).await.err().unwrap();
        assert_eq!(error.code(), ErrorCode::Auth);
    }
    world.open([127, 0, 0, 1], &world.owner()).await.unwrap();
}
