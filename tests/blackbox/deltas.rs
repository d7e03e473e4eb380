//! Deltas whose ground is gone or false: what arrives is right, only the bytes on the way are more.

use crate::support::disk::Folder;
use crate::support::proxy::Proxy;
use crate::support::world::{World, assert_equal, wait_tree};
use crate::support::{DEADLINE, random_bytes, text};
use std::fs;

/// Syncs once through a proxy; the bytes that passed.
fn sync_counted(world: &World, folder: &Folder) -> u64 {
    let proxy = Proxy::to(world.addr());
    world.once_at(folder, proxy.addr, &[]).outcome(DEADLINE).code(0);
    proxy.bytes_when_quiet()
}

/// The records of a file of small sketches: where the sums of the content with this root are.
fn sums_of(bytes: &[u8], content: &[u8]) -> std::ops::Range<usize> {
    let key = blake3::hash(content);
    let mut at = 0;
    while at < bytes.len() {
        let count = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        let sums = at + 12..at + 12 + 2 * count;
        if bytes[at..at + 8] == key.as_bytes()[..8] {
            return sums;
        }
        at = sums.end;
    }
    panic!("no sketch");
}

#[test]
fn a_sketch_that_lies_costs_the_block_and_nothing_else() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let old = random_bytes(1, 40_000);
    let mut new = old.clone();
    new[100..20_000].copy_from_slice(&random_bytes(2, 19_900));
    a.write("f", &old);
    a.write("twin of the next version", &new);
    world.sync(&a);
    // The old file is said to hold what the new one will.
    let path = a.join(".dropblock/sketches/small-0");
    let mut bytes = fs::read(&path).unwrap();
    let (from, to) = (sums_of(&bytes, &new), sums_of(&bytes, &old));
    bytes.copy_within(from, to.start);
    fs::write(&path, bytes).unwrap();
    let last = new.len() - 1;
    new[last] ^= 1;
    a.write("f", &new);
    let cost = sync_counted(&world, &a);
    assert!((40_000..45_000).contains(&cost), "{cost} bytes");
    world.sync(&b);
    assert_equal(&[&a, &b]);
    assert_eq!(b.read("f"), new);
}

#[test]
fn sketches_may_be_deleted_or_damaged_at_any_time() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("small", text(1, 30_000));
    a.write("large", random_bytes(3, 3_000_000));
    world.sync(&a);
    for round in 0..3 {
        let dir = a.join(".dropblock/sketches");
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            match round {
                0 => fs::remove_file(path).unwrap(),
                1 => fs::write(path, random_bytes(9, 5_000)).unwrap(),
                _ => fs::write(path, []).unwrap(),
            }
        }
        a.patch("small", 5_000, format!("round {round}"));
        a.patch("large", 1_000_000, format!("round {round}"));
        world.sync(&a);
        world.sync(&b);
        assert_equal(&[&a, &b]);
    }
}

#[test]
fn a_receiver_that_edited_the_base_meanwhile_still_gets_the_new_block() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let old = text(4, 60_000);
    a.write("f", &old);
    a.write("g", random_bytes(5, 2_000_000));
    world.sync(&a);
    world.sync(&b);
    a.patch("f", 1_000, "from a");
    a.patch("g", 1_000, "from a");
    world.sync(&a);
    b.patch("f", 50_000, "from b");
    b.patch("g", 1_500_000, "from b");
    world.sync(&b);
    world.sync(&a);
    let tree = assert_equal(&[&a, &b]);
    let names = tree.names();
    assert_eq!(names.iter().filter(|name| name.contains("conflict")).count(), 2, "{names:?}");
}

#[test]
fn a_live_client_that_was_away_gets_deltas_when_it_comes_back() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("t", text(6, 40_000));
    a.write("g", random_bytes(7, 4_000_000));
    world.sync(&a);
    world.sync(&b);
    a.patch("t", 20_000, "edited");
    a.patch("g", 2_000_000, "edited");
    world.sync(&a);
    let proxy = Proxy::to(world.addr());
    let _live = world.live_at(&b, proxy.addr, &[]);
    wait_tree(&[&b], &a.tree());
    assert!(proxy.bytes_when_quiet() <= 5_000, "{} bytes", proxy.bytes());
}
