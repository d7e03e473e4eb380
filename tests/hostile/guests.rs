//! Clients that abuse a real server: what breaks a rule ends its own session, what is merely greedy waits for itself, and
//! the others sync meanwhile.

use crate::guest::{Guest, PATIENCE, dialer};
use crate::liar::{file, folder, id, random, say, seal};
use crate::support::process::Running;
use crate::support::world::World;
use bytes::Bytes;
use dropblock::block::{Block, Codec, SealedBlock, pack};
use dropblock::model::{BlockHash, Change, Node, NodeId, Seq};
use dropblock::wire::message::Bitmap;
use dropblock::wire::opening::{self, Knock};
use dropblock::wire::{FrameWriter, Message, Position};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// What one session may hold in the server: its requests under way, its answers that wait, its buffers.
const SESSION_BYTES_MAX: u64 = (16 + 8 + 8) << 20;

fn memory(server: &Running) -> u64 {
    server.memory_bytes_max().unwrap()
}

fn change(word: &str, state: dropblock::model::NodeState) -> Change {
    Change { id: id(word), base: Seq::ZERO, state: Some(state) }
}

fn put(blocks: &[SealedBlock]) -> (Message, Vec<u8>) {
    (Message::PutBlocks { count: u32::try_from(blocks.len()).unwrap() }, pack::encode(blocks).concat())
}

/// Every way to break a rule that one frame has.
fn offences() -> BTreeMap<&'static str, Vec<u8>> {
    let mut bad = BTreeMap::new();
    let length = |n: u32| n.to_le_bytes().to_vec();
    let head = |bytes: &[u8]| crate::liar::frame(1, bytes, &[]);
    let list = |variant: u8, count: u64| {
        let mut bytes = vec![variant, 253];
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes
    };
    bad.insert("a frame of 4 GiB", length(u32::MAX));
    bad.insert("a frame one byte too long", length((2 << 20) + 1));
    bad.insert("a frame that is too short", [length(7), vec![0; 7]].concat());
    bad.insert("a head longer than its frame", [length(8), length(1), length(u32::MAX)].concat());
    bad.insert("no such message", head(&[200]));
    bad.insert("no message at all", head(&[]));
    bad.insert("bytes after a message", head(&[3, 0]));
    for variant in [8u8, 10, 14, 20, 26] {
        let what = ["changes", "hashes", "wants", "a path", "shrunk bytes"][usize::from(variant % 5)];
        let _ = bad.insert(what, head(&list(variant, 1 << 62)));
    }
    bad.insert(
        "more hashes than allowed",
        say(1, &Message::Have { hashes: vec![BlockHash::NONE; 4097] }, &[]),
    );
    bad.insert("no hashes", say(1, &Message::Have { hashes: vec![] }, &[]));
    let bases = Message::WantBlocks { hashes: vec![BlockHash::NONE; 2], bases: vec![BlockHash::NONE] };
    bad.insert("bases that do not pair", say(1, &bases, &[]));
    let poll = Message::Poll { after: Position::START, nodes_max: u32::MAX, tombstones_after: Seq::ZERO };
    bad.insert("a page of everything", say(1, &poll, &[]));
    bad.insert("no changes", say(1, &Message::Commit { changes: vec![] }, &[]));
    let many = (0..2049).map(|n| change(&n.to_string(), folder(NodeId::ROOT, "x"))).collect();
    bad.insert("too many changes", say(1, &Message::Commit { changes: many }, &[]));
    bad.insert("a request without an id", say(0, &Message::Ping, &[]));
    bad.insert("blocks where none belong", say(1, &Message::Ping, &[0; 100]));
    let (message, payload) = put(&[seal(&random(1, 100))]);
    bad.insert("a pack that ends early", say(1, &message, &payload[..50]));
    bad.insert("fewer blocks than said", say(1, &Message::PutBlocks { count: 2 }, &payload));
    let zeros = seal(&Block::new(vec![0; 256 << 10].into()));
    let (message, payload) = put(&vec![zeros; 65]);
    bad.insert("more plain bytes than allowed", say(1, &message, &payload));
    bad.insert("no blocks", say(1, &Message::PutBlocks { count: 0 }, &[]));
    let garbage =
        SealedBlock { codec: Codec::Zstd, plain_len: 9000, base: None, payload: vec![7; 100].into() };
    bad.insert("what does not unpack", say(1, &put(&[]).0, &pack::encode(&[garbage]).concat()));
    let bomb: Bytes = zstd::bulk::compress(&vec![0; 256 << 20], 3).unwrap().into();
    let bombs: Vec<_> = (0..40)
        .map(|_| SealedBlock { codec: Codec::Zstd, plain_len: 262_144, base: None, payload: bomb.clone() })
        .collect();
    let (message, payload) = put(&bombs);
    bad.insert("bombs", say(1, &message, &payload));
    let shrunk = Message::Shrunk { len: 2 << 20, bytes: bomb.to_vec() };
    bad.insert("a message that is a bomb", say(1, &shrunk, &[]));
    let ping = zstd::bulk::compress(&dropblock::model::codec::encode(&shrunk).unwrap(), 1).unwrap();
    bad.insert("a short message in another", say(1, &Message::Shrunk { len: 1 << 20, bytes: ping }, &[]));
    for answer in [
        Message::Pong,
        Message::Behind,
        Message::Stored { count: 1 },
        Message::Missing { bitmap: Bitmap::from_flags(&[true]) },
        Message::Wanted { hashes: vec![BlockHash::NONE] },
    ] {
        bad.insert(answer.name(), say(1, &answer, &[]));
    }
    let node = Node { id: id("n"), version: Seq(1), state: None };
    let page = Message::Changes { nodes: vec![node], next: Position::START, complete: true, head: None };
    bad.insert("a page", say(1, &page, &[]));
    bad
}

#[test]
fn what_breaks_a_rule_ends_its_own_session_and_takes_no_memory() {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("x", "1");
    world.sync(&a);
    let (addr, before) = (world.addr(), memory(&world.server().process));
    let dialer = dialer(&world, 40);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut witness = Guest::open(&dialer, addr).await;
        for (what, bytes) in offences() {
            let mut guest = Guest::open(&dialer, addr).await;
            guest.send_bytes(&bytes).await;
            let code = guest.goodbye().await;
            // A frame of which only the length came is refused by its length alone.
            assert!(code.is_some_and(|code| code != 0 && code != 15), "{what}: {code:?}");
            witness.send(1, &Message::Ping, &[]).await;
            assert!(matches!(witness.next().await, Some((1, Message::Pong, _))), "{what}");
        }
    });
    let after = memory(&world.server().process);
    assert!(after < before + SESSION_BYTES_MAX, "{before} then {after}");
    world.sync(&a);
}

/// A block is what its bytes are: whoever sends others has stored others, and a change that names what is not there is
/// refused.
#[test]
fn a_block_cannot_be_stored_under_the_name_of_another() {
    let world = World::new();
    let dialer = dialer(&world, 40);
    let (good, bad) = (random(1, 5000), random(2, 5000));
    Runtime::new().unwrap().block_on(async {
        let mut guest = Guest::open(&dialer, world.addr()).await;
        let (message, payload) = put(&[seal(&bad)]);
        guest.send(1, &message, &payload).await;
        assert!(matches!(guest.next().await, Some((1, Message::Stored { count: 1 }, _))));
        let commit = Message::Commit { changes: vec![change("f", file(NodeId::ROOT, "f", &good))] };
        // Also with others than it names inside the commit.
        for payload in [vec![], pack::encode(&[seal(&bad)]).concat()] {
            guest.send(2, &commit, &payload).await;
            match guest.next().await {
                Some((2, Message::Committed { refused, .. }, _)) => assert_eq!(refused.len(), 1),
                other => panic!("{other:?}"),
            }
        }
    });
    let a = world.folder("a");
    world.sync(&a);
    assert_eq!(a.tree().names(), Vec::<String>::new());
}

/// Sends pings without reading an answer, as many as the server takes.
async fn deaf(mut guest: Guest, stop: Arc<AtomicBool>) {
    let pings: Vec<u8> = (1..2000u32).flat_map(|n| say(n, &Message::Ping, &[])).collect();
    while !stop.load(Ordering::Relaxed) {
        let sent =
            tokio::time::timeout(std::time::Duration::from_millis(100), guest.writer.write_all(&pings));
        if matches!(sent.await, Ok(Err(_))) {
            return;
        }
    }
}

/// Asks for large blocks over and over and reads nothing.
async fn hungry(mut guest: Guest, block: Block, stop: Arc<AtomicBool>) {
    let want = Message::WantBlocks { hashes: vec![block.hash(); 4096], bases: vec![] };
    let want: Vec<u8> = (1..4u32).flat_map(|n| say(n, &want, &[])).collect();
    while !stop.load(Ordering::Relaxed) {
        let sent = tokio::time::timeout(std::time::Duration::from_millis(100), guest.writer.write_all(&want));
        if matches!(sent.await, Ok(Err(_))) {
            return;
        }
    }
}

/// Half a frame, and nothing more.
async fn stuck(mut guest: Guest, stop: Arc<AtomicBool>) {
    let frame = say(1, &Message::PutBlocks { count: 1 }, &[0; 1 << 20]);
    guest.send_bytes(&frame[..frame.len() / 2]).await;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Puts new blocks without a pause; counts the answers.
async fn busy(mut guest: Guest, seed: u64, answers: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut request = 0u32;
    let mut under_way = 0;
    while !stop.load(Ordering::Relaxed) {
        while under_way < 8 {
            request += 1;
            let blocks: Vec<_> =
                (0..4).map(|n| seal(&random(seed + u64::from(request) * 4 + n, 200_000))).collect();
            let (message, payload) = put(&blocks);
            guest.send(request, &message, &payload).await;
            under_way += 1;
        }
        match guest.next().await {
            Some((_, Message::Stored { .. }, _)) => answers.fetch_add(1, Ordering::Relaxed),
            _ => return,
        };
        under_way -= 1;
    }
}

/// Strangers that knock, or begin with TLS, and then say nothing.
async fn idlers(addr: SocketAddr) -> Vec<TcpStream> {
    let mut writer = FrameWriter::new(Vec::new(), Arc::default());
    writer.push(&opening::knock(&Knock { proto: 1, nonce: [1; 32] }).unwrap());
    writer.flush().await.unwrap();
    let knock = writer.into_stream();
    let mut crowd = Vec::new();
    for number in 0..150 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let begun: &[u8] = if number % 2 == 0 { &knock } else { &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3] };
        let _ = stream.write_all(begun).await;
        crowd.push(stream);
    }
    crowd
}

#[test]
fn real_clients_sync_while_others_flood_stall_and_idle() {
    let mut world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    // Not cut: its hash is that of a stored block.
    let large = random(9, 64_000);
    a.write("large", large.bytes());
    world.sync(&a);
    let (addr, before) = (world.addr(), memory(&world.server().process));
    let dialer = dialer(&world, 40);
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let runtime = Runtime::new().unwrap();
    let guests = 2 * 4;
    let crowd = runtime.block_on(async {
        for seed in 0..guests / 4 {
            tokio::spawn(deaf(Guest::open(&dialer, addr).await, stop.clone()));
            tokio::spawn(hungry(Guest::open(&dialer, addr).await, large.clone(), stop.clone()));
            tokio::spawn(stuck(Guest::open(&dialer, addr).await, stop.clone()));
            let guest = Guest::open(&dialer, addr).await;
            tokio::spawn(busy(guest, 1000 + seed * 1_000_000, answers.clone(), stop.clone()));
        }
        idlers(addr).await
    });
    for round in 0..3 {
        a.write(format!("of-a-{round}"), format!("{round}"));
        b.write(format!("of-b-{round}"), crate::support::random_bytes(round + 7, 300_000));
        world.sync(&a);
        world.sync(&b);
        world.sync(&a);
        assert!(a.has(format!("of-b-{round}")) && b.has(format!("of-a-{round}")));
    }
    let after = memory(&world.server().process);
    stop.store(true, Ordering::Relaxed);
    assert!(answers.load(Ordering::Relaxed) > 0, "nobody was busy");
    let bound = guests * SESSION_BYTES_MAX + (64 << 20);
    assert!(after < before + bound, "{before} then {after}, at most {bound} more");
    drop(crowd);
    world.sync_all(&[&a, &b]);
}

/// While one client sends without a pause, each request of nine others waits for no more than what was under way before it.
#[test]
fn a_greedy_client_is_never_far_ahead_of_the_others() {
    let world = World::new();
    let dialer = dialer(&world, 40);
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    Runtime::new().unwrap().block_on(async {
        let greedy = Guest::open(&dialer, world.addr()).await;
        tokio::spawn(busy(greedy, 5, answers.clone(), stop.clone()));
        while answers.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut normal = Vec::new();
        for _ in 0..9 {
            normal.push(Guest::open(&dialer, world.addr()).await);
        }
        let mut worst = 0;
        for round in 1..=5u32 {
            for (number, guest) in normal.iter_mut().enumerate() {
                let block = random(u64::from(round) * 100 + number as u64, 2000);
                let word = format!("{number}-{round}");
                let changes = vec![change(&word, file(NodeId::ROOT, &word, &block))];
                let began = answers.load(Ordering::Relaxed);
                let payload = pack::encode(&[seal(&block)]).concat();
                guest.send(round, &Message::Commit { changes }, &payload).await;
                loop {
                    match guest.next().await {
                        Some((0, ..)) => {}
                        Some((_, Message::Committed { refused, .. }, _)) => {
                            break assert!(refused.is_empty());
                        }
                        other => panic!("{other:?}"),
                    }
                }
                worst = worst.max(answers.load(Ordering::Relaxed) - began);
            }
        }
        stop.store(true, Ordering::Relaxed);
        // Eight are under way at a time: those, and those that took their places.
        assert!(worst <= 32, "{worst} requests of the greedy one went before one of another");
    });
}

/// Whoever reads nothing has all of its requests standing still. That must not keep it in.
#[test]
fn a_device_that_does_not_listen_is_cut_off_as_soon_as_it_is_revoked() {
    let mut world = World::new();
    let a = world.folder("a");
    // Not cut: its hash is that of a stored block.
    let large = random(9, 64_000);
    a.write("large", large.bytes());
    world.sync(&a);
    let (addr, dialer) = (world.addr(), dialer(&world, 40));
    let listed =
        |world: &World| world.run(["devices", "--store", world.store().to_str().unwrap()]).code(0).stdout;
    Runtime::new().unwrap().block_on(async {
        let mut guest = Guest::open(&dialer, addr).await;
        let want = Message::WantBlocks { hashes: vec![large.hash(); 4096], bases: vec![] };
        // More than may be under way: the server stops reading.
        let flood: Vec<u8> = (1..300u32).flat_map(|n| say(n, &want, &[])).collect();
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), guest.writer.write_all(&flood)).await;
        let line = listed(&world);
        let line = line.lines().find(|line| line.contains("guest")).expect("it is listed").to_owned();
        let device = line.split_whitespace().next().unwrap().to_owned();
        world.run(["revoke", "--store", world.store().to_str().unwrap(), &device]).code(0);
        // Nothing is read until the server is done with it, which is seen by the log of the server alone.
        let _ = world.server();
        let ended = async {
            let mut byte = [0; 65536];
            let mut reader = guest.reader.into_stream().ok()?;
            loop {
                match tokio::io::AsyncReadExt::read(&mut reader, &mut byte).await {
                    Ok(0) | Err(_) => return Some(()),
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("still there");
    });
}
