//! A connection against servers that lie, stay silent or go away.

use super::*;
use crate::model::{ChainHash, DeviceId, JournalId, NodeId, SessionId, StoreId};
use crate::wire::handshake::{Auth, ServerLimits};
use crate::wire::message::Bitmap;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

/// A server that says what a test tells it to.
struct Script {
    reader: FrameReader<ReadHalf<DuplexStream>>,
    writer: FrameWriter<WriteHalf<DuplexStream>>,
}

impl Script {
    async fn say(&mut self, request: u32, message: Message, payload: &[SealedBlock]) {
        self.writer.push(&EncodedFrame::new(request, &message, pack::encode(payload)).unwrap());
        // The client may have gone: that is what some tests are about.
        let _ = self.writer.flush().await;
    }

    async fn hear(&mut self) -> (u32, Message) {
        let frame = self.reader.next().await.unwrap().unwrap();
        (frame.request, frame.message().unwrap())
    }
}

fn head(seq: u64) -> Head {
    let journal = JournalId::from_bytes([1; 16]);
    Head { journal, seq: Seq(seq), chain: ChainHash::start(&[]) }
}

fn quick() -> Options {
    Options { ping_ms: 20, silence_ms_max: 60, ..Options::default() }
}

async fn connected(options: Options) -> (Connection, Pushes, Script) {
    let (near, far) = duplex(256 * 1024);
    let server = tokio::spawn(async move {
        let (reader, writer) = split(far);
        let mut script = Script {
            reader: FrameReader::new(reader, Arc::default()),
            writer: FrameWriter::new(writer, Arc::default()),
        };
        let (0, Message::Hello(_)) = script.hear().await else { panic!("no hello") };
        script.reader.admit_large_frames();
        let welcome = Welcome {
            proto: 1,
            features: 0,
            store: StoreId::from_bytes([1; 16]),
            session: SessionId::from_bytes([2; 16]),
            head: head(0),
            cursor_known: false,
            limits: ServerLimits {
                frame_bytes_max: 2 << 20,
                in_flight_bytes_max: 2 << 20,
                inline_bytes_max: 0,
            },
            auth: Auth::default(),
            extensions: Vec::new(),
        };
        script.say(0, Message::Welcome(Box::new(welcome)), &[]).await;
        script
    });
    let (reader, writer) = split(near);
    let hello = Hello::new(DeviceId::from_bytes([1; 16]), "a".into(), "b".into(), None);
    let (client, pushes) = Connection::open(reader, writer, hello, options, Arc::default()).await.unwrap();
    (client, pushes, server.await.unwrap())
}

fn raw(len: usize) -> SealedBlock {
    let plain_len = u32::try_from(len).unwrap();
    SealedBlock { codec: crate::block::Codec::Raw, plain_len, base: None, payload: vec![7; len].into() }
}

fn blocks(first: u32, count: usize, last: bool) -> Message {
    Message::Blocks { first, present: Bitmap::from_flags(&vec![true; count]), last }
}

#[tokio::test]
async fn a_silent_server_is_pinged_and_then_given_up_and_every_request_hears_why() {
    let (client, mut pushes, mut server) = connected(quick()).await;
    let waits = tokio::spawn({
        let client = client.clone();
        async move { client.missing(vec![BlockHash::of(b"")]).await }
    });
    assert!(matches!(server.hear().await, (1, Message::Have { .. })));
    assert!(matches!(server.hear().await, (2, Message::Ping)));
    assert_eq!(waits.await.unwrap().unwrap_err().code(), ErrorCode::Timeout);
    assert!(pushes.next().await.is_none());
    assert!(client.is_closed() && client.ping().await.is_err());
}

#[tokio::test]
async fn pongs_keep_an_idle_connection_open() {
    let (client, _pushes, mut server) = connected(quick()).await;
    for _ in 0..6 {
        let (request, Message::Ping) = server.hear().await else { panic!() };
        server.say(request, Message::Pong, &[]).await;
    }
    assert!(!client.is_closed());
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let (client, _pushes, mut server) = connected(Options::default()).await;
    let one = BlockHash::of(b"1");
    let asks = [1, 2, 3].map(|n| {
        let client = client.clone();
        tokio::spawn(async move { client.missing(vec![one; n]).await.unwrap().len() })
    });
    let mut heard = Vec::new();
    for _ in 0..3 {
        let (request, Message::Have { hashes }) = server.hear().await else { panic!() };
        heard.push((request, hashes.len()));
    }
    for (request, len) in heard.into_iter().rev() {
        server.say(request, Message::Missing { bitmap: Bitmap::from_flags(&vec![false; len]) }, &[]).await;
    }
    for (n, ask) in [1, 2, 3].into_iter().zip(asks) {
        assert_eq!(ask.await.unwrap(), n);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection_with_a_word() {
    let (client, _pushes, mut server) = connected(Options::default()).await;
    server.say(77, Message::Pong, &[]).await;
    assert_eq!(client.closed().await.code(), ErrorCode::Unexpected);
    let (0, Message::Goodbye { code, .. }) = server.hear().await else { panic!() };
    assert_eq!(ErrorCode::from_u16(code), ErrorCode::Unexpected);
}

#[tokio::test]
async fn a_refused_request_leaves_the_connection_open() {
    let (client, _pushes, mut server) = connected(Options::default()).await;
    let put = tokio::spawn({
        let client = client.clone();
        async move { client.put(&[raw(10)]).await }
    });
    let (request, Message::PutBlocks { count: 1 }) = server.hear().await else { panic!() };
    server.say(request, Message::failed(ErrorCode::Full, "full\u{1b}"), &[]).await;
    let error = put.await.unwrap().unwrap_err();
    assert!(matches!(&error, WireError::Failed { code: ErrorCode::Full, text } if !text.contains('\u{1b}')));
    assert!(!client.is_closed());
}

#[tokio::test]
async fn more_bytes_than_were_asked_for_end_the_connection() {
    let (client, _pushes, mut server) = connected(Options::default()).await;
    let mut want = client.want(vec![BlockHash::of(b"x"); 2], 1000).await.unwrap();
    let (request, _) = server.hear().await;
    server.say(request, blocks(0, 1, false), &[raw(900)]).await;
    assert_eq!(want.next().await.unwrap().unwrap().blocks.len(), 1);
    server.say(request, blocks(1, 1, true), &[raw(900)]).await;
    assert!(want.next().await.is_err());
    assert_eq!(client.closed().await.code(), ErrorCode::OverLimit);
}

#[tokio::test]
async fn an_answer_cut_short_by_the_end_is_never_taken_for_a_whole_one() {
    let (client, _pushes, mut server) = connected(Options::default()).await;
    let mut want = client.want(vec![BlockHash::of(b"x"); 2], 1000).await.unwrap();
    let (request, _) = server.hear().await;
    server.say(request, blocks(0, 1, false), &[raw(100)]).await;
    drop(server);
    assert!(want.next().await.unwrap().is_some());
    assert!(want.next().await.is_err());
}

#[tokio::test]
async fn a_client_that_ignores_its_pushes_still_gets_answers_and_then_reads_that_it_is_behind() {
    let (client, mut pushes, mut server) = connected(Options::default()).await;
    let ping = tokio::spawn({
        let client = client.clone();
        async move { client.ping().await }
    });
    let (request, Message::Ping) = server.hear().await else { panic!() };
    for seq in 0..2000 {
        let node = Node { id: NodeId::from_bytes([1; 16]), version: Seq(seq + 1), state: None };
        server.say(0, Message::Changed { prev: Seq(seq), head: head(seq + 1), nodes: vec![node] }, &[]).await;
    }
    server.say(request, Message::Pong, &[]).await;
    ping.await.unwrap().unwrap();
    for seq in 0..1024 {
        let Some(Push::Changed { prev, .. }) = pushes.next().await else { panic!() };
        assert_eq!(prev, Seq(seq));
    }
    assert!(matches!(pushes.next().await, Some(Push::Behind)));
}

#[tokio::test]
async fn no_more_bytes_are_under_way_than_the_server_takes() {
    let (client, _pushes, mut server) = connected(Options::default()).await;
    let puts: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.put(&[raw(200_000), raw(200_000), raw(200_000)]).await })
        })
        .collect();
    let mut heard = Vec::new();
    while let Ok((request, _)) = tokio::time::timeout(Duration::from_millis(200), server.hear()).await {
        heard.push(request);
    }
    assert_eq!(heard.len(), 3, "three times 600 kB are below 2 MiB");
    for _ in 0..8 {
        if heard.is_empty() {
            heard.push(server.hear().await.0);
        }
        server.say(heard.remove(0), Message::Stored { count: 3 }, &[]).await;
    }
    for put in puts {
        put.await.unwrap().unwrap();
    }
}
