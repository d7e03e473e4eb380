//! Who is let in, and what is said to the others.

use super::support::*;
use dropblock::model::Seq;
use dropblock::wire::{Auth, ErrorCode, Head, Hello, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn refused(server: &Running, hello: Hello) -> ErrorCode {
    server.try_connect(hello).await.map(|_| ()).unwrap_err().code()
}

#[tokio::test]
async fn the_highest_common_version_is_chosen_and_none_in_common_is_refused() {
    let server = start(config()).await;
    let newer = Hello { proto_max: 900, ..hello() };
    assert_eq!(server.try_connect(newer).await.unwrap().0.agreed().proto, 1);
    assert_eq!(refused(&server, Hello { proto_min: 2, proto_max: 9, ..hello() }).await, ErrorCode::Version);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_server_cannot_honour_is_refused_with_its_code() {
    let server = start(config()).await;
    let required = Hello { features_required: 1 << 40, ..hello() };
    assert_eq!(refused(&server, required).await, ErrorCode::Feature);
    let proof = Hello { auth: Auth { method: 7, bytes: vec![1] }, ..hello() };
    assert_eq!(refused(&server, proof).await, ErrorCode::Auth);
    let share = Hello { share: "../etc".into(), ..hello() };
    assert_eq!(refused(&server, share).await, ErrorCode::ShareName);
    server.connect().await;
}

#[tokio::test]
async fn a_cursor_is_known_only_to_the_journal_it_came_from() {
    let server = start(config()).await;
    let (client, _pushes) = server.connect().await;
    let head = client.commit(vec![folder("a")], &[]).await.unwrap().head;
    let known = async |cursor| {
        let hello = Hello { cursor: Some(cursor), ..hello() };
        server.try_connect(hello).await.unwrap().0.welcome().cursor_known
    };
    assert!(known(head).await);
    assert!(!known(Head { seq: Seq(7), ..head }).await);
    assert!(!known(Head { chain: dropblock::model::ChainHash::start(b"other"), ..head }).await);
    assert_eq!(server.connect().await.0.welcome().head, head);
}

#[tokio::test]
async fn a_frame_over_4_kib_before_the_handshake_is_refused_by_its_length_alone() {
    let server = start(config()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&5000u32.to_le_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    // 12 header bytes, then Goodbye (2) and its code.
    assert_eq!(answer[12..14], [2, 2]);
    server.connect().await;
}

#[tokio::test]
async fn garbage_ends_its_connection_and_nothing_else() {
    let server = start(config()).await;
    let (healthy, _pushes) = server.connect().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 4096],
        &[8, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 99],
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer[12], 2, "a goodbye");
    }
    healthy.ping().await.unwrap();
}

#[tokio::test]
async fn a_hello_that_does_not_come_in_time_is_not_waited_for() {
    let server = start(dropblock::server::Config { handshake_ms_max: 100, ..config() }).await;
    let mut silent = server.dial().await;
    silent.expect_goodbye(ErrorCode::Timeout).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(&[100]).await.unwrap();
    let mut answer = Vec::new();
    soon(slow.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer[12..14], [2, 9]);
}

#[tokio::test]
async fn the_first_message_must_be_a_hello_and_a_second_one_is_unexpected() {
    let server = start(config()).await;
    let mut raw = server.dial().await;
    raw.send(1, Message::Ping).await;
    raw.expect_goodbye(ErrorCode::Unexpected).await;
    let (mut raw, _) = server.raw().await;
    raw.send(1, Message::Hello(Box::new(hello()))).await;
    raw.expect_goodbye(ErrorCode::Unexpected).await;
}

#[tokio::test]
async fn a_full_server_says_busy_and_has_room_again_later() {
    let server = start(dropblock::server::Config { connections_max: 1, ..config() }).await;
    let (first, _pushes) = server.connect().await;
    assert_eq!(refused(&server, hello()).await, ErrorCode::Busy);
    first.close(ErrorCode::Done, "").await;
    for _ in 0..100 {
        if server.try_connect(hello()).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the place of a session that ended is never free again");
}
