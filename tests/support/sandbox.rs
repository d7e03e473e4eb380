//! Places where things go wrong on purpose: a user without rights, a disk of a few megabytes.

use rustix::process::geteuid;
use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// `nobody` on Debian and most others.
const NOBODY: u32 = 65_534;

/// How the processes of a world are started.
#[derive(Default)]
pub struct Sandbox {
    uid: Option<u32>,
    namespace: Option<u32>,
}

impl Sandbox {
    /// As the tests themselves run.
    pub fn none() -> Self {
        Self::default()
    }

    /// As a user without rights: `nobody` when the tests run as root, else the user who runs them.
    pub fn unprivileged() -> Self {
        Self { uid: is_root().then_some(NOBODY), namespace: None }
    }

    /// In the mount namespace that `disk` keeps.
    pub fn on(disk: &SmallDisk) -> Self {
        Self { uid: None, namespace: Some(disk.keeper.id()) }
    }

    /// Lets the processes use a world's folder.
    pub fn prepare(&self, dir: &Path) {
        if self.uid.is_some() {
            std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
            // The build's own folder may be closed to others.
            let (built, here) = (env!("CARGO_BIN_EXE_dropblock"), dir.join("dropblock"));
            std::fs::hard_link(built, &here).or_else(|_| std::fs::copy(built, &here).map(drop)).unwrap();
            let entries = ["", "logs", "home", "home/config", "home/state", "home/run"];
            for entry in entries {
                std::os::unix::fs::chown(dir.join(entry), self.uid, self.uid).unwrap();
            }
        }
    }

    /// Makes the processes' user the owner of `path` and all below it.
    pub fn give(&self, path: &Path) {
        let Some(uid) = self.uid else { return };
        std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
        if path.symlink_metadata().unwrap().is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                self.give(&entry.unwrap().path());
            }
        }
    }

    /// Makes `path` unreadable for the processes' user.
    pub fn forbid(&self, path: &Path) {
        if self.uid.is_some() {
            chown(path, Some(0), Some(0)).unwrap();
        }
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
    }

    /// The program as this sandbox starts it, for the world in `dir`.
    pub fn command(&self, dir: &Path) -> Command {
        let exe = env!("CARGO_BIN_EXE_dropblock");
        if let Some(pid) = self.namespace {
            let mut command = Command::new("nsenter");
            command.arg("-t").arg(pid.to_string()).arg("-m").arg("--").arg(exe);
            return command;
        }
        let Some(uid) = self.uid else { return Command::new(exe) };
        // What `prepare` put there.
        let mut command = Command::new(dir.join("dropblock"));
        command.uid(uid).gid(uid);
        command
    }
}

/// A disk of a few megabytes that only processes in its namespace see. Gone when dropped.
pub struct SmallDisk {
    keeper: Child,
    mount: PathBuf,
}

impl SmallDisk {
    /// Mounts `mib` MiB at `mount`. `None`, and a line that says so, where this is not allowed.
    pub fn new(mount: &Path, mib: u32) -> Option<Self> {
        if !is_root() {
            super::skipped("needs root");
            return None;
        }
        std::fs::create_dir_all(mount).unwrap();
        let script = format!("mount -t tmpfs -o size={mib}m tmpfs \"$0\" && exec sleep 3600");
        Self::mounted(mount, &script, Path::new(""))
    }

    /// Mounts an image of a filesystem at `mount`. `None`, and a line that says so, where this is not allowed.
    pub fn of_image(mount: &Path, image: &Path) -> Option<Self> {
        if !is_root() {
            super::skipped("needs root");
            return None;
        }
        std::fs::create_dir_all(mount).unwrap();
        // What is not synced stays in memory as long as ever possible: the harshest cut.
        let script = "mount -o loop,commit=300 \"$1\" \"$0\" && exec sleep 3600";
        Self::mounted(mount, script, image)
    }

    /// Runs `script` in a mount namespace of its own until `mount` is there.
    fn mounted(mount: &Path, script: &str, image: &Path) -> Option<Self> {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]).arg(mount).arg(image).stdin(Stdio::null());
        let Ok(keeper) = command.spawn() else {
            super::skipped("needs unshare");
            return None;
        };
        let mut disk = Self { keeper, mount: mount.to_owned() };
        let start = Instant::now();
        while !disk.is_mounted() {
            if disk.keeper.try_wait().unwrap().is_some() || start.elapsed() > super::DEADLINE {
                super::skipped("needs the right to mount");
                return None;
            }
            sleep(Duration::from_millis(5));
        }
        Some(disk)
    }

    /// The disk's folder as this process can see it.
    pub fn seen(&self) -> PathBuf {
        let mut path = OsString::from(format!("/proc/{}/root", self.keeper.id()));
        path.push(self.mount.as_os_str());
        PathBuf::from(path)
    }

    /// Gives the disk another size.
    pub fn resize(&self, mib: u32) {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.keeper.id().to_string(), "-m", "mount", "-o"]);
        command.arg(format!("remount,size={mib}m")).arg(&self.mount);
        assert!(command.status().unwrap().success());
    }

    /// Unmounts it, also when somebody uses it.
    pub fn unmount(&self) {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.keeper.id().to_string(), "-m", "umount", "-l"]).arg(&self.mount);
        assert!(command.status().unwrap().success());
    }

    fn is_mounted(&self) -> bool {
        let mounts =
            std::fs::read_to_string(format!("/proc/{}/mounts", self.keeper.id())).unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').nth(1).map(Path::new) == Some(self.mount.as_path()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// True when the tests run as root.
pub fn is_root() -> bool {
    geteuid().is_root()
}
