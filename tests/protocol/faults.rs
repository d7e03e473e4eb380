//! Stores that fail, sessions that panic, clients that never read.

use super::support::*;
use dropblock::block::pack;
use dropblock::server::ServerError;
use dropblock::storage::MemoryStore;
use dropblock::wire::{ErrorCode, Message, WireError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

async fn start_faulty() -> (Running, Arc<Faulty>) {
    let journal = Arc::new(Faulty { store: MemoryStore::new([7; 32]), fault: AtomicU8::new(0) });
    (start_with(config(), Arc::new(MemoryStore::new([7; 32])), journal.clone()).await, journal)
}

#[tokio::test]
async fn a_store_that_is_not_durable_ends_the_server_and_nothing_is_acknowledged() {
    let (server, journal) = start_faulty().await;
    let (client, _pushes) = server.connect().await;
    client.commit(vec![folder("a")], &[]).await.unwrap();
    journal.fault.store(1, Ordering::SeqCst);
    let lost = soon(client.commit(vec![folder("b")], &[])).await.unwrap_err();
    assert!(lost.is_retryable(), "{lost}");
    assert!(matches!(soon(server.task).await.unwrap(), Err(ServerError::Storage(_))));
}

#[tokio::test]
async fn a_panic_in_one_session_ends_that_session_only() {
    let (server, journal) = start_faulty().await;
    let (healthy, _pushes) = server.connect().await;
    let (client, _pushes) = server.connect().await;
    journal.fault.store(2, Ordering::SeqCst);
    let lost = soon(client.commit(vec![folder("a")], &[])).await.unwrap_err();
    assert_eq!(lost.code(), ErrorCode::Internal);
    journal.fault.store(0, Ordering::SeqCst);
    healthy.commit(vec![folder("b")], &[]).await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn stopping_answers_what_is_under_way_and_takes_less_than_five_seconds() {
    let server = start(config()).await;
    let (mut raw, _) = server.raw().await;
    let blocks: Vec<_> = (0..16).map(|i| seal(&random(i, 60_000))).collect();
    for request in 1..=8 {
        raw.send_with(request, Message::PutBlocks { count: 16 }, pack::encode(&blocks)).await;
    }
    raw.send(9, Message::Commit { changes: vec![folder("a")] }).await;
    // The first answer shows that the session has taken up work.
    let (first, Message::Stored { .. }, _) = raw.next().await else { panic!() };
    let begun = Instant::now();
    let stopped = tokio::spawn(server.stop());
    let mut answered = vec![first];
    loop {
        match raw.next().await {
            (0, Message::Goodbye { code, .. }, _) => {
                assert_eq!(ErrorCode::from_u16(code), ErrorCode::ShuttingDown);
                break;
            }
            (request, Message::Stored { .. } | Message::Committed { .. }, _) => answered.push(request),
            other => panic!("{other:?}"),
        }
    }
    drop(raw);
    stopped.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Requests are taken in order: whatever was begun was answered, the rest was never begun.
    answered.sort_unstable();
    assert_eq!(answered, (1..).take(answered.len()).collect::<Vec<u32>>());
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_hold_up_the_stop() {
    let server = start(config()).await;
    let (mut raw, _) = server.raw().await;
    let blocks: Vec<_> = (0..16).map(|i| random(i, 60_000)).collect();
    let sealed: Vec<_> = blocks.iter().map(seal).collect();
    raw.send_with(1, Message::PutBlocks { count: 16 }, pack::encode(&sealed)).await;
    raw.next().await;
    let hashes: Vec<_> = (0..4096).map(|i| blocks[i % 16].hash()).collect();
    for request in 2..6 {
        raw.send(request, Message::WantBlocks { hashes: hashes.clone(), bases: vec![] }).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    server.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn everyone_who_waits_learns_that_the_server_went_away() {
    let server = start(config()).await;
    let (client, mut pushes) = server.connect().await;
    client.ping().await.unwrap();
    server.stop().await.unwrap();
    let reason = soon(client.closed()).await;
    assert_eq!(reason.code(), ErrorCode::ShuttingDown);
    assert!(soon(pushes.next()).await.is_none());
    let lost = client.ping().await.unwrap_err();
    assert!(matches!(lost, WireError::Lost(_)) && lost.is_retryable());
}

#[tokio::test]
async fn a_message_over_its_bounds_ends_the_session_with_its_code() {
    let server = start(config()).await;
    let (mut raw, _) = server.raw().await;
    // Poll with nodes_max 0, by hand: this end would refuse to encode it.
    let mut bytes = 13u32.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 0]);
    let (reader, mut writer) = dropblock::wire::tcp::dial(server.address).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let head = dropblock::model::codec::encode(&Message::Hello(Box::new(hello()))).unwrap();
    let head_len = u32::try_from(head.len()).unwrap();
    let mut opening = (8 + head_len).to_le_bytes().to_vec();
    opening.extend_from_slice(&0u32.to_le_bytes());
    opening.extend_from_slice(&head_len.to_le_bytes());
    opening.extend_from_slice(&head);
    opening.extend_from_slice(&bytes);
    writer.write_all(&opening).await.unwrap();
    let mut answer = Vec::new();
    let mut reader = reader;
    soon(reader.read_to_end(&mut answer)).await.unwrap();
    let welcome_len = u32::from_le_bytes(answer[..4].try_into().unwrap()) as usize + 4;
    assert_eq!(answer[welcome_len + 12..welcome_len + 14], [2, 3], "Goodbye, OverLimit");
    raw.send(1, Message::Ping).await;
    assert!(matches!(raw.next().await, (1, Message::Pong, _)));
}
