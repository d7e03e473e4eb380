//! What one device can make a real server hold, however many sessions it opens.

use crate::guest::{Guest, dialer};
use crate::liar::{folder, id, random, say, seal};
use crate::support::world::World;
use dropblock::block::pack;
use dropblock::model::{BlockHash, Change, Kind, NodeId, Seq, limits};
use dropblock::wire::{Message, Position};
use std::fs;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

/// Nearly all that one device may have.
const SESSIONS: usize = 60;

fn number(json: &str, name: &str) -> u64 {
    let (_, rest) = json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {json}"));
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn made_up_questions_keep_no_garbage_and_real_ones_are_named() {
    let mut world = World::new();
    let addr = world.addr();
    world.stop_server();
    fs::write(world.store().join("keep"), "keep_ms = \"0\"\n").unwrap();
    world.serve_again(addr);
    let a = world.folder("a");
    let (asked, other) = (random(1, 10_000), random(2, 12_000));
    for (name, block) in [("asked", &asked), ("other", &other)] {
        a.write(name, block.bytes());
    }
    world.sync(&a);
    a.remove("asked");
    a.remove("other");
    world.sync(&a);
    let gc = |world: &World, more: &[&str]| {
        let store = world.store().to_str().unwrap().to_owned();
        let args = ["gc", "--store", &store, "--grace", "0"];
        world.run(args.iter().chain(more).copied()).code(0).stdout
    };
    let dialer = dialer(&world, 40);
    Runtime::new().unwrap().block_on(async {
        let mut guest = Guest::open(&dialer, world.addr()).await;
        // More than the server would remember: in answers to these, everything is missing.
        for round in 0..270u64 {
            let made_up = |n: u64| {
                let mut bytes = [0x5a; 32];
                bytes[..8].copy_from_slice(&(round * 4096 + n).to_le_bytes());
                BlockHash::from_bytes(bytes)
            };
            guest.send(1, &Message::Have { hashes: (0..4096).map(made_up).collect() }, &[]).await;
            assert!(matches!(guest.next().await, Some((1, Message::Missing { .. }, _))));
        }
        guest.send(2, &Message::Have { hashes: vec![asked.hash()] }, &[]).await;
        let Some((2, Message::Missing { bitmap }, _)) = guest.next().await else { panic!("no answer") };
        assert_eq!(bitmap.count_ones(), 0, "it is still here");
        let done = gc(&world, &["--json"]);
        assert_eq!((number(&done, "leased_blocks"), number(&done, "deleted_blocks")), (1, 1), "{done}");
        let plan = gc(&world, &["--dry-run"]);
        assert!(plan.contains("in use    10"), "{plan}");
    });
}

/// A small request that waits must not keep alive the buffer in which it came behind a large one.
#[test]
fn small_requests_that_wait_behind_large_frames_hold_little() {
    let mut world = World::new();
    let a = world.folder("a");
    // Not cut: its hash is that of a stored block.
    let stored = random(3, 60_000);
    a.write("stored", stored.bytes());
    world.sync(&a);
    let dialer = dialer(&world, 40);
    let addr = world.addr();
    let before = world.server().process.memory_bytes_max().unwrap();
    let blocks: Vec<_> = (0..16).map(|n| seal(&random(10 + n, 64_000))).collect();
    Runtime::new().unwrap().block_on(async {
        let mut guest = Guest::open(&dialer, addr).await;
        // As many as are answered at a time: the small ones wait until these are, and of them little is read.
        let large = Message::WantBlocks { hashes: vec![stored.hash(); 4096], bases: vec![] };
        guest.send(1, &large, &[]).await;
        guest.send(2, &large, &[]).await;
        let put = say(3, &Message::PutBlocks { count: 16 }, &pack::encode(&blocks).concat());
        let small = say(4, &Message::WantBlocks { hashes: vec![stored.hash()], bases: vec![] }, &[]);
        let Guest { mut reader, mut writer } = guest;
        let reading = tokio::spawn(async move {
            while let Ok(Some(_)) = reader.next().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        for _ in 0..150 {
            writer.write_all(&[&put[..], &small].concat()).await.unwrap();
        }
        writer.flush().await.unwrap();
        reading.abort();
        let after = world.server().process.memory_bytes_max().unwrap();
        eprintln!("{before} B before, {after} B after");
        // 150 buffers would be 196 MiB.
        assert!(after < before + (100 << 20), "{before} then {after}");
    });
}

/// Does not shrink.
fn random_target(n: usize) -> Vec<u8> {
    let block = random(1000 + n as u64, 1900);
    block.bytes().iter().map(|byte| byte | 1).collect()
}

/// Links whose page in a poll is as long as a frame may be, about.
async fn long_page(guest: &mut Guest) {
    for round in 0..4 {
        let change = |n: usize| {
            let mut state = folder(NodeId::ROOT, &format!("{round}-{n}"));
            state.kind = Kind::Symlink { target: random_target(n), mtime_ns: 0 };
            Change { id: id(&format!("{round}-{n}")), base: Seq::ZERO, state: Some(state) }
        };
        let changes: Vec<Change> = (0..1000).map(change).collect();
        guest.send(1, &Message::Commit { changes }, &[]).await;
        assert!(matches!(guest.next().await, Some((1, Message::Committed { .. }, _))));
    }
}

#[test]
fn sessions_that_do_not_listen_or_stop_in_a_frame_hold_what_their_device_may_hold() {
    let mut world = World::new();
    let dialer = dialer(&world, 40);
    let addr = world.addr();
    let before = world.server().process.memory_bytes_max().unwrap();
    Runtime::new().unwrap().block_on(async {
        let mut first = Guest::open(&dialer, addr).await;
        long_page(&mut first).await;
        let mut crowd = Vec::new();
        for _ in 0..SESSIONS {
            crowd.push(Guest::open(&dialer, addr).await);
        }
        let start = Position { seq: Seq::ZERO, node: None };
        let nodes_max = u32::try_from(limits::NODES_PER_PAGE_MAX).unwrap();
        let poll = Message::Poll { after: start, nodes_max, tombstones_after: Seq::ZERO };
        let polls: Vec<u8> = (1..100u32).flat_map(|n| say(n, &poll, &[])).collect();
        let frame = say(1, &Message::PutBlocks { count: 1 }, &vec![0; limits::FRAME_BYTES_MAX - 64]);
        let begun = &frame[..frame.len() - 1000];
        for guest in &mut crowd {
            let _ = tokio::time::timeout(Duration::from_millis(100), guest.writer.write_all(&polls)).await;
        }
        let after_polls = world.server().process.memory_bytes_max().unwrap();
        for guest in &mut crowd {
            let _ = tokio::time::timeout(Duration::from_millis(100), guest.writer.write_all(begun)).await;
        }
        let after = world.server().process.memory_bytes_max().unwrap();
        eprintln!("{before} B before, {after_polls} B with pages that wait, {after} B with frames half here");
        // Answers 32 MiB, pages 64, frames 64.
        let bound = (32 + 64 + 64) << 20;
        assert!(after < before + bound, "{before} then {after_polls} then {after}, at most {bound} more");
        // Another device is served meanwhile.
        let mut other = Guest::open(&crate::guest::dialer(&world, 41), addr).await;
        other.send(1, &poll, &[]).await;
        assert!(matches!(other.next().await, Some((1, Message::Changes { .. }, _))));
    });
}
