//! Taking chunks from files that are here, trusted and not.

use super::*;
use crate::chunk::{V1, chunk_lengths};
use crate::model::hash::expand;
use crate::model::{FileContent, IdSource, Name};
use std::os::unix::fs::FileExt;

/// The chunks and the content of a file.
fn cut(bytes: &[u8]) -> (Vec<ChunkRef>, FileContent) {
    let (mut chunks, mut offset) = (Vec::new(), 0);
    let mut builder = Builder::new(V1.id());
    for len in chunk_lengths(bytes, &V1) {
        let hash = BlockHash::of(&bytes[offset..offset + len]);
        builder.push(hash, len as u64).unwrap();
        chunks.push(ChunkRef { hash, offset: offset as u64, len: u32::try_from(len).unwrap() });
        offset += len;
    }
    (chunks, builder.finish().unwrap().0)
}

struct World {
    _temp: tempfile::TempDir,
    folder: Folder,
    source: Source,
    old: Vec<u8>,
}

impl World {
    /// A folder with a file of some MiB whose chunks are known.
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut old = vec![0; 3 << 20];
        expand(&[8; 32], 0, &mut old);
        old[1 << 20..(1 << 20) + 600_000].fill(0);
        std::fs::write(temp.path().join("old"), &old).unwrap();
        let folder = Folder::open(temp.path(), true).unwrap();
        let (chunks, content) = cut(&old);
        let list: Vec<_> = chunks.iter().map(|chunk| (chunk.hash, u64::from(chunk.len))).collect();
        known::remember(&folder, &content, &list);
        let path = RelPath::from_names(vec![Name::new(b"old").unwrap()]);
        let stamp = Some(folder.look(&path).unwrap().unwrap().stamp);
        Self { _temp: temp, folder, source: Source { path, content, stamp }, old }
    }

    fn take(&self, rest: Option<Duration>, new: &[u8]) -> (Vec<ChunkRef>, Vec<u8>, u64, Reusable) {
        let (chunks, content) = cut(new);
        let reusable = Reusable::open(&self.folder, std::slice::from_ref(&self.source), rest);
        let file = StagedFile::create(&self.folder, IdSource::new([1; 32]).node(), &content).unwrap();
        let counters = Counters::default();
        let looking = Looking { inline: &HashMap::new(), counters: &counters, on_bytes: &|_| {} };
        let absent = take_here(&looking, &file, &reusable, chunks).unwrap();
        let mut staged = vec![0; new.len()];
        file.read_at(0, &mut staged).unwrap();
        file.discard(&self.folder).unwrap();
        (absent, staged, counters.bytes_reused.get(), reusable)
    }
}

#[test]
fn what_is_in_the_old_file_is_taken_from_it_trusted_or_not_and_the_rest_is_absent() {
    let world = World::new();
    let mut new = world.old.clone();
    new.splice(500..500, [1, 2, 3]);
    new[2_500_000] ^= 1;
    for rest in [None, Some(Duration::ZERO)] {
        let (absent, staged, reused, reusable) = world.take(rest, &new);
        assert_eq!(reusable.files[0].trusted.is_some(), rest.is_some());
        assert!((2..=6).contains(&absent.len()), "{}", absent.len());
        let mut expected = new.clone();
        for chunk in &absent {
            let start = usize::try_from(chunk.offset).unwrap();
            expected[start..start + chunk.len as usize].fill(0);
        }
        assert!(staged == expected);
        let lacking: u64 = absent.iter().map(|chunk| u64::from(chunk.len)).sum();
        assert_eq!(reused + lacking, new.len() as u64);
        assert!(reusable.kept_still(&world.folder));
    }
}

#[test]
fn a_file_that_looks_otherwise_or_changed_lately_is_hashed_and_one_that_changes_meanwhile_is_noticed() {
    let mut world = World::new();
    assert!(world.take(Some(Duration::from_secs(3600)), &world.old.clone()).3.files[0].trusted.is_none());
    let (.., reusable) = world.take(Some(Duration::ZERO), &world.old.clone());
    let path = world.folder.path().join("old");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"changed", 2_000_000).unwrap();
    assert!(!reusable.kept_still(&world.folder));
    let (absent, _, _, reusable) = world.take(Some(Duration::ZERO), &world.old.clone());
    assert_eq!((absent.len(), reusable.files[0].trusted), (1, None));
    // Shorter than it should be, and yet believed: what it lacks is absent.
    file.set_len(1_500_000).unwrap();
    world.source.stamp = Some(world.folder.look(&world.source.path).unwrap().unwrap().stamp);
    let (absent, ..) = world.take(Some(Duration::ZERO), &world.old.clone());
    assert!(!absent.is_empty());
}
