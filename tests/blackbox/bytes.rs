//! How many bytes cross the network for a change, counted by a proxy between client and server.
//!
//! The bounds are looser than the aims, so that they tell a feature that is gone from a feature that is a little worse.

use crate::support::disk::Folder;
use crate::support::line::Line;
use crate::support::proxy::Proxy;
use crate::support::world::{World, assert_equal};
use crate::support::{random_bytes, text};
use std::time::{Duration, Instant};

/// The largest chunk, bytes.
const CHUNK_BYTES_MAX: u64 = 256 * 1024;

/// Bytes both ways between the first client and the server until the second has what `change` did.
fn cost(line: &Line, change: impl FnOnce(&Folder)) -> u64 {
    line.cost("a change", change).push
}

#[test]
fn one_line_in_a_text_of_40_kib() {
    let line = Line::with(|a| {
        a.write("t", text(1, 40 * 1024));
        a.many("others", 500);
    });
    let bytes = cost(&line, |a| a.patch("t", 20_000, "edited"));
    assert!(bytes <= 4 * 1024 + 40 * 1024, "{bytes} bytes");
}

#[test]
fn one_byte_at_the_front_of_64_mib() {
    let bytes = random_bytes(2, 64 << 20);
    let line = Line::with(|a| a.write("b", &bytes));
    let bytes = cost(&line, |a| a.save("b", [b"!".as_slice(), &bytes].concat()));
    assert!(bytes <= 300 * 1024, "{bytes} bytes");
}

#[test]
fn four_kib_in_the_middle_of_64_mib() {
    let line = Line::with(|a| a.write("b", random_bytes(3, 64 << 20)));
    let bytes = cost(&line, |a| a.patch("b", 33 << 20, random_bytes(4, 4096)));
    assert!(bytes <= CHUNK_BYTES_MAX * 2 + 32 * 1024, "{bytes} bytes");
}

#[test]
fn an_append_to_64_mib() {
    let line = Line::with(|a| a.write("b", random_bytes(5, 64 << 20)));
    let bytes = cost(&line, |a| a.append("b", random_bytes(6, 1000)));
    assert!(bytes <= CHUNK_BYTES_MAX + 32 * 1024, "{bytes} bytes");
}

#[test]
fn a_rename_of_a_large_file() {
    let line = Line::with(|a| a.write("b", random_bytes(7, 64 << 20)));
    let bytes = cost(&line, |a| a.rename("b", "renamed"));
    assert!(bytes <= 2 * 1024, "{bytes} bytes");
}

#[test]
fn a_rename_of_a_folder_of_500_files() {
    let line = Line::with(|a| a.many("d", 500));
    let bytes = cost(&line, |a| a.rename("d", "renamed"));
    assert!(bytes <= 2 * 1024, "{bytes} bytes");
}

#[test]
fn a_copy_of_64_mib() {
    let line = Line::with(|a| a.write("b", random_bytes(8, 64 << 20)));
    let bytes = cost(&line, |a| a.copy("b", "copy"));
    assert!(bytes <= 128 * 1024, "{bytes} bytes");
}

#[test]
fn a_touch_and_an_exec_bit() {
    let line = Line::with(|a| a.write("b", random_bytes(9, 16 << 20)));
    let bytes = cost(&line, |a| {
        a.set_mtime("b", 1_000_000_000, 1);
        a.chmod("b", 0o755);
    });
    assert!(bytes <= 4 * 1024, "{bytes} bytes");
}

#[test]
fn a_file_of_one_byte() {
    let line = Line::with(|_| {});
    let bytes = cost(&line, |a| a.write("x", "x"));
    assert!(bytes <= 2 * 1024, "{bytes} bytes");
}

#[test]
fn a_delete_of_a_folder_of_500_files() {
    let line = Line::with(|a| {
        a.many("d", 500);
        a.many("kept", 500);
    });
    let bytes = cost(&line, |a| a.remove("d"));
    assert!(bytes <= 64 * 1024, "{bytes} bytes");
}

#[test]
fn text_is_compressed() {
    let line = Line::with(|_| {});
    let bytes = cost(&line, |a| a.write("t", text(10, 4_000_000)));
    assert!(bytes <= 2_000_000, "{bytes} bytes");
}

/// A network that everybody waits for is given less, for more work; both store the same.
#[test]
fn text_is_compressed_harder_for_a_slow_network() {
    let world = World::new();
    let proxy = Proxy::to(world.addr());
    let (a, b) = (world.folder("a"), world.folder("b"));
    (0..150).for_each(|n| a.write(format!("{n}"), text(n, 120_000)));
    proxy.slow_down(3_000_000);
    world.once_at(&a, proxy.addr, &[]).outcome(crate::support::DEADLINE).code(0);
    let cost = proxy.up();
    eprintln!("18 MB of text up a slow line: {cost}");
    world.sync(&b);
    assert_equal(&[&a, &b]);
    // 4.05 MB at the usual level.
    assert!(cost <= 3_900_000, "{cost} bytes");
}

#[test]
fn random_bytes_cost_little_more_than_themselves() {
    let line = Line::with(|_| {});
    let bytes = cost(&line, |a| a.write("b", random_bytes(11, 20_000_000)));
    assert!(bytes <= 20_400_000, "{bytes} bytes");
}

#[test]
fn zeros_cost_next_to_nothing() {
    let line = Line::with(|_| {});
    let bytes = cost(&line, |a| a.set_len("sparse", 200_000_000));
    assert!(bytes <= 500_000, "{bytes} bytes");
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
    assert_equal(&[&a, &b]);
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
    assert_equal(&[&a, &b]);
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
