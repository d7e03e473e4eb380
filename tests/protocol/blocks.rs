//! Have, put and want: blocks both ways, good and bad.

use super::support::*;
use bytes::Bytes;
use dropblock::block::{Block, Codec, SealedBlock, Sealer, pack, seal as seals};
use dropblock::model::BlockHash;
use dropblock::wire::{ErrorCode, Message};

#[tokio::test]
async fn blocks_put_are_no_longer_missing_and_come_back_in_parts_and_in_order() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let blocks: Vec<_> = (0..100).map(|i| random(i, 60_000)).collect();
    let mut hashes: Vec<_> = blocks.iter().map(Block::hash).collect();
    assert_eq!(client.missing(hashes.clone()).await.unwrap(), [true; 100]);
    let mut packer = pack::Packer::default();
    for block in &blocks {
        if let Some(full) = packer.push(seal(block)) {
            client.put(&full).await.unwrap();
        }
    }
    client.put(&packer.take()).await.unwrap();
    assert_eq!(client.missing(hashes.clone()).await.unwrap(), [false; 100]);

    hashes.insert(50, BlockHash::of(b"not there"));
    let mut want = client.want(hashes.clone(), 100 * 60_000).await.unwrap();
    let (mut found, mut parts) = (Vec::new(), 0);
    while let Some(part) = want.next().await.unwrap() {
        assert_eq!(part.first, found.len());
        found.extend(part.blocks);
        parts += 1;
    }
    assert!(parts >= 5, "one part is about a MiB");
    let opened: Vec<_> =
        found.iter().map(|b| b.as_ref().map(|b| seals::open(b, None).unwrap().hash())).collect();
    let expected: Vec<_> = hashes.iter().enumerate().map(|(i, h)| (i != 50).then_some(*h)).collect();
    assert_eq!(opened, expected);
}

#[tokio::test]
async fn many_wants_at_once_are_each_answered_whole() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let blocks: Vec<_> = (0..40).map(|i| random(i, 20_000)).collect();
    client.put(&blocks.iter().map(seal).collect::<Vec<_>>()).await.unwrap();
    let asks = (0..20).map(|i| {
        let (client, hashes) =
            (client.clone(), blocks[i..i + 20].iter().map(Block::hash).collect::<Vec<_>>());
        tokio::spawn(async move {
            let found = client.want(hashes.clone(), 20 * 20_000).await.unwrap().all().await.unwrap();
            let opened: Vec<_> =
                found.iter().map(|b| seals::open(b.as_ref().unwrap(), None).unwrap().hash()).collect();
            assert_eq!(opened, hashes);
        })
    });
    for ask in asks.collect::<Vec<_>>() {
        soon(ask).await.unwrap();
    }
}

#[tokio::test]
async fn a_want_that_was_dropped_does_not_disturb_the_next() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let blocks: Vec<_> = (0..40).map(|i| random(i, 50_000)).collect();
    for group in blocks.chunks(20) {
        client.put(&group.iter().map(seal).collect::<Vec<_>>()).await.unwrap();
    }
    let hashes: Vec<_> = blocks.iter().map(Block::hash).collect();
    for _ in 0..30 {
        let mut want = soon(client.want(hashes.clone(), 40 * 50_000)).await.unwrap();
        want.next().await.unwrap().unwrap();
    }
    assert_eq!(client.want(hashes, 40 * 50_000).await.unwrap().all().await.unwrap().len(), 40);
}

#[tokio::test]
async fn a_block_that_does_not_open_ends_the_session_and_is_not_stored() {
    let server = start(config()).await;
    let (healthy, _pushes) = server.connect().await;
    let (mut raw, _) = server.raw().await;
    let bad =
        SealedBlock { codec: Codec::Zstd, plain_len: 1000, base: None, payload: Bytes::from_static(b"junk") };
    raw.send_with(1, Message::PutBlocks { count: 1 }, pack::encode(&[bad])).await;
    raw.expect_goodbye(ErrorCode::BadBlock).await;
    let (mut raw, _) = server.raw().await;
    raw.send_with(1, Message::PutBlocks { count: 2 }, pack::encode(&[seal(&random(1, 10))])).await;
    raw.expect_goodbye(ErrorCode::Unexpected).await;
    healthy.ping().await.unwrap();
    assert_eq!(healthy.missing(vec![random(1, 10).hash()]).await.unwrap(), [true]);
}

#[tokio::test]
async fn a_block_sealed_against_a_base_is_taken_when_the_server_holds_the_base() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let base = random(1, 50_000);
    let mut edited = base.bytes().to_vec();
    edited[25_000] ^= 1;
    let edited = Block::new(edited.into());
    let delta = Sealer::new(1).seal_against(&edited, &base).unwrap().into_sealed();
    let refused = client.put(std::slice::from_ref(&delta)).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::BaseMissing);
    client.put(&[seal(&base)]).await.unwrap();
    client.put(&[delta]).await.unwrap();
    let found = client.want(vec![edited.hash()], 50_000).await.unwrap().all().await.unwrap();
    let found = found[0].as_ref().unwrap();
    assert_eq!(found.base, None, "what is stored stands alone");
    assert_eq!(seals::open(found, None).unwrap().hash(), edited.hash());
}
