//! The disk in memory gives the kernel's answers, and forgets what a power cut may forget.

use super::*;
use crate::folder::fs::{self, Dir, File};
use crate::folder::meta::{EntryKind, Meta};
use crate::model::{IdSource, RelPath};
use std::io::{Read, Write};

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn wall_ns(&self) -> i64 {
        1_700_000_000_000_000_000
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

fn disk(seed: u8) -> MemoryDisk {
    MemoryDisk::new(Arc::new(Stopped), [seed; 32])
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn top(disk: &MemoryDisk) -> Dir {
    Dir::Memory(disk.open_root(b"/").unwrap())
}

fn write(dir: &Dir, text: &str, bytes: &[u8]) -> File {
    let file = dir.create_file(&name(text), 0o644).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn read(dir: &Dir, text: &str) -> Option<Vec<u8>> {
    let (mut file, _) = dir.open_file(&name(text)).unwrap()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

/// What a call answered, as far as it must be the same.
fn shown<T>(result: io::Result<T>, show: impl Fn(T) -> String) -> String {
    match result {
        Ok(value) => format!("ok {}", show(value)),
        Err(error) => {
            format!("{:?}", error.raw_os_error().map_or(format!("{:?}", error.kind()), |n| n.to_string()))
        }
    }
}

fn meta(meta: &Meta) -> String {
    let size = if meta.kind == EntryKind::Folder { 0 } else { meta.stamp.size };
    let links = if meta.kind == EntryKind::Folder { 0 } else { meta.links };
    format!("{:?} {size} {links} {:o} {}", meta.kind, meta.mode, meta.stamp.exec)
}

/// Everything below a folder, in order.
fn listing(dir: &Dir, path: &str, out: &mut Vec<String>) {
    let mut names: Vec<Name> = dir.list().unwrap().into_iter().map(|listed| listed.name).collect();
    names.sort();
    for name in names {
        let found = dir.meta(&name).unwrap();
        let path = format!("{path}/{name}");
        let text = dir.read_link(&name).map(|text| format!("{text:?}")).unwrap_or_default();
        let bytes = dir.open_file(&name).unwrap().map(|(mut file, _)| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        });
        out.push(format!("{path} {} {text} {bytes:?}", meta(&found)));
        if found.kind == EntryKind::Folder {
            listing(&dir.open_child(&name).unwrap(), &path, out);
        }
    }
}

/// One random call; the same on any disk, because everything is chosen before.
fn step(top: &Dir, dice: [u8; 16], held: &mut Vec<(Dir, Option<File>)>) -> String {
    let folders = ["", "a", "b", "a/b", "c"];
    let names = ["a", "b", "c", "f", "g"].map(name);
    let pick = |n: usize, of: usize| usize::from(dice[n]) % of;
    let folder =
        |n: usize| top.open_below(&RelPath::parse(folders[pick(n, 5)].as_bytes()).unwrap_or_default());
    let (x, y) = (&names[pick(1, 5)], &names[pick(2, 5)]);
    let (dir, to) = match (folder(3), folder(4)) {
        (Ok(dir), Ok(to)) => (dir, to),
        (a, b) => return format!("{} {}", shown(a, |_| String::new()), shown(b, |_| String::new())),
    };
    let done = |result: io::Result<()>| shown(result, |()| String::new());
    match dice[0] % 17 {
        0 | 1 => done(dir.make_dir(x, 0o755)),
        2 | 3 => {
            done(dir.create_file(x, 0o666).and_then(|file| file.write_all_at(&dice, u64::from(dice[5] % 40))))
        }
        4 => done(dir.append_file(x, 0o600).and_then(|mut file| file.write_all(&dice[..3]))),
        5 => done(dir.make_symlink(x, b"a/b")),
        6 => done(dir.unlink(x)),
        7 => done(dir.remove_dir(x)),
        8 => done(dir.rename_over(x, &to, y)),
        9 | 10 => done(dir.rename_to_free(x, &to, y)),
        11 => shown(dir.exchange(x, &to, y), |swapped| swapped.to_string()),
        12 => shown(dir.meta(x), |found| meta(&found)),
        13 => shown(dir.open_own(x).and_then(|file| file.set_len(u64::from(dice[5]))), |()| String::new()),
        14 => shown(
            dir.open_file(x).and_then(|file| match file {
                Some((file, _)) => {
                    fs::set_file_meta(&file, 0o640 | u32::from(dice[5] & 0o100), i64::from(dice[6]))?;
                    fs::meta_of_file(&file).map(Some)
                }
                None => Ok(None),
            }),
            |found| {
                found.map(|found| format!("{} {}", meta(&found), found.stamp.mtime_ns)).unwrap_or_default()
            },
        ),
        15 => {
            let file = dir.open_own(x).ok();
            held.push((dir, file));
            held.drain(..held.len().saturating_sub(3));
            String::new()
        }
        _ => match held.first() {
            // Handles of what may have been moved or removed meanwhile.
            Some((dir, file)) => {
                let wrote = file.as_ref().map(|file| done(file.write_all_at(b"held", 2)));
                format!("{} {wrote:?}", done(dir.make_dir(y, 0o700)))
            }
            None => String::new(),
        },
    }
}

#[test]
fn a_random_run_of_calls_has_the_same_outcome_in_memory_and_on_the_system() {
    for seed in 0..60u8 {
        let temp = tempfile::tempdir().unwrap();
        let (kernel, memory) = (Dir::open_root(temp.path()).unwrap(), top(&disk(seed)));
        let (mut held_a, mut held_b) = (Vec::new(), Vec::new());
        let mut ids = IdSource::new([seed; 32]);
        for n in 0..150 {
            let dice = ids.bytes16();
            let (a, b) = (step(&kernel, dice, &mut held_a), step(&memory, dice, &mut held_b));
            assert_eq!(a, b, "seed {seed}, step {n}: {dice:?}");
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        listing(&kernel, "", &mut a);
        listing(&memory, "", &mut b);
        assert_eq!(a, b, "seed {seed}");
    }
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    for seed in 0..100 {
        let disk = disk(seed);
        let dir = top(&disk);
        write(&dir, "f", b"synced").sync_all().unwrap();
        dir.sync().unwrap();
        write(&dir, "g", b"not synced");
        disk.lose_power();
        let dir = top(&disk.process());
        assert_eq!(read(&dir, "f").unwrap(), b"synced");
    }
}

#[test]
fn what_was_not_synced_is_lost_torn_or_kept_as_chance_has_it() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = disk(seed);
        let dir = top(&disk);
        let file = write(&dir, "f", &[7; 1500]);
        if seed % 2 == 0 {
            dir.sync().unwrap();
        }
        drop(file);
        disk.lose_power();
        let bytes = read(&top(&disk.process()), "f");
        assert!(seed % 2 == 1 || bytes.is_some(), "a synced name is there");
        seen.insert(match bytes {
            None => "no name",
            Some(bytes) if bytes.is_empty() => "empty",
            Some(bytes) if bytes == [7; 1500] => "whole",
            Some(bytes) if bytes.iter().all(|byte| *byte == 0) => "zeros",
            Some(bytes) if bytes.len() < 1500 => "short",
            Some(_) => "torn",
        });
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn a_rename_across_folders_is_never_cut_in_two_and_a_sync_of_one_folder_keeps_it_whole() {
    for seed in 0..100 {
        let disk = disk(seed);
        let dir = top(&disk);
        dir.make_dir(&name("a"), 0o755).unwrap();
        dir.make_dir(&name("b"), 0o755).unwrap();
        let (a, b) = (dir.open_child(&name("a")).unwrap(), dir.open_child(&name("b")).unwrap());
        write(&a, "f", b"x").sync_all().unwrap();
        dir.sync_filesystem().unwrap();
        a.rename_to_free(&name("f"), &b, &name("g")).unwrap();
        if seed % 2 == 0 {
            b.sync().unwrap();
        }
        disk.lose_power();
        let dir = top(&disk.process());
        let a = read(&dir.open_child(&name("a")).unwrap(), "f").is_some();
        let b = read(&dir.open_child(&name("b")).unwrap(), "g").is_some();
        assert!(a != b && (seed % 2 == 1 || b), "seed {seed}: {a} {b}");
    }
}

#[test]
fn a_killed_process_does_nothing_more_and_its_lock_is_free() {
    let disk = disk(1);
    let (one, two) = (disk.process(), disk.process());
    let (first, second) = (top(&one), top(&two));
    let lock = first.append_file(&name("lock"), 0o600).unwrap();
    let _held = fs::Lock::try_take(lock).unwrap().unwrap();
    let other = || second.append_file(&name("lock"), 0o600).unwrap();
    assert!(fs::Lock::try_take(other()).unwrap().is_none());
    one.kill();
    assert!(first.make_dir(&name("d"), 0o755).is_err());
    assert!(second.meta(&name("d")).is_err());
    assert!(fs::Lock::try_take(other()).unwrap().is_some());
}

#[test]
fn calls_fail_when_and_as_often_as_they_are_told_to() {
    let disk = disk(1);
    let dir = top(&disk);
    disk.fail(Failure::Full, 1, 1);
    let file = dir.create_file(&name("f"), 0o644).unwrap();
    assert_eq!(file.write_all_at(b"x", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_all_at(b"x", 0).unwrap();
    disk.fail(Failure::Broken, 0, 1);
    assert!(file.sync_all().is_err());
    file.sync_all().unwrap();
}

#[test]
fn changes_are_reported_by_folder_and_those_of_the_private_part_are_not() {
    let disk = disk(1);
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let sink = seen.clone();
    disk.watch(Arc::new(move |hint| sink.lock().unwrap().extend([hint])));
    let dir = top(&disk);
    dir.make_dir(&name("s"), 0o755).unwrap();
    let synced = dir.open_child(&name("s")).unwrap();
    synced.make_dir(&name(".dropblock"), 0o700).unwrap();
    seen.lock().unwrap().clear();
    write(&synced.open_child(&name(".dropblock")).unwrap(), "state", b"x");
    assert!(seen.lock().unwrap().is_empty());
    synced.make_dir(&name("d"), 0o755).unwrap();
    write(&synced.open_child(&name("d")).unwrap(), "f", b"x");
    let dirty = |path: &str| Hint::Dirty(RelPath::parse(path.as_bytes()).unwrap_or_default());
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from([dirty(""), dirty("d")]));
}

#[test]
fn somebody_else_may_act_between_any_two_calls() {
    let disk = disk(1);
    let other = top(&disk.process());
    disk.on_call(move |_, _| drop(other.make_dir(&name("d"), 0o755)));
    assert!(top(&disk).meta(&name("d")).is_ok());
}
