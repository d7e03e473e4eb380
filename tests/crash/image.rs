//! A disk that can lose its power: an ext4 image behind a loop device. Copying the image takes what has reached the "platter"
//! at that instant, and nothing that the system only keeps in memory.
//!
//! Exact for what the filesystem's journal makes of syncs. A real disk may also lose or reorder writes since its last flush;
//! this does not show that.

use crate::support::sandbox::{Sandbox, SmallDisk};
use crate::support::skipped;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A mounted image. Gone when dropped, with its image.
pub struct Image {
    disk: SmallDisk,
    /// Where it is mounted, for processes in its sandbox.
    pub mount: PathBuf,
    image: PathBuf,
    _place: tempfile::TempDir,
}

impl Image {
    /// A fresh disk of `mib` MiB; `None`, and a line that says so, where this is not allowed.
    pub fn new(mib: u64) -> Option<Self> {
        let place = place();
        let image = place.path().join("image");
        fs::File::create(&image).unwrap().set_len(mib * 1024 * 1024).unwrap();
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-E", "lazy_itable_init=0,nodiscard"]).arg(&image).stdin(Stdio::null());
        if !mkfs.status().is_ok_and(|status| status.success()) {
            skipped("needs mkfs.ext4");
            return None;
        }
        Self::mounted(place, image)
    }

    /// True when disks like this work here; says so when not.
    pub fn works() -> bool {
        static WORKS: OnceLock<bool> = OnceLock::new();
        let first = WORKS.get().is_none();
        let works = *WORKS.get_or_init(|| Self::new(8).is_some());
        // The first one was told by `new`.
        if !works && !first {
            skipped("needs root and loop devices");
        }
        works
    }

    fn mounted(place: tempfile::TempDir, image: PathBuf) -> Option<Self> {
        let mount = place.path().join("disk");
        let disk = SmallDisk::of_image(&mount, &image)?;
        Some(Self { disk, mount, image, _place: place })
    }

    /// For worlds whose processes use this disk.
    pub fn sandbox(&self) -> Sandbox {
        Sandbox::on(&self.disk)
    }

    /// Its folder as the test can see it.
    pub fn seen(&self) -> PathBuf {
        self.disk.seen()
    }

    /// The power fails: the disk as it comes back. `writers` are stopped meanwhile, so that the copy is of one instant.
    pub fn cut(&self, writers: &[u32]) -> Self {
        signal(writers, Signal::STOP);
        let place = place();
        let copy = place.path().join("image");
        let start = Instant::now();
        loop {
            let before = self.written();
            if before.1 == 0 && copied(&self.image, &copy) && self.written() == before {
                break;
            }
            assert!(start.elapsed() < crate::support::DEADLINE, "the disk never holds still");
            sleep(Duration::from_millis(1));
        }
        signal(writers, Signal::CONT);
        Self::mounted(place, copy).expect("an image that was mounted before")
    }

    /// Writes that the loop device has done, and how many are under way.
    fn written(&self) -> (u64, u64) {
        let device = fs::metadata(self.seen()).unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
        let fields: Vec<u64> = stat.split_whitespace().map(|field| field.parse().unwrap()).collect();
        (fields[4], fields[8])
    }

    /// Takes the place until only `kib` KiB are free.
    pub fn fill(&self, kib: u64) {
        let disk = rustix::fs::statvfs(self.seen()).unwrap();
        let free = disk.f_bavail * disk.f_frsize / 1024;
        let filler = self.seen().join("filler");
        let mut command = Command::new("fallocate");
        command.arg("-l").arg(format!("{}K", free.saturating_sub(kib).max(1))).arg(filler);
        assert!(command.status().unwrap().success());
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.seen().join("filler")).unwrap();
    }
}

fn place() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("dropblock-disk-").tempdir().unwrap()
}

fn copied(from: &Path, to: &Path) -> bool {
    let mut command = Command::new("cp");
    command.arg("--sparse=always").arg(from).arg(to).status().unwrap().success()
}

fn signal(processes: &[u32], signal: Signal) {
    for pid in processes {
        // It may have ended.
        let _ = kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), signal);
    }
}
