//! The committed samples of every decoder, and what becomes of them by small damage, on the stable compiler: what fuzzing
//! has found stays found. `fuzz/run` looks for more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

#[path = "../fuzz/decoders.rs"]
mod decoders;
mod support;

use bytes::Bytes;
use decoders::DECODERS;
use dropblock::auth::{Fingerprint, Invite, InviteSecret};
use dropblock::block::{Block, Sealer, pack};
use dropblock::manifest::Builder;
use dropblock::model::past::Moment;
use dropblock::model::{
    Change, DeviceId, FileContent, Kind, Name, Node, NodeId, NodeState, Root, Seq, codec, record,
};
use dropblock::wire::message::Bitmap;
use dropblock::wire::opening::{Challenge, Knock};
use dropblock::wire::{EncodedFrame, FrameWriter, Hello, Message, Position, opening};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use support::random_bytes;

/// Damaged forms of each sample.
const MUTATIONS: u64 = 3000;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// One piece of damage, chosen by a number: bits, a cut, bytes that are doubled, zeros, the largest number.
fn damaged(sample: &[u8], seed: u64) -> Vec<u8> {
    let dice = random_bytes(seed + 1, 16);
    let at = |n: usize| usize::from(u16::from_le_bytes([dice[n], dice[n + 1]])) % sample.len().max(1);
    let mut bytes = sample.to_vec();
    if bytes.is_empty() {
        return dice;
    }
    match dice[0] % 6 {
        0 => bytes[at(2)] ^= 1 << (dice[4] % 8),
        1 => bytes.truncate(at(2)),
        2 => bytes.splice(at(2)..at(2), dice[4..8].iter().copied()).for_each(drop),
        3 => bytes[at(2)] = 0xff,
        4 => {
            let end = (at(2) + 8).min(bytes.len());
            bytes[at(2)..end].fill(dice[4] % 2 * 255);
        }
        _ => drop(bytes.drain(at(2).min(at(4))..at(2).max(at(4)))),
    }
    bytes
}

#[test]
fn every_sample_and_its_damaged_forms_are_decoded_or_refused() {
    for (name, decoder) in DECODERS {
        let mut samples: Vec<PathBuf> =
            fs::read_dir(corpus().join(name)).expect(name).map(|entry| entry.unwrap().path()).collect();
        samples.sort();
        assert!(!samples.is_empty(), "no samples of {name}");
        for path in samples {
            let sample = fs::read(&path).unwrap();
            decoder(&sample);
            for seed in 0..MUTATIONS {
                decoder(&damaged(&sample, seed));
            }
        }
    }
}

#[test]
fn every_target_has_samples_and_every_sample_a_target() {
    let known: Vec<&str> = DECODERS.iter().map(|(name, _)| *name).collect();
    let manifest = fs::read_to_string(corpus().join("../Cargo.toml")).unwrap();
    for entry in fs::read_dir(corpus()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name.as_str()), "{name}");
    }
    for name in known {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
        let target = fs::read_to_string(corpus().join(format!("../targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("decoders::{name}(bytes)")), "{name}");
    }
}

/// What the encoders make. The first samples of each decoder are these: `DROPBLOCK_WRITE_CORPUS=1` writes them.
fn seeds() -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let id = |n: u8| NodeId::from_bytes([n; 16]);
    let ids = [id(1), id(2), id(3)];
    let plain = Block::new(support::text(1, 3000).into_bytes().into());
    let mut edited = plain.bytes().to_vec();
    edited[1500] ^= 1;
    let edited = Block::new(edited.into());
    let random = Block::new(random_bytes(2, 300).into());
    let sealer = Sealer::new(1);
    let sealed = vec![
        sealer.seal(&plain).into_sealed(),
        sealer.seal(&random).into_sealed(),
        sealer.seal_against(&edited, &plain).unwrap().into_sealed(),
    ];
    let root = Root { params: 1, level: 0, hash: random.hash() };
    let kinds = [
        Kind::Folder,
        Kind::File { content: FileContent { size: 300, root }, mtime_ns: 5, exec: true },
        Kind::Symlink { target: b"../x".to_vec(), mtime_ns: -1 },
    ];
    let state = |n: usize| {
        Some(NodeState { parent: NodeId::ROOT, name: Name::new(b"name").unwrap(), kind: kinds[n].clone() })
    };
    let changes: Vec<Change> =
        (0..3).map(|n| Change { id: ids[n], base: Seq(n as u64), state: state(n) }).collect();
    let nodes: Vec<Node> = (0..3).map(|n| Node { id: ids[n], version: Seq(7), state: state(n) }).collect();
    let next = Position { seq: Seq(7), node: Some(id(3)) };
    let hello = Hello::new(DeviceId::from_bytes([1; 16]), "laptop".into(), "default".into(), None);
    let messages = [
        Message::Hello(Box::new(hello)),
        Message::goodbye(dropblock::wire::ErrorCode::Busy, "later"),
        Message::Poll { after: next, nodes_max: 9, tombstones_after: Seq(1) },
        Message::Changes { nodes, next, complete: false, head: None },
        Message::Commit { changes },
        Message::Have { hashes: vec![plain.hash(), random.hash()] },
        Message::Missing { bitmap: Bitmap::from_flags(&[true, false, true]) },
        Message::WantBlocks { hashes: vec![plain.hash()], bases: vec![edited.hash()] },
        Message::Blocks { first: 3, present: Bitmap::from_flags(&[true]), last: true },
        Message::Find { at: Moment::Age(5) },
        Message::Wanted { hashes: vec![plain.hash()] },
    ];
    let mut seeds: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    seeds.insert("message", messages.iter().map(|message| codec::encode(message).unwrap()).collect());
    let stream = |frames: &[EncodedFrame]| {
        let mut writer = FrameWriter::new(Vec::new(), Arc::default());
        frames.iter().for_each(|frame| writer.push(frame));
        assert!(pin!(writer.flush()).poll(&mut Context::from_waker(Waker::noop())).is_ready());
        writer.into_stream()
    };
    let frames: Vec<EncodedFrame> =
        messages.iter().map(|message| EncodedFrame::shrunk(4, message, vec![]).unwrap()).collect();
    let put = EncodedFrame::new(5, &Message::PutBlocks { count: 3 }, pack::encode(&sealed)).unwrap();
    seeds.insert("frame", vec![stream(&frames), stream(&[put])]);
    let knock = opening::knock(&Knock { proto: 1, nonce: [1; 32] }).unwrap();
    let server = Fingerprint::from_bytes([3; 32]);
    let challenge = Challenge { proto: 1, nonce: [2; 32], server, clear: true, mac: [4; 32] };
    seeds.insert("opening", vec![stream(&[knock]), stream(&[opening::challenge(&challenge).unwrap()])]);
    seeds.insert("pack", vec![pack::encode(&sealed).concat(), pack::encode(&sealed[..1]).concat()]);
    let blocks = sealed.iter().map(|block| {
        let length = block.plain_len.to_le_bytes();
        [&[block.codec.code(), length[0], length[1], length[2]], &*block.payload].concat()
    });
    seeds.insert("block", blocks.collect());
    let copy = dropblock::block::sketch::Shared { at: 0, from: 10, len: 800 };
    let patch = dropblock::block::patch::Patch {
        bases: vec![plain.hash()],
        check: [1; 4],
        copies: vec![copy],
        form: dropblock::block::patch::Form::Raw,
        news: Bytes::from(vec![9; 100]),
    };
    seeds.insert("patch", vec![[&[0x84, 3, 0], &*patch.encode()].concat()]);
    let mut builder = Builder::new(1);
    let mut made = Vec::new();
    for n in 0..200u64 {
        made.extend(builder.push(Block::new(random_bytes(n, 8).into()).hash(), 10_000 + n).unwrap());
    }
    made.extend(builder.finish().unwrap().1);
    seeds.insert("manifest", made.iter().map(|block| block.bytes().to_vec()).take(3).collect());
    let mut records = Vec::new();
    record::append(&mut records, b"one").unwrap();
    record::append(&mut records, &[7; 100]).unwrap();
    seeds.insert("record", vec![records]);
    let commit = |n: usize| {
        (
            Seq(4),
            1_700_000_000_000u64,
            "laptop",
            (1u32, 4096u64),
            vec![Change { id: id(1), base: Seq(3), state: state(n) }],
        )
    };
    seeds.insert("journal", (0..3).map(|n| codec::encode(&commit(n)).unwrap()).collect());
    let length = 300u32.to_le_bytes();
    let header = [b"DBRC\0\0\0\0".as_slice(), &length, &length, random.hash().as_bytes(), &[0; 8]].concat();
    seeds.insert("packfile", vec![[&header, &**random.bytes()].concat(), header]);
    let put = codec::encode(&(0u32, id(1), Seq(7), state(1).unwrap(), None::<u8>)).unwrap();
    let line = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    seeds.insert(
        "state",
        vec![[&[0], line(&put).as_slice()].concat(), vec![0], [&[1], line(&[1]).as_slice()].concat()],
    );
    let toml = b"# A dropblock store.\nformat = \"1\"\nstore = \"07070707070707070707070707070707\"\n";
    let (scope, key) = ((Some("default"), false), [7u8; 32]);
    let device = ("abcd", "laptop", scope, true, 5u64, 6u64, false);
    let people = (BTreeMap::from([(key, device)]), BTreeMap::from([([8u8; 32], (scope, 9u64))]));
    let quotas = (BTreeMap::from([(key, (100u64, 60u64))]), BTreeMap::from([([8u8; 32], 50u64)]));
    let books = [codec::encode(&people).unwrap(), codec::encode(&(people, quotas)).unwrap()];
    seeds.insert("store", [vec![toml.to_vec(), vec![0, 0, 0, 0]], books.to_vec()].concat());
    let invite = Invite {
        address: "hub:7420".into(),
        share: "my photos".into(),
        server,
        secret: InviteSecret::from_bytes([5; 16]),
    };
    seeds.insert("invite", vec![invite.to_line().into_bytes(), server.to_string().into_bytes()]);
    seeds
}

/// A sample that its decoder refuses at the door would show nothing.
#[test]
fn the_samples_of_files_are_what_the_programs_write() {
    use dropblock::{folder, storage};
    let seeds = seeds();
    assert!(seeds["journal"].iter().all(|sample| storage::probe::commit(sample)));
    assert!(storage::probe::pack_record(&seeds["packfile"][0]));
    assert!(storage::probe::store_file(&seeds["store"][0]));
    assert!(seeds["store"][2..].iter().all(|book| dropblock::server::devices::probe(book)));
    let mut state = b"dbxstate\x01\0\0\0\0\0\0\0".to_vec();
    record::append(&mut state, &seeds["state"][0]).unwrap();
    assert!(folder::probe::state(&state));
    assert!(seeds["manifest"].iter().all(|sample| dropblock::manifest::ManifestNode::decode(sample).is_ok()));
    let patch = Bytes::from(seeds["patch"][0][3..].to_vec());
    assert!(dropblock::block::patch::Patch::decode(&patch, 900).is_ok());
}

#[test]
fn what_the_encoders_make_is_decoded() {
    let write = std::env::var_os("DROPBLOCK_WRITE_CORPUS").is_some();
    for (name, samples) in seeds() {
        let (_, decoder) = DECODERS.iter().find(|(known, _)| *known == name).expect(name);
        for (number, sample) in samples.iter().enumerate() {
            decoder(sample);
            if write {
                fs::create_dir_all(corpus().join(name)).unwrap();
                fs::write(corpus().join(name).join(format!("seed-{number}")), sample).unwrap();
            }
        }
    }
}
