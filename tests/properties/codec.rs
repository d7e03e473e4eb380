//! Every message survives the trip through its frame; nothing else than a message comes out of bytes.

use bytes::Bytes;
use dropblock::model::counters::Counters;
use dropblock::model::past::{Found, Look, Mark, Moment, PastNode, Rest, Seen, Shape, Version, Versions};
use dropblock::model::{
    BlockHash, ChainHash, Change, DeviceId, FileContent, JournalId, Kind, Name, Node, NodeId, NodeState,
    Refusal, Root, Seq, SessionId, StoreId, codec,
};
use dropblock::wire::handshake::Extension;
use dropblock::wire::message::Bitmap;
use dropblock::wire::{
    Auth, EncodedFrame, FrameReader, FrameWriter, Head, Hello, Message, Position, ServerLimits, Welcome,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;

fn hash() -> impl Strategy<Value = BlockHash> {
    any::<[u8; 32]>().prop_map(BlockHash::from_bytes)
}

fn node_id() -> impl Strategy<Value = NodeId> {
    any::<[u8; 16]>().prop_filter("root", |id| *id != [0; 16]).prop_map(NodeId::from_bytes)
}

fn seq() -> impl Strategy<Value = Seq> {
    prop_oneof![0..300u64, any::<u64>()].prop_map(Seq)
}

fn head() -> impl Strategy<Value = Head> {
    (any::<[u8; 16]>(), seq(), any::<[u8; 32]>()).prop_map(|(journal, seq, chain)| Head {
        journal: JournalId::from_bytes(journal),
        seq,
        chain: ChainHash::from_bytes(chain),
    })
}

fn name() -> impl Strategy<Value = Name> {
    vec(any::<u8>(), 1..=255).prop_filter_map("not a name", |bytes| Name::new(&bytes).ok())
}

fn kind() -> impl Strategy<Value = Kind> {
    let content = (1u64.., hash(), 1..=12u8)
        .prop_map(|(size, hash, level)| FileContent { size, root: Root { params: 1, level, hash } });
    prop_oneof![
        Just(Kind::Folder),
        (content, any::<i64>(), any::<bool>()).prop_map(|(content, mtime_ns, exec)| Kind::File {
            content,
            mtime_ns,
            exec
        }),
        (vec(1u8.., 1..100), any::<i64>()).prop_map(|(target, mtime_ns)| Kind::Symlink { target, mtime_ns }),
    ]
}

fn state() -> impl Strategy<Value = NodeState> {
    // The top's private name is no valid state; a parent that is not the top keeps every name allowed.
    (node_id(), name(), kind()).prop_map(|(parent, name, kind)| NodeState { parent, name, kind })
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    vec((node_id(), seq(), option::of(state())), 0..20).prop_map(|rows| {
        let mut nodes: Vec<_> =
            rows.into_iter().map(|(id, version, state)| Node { id, version, state }).collect();
        nodes.sort_by_key(|n| (n.version, n.id));
        nodes
    })
}

fn position() -> impl Strategy<Value = Position> {
    (seq(), option::of(node_id())).prop_map(|(seq, node)| Position { seq, node })
}

fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    vec((any::<u16>(), vec(any::<u8>(), 0..50)).prop_map(|(kind, bytes)| Extension { kind, bytes }), 0..4)
}

fn hello() -> impl Strategy<Value = Message> {
    let fields = (
        any::<[u16; 2]>(),
        any::<[u64; 2]>(),
        any::<[u8; 16]>(),
        "\\PC{1,12}",
        "\\PC{0,12}",
        option::of(head()),
    );
    (fields, any::<u16>(), vec(any::<u8>(), 0..100), extensions()).prop_map(
        |((proto, features, device, device_name, share, cursor), method, bytes, extensions)| {
            Message::Hello(Box::new(Hello {
                proto_min: proto[0],
                proto_max: proto[1],
                features_required: features[0],
                features_optional: features[1],
                auth: Auth { method, bytes },
                extensions,
                ..Hello::new(DeviceId::from_bytes(device), device_name, share, cursor)
            }))
        },
    )
}

fn welcome() -> impl Strategy<Value = Message> {
    (any::<(u16, u64, [u8; 16], [u8; 16], bool)>(), head(), any::<[u32; 3]>(), extensions()).prop_map(
        |((proto, features, store, session, cursor_known), head, limits, extensions)| {
            Message::Welcome(Box::new(Welcome {
                proto,
                features,
                store: StoreId::from_bytes(store),
                session: SessionId::from_bytes(session),
                head,
                cursor_known,
                limits: ServerLimits {
                    frame_bytes_max: limits[0],
                    in_flight_bytes_max: limits[1],
                    inline_bytes_max: limits[2],
                },
                auth: Auth::default(),
                extensions,
            }))
        },
    )
}

fn moment() -> impl Strategy<Value = Moment> {
    prop_oneof![
        Just(Moment::Now),
        any::<u64>().prop_map(Moment::Time),
        any::<u64>().prop_map(Moment::Age),
        seq().prop_map(Moment::Commit),
    ]
}

fn mark() -> impl Strategy<Value = Mark> {
    (any::<bool>(), name(), node_id()).prop_map(|(left, name, node)| Mark { left, name, node })
}

fn look() -> impl Strategy<Value = Look> {
    prop_oneof![
        (node_id(), vec(name(), 0..4)).prop_map(|(from, names)| Look::Path { from, names }),
        (vec(node_id(), 1..9), option::of(mark()))
            .prop_map(|(folders, after)| Look::Inside { folders, after }),
        vec(node_id(), 1..9).prop_map(Look::Nodes),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    (vec(name(), 1..4), kind()).prop_map(|(path, kind)| Shape { path, kind })
}

fn versions() -> impl Strategy<Value = Versions> {
    let version = (seq(), node_id(), any::<u64>(), "\\PC{0,9}", option::of(shape()), option::of(shape()));
    let version = (version, any::<bool>()).prop_map(|((seq, node, time_ms, device, before, after), kept)| {
        Version { seq, node, time_ms, device, before, after, kept }
    });
    (vec(version, 0..5), option::of((seq(), node_id()))).prop_map(|(mut versions, rest)| {
        versions.sort_by_key(|version| std::cmp::Reverse((version.seq, version.node)));
        versions.dedup_by_key(|version| (version.seq, version.node));
        Versions { versions, rest }
    })
}

fn seen() -> impl Strategy<Value = Seen> {
    let rest = (any::<u32>(), option::of(mark())).prop_map(|(first, after)| Rest { first, after });
    (nodes(), any::<bool>(), option::of(rest)).prop_map(|(nodes, kept, rest)| Seen {
        nodes: nodes.into_iter().map(|node| PastNode { node, kept }).collect(),
        rest,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let hashes = || vec(hash(), 1..40);
    let bitmap = || vec(any::<bool>(), 0..70).prop_map(|flags| Bitmap::from_flags(&flags));
    let change =
        (node_id(), seq(), option::of(state())).prop_map(|(id, base, state)| Change { id, base, state });
    let refused = vec(Just(Refusal::Stale), 0..5).prop_map(|r| (0u32..).zip(r).collect::<Vec<_>>());
    prop_oneof![
        hello(),
        welcome(),
        (any::<u16>(), "\\PC{0,20}").prop_map(|(code, text)| Message::Goodbye { code, text }),
        (any::<u16>(), "\\PC{0,20}").prop_map(|(code, text)| Message::Failed { code, text }),
        Just(Message::Ping),
        Just(Message::Pong),
        Just(Message::Behind),
        (position(), 1..=2048u32, seq()).prop_map(|(after, nodes_max, tombstones_after)| Message::Poll {
            after,
            nodes_max,
            tombstones_after
        }),
        (nodes(), position(), option::of(head())).prop_map(|(nodes, next, head)| Message::Changes {
            nodes,
            next,
            complete: true,
            head
        }),
        vec(change, 1..10).prop_map(|changes| Message::Commit { changes }),
        (seq(), head(), refused, option::of(nodes()))
            .prop_map(|(prev, head, refused, nodes)| { Message::Committed { prev, head, refused, nodes } }),
        hashes().prop_map(|hashes| Message::Have { hashes }),
        bitmap().prop_map(|bitmap| Message::Missing { bitmap }),
        (1..=4096u32).prop_map(|count| Message::PutBlocks { count }),
        any::<u32>().prop_map(|count| Message::Stored { count }),
        bitmap().prop_map(|bitmap| Message::Unopened { bitmap }),
        vec(any::<u8>(), 0..50)
            .prop_map(|bytes| Message::Shrunk { len: u32::try_from(bytes.len() + 1).unwrap(), bytes }),
        hashes().prop_map(|hashes| Message::WantBlocks { bases: hashes.clone(), hashes }),
        (any::<u32>(), bitmap(), any::<bool>()).prop_map(|(first, present, last)| Message::Blocks {
            first,
            present,
            last
        }),
        (head(), nodes())
            .prop_filter("after 0", |(head, _)| head.seq > Seq::ZERO)
            .prop_map(|(head, nodes)| { Message::Changed { prev: Seq(head.seq.0 - 1), head, nodes } }),
        moment().prop_map(|at| Message::Find { at }),
        (seq(), seq(), any::<u64>(), seq()).prop_map(|(head, seq, time_ms, floor)| Message::Found(Found {
            head,
            seq,
            time_ms,
            floor
        })),
        (vec(name(), 0..4), option::of((seq(), node_id())), 1..=1024u32)
            .prop_map(|(path, before, versions_max)| Message::History { path, before, versions_max }),
        versions().prop_map(Message::Versions),
        (seq(), look(), 1..=2048u32).prop_map(|(at, look, nodes_max)| Message::Look { at, look, nodes_max }),
        seen().prop_map(Message::Seen),
    ]
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn reader(bytes: &[u8]) -> FrameReader<&[u8]> {
    let mut reader = FrameReader::new(bytes, Arc::<Counters>::default());
    reader.admit_large_frames();
    reader
}

proptest! {
    #[test]
    fn every_message_comes_back_from_its_frame(
        messages in vec((message(), any::<u32>(), vec(any::<u8>(), 0..300)), 1..8),
    ) {
        run(async {
            let mut bytes = Vec::new();
            let mut writer = FrameWriter::new(&mut bytes, Arc::<Counters>::default());
            for (message, request, payload) in &messages {
                let payload = if message.may_carry_blocks() { payload.clone() } else { vec![] };
                writer.push(&EncodedFrame::new(*request, message, vec![Bytes::from(payload)]).unwrap());
            }
            writer.flush().await.unwrap();
            let mut reader = reader(&bytes);
            for (message, request, payload) in &messages {
                let frame = reader.next().await.unwrap().unwrap();
                assert_eq!(frame.request, *request);
                assert_eq!(&frame.message().unwrap(), message);
                assert!(!message.may_carry_blocks() || frame.payload == payload[..]);
            }
            assert!(reader.next().await.unwrap().is_none());
        });
    }

    #[test]
    fn every_message_comes_back_when_it_was_made_shorter(message in message()) {
        run(async {
            let frame = EncodedFrame::shrunk(7, &message, Vec::new()).unwrap();
            let plain = EncodedFrame::new(7, &message, Vec::new()).unwrap();
            assert!(frame.wire_bytes() <= plain.wire_bytes());
            let mut bytes = Vec::new();
            let mut writer = FrameWriter::new(&mut bytes, Arc::<Counters>::default());
            writer.push(&frame);
            writer.flush().await.unwrap();
            let frame = reader(&bytes).next().await.unwrap().unwrap();
            match frame.whole_message() {
                Ok((whole, counted)) => {
                    assert_eq!(whole, message);
                    assert!(counted + 20 >= plain.wire_bytes(), "{counted} of {}", plain.wire_bytes());
                }
                // One that is made of chance is no message.
                Err(_) => assert!(matches!(message, Message::Shrunk { .. })),
            }
        });
    }

    #[test]
    fn a_message_cut_short_or_made_longer_is_no_message(message in message(), cut in any::<prop::sample::Index>()) {
        let mut bytes = codec::encode(&message).unwrap();
        let cut = cut.index(bytes.len());
        prop_assert!(codec::decode::<Message>(&bytes[..cut]).is_err());
        bytes.push(0);
        prop_assert!(codec::decode::<Message>(&bytes).is_err());
    }

    #[test]
    fn any_bytes_end_in_messages_or_an_error_and_never_in_a_panic(bytes in vec(any::<u8>(), 0..600)) {
        run(async {
            let mut reader = reader(&bytes);
            while let Ok(Some(frame)) = reader.next().await {
                let _ = frame.message();
            }
        });
        let _ = codec::decode::<Message>(&bytes);
    }

    #[test]
    fn a_flipped_bit_never_panics(message in message(), bit in any::<prop::sample::Index>()) {
        let mut bytes = codec::encode(&message).unwrap();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(message) = codec::decode::<Message>(&bytes) {
            let _ = message.validate();
        }
    }
}

#[test]
fn counts_over_their_bounds_are_refused_on_both_ends() {
    let hashes = vec![BlockHash::of(b"x"); 4097];
    let over = [
        Message::Have { hashes: hashes.clone() },
        Message::Have { hashes: vec![] },
        Message::WantBlocks { hashes: hashes.clone(), bases: vec![] },
        Message::WantBlocks { hashes: hashes[..1].to_vec(), bases: hashes[..2].to_vec() },
        Message::WantBlocks { hashes: hashes[..2].to_vec(), bases: hashes[..1].to_vec() },
        Message::Shrunk { len: (2 << 20) + 1, bytes: vec![0; 9] },
        Message::Shrunk { len: 9, bytes: vec![0; 9] },
        Message::Commit { changes: vec![] },
        Message::PutBlocks { count: 0 },
        Message::PutBlocks { count: 4097 },
        Message::Poll { after: Position::START, nodes_max: 0, tombstones_after: Seq::ZERO },
        Message::Goodbye { code: 0, text: "x".repeat(513) },
    ];
    for message in over {
        assert!(message.validate().is_err(), "{}", message.name());
        assert!(EncodedFrame::new(1, &message, vec![]).is_err(), "{}", message.name());
    }
}
