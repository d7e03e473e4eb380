//! Many clients that only listen: what each costs a real server, and that all of them hear of a commit.
//!
//! `DROPBLOCK_CROWD=10000 cargo test --release --test hostile crowd -- --nocapture` for as many as one server is meant for; it
//! prints what they cost, and how long commits take beside ten and beside all of them. Both processes need a file each.

use crate::guest::{Guest, PATIENCE, dialer};
use crate::liar::{file, id, random, seal};
use crate::support::skipped;
use crate::support::world::World;
use dropblock::block::pack;
use dropblock::folder::fs::{open_files_max, raise_open_files};
use dropblock::model::{Change, NodeId, Seq};
use dropblock::wire::Message;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// What an idle client may cost the server, bytes, and what any number of them: 10,000 of them keep it below 256 MB.
const CLIENT_BYTES_MAX: u64 = 21_000;
const CROWD_BYTES_MAX: u64 = 10_000_000;
/// Commits that are timed.
const COMMITS: u32 = 200;

fn wanted() -> usize {
    std::env::var("DROPBLOCK_CROWD").ok().and_then(|count| count.parse().ok()).unwrap_or(1000)
}

/// What it holds now, bytes.
fn memory_now(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Commits one small file after the other; the median and the 99th percentile of the time until each is acknowledged.
async fn commits(guest: &mut Guest, word: &str) -> (Duration, Duration) {
    let mut took = Vec::new();
    for n in 0..COMMITS {
        let (block, name) = (random(u64::from(n), 100), format!("{word}-{n}"));
        let state = Some(file(NodeId::ROOT, &name, &block));
        let changes = vec![Change { id: id(&name), base: Seq::ZERO, state }];
        let start = Instant::now();
        guest.send(n + 1, &Message::Commit { changes }, &pack::encode(&[seal(&block)]).concat()).await;
        loop {
            match guest.next().await {
                Some((0, ..)) => {}
                Some((_, Message::Committed { refused, .. }, _)) => break assert!(refused.is_empty()),
                other => panic!("{other:?}"),
            }
        }
        took.push(start.elapsed());
    }
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

#[test]
fn a_thousand_idle_clients_cost_kilobytes_each_and_hear_of_every_commit() {
    let count = wanted();
    raise_open_files(count as u64 + 500);
    if open_files_max() < count as u64 + 500 {
        return skipped("needs a higher limit of open files");
    }
    let mut world = World::new();
    let addr = world.addr();
    let pid = world.server().process.pid();
    Runtime::new().unwrap().block_on(async {
        let mut talker = Guest::open(&dialer(&world, 40), addr).await;
        let alone = commits(&mut talker, "alone").await;
        let before = memory_now(pid);
        let heard = Arc::new(AtomicUsize::new(0));
        for number in 0..count {
            let device = dialer(&world, 1_000 + number);
            let Guest { mut reader, writer } = Guest::open(&device, addr).await;
            let heard = heard.clone();
            tokio::spawn(async move {
                // Open for as long as it listens.
                let _writer = writer;
                while let Ok(Ok(Some(frame))) = tokio::time::timeout(PATIENCE, reader.next()).await {
                    if matches!(frame.whole_message().unwrap().0, Message::Changed { .. }) {
                        heard.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let all = memory_now(pid).saturating_sub(before);
        let (each, max) = (all / count as u64, CROWD_BYTES_MAX + CLIENT_BYTES_MAX * count as u64);
        assert!(all <= max, "{count} idle clients cost the server {all} bytes");
        let beside = commits(&mut talker, "beside").await;
        let deadline = Instant::now() + PATIENCE;
        // A client that is behind is told so once, instead of every commit.
        while heard.load(Ordering::Relaxed) < count * COMMITS as usize {
            assert!(Instant::now() < deadline, "{} pushes arrived", heard.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        eprintln!(
            "{count} idle clients: {each} bytes each, {} MB in all; a commit takes {:.1?} (p99 {:.1?}) alone, {:.1?} ({:.1?}) with them",
            memory_now(pid) / 1_000_000, alone.0, alone.1, beside.0, beside.1
        );
    });
}
