//! Blocks against bases: patches in, deltas out, and what does not open.

use super::support::*;
use bytes::Bytes;
use dropblock::block::sketch::{self, Sketched};
use dropblock::block::{Block, Codec, SealedBlock, Sealer, pack, seal as seals};
use dropblock::model::BlockHash;
use dropblock::wire::handshake::features;
use dropblock::wire::{ErrorCode, Hello, Message, Push, WireError};

/// A block and a small edit of it.
pub fn edited(seed: u8) -> (Block, Block) {
    let old = random(seed, 50_000);
    let mut new = old.bytes().to_vec();
    new[25_000] ^= 1;
    (old, Block::new(new.into()))
}

/// The new block as a patch of the old one.
pub fn patch(new: &Block, old: &Block) -> SealedBlock {
    patch_of(new, &[old])
}

/// The new block as a patch of several.
pub fn patch_of(new: &Block, old: &[&Block]) -> SealedBlock {
    let sums = |block: &Block| {
        let mut sums = Vec::new();
        sketch::append(&mut sums, block.bytes(), 64);
        sums
    };
    let sums: Vec<Vec<u16>> = old.iter().map(|block| sums(block)).collect();
    let sketched: Vec<_> =
        old.iter().zip(&sums).map(|(block, sums)| Sketched { len: block.bytes().len(), sums }).collect();
    let shared = sketch::shared(new.bytes(), &sketched, 64);
    let bases: Vec<BlockHash> = old.iter().map(|block| block.hash()).collect();
    Sealer::new(1).seal_patch(new, &bases, &shared).unwrap().into_sealed()
}

#[tokio::test]
async fn a_patch_is_stored_alone_and_goes_to_those_who_hold_its_base() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let (old, new) = edited(1);
    client.put(&[seal(&old)]).await.unwrap();
    client.put(&[patch(&new, &old)]).await.unwrap();
    let plain = client.want(vec![new.hash()], 50_000).await.unwrap().all().await.unwrap();
    let plain = plain[0].as_ref().unwrap();
    assert!(plain.bases().unwrap().is_empty(), "who names no base gets none");
    assert_eq!(seals::open(plain, None).unwrap(), new);
    let want = client.want_against(vec![new.hash()], vec![old.hash()], 50_000).await.unwrap();
    let delta = want.all().await.unwrap().remove(0).unwrap();
    assert_eq!(delta, patch(&new, &old), "the same bytes that came");
    let other = client.want_against(vec![new.hash()], vec![BlockHash::of(b"other")], 50_000).await.unwrap();
    assert!(other.all().await.unwrap()[0].as_ref().unwrap().bases().unwrap().is_empty());
}

#[tokio::test]
async fn a_block_is_sealed_against_the_base_that_the_client_names() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let (old, new) = edited(2);
    let far = random(3, 40_000);
    client.put(&[seal(&old), seal(&new), seal(&far)]).await.unwrap();
    let hashes = vec![new.hash(), far.hash(), old.hash(), BlockHash::of(b"not there")];
    let bases = vec![old.hash(), old.hash(), BlockHash::NONE, old.hash()];
    let found = client.want_against(hashes, bases, 200_000).await.unwrap().all().await.unwrap();
    let delta = found[0].as_ref().unwrap();
    assert_eq!(delta.codec, Codec::ZstdBase);
    assert!(delta.payload.len() < 100, "{} bytes", delta.payload.len());
    assert_eq!(seals::open(delta, Some(old.bytes())).unwrap(), new);
    assert!(found[1].as_ref().unwrap().bases().unwrap().is_empty(), "a base that is of no use");
    assert!(found[2].as_ref().unwrap().bases().unwrap().is_empty());
    assert!(found[3].is_none());
}

#[tokio::test]
async fn what_does_not_open_with_its_base_is_named_and_the_rest_is_taken() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let (old, new) = edited(4);
    let (missing, of_missing) = edited(5);
    // A sketch that lies: the base that is named has another byte where the patch copies.
    let mut bytes = old.bytes().to_vec();
    bytes[10] ^= 1;
    let other = Block::new(bytes.into());
    let mut wrong = patch(&new, &old);
    let mut payload = wrong.payload.to_vec();
    payload[1..33].copy_from_slice(other.hash().as_bytes());
    wrong.payload = payload.into();
    client.put(&[seal(&other)]).await.unwrap();
    client.put(&[seal(&old)]).await.unwrap();
    let third = random(6, 1_000);
    let blocks = [wrong.clone(), patch(&of_missing, &missing), seal(&third)];
    match client.put(&blocks).await.unwrap_err() {
        WireError::Unopened { which } => assert_eq!(which, [true, true, false]),
        other => panic!("{other}"),
    }
    assert_eq!(client.missing(vec![third.hash(), new.hash()]).await.unwrap(), [false, true]);
    // In a commit nothing is taken.
    let change = file("x", &new);
    let refused = client.commit(vec![change.clone()], &[wrong]).await.unwrap_err();
    assert!(matches!(refused, WireError::Unopened { .. }));
    assert_eq!(refused.code(), ErrorCode::BaseMissing);
    let done = client.commit(vec![change], &[patch(&new, &old)]).await.unwrap();
    assert!(done.refused.is_empty() && done.head.seq.0 == 1);
}

#[tokio::test]
async fn a_push_carries_the_patch_to_those_who_know_it_and_the_block_to_others() {
    let server = start(config()).await;
    let (writer, _pushes) = server.connect().await;
    let (_reader, mut pushes) = server.connect().await;
    let (mut old_raw, _) = server.raw_with(Hello { features_optional: features::BASES, ..hello() }).await;
    let (old, new) = edited(7);
    writer.put(&[seal(&old)]).await.unwrap();
    let change = file("x", &new);
    writer.commit(vec![change], &[patch(&new, &old)]).await.unwrap();
    let Some(Push::Changed { blocks, .. }) = soon(pushes.next()).await else { panic!("no push") };
    assert_eq!(blocks, [patch(&new, &old)]);
    let (_, message, payload) = old_raw.next().await;
    assert!(matches!(message, Message::Changed { .. }));
    let blocks = pack::decode(payload).unwrap();
    assert_eq!(seals::open(&blocks[0], None).unwrap(), new);
}

#[tokio::test]
async fn a_few_bytes_that_make_gigabytes_are_refused() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let zeros = Block::new(Bytes::from(vec![0; 262_144]));
    client.put(&[seal(&zeros)]).await.unwrap();
    let mut sums = Vec::new();
    sketch::append(&mut sums, zeros.bytes(), 64);
    let mut near = zeros.bytes().to_vec();
    near[7] = 1;
    let near = Block::new(near.into());
    let one = Sealer::new(1).seal_against(&near, &zeros).unwrap().into_sealed();
    let refused = client.put(&vec![one; 100]).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::OverLimit);
    // The server goes on.
    let (client, _pushes) = server.connect().await;
    assert!(client.ping().await.is_ok());
}

#[tokio::test]
async fn a_message_made_shorter_has_no_place_without_the_feature_nor_in_another() {
    let server = start(config()).await;
    let inner =
        dropblock::model::codec::encode(&Message::Have { hashes: vec![BlockHash::NONE; 500] }).unwrap();
    let shrunk = |plain: &[u8]| Message::Shrunk {
        len: u32::try_from(plain.len()).unwrap(),
        bytes: seals::shrink(plain).unwrap().to_vec(),
    };
    let (mut raw, _) = server.raw_with(Hello { features_optional: features::BASES, ..hello() }).await;
    raw.send(1, shrunk(&inner)).await;
    raw.expect_goodbye(ErrorCode::Unexpected).await;
    let (mut raw, _) = server.raw().await;
    raw.send(1, shrunk(&inner)).await;
    assert!(matches!(raw.next().await, (1, Message::Missing { .. }, _)));
    let twice =
        dropblock::model::codec::encode(&Message::Shrunk { len: 60_000, bytes: vec![7; 5_000] }).unwrap();
    raw.send(2, shrunk(&twice)).await;
    raw.expect_goodbye(ErrorCode::Unexpected).await;
    let (mut raw, _) = server.raw().await;
    raw.send(1, Message::Shrunk { len: 2_000_000, bytes: seals::shrink(&inner).unwrap().to_vec() }).await;
    raw.expect_goodbye(ErrorCode::BadBlock).await;
}
