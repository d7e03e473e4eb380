//! Taking chunks from files that are here.

use super::super::fresh::Fresh;
use super::*;
use crate::chunk::{V1, chunk_lengths};
use crate::manifest::Builder;
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
    folder: Arc<Folder>,
    source: (RelPath, FileContent),
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
        let folder = Arc::new(Folder::open(temp.path(), true).unwrap());
        let (chunks, content) = cut(&old);
        let list: Vec<_> = chunks.iter().map(|chunk| (chunk.hash, u64::from(chunk.len))).collect();
        known::remember(&folder, &content, &list);
        let path = RelPath::from_names(vec![Name::new(b"old").unwrap()]);
        Self { _temp: temp, folder, source: (path, content), old }
    }

    /// What is not here of a new file, what was staged, and the bytes taken from the old one.
    fn take(&self, new: &[u8]) -> (Vec<ChunkRef>, Vec<u8>, u64) {
        let (chunks, content) = cut(new);
        let reusable = Reusable::open(&self.folder, std::slice::from_ref(&self.source));
        let file = StagedFile::create(&self.folder, IdSource::new([1; 32]).node(), &content).unwrap();
        let counters = Counters::default();
        let sketch = Kept::begin(&self.folder, content.size);
        let looking = Looking {
            inline: &HashMap::new(),
            fresh: &Fresh::default(),
            counters: &counters,
            on_bytes: &|_| {},
            sketch: &sketch,
        };
        let (absent, written) = take_here(&looking, &file, &reusable, chunks).unwrap();
        assert_eq!(written, counters.bytes_reused.get(), "no push brought any");
        let mut staged = vec![0; new.len()];
        file.read_at(0, &mut staged).unwrap();
        file.discard(&self.folder).unwrap();
        (absent, staged, counters.bytes_reused.get())
    }
}

#[test]
fn what_is_in_the_old_file_is_taken_from_it_and_the_rest_is_absent() {
    let world = World::new();
    let mut new = world.old.clone();
    new.splice(500..500, [1, 2, 3]);
    new[2_500_000] ^= 1;
    let (absent, staged, reused) = world.take(&new);
    assert!((2..=6).contains(&absent.len()), "{}", absent.len());
    let mut expected = new.clone();
    for chunk in &absent {
        let start = usize::try_from(chunk.offset).unwrap();
        expected[start..start + chunk.len as usize].fill(0);
    }
    assert!(staged == expected);
    let lacking: u64 = absent.iter().map(|chunk| u64::from(chunk.len)).sum();
    assert_eq!(reused + lacking, new.len() as u64);
}

#[test]
fn bytes_of_the_old_file_are_hashed_even_when_it_looks_as_agreed() {
    let world = World::new();
    assert!(world.take(&world.old).0.is_empty());
    let path = world.folder.path().join("old");
    let before = std::fs::metadata(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"changed", 2_000_000).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let (absent, ..) = world.take(&world.old);
    assert_eq!(absent.len(), 1);
    let chunk = absent[0];
    assert!((chunk.offset..chunk.offset + u64::from(chunk.len)).contains(&2_000_000));
}
