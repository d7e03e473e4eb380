//! What a device says about the sizes of files: a few nodes that name each other describe exabytes.

use crate::guest::{Guest, dialer};
use crate::liar::{id, name, random, seal};
use crate::support::world::World;
use dropblock::block::{Block, SealedBlock, pack};
use dropblock::manifest::{Entry, ManifestNode};
use dropblock::model::{Change, FileContent, Kind, NodeId, NodeState, Refusal, Root, Seq, limits};
use dropblock::wire::Message;
use tokio::runtime::Runtime;

/// Nodes in which each entry is the node below, above one chunk; the blocks of it, and what it describes.
fn tower(chunk: &Block, levels: u8, entries: usize) -> (FileContent, Vec<SealedBlock>) {
    let mut blocks = vec![chunk.clone()];
    let mut entry = Entry { hash: chunk.hash(), len: chunk.bytes().len() as u64 };
    for level in 1..=levels {
        let node = ManifestNode::new(level, limits::CHUNK_PARAMS, vec![entry; entries]).unwrap();
        let block = Block::new(node.encode());
        entry = Entry { hash: block.hash(), len: node.file_bytes() };
        blocks.push(block);
    }
    let root = Root { params: limits::CHUNK_PARAMS, level: levels, hash: entry.hash };
    (FileContent { size: entry.len, root }, blocks.iter().map(seal).collect())
}

fn file(named: &str, base: Seq, content: &FileContent) -> Change {
    let kind = Kind::File { content: content.clone(), mtime_ns: 0, exec: false };
    let state = NodeState { parent: NodeId::ROOT, name: name(named), kind };
    Change { id: id(named), base, state: Some(state) }
}

impl Guest {
    async fn bring(&mut self, blocks: &[SealedBlock]) {
        let count = u32::try_from(blocks.len()).unwrap();
        self.send(1, &Message::PutBlocks { count }, &pack::encode(blocks).concat()).await;
        let answer = self.next().await;
        assert!(matches!(answer, Some((1, Message::Stored { .. }, _))), "{answer:?}");
    }

    async fn commit(&mut self, changes: Vec<Change>) -> Vec<(u32, Refusal)> {
        self.send(2, &Message::Commit { changes }, &[]).await;
        let Some((2, Message::Committed { refused, .. }, _)) = self.next().await else { panic!("no commit") };
        refused
    }
}

/// Neither the sum of them nor the number of their blocks fits anywhere.
#[test]
fn files_of_exabytes_harm_neither_clients_nor_hub() {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("mine", "small");
    world.sync(&a);
    let (dialer, addr) = (dialer(&world, 40), world.addr());
    Runtime::new().unwrap().block_on(async {
        let mut guest = Guest::open(&dialer, addr).await;
        let (content, blocks) = tower(&random(1, 256 << 10), 8, 50);
        assert!(content.size > u64::MAX / 2);
        guest.bring(&blocks).await;
        assert_eq!(
            guest.commit(vec![file("x", Seq::ZERO, &content), file("y", Seq::ZERO, &content)]).await,
            []
        );
    });
    let b = world.folder("b");
    for folder in [&a, &b] {
        let outcome = world.once(folder).code(3);
        assert!(
            outcome.stderr.contains("no room") || outcome.stderr.contains("No space"),
            "{}",
            outcome.stderr
        );
        assert_eq!(folder.text("mine"), "small");
    }
    let store = world.store().to_str().unwrap().to_owned();
    for args in [&["stats"][..], &["check"], &["check", "--quick"], &["gc", "--grace", "0"]] {
        world.run(args.iter().copied().chain(["--store", &store])).code(0);
    }
    // It looks at what a client misses, and ends when it is told to.
    Runtime::new().unwrap().block_on(async {
        let mut guest = Guest::open(&dialer, addr).await;
        let absent = Message::WantBlocks { hashes: vec![random(9, 100).hash()], bases: vec![] };
        guest.send(1, &absent, &[]).await;
        assert!(matches!(guest.next().await, Some((1, Message::Blocks { .. }, _))));
    });
    world.stop_server();
    world.run(["check", "--store", &store]).code(0);
}

#[test]
fn a_size_that_the_blocks_do_not_have_is_refused_also_for_a_next_version() {
    let world = World::new();
    let (dialer, addr) = (dialer(&world, 40), world.addr());
    Runtime::new().unwrap().block_on(async {
        let mut guest = Guest::open(&dialer, addr).await;
        let (small, blocks) = tower(&random(1, 100_000), 1, 20);
        guest.bring(&blocks).await;
        let (good, blocks) = tower(&random(1, 100_000), 2, 20);
        guest.bring(&blocks).await;
        assert_eq!(guest.commit(vec![file("f", Seq::ZERO, &small)]).await, []);
        assert_eq!(guest.commit(vec![file("f", Seq(1), &good)]).await, []);
        let longer = FileContent { size: good.size + 1, ..good.clone() };
        for (named, base) in [("f", Seq(2)), ("new", Seq::ZERO)] {
            assert_eq!(guest.commit(vec![file(named, base, &longer)]).await, [(0, Refusal::MissingBlocks)]);
        }
        // Sixteen thousand chunks of a byte would cost every client a hundred times their bytes in memory.
        let (crumbs, blocks) = tower(&random(2, 1), 2, 128);
        guest.bring(&blocks).await;
        assert_eq!(
            guest.commit(vec![file("crumbs", Seq::ZERO, &crumbs)]).await,
            [(0, Refusal::MissingBlocks)]
        );
    });
}
