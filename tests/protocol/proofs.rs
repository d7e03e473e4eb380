//! Who is let in, and what those learn who are not: real proofs against peers that lie, listen in, relay and repeat.

use super::deltas::{edited, patch, patch_of};
use super::support::*;
use dropblock::auth::{Binding, DeviceKey, Ends, Fingerprint, InviteSecret, Proof, Scope, Secret, ServerKey};
use dropblock::block::{Block, Sealer};
use dropblock::server::gate::owner_secret;
use dropblock::server::{self, Access, Devices, Gate};
use dropblock::storage::{BlockStore, MemoryStore};
use dropblock::wire::opening::{self, Challenge, Knock};
use dropblock::wire::tls::TlsServer;
use dropblock::wire::{
    Auth, Connection, Dial, ErrorCode, FrameReader, FrameWriter, Hello, Keyring, Link, Message, Options, Pin,
    Pushes, SecureDialer, Tls, WireError,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A name that must not be seen by anybody who has not proved who it is.
const NAME: &str = "the-laptop-of-alice";
const SHARE: &str = "alices-photos";

pub struct Guarded {
    pub running: Running,
    pub gate: Arc<Gate>,
    pub key: ServerKey,
}

pub async fn guarded(clear: bool) -> Guarded {
    guarded_with(clear, config()).await
}

async fn guarded_with(clear: bool, config: server::Config) -> Guarded {
    guarded_over(clear, config, |store| store).await
}

/// The same over a block store that is made of the reference.
pub async fn guarded_over(
    clear: bool,
    config: server::Config,
    wrap: impl FnOnce(Arc<MemoryStore>) -> Arc<dyn BlockStore>,
) -> Guarded {
    let (key, gate) = gate(clear);
    let config = server::Config { access: Access::Proved(gate.clone()), ..config };
    let store = Arc::new(MemoryStore::new([7; 32]));
    let blocks = wrap(store.clone());
    Guarded { running: start_with(config, blocks, store).await, gate, key }
}

/// The same on a listener of the test's, reached at `address`.
pub fn guarded_on(listener: impl server::Accept + 'static, address: SocketAddr) -> Guarded {
    let (key, gate) = gate(true);
    let config = server::Config { access: Access::Proved(gate.clone()), ..config() };
    let store = Arc::new(MemoryStore::new([7; 32]));
    Guarded { running: start_on(listener, address, config, store.clone(), store), gate, key }
}

fn gate(clear: bool) -> (ServerKey, Arc<Gate>) {
    let key = ServerKey::from_seed([11; 32]).unwrap();
    let devices = Arc::new(Devices::in_memory(|| 1000));
    let gate = Gate::new(key.clone(), clear, [5; 32], b"boot".to_vec(), devices).unwrap();
    (key, Arc::new(gate))
}

/// The keys of a folder in a test.
struct Ring {
    secrets: Vec<Secret>,
    pin: Option<Pin>,
    device: DeviceKey,
    nonces: Mutex<u8>,
}

impl Keyring for Ring {
    fn secrets(&self, _: &Fingerprint) -> Vec<Secret> {
        self.secrets.clone()
    }
    fn pin(&self) -> Option<Pin> {
        self.pin
    }
    fn device(&self) -> &DeviceKey {
        &self.device
    }
    fn nonce(&self) -> Result<[u8; 32], WireError> {
        let mut nonce = self.nonces.lock().unwrap();
        *nonce += 1;
        Ok([*nonce; 32])
    }
    fn machine(&self) -> Vec<u8> {
        b"boot".to_vec()
    }
    fn met(&self, _: &Fingerprint) {}
}

fn ring(device: u8, secrets: Vec<Secret>, pin: Option<Pin>) -> Arc<Ring> {
    Arc::new(Ring {
        secrets,
        pin,
        device: DeviceKey::from_seed([device; 32]).unwrap(),
        nonces: Mutex::new(0),
    })
}

impl Guarded {
    pub fn owner(&self, device: u8) -> SecureDialer {
        let keyring = ring(device, vec![owner_secret(&self.key)], None);
        SecureDialer { keyring, tls: Tls::Auto, invite: None }
    }

    pub fn invited(&self, device: u8, invite: Option<InviteSecret>) -> SecureDialer {
        let pin = Pin { server: self.key.fingerprint(), invited: true };
        SecureDialer { keyring: ring(device, vec![], Some(pin)), tls: Tls::Auto, invite }
    }

    /// A device with this scope, that has joined.
    pub async fn joined(&self, device: u8, scope: Scope, share: &str) -> (Connection, Pushes) {
        let invite = InviteSecret::from_bytes([device; 16]);
        self.gate.devices.invite(&invite, scope, None).unwrap();
        self.open(&self.invited(device, Some(invite)), share).await.unwrap()
    }

    pub async fn open(&self, dialer: &SecureDialer, share: &str) -> Result<(Connection, Pushes), WireError> {
        open_at(dialer, self.running.address, share).await
    }
}

async fn open_at(
    dialer: &SecureDialer,
    address: SocketAddr,
    share: &str,
) -> Result<(Connection, Pushes), WireError> {
    let link = soon(dialer.dial(&address.to_string())).await?;
    over(link, share).await
}

async fn over(link: Link, share: &str) -> Result<(Connection, Pushes), WireError> {
    let hello = Hello { share: share.into(), device_name: NAME.into(), auth: link.auth, ..hello() };
    soon(Connection::open(link.reader, link.writer, hello, Options::default(), Arc::default())).await
}

pub fn scope(share: &str, read_only: bool) -> Scope {
    Scope { share: Some(share.into()), read_only }
}

/// Everything that was said through a relay, both ways.
type Heard = Arc<Mutex<Vec<u8>>>;

fn heard(all: &Heard, text: &str) -> bool {
    all.lock().unwrap().windows(text.len()).any(|window| window == text.as_bytes())
}

/// Listens at `at`, passes everything on, and keeps it. `twist` may change what the client says.
async fn relay(at: &str, target: SocketAddr) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind(at).await.unwrap();
    let (address, all) = (listener.local_addr().unwrap(), Heard::default());
    let keep = all.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(target).await.unwrap();
            let ((mut cr, mut cw), (mut sr, mut sw)) = (client.into_split(), server.into_split());
            let (up, down) = (keep.clone(), keep.clone());
            tokio::spawn(async move { pass(&mut cr, &mut sw, &up).await });
            tokio::spawn(async move { pass(&mut sr, &mut cw, &down).await });
        }
    });
    (address, all)
}

async fn pass<R: AsyncReadExt + Unpin, W: AsyncWriteExt + Unpin>(from: &mut R, to: &mut W, heard: &Heard) {
    let mut buffer = vec![0; 65536];
    while let Ok(got) = from.read(&mut buffer).await {
        heard.lock().unwrap().extend_from_slice(&buffer[..got]);
        if got == 0 || to.write_all(&buffer[..got]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}

#[tokio::test]
async fn the_owner_comes_in_without_any_set_up_in_the_clear_and_inside_tls() {
    let server = guarded(true).await;
    let (clear, _p) = server.open(&server.owner(1), SHARE).await.unwrap();
    clear.commit(vec![folder("a")], &[]).await.unwrap();
    let always = SecureDialer { tls: Tls::Always, ..server.owner(2) };
    let (inside, _p) = server.open(&always, SHARE).await.unwrap();
    assert_eq!(inside.welcome().head.seq.0, 1);
    let listed = server.gate.devices.list();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|(device, _)| !device.invited && device.name == NAME));
    // A server that allows nothing in the clear is reached all the same.
    let strict = guarded(false).await;
    strict.open(&strict.owner(1), SHARE).await.unwrap();
}

#[tokio::test]
async fn a_squatter_on_the_port_learns_nothing() {
    let server = guarded(true).await;
    // It knows the server's public name, and answers as well as it can.
    let name = server.key.fingerprint();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let all = Heard::default();
    let keep = all.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let keep = keep.clone();
            tokio::spawn(async move {
                let claim = Challenge { proto: 1, nonce: [9; 32], server: name, clear: true, mac: [0; 32] };
                let (mut reader, writer) = stream.split();
                let mut first = vec![0; 4096];
                let got = reader.read(&mut first).await.unwrap_or(0);
                keep.lock().unwrap().extend_from_slice(&first[..got]);
                let mut writer = FrameWriter::new(writer, Arc::default());
                writer.push(&opening::challenge(&claim).unwrap());
                let _ = writer.flush().await;
                let mut rest = Vec::new();
                let _ = tokio::time::timeout(Duration::from_millis(300), reader.read_to_end(&mut rest)).await;
                keep.lock().unwrap().extend_from_slice(&rest);
            });
        }
    });
    let dialer = server.owner(1);
    assert!(open_at(&dialer, address, SHARE).await.is_err());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let device = dialer.keyring.device().public();
    let all = all.lock().unwrap().clone();
    assert!(!all.is_empty());
    for secret in [
        NAME.as_bytes(),
        SHARE.as_bytes(),
        device.as_bytes(),
        &server.key.seed(),
        owner_secret(&server.key).to_text().as_bytes(),
    ] {
        assert!(!all.windows(secret.len()).any(|window| window == secret));
    }
}

#[tokio::test]
async fn through_a_relay_everything_is_inside_tls() {
    let server = guarded(true).await;
    let port = server.running.address.port();
    // On another port, and on the same port of another address of this machine.
    for at in ["127.0.0.1:0".to_owned(), format!("127.0.0.2:{port}")] {
        let (address, all) = relay(&at, server.running.address).await;
        let (client, _p) = open_at(&server.owner(1), address, SHARE).await.unwrap();
        client.commit(vec![folder(&format!("a-folder-{}", address.ip()))], &[]).await.unwrap();
        assert!(!all.lock().unwrap().is_empty(), "it was passed on");
        for word in [NAME, SHARE, "a-folder"] {
            assert!(!heard(&all, word), "{at} heard {word}");
        }
    }
    // Without one it is not.
    let dialer = server.owner(2);
    let link = dialer.dial(&server.running.address.to_string()).await.unwrap();
    assert_eq!(link.auth.method, Proof::OWNER);
}

#[tokio::test]
async fn a_proof_that_was_recorded_opens_nothing_again() {
    let server = guarded(true).await;
    let dialer = server.owner(1);
    let link = dialer.dial(&server.running.address.to_string()).await.unwrap();
    let recorded: Auth = link.auth.clone();
    over(link, SHARE).await.unwrap();
    for knock in [true, false] {
        let mut raw = server.running.dial().await;
        if knock {
            raw.writer.push(&opening::knock(&Knock { proto: 1, nonce: [1; 32] }).unwrap());
            raw.writer.flush().await.unwrap();
            let frame = soon(raw.reader.next()).await.unwrap().unwrap();
            assert!(opening::read_challenge(&frame).unwrap().unwrap().clear);
        }
        raw.send(0, Message::Hello(Box::new(Hello { auth: recorded.clone(), ..hello() }))).await;
        raw.expect_goodbye(ErrorCode::Auth).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_know_the_secret_is_refused_whatever_it_says() {
    let server = guarded(true).await;
    let key = DeviceKey::from_seed([1; 32]).unwrap();
    let invite = InviteSecret::from_bytes([1; 16]);
    server.gate.devices.invite(&invite, scope(SHARE, false), None).unwrap();
    let proofs: [&dyn Fn(&Binding) -> Auth; 5] = [
        &|binding| Proof::owner(&Secret::from_bytes([0; 32]), &key, binding).into(),
        &|binding| Proof::device(&key, binding).into(),
        // A good invite, but where others could hear it.
        &|binding| Proof::invited(&invite, &key, binding).into(),
        &|_| Auth::default(),
        &|_| Auth { method: 9, bytes: vec![7; 1000] },
    ];
    for proof in proofs {
        let (reader, writer) = dropblock::wire::tcp::dial(server.running.address).await.unwrap();
        let ends = Ends { client: reader.local_addr().unwrap(), server: reader.peer_addr().unwrap() };
        let mut raw = Raw::over(reader, writer);
        raw.writer.push(&opening::knock(&Knock { proto: 1, nonce: [1; 32] }).unwrap());
        raw.writer.flush().await.unwrap();
        let frame = soon(raw.reader.next()).await.unwrap().unwrap();
        let challenge = opening::read_challenge(&frame).unwrap().unwrap();
        let binding = Binding::clear(&[1; 32], &challenge.nonce, &challenge.server, ends, b"boot");
        let hello = Hello { share: SHARE.into(), auth: proof(&binding), ..hello() };
        raw.send(0, Message::Hello(Box::new(hello))).await;
        raw.expect_goodbye(ErrorCode::Auth).await;
    }
    assert!(server.gate.devices.list().is_empty());
    server.open(&server.invited(1, Some(invite)), SHARE).await.expect("the invite is still good");
}

#[tokio::test]
async fn a_client_of_before_is_told_to_update() {
    let server = guarded(true).await;
    let mut raw = server.running.dial().await;
    raw.send(0, Message::Hello(Box::new(hello()))).await;
    match raw.next().await {
        (0, Message::Goodbye { code, text }, _) => {
            assert_eq!(ErrorCode::from_u16(code), ErrorCode::Auth);
            assert!(text.contains("update dropblock"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    // And a server of before is named as one.
    let old = start(config()).await;
    let dialer = server.owner(1);
    let refused = soon(dialer.dial(&old.address.to_string())).await.err().unwrap();
    assert!(matches!(refused, WireError::OldServer), "{refused}");
}

#[tokio::test]
async fn nothing_that_is_said_on_the_way_makes_a_client_speak_in_the_clear_to_a_stranger() {
    let server = guarded(true).await;
    // Says that there is no TLS here, in every way a relay can: garbage, an end, a goodbye, a challenge.
    let goodbye = Message::goodbye(ErrorCode::Version, "no TLS here");
    let goodbye = dropblock::wire::EncodedFrame::new(0, &goodbye, vec![]).unwrap();
    let name = server.key.fingerprint();
    let claim = Challenge { proto: 1, nonce: [9; 32], server: name, clear: true, mac: [0; 32] };
    let claim = opening::challenge(&claim).unwrap();
    for answer in [Some(&goodbye), Some(&claim), None] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, all) = (answer.cloned(), Heard::default());
        let keep = all.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut first = vec![0; 4096];
                let got = stream.read(&mut first).await.unwrap_or(0);
                keep.lock().unwrap().extend_from_slice(&first[..got]);
                let mut writer = FrameWriter::new(stream, Arc::default());
                if let Some(answer) = &answer {
                    writer.push(answer);
                }
                let _ = writer.flush().await;
            }
        });
        for tls in [Tls::Auto, Tls::Always] {
            let dialer = SecureDialer { tls, ..server.owner(1) };
            assert!(open_at(&dialer, address, SHARE).await.is_err());
        }
        assert!(!heard(&all, NAME) && !heard(&all, SHARE));
    }
}

#[tokio::test]
async fn a_pinned_client_talks_to_no_other_server() {
    let server = guarded(true).await;
    let pin = Pin { server: Fingerprint::from_bytes([1; 32]), invited: true };
    let dialer = SecureDialer {
        keyring: ring(1, vec![owner_secret(&server.key)], Some(pin)),
        tls: Tls::Auto,
        invite: None,
    };
    let refused = server.open(&dialer, SHARE).await.err().unwrap();
    assert!(matches!(refused, WireError::OtherServer { .. }), "{refused}");
    let stranger = SecureDialer { keyring: ring(1, vec![], None), tls: Tls::Auto, invite: None };
    let refused = server.open(&stranger, SHARE).await.err().unwrap();
    assert!(matches!(refused, WireError::Stranger(_)), "{refused}");
    assert!(server.gate.devices.list().is_empty(), "no hello was said");
}

/// A server that shows one key and signs with another, as who has stolen a certificate must.
#[tokio::test]
async fn a_server_that_shows_a_key_it_does_not_have_is_refused() {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    let (shown, held) = (ServerKey::from_seed([11; 32]).unwrap(), ServerKey::from_seed([12; 32]).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(held.to_pkcs8()));
    let private = provider.key_provider.load_private_key(private).unwrap();
    let spki = vec![CertificateDer::from(shown.public().to_spki())];
    let certified = rustls::sign::CertifiedKey::new(spki, private);
    let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"dropblock/1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted =
        tokio::spawn(async move { acceptor.accept(listener.accept().await.unwrap().0).await.is_ok() });
    let pin = Pin { server: shown.fingerprint(), invited: true };
    let dialer = SecureDialer { keyring: ring(1, vec![], Some(pin)), tls: Tls::Auto, invite: None };
    let refused = open_at(&dialer, address, SHARE).await.err().unwrap();
    assert!(matches!(refused, WireError::Tls(_)), "{refused}");
    assert!(!soon(accepted).await.unwrap());
}

#[tokio::test]
async fn an_invite_works_once_and_for_its_own_share_only() {
    let server = guarded(true).await;
    let invite = InviteSecret::from_bytes([3; 16]);
    server.gate.devices.invite(&invite, scope(SHARE, false), None).unwrap();
    let first = server.invited(1, Some(invite.clone()));
    assert_eq!(server.open(&first, "default").await.err().unwrap().code(), ErrorCode::Auth);
    server.open(&first, SHARE).await.expect("a wrong share does not use it up");
    let second = server.invited(2, Some(invite));
    assert_eq!(server.open(&second, SHARE).await.err().unwrap().code(), ErrorCode::Auth);
    let later = server.invited(1, None);
    server.open(&later, SHARE).await.expect("its key lets it in from now on");
    assert_eq!(server.open(&later, "default").await.err().unwrap().code(), ErrorCode::Auth);
    let unknown = server.invited(9, None);
    assert_eq!(server.open(&unknown, SHARE).await.err().unwrap().code(), ErrorCode::Auth);
}

#[tokio::test]
async fn a_block_of_another_share_looks_like_one_that_nobody_has() {
    let server = guarded(true).await;
    let (owner, _p) = server.open(&server.owner(1), SHARE).await.unwrap();
    let (theirs, nobodys) = (random(1, 50_000), random(2, 50_000));
    owner.put(&[seal(&theirs)]).await.unwrap();
    owner.commit(vec![file("secret", &theirs)], &[]).await.unwrap();
    let (guest, _p) = server.joined(5, scope("guests", false), "guests").await;
    let asked = vec![theirs.hash(), nobodys.hash()];
    assert_eq!(guest.missing(asked.clone()).await.unwrap(), [true, true]);
    let found = guest.want(asked, 100_000).await.unwrap().all().await.unwrap();
    assert_eq!(found.iter().filter(|block| block.is_some()).count(), 0);
    // Neither is naming it a way to it, nor guessing it as the base of another.
    let refused = guest.commit(vec![file("mine", &theirs)], &[]).await.unwrap().refused;
    assert_eq!(refused.len(), 1);
    let mut edited = theirs.bytes().to_vec();
    edited[9] ^= 1;
    let edited = Block::new(edited.into());
    let delta = Sealer::new(1).seal_against(&edited, &theirs).unwrap().into_sealed();
    assert_eq!(guest.put(&[delta]).await.unwrap_err().code(), ErrorCode::BaseMissing);
    // Who has the bytes may bring them, and is answered as for any other.
    guest.put(&[seal(&theirs)]).await.unwrap();
    assert!(guest.commit(vec![file("mine", &theirs)], &[]).await.unwrap().refused.is_empty());
    assert_eq!(guest.missing(vec![theirs.hash()]).await.unwrap(), [false]);
}

/// Up and down: a patch tells whether its base holds what its maker thinks, and a delta holds what its base does not.
#[tokio::test]
async fn a_block_of_another_share_is_no_base_neither_up_nor_down() {
    let server = guarded(true).await;
    let (owner, _p) = server.open(&server.owner(1), SHARE).await.unwrap();
    let (theirs, edit) = edited(1);
    let (nobodys, edit_of_nobodys) = edited(2);
    owner.put(&[seal(&theirs)]).await.unwrap();
    owner.commit(vec![file("secret", &theirs)], &[]).await.unwrap();
    // What came as a patch is kept for the devices of that share.
    owner.put(&[patch(&edit, &theirs)]).await.unwrap();
    let (guest, _p) = server.joined(5, scope("guests", false), "guests").await;
    // Patches that open, if the base may be read; one base that is there and one that is nowhere.
    let up = [patch(&edit, &theirs), patch(&edit_of_nobodys, &nobodys)];
    match guest.put(&up).await.unwrap_err() {
        WireError::Unopened { which } => assert_eq!(which, [true, true]),
        other => panic!("{other}"),
    }
    for (block, patch) in [&edit, &edit_of_nobodys].into_iter().zip(&up) {
        let refused = guest.commit(vec![file("mine", block)], std::slice::from_ref(patch)).await.unwrap_err();
        assert!(matches!(&refused, WireError::Unopened { which } if *which == [true]), "{refused}");
    }
    // One base of several is enough to refuse, and so is the older kind of delta.
    let own = random(3, 50_000);
    guest.put(&[seal(&own)]).await.unwrap();
    for (other, edit) in [(&theirs, &edit), (&nobodys, &edit_of_nobodys)] {
        let both = Block::new([own.bytes().as_ref(), other.bytes().as_ref()].concat().into());
        let of_both = patch_of(&both, &[&own, other]);
        assert_eq!(of_both.bases().unwrap(), [own.hash(), other.hash()]);
        let older = Sealer::new(1).seal_against(edit, other).unwrap().into_sealed();
        assert_eq!(older.bases().unwrap(), [other.hash()]);
        match guest.put(&[of_both, older]).await.unwrap_err() {
            WireError::Unopened { which } => assert_eq!(which, [true, true]),
            other => panic!("{other}"),
        }
    }
    assert_eq!(guest.missing(vec![theirs.hash(), edit.hash()]).await.unwrap(), [true, true]);
    // Down: neither the block, nor one of the guest's own as what it has more than that base.
    guest.put(&[seal(&edit)]).await.unwrap();
    let wanted = vec![edit.hash(), edit.hash(), theirs.hash()];
    let bases = vec![theirs.hash(), nobodys.hash(), own.hash()];
    let found = guest.want_against(wanted, bases, 200_000).await.unwrap().all().await.unwrap();
    assert!(found[..2].iter().all(|block| *block == Some(seal(&edit))), "it stands alone");
    assert!(found[2].is_none());
    // In its own share the same patch is as good as ever.
    let want = owner.want_against(vec![edit.hash()], vec![theirs.hash()], 50_000).await.unwrap();
    assert_eq!(want.all().await.unwrap(), [Some(patch(&edit, &theirs))]);
}

#[tokio::test]
async fn a_read_only_device_sees_everything_and_changes_nothing() {
    let server = guarded(true).await;
    let (owner, _p) = server.open(&server.owner(1), SHARE).await.unwrap();
    owner.commit(vec![folder("a")], &[]).await.unwrap();
    let (reader, mut pushes) = server.joined(5, scope(SHARE, true), SHARE).await;
    assert!(reader.welcome().is_read_only() && !owner.welcome().is_read_only());
    let code = reader.commit(vec![folder("b")], &[]).await.unwrap_err().code();
    assert_eq!(code, ErrorCode::ReadOnly);
    assert_eq!(reader.put(&[seal(&random(1, 10))]).await.unwrap_err().code(), ErrorCode::ReadOnly);
    owner.commit(vec![folder("c")], &[]).await.unwrap();
    assert!(matches!(soon(pushes.next()).await, Some(dropblock::wire::Push::Changed { .. })));
    assert_eq!(
        reader
            .poll(dropblock::wire::Position::START, 10, dropblock::model::Seq::ZERO)
            .await
            .unwrap()
            .nodes
            .len(),
        2
    );
}

#[tokio::test]
async fn a_device_that_is_revoked_is_cut_off_and_comes_back_no_more() {
    let server = guarded(true).await;
    let (guest, _p) = server.joined(5, scope(SHARE, false), SHARE).await;
    let (owner, _p) = server.open(&server.owner(1), SHARE).await.unwrap();
    let ids: Vec<String> = server.gate.devices.list().into_iter().map(|(device, _)| device.id).collect();
    assert_eq!(ids.len(), 2);
    server.gate.devices.revoke(&ids[0]).unwrap();
    assert_eq!(soon(guest.closed()).await.code(), ErrorCode::Auth);
    owner.ping().await.expect("others stay");
    assert_eq!(server.open(&server.invited(5, None), SHARE).await.err().unwrap().code(), ErrorCode::Auth);
    // Also one of the owner's, although the secret is as good as before.
    server.gate.devices.revoke(&ids[1]).unwrap();
    assert_eq!(soon(owner.closed()).await.code(), ErrorCode::Auth);
    assert_eq!(server.open(&server.owner(1), SHARE).await.err().unwrap().code(), ErrorCode::Auth);
    server.open(&server.owner(2), SHARE).await.unwrap();
}

#[tokio::test]
async fn before_the_proof_frames_are_small_and_patience_is_short() {
    let patience = server::Config { handshake_ms_max: 400, ..config() };
    let server = guarded_with(true, patience).await;
    let oversize = 5000u32.to_le_bytes();
    let knock = async |stream: &mut TcpStream| {
        let mut writer = FrameWriter::new(Vec::new(), Arc::default());
        writer.push(&opening::knock(&Knock { proto: 1, nonce: [1; 32] }).unwrap());
        writer.flush().await.unwrap();
        stream.write_all(&writer.into_stream()).await.unwrap();
        // The challenge.
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.unwrap();
        let mut challenge = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut challenge).await.unwrap();
    };
    for knocks in [false, true] {
        let mut stream = TcpStream::connect(server.running.address).await.unwrap();
        if knocks {
            knock(&mut stream).await;
        }
        stream.write_all(&oversize).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer[12..14], [2, 2], "a goodbye: the frame is too large");
    }
    // A byte now and then: of a frame, of a knock, of TLS, after the challenge.
    for (first, knocks) in [(vec![100], false), (vec![0x16, 3, 1, 2, 0], false), (vec![60, 0, 0, 0, 0], true)]
    {
        let mut stream = TcpStream::connect(server.running.address).await.unwrap();
        if knocks {
            knock(&mut stream).await;
        }
        let dripping = async {
            for byte in first.iter().chain(std::iter::repeat(&0)) {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                let mut said = [0; 512];
                let wait = Duration::from_millis(50);
                if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(wait, stream.read(&mut said)).await {
                    return;
                }
            }
        };
        soon(dripping).await;
    }
    server.open(&server.owner(1), SHARE).await.unwrap();
}

#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let server = guarded(true).await;
    let mut crowd = Vec::new();
    for _ in 0..400 {
        crowd.push(TcpStream::connect(server.running.address).await.unwrap());
    }
    let (client, _p) = server.open(&server.owner(1), SHARE).await.unwrap();
    client.ping().await.unwrap();
    // The first of the crowd had to go.
    let mut first = crowd.remove(0);
    let mut said = Vec::new();
    soon(first.read_to_end(&mut said)).await.unwrap();
    assert_eq!(said[12..14], [2, 10], "a goodbye: busy");
}

#[tokio::test]
async fn hostile_first_bytes_get_a_clean_end() {
    let server = guarded(true).await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 4096],
        &[0x16, 3, 3, 0, 5, 1, 0, 0, 1, 0],
        b"\x16\x03\x01\xff\xff\x01\xff\xff\xff\xff",
        &[20, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, b'd', b'r', b'o', b'p', b'k', b'n', b'o', b'k', 1, 2, 3, 4],
    ] {
        let mut stream = TcpStream::connect(server.running.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
    }
    // TLS to a server that is none of TLS, and frames inside.
    let (stream, _, _) = dropblock::wire::tls::connect(
        TcpStream::connect(server.running.address).await.unwrap(),
        Arc::new(|_: &Fingerprint| Ok(())),
    )
    .await
    .unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    writer.write_all(&5000u32.to_le_bytes()).await.unwrap();
    writer.flush().await.unwrap();
    let mut frames = FrameReader::new(&mut reader, Arc::default());
    let frame = soon(frames.next()).await.unwrap().unwrap();
    assert!(matches!(frame.message().unwrap(), Message::Goodbye { code: 2, .. }));
    server.open(&server.owner(1), SHARE).await.unwrap();
    drop(TlsServer::new(&server.key).unwrap());
}

/// Without a word a client would take it for a dead one.
#[tokio::test]
async fn a_server_that_is_still_opening_its_store_says_so_in_the_clear_and_inside_tls() {
    let key = ServerKey::from_seed([11; 32]).unwrap();
    let mut listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, opened) = tokio::sync::oneshot::channel::<()>();
    let porch_key = key.clone();
    let porch = tokio::spawn(async move {
        let opened =
            server::porch::until(&mut listener, Some(&porch_key), Duration::ZERO, || {}, opened).await;
        opened.unwrap();
        listener
    });
    for tls in [Tls::Auto, Tls::Always] {
        let keyring = ring(1, vec![owner_secret(&key)], None);
        let refused =
            open_at(&SecureDialer { keyring, tls, invite: None }, address, SHARE).await.err().unwrap();
        assert_eq!(refused.code(), ErrorCode::Opening, "{refused}");
        assert!(refused.is_retryable());
    }
    // Nor is one that says nothing in the way.
    let _silent = TcpStream::connect(address).await.unwrap();
    open.send(()).unwrap();
    let listener = soon(porch).await.unwrap();
    let devices = Arc::new(Devices::in_memory(|| 1000));
    let gate = Gate::new(key.clone(), true, [5; 32], b"boot".to_vec(), devices).unwrap();
    let config = server::Config { access: Access::Proved(Arc::new(gate)), ..config() };
    let store = Arc::new(MemoryStore::new([7; 32]));
    let serving = server::run(listener, store.clone(), store, config, std::future::pending());
    let serving = tokio::spawn(serving);
    let keyring = ring(1, vec![owner_secret(&key)], None);
    let dialer = SecureDialer { keyring, tls: Tls::Auto, invite: None };
    assert!(open_at(&dialer, address, SHARE).await.is_ok());
    serving.abort();
}
