//! A server on port 0 over the reference store, a client of raw frames, and small things to send.

use bytes::Bytes;
use dropblock::block::{Block, SealedBlock, Sealer};
use dropblock::model::counters::Counters;
use dropblock::model::{
    ChainHash, Change, DeviceId, FileContent, IdSource, JournalId, Kind, Name, NodeId, NodeState, Root, Seq,
    StoreId, hash,
};
use dropblock::server::{self, Accept, Config, ServerError};
use dropblock::storage::{
    self, BlockStore, BoxFuture, CommitEvent, CommitRequest, Journal, MemoryStore, ShareId, StorageError,
};
use dropblock::wire::{
    Connection, EncodedFrame, ErrorCode, FrameReader, FrameWriter, Hello, Message, Options, Pushes, Welcome,
    WireError, tcp,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Nothing here takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("takes too long")
}

pub struct Running {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    pub task: JoinHandle<Result<(), ServerError>>,
}

pub fn config() -> Config {
    Config::new(StoreId::from_bytes([3; 16]), [4; 32])
}

pub async fn start(config: Config) -> Running {
    let store = Arc::new(MemoryStore::new([7; 32]));
    start_with(config, store.clone(), store).await
}

pub async fn start_with(config: Config, blocks: Arc<dyn BlockStore>, journal: Arc<dyn Journal>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    start_on(listener, address, config, blocks, journal)
}

/// A server on a listener of the test's, reached at `address`.
pub fn start_on(
    listener: impl Accept + 'static,
    address: SocketAddr,
    config: Config,
    blocks: Arc<dyn BlockStore>,
    journal: Arc<dyn Journal>,
) -> Running {
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        let _ = stopped.await;
    };
    let task = tokio::spawn(async move { server::run(listener, blocks, journal, config, shutdown).await });
    Running { address, stop, task }
}

impl Running {
    pub async fn stop(self) -> Result<(), ServerError> {
        let _ = self.stop.send(());
        soon(self.task).await.unwrap()
    }

    /// A raw client without a handshake.
    pub async fn dial(&self) -> Raw {
        let (reader, writer) = tcp::dial(self.address).await.unwrap();
        Raw::over(reader, writer)
    }

    /// A raw client with a session.
    pub async fn raw(&self) -> (Raw, Welcome) {
        self.raw_with(hello()).await
    }

    /// The same with a hello of its own.
    pub async fn raw_with(&self, hello: Hello) -> (Raw, Welcome) {
        let mut raw = self.dial().await;
        raw.send(0, Message::Hello(Box::new(hello))).await;
        raw.reader.admit_large_frames();
        match raw.next().await {
            (0, Message::Welcome(welcome), _) => (raw, *welcome),
            other => panic!("{other:?}"),
        }
    }

    pub async fn try_connect(&self, hello: Hello) -> Result<(Connection, Pushes), WireError> {
        let (reader, writer) = tcp::dial(self.address).await?;
        soon(Connection::open(reader, writer, hello, Options::default(), Arc::default())).await
    }

    pub async fn connect(&self) -> (Connection, Pushes) {
        self.try_connect(hello()).await.unwrap()
    }
}

pub fn hello() -> Hello {
    Hello::new(DeviceId::from_bytes([1; 16]), "laptop".into(), "default".into(), None)
}

pub struct Raw {
    pub reader: FrameReader<OwnedReadHalf>,
    pub writer: FrameWriter<OwnedWriteHalf>,
}

impl Raw {
    /// Frames over a stream.
    pub fn over(reader: OwnedReadHalf, writer: OwnedWriteHalf) -> Self {
        let counters = Arc::<Counters>::default();
        Self {
            reader: FrameReader::new(reader, counters.clone()),
            writer: FrameWriter::new(writer, counters),
        }
    }

    pub async fn send(&mut self, request: u32, message: Message) {
        self.send_with(request, message, vec![]).await;
    }

    pub async fn send_with(&mut self, request: u32, message: Message, payload: Vec<Bytes>) {
        self.writer.push(&EncodedFrame::new(request, &message, payload).unwrap());
        soon(self.writer.flush()).await.unwrap();
    }

    pub async fn next(&mut self) -> (u32, Message, Bytes) {
        let frame = soon(self.reader.next()).await.unwrap().expect("another frame");
        (frame.request, frame.whole_message().unwrap().0, frame.payload)
    }

    /// The next frame is a goodbye with this code, and nothing follows.
    pub async fn expect_goodbye(&mut self, code: ErrorCode) {
        let (request, message, _) = self.next().await;
        assert_eq!(request, 0);
        match message {
            Message::Goodbye { code: found, .. } => assert_eq!(ErrorCode::from_u16(found), code),
            other => panic!("{other:?}"),
        }
        assert!(matches!(soon(self.reader.next()).await, Ok(None)));
    }
}

/// Different ids on every call, in one process.
pub fn fresh_id() -> NodeId {
    static NEXT: std::sync::Mutex<Option<IdSource>> = std::sync::Mutex::new(None);
    NEXT.lock().unwrap().get_or_insert_with(|| IdSource::new([9; 32])).node()
}

pub fn folder(name: &str) -> Change {
    let name = Name::new(name.as_bytes()).unwrap();
    let state = NodeState { parent: NodeId::ROOT, name, kind: Kind::Folder };
    Change { id: fresh_id(), base: Seq::ZERO, state: Some(state) }
}

/// A file of one block, which must be sent too.
pub fn file(name: &str, block: &Block) -> Change {
    let root = Root { params: 1, level: 0, hash: block.hash() };
    let content = FileContent { size: block.bytes().len() as u64, root };
    let kind = Kind::File { content, mtime_ns: 5, exec: false };
    let state = NodeState { parent: NodeId::ROOT, name: Name::new(name.as_bytes()).unwrap(), kind };
    Change { id: fresh_id(), base: Seq::ZERO, state: Some(state) }
}

pub fn delete(change: &Change, base: Seq) -> Change {
    Change { id: change.id, base, state: None }
}

/// Bytes that do not compress, different for each seed.
pub fn random(seed: u8, len: usize) -> Block {
    let mut bytes = vec![0; len];
    hash::expand(&[seed; 32], 0, &mut bytes);
    Block::new(bytes.into())
}

pub fn seal(block: &Block) -> SealedBlock {
    Sealer::new(1).seal(block).into_sealed()
}

/// A journal that fails on demand: 1 = not durable, 2 = panics.
pub struct Faulty {
    pub store: MemoryStore,
    pub fault: AtomicU8,
}

impl Journal for Faulty {
    fn open_share(&self, name: &str) -> BoxFuture<'_, storage::Result<(ShareId, storage::Head)>> {
        self.store.open_share(name)
    }
    fn commit(&self, request: CommitRequest) -> BoxFuture<'_, storage::Result<storage::Committed>> {
        match self.fault.load(Ordering::SeqCst) {
            1 => Box::pin(async { Err(StorageError::Failed(Arc::new(StorageError::Closed))) }),
            2 => panic!("a fault on purpose"),
            _ => self.store.commit(request),
        }
    }
    fn read_since(
        &self,
        share: ShareId,
        after: storage::Position,
        nodes_max: usize,
        with_tombstones: bool,
    ) -> BoxFuture<'_, storage::Result<storage::Page>> {
        self.store.read_since(share, after, nodes_max, with_tombstones)
    }
    fn head(&self, share: ShareId) -> storage::Head {
        self.store.head(share)
    }
    fn knows(
        &self,
        share: ShareId,
        journal: JournalId,
        seq: Seq,
        chain: ChainHash,
    ) -> BoxFuture<'_, storage::Result<bool>> {
        self.store.knows(share, journal, seq, chain)
    }
    fn watch(&self) -> tokio::sync::broadcast::Receiver<Arc<CommitEvent>> {
        self.store.watch()
    }
}
