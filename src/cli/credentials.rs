//! Where a server leaves what only its own user can read, and where that user's clients look for it. Named by the server's
//! fingerprint, so that any number of servers on any port find their own clients, and nobody else's.
//!
//! | place | for |
//! |---|---|
//! | `$XDG_CONFIG_HOME/dropblock/local/`, else `~/.config/…` (`$HOME`, else the passwd entry) | both ends have one home |
//! | `$XDG_RUNTIME_DIR/dropblock/`, `/run/user/UID/dropblock/` | homes differ, or cannot be written |
//! | `/tmp/dropblock-UID/` | there is nothing else |
//!
//! A file counts only if it is a plain file of this user that nobody else can read, in a folder of this user that nobody
//! else can write (in `/tmp`: not even read). The content is the same everywhere and always, made from the server's key.

use super::wall::May;
use crate::auth::{Fingerprint, Secret};
use rustix::process::geteuid;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// First line of the file.
const TITLE: &str = "dropblock owner secret v1";
/// Longer files are something else, bytes.
const FILE_BYTES_MAX: u64 = 256;
/// What was not touched for so long belongs to no server that runs: they touch theirs every minute.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder for credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    /// Nobody else may even read it: others can write beside it.
    secluded: bool,
    /// It is emptied when the server stops.
    fleeting: bool,
}

/// The user's folder for settings, as the environment or the system says.
fn config_home() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute() && path.as_os_str() != "/")
    };
    if let Some(config) = absolute("XDG_CONFIG_HOME") {
        return Some(config);
    }
    let home = absolute("HOME").or_else(|| {
        let users = fs::read_to_string("/etc/passwd").ok()?;
        home_in(&users, geteuid().as_raw())
    });
    home.map(|home| home.join(".config"))
}

/// The home folder of a user, from the text of `/etc/passwd`.
fn home_in(users: &str, uid: u32) -> Option<PathBuf> {
    let of_user = |line: &&str| line.split(':').nth(2).and_then(|id| id.parse().ok()) == Some(uid);
    let home = users.lines().find(of_user)?.split(':').nth(5)?;
    Some(PathBuf::from(home)).filter(|home| home.is_absolute() && home.as_os_str() != "/")
}

/// All places, the best first.
fn places() -> Vec<Place> {
    let uid = geteuid().as_raw();
    let mut places = Vec::new();
    let mut add = |path: PathBuf, secluded, fleeting| {
        let place = Place { path, secluded, fleeting };
        if !places.contains(&place) {
            places.push(place);
        }
    };
    if let Some(config) = config_home() {
        add(config.join("dropblock").join("local"), false, false);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    for parent in runtime.into_iter().chain([PathBuf::from(format!("/run/user/{uid}"))]) {
        // Made by the system at log-in; what is not there is not made here.
        if fs::metadata(&parent).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid) {
            add(parent.join("dropblock"), false, true);
        }
    }
    add(PathBuf::from(format!("/tmp/dropblock-{uid}")), true, true);
    places
}

impl Place {
    /// True for a folder of this user that nobody else can change.
    fn is_ours(&self) -> bool {
        let others = if self.secluded { 0o077 } else { 0o022 };
        fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == geteuid().as_raw() && meta.mode() & others == 0)
    }

    fn make(&self) -> io::Result<()> {
        if !self.is_ours() {
            // Whatever is there and not ours stays as it is.
            DirBuilder::new().mode(0o700).recursive(!self.secluded).create(&self.path)?;
        }
        if self.is_ours() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn file(&self, server: &Fingerprint) -> PathBuf {
        self.path.join(format!("{server}.cred"))
    }

    fn leave(&self, server: &Fingerprint, secret: &Secret) -> io::Result<()> {
        self.make()?;
        let path = self.file(server);
        if let Some(found) = read(&path)
            && found.to_text() == secret.to_text()
        {
            return File::open(&path)?.set_modified(SystemTime::now());
        }
        let temporary = self.path.join(format!("{server}.{}.new", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(format!("{TITLE}\n{}\n", secret.to_text()).as_bytes())?;
        fs::rename(&temporary, &path)
    }

    /// Removes what servers that are long gone have left.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let known = path.extension().is_some_and(|kind| kind == "cred" || kind == "new");
            let stale = fs::symlink_metadata(&path)
                .and_then(|meta| meta.modified())
                .is_ok_and(|when| when.elapsed().is_ok_and(|age| age > STALE));
            if known && stale {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// Reads a credential; `None` for anything that is not one, or that others could have read or made.
fn read(path: &Path) -> Option<Secret> {
    let flags = i32::try_from((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits()).ok()?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let meta = file.metadata().ok()?;
    let private = meta.is_file()
        && meta.uid() == geteuid().as_raw()
        && meta.mode() & 0o077 == 0
        && meta.len() <= FILE_BYTES_MAX;
    if !private {
        tracing::warn!(path = %path.display(), "not used: it must be a file of this user that nobody else can read");
        return None;
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Secret::from_text(text.strip_prefix(TITLE)?)
}

/// Leaves a server's secret wherever that is possible; says where nobody could find it.
pub fn leave(server: &Fingerprint, secret: &Secret) -> Result<(), String> {
    let mut why = Vec::new();
    let mut left = 0;
    for place in places() {
        match place.leave(server, secret) {
            Ok(()) => {
                left += 1;
                place.prune();
            }
            Err(error) => why.push(format!("{}: {error}", place.path.display())),
        }
    }
    if left > 0 { Ok(()) } else { Err(why.join("; ")) }
}

/// Makes the places, and says what a server that is walled in needs of the disk: what to write in, and where folders come
/// and go.
pub fn prepare() -> Vec<(PathBuf, May)> {
    let mut needs = Vec::new();
    for place in places() {
        if place.make().is_err() {
            continue;
        }
        if let Some(parent) = place.path.parent().filter(|_| place.fleeting) {
            needs.push((parent.to_owned(), May::MakeFolders));
        }
        needs.push((place.path, May::Write));
    }
    needs
}

/// The server stops: nothing stays in places that are not this user's home.
pub fn withdraw(server: &Fingerprint) {
    for place in places().into_iter().filter(|place| place.fleeting && place.is_ours()) {
        let _ = fs::remove_file(place.file(server));
        // Goes when it was the last.
        let _ = fs::remove_dir(&place.path);
    }
}

/// What a server has left for this user.
pub fn find(server: &Fingerprint) -> Vec<Secret> {
    let ours = places().into_iter().filter(Place::is_ours);
    ours.filter_map(|place| {
        let path = place.file(server);
        fs::symlink_metadata(&path).is_ok().then(|| read(&path)).flatten()
    })
    .collect()
}

/// What two processes have alike that share a loopback: the kernel's id of this run, and the network namespace. Empty
/// where neither can be read.
pub fn machine() -> Vec<u8> {
    let mut machine = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let network = fs::read_link("/proc/self/ns/net").unwrap_or_default();
    machine.extend_from_slice(network.as_os_str().as_encoded_bytes());
    machine
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn place(path: PathBuf) -> Place {
        Place { path, secluded: true, fleeting: false }
    }

    const SERVER: Fingerprint = Fingerprint::from_bytes([1; 32]);
    const SECRET: Secret = Secret::from_bytes([2; 32]);

    #[test]
    fn what_was_left_is_found_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path().join("d"));
        place.leave(&SERVER, &SECRET).unwrap();
        place.leave(&SERVER, &SECRET).unwrap();
        let found = read(&place.file(&SERVER)).unwrap();
        assert_eq!(found.to_text(), SECRET.to_text());
        for path in [place.path.clone(), place.file(&SERVER)] {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o077, 0, "{}", path.display());
        }
        place.leave(&SERVER, &Secret::from_bytes([3; 32])).unwrap();
        assert_ne!(read(&place.file(&SERVER)).unwrap().to_text(), SECRET.to_text());
    }

    #[test]
    fn a_place_or_a_file_that_others_could_have_made_or_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let open = place(dir.path().join("open"));
        fs::create_dir(&open.path).unwrap();
        fs::set_permissions(&open.path, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(open.leave(&SERVER, &SECRET).is_err());
        assert!(Place { secluded: false, ..open.clone() }.is_ours());
        fs::set_permissions(&open.path, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(!Place { secluded: false, ..open }.is_ours());
        let real = place(dir.path().join("real"));
        real.leave(&SERVER, &SECRET).unwrap();
        let linked = place(dir.path().join("linked"));
        symlink(&real.path, &linked.path).unwrap();
        assert!(!linked.is_ours(), "a symlink");
        let file = real.file(&SERVER);
        fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(read(&file).is_none());
        let link = dir.path().join("link.cred");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        symlink(&file, &link).unwrap();
        assert!(read(&link).is_none() && read(&file).is_some());
        fs::write(&file, "x".repeat(1000)).unwrap();
        assert!(read(&file).is_none());
    }

    #[test]
    fn the_home_of_a_user_is_found_by_number() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\nodd:x:7:7::/:\n";
        assert_eq!(home_in(users, 0), Some("/root".into()));
        assert_eq!(home_in(users, 65534), Some("/nonexistent".into()));
        assert_eq!(home_in(users, 7), None);
        assert_eq!(home_in(users, 1000), None);
    }
}
