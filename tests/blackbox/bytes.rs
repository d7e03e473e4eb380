//! How many bytes cross the network for a change, counted by a proxy between client and server.
//!
//! The bounds are looser than the aims, so that they tell a feature that is gone from a feature that is a little worse.

use crate::support::disk::Folder;
use crate::support::proxy::Proxy;
use crate::support::world::{Client, World, wait_tree};
use crate::support::{random_bytes, text};
use std::time::{Duration, Instant};

/// The largest chunk, bytes.
const CHUNK_BYTES_MAX: u64 = 256 * 1024;

/// Two live clients; the first through a proxy that counts. Polls are rare, so that they do not count.
struct Line {
    _clients: Vec<Client>,
    proxy: Proxy,
    a: Folder,
    b: Folder,
    _world: World,
}

impl Line {
    /// Starts with what `prepare` makes, in sync on both sides.
    fn with(prepare: impl Fn(&Folder)) -> Self {
        let world = World::new();
        let proxy = Proxy::to(world.addr());
        let (a, b) = (world.folder("a"), world.folder("b"));
        prepare(&a);
        let clients = vec![
            world.live_at(&a, proxy.addr, &["--poll", "3600"]),
            world.live_at(&b, world.addr(), &["--poll", "3600"]),
        ];
        a.write("connected", "a");
        wait_tree(&[&b], &a.tree());
        b.write("connected", "b");
        wait_tree(&[&a], &b.tree());
        Self { _clients: clients, proxy, a, b, _world: world }
    }

    /// Bytes both ways between a and the server until b has what `change` did.
    fn cost(&self, change: impl Fn(&Folder)) -> u64 {
        let before = self.proxy.bytes_when_quiet();
        change(&self.a);
        wait_tree(&[&self.b], &self.a.tree());
        self.proxy.bytes_when_quiet() - before
    }
}

#[test]
fn one_line_in_a_text_of_40_kib() {
    let line = Line::with(|a| {
        a.write("t", text(1, 40 * 1024));
        a.many("others", 500);
    });
    let cost = line.cost(|a| a.patch("t", 20_000, "edited"));
    assert!(cost <= 4 * 1024 + 40 * 1024, "{cost} bytes");
}

#[test]
fn one_byte_at_the_front_of_64_mib() {
    let bytes = random_bytes(2, 64 << 20);
    let line = Line::with(|a| a.write("b", &bytes));
    let cost = line.cost(|a| a.save("b", [b"!".as_slice(), &bytes].concat()));
    assert!(cost <= 300 * 1024, "{cost} bytes");
}

#[test]
fn four_kib_in_the_middle_of_64_mib() {
    let line = Line::with(|a| a.write("b", random_bytes(3, 64 << 20)));
    let cost = line.cost(|a| a.patch("b", 33 << 20, random_bytes(4, 4096)));
    assert!(cost <= CHUNK_BYTES_MAX * 2 + 32 * 1024, "{cost} bytes");
}

#[test]
fn an_append_to_64_mib() {
    let line = Line::with(|a| a.write("b", random_bytes(5, 64 << 20)));
    let cost = line.cost(|a| a.append("b", random_bytes(6, 1000)));
    assert!(cost <= CHUNK_BYTES_MAX + 32 * 1024, "{cost} bytes");
}

#[test]
fn a_rename_of_a_large_file() {
    let line = Line::with(|a| a.write("b", random_bytes(7, 64 << 20)));
    let cost = line.cost(|a| a.rename("b", "renamed"));
    assert!(cost <= 2 * 1024, "{cost} bytes");
}

#[test]
fn a_rename_of_a_folder_of_500_files() {
    let line = Line::with(|a| a.many("d", 500));
    let cost = line.cost(|a| a.rename("d", "renamed"));
    assert!(cost <= 2 * 1024, "{cost} bytes");
}

#[test]
fn a_copy_of_64_mib() {
    let line = Line::with(|a| a.write("b", random_bytes(8, 64 << 20)));
    let cost = line.cost(|a| a.copy("b", "copy"));
    assert!(cost <= 128 * 1024, "{cost} bytes");
}

#[test]
fn a_touch_and_an_exec_bit() {
    let line = Line::with(|a| a.write("b", random_bytes(9, 16 << 20)));
    let cost = line.cost(|a| {
        a.set_mtime("b", 1_000_000_000, 1);
        a.chmod("b", 0o755);
    });
    assert!(cost <= 4 * 1024, "{cost} bytes");
}

#[test]
fn a_file_of_one_byte() {
    let line = Line::with(|_| {});
    let cost = line.cost(|a| a.write("x", "x"));
    assert!(cost <= 2 * 1024, "{cost} bytes");
}

#[test]
fn a_delete_of_a_folder_of_500_files() {
    let line = Line::with(|a| {
        a.many("d", 500);
        a.many("kept", 500);
    });
    let cost = line.cost(|a| a.remove("d"));
    assert!(cost <= 64 * 1024, "{cost} bytes");
}

#[test]
fn text_is_compressed() {
    let line = Line::with(|_| {});
    let cost = line.cost(|a| a.write("t", text(10, 4_000_000)));
    assert!(cost <= 2_000_000, "{cost} bytes");
}

#[test]
fn random_bytes_cost_little_more_than_themselves() {
    let line = Line::with(|_| {});
    let cost = line.cost(|a| a.write("b", random_bytes(11, 20_000_000)));
    assert!(cost <= 20_400_000, "{cost} bytes");
}

#[test]
fn zeros_cost_next_to_nothing() {
    let line = Line::with(|_| {});
    let cost = line.cost(|a| a.set_len("sparse", 200_000_000));
    assert!(cost <= 500_000, "{cost} bytes");
}

#[test]
fn bytes_that_the_server_has_are_not_sent_by_another_client() {
    let world = World::new();
    let proxy = Proxy::to(world.addr());
    let (a, b) = (world.folder("a"), world.folder("b"));
    for folder in [&a, &b] {
        folder.write("b", random_bytes(12, 20_000_000));
    }
    world.sync(&a);
    world.once_at(&b, proxy.addr, &[]).outcome(crate::support::DEADLINE).code(0);
    assert!(proxy.bytes() <= 200 * 1024, "{} bytes", proxy.bytes());
}

#[test]
fn a_once_with_nothing_to_do() {
    let world = World::new();
    let proxy = Proxy::to(world.addr());
    let a = world.folder("a");
    a.many("d", 1_000);
    world.sync(&a);
    world.once_at(&a, proxy.addr, &[]).outcome(crate::support::DEADLINE).code(0);
    assert!(proxy.bytes() <= 4 * 1024, "{} bytes", proxy.bytes());
}

#[test]
fn an_interrupted_upload_goes_on_where_it_was() {
    let world = World::new();
    let proxy = Proxy::to(world.addr());
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("b", random_bytes(13, 40_000_000));
    for _ in 0..3 {
        proxy.mend();
        proxy.cut_after(10_000_000);
        world.once_at(&a, proxy.addr, &[]).outcome(crate::support::DEADLINE).code_in(&[1, 30]);
    }
    proxy.mend();
    world.once_at(&a, proxy.addr, &[]).outcome(crate::support::DEADLINE).code(0);
    // What was in flight at each cut may be sent again.
    assert!(proxy.up() <= 40_000_000 + 3 * 6_000_000, "{} bytes up for 40 MB", proxy.up());
    world.sync(&b);
    crate::support::world::assert_equal(&[&a, &b]);
}

#[test]
fn an_interrupted_download_goes_on_where_it_was() {
    let world = World::new();
    let proxy = Proxy::to(world.addr());
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("b", random_bytes(14, 40_000_000));
    world.sync(&a);
    for _ in 0..3 {
        proxy.mend();
        proxy.cut_after(10_000_000);
        world.once_at(&b, proxy.addr, &[]).outcome(crate::support::DEADLINE).code_in(&[1, 30]);
    }
    proxy.mend();
    world.once_at(&b, proxy.addr, &[]).outcome(crate::support::DEADLINE).code(0);
    assert!(proxy.down() <= 40_000_000 + 3 * 6_000_000, "{} bytes down for 40 MB", proxy.down());
    crate::support::world::assert_equal(&[&a, &b]);
}

#[test]
fn idle_polls() {
    let world = World::new();
    let proxy = Proxy::to(world.addr());
    let a = world.folder("a");
    a.many("d", 500);
    world.sync(&a);
    let _client = world.live_at(&a, proxy.addr, &["--poll", "1"]);
    // The handshake and the first look do not count.
    std::thread::sleep(Duration::from_secs(3));
    let (before, start) = (proxy.bytes(), Instant::now());
    std::thread::sleep(Duration::from_secs(6));
    let polls = start.elapsed().as_secs() + 1;
    let cost = proxy.bytes() - before;
    assert!(before > 0, "not connected");
    assert!(cost <= 100 * polls, "{cost} bytes in {polls} polls");
}
