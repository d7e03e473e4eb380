//! Whatever goes wrong: one clear line, a code that is not 0, no hang, and nothing lost or half done.

use crate::support::disk::Folder;
use crate::support::proxy::Proxy;
use crate::support::sandbox::{Sandbox, SmallDisk, is_root};
use crate::support::world::{World, assert_equal, free_addr, wait_until};
use crate::support::{DEADLINE, LONG_DEADLINE, random_bytes, skipped};
use dropblock::wire::{EncodedFrame, ErrorCode, FrameWriter, Message};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// A port that accepts and then does this with every connection.
fn listener(act: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(act));
    addr
}

/// `--once` against an address that is no server: fails in one line, in bounded time, and the folder is as before.
fn fails_at(addr: SocketAddr) {
    let world = World::empty();
    let a = world.folder("a");
    a.many("d", 10);
    let before = a.tree();
    let line = world.once_at(&a, addr, &[]).outcome(DEADLINE).code_in(&[1, 30]).refusal();
    assert!(line.contains(&addr.to_string()), "does not name the address: {line}");
    assert_eq!(before.difference(&a.tree()), None);
}

#[test]
fn a_server_that_is_not_there() {
    fails_at(free_addr());
}

#[test]
fn a_server_that_is_a_web_server() {
    fails_at(listener(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    }));
}

#[test]
fn a_server_that_sends_garbage_for_ever() {
    fails_at(listener(|mut stream| {
        thread::spawn(move || while stream.write_all(&random_bytes(1, 10_000)).is_ok() {});
    }));
}

#[test]
fn a_server_that_claims_an_endless_frame() {
    fails_at(listener(|mut stream| {
        let _ = stream.write_all(&[0xff; 64]);
        thread::spawn(move || stream.read(&mut [0; 1]));
    }));
}

#[test]
fn a_server_that_accepts_and_stays_silent() {
    fails_at(listener(std::mem::forget));
}

#[test]
fn a_server_that_hangs_up_at_once() {
    fails_at(listener(drop));
}

/// The bytes of a goodbye.
fn goodbye(code: ErrorCode) -> Vec<u8> {
    let frame = EncodedFrame::new(0, &Message::goodbye(code, "not yet"), Vec::new()).unwrap();
    let mut writer = FrameWriter::new(Vec::new(), Arc::default());
    writer.push(&frame);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(writer.flush()).unwrap();
    writer.into_stream()
}

/// It sends the first three away with this code. The one-time sync works all the same, and says why it takes long once.
fn waits_for_one_that_says(code: ErrorCode, text: &str) {
    let goodbye = goodbye(code);
    waits_for_one_that_first(&[], Some(text), move |stream| {
        let _ = stream.read(&mut [0; 3]);
        let _ = stream.write_all(&goodbye);
        // Whoever hangs up with unread bytes resets the stream.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
}

/// It does this to the first three, and serves the next one.
fn waits_for_one_that_first(
    options: &[&str],
    says: Option<&str>,
    first: impl Fn(&mut TcpStream) + Send + 'static,
) {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "1");
    let server = world.addr();
    let mut left = 3;
    let addr = listener(move |mut stream| {
        if left > 0 {
            left -= 1;
            first(&mut stream);
            return;
        }
        let (mut up, mut from) = (TcpStream::connect(server).unwrap(), stream.try_clone().unwrap());
        let (mut down, mut to) = (up.try_clone().unwrap(), stream);
        thread::spawn(move || (std::io::copy(&mut from, &mut up), up.shutdown(Shutdown::Write)));
        thread::spawn(move || (std::io::copy(&mut down, &mut to), to.shutdown(Shutdown::Write)));
    });
    let outcome = world.once_at(&a, addr, options).outcome(DEADLINE).code(0);
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("trying again")).collect();
    assert!(lines.len() == usize::from(says.is_some()), "{lines:?}");
    assert!(says.is_none_or(|text| lines.iter().all(|line| line.contains(text))), "{lines:?}");
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

#[test]
fn a_server_that_is_still_opening_its_store_is_waited_for() {
    waits_for_one_that_says(ErrorCode::Opening, "still opening its store");
}

#[test]
fn a_server_that_is_crowded_by_strangers_is_tried_again() {
    waits_for_one_that_says(ErrorCode::Busy, "Busy");
}

#[test]
fn a_server_that_hangs_up_before_anybody_could_understand_it_is_tried_again() {
    // With unread bytes: a reset. With none: an end.
    waits_for_one_that_first(&["--tls", "always"], None, |_| {});
    waits_for_one_that_first(&["--tls", "always"], None, |stream| {
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
}

#[test]
fn a_server_that_repeats_what_it_hears() {
    fails_at(listener(|mut stream| {
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(got) = stream.read(&mut buffer) {
                if got == 0 || stream.write_all(&buffer[..got]).is_err() {
                    return;
                }
            }
        });
    }));
}

#[test]
fn a_server_that_is_gone_in_the_middle() {
    let world = World::new();
    let proxy = Proxy::to(world.addr());
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("big", random_bytes(1, 30_000_000));
    a.many("d", 100);
    let before = a.tree();
    for at in [0, 10, 100, 1_000, 100_000, 10_000_000] {
        proxy.mend();
        proxy.cut_after(at);
        world.once_at(&a, proxy.addr, &[]).outcome(DEADLINE).code_in(&[1, 30]).refusal();
        assert_eq!(before.difference(&a.tree()), None, "cut after {at}");
    }
    world.sync(&a);
    for at in [1_000, 100_000, 10_000_000] {
        proxy.mend();
        proxy.cut_after(at);
        world.once_at(&b, proxy.addr, &[]).outcome(DEADLINE).code_in(&[1, 30]).refusal();
        assert!(!b.has("big") || b.read("big") == a.read("big"), "half a file, cut after {at}");
    }
    world.sync_all(&[&a, &b]);
}

#[test]
fn a_live_client_survives_cut_connections_and_converges() {
    let world = World::new();
    let proxy = Proxy::to(world.addr());
    let (a, b) = (world.folder("a"), world.folder("b"));
    let (_one, _other) = (world.live_at(&a, proxy.addr, &[]), world.live(&b));
    for round in 0..5 {
        a.write("big", random_bytes(round, 10_000_000));
        b.many(&format!("d{round}"), 50);
        thread::sleep(Duration::from_millis(20 + 30 * round));
        proxy.cut_now();
    }
    wait_until("equal", || a.has("d4") && a.tree() == b.tree());
}

/// Sends bytes to the server, then checks that it still works for everybody else.
fn server_survives(send: &[&[u8]]) {
    let mut world = World::new();
    let mut streams = Vec::new();
    for bytes in send {
        let mut stream = TcpStream::connect(world.addr()).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = stream.write_all(bytes);
        streams.push(stream);
    }
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.many("d", 20);
    world.sync_all(&[&a, &b]);
    assert!(world.server().process.is_running());
    let memory = world.server().process.memory_bytes_max().unwrap();
    assert!(memory < 128 << 20, "the server took {memory} bytes");
}

#[test]
fn a_client_that_talks_nonsense_does_no_harm() {
    let noise = random_bytes(2, 1_000_000);
    server_survives(&[
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &noise,
        &[0; 100_000],
        &[0xff; 100_000],
        b"",
        b"\n",
    ]);
}

#[test]
fn a_client_that_claims_a_huge_frame_does_no_harm() {
    let mut sends: Vec<Vec<u8>> = Vec::new();
    for len in [0_u32, 1, 8, 4095, 4097, 2 << 20, (2 << 20) + 1, 0x7fff_ffff, u32::MAX] {
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend_from_slice(&random_bytes(u64::from(len), 600));
        sends.push(bytes);
    }
    server_survives(&sends.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

#[test]
fn two_hundred_silent_connections_do_no_harm() {
    server_survives(&[b"".as_slice(); 200]);
}

#[test]
fn clients_that_hang_up_in_the_middle_do_no_harm() {
    let world = World::new();
    for i in 0..50_usize {
        let mut stream = TcpStream::connect(world.addr()).unwrap();
        let _ = stream.write_all(&random_bytes(3, i));
        let _ = stream.shutdown(Shutdown::Both);
    }
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "x");
    world.sync_all(&[&a, &b]);
}

#[test]
fn the_port_is_taken() {
    let world = World::new();
    let other = World::empty();
    let Err(outcome) = other.try_serve(other.store(), world.addr()) else {
        panic!("two servers on one port")
    };
    let line = outcome.refusal();
    assert!(line.contains(&world.addr().to_string()), "does not name the address: {line}");
}

#[test]
fn the_folder_is_a_file() {
    let world = World::new();
    let path = world.path().join("file");
    fs::write(&path, "precious").unwrap();
    let mut command = world.command(["sync", "--once", "--server"]);
    command.arg(world.addr().to_string()).arg(&path);
    let line = world.start("file", command).outcome(DEADLINE).code(1).refusal();
    assert!(line.contains("file"), "does not name the path: {line}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn the_store_is_a_file() {
    let world = World::empty();
    let path = world.path().join("a-file");
    fs::write(&path, "precious").unwrap();
    let Err(outcome) = world.try_serve(&path, free_addr()) else { panic!("served a file") };
    assert!(outcome.refusal().contains("a-file"));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn the_store_folder_holds_other_things() {
    let world = World::empty();
    let photos = world.folder("photos");
    photos.many("2026", 3);
    let before = photos.tree();
    let Err(outcome) = world.try_serve(photos.path(), free_addr()) else { panic!("took a folder of photos") };
    assert!(outcome.refusal().contains("photos"));
    assert_eq!(before.difference(&photos.tree()), None);
}

#[test]
fn a_store_folder_with_only_the_files_of_a_checkout_counts_as_empty() {
    let mut world = World::empty();
    let store = world.folder("store");
    store.write("README.md", "# store\n");
    store.write(".gitignore", "*\n");
    world.serve();
    let a = world.folder("a");
    a.write("x", "x");
    world.sync(&a);
    assert_eq!(store.text("README.md"), "# store\n");
    assert_eq!(store.text(".gitignore"), "*\n");
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_not_touched() {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("x", "x");
    world.sync(&a);
    world.stop_server();
    let marker = world.store().join("store.toml");
    let text = fs::read_to_string(&marker).unwrap();
    let newer: String = text.lines().map(|line| newer_version(line) + "\n").collect();
    assert_ne!(text, newer, "no version in store.toml:\n{text}");
    fs::write(&marker, &newer).unwrap();
    let before = Folder::at(world.store()).tree();
    let Err(outcome) = world.try_serve(world.store(), free_addr()) else {
        panic!("served a store of the future")
    };
    outcome.refusal();
    assert_eq!(fs::read_to_string(&marker).unwrap(), newer);
    for name in before.names() {
        assert!(world.store().join(&name).exists(), "{name} is gone");
    }
    fs::write(&marker, text).unwrap();
    world.serve();
    let b = world.folder("b");
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

/// `version = 1` and its like, with a number of the future.
fn newer_version(line: &str) -> String {
    match line.split_once('=') {
        Some((key, _)) if key.contains("format") || key.contains("version") => format!("{}= 4000", key),
        _ => line.to_owned(),
    }
}

#[test]
fn a_journal_that_is_garbage_is_refused_and_not_overwritten() {
    let mut world = World::new();
    let a = world.folder("a");
    a.many("d", 50);
    world.sync(&a);
    world.stop_server();
    let mut damaged = Vec::new();
    for entry in fs::read_dir(world.store().join("journal")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let garbage = random_bytes(4, usize::try_from(path.metadata().unwrap().len()).unwrap());
            fs::write(&path, &garbage).unwrap();
            damaged.push((path, garbage));
        }
    }
    assert!(!damaged.is_empty());
    match world.try_serve(world.store(), free_addr()) {
        Err(outcome) => {
            outcome.refusal();
            for (path, garbage) in damaged {
                assert_eq!(fs::read(path).unwrap(), garbage, "a damaged journal was overwritten");
            }
        }
        Ok(server) => {
            // Then it must not make anyone delete anything.
            world.once_at(&a, server.addr, &[]).outcome(DEADLINE);
            assert_eq!(a.tree().names().len(), 51);
        }
    }
}

#[test]
fn a_server_address_that_is_none() {
    let world = World::empty();
    let a = world.folder("a");
    for addr in ["", "nonsense", "127.0.0.1", "127.0.0.1:99999", ":", "host with blanks:1"] {
        let mut command = world.command(["sync", "--once", "--server", addr]);
        command.arg(a.path());
        let outcome = world.start("addr", command).outcome(DEADLINE).code_in(&[1, 2]);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
}

#[test]
fn a_share_or_device_name_that_is_too_long() {
    let world = World::new();
    let a = world.folder("a");
    let long = "n".repeat(65);
    for (flag, value) in [("--share", long.as_str()), ("--device", long.as_str()), ("--share", "")] {
        let outcome = world.once_with(&a, &[flag, value]).code_in(&[1, 2]);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
}

/// Passes connections on, and changes a byte of every 100 KB that go one way.
fn relay(to: SocketAddr, garbles_upload: bool) -> SocketAddr {
    fn pass(mut from: TcpStream, mut to: TcpStream, garbles: bool) {
        let (mut buffer, mut passed) = ([0; 16_384], 0);
        while let Ok(got) = from.read(&mut buffer) {
            if garbles && passed / 100_000 != (passed + got) / 100_000 {
                buffer[got / 2] ^= 1;
            }
            passed += got;
            if got == 0 || to.write_all(&buffer[..got]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
    listener(move |client| {
        let Ok(server) = TcpStream::connect(to) else { return };
        let (up, down) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
        thread::spawn(move || pass(up.0, up.1, garbles_upload));
        thread::spawn(move || pass(down.0, down.1, !garbles_upload));
    })
}

/// The folder did not change, and the server lacks nothing: neither may be blamed.
#[test]
fn a_relay_that_changes_bytes_is_named_as_the_cause() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("big", random_bytes(10, 3_000_000));
    let said = world.once_at(&a, relay(world.addr(), true), &[]).outcome(DEADLINE).code_in(&[1, 3]).stderr;
    assert!(!said.contains("keeps changing"), "{said}");
    world.sync(&a);
    let said = world.once_at(&b, relay(world.addr(), false), &[]).outcome(DEADLINE).code_in(&[1, 3]).stderr;
    assert!(said.contains("changes bytes") || !said.contains("lacks"), "{said}");
    world.sync_all(&[&a, &b]);
}

// No permission: as `nobody` when the tests run as root.

#[test]
fn unreadable_files_are_reported_and_the_rest_syncs() {
    let mut world = World::inside(Sandbox::unprivileged());
    world.serve();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("open", "open");
    a.write("closed file", "1");
    a.write("closed folder/x", "x");
    world.sandbox().give(a.path());
    world.sync(&a);
    world.sync(&b);
    a.write("closed file", "2");
    a.write("open", "edited");
    a.write("new", "new");
    world.sandbox().forbid(&a.join("closed file"));
    world.sandbox().forbid(&a.join("closed folder"));
    let said = world.once(&a).code(3).stderr;
    assert!(said.contains("closed file") && said.contains("closed folder"), "not named:\n{said}");
    world.sync(&b);
    assert_eq!(b.text("open"), "edited");
    assert_eq!(b.text("new"), "new");
    assert_eq!(b.text("closed file"), "1", "what cannot be read is never taken for deleted");
    assert_eq!(b.text("closed folder/x"), "x", "what cannot be read is never taken for deleted");
    for (name, mode) in [("closed file", 0o644), ("closed folder", 0o755)] {
        a.chmod(name, mode);
    }
    world.sandbox().give(a.path());
    world.sync(&a);
    world.sync(&b);
    assert_eq!(b.text("closed file"), "2");
}

#[test]
fn a_folder_inside_that_cannot_be_written_is_reported_and_the_rest_syncs() {
    let mut world = World::inside(Sandbox::unprivileged());
    world.serve();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("d/x", "1");
    world.sandbox().give(a.path());
    world.sync(&a);
    world.sync(&b);
    b.chmod("d", 0o555);
    a.write("d/x", "2");
    a.write("d/new", "new");
    a.write("rest", "rest");
    world.sandbox().give(a.path());
    world.sync(&a);
    let said = world.once(&b).code(3).stderr;
    assert!(said.contains('d'), "not named:\n{said}");
    assert_eq!(b.text("rest"), "rest");
    assert_eq!(b.text("d/x"), "1");
    world.sync(&a);
    assert_eq!(a.text("d/x"), "2", "what could not be written here was sent back as an old version");
    b.chmod("d", 0o755);
    world.sync_all(&[&a, &b]);
    assert_eq!(b.text("d/x"), "2");
}

#[test]
fn a_folder_that_cannot_be_written_at_all() {
    let mut world = World::inside(Sandbox::unprivileged());
    world.serve();
    let a = world.folder("a");
    a.write("x", "x");
    if is_root() {
        // Taken from `nobody` again.
        std::os::unix::fs::chown(a.path(), Some(0), Some(0)).unwrap();
    }
    a.chmod("", 0o555);
    let line = world.once(&a).code(1).refusal();
    assert!(line.contains("/a"), "does not name the folder: {line}");
    a.chmod("", 0o755);
    assert_eq!(a.text("x"), "x");
}

#[test]
fn a_store_that_cannot_be_written() {
    let world = World::inside(Sandbox::unprivileged());
    let parent = world.folder("closed");
    world.sandbox().forbid(parent.path());
    let Err(outcome) = world.try_serve(&parent.join("store"), free_addr()) else { panic!("served nothing") };
    assert!(outcome.refusal().contains("closed"));
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_store_of_another_user_is_not_said_to_be_none() {
    let world = World::inside(Sandbox::unprivileged());
    let store = world.folder("closed");
    world.sandbox().forbid(store.path());
    for command in ["devices", "invite", "stats", "gc", "check"] {
        let line = world.run([command, "--store", store.path().to_str().unwrap()]).code(1).refusal();
        assert!(line.contains("ermission denied") && !line.contains("no store"), "{line}");
    }
    fs::set_permissions(store.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

// Full disks: a few megabytes of memory mounted where only the processes of the test see them.

#[test]
fn the_disk_of_a_client_is_full() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&place.path().join("disk"), 12) else { return };
    let mut world = World::inside(Sandbox::on(&disk));
    world.serve();
    let a = world.folder("a");
    a.write("big", random_bytes(5, 30_000_000));
    for i in 0..30 {
        a.write(format!("big{i}"), random_bytes(6 + i, 1_000_000));
    }
    a.many("d", 50);
    world.sync(&a);
    let (b, seen) = (Folder::at(place.path().join("disk")), Folder::at(disk.seen()));
    seen.write("mine", "mine");
    let outcome = world.once(&b).code_in(&[1, 3]);
    assert!(
        outcome.stderr.contains("space") || outcome.stderr.contains("full"),
        "not clear:\n{}",
        outcome.stderr
    );
    let lines = outcome.stderr.lines().filter(|line| line.contains("full") || line.contains("space")).count();
    assert!((1..=3).contains(&lines), "not one clear line:\n{}", outcome.stderr);
    assert!(!seen.has("big"), "half a file");
    assert_eq!(seen.text("mine"), "mine");
    for (path, item) in &seen.tree().0 {
        let path = std::str::from_utf8(path).unwrap();
        assert!(path == "mine" || a.item(path).as_ref() == Some(item), "{path} is not what was sent");
    }
    disk.resize(100);
    world.sync(&b);
    world.sync(&a);
    assert_equal(&[&a, &seen]);
}

#[test]
fn the_disk_of_a_live_client_is_full_for_a_while() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&place.path().join("disk"), 12) else { return };
    let mut world = World::inside(Sandbox::on(&disk));
    world.serve();
    let a = world.folder("a");
    let (b, seen) = (Folder::at(place.path().join("disk")), Folder::at(disk.seen()));
    let (_one, mut other) = (world.live(&a), world.live(&b));
    a.write("small", "small");
    wait_until("connected", || seen.has("small"));
    a.write("big", random_bytes(6, 30_000_000));
    a.write("small", "after");
    wait_until("the rest goes on", || seen.text("small") == "after");
    thread::sleep(Duration::from_millis(500));
    assert!(other.process.is_running(), "gave up: {}", other.process.stderr());
    disk.resize(100);
    // Any change makes it look again.
    a.write("wake", "up");
    wait_until("complete", || seen.tree() == a.tree());
}

#[test]
fn the_disk_of_the_server_is_full() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&place.path().join("disk"), 120) else { return };
    let mut world = World::inside(Sandbox::on(&disk));
    world.set_store(place.path().join("disk"));
    world.serve();
    let addr = world.addr();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("first", "first");
    world.sync(&a);
    a.write("big", random_bytes(7, 150_000_000));
    let before = a.tree();
    let line = world.once(&a).code_in(&[1, 30]).refusal();
    assert!(!line.is_empty());
    assert_eq!(before.difference(&a.tree()), None);
    disk.resize(900);
    if !world.server().process.is_running() {
        // After a failed write it stops, and what it acknowledged is there when it starts again.
        world.serve_again(addr);
    }
    world.sync(&b);
    assert_eq!(b.text("first"), "first");
    assert!(!b.has("big") || b.read("big") == a.read("big"));
    world.once_start(&a, &[]).outcome(LONG_DEADLINE).code(0);
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

/// Below its reserve the server takes no new blocks: whoever brings some keeps them, and says everything else.
#[test]
fn a_server_without_room_takes_everything_but_new_blocks() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&place.path().join("disk"), 120) else { return };
    let mut world = World::inside(Sandbox::on(&disk));
    world.set_store(place.path().join("disk"));
    world.serve();
    let (a, b) = (world.folder("a"), world.folder("b"));
    for name in ["gone", "d/moved", "copied", "touched", "edited"] {
        a.write(name, [&random_bytes(8, 3_000), name.as_bytes()].concat());
    }
    world.sync_all(&[&a, &b]);
    disk.resize(50);
    let change = |round: u32| {
        a.write(format!("refused {round}"), format!("{round}"));
        a.write(format!("refused too {round}"), random_bytes(round.into(), 5_000_000));
        a.append("edited", "more");
    };
    change(1);
    a.remove("gone");
    a.rename("d", "e");
    a.copy("copied", "copy");
    a.chmod("touched", 0o755);
    for _ in 0..2 {
        let line = world.once(&a).code(1).refusal();
        assert!(line.contains("disk is full") && line.contains("edited and 2 more"), "{line}");
    }
    b.remove("copied");
    world.sync(&b);
    world.once(&a).code(1);
    let (whole, without) = (a.tree(), |name: &str| !name.contains("refused") && name != "edited");
    assert_eq!(names(&b, without), names(&a, without));
    assert!(b.has("copy") && b.has("e/moved") && b.mode("touched") & 0o100 != 0);
    assert!(!b.has("refused 1"));
    // The same for those that stay: said once, and sent when there is room again.
    let (mut one, _other) = (world.live(&a), world.live(&b));
    a.mkdir("from a");
    b.mkdir("from b");
    wait_until("goes on", || b.has("from a") && a.has("from b"));
    change(2);
    a.write("refused large", random_bytes(9, 40_000_000));
    a.mkdir("from a later");
    wait_until("goes on again", || b.has("from a later"));
    thread::sleep(Duration::from_millis(1500));
    assert!(one.process.is_running());
    let said = one.process.stderr();
    assert_eq!(said.matches("disk is full").count(), 1, "not once:\n{said}");
    assert!(!b.has("refused 2") && whole.difference(&a.tree()).is_some());
    disk.resize(900);
    wait_until("complete", || b.tree() == a.tree());
    wait_until("said to be in sync", || one.process.stderr().contains("is in sync"));
    let said = one.process.stderr();
    assert!(!said.contains("connected"), "connected again:\n{said}");
}

/// What is in a folder, apart from what waits.
fn names(folder: &Folder, filter: impl Fn(&str) -> bool) -> Vec<String> {
    folder.tree().names().into_iter().filter(|name| filter(name)).collect()
}

/// The index of a full disk is not damaged: put aside it would only take more room.
#[test]
fn a_full_disk_sets_no_index_aside() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&place.path().join("disk"), 60) else { return };
    let mut world = World::inside(Sandbox::on(&disk));
    world.set_store(place.path().join("disk"));
    world.serve();
    let (a, store) = (world.folder("a"), Folder::at(disk.seen()));
    a.mkdir("x");
    world.sync(&a);
    world.stop_server();
    store.write("db.suspect", "");
    disk.resize(6);
    let Err(outcome) = world.try_serve(world.store(), free_addr()) else { panic!("served on a full disk") };
    let line = outcome.refusal();
    assert!(line.contains("full"), "not clear: {line}");
    assert!(store.has("db") && !store.has("db.corrupt-1"));
    disk.resize(200);
    world.serve();
    let b = world.folder("b");
    world.sync(&b);
    assert_equal(&[&a, &b]);
}

/// Not the name of a file inside, nor where a database passed its errors on.
#[test]
fn a_hub_whose_disk_is_full_says_so_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&place.path().join("disk"), 1) else { return };
    let mut world = World::inside(Sandbox::on(&disk));
    let store = Folder::at(disk.seen().join("store"));
    world.set_store(place.path().join("disk/store"));
    let fill = |name: &str| {
        let mut file = fs::File::create(disk.seen().join(name)).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    };
    let refused = |world: &World| {
        let Err(outcome) = world.try_serve(world.store(), free_addr()) else {
            panic!("served on a full disk")
        };
        let line = outcome.code(1).refusal();
        assert!(line.contains("is full") && line.contains("make room"), "not clear: {line}");
        assert!(!line.contains(".rs") && !line.contains("sled"), "not for people: {line}");
    };
    fill("fill");
    refused(&world);
    disk.resize(4);
    world.serve();
    world.stop_server();
    fill("more");
    refused(&world);
    store.remove("db");
    fill("rest");
    refused(&world);
    disk.resize(40);
    world.serve();
}

#[test]
fn what_is_wrong_with_a_store_is_said_once_and_for_people() {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("x", "1");
    world.sync(&a);
    world.stop_server();
    fs::remove_dir_all(world.store().join("db")).unwrap();
    world.serve();
    let said = world.server().process.stderr();
    assert_eq!(said.matches("built anew").count(), 1, "{said}");
    assert!(!said.contains("RebuiltIndex"), "{said}");
}

#[test]
fn a_working_directory_that_was_deleted_is_named_as_the_cause() {
    let world = World::new();
    let gone = world.path().join("gone");
    let lines = [["sync", "."], ["sync", "x"], ["serve", "--store=s"], ["log", "."]].map(|args| {
        fs::create_dir(&gone).unwrap();
        let mut command = world.command(args);
        if args[0] == "serve" {
            command.arg("--listen=127.0.0.1:0");
        }
        command.current_dir(&gone);
        // Gone when the program starts, there when it is forked.
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "cd \"$0\" && rmdir \"$0\" && exec \"$@\""]).arg(&gone);
        shell.arg(command.get_program()).args(command.get_args());
        shell.env_clear().envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        world.start("gone", shell).outcome(DEADLINE).refusal()
    });
    assert!(lines.iter().all(|line| line.contains("the working directory was deleted")), "{lines:#?}");
}

#[test]
fn a_hub_listens_where_a_name_leads() {
    let world = World::empty();
    let mut command = world.command(["serve", "--listen", "localhost:0", "--store"]);
    command.arg(world.store());
    let server = world.try_serve_as(command).unwrap();
    assert!(server.addr.ip().is_loopback() && server.addr.is_ipv4());
    let a = world.folder("a");
    world.once_at(&a, server.addr, &[]).outcome(DEADLINE).code(0);
    for (place, what) in
        [("7420", "for example"), (":1", "for example"), ("no.such.invalid:1", "cannot listen on")]
    {
        let line = world.run(["serve", "--store", "other", "--listen", place]);
        assert!(line.code.is_some_and(|code| code != 0) && line.stderr.contains(what), "{}", line.stderr);
        assert!(!world.path().join("other").exists());
    }
}

/// What it acknowledged from then on would be in files that nobody can find.
#[test]
fn a_hub_whose_store_is_removed_or_replaced_under_it_ends() {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("x", "1");
    world.sync(&a);
    let addr = world.addr();
    let mut client = world.live(&a);
    client.process.wait_output("is in sync");
    fs::rename(world.store(), world.path().join("elsewhere")).unwrap();
    let ended = world.server().process.outcome(DEADLINE).code(1);
    assert!(ended.stderr.contains("was removed or replaced"), "{}", ended.stderr);
    a.write("y", "2");
    world.once_at(&world.folder("b"), addr, &[]).outcome(DEADLINE).code(1);
    // The client offers what it has to the store that is there next.
    world.serve_again(addr);
    client.process.wait_output("does not know this folder's past");
    client.process.wait_output("connected to");
    client.stop();
    let b = world.folder("b");
    world.sync_all(&[&a, &b]);
    assert_eq!((b.text("x"), b.text("y")), ("1".into(), "2".into()));
}

/// Or neither the hub nor another folder in it could be used any more.
#[test]
fn a_folder_that_was_named_by_mistake_is_left_as_it_was() {
    let mut world = World::new();
    let whole = Folder::at(world.path());
    let inner = world.folder("inner");
    inner.write("x", "1");
    let line = world.once(&whole).code(1).stderr;
    assert!(line.contains("is the store of this server"), "{line}");
    assert!(!whole.has(".dropblock"));
    world.once_at(&whole, free_addr(), &[]).outcome(DEADLINE).code(1);
    assert!(!whole.has(".dropblock"));
    world.stop_server();
    world.serve();
    world.sync(&inner);
    // What was synced keeps what it knows.
    world.once_at(&inner, free_addr(), &[]).outcome(DEADLINE).code(1);
    assert!(inner.has(".dropblock/state"));
}

#[test]
fn root_is_told_what_was_not_tested() {
    // So that a run without rights shows in one place what it left out.
    if !is_root() {
        skipped("full disks need root");
    }
}

#[test]
fn a_folder_or_a_store_inside_a_synced_folder_is_refused() {
    let world = World::new();
    let a = world.folder("a");
    a.mkdir("in");
    world.sync(&a);
    let inner = a.join("in");
    let line = world.run(["sync", inner.to_str().unwrap(), "--once"]).refusal();
    assert!(line.contains("a synced folder"), "{line}");
    let refused = world.try_serve(&inner, "127.0.0.1:0".parse().unwrap()).err().expect("served");
    assert!(refused.refusal().contains("a synced folder"));
    assert!(!a.has("in/.dropblock") && !a.has("in/store.toml"));
    world.sync(&a);
}

#[test]
fn the_store_inside_the_folder_is_refused_and_so_is_a_folder_inside_the_store() {
    let mut world = World::empty();
    let a = world.folder("a");
    a.mkdir("below");
    world.set_store(a.join("below/store"));
    world.serve();
    let once = world.once(&a).code(1);
    assert!(once.stderr.contains("a/below/store is the store of this server"), "{}", once.stderr);
    let mut live = world.live(&a);
    let live = live.process.outcome(DEADLINE).code(1);
    assert!(live.stderr.contains("is the store of this server"), "{}", live.stderr);
    let packs = a.join("below/store/packs");
    let line = world.run(["sync", packs.to_str().unwrap(), "--once"]).refusal();
    assert!(line.contains("or a store"), "{line}");
    assert!(!packs.join(".dropblock").exists());
}

/// Lines for people that nobody can read are no reason to stop.
#[test]
fn a_terminal_that_is_gone_and_a_full_log_end_nothing() {
    let world = World::new();
    let a = world.folder("a");
    a.write("x", "1");
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut once = world.sync_command(&a, world.addr(), &["--once"]);
    assert_eq!(once.stderr(full()).stdout(full()).status().unwrap().code(), Some(0));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut live = world.sync_command(&a, world.addr(), &["-vvv"]);
    let mut live = live.stderr(writer.try_clone().unwrap()).stdout(writer).spawn().unwrap();
    let b = world.folder("b");
    b.write("y", "2");
    world.sync(&b);
    wait_until("synced", || a.has("y"));
    let pid = rustix::process::Pid::from_child(&live);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(live.wait().unwrap().code(), Some(0));
}
