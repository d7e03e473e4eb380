//! Questions about the past, and a restore of thousands of nodes, over the wire.

use super::support::*;
use dropblock::client::history::{Ask, Historian, HistoryError};
use dropblock::client::restore::Wish;
use dropblock::model::past::{Look, Moment};
use dropblock::model::{Change, IdSource, Kind, Name, NodeId, NodeState, RelPath, Seq};
use dropblock::storage::MemoryStore;
use dropblock::wire::handshake::features;
use dropblock::wire::{Connection, ErrorCode, Message, TcpDialer, WireError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use tokio::net::TcpListener;

fn link(n: usize) -> Change {
    let name = Name::new(format!("link{n}").as_bytes()).unwrap();
    let kind = Kind::Symlink { target: vec![b'x'; 4000], mtime_ns: 0 };
    Change { id: fresh_id(), base: Seq::ZERO, state: Some(NodeState { parent: NodeId::ROOT, name, kind }) }
}

/// More than fits a frame.
async fn many_links(client: &Connection) -> BTreeSet<NodeId> {
    let links: Vec<Change> = (0..700).map(link).collect();
    for batch in links.chunks(350) {
        client.commit(batch.to_vec(), &[]).await.unwrap();
    }
    links.iter().map(|change| change.id).collect()
}

fn ask(address: String) -> Ask {
    Ask {
        server: address,
        dialer: Arc::new(TcpDialer),
        share: "default".into(),
        store: None,
        device: None,
        device_name: "laptop".into(),
    }
}

#[tokio::test]
async fn pages_of_the_past_fit_their_frames_and_leave_nothing_out() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let ids = many_links(&client).await;
    let (mut seen, mut after, mut pages) = (BTreeSet::new(), None, 0);
    loop {
        let page = client.look(Seq(2), Look::Inside { folders: vec![NodeId::ROOT], after }).await.unwrap();
        assert!(page.nodes.iter().all(|past| seen.insert(past.node.id)), "each once");
        pages += 1;
        match page.rest {
            Some(rest) if rest.first == 0 => after = rest.after,
            Some(_) | None => break,
        }
    }
    assert_eq!(seen, ids);
    assert!(pages > 1, "they are more than a frame");
    let (mut seen, mut before, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = client.versions(vec![], before).await.unwrap();
        seen.extend(page.versions.iter().map(|version| (version.seq, version.node)));
        (before, pages) = (page.rest, pages + 1);
        if before.is_none() {
            break;
        }
    }
    assert!(seen.is_sorted_by(|a, b| a > b) && pages > 1);
    assert_eq!(seen.into_iter().map(|(_, node)| node).collect::<BTreeSet<_>>(), ids);
}

#[tokio::test]
async fn a_restore_is_committed_in_parts_and_every_client_is_told() {
    let server = start(config()).await;
    let (client, mut pushes) = server.connect().await;
    let ids = many_links(&client).await;
    let gone: Vec<Change> = ids.iter().map(|id| Change { id: *id, base: Seq(1), state: None }).collect();
    let first = client.commit(gone.clone(), &[]).await.unwrap();
    let rest = gone.into_iter().map(|change| Change { base: Seq(2), ..change }).collect();
    client.commit(rest, &[]).await.unwrap();
    assert_eq!(first.refused.len(), 350);
    let historian = Historian::open(ask(server.address.to_string())).await.unwrap();
    let wish = Wish {
        path: RelPath::root(),
        point: Moment::Commit(Seq(2)),
        when: "with version 2".into(),
        to: None,
        partial: false,
    };
    let mut source = IdSource::new([5; 32]);
    let plan = historian.plan(&wish, &mut source).await.unwrap();
    assert_eq!((plan.steps.len(), plan.before), (700, Seq(4)));
    let report = historian.restore(&wish, &mut source).await.unwrap();
    assert_eq!(report.steps.len(), 700);
    assert!(historian.restore(&wish, &mut source).await.unwrap().steps.is_empty(), "it is so already");
    let mut back = BTreeSet::new();
    while back.len() < ids.len() {
        match soon(pushes.next()).await.unwrap() {
            dropblock::wire::Push::Changed { nodes, .. } => {
                back.extend(nodes.into_iter().map(|node| node.id))
            }
            dropblock::wire::Push::Behind => break,
            dropblock::wire::Push::Wanted(hashes) => panic!("nothing is damaged: {hashes:?}"),
        }
    }
    let now = client.look(Seq(u64::MAX), Look::Nodes(ids.iter().copied().take(9).collect())).await.unwrap();
    assert!(now.nodes.iter().all(|past| past.node.state.is_some()));
    historian.close().await;
}

#[tokio::test]
async fn a_server_that_tells_no_history_is_named_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let old = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (reader, writer) = stream.into_split();
        let mut raw = Raw::over(reader, writer);
        let (_, Message::Hello(hello), _) = raw.next().await else { panic!() };
        raw.send(0, Message::goodbye(ErrorCode::Feature, "unknown feature")).await;
        hello.features_required
    });
    let refused = soon(Historian::open(ask(address.clone()))).await.unwrap_err();
    assert!(matches!(refused, HistoryError::NoHistory(server) if server == address));
    assert_eq!(old.await.unwrap(), features::HISTORY);
}

#[tokio::test]
async fn bad_questions_about_the_past_end_the_session_or_one_request_and_nothing_else() {
    let server = start(config()).await;
    let (mut raw, _) = server.raw().await;
    // Encoded by hand: the sender's own check would not let it pass.
    let no_folders =
        Message::Look { at: Seq(1), look: Look::Inside { folders: vec![], after: None }, nodes_max: 1 };
    assert!(dropblock::wire::EncodedFrame::new(1, &no_folders, vec![]).is_err());
    raw.send(1, Message::Find { at: Moment::Age(u64::MAX) }).await;
    assert!(matches!(raw.next().await, (1, Message::Found(found), _) if found.seq == Seq::ZERO));
    raw.send(2, Message::Seen(Default::default())).await;
    raw.expect_goodbye(ErrorCode::Unexpected).await;
    let journal = Arc::new(Faulty { store: MemoryStore::new([7; 32]), fault: AtomicU8::new(0) });
    let mute = start_with(config(), Arc::new(MemoryStore::new([7; 32])), journal).await;
    let (client, _pushes) = mute.try_connect(hello()).await.unwrap();
    let failed = client.find(Moment::Now).await.unwrap_err();
    assert!(matches!(failed, WireError::Failed { code: ErrorCode::Unexpected, .. }), "{failed}");
    client.ping().await.unwrap();
}
