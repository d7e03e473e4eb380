//! One function per decoder of bytes that somebody else may have written: a peer, or whoever had the disk. None may panic, take more
//! memory than its bounds say, or take two different things for one. Called by the targets of libFuzzer beside this file, and,
//! with the committed samples, by `tests/fuzz_corpus.rs`.

#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use dropblock::auth::{Fingerprint, Invite, Secret};
use dropblock::block::{SealedBlock, pack, patch, seal};
use dropblock::manifest::ManifestNode;
use dropblock::model::{BlockHash, codec, limits, record};
use dropblock::wire::{Frame, FrameReader, Message, opening};
use dropblock::{folder, server, storage};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A decoder, fed with any bytes.
pub type Decoder = fn(&[u8]);

/// All of them, by the names of their targets.
pub const DECODERS: [(&str, Decoder); 13] = [
    ("frame", frame),
    ("message", message),
    ("opening", opening),
    ("pack", pack),
    ("block", block),
    ("patch", patch),
    ("manifest", manifest),
    ("record", record),
    ("journal", journal),
    ("packfile", packfile),
    ("state", state),
    ("store", store),
    ("invite", invite),
];

/// The frames of a stream, as both ends cut them.
fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut reader = FrameReader::new(bytes, Arc::default());
    let mut found = Vec::new();
    loop {
        // The bytes are all here: it never waits.
        let next = match pin!(reader.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => next,
            Poll::Pending => unreachable!("a slice is always ready"),
        };
        match next {
            Ok(Some(frame)) => found.push(frame),
            Ok(None) | Err(_) => return found,
        }
        reader.admit_large_frames();
    }
}

pub fn frame(bytes: &[u8]) {
    for frame in frames(bytes) {
        assert!(frame.wire_bytes() <= limits::FRAME_BYTES_MAX + 4);
        let _ = frame.message();
        if let Ok((message, counted)) = frame.whole_message() {
            assert!(counted <= 2 * limits::FRAME_BYTES_MAX);
            assert!(frame.payload.is_empty() || message.may_carry_blocks());
        }
    }
}

pub fn message(bytes: &[u8]) {
    let Ok(message) = codec::decode::<Message>(bytes) else { return };
    if message.validate().is_ok() {
        let again = codec::encode(&message).unwrap();
        assert_eq!(codec::decode::<Message>(&again).unwrap(), message);
    }
}

pub fn opening(bytes: &[u8]) {
    for frame in frames(bytes) {
        if opening::is_knock(&frame) {
            let _ = opening::read_knock(&frame);
        }
        let _ = opening::read_challenge(&frame);
    }
}

/// Opens what stands alone, and what has a base against some bytes.
fn open(sealed: &SealedBlock) {
    let base = [7; 1000];
    if let Ok(block) = seal::open(sealed, Some(&base)) {
        assert_eq!(block.bytes().len(), usize::try_from(sealed.plain_len).unwrap());
        assert!(block.bytes().len() <= limits::BLOCK_BYTES_MAX);
        assert_eq!(block.hash(), BlockHash::of(block.bytes()));
    }
    let _ = (sealed.bases(), seal::open(sealed, None));
}

pub fn pack(bytes: &[u8]) {
    let Ok(blocks) = pack::decode(Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!(pack::encode(&blocks).concat(), bytes);
    // Enough to see into each kind.
    blocks.iter().take(8).for_each(open);
}

/// The codec, the declared length, and the payload.
pub fn block(bytes: &[u8]) {
    let Some((head, payload)) = bytes.split_first_chunk::<4>() else { return };
    let Ok(codec) = dropblock::block::Codec::from_code(head[0] % 4) else { return };
    let plain_len = u32::from_le_bytes([head[1], head[2], head[3] % 8, 0]);
    let base = (codec == dropblock::block::Codec::ZstdBase).then_some(BlockHash::NONE);
    open(&SealedBlock { codec, plain_len, base, payload: Bytes::copy_from_slice(payload) });
    let _ = seal::grow(payload, usize::try_from(plain_len).unwrap());
}

pub fn patch(bytes: &[u8]) {
    let Some((length, payload)) = bytes.split_first_chunk::<3>() else { return };
    let plain_len = usize::try_from(u32::from_le_bytes([length[0], length[1], length[2] % 8, 0])).unwrap();
    let payload = Bytes::copy_from_slice(payload);
    let _ = patch::bases(&payload);
    if let Ok(patch) = patch::Patch::decode(&payload, plain_len) {
        let again = patch::Patch::decode(&patch.encode(), plain_len).unwrap();
        assert_eq!(again.encode(), patch.encode());
        assert!(patch.new_bytes(plain_len) <= plain_len);
    }
}

pub fn manifest(bytes: &[u8]) {
    if let Ok(node) = ManifestNode::decode(bytes) {
        assert_eq!(node.encode(), bytes);
        assert!(node.entries().len() <= limits::MANIFEST_ENTRIES_MAX);
    }
}

pub fn record(bytes: &[u8]) {
    let mut rest = bytes;
    while let record::Parsed::Record { payload, bytes } = record::parse(rest) {
        assert!(payload.len() <= record::RECORD_BYTES_MAX && bytes > payload.len());
        rest = &rest[bytes..];
    }
    let mut framed = Vec::new();
    record::append(&mut framed, bytes).unwrap();
    assert_eq!(record::parse(&framed), record::Parsed::Record { payload: bytes, bytes: framed.len() });
}

pub fn journal(bytes: &[u8]) {
    storage::probe::commit(bytes);
}

pub fn packfile(bytes: &[u8]) {
    storage::probe::pack_record(bytes);
}

/// As a whole file, and as the payload of one record whose checksum is right.
pub fn state(bytes: &[u8]) {
    folder::probe::state(bytes);
    let mut file = b"dbxstate\x01\0\0\0\0\0\0\0".to_vec();
    record::append(&mut file, bytes).unwrap();
    folder::probe::state(&file);
}

/// `store.toml`, and the book of devices.
pub fn store(bytes: &[u8]) {
    storage::probe::store_file(bytes);
    server::devices::probe(bytes);
}

/// Lines that people paste, and that stand in small files.
pub fn invite(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(invite) = Invite::parse(&text) {
        let again = Invite::parse(&invite.to_line()).unwrap();
        assert_eq!(again.to_line(), invite.to_line());
    }
    let _ = (Fingerprint::parse(&text), Secret::from_text(&text));
}
