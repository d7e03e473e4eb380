//! A server that lies to real clients: nothing outside the folder changes, no wrong byte becomes a file, the lie is named
//! in one line, and as soon as the truth is told both sides are equal.

use crate::liar::{Liar, Script, Tongue, file, folder, frame, head, id, link, name, node, random, say, seal};
use crate::support::disk::Folder;
use crate::support::process::Outcome;
use crate::support::tree::Tree;
use crate::support::world::{World, wait_until};
use crate::support::{DEADLINE, random_bytes};
use bytes::Bytes;
use dropblock::block::{Codec, SealedBlock, pack};
use dropblock::model::{ChainHash, Change, JournalId, Name, Node, NodeId, Seq, codec};
use dropblock::wire::message::Bitmap;
use dropblock::wire::{Head, Message, Position};
use std::fs;
use std::path::{Path, PathBuf};

/// A world with a liar in it, and beside the folder things that must not change.
struct Stage {
    world: World,
    liar: Liar,
    folder: Folder,
    victim: PathBuf,
    before: Tree,
}

impl Stage {
    fn new() -> Self {
        let world = World::empty();
        let liar = Liar::new(&world);
        let folder = world.folder("a");
        let victim = world.path().join("victim");
        fs::create_dir_all(victim.join("sub")).unwrap();
        fs::write(victim.join("passwd"), "untouched").unwrap();
        let before = Tree::of(&victim);
        Self { world, liar, folder, victim, before }
    }

    fn once(&self) -> Outcome {
        self.world.once_at(&self.folder, self.liar.addr, &[]).outcome(DEADLINE)
    }

    /// Nothing beside the folder is other than before, and nothing new stands there.
    #[track_caller]
    fn nothing_outside(&self, what: &str) {
        assert_eq!(self.before.difference(&Tree::of(&self.victim)), None, "{what}");
        let beside = fs::read_dir(self.world.path()).unwrap();
        let mut names: Vec<String> =
            beside.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !["a", "b", "home", "logs", "victim", "store"].contains(&name.as_str()));
        assert_eq!(names, Vec::<String>::new(), "{what}: beside the folder");
    }
}

/// Bytes in a message as the codec writes them.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len();
    let mut out = match u8::try_from(length) {
        Ok(small) if small < 251 => vec![small],
        _ => [&[251], u16::try_from(length).unwrap().to_le_bytes().as_slice()].concat(),
    };
    out.extend_from_slice(bytes);
    out
}

/// A head in which a name, or anything else that is counted, is replaced by what no `Name` can hold.
fn with_name(message: &Message, old: &[u8], new: &[u8]) -> Vec<u8> {
    let head = codec::encode(message).unwrap();
    let (old, new) = (counted(old), counted(new));
    let at = head.windows(old.len()).position(|window| window == old).expect("the name is in the message");
    [&head[..at], &new, &head[at + old.len()..]].concat()
}

/// What names must never be, as far as this system goes.
fn ways_out(victim: &Path) -> Vec<Vec<u8>> {
    let absolute = victim.join("passwd").into_os_string().into_encoded_bytes();
    let mut ways: Vec<Vec<u8>> = [
        &b""[..],
        b".",
        b"..",
        b"/",
        b"//",
        b"../x",
        b"../victim/passwd",
        b"a/../../victim/passwd",
        b"a//b",
        b"./x",
        b"x/",
        b"/etc/x",
        b"x/y",
        b"..//",
        b"a\0b",
        b"\0",
        b"passwd\0.txt",
        b"../",
        b"/..",
        b"sub/..",
    ]
    .map(<[u8]>::to_vec)
    .into();
    ways.push(absolute);
    ways.push([b'x'; 256].to_vec());
    ways.push([b'x'; 4096].to_vec());
    ways
}

#[test]
fn names_that_lead_outside_end_the_session_and_nothing_is_written() {
    let stage = Stage::new();
    let block = random(1, 5000);
    stage.liar.with_files(&[("PLACEHOLDER", &block)]);
    for way in ways_out(&stage.victim) {
        let bad = way.clone();
        stage.liar.speak(move |request: u32, message: Message, payload: Bytes| match &message {
            Message::Changes { nodes, .. } if !nodes.is_empty() => {
                vec![frame(request, &with_name(&message, b"PLACEHOLDER", &bad), &payload)]
            }
            _ => vec![say(request, &message, &payload)],
        });
        let shown = way.escape_ascii().to_string();
        let line = stage.once().code_in(&[1, 3]).refusal();
        assert!(line.contains("does not decode"), "{shown}: {line}");
        stage.nothing_outside(&shown);
        assert_eq!(stage.folder.tree().names(), Vec::<String>::new(), "{shown}");
    }
    // A live client ends in one line too, and the next one has everything as soon as the truth is told.
    let mut live = stage.world.live_at(&stage.folder, stage.liar.addr, &[]);
    let line = live.process.outcome(DEADLINE).code(1).refusal();
    assert!(line.contains("does not decode"), "{line}");
    stage.liar.speak(crate::liar::Honest);
    stage.once().code(0);
    assert_eq!(stage.folder.read("PLACEHOLDER"), *block.bytes());
}

/// Two hundred that people have used, and as many by chance as fit: refused, or one name of one folder.
#[test]
fn every_ugly_name_is_refused_or_stays_one_name() {
    let parts: [&[u8]; 14] = [
        b"",
        b".",
        b"..",
        b"/",
        b"\\",
        b"\0",
        b"a",
        b":",
        b"~",
        b"$HOME",
        b" ",
        b"\n",
        b"\xff",
        b".dropblock",
    ];
    let mut ugly: Vec<Vec<u8>> = Vec::new();
    for one in parts {
        for two in parts {
            ugly.push([one, two].concat());
        }
    }
    ugly.extend(ways_out(Path::new("/victim")));
    ugly.extend(
        ["CON", "COM¹", "aux.txt", "C:", "a:b", "nul", "%2e%2e", "..;", "‥", "．．"]
            .map(|n| n.as_bytes().to_vec()),
    );
    assert!(ugly.len() >= 200);
    for seed in 0..100_000u64 {
        let noise = random_bytes(seed + 1, 12);
        let length = usize::from(noise[0] % 12);
        // Mostly of bytes that mean something to somebody.
        let byte = |b: &u8| *[b'.', b'/', 0, b'a', b'\\', *b].get(usize::from(b % 6)).unwrap();
        ugly.push(noise[..length].iter().map(byte).collect());
    }
    let block = random(1, 10);
    let message = |named: &str| {
        let nodes = vec![node("n", 1, file(NodeId::ROOT, named, &block))];
        let next = Position::after(Seq(1));
        Message::Changes { nodes, next, complete: true, head: None }
    };
    let (mut refused, mut taken) = (0, 0);
    for bytes in ugly {
        let bare = bytes.is_empty() || bytes == b"." || bytes == b"..";
        let harmless = !bare && bytes.len() <= 255 && !bytes.iter().any(|b| *b == b'/' || *b == 0);
        let head = with_name(&message("PLACEHOLDER"), b"PLACEHOLDER", &bytes);
        let decoded: Result<Message, _> = codec::decode(&head);
        assert_eq!(decoded.is_ok(), harmless, "{}", bytes.escape_ascii());
        match decoded {
            Ok(Message::Changes { nodes, .. }) => {
                assert_eq!(nodes[0].state.as_ref().unwrap().name.as_bytes(), bytes);
                taken += 1;
            }
            _ => refused += 1,
        }
    }
    assert!(refused > 1000 && taken > 1000, "{refused} {taken}");
}

#[test]
fn names_that_mean_something_elsewhere_are_plain_names_here() {
    let stage = Stage::new();
    let block = random(1, 5000);
    let names = ["C:", "a:b", "CON", "COM¹", "..\\victim\\passwd", "~", "-rf", ".DROPBLOCK", "..."];
    let files: Vec<_> = names.iter().map(|name| (*name, &block)).collect();
    stage.liar.with_files(&files);
    stage.once().code(0);
    let mut want: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    want.sort();
    let mut found = stage.folder.tree().names();
    found.sort();
    assert_eq!(found, want);
    stage.nothing_outside("plain names");
}

#[test]
fn the_private_folder_is_no_place_for_what_comes() {
    let stage = Stage::new();
    let block = random(2, 3000);
    stage.liar.with_block(&block);
    stage.once().code(0);
    let private = || {
        let of = |name: &str| fs::read(stage.folder.join(".dropblock").join(name)).unwrap();
        (of("device.key"), of("version"))
    };
    let (before, at) = (private(), head(&stage.liar));
    let scripts: [Vec<Node>; 2] = [
        vec![
            node("p", 5, folder(NodeId::ROOT, "PLACEHOLDE")),
            node("k", 5, file(id("p"), "device.key", &block)),
        ],
        vec![node("p", 5, file(NodeId::ROOT, "PLACEHOLDE", &block))],
    ];
    for nodes in scripts {
        let next = Position::after(Seq(5));
        let mut nodes = nodes;
        nodes.sort_by_key(|node| (node.version, node.id));
        let head = Some(Head { seq: Seq(5), ..at });
        let lie = Message::Changes { nodes, next, complete: true, head };
        let lie = with_name(&lie, b"PLACEHOLDE", b".dropblock");
        stage.liar.speak(Always(lie));
        let line = stage.once().code_in(&[1, 3]).refusal();
        assert!(line.contains("node"), "{line}");
        assert_eq!(private(), before);
    }
}

/// Answers every poll with the same head.
struct Always(Vec<u8>);
impl Tongue for Always {
    fn asked(&mut self, request: u32, message: &Message) -> Option<Vec<Vec<u8>>> {
        matches!(message, Message::Poll { .. }).then(|| vec![frame(request, &self.0, &[])])
    }
}

/// A link is planted, and then a file is written through it: in one page or one after the other, link first or file first,
/// made new or changed from a folder, moved or made there.
#[test]
fn a_file_through_a_planted_link_lands_nowhere() {
    let (one, two) = (random(3, 4000), random(4, 70_000));
    // A step is what the share holds from then on.
    type Steps = Vec<Vec<Node>>;
    type Order = Box<dyn Fn(&Path) -> Steps>;
    let orders: Vec<(&str, Order)> = vec![
        ("at once", {
            let one = one.clone();
            Box::new(move |v| {
                vec![vec![
                    node("d", 1, link(NodeId::ROOT, "d", v)),
                    node("f", 1, file(id("d"), "passwd", &one)),
                ]]
            })
        }),
        ("file first", {
            let one = one.clone();
            Box::new(move |v| {
                vec![vec![
                    node("f", 1, file(id("d"), "passwd", &one)),
                    node("d", 2, link(NodeId::ROOT, "d", v)),
                ]]
            })
        }),
        ("link first, in another page", {
            let two = two.clone();
            Box::new(move |v| {
                let planted = node("d", 1, link(NodeId::ROOT, "d", v));
                vec![vec![planted.clone()], vec![planted, node("f", 2, file(id("d"), "new", &two))]]
            })
        }),
        ("a folder that becomes a link", {
            let (one, two) = (one.clone(), two.clone());
            Box::new(move |v| {
                vec![
                    vec![
                        node("d", 1, folder(NodeId::ROOT, "d")),
                        node("f", 1, file(id("d"), "passwd", &one)),
                    ],
                    vec![
                        node("d", 2, link(NodeId::ROOT, "d", v)),
                        node("f", 3, file(id("d"), "passwd", &two)),
                    ],
                ]
            })
        }),
        ("a link in the place of a folder, under another id", {
            let (one, two) = (one.clone(), two.clone());
            Box::new(move |v| {
                vec![
                    vec![
                        node("d", 1, folder(NodeId::ROOT, "d")),
                        node("f", 1, file(id("d"), "passwd", &one)),
                    ],
                    vec![
                        node("d", 2, folder(NodeId::ROOT, "was")),
                        node("l", 2, link(NodeId::ROOT, "d", v)),
                        node("f", 3, file(id("l"), "passwd", &two)),
                    ],
                ]
            })
        }),
        ("a folder below a link", {
            let one = one.clone();
            Box::new(move |v| {
                vec![vec![
                    node("d", 1, link(NodeId::ROOT, "d", v)),
                    node("s", 1, folder(id("d"), "sub")),
                    node("f", 1, file(id("s"), "x", &one)),
                ]]
            })
        }),
        ("moved below a link", {
            let one = one.clone();
            Box::new(move |v| {
                let planted = node("d", 1, link(NodeId::ROOT, "d", v));
                vec![
                    vec![planted.clone(), node("f", 1, file(NodeId::ROOT, "f", &one))],
                    vec![planted, node("f", 2, file(id("d"), "f", &one))],
                ]
            })
        }),
        ("a link to the folder's own private part", {
            let one = one.clone();
            Box::new(move |_| {
                vec![vec![
                    node("d", 1, link(NodeId::ROOT, "d", Path::new(".dropblock"))),
                    node("f", 1, file(id("d"), "device.key", &one)),
                ]]
            })
        }),
        ("a circle of folders", {
            Box::new(move |_| {
                vec![vec![node("x", 1, folder(id("y"), "x")), node("y", 1, folder(id("x"), "y"))]]
            })
        }),
        ("below a file", {
            let one = one.clone();
            Box::new(move |_| {
                vec![vec![
                    node("d", 1, file(NodeId::ROOT, "d", &one)),
                    node("f", 1, file(id("d"), "f", &one)),
                ]]
            })
        }),
    ];
    for (what, steps) in orders {
        let stage = Stage::new();
        stage.liar.with_block(&one);
        stage.liar.with_block(&two);
        let at = head(&stage.liar);
        let mut key = None;
        for nodes in steps(&stage.victim) {
            stage.liar.speak(Script::new(at, nodes));
            // It may take the link, and must not follow it; how it ends is its own affair, if it ends.
            stage.once().code_in(&[0, 1, 3]);
            stage.nothing_outside(what);
            let now = fs::read(stage.folder.join(".dropblock/device.key")).unwrap();
            assert_eq!(*key.get_or_insert(now.clone()), now, "{what}");
        }
        // The same again as live: what was left is tried again and again.
        let live = stage.world.live_at(&stage.folder, stage.liar.addr, &[]);
        std::thread::sleep(std::time::Duration::from_millis(700));
        live.kill();
        stage.nothing_outside(what);
    }
}

#[test]
fn blocks_that_are_not_what_was_asked_for_never_become_a_file() {
    type Twist = fn(Vec<SealedBlock>) -> Vec<SealedBlock>;
    let flipped: Twist = |mut blocks| {
        let mut bytes = blocks[0].payload.to_vec();
        bytes[9] ^= 1;
        blocks[0].payload = bytes.into();
        blocks
    };
    let twists: [(&str, Twist); 5] = [
        ("a flipped bit", flipped),
        ("another block", |blocks| blocks.iter().map(|b| seal(&random(77, b.plain_len as usize))).collect()),
        ("the other order", |mut blocks| {
            blocks.reverse();
            blocks
        }),
        ("one of them twice", |mut blocks| {
            let last = blocks.len() - 1;
            blocks[last] = blocks[0].clone();
            blocks
        }),
        ("shorter than it says", |mut blocks| {
            blocks[0] = SealedBlock {
                codec: Codec::Zstd,
                plain_len: blocks[0].plain_len,
                base: None,
                payload: zstd::bulk::compress(&[0; 10], 1).unwrap().into(),
            };
            blocks
        }),
    ];
    let files = [("one", random(5, 3000)), ("two", random(6, 5000)), ("three", random(7, 120_000))];
    for (what, twist) in twists {
        let stage = Stage::new();
        stage.liar.with_files(&files.each_ref().map(|(name, block)| (*name, block)));
        stage.liar.speak(move |request: u32, message: Message, payload: Bytes| match &message {
            Message::Blocks { .. } if !payload.is_empty() => {
                let blocks = twist(pack::decode(payload).unwrap());
                vec![say(request, &message, &pack::encode(&blocks).concat())]
            }
            _ => vec![say(request, &message, &payload)],
        });
        let ended = stage.once();
        for (name, block) in &files {
            let there = stage.folder.has(name).then(|| stage.folder.read(name));
            assert!(there.is_none_or(|bytes| bytes == *block.bytes()), "{what}: wrong bytes in {name}");
        }
        if !files.iter().all(|(name, _)| stage.folder.has(name)) {
            ended.code_in(&[1, 3]);
        }
        stage.liar.speak(crate::liar::Honest);
        stage.once().code(0);
        assert!(files.iter().all(|(name, block)| stage.folder.read(name) == *block.bytes()), "{what}");
    }
}

#[test]
fn parts_and_pages_out_of_order_end_the_session() {
    let bitmap = |n: usize| Bitmap::from_flags(&vec![false; n]);
    type Twist = Box<dyn FnMut(u32, Message, Bytes) -> Vec<Vec<u8>> + Send>;
    let part = |lie: fn(u32, bool) -> (u32, usize, bool)| -> Twist {
        Box::new(move |request, message, payload| match message {
            Message::Blocks { first, last, .. } => {
                let (first, count, last) = lie(first, last);
                let present = Bitmap::from_flags(&vec![false; count]);
                vec![say(request, &Message::Blocks { first, present, last }, &[])]
            }
            other => vec![say(request, &other, &payload)],
        })
    };
    type Page = (Vec<Node>, Position, bool);
    let page = |lie: fn(Vec<Node>, Position) -> Page| -> Twist {
        Box::new(move |request, message, payload| match message {
            Message::Changes { nodes, next, head, .. } if !nodes.is_empty() => {
                let (nodes, next, complete) = lie(nodes, next);
                vec![say(request, &Message::Changes { nodes, next, complete, head }, &[])]
            }
            other => vec![say(request, &other, &payload)],
        })
    };
    let lies: Vec<(&str, Twist)> = vec![
        ("a part that is not the next", part(|_, last| (7, 1, last))),
        ("a part for more than was asked", part(|first, last| (first, 4000, last))),
        ("an empty part", part(|first, _| (first, 0, false))),
        ("a page without progress", page(|nodes, _| (nodes, Position::START, false))),
        (
            "a page in the other order",
            page(|mut nodes, next| {
                nodes.reverse();
                (nodes, next, true)
            }),
        ),
        (
            "an answer to nothing",
            Box::new(move |request, message, payload| vec![say(request ^ 0x4000_0000, &message, &payload)]),
        ),
        (
            "an answer to something else",
            Box::new(move |request, message, payload| match message {
                Message::Changes { .. } => vec![say(request, &Message::Missing { bitmap: bitmap(3) }, &[])],
                other => vec![say(request, &other, &payload)],
            }),
        ),
        (
            "a second welcome",
            Box::new(|request, message, payload| {
                let said = say(request, &message, &payload);
                if matches!(message, Message::Welcome(_)) { vec![said.clone(), said] } else { vec![said] }
            }),
        ),
    ];
    for (what, lie) in lies {
        let stage = Stage::new();
        let files = [("one", random(5, 3000)), ("two", random(6, 5000))];
        stage.liar.with_files(&files.each_ref().map(|(name, block)| (*name, block)));
        stage.liar.speak(lie);
        let ended = stage.once();
        let said = format!("{what}: {}", ended.stderr);
        assert!(ended.code.is_some_and(|code| code == 1 || code == 3), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(stage.folder.tree().names(), Vec::<String>::new(), "{what}");
        stage.liar.speak(crate::liar::Honest);
        stage.once().code(0);
        assert_eq!(stage.folder.read("two"), *files[1].1.bytes(), "{what}");
    }
}

/// Blocks that unpack to gigabytes, messages that promise them, pushes without end: memory stays what it was.
#[test]
fn bombs_and_floods_of_a_server_take_no_memory() {
    let bomb: Bytes = zstd::bulk::compress(&vec![0; 256 << 20], 3).unwrap().into();
    assert!(bomb.len() < 64 * 1024);
    let blocks = |plain_len| SealedBlock { codec: Codec::Zstd, plain_len, base: None, payload: bomb.clone() };
    let inside = pack::encode(&[blocks(262_144)]).concat();
    let huge = |variant: u8| {
        // A list of 2^62 entries.
        let mut head = vec![variant, 253];
        head.extend_from_slice(&(1u64 << 62).to_le_bytes());
        head
    };
    let changed = |at: Head, seq: u64| {
        let head = Head { seq: Seq(seq + 1), ..at };
        let nodes =
            (0..100).map(|n| node(&format!("{seq}-{n}"), seq + 1, folder(NodeId::ROOT, &format!("{n}"))));
        let mut nodes: Vec<Node> = nodes.collect();
        nodes.sort_by_key(|node| node.id);
        Message::Changed { prev: Seq(seq), head, nodes }
    };
    for what in ["bomb", "shrunk bomb", "list", "pushes", "pings"] {
        let stage = Stage::new();
        stage.liar.with_files(&[("one", &random(5, 262_000))]);
        let mut live = stage.world.live_at(&stage.folder, stage.liar.addr, &[]);
        wait_until("synced", || stage.folder.has("one"));
        live.process.wait_output("in sync");
        let before = live.process.memory_bytes_max().unwrap();
        let (inside, bomb, at) = (inside.clone(), bomb.clone(), head(&stage.liar));
        let lists: Vec<Vec<u8>> = (0..27).map(huge).collect();
        let mut turn = 0usize;
        stage.liar.speak(move |request: u32, message: Message, payload: Bytes| {
            turn += 1;
            let truth = say(request, &message, &payload);
            match (what, &message) {
                ("bomb", Message::Blocks { .. }) => vec![say(request, &message, &inside)],
                ("shrunk bomb", Message::Changes { .. }) => {
                    let shrunk = Message::Shrunk { len: 2 << 20, bytes: bomb.to_vec() };
                    vec![say(request, &shrunk, &[])]
                }
                ("list", Message::Changes { .. }) => vec![frame(request, &lists[turn % lists.len()], &[])],
                ("pushes", Message::Changes { .. }) => {
                    let seq = 1000 + 3000 * turn as u64;
                    let mut said = vec![truth];
                    said.extend((0..3000).map(|n| say(0, &changed(at, seq + n), &[])));
                    said
                }
                ("pings", Message::Changes { .. }) => {
                    let mut said = vec![truth];
                    said.extend((0..200_000).map(|_| say(0, &Message::Behind, &[])));
                    said
                }
                _ => vec![truth],
            }
        });
        // Something to fetch, for whoever asks.
        stage.liar.with_files(&[("two", &random(6, 262_000))]);
        // It ends when it finds out, or goes on: for as long as it runs its memory is looked at.
        let mut after = before;
        let start = std::time::Instant::now();
        while live.process.is_running() && start.elapsed().as_secs() < 4 {
            after = live.process.memory_bytes_max().unwrap_or(after);
        }
        assert!(after < before + (64 << 20), "{what}: {before} then {after}");
        assert!(!live.process.stderr().contains("panicked"), "{}", live.process.stderr());
        live.kill();
        stage.liar.speak(crate::liar::Honest);
        stage.once().code(0);
        assert_eq!(stage.folder.read("two"), *random(6, 262_000).bytes());
    }
}

#[test]
fn an_older_or_another_past_is_said_and_deletes_nothing() {
    let stage = Stage::new();
    stage.folder.many("mine", 20);
    stage.folder.write("x", "1");
    stage.once().code(0);
    stage.folder.write("x", "2");
    stage.once().code(0);
    // The server has lost its past, or shows another: a fork, in which the same file is deleted.
    let first = stage.liar.forget();
    stage.liar.with_files(&[("theirs", &random(5, 100))]);
    let before = stage.folder.tree();
    let said = stage.once().code_in(&[0, 3]).stderr;
    assert!(said.contains("does not know this folder's past"), "{said}");
    let kept = |tree: &Tree| before.0.iter().all(|(path, item)| tree.0.get(path) == Some(item));
    assert!(kept(&stage.folder.tree()));
    // And back: two clients that were shown different pasts find out when they meet.
    stage.liar.ask_at(first);
    let said = stage.once().code_in(&[0, 3]).stderr;
    assert!(said.contains("does not know this folder's past"), "{said}");
    assert!(kept(&stage.folder.tree()));
}

/// Within one session: a head before the known one, another journal, the same place with another past.
#[test]
fn a_head_that_goes_back_ends_the_session() {
    type Lie = fn(Head) -> Head;
    let lies: [(&str, Lie); 3] = [
        ("an older head", |head| Head { seq: Seq(1), ..head }),
        ("another journal", |head| Head { journal: JournalId::from_bytes([66; 16]), ..head }),
        ("another past", |head| Head { chain: ChainHash::start(b"other"), ..head }),
    ];
    for (what, lie) in lies {
        let stage = Stage::new();
        stage.liar.with_files(&[
            ("one", &random(5, 100)),
            ("two", &random(6, 100)),
            ("three", &random(7, 100)),
        ]);
        stage.once().code(0);
        let truth = head(&stage.liar);
        assert_eq!(truth.seq, Seq(3));
        // What was synced comes again as if it were new, in a past that is not the one it came from.
        let nodes = Vec::new();
        stage.liar.speak(Script { nodes, head: lie(truth) });
        let before = stage.folder.tree();
        let line = stage.once().code_in(&[1]).refusal();
        assert!(line.contains("past"), "{what}: {line}");
        assert_eq!(before.difference(&stage.folder.tree()), None, "{what}");
        stage.liar.speak(crate::liar::Honest);
        stage.folder.write("four", "4");
        stage.once().code(0);
        // The cursor did not go back: nothing is joined anew.
        let said = stage.once().code(0).stderr;
        assert!(!said.contains("past"), "{what}: {said}");
    }
}

#[test]
fn changes_that_are_told_again_change_nothing() {
    let stage = Stage::new();
    let (old, new) = (random(5, 100), random(6, 100));
    stage.liar.with_files(&[("x", &old)]);
    stage.once().code(0);
    stage.liar.behind(async |connection, _| {
        let state = Some(file(NodeId::ROOT, "x", &new));
        let change = Change { id: id("x"), base: Seq(1), state };
        assert!(connection.commit(vec![change], &[seal(&new)]).await.unwrap().refused.is_empty());
    });
    stage.once().code(0);
    assert_eq!(stage.folder.read("x"), *new.bytes());
    // The first version again, with its own number: in a page, and as a push.
    let at = head(&stage.liar);
    let replay = node("x", 1, file(NodeId::ROOT, "x", &old));
    stage.liar.speak(move |request: u32, message: Message, payload: Bytes| match message {
        Message::Changes { next, head, .. } => {
            let again = Message::Changes { nodes: vec![replay.clone()], next, complete: true, head };
            let push = Message::Changed {
                prev: Seq(0),
                head: Head { seq: Seq(1), ..at },
                nodes: vec![replay.clone()],
            };
            vec![say(0, &push, &[]), say(request, &again, &payload)]
        }
        other => vec![say(request, &other, &payload)],
    });
    stage.once().code(0);
    assert_eq!(stage.folder.read("x"), *new.bytes());
}

#[test]
fn what_a_server_says_cannot_write_to_a_terminal() {
    let stage = Stage::new();
    let evil = "\u{1b}]0;owned\u{7}\n[error] fake\u{202e}\r";
    for code in [5u16, 14, 15, 99] {
        stage.liar.speak(move |request: u32, message: Message, _: Bytes| match message {
            Message::Welcome(_) => vec![say(request, &message, &[])],
            _ => vec![say(0, &Message::Goodbye { code, text: evil.to_owned() }, &[])],
        });
        let line = stage.once().code_in(&[1, 3, 10, 30]).refusal();
        assert!(!line.contains('\u{202e}'), "{line:?}");
    }
    assert!(name("x").as_bytes() == b"x" && Name::new(b"/").is_err());
}
