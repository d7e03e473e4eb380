//! A folder on a disk on which names that differ only by case, or by how an accent is written, are one (vfat, folders with
//! `chattr +F`): contents are neither mixed up nor lost, on either side.

use super::support::*;
use dropblock::client::{Client, Config, Done, News};
use dropblock::folder::fs::Dir;
use dropblock::folder::memory::Clock;
use dropblock::folder::{Disk, EntryKind, MemoryDisk};
use dropblock::model::{Name, RelPath};
use dropblock::wire::tcp::TcpDialer;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const FOLDER: &str = "/sync";

/// Each look at it is a ms later, so that every save has a time of its own.
#[derive(Debug)]
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn wall_ns(&self) -> i64 {
        self.0.fetch_add(1_000_000, Ordering::SeqCst)
    }
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A machine with a folder, and the client that syncs it.
struct Machine {
    disk: MemoryDisk,
    server: String,
    number: u8,
    said: Arc<Mutex<Vec<String>>>,
}

impl Machine {
    fn new(server: &Running, number: u8, folds: bool) -> Self {
        let clock = Arc::new(Ticking(AtomicI64::new(1_700_000_000_000_000_000)));
        let disk = MemoryDisk::new(clock, [number; 32]);
        if folds {
            disk.fold_names();
        }
        let server = server.address.to_string();
        Self { disk, server, number, said: Arc::default() }
    }

    fn client(&self) -> Client {
        let (number, said) = (self.number, self.said.clone());
        let config = Config {
            server: self.server.clone(),
            share: None,
            device_name: format!("machine{number}"),
            poll: Duration::from_secs(1),
            allow_mass_delete: false,
            threads: 1,
            now: Arc::new(|| "now".to_owned()),
            dialer: Arc::new(TcpDialer),
            seed: [number; 32],
            news: Arc::new(move |news| {
                if let News::Problem(line) = news {
                    said.lock().unwrap().push(line);
                }
            }),
        };
        let disk = Disk::Memory(self.disk.process());
        Client::open_on(disk, Path::new(FOLDER), config, 1_700_000_000_000_000_000).unwrap()
    }

    async fn sync(&self) -> Done {
        soon(self.client().run_once()).await.unwrap()
    }

    fn root(&self) -> Dir {
        Disk::Memory(self.disk.process()).open_root(Path::new(FOLDER)).unwrap()
    }

    fn parent(&self, path: &str) -> (Dir, Name) {
        let names = path.split('/').map(|name| Name::new(name.as_bytes()).unwrap()).collect();
        let (parent, name) = RelPath::from_names(names).split_last().map(|(p, n)| (p, n.clone())).unwrap();
        (self.root().open_below(&parent).unwrap(), name)
    }

    fn write(&self, path: &str, text: &str) {
        let (dir, name) = self.parent(path);
        let mut file = match dir.open_own(&name) {
            Ok(file) => file,
            Err(_) => dir.create_file(&name, 0o644).unwrap(),
        };
        file.set_len(0).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    fn remove(&self, path: &str) {
        let (dir, name) = self.parent(path);
        dir.unlink(&name).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        let ((from_dir, from), (to_dir, to)) = (self.parent(from), self.parent(to));
        from_dir.rename_to_free(&from, &to_dir, &to).unwrap();
    }

    /// As a person does it on such a disk.
    fn respell(&self, from: &str, to: &str) {
        self.rename(from, "between");
        self.rename("between", to);
    }

    fn mkdir(&self, path: &str) {
        let (dir, name) = self.parent(path);
        dir.make_dir(&name, 0o755).unwrap();
    }

    /// Every file, and what it holds.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        read(&self.root(), "", &mut files);
        files
    }
}

fn read(dir: &Dir, above: &str, files: &mut BTreeMap<String, String>) {
    for listed in dir.list().unwrap() {
        if listed.name.is_private_dir() {
            continue;
        }
        let path = format!("{above}{}", listed.name);
        if dir.meta(&listed.name).unwrap().kind == EntryKind::Folder {
            read(&dir.open_child(&listed.name).unwrap(), &format!("{path}/"), files);
        } else if let Some((mut file, _)) = dir.open_file(&listed.name).unwrap() {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            files.insert(path, text);
        }
    }
}

fn all(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_one_on_a_disk_are_not_mixed_up() {
    let server = start(config()).await;
    let (plain, folding) = (Machine::new(&server, 1, false), Machine::new(&server, 2, true));
    plain.client();
    plain.mkdir("d");
    plain.mkdir("D");
    let theirs = [
        ("README", "large"),
        ("readme", "small"),
        ("caf\u{e9}", "one"),
        ("cafe\u{301}", "two"),
        // Bytes that are here already, under the other name.
        ("same", "equal"),
        ("SAME", "equal"),
        ("d/x", "in d"),
        ("D/y", "in D"),
        ("D/X", "in D too"),
        ("other", "other"),
    ];
    theirs.iter().for_each(|(path, text)| plain.write(path, text));
    plain.sync().await;
    let done = folding.sync().await;
    // One of each is here, whole, and of the others it is said why they are not.
    let here = folding.files();
    assert!(here.iter().all(|(path, text)| theirs.contains(&(path, text))), "{here:?}");
    let problems: Vec<_> = done.problems.iter().filter(|line| line.contains("the same as")).collect();
    assert_eq!(problems.len(), 4, "{:?}", done.problems);
    assert!(here.len() >= 5 && here.contains_key("other"), "{here:?}");
    // What is changed here goes to the one that is here, and nothing else happens to the others.
    let of_two = if here.contains_key("README") { ["README", "readme"] } else { ["readme", "README"] };
    folding.write(of_two[0], "edited");
    let (mut want, kept) = (all(&theirs), all(&theirs)[of_two[1]].clone());
    for _ in 0..2 {
        folding.sync().await;
        plain.sync().await;
    }
    want.insert(of_two[0].to_owned(), "edited".to_owned());
    assert_eq!(plain.files(), want);
    // The other comes when the name is free, under its own spelling; so do folders.
    plain.remove(of_two[0]);
    want.remove(of_two[0]);
    plain.rename("D", "E");
    plain.sync().await;
    folding.sync().await;
    let here = folding.files();
    assert_eq!((here.get(of_two[0]), here.get(of_two[1])), (None, Some(&kept)), "{here:?}");
    assert!(here.contains_key("d/x") && here.contains_key("E/X") && here.contains_key("E/y"), "{here:?}");
    folding.sync().await;
    plain.sync().await;
    for (path, text) in plain.files() {
        assert!(text == "edited" || theirs.iter().any(|(_, theirs)| *theirs == text), "{path}: {text}");
    }
    assert_eq!(plain.files().len(), want.len());
}

/// What a server calls almost like the private folder is not let into it.
#[tokio::test(flavor = "multi_thread")]
async fn the_private_folder_is_reached_by_no_other_spelling() {
    let server = start(config()).await;
    let (plain, folding) = (Machine::new(&server, 1, false), Machine::new(&server, 2, true));
    plain.client();
    for name in [".DROPBLOCK", ".Dropblock"] {
        plain.mkdir(name);
        plain.write(&format!("{name}/server"), "planted");
        plain.write(&format!("{name}/planted"), "planted");
        plain.mkdir(&format!("{name}/stage"));
        plain.write(&format!("{name}/stage/x"), "planted");
    }
    plain.sync().await;
    let done = folding.sync().await;
    assert!(done.problems.iter().any(|line| line.contains("the same as .dropblock")), "{:?}", done.problems);
    folding.sync().await;
    let private = folding.root().open_child(&Name::new(b".dropblock").unwrap()).unwrap();
    for listed in private.list().unwrap() {
        assert!(!matches!(listed.name.as_bytes(), b"server" | b"planted"), "{}", listed.name);
    }
    let stage = private.open_child(&Name::new(b"stage").unwrap()).unwrap();
    assert!(stage.list().unwrap().is_empty());
    plain.sync().await;
    assert_eq!(plain.files().len(), 6, "and nothing of it is taken for deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_only_spelled_otherwise_is_so_on_every_disk() {
    let server = start(config()).await;
    let (plain, folding) = (Machine::new(&server, 1, false), Machine::new(&server, 2, true));
    plain.client();
    plain.mkdir("d");
    plain.write("d/x", "x");
    plain.write("readme", "r");
    plain.sync().await;
    folding.sync().await;
    plain.rename("readme", "README");
    plain.rename("d", "D");
    plain.rename("D/x", "D/X");
    plain.sync().await;
    let done = folding.sync().await;
    assert!(done.problems.is_empty(), "{:?}", done.problems);
    assert_eq!(folding.files(), all(&[("README", "r"), ("D/X", "x")]));
    // And the other way round.
    folding.respell("README", "Readme");
    folding.sync().await;
    plain.sync().await;
    assert_eq!(plain.files(), all(&[("Readme", "r"), ("D/X", "x")]));
}

/// A folder that comes from another disk holds one file where there were two: the other one is not deleted for others.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_folds_deletes_nothing_that_it_could_not_hold() {
    let server = start(config()).await;
    let (plain, folding) = (Machine::new(&server, 1, false), Machine::new(&server, 2, true));
    plain.client();
    plain.write("a", "1");
    plain.sync().await;
    folding.sync().await;
    // Both are saved at once, here and there.
    plain.write("name", "there");
    folding.write("NAME", "here");
    plain.sync().await;
    for _ in 0..3 {
        folding.sync().await;
        plain.sync().await;
    }
    assert_eq!(plain.files(), all(&[("a", "1"), ("name", "there"), ("NAME", "here")]));
    assert_eq!(folding.files(), all(&[("a", "1"), ("NAME", "here")]));
    // Deleted there, where it is: the other one comes.
    folding.remove("NAME");
    folding.sync().await;
    plain.sync().await;
    folding.sync().await;
    for machine in [&plain, &folding] {
        assert_eq!(machine.files(), all(&[("a", "1"), ("name", "there")]));
    }
}
