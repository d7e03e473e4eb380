//! A server that lies. It lets the owner's clients in as a real one does, asks an honest server what to say, and says
//! what its [`Tongue`] makes of that.

use crate::support::world::World;
use bytes::Bytes;
use dropblock::auth::{Binding, Ends, ServerKey};
use dropblock::block::{Block, SealedBlock, Sealer};
use dropblock::model::{
    Change, DeviceId, FileContent, Kind, Name, Node, NodeId, NodeState, Root, Seq, StoreId, codec, hash,
};
use dropblock::server::{self, Config};
use dropblock::storage::MemoryStore;
use dropblock::wire::opening::{self, Challenge};
use dropblock::wire::{
    Auth, Connection, FrameReader, FrameWriter, Head, Hello, Message, Options, Position, Pushes, tcp,
};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// What a liar makes of what passes it. Frames are bytes, because some are nothing a codec would make.
pub trait Tongue: Send {
    /// The client asks. `Some`: the honest server is not asked.
    fn asked(&mut self, _request: u32, _message: &Message) -> Option<Vec<Vec<u8>>> {
        None
    }

    /// The honest server answers.
    fn answered(&mut self, request: u32, message: Message, payload: Bytes) -> Vec<Vec<u8>> {
        vec![say(request, &message, &payload)]
    }
}

/// Says nothing but the truth.
pub struct Honest;
impl Tongue for Honest {}

/// Twists answers.
impl<F: FnMut(u32, Message, Bytes) -> Vec<Vec<u8>> + Send> Tongue for F {
    fn answered(&mut self, request: u32, message: Message, payload: Bytes) -> Vec<Vec<u8>> {
        self(request, message, payload)
    }
}

/// A frame.
pub fn say(request: u32, message: &Message, payload: &[u8]) -> Vec<u8> {
    frame(request, &codec::encode(message).unwrap(), payload)
}

/// A frame around a head that may be anything.
pub fn frame(request: u32, head: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes();
    let whole = length(8 + head.len() + payload.len());
    [&whole, request.to_le_bytes().as_slice(), &length(head.len()), head, payload].concat()
}

/// What names this machine, as both ends know it.
pub fn machine() -> Vec<u8> {
    let mut machine = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let network = fs::read_link("/proc/self/ns/net").unwrap_or_default();
    machine.extend_from_slice(network.as_os_str().as_encoded_bytes());
    machine
}

pub struct Liar {
    pub addr: SocketAddr,
    tongue: Arc<Mutex<Box<dyn Tongue>>>,
    honest: Arc<Mutex<SocketAddr>>,
    runtime: Runtime,
}

impl Liar {
    /// A server of the world's user, which says the truth until it is told otherwise.
    pub fn new(world: &World) -> Self {
        let key = ServerKey::from_seed([21; 32]).unwrap();
        leave_secret(&world.path().join("home/config/dropblock/local"), &key);
        let runtime = Runtime::new().unwrap();
        let honest = runtime.block_on(honest());
        let tongue: Arc<Mutex<Box<dyn Tongue>>> = Arc::new(Mutex::new(Box::new(Honest)));
        let (honest, listener) =
            (Arc::new(Mutex::new(honest)), runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap());
        let addr = listener.local_addr().unwrap();
        let (talks, truth) = (tongue.clone(), honest.clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (key, talks, truth) = (key.clone(), talks.clone(), *truth.lock().unwrap());
                tokio::spawn(async move { session(stream, &key, talks, truth).await });
            }
        });
        Self { addr, tongue, honest, runtime }
    }

    /// What it says from now on.
    pub fn speak(&self, tongue: impl Tongue + 'static) {
        *self.tongue.lock().unwrap() = Box::new(tongue);
    }

    /// Another honest server with the same identity and nothing in it. From now on it is the one that is asked.
    pub fn forget(&self) -> SocketAddr {
        let fresh = self.runtime.block_on(honest());
        self.ask_at(fresh)
    }

    /// Asks this honest server from now on; which one it was before.
    pub fn ask_at(&self, honest: SocketAddr) -> SocketAddr {
        std::mem::replace(&mut self.honest.lock().unwrap(), honest)
    }

    /// Talks to the honest server behind it.
    pub fn behind<T>(&self, talk: impl AsyncFnOnce(Connection, Pushes) -> T) -> T {
        let honest = *self.honest.lock().unwrap();
        self.runtime.block_on(async {
            let (reader, writer) = tcp::dial(honest).await.unwrap();
            let hello = Hello::new(DeviceId::from_bytes([9; 16]), "friend".into(), "default".into(), None);
            let opened = Connection::open(reader, writer, hello, Options::default(), Arc::default()).await;
            let (connection, pushes) = opened.unwrap();
            talk(connection, pushes).await
        })
    }

    /// Puts files at the top of the honest share.
    pub fn with_files(&self, files: &[(&str, &Block)]) {
        self.behind(async |connection, _| {
            for (name, block) in files {
                let change =
                    Change { id: id(name), base: Seq::ZERO, state: Some(file(NodeId::ROOT, name, block)) };
                let refused = connection.commit(vec![change], &[seal(block)]).await.unwrap().refused;
                assert!(refused.is_empty(), "{refused:?}");
            }
        });
    }

    /// Gives the honest server a block that its share then reaches.
    pub fn with_block(&self, block: &Block) {
        self.behind(async |connection, _| connection.put(&[seal(block)]).await.unwrap());
    }
}

async fn honest() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let store = Arc::new(MemoryStore::new([7; 32]));
    let config = Config::new(StoreId::from_bytes([3; 16]), [4; 32]);
    tokio::spawn(server::run(listener, store.clone(), store, config, std::future::pending()));
    address
}

/// Leaves what the world's clients recognise the server by.
fn leave_secret(place: &Path, key: &ServerKey) {
    fs::create_dir_all(place).unwrap();
    let file = place.join(format!("{}.cred", key.fingerprint()));
    let secret = server::gate::owner_secret(key).to_text();
    fs::write(&file, format!("dropblock owner secret v1\n{secret}\n")).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    fs::set_permissions(place, PermissionsExt::from_mode(0o700)).unwrap();
}

/// One client.
async fn session(
    stream: TcpStream,
    key: &ServerKey,
    tongue: Arc<Mutex<Box<dyn Tongue>>>,
    honest: SocketAddr,
) -> Option<()> {
    let ends = Ends { client: stream.peer_addr().ok()?, server: stream.local_addr().ok()? };
    let (reader, mut writer) = stream.into_split();
    let mut reader = FrameReader::new(reader, Arc::default());
    let knock = opening::read_knock(&reader.next().await.ok()??).ok()?;
    let server = key.fingerprint();
    let binding = Binding::clear(&knock.nonce, &[5; 32], &server, ends, &machine());
    let mac = server::gate::owner_secret(key).server_mac(&binding);
    let challenge = Challenge { proto: opening::PROTO, nonce: [5; 32], server, clear: true, mac };
    let mut frames = FrameWriter::new(&mut writer, Arc::default());
    frames.push(&opening::challenge(&challenge).ok()?);
    frames.flush().await.ok()?;
    let Message::Hello(mut hello) = reader.next().await.ok()??.message().ok()? else { return None };
    hello.auth = Auth::default();
    reader.admit_large_frames();
    let (truth, mut ask) = tcp::dial(honest).await.ok()?;
    ask.write_all(&say(0, &Message::Hello(hello), &[])).await.ok()?;
    let mut truth = FrameReader::new(truth, Arc::default());
    truth.admit_large_frames();
    let (says, mut said) = mpsc::unbounded_channel::<Vec<u8>>();
    let lies = says.clone();
    let talks = tongue.clone();
    let up = async move {
        while let Ok(Some(frame)) = reader.next().await {
            let message = frame.whole_message().ok()?.0;
            let lie = talks.lock().unwrap().asked(frame.request, &message);
            match lie {
                Some(frames) => frames.into_iter().for_each(|frame| drop(lies.send(frame))),
                None => ask.write_all(&say(frame.request, &message, &frame.payload)).await.ok()?,
            }
        }
        Some(())
    };
    let down = async move {
        while let Ok(Some(frame)) = truth.next().await {
            let message = frame.whole_message().ok()?.0;
            let frames = tongue.lock().unwrap().answered(frame.request, message, frame.payload);
            frames.into_iter().for_each(|frame| drop(says.send(frame)));
        }
        Some(())
    };
    let out = async move {
        while let Some(frame) = said.recv().await {
            writer.write_all(&frame).await.ok()?;
        }
        Some(())
    };
    tokio::select! { _ = up => {}, _ = out => {}, () = async { down.await; std::future::pending().await } => {} }
    Some(())
}

/// Says that the share holds these nodes, whatever the truth is.
pub struct Script {
    /// In any order.
    pub nodes: Vec<Node>,
    /// What it calls its head.
    pub head: Head,
}

impl Script {
    /// These nodes, and a head after the last of them.
    pub fn new(head: Head, nodes: Vec<Node>) -> Self {
        let seq = nodes.iter().map(|node| node.version).max().unwrap_or(head.seq);
        Self { nodes, head: Head { seq, ..head } }
    }
}

impl Tongue for Script {
    fn asked(&mut self, request: u32, message: &Message) -> Option<Vec<Vec<u8>>> {
        let Message::Poll { after, .. } = message else { return None };
        let mut nodes: Vec<Node> = self.nodes.iter().filter(|n| n.version > after.seq).cloned().collect();
        nodes.sort_by_key(|node| (node.version, node.id));
        let next = Position::after(self.head.seq);
        let changes = Message::Changes { nodes, next, complete: true, head: Some(self.head) };
        Some(vec![say(request, &changes, &[])])
    }
}

/// The head of the honest server.
pub fn head(liar: &Liar) -> Head {
    liar.behind(async |connection, _| connection.welcome().head)
}

/// The same id for the same word.
pub fn id(word: &str) -> NodeId {
    let mut bytes = [0; 32];
    hash::expand(blake3::hash(word.as_bytes()).as_bytes(), 0, &mut bytes);
    NodeId::from_bytes(bytes[..16].try_into().unwrap())
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// A file of one block.
pub fn file(parent: NodeId, named: &str, block: &Block) -> NodeState {
    let root = Root { params: 1, level: 0, hash: block.hash() };
    let content = FileContent { size: block.bytes().len() as u64, root };
    NodeState { parent, name: name(named), kind: Kind::File { content, mtime_ns: 5, exec: false } }
}

pub fn folder(parent: NodeId, named: &str) -> NodeState {
    NodeState { parent, name: name(named), kind: Kind::Folder }
}

pub fn link(parent: NodeId, named: &str, target: &Path) -> NodeState {
    let target = target.as_os_str().as_encoded_bytes().to_vec();
    NodeState { parent, name: name(named), kind: Kind::Symlink { target, mtime_ns: 5 } }
}

pub fn node(word: &str, version: u64, state: NodeState) -> Node {
    Node { id: id(word), version: Seq(version), state: Some(state) }
}

/// Bytes that do not compress.
pub fn random(seed: u64, len: usize) -> Block {
    Block::new(crate::support::random_bytes(seed, len).into())
}

pub fn seal(block: &Block) -> SealedBlock {
    Sealer::new(1).seal(block).into_sealed()
}
