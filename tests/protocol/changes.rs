//! Commits, pages and pushes.

use super::support::*;
use dropblock::block::{pack, seal as seals};
use dropblock::model::{Change, Kind, Name, NodeId, NodeState, Refusal, Seq};
use dropblock::server::Config;
use dropblock::wire::{Message, Position, Push};
use std::collections::BTreeSet;
use std::time::Duration;

#[tokio::test]
async fn a_commit_reaches_every_other_client_of_the_share_with_its_blocks_and_not_its_sender() {
    let server = start(config()).await;
    let (a, mut a_pushes) = server.connect().await;
    let (_b, mut b_pushes) = server.connect().await;
    let elsewhere = dropblock::wire::Hello { share: "other".into(), ..hello() };
    let (_c, mut c_pushes) = server.try_connect(elsewhere).await.unwrap();
    let block = random(1, 1000);
    let committed = a.commit(vec![file("x", &block)], &[seal(&block)]).await.unwrap();
    assert_eq!((committed.prev, committed.head.seq), (Seq::ZERO, Seq(1)));
    assert!(committed.refused.is_empty());
    let Some(Push::Changed { prev, head, nodes, blocks }) = soon(b_pushes.next()).await else { panic!() };
    assert_eq!((prev, head), (committed.prev, committed.head));
    assert_eq!(nodes, committed.nodes);
    assert_eq!(seals::open(&blocks[0], None).unwrap().hash(), block.hash());
    let quiet = Duration::from_millis(50);
    assert!(tokio::time::timeout(quiet, a_pushes.next()).await.is_err(), "the sender hears nothing");
    assert!(tokio::time::timeout(quiet, c_pushes.next()).await.is_err(), "another share hears nothing");
}

#[tokio::test]
async fn refusals_name_their_changes_and_the_others_stand() {
    let server = start(config()).await;
    let (a, _pushes) = server.connect().await;
    let first = folder("a");
    a.commit(vec![first.clone()], &[]).await.unwrap();
    let stale = delete(&first, Seq(9));
    let committed = a.commit(vec![folder("b"), stale, folder("c")], &[]).await.unwrap();
    assert_eq!(committed.refused, [(1, Refusal::Stale)]);
    assert_eq!(committed.nodes.len(), 2);
    let all_refused = a.commit(vec![delete(&first, Seq(9))], &[]).await.unwrap();
    assert_eq!(all_refused.prev, all_refused.head.seq);
    assert!(all_refused.nodes.is_empty());
}

#[tokio::test]
async fn a_file_cut_by_unknown_parameters_is_refused_and_the_others_stand() {
    let server = start(config()).await;
    let (a, _pushes) = server.connect().await;
    let block = random(1, 1000);
    let mut odd = file("odd", &block);
    let state = odd.state.as_mut().unwrap();
    let Kind::File { content, .. } = &mut state.kind else { panic!() };
    content.root.params = 2;
    let committed = a.commit(vec![odd, file("usual", &block)], &[seal(&block)]).await.unwrap();
    assert_eq!(committed.refused, [(0, Refusal::Invalid)]);
    assert_eq!(committed.nodes.len(), 1);
}

#[tokio::test]
async fn pages_list_every_node_once_and_an_idle_poll_is_a_few_bytes() {
    let server = start(config()).await;
    let (a, _pushes) = server.connect().await;
    let changes: Vec<_> = (0..100).map(|i| folder(&format!("f{i}"))).collect();
    for batch in changes.chunks(9) {
        a.commit(batch.to_vec(), &[]).await.unwrap();
    }
    a.commit(vec![delete(&changes[0], Seq(1))], &[]).await.unwrap();
    let (b, _pushes) = server.connect().await;
    let start = b.welcome().head.seq;
    let (mut ids, mut after, mut pages) = (BTreeSet::<NodeId>::new(), Position::START, 0);
    loop {
        let page = b.poll(after, 7, start).await.unwrap();
        assert!(page.nodes.len() <= 7 && page.nodes.iter().all(|n| n.state.is_some()));
        assert!(page.nodes.iter().all(|n| ids.insert(n.id)), "each node once");
        (after, pages) = (page.next, pages + 1);
        if page.complete {
            break;
        }
    }
    assert_eq!((ids.len(), pages), (99, 15));
    let idle = b.poll(after, 2048, Seq::ZERO).await.unwrap();
    assert!(idle.complete && idle.nodes.is_empty() && idle.head.is_none());
    a.commit(vec![delete(&changes[1], Seq(1))], &[]).await.unwrap();
    let changed = b.poll(after, 2048, Seq::ZERO).await.unwrap();
    assert_eq!(changed.nodes[0].state, None, "later on, tombstones count");
    assert_eq!(changed.head.unwrap().seq, changed.next.seq);
}

#[tokio::test]
async fn a_node_deleted_while_a_first_listing_runs_is_reported_to_it() {
    let server = start(config()).await;
    let (a, _pushes) = server.connect().await;
    let changes: Vec<_> = (0..10).map(|i| folder(&format!("f{i}"))).collect();
    for change in &changes {
        a.commit(vec![change.clone()], &[]).await.unwrap();
    }
    let (b, _pushes) = server.connect().await;
    let start = b.welcome().head.seq;
    let first = b.poll(Position::START, 3, start).await.unwrap();
    assert_eq!(first.nodes[0].id, changes[0].id);
    a.commit(vec![delete(&changes[0], Seq(1))], &[]).await.unwrap();
    let mut page = first;
    while !page.complete {
        page = b.poll(page.next, 3, start).await.unwrap();
    }
    let last = page.nodes.last().unwrap();
    assert_eq!((last.id, last.state.is_none()), (changes[0].id, true));
}

#[tokio::test]
async fn a_page_of_long_names_still_fits_its_frame() {
    let server = start(config()).await;
    let (a, _pushes) = server.connect().await;
    let link = |i: usize| {
        let mut change = folder(&format!("{i:0>200}"));
        let kind = dropblock::model::Kind::Symlink { target: vec![b'x'; 4000], mtime_ns: 0 };
        change.state.as_mut().unwrap().kind = kind;
        change
    };
    for batch in 0..4 {
        a.commit((0..400).map(|i| link(batch * 400 + i)).collect(), &[]).await.unwrap();
    }
    let (mut seen, mut after) = (0, Position::START);
    loop {
        let page = a.poll(after, 2048, Seq::ZERO).await.unwrap();
        seen += page.nodes.len();
        after = page.next;
        if page.complete {
            break;
        }
    }
    assert_eq!(seen, 1600);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_once_that_it_is_behind() {
    let server = start(Config { pushes_max: 4, ..config() }).await;
    let (mut lazy, _) = server.raw().await;
    let (a, _pushes) = server.connect().await;
    let block = random(1, 60_000);
    for i in 0..400 {
        let committed = soon(a.commit(vec![file(&format!("f{i}"), &block)], &[seal(&block)])).await.unwrap();
        assert_eq!(committed.head.seq, Seq(i + 1));
    }
    let mut seq = Seq::ZERO;
    loop {
        match lazy.next().await {
            (0, Message::Changed { prev, head, .. }, _) => {
                assert_eq!(prev, seq, "nothing is left out without a word");
                seq = head.seq;
            }
            (0, Message::Behind, _) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(seq < Seq(400));
    let poll = Message::Poll { after: Position::after(seq), nodes_max: 2048, tombstones_after: Seq::ZERO };
    lazy.send(1, poll).await;
    let (_, Message::Changes { nodes, complete, .. }, _) = lazy.next().await else { panic!() };
    assert!(complete);
    assert_eq!(nodes.len() as u64, 400 - seq.0);
}

#[tokio::test]
async fn a_commit_waits_for_the_blocks_and_commits_sent_before_it() {
    let server = start(config()).await;
    let (mut raw, _) = server.raw().await;
    let blocks: Vec<_> = (0..16).map(|i| random(i, 60_000)).collect();
    let sealed: Vec<_> = blocks.iter().map(seal).collect();
    let files = blocks.iter().enumerate().map(|(i, b)| file(&format!("f{i}"), b)).collect::<Vec<_>>();
    let dir = folder("d");
    let mut inside = folder("inside");
    inside.state.as_mut().unwrap().parent = dir.id;
    raw.send_with(1, Message::PutBlocks { count: 16 }, pack::encode(&sealed)).await;
    raw.send(2, Message::Commit { changes: files }).await;
    raw.send(3, Message::Commit { changes: vec![dir] }).await;
    raw.send(4, Message::Commit { changes: vec![inside] }).await;
    assert!(matches!(raw.next().await, (1, Message::Stored { count: 16 }, _)));
    for (request, seq) in [(2, 1), (3, 2), (4, 3)] {
        let (found, Message::Committed { head, refused, .. }, _) = raw.next().await else { panic!() };
        assert_eq!((found, head.seq, refused), (request, Seq(seq), vec![]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_that_all_commit_all_know_everything() {
    let server = start(config()).await;
    let mut clients = Vec::new();
    for i in 0..100 {
        clients.push((i, server.connect().await));
    }
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|(i, (client, mut pushes))| {
            tokio::spawn(async move {
                let own = soon(client.commit(vec![folder(&format!("f{i}"))], &[])).await.unwrap();
                assert!(own.refused.is_empty());
                let mut ids: BTreeSet<_> = own.nodes.iter().map(|n| n.id).collect();
                while ids.len() < 100 {
                    match soon(pushes.next()).await {
                        Some(Push::Changed { nodes, .. }) => ids.extend(nodes.iter().map(|n| n.id)),
                        other => panic!("{other:?}"),
                    }
                }
                let page = client.poll(Position::START, 2048, Seq::ZERO).await.unwrap();
                assert_eq!(page.nodes.iter().map(|n| n.id).collect::<BTreeSet<_>>(), ids);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_page_that_fits_a_frame_and_would_not_decode_is_made_shorter() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let mut all = BTreeSet::new();
    for _ in 0..4 {
        let links: Vec<Change> = (0..512).map(|_| link(960)).collect();
        all.extend(links.iter().map(|change| change.id));
        client.commit(links, &[]).await.unwrap();
    }
    // Numbers are short as they are written and count in full where they are read.
    let (mut found, mut at, mut pages) = (BTreeSet::new(), Position::START, 0);
    loop {
        let page = client.poll(at, 2048, Seq::ZERO).await.unwrap();
        found.extend(page.nodes.iter().map(|node| node.id));
        (at, pages) = (page.next, pages + 1);
        if page.complete {
            break;
        }
    }
    assert!(found == all && pages > 1, "{pages}");
}

/// A link with a target of so many bytes.
fn link(len: usize) -> Change {
    let id = fresh_id();
    let name = Name::new(&id.to_hex().as_bytes()[..12]).unwrap();
    let kind = Kind::Symlink { target: vec![b'x'; len], mtime_ns: 0 };
    Change { id, base: Seq::ZERO, state: Some(NodeState { parent: NodeId::ROOT, name, kind }) }
}
