//! `dropblock demo`: the whole thing on one screen, with real processes. A server and three live clients in a temporary
//! folder; each step changes files as a user would, and is over when all folders look the same. What moved is counted
//! by relays between clients and server. At the end all folders are compared byte by byte.

mod cast;
mod look;
mod relay;

use super::failure::{Exit, Failure};
use super::text::{self, Voice};
use cast::{Cast, Place};
use look::Snapshot;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The three devices. Conflict copies carry these names.
const DEVICES: [&str; 3] = ["laptop", "desktop", "office"];
/// Longest a step may take until all folders are equal.
const STEP_MAX: Duration = Duration::from_secs(60);
/// Between two looks at the folders: short against what is measured, long against what a look costs.
const LOOK: Duration = Duration::from_millis(2);
/// Nothing passed for this long: a step's traffic is over.
const QUIET: Duration = Duration::from_millis(50);
/// The text tree: folders, files in each, bytes of each at least.
const CHAPTERS: usize = 8;
const PAGES: usize = 25;
const PAGE_BYTES: usize = 4 * 1024;
/// The text in which a line is edited.
const NOTES_BYTES: usize = 40 * 1024;
/// What is inserted in the middle of the large file.
const INSERTED: &[u8] = b"a few more bytes";

/// Show it all: a server, three folders and what moves between them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Size of the large file
    #[arg(long, value_name = "MIB", default_value = "64", value_parser = clap::value_parser!(u64).range(1..=4096))]
    size: u64,

    /// Keep the temporary folder with the store, the three folders and the logs
    #[arg(long)]
    keep: bool,
}

pub fn run(args: Args, voice: Voice) -> Result<Exit, Failure> {
    let runtime = super::runtime()?;
    let stopped = runtime.block_on(async { stop_flag() })?;
    let place = Place::make(&super::seed()?, args.keep)
        .map_err(|error| Failure::new(Exit::General, format!("cannot make a temporary folder: {error}")))?;
    voice.say(&format!("a store and {} synced folders in {}", DEVICES.len(), place.path().display()));
    let goes_on = || !stopped.load(Ordering::Relaxed);
    let cast = Cast::start(place.path(), &DEVICES, &goes_on, STEP_MAX);
    let told = match cast {
        Ok(cast) => {
            let mut show = Show { cast, goes_on: &goes_on };
            let told = tell(&mut show, args.size * 1024 * 1024);
            if let (Err(_), true) = (&told, goes_on()) {
                show.cast.last_words().iter().for_each(|line| voice.say(line));
            }
            told
        }
        Err(line) => Err(Failure::new(Exit::General, line)),
    };
    if !goes_on() {
        return Err(Failure::new(Exit::Interrupted, "interrupted"));
    }
    told.map(|()| Exit::Ok)
}

/// Becomes true at the first signal to end; further ones change nothing, as the end is a matter of seconds.
fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let stopped = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind)
            .map_err(|error| Failure::new(Exit::General, format!("cannot wait for signals: {error}")))?;
        let stopped = stopped.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                stopped.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(stopped)
}

/// The story, step by step.
fn tell(show: &mut Show<'_>, large_bytes: u64) -> Result<(), Failure> {
    let [laptop, desktop, office] = [0, 1, 2];
    let file = |from: &Path, name: &str| from.join(name);
    text::data(&row("what was done", "files", "sent", "received", "all equal after"));

    let folder = show.folder(laptop)?;
    let tree_bytes = tree_bytes();
    let title = format!("create {} texts, a program, a link", CHAPTERS * PAGES + 1);
    show.step(&title, laptop, tree_bytes, |_| write_tree(&folder), |seen| has(seen, "docs/notes.txt"))?;

    let title = format!("create a random file of {}", text::bytes(large_bytes));
    let large = file(&folder, "large.bin");
    show.step(
        &title,
        laptop,
        large_bytes,
        |_| write_random(&large, large_bytes),
        |seen| has(seen, "large.bin"),
    )?;

    let notes = file(&folder, "docs/notes.txt");
    let notes_bytes = notes_bytes();
    show.step("edit a line of a text", laptop, notes_bytes, |_| edit_line(&notes, "a better line"), always)?;

    let title = format!("insert {} bytes in the middle of the file", INSERTED.len());
    show.step(&title, laptop, large_bytes, |_| insert_in_the_middle(&large), always)?;

    let folder = show.folder(desktop)?;
    let title = format!("rename a folder of {} files", CHAPTERS * PAGES + 1);
    let rename = |_: &mut Show<'_>| fs::rename(folder.join("docs"), folder.join("book"));
    show.step(&title, desktop, tree_bytes, rename, |seen| has(seen, "book/notes.txt") && !has(seen, "docs"))?;

    let folder = show.folder(office)?;
    let chapter_bytes = tree_bytes / CHAPTERS as u64;
    let title = format!("delete a folder of {PAGES} files");
    let delete = |_: &mut Show<'_>| fs::remove_dir_all(folder.join("book/chapter-3"));
    show.step(&title, office, chapter_bytes, delete, |seen| !has(seen, "book/chapter-3"))?;

    let title = "conflict: two edit a text at the same moment";
    let clash = |show: &mut Show<'_>| show.edit_on_both(laptop, desktop, "book/notes.txt");
    show.step(title, laptop, notes_bytes, clash, |seen| conflicts(seen) == 1)?;

    let title = "conflict: one was off, both edit a text";
    let clash = |show: &mut Show<'_>| show.edit_while_off(office, laptop, "book/chapter-1/page-1.txt");
    show.step(title, office, notes_bytes, clash, |seen| conflicts(seen) == 2)?;

    show.check()?;
    text::data("all three folders are equal");
    Ok(())
}

/// The running processes and how to wait for them.
struct Show<'a> {
    cast: Cast,
    goes_on: &'a dyn Fn() -> bool,
}

impl Show<'_> {
    fn folder(&self, device: usize) -> Result<PathBuf, Failure> {
        let found = self.cast.devices.get(device).map(|device| device.folder.clone());
        found.ok_or_else(|| Failure::new(Exit::General, "no such device"))
    }

    /// Does `change` on a device, waits until all folders are equal and `done`, and prints a line about it. The clock
    /// starts when the change is complete on that device's disk.
    fn step(
        &mut self,
        title: &str,
        device: usize,
        file_bytes: u64,
        change: impl FnOnce(&mut Self) -> io::Result<()>,
        done: impl Fn(&Snapshot) -> bool,
    ) -> Result<(), Failure> {
        let before = self.cast.traffic();
        change(self).map_err(|error| Failure::new(Exit::General, format!("{title}: {error}")))?;
        let start = Instant::now();
        loop {
            if !(self.goes_on)() {
                return Err(Failure::new(Exit::Interrupted, "interrupted"));
            }
            if let Some(line) = self.cast.dropout() {
                return Err(Failure::new(Exit::General, format!("{title}: {line}")));
            }
            if self.equal().map_err(|error| unreadable(&error))?.is_some_and(|seen| done(&seen)) {
                break;
            }
            if start.elapsed() > STEP_MAX {
                let line = format!("{title}: the folders are not equal after {}", text::duration(STEP_MAX));
                return Err(Failure::new(Exit::TimedOut, line));
            }
            thread::sleep(LOOK);
        }
        let took = start.elapsed();
        let moved: Vec<u64> =
            self.traffic_at_rest().into_iter().zip(before).map(|(now, then)| now - then).collect();
        let sent = moved.get(device).copied().unwrap_or(0);
        let others = moved.iter().enumerate().filter(|(other, _)| *other != device);
        let received = others.map(|(_, bytes)| *bytes).max().unwrap_or(0);
        let [files, sent, received] = [file_bytes, sent, received].map(text::bytes);
        text::data(&row(title, &files, &sent, &received, &text::duration(took)));
        Ok(())
    }

    /// What all folders hold, when they look the same: names, sizes, times, exec bits, links.
    fn equal(&self) -> io::Result<Option<Snapshot>> {
        let mut folders = self.cast.devices.iter().map(|device| look::snapshot(&device.folder));
        let Some(first) = folders.next().transpose()? else { return Ok(None) };
        for other in folders {
            if other? != first {
                return Ok(None);
            }
        }
        Ok(Some(first))
    }

    /// The counters once the last answers have passed. A poll a second is part of the figures.
    fn traffic_at_rest(&self) -> Vec<u64> {
        let mut seen = self.cast.traffic();
        for _ in 0..20 {
            thread::sleep(QUIET);
            let now = self.cast.traffic();
            if now == seen {
                break;
            }
            seen = now;
        }
        seen
    }

    /// Two devices edit the same file, each before it can hear of the other: the network waits meanwhile.
    fn edit_on_both(&self, one: usize, other: usize, name: &str) -> io::Result<()> {
        let devices = &self.cast.devices;
        devices.iter().for_each(|device| device.relay.hold());
        let edited = [one, other].into_iter().filter_map(|at| devices.get(at)).try_for_each(|device| {
            edit_line(&device.folder.join(name), &format!("the line as {} wants it", device.name))
        });
        devices.iter().for_each(|device| device.relay.release());
        edited
    }

    /// A device is switched off; it and another one edit the same file; it is switched on again.
    fn edit_while_off(&mut self, off: usize, on: usize, name: &str) -> io::Result<()> {
        if let Some(device) = self.cast.devices.get_mut(off) {
            device.switch_off();
        }
        for device in [off, on].into_iter().filter_map(|at| self.cast.devices.get(at)) {
            edit_line(&device.folder.join(name), &format!("the line as {} wants it", device.name))?;
        }
        self.cast.devices.get_mut(off).map_or(Ok(()), cast::Device::switch_on)
    }

    /// Compares the folders byte by byte.
    fn check(&self) -> Result<(), Failure> {
        let different = |what: &str| Failure::new(Exit::General, format!("the folders differ: {what}"));
        let names = self.equal().map_err(|error| unreadable(&error))?.ok_or_else(|| different("names"))?;
        let mut folders = self.cast.devices.iter().map(|device| &device.folder);
        let Some(first) = folders.next() else { return Ok(()) };
        for other in folders {
            let found = look::first_difference(first, other, &names).map_err(|error| unreadable(&error))?;
            if let Some(path) = found {
                return Err(different(&path.display().to_string()));
            }
        }
        Ok(())
    }
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::new(Exit::General, format!("cannot compare the folders: {error}"))
}

/// One line of the table.
fn row(title: &str, files: &str, sent: &str, received: &str, took: &str) -> String {
    format!("{title:<46} {files:>9} {sent:>9} {received:>9} {took:>16}")
}

fn has(seen: &Snapshot, path: &str) -> bool {
    seen.contains_key(Path::new(path))
}

fn always(_: &Snapshot) -> bool {
    true
}

fn conflicts(seen: &Snapshot) -> usize {
    seen.keys().filter(|path| path.to_string_lossy().contains("(conflict from ")).count()
}

/// Text in numbered lines, a little different for each `seed`.
fn prose(seed: usize, bytes: usize) -> String {
    const WORDS: [&str; 8] = ["river", "stone", "paper", "lamp", "garden", "window", "copper", "winter"];
    let mut out = String::with_capacity(bytes + 80);
    let mut dice = seed as u64 + 1;
    let mut line = 0;
    while out.len() < bytes {
        out.push_str(&format!("{line:05}"));
        for _ in 0..8 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = WORDS.iter().cycle().nth(usize::from(dice.to_be_bytes()[0])).unwrap_or(&"");
            out.push(' ');
            out.push_str(word);
        }
        out.push('\n');
        line += 1;
    }
    out
}

fn notes_bytes() -> u64 {
    prose(0, NOTES_BYTES).len() as u64
}

fn tree_bytes() -> u64 {
    let pages: usize = (1..=CHAPTERS * PAGES).map(|seed| prose(seed, PAGE_BYTES).len()).sum();
    pages as u64 + notes_bytes()
}

/// Texts in folders, a program, a link and an empty folder.
fn write_tree(top: &Path) -> io::Result<()> {
    for chapter in 1..=CHAPTERS {
        let folder = top.join(format!("docs/chapter-{chapter}"));
        fs::create_dir_all(&folder)?;
        for page in 1..=PAGES {
            let text = prose((chapter - 1) * PAGES + page, PAGE_BYTES);
            fs::write(folder.join(format!("page-{page}.txt")), text)?;
        }
    }
    fs::create_dir_all(top.join("empty"))?;
    fs::create_dir_all(top.join("tools"))?;
    let program = top.join("tools/hello");
    fs::write(&program, "#!/bin/sh\necho hello\n")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    symlink("tools/hello", top.join("hello"))?;
    fs::write(top.join("docs/notes.txt"), prose(0, NOTES_BYTES))
}

fn write_random(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut buffer = vec![0; 1024 * 1024];
    for _ in 0..bytes / buffer.len() as u64 {
        getrandom::fill(&mut buffer).map_err(|error| io::Error::other(error.to_string()))?;
        file.write_all(&buffer)?;
    }
    Ok(())
}

/// Replaces the middle line of a text.
fn edit_line(path: &Path, new: &str) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let middle = text.lines().count() / 2;
    let mut edited = String::with_capacity(text.len() + new.len());
    for (number, line) in text.lines().enumerate() {
        edited.push_str(if number == middle { new } else { line });
        edited.push('\n');
    }
    fs::write(path, edited)
}

/// Inserts a few bytes; everything behind them moves.
fn insert_in_the_middle(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let middle = file.metadata()?.len() / 2;
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(middle))?;
    file.read_to_end(&mut rest)?;
    file.seek(SeekFrom::Start(middle))?;
    file.write_all(INSERTED)?;
    file.write_all(&rest)
}
