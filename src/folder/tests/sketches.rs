//! Sketches come back, are bounded, and never harm.

use super::World;
use crate::block::sketch;
use crate::model::BlockHash;

fn sums(seed: u16, count: u16) -> Vec<u16> {
    (0..count).map(|i| i.wrapping_mul(seed)).collect()
}

#[test]
fn small_sketches_come_back_also_after_a_restart() {
    let mut world = World::new();
    let root = |i: u16| BlockHash::of(&i.to_le_bytes());
    for i in 0..300 {
        world.folder.keep_small_sketch(&root(i), &sums(i, i % 40));
    }
    assert_eq!(world.folder.small_sketch(&root(7)), Some(sums(7, 7)), "before it is written");
    assert_eq!(world.folder.small_sketch(&root(999)), None);
    world.folder.prune_sketches(&[].into()).unwrap();
    world = world.restart();
    for i in 0..300 {
        assert_eq!(world.folder.small_sketch(&root(i)), Some(sums(i, i % 40)), "{i}");
    }
    world.folder.keep_small_sketch(&root(1000), &sums(3, 9));
    assert_eq!(world.folder.small_sketch(&root(1000)), Some(sums(3, 9)));
}

#[test]
fn after_a_torn_end_what_is_before_it_is_there_and_new_ones_are_kept() {
    let mut world = World::new();
    let root = |i: u16| BlockHash::of(&i.to_le_bytes());
    for i in 0..10 {
        world.folder.keep_small_sketch(&root(i), &sums(i, 20));
    }
    world.folder.prune_sketches(&[].into()).unwrap();
    let path = world.path(".dropblock/sketches/small-0");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    world = world.restart();
    world.folder.keep_small_sketch(&root(50), &sums(1, 5));
    assert_eq!(world.folder.small_sketch(&root(8)), Some(sums(8, 20)));
    assert_eq!(world.folder.small_sketch(&root(9)), None);
    assert_eq!(world.folder.small_sketch(&root(50)), Some(sums(1, 5)));
    std::fs::write(&path, [0xFF; 100]).unwrap();
    world = world.restart();
    assert_eq!(world.folder.small_sketch(&root(1)), None);
}

#[test]
fn small_sketches_are_bounded_and_the_latest_stay() {
    let world = World::new();
    let root = |i: u32| BlockHash::of(&i.to_le_bytes());
    let large = sums(1, 4096);
    for i in 0..10_000 {
        world.folder.keep_small_sketch(&root(i), &large);
    }
    let size = |name: &str| {
        std::fs::metadata(world.path(&format!(".dropblock/sketches/{name}"))).map_or(0, |m| m.len())
    };
    assert!(size("small-0") + size("small-1") <= 66 << 20);
    assert!(world.folder.small_sketch(&root(9_999)).is_some());
    assert!(world.folder.small_sketch(&root(0)).is_none());
}

#[test]
fn sums_of_large_files_are_found_by_offset_in_whatever_order_they_were_written() {
    let world = World::new();
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cuts = [0usize, 70_001, 140_000, 172_768, 300_000];
    let file = world.folder.begin_sketch(300_000).unwrap();
    for pair in cuts.windows(2).rev() {
        file.take(pair[0] as u64, &bytes[pair[0]..pair[1]]);
    }
    let root = BlockHash::of(b"large");
    world.folder.end_sketch(&file, Some(&root));
    let kept = world.folder.kept_sketch(&root).unwrap();
    for pair in cuts.windows(2) {
        let mut expected = Vec::new();
        sketch::append(&mut expected, &bytes[pair[0]..pair[1]], kept.grain());
        assert_eq!(kept.sums(pair[0] as u64, pair[1] - pair[0]), Some(expected));
    }
    assert_eq!(kept.sums(10_000_000, 100), None);
    let given_up = world.folder.begin_sketch(10).unwrap();
    world.folder.end_sketch(&given_up, None);
    world.folder.prune_sketches(&[root].into()).unwrap();
    assert!(world.folder.kept_sketch(&root).is_some());
    world.folder.prune_sketches(&[].into()).unwrap();
    assert!(world.folder.kept_sketch(&root).is_none());
    assert_eq!(std::fs::read_dir(world.path(".dropblock/sketches")).unwrap().count(), 0);
}
