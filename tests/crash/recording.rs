//! What a program had its disk do, as strace saw it, and the states in which a power cut may leave that disk.
//!
//! A state is a cut (everything before some call had been asked for) and what had reached the disk by then. Reached for sure
//! is what a sync named that began after it and ended before the cut: bytes by a sync of the file, names by a sync of the
//! folder. Of the rest each write may be there, or not, or some of its sectors; and of the names of each folder the changes
//! up to some point. That is weaker than ext4, which makes a file's name durable with the file, and keeps one order of names.

use crate::campaign::Point;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECTOR: usize = 512;

/// A change of a disk.
#[derive(Debug)]
enum Op {
    MakeFolder(PathBuf),
    Make(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Write {
        file: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    Size {
        file: usize,
        len: u64,
    },
    /// Of a file: what of it came before the n-th operation is durable.
    Sync {
        file: usize,
        until: usize,
    },
    SyncFolder {
        folder: PathBuf,
        until: usize,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Recording {
    /// Each with the time at which it was asked for, s since 1970.
    ops: Vec<(f64, Op)>,
    files: usize,
    live: BTreeMap<PathBuf, usize>,
}

/// Which of the states that a cut allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Luck {
    /// Everything that was asked for is there: what a kill leaves.
    Everything,
    /// Nothing but what was synced.
    Synced,
    /// Any part of the rest.
    Some,
}

/// `command`, recorded into `log`.
pub fn recorded(command: &Command, log: &Path) -> Command {
    let calls = "openat,write,writev,pwrite64,pwritev,pwritev2,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat,\
                 rmdir,ftruncate,fallocate,mkdir,mkdirat,link,linkat,symlinkat,copy_file_range,sendfile,syncfs";
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-y", "-ttt", "-xx", "-s", "8388608", "-o"]).arg(log);
    traced.arg("-e").arg(format!("trace={calls}")).args(["-e", "signal=none"]);
    traced.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    traced.env_clear();
    traced.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced
}

impl Recording {
    /// Reads what was done below `top`.
    pub fn read(log: &Path, top: &Path) -> Self {
        let text = fs::read_to_string(log).unwrap();
        let mut recording = Self::default();
        let mut open: HashMap<&str, (f64, &str, usize)> = HashMap::new();
        let mut places: HashMap<String, u64> = HashMap::new();
        for line in text.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let Some((time, call)) = rest.trim_start().split_once(' ') else { continue };
            let Ok(time) = time.parse::<f64>() else { continue };
            let begun = recording.ops.len();
            if let Some(front) = call.strip_suffix(" <unfinished ...>") {
                open.insert(thread, (time, front, begun));
            } else if let Some((_, end)) =
                call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>"))
            {
                let Some((time, front, begun)) = open.remove(thread) else { continue };
                recording.note(top, time, &format!("{front}{end}"), begun, &mut places);
            } else {
                recording.note(top, time, call, begun, &mut places);
            }
        }
        recording
    }

    /// Number of cuts: before each operation and after the last.
    pub fn cuts(&self) -> usize {
        self.ops.len() + 1
    }

    /// When the first operation that a cut leaves out was asked for.
    pub fn time(&self, cut: usize) -> f64 {
        self.ops.get(cut).map_or(f64::MAX, |(time, _)| *time)
    }

    fn note(&mut self, top: &Path, time: f64, call: &str, begun: usize, places: &mut HashMap<String, u64>) {
        let Some((name, rest)) = call.split_once('(') else { return };
        let Some((args, result)) = rest.rsplit_once(" = ") else { return };
        if result.starts_with('-') {
            return;
        }
        let (quoted, handles) = (quoted(args), handles(args));
        let ours = |path: &Path| path.starts_with(top);
        let handle = handles.first().cloned().unwrap_or_default();
        let fd = args.split('<').next().unwrap_or_default().to_owned();
        let numbers: Vec<u64> = args
            .rsplit(['>', ']', '"'])
            .next()
            .unwrap_or_default()
            .split(", ")
            .filter_map(|n| n.trim_end_matches(')').parse().ok())
            .collect();
        let paths: Vec<PathBuf> =
            quoted.iter().map(|bytes| PathBuf::from(std::ffi::OsString::from_vec(bytes.clone()))).collect();
        let known = |recording: &Self| recording.live.get(&handle).copied();
        match name {
            "openat" => {
                let Some(path) = paths.first().filter(|path| ours(path)) else { return };
                let fd = result.split('<').next().unwrap_or_default();
                places.insert(fd.to_owned(), 0);
                if args.contains("O_CREAT") && !self.live.contains_key(path) {
                    let file = self.files;
                    self.files += 1;
                    self.live.insert(path.clone(), file);
                    self.ops.push((time, Op::Make(path.clone(), file)));
                } else if args.contains("O_TRUNC") {
                    self.ops.push((time, Op::Size { file: self.live[path], len: 0 }));
                }
                assert!(!args.contains("O_APPEND"), "not known how to replay: {path:?}");
            }
            "mkdir" | "mkdirat" => {
                if let Some(path) = paths.first().filter(|path| ours(path)) {
                    self.ops.push((time, Op::MakeFolder(path.clone())));
                }
            }
            "rename" | "renameat" | "renameat2" => {
                let (Some(from), Some(to)) = (paths.first(), paths.get(1)) else { return };
                if ours(from) {
                    assert!(!args.contains("RENAME_EXCHANGE"), "not known how to replay");
                    if let Some(file) = self.live.remove(from) {
                        self.live.insert(to.clone(), file);
                    }
                    self.ops.push((time, Op::Rename(from.clone(), to.clone())));
                }
            }
            "unlink" | "unlinkat" | "rmdir" => {
                if let Some(path) = paths.first().filter(|path| ours(path)) {
                    self.live.remove(path);
                    self.ops.push((time, Op::Remove(path.clone())));
                }
            }
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
                let Some(file) = known(self) else { return };
                let mut bytes = quoted.concat();
                bytes.truncate(result.trim().parse().unwrap());
                let offset = if name.starts_with('p') {
                    *numbers.last().expect("an offset")
                } else {
                    let place = places.entry(fd).or_default();
                    *place += bytes.len() as u64;
                    *place - bytes.len() as u64
                };
                self.ops.push((time, Op::Write { file, offset, bytes }));
            }
            "ftruncate" => {
                if let (Some(file), Some(len)) = (known(self), numbers.last()) {
                    self.ops.push((time, Op::Size { file, len: *len }));
                }
            }
            "fsync" | "fdatasync" => match known(self) {
                Some(file) => self.ops.push((time, Op::Sync { file, until: begun })),
                None if ours(&handle) || top.parent() == Some(&handle) => {
                    self.ops.push((time, Op::SyncFolder { folder: handle.clone(), until: begun }));
                }
                None => {}
            },
            _ => assert!(
                !ours(&handle) && !paths.iter().any(|path| ours(path)),
                "not known how to replay: {name}"
            ),
        }
    }

    /// Makes the state of a cut in `to`, which stands for `top`.
    pub fn replay(&self, cut: usize, luck: Luck, point: &mut Point, top: &Path, to: &Path) {
        let done = &self.ops[..cut];
        let mut synced: HashMap<usize, usize> = HashMap::new();
        let mut synced_names: HashMap<&Path, usize> = HashMap::new();
        for (_, op) in done {
            match op {
                Op::Sync { file, until } => drop(synced.insert(*file, *until)),
                Op::SyncFolder { folder, until } => drop(synced_names.insert(folder, *until)),
                _ => {}
            }
        }
        let mut names: BTreeMap<PathBuf, Option<usize>> = BTreeMap::new();
        let mut bytes: HashMap<usize, Vec<u8>> = HashMap::new();
        // Of each folder: the first change of a name that is not there.
        let mut stopped: HashMap<&Path, bool> = HashMap::new();
        for (number, (_, op)) in done.iter().enumerate() {
            let (Op::MakeFolder(path) | Op::Make(path, _) | Op::Rename(path, _) | Op::Remove(path)) = op
            else {
                let (Op::Write { file, .. } | Op::Size { file, .. }) = op else { continue };
                let sure = synced.get(file).is_some_and(|until| number < *until);
                if sure || luck == Luck::Everything || (luck == Luck::Some && point.below(2) == 0) {
                    let torn = !sure && luck == Luck::Some && point.below(2) == 0;
                    apply(op, bytes.entry(*file).or_default(), torn.then_some(&mut *point));
                }
                continue;
            };
            let folder = path.parent().unwrap();
            let sure = synced_names.get(folder).is_some_and(|until| number < *until);
            let stop = stopped.entry(folder).or_default();
            *stop |= !sure && (luck == Luck::Synced || (luck == Luck::Some && point.below(4) == 0));
            if *stop {
                continue;
            }
            match op {
                Op::MakeFolder(path) => drop(names.insert(path.clone(), None)),
                Op::Make(path, file) => drop(names.insert(path.clone(), Some(*file))),
                Op::Rename(from, to) => {
                    if let Some(file) = names.remove(from) {
                        names.insert(to.clone(), file);
                    }
                }
                _ => drop(names.remove(path)),
            }
        }
        // In order, so that a folder comes before what is in it; one that is not there takes that along.
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        for (path, file) in names {
            let Ok(inside) = path.strip_prefix(top) else { continue };
            let path = if inside.as_os_str().is_empty() { to.to_owned() } else { to.join(inside) };
            if path.parent().is_some_and(Path::is_dir) {
                match file {
                    None => fs::create_dir(&path).unwrap(),
                    Some(file) => fs::write(&path, bytes.remove(&file).unwrap_or_default()).unwrap(),
                }
            }
        }
    }
}

fn apply(op: &Op, to: &mut Vec<u8>, torn: Option<&mut Point>) {
    match op {
        Op::Size { len, .. } => to.resize(usize::try_from(*len).unwrap(), 0),
        Op::Write { offset, bytes, .. } => {
            let at = usize::try_from(*offset).unwrap();
            let end = at + bytes.len();
            to.resize(to.len().max(end), 0);
            let Some(point) = torn else { return to[at..end].copy_from_slice(bytes) };
            let mut from = at;
            while from < end {
                let until = (from / SECTOR * SECTOR + SECTOR).min(end);
                if point.below(2) == 0 {
                    to[from..until].copy_from_slice(&bytes[from - at..until - at]);
                }
                from = until;
            }
        }
        _ => unreachable!("no bytes"),
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect()
}

/// What stands in quotes, in order.
fn quoted(args: &str) -> Vec<Vec<u8>> {
    args.split('"').skip(1).step_by(2).map(unescaped).collect()
}

/// Where handles lead, in order.
fn handles(args: &str) -> Vec<PathBuf> {
    let all = args.split('<').skip(1).filter_map(|rest| Some(unescaped(rest.split_once('>')?.0)));
    all.map(|bytes| PathBuf::from(std::ffi::OsString::from_vec(bytes))).collect()
}
