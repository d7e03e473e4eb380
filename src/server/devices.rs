//! The devices that a server knows, and the invites that wait: `STORE/devices`, read at the start, written whole at every
//! change that must not be forgotten. Holds public keys and hashes only: who steals the file can let nobody in. `book` has
//! the bytes.
//!
//! An invite that is taken and the device that takes it are one write; a revocation is durable before it is answered, and
//! every session looks again when the book changes. When a device was last seen is written now and then; what it has brought
//! too, and at the latest when that is 16 MiB more: a crash forgets no more than that.

mod book;

pub use book::{Quota, probe};

use super::gate::Sight;
use crate::auth::{InviteSecret, PublicKey, Scope};
use crate::storage;
use book::{Book, People};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Name of the file in the store's folder.
const FILE: &str = "devices";
/// An invite that nobody took is void after this long, ms.
pub const INVITE_MS: u64 = 24 * 60 * 60 * 1000;
/// Devices remembered. Past it the owner's devices that were not seen for longest are forgotten: they may come back.
const DEVICES_MAX: usize = 4096;
/// Invites that wait at one time.
const INVITES_MAX: usize = 256;

/// What devices with a quota may bring before that is written down, bytes.
const UNWRITTEN_MAX: u64 = 16 * 1024 * 1024;

/// A device as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Names it in commands; made from its key.
    pub id: String,
    /// What it called itself last. Not to be trusted, and to be escaped.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// It came with an invite; otherwise it is one of the server's own user.
    pub invited: bool,
    /// First seen, ms since 1970.
    pub since_ms: u64,
    /// Last seen, ms since 1970.
    pub seen_ms: u64,
    /// It is let in no more.
    pub revoked: bool,
}

/// Why a command about devices came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DevicesError {
    /// The file cannot be read or written.
    #[error("{0}")]
    Io(PathBuf, #[source] io::Error),
    /// The file is not what was written.
    #[error(
        "{0} is damaged; without it revoked devices would be forgotten, so remove it only after you have looked at it"
    )]
    Damaged(PathBuf),
    /// The bytes do not fit a file.
    #[error("too many devices")]
    TooMany,
    /// So many invites wait already.
    #[error("too many invites wait; they end after 24 hours")]
    TooManyInvites,
    /// Nothing has that id or name.
    #[error("no device {0:?}; `dropblock devices` lists them")]
    Unknown(String),
    /// It is one of the server's own user, who could come back with another key.
    #[error("{0:?} is a device of the server's own user: only invited devices have a quota")]
    Own(String),
    /// Several have that name.
    #[error("several devices are called {0:?}; name one by its id, `dropblock devices` shows it")]
    Ambiguous(String),
}

/// See the module.
#[derive(Debug)]
pub struct Devices {
    /// The store's folder; `None` in tests.
    folder: Option<PathBuf>,
    book: Mutex<Open>,
    changes: watch::Sender<u64>,
    now_ms: fn() -> u64,
}

/// The book, and what the file does not say yet.
#[derive(Debug, Default)]
struct Open {
    book: Book,
    /// Something is not written.
    is_newer: bool,
    /// Bytes brought that are not written.
    unwritten: u64,
}

impl Devices {
    /// An empty book without a file.
    pub fn in_memory(now_ms: fn() -> u64) -> Self {
        Self { folder: None, book: Mutex::default(), changes: watch::channel(0).0, now_ms }
    }

    /// The book of a store.
    ///
    /// # Errors
    /// A file that cannot be read, or is damaged.
    pub fn load(folder: &Path, now_ms: fn() -> u64) -> Result<Self, DevicesError> {
        let path = folder.join(FILE);
        let book = match std::fs::read(&path) {
            Ok(bytes) => Book::parse(&bytes).ok_or(DevicesError::Damaged(path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Book::default(),
            Err(error) => return Err(DevicesError::Io(path, error)),
        };
        let (folder, book) = (Some(folder.to_owned()), Mutex::new(Open { book, ..Open::default() }));
        Ok(Self { folder, book, changes: watch::channel(0).0, now_ms })
    }

    /// Tells of every change that may concern a session.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Everything known, by when it was first seen, with what each may store if that is bounded.
    pub fn list(&self) -> Vec<(Device, Option<Quota>)> {
        let open = self.lock();
        let Book { people, quotas } = &open.book;
        let listed =
            |(key, device): (&PublicKey, &Device)| (device.clone(), quotas.devices.get(key).copied());
        let mut devices: Vec<_> = people.devices.iter().map(listed).collect();
        drop(open);
        devices.sort_by_key(|(device, _)| device.since_ms);
        devices
    }

    /// What a device may store; `None`: what fits.
    pub fn quota(&self, key: &PublicKey) -> Option<Quota> {
        self.lock().book.quotas.devices.get(key).copied()
    }

    /// Counts what a device with a quota has brought. True when it is time to [write it down](Self::remember).
    pub fn brought(&self, key: &PublicKey, bytes: u64) -> bool {
        let mut open = self.lock();
        let Some(quota) = open.book.quotas.devices.get_mut(key).filter(|_| bytes > 0) else { return false };
        quota.bytes_used = quota.bytes_used.saturating_add(bytes);
        open.is_newer = true;
        open.unwritten = open.unwritten.saturating_add(bytes);
        open.unwritten >= UNWRITTEN_MAX
    }

    /// What a device may do; `None` when it is not let in by its key alone.
    pub fn scope_of_invited(&self, key: &PublicKey) -> Option<Scope> {
        let open = self.lock();
        let known = open.book.people.devices.get(key);
        let device = known.filter(|device| device.invited && !device.revoked)?;
        Some(device.scope.clone())
    }

    /// True for a device that was revoked.
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.lock().book.people.devices.get(key).is_some_and(|device| device.revoked)
    }

    /// Notes that a device is here. One of the owner's that was not known is known from now on.
    pub fn saw(&self, key: &PublicKey, sight: &Sight<'_>) {
        let now = (self.now_ms)();
        let mut open = self.lock();
        open.is_newer = true;
        let devices = &mut open.book.people.devices;
        if let Some(device) = devices.get_mut(key) {
            device.seen_ms = now;
            device.name = sight.name.to_owned();
            return;
        }
        if devices.len() >= DEVICES_MAX {
            let forgettable = devices.iter().filter(|(_, device)| !device.invited && !device.revoked);
            let oldest = forgettable.min_by_key(|(_, device)| device.seen_ms).map(|(key, _)| *key);
            // Full of devices that must be remembered: this one is let in and not listed.
            let Some(oldest) = oldest else { return };
            devices.remove(&oldest);
        }
        devices.insert(*key, self.device(key, sight.name, Scope::OWNER, false));
    }

    fn device(&self, key: &PublicKey, name: &str, scope: Scope, invited: bool) -> Device {
        let now = (self.now_ms)();
        let (id, name) = (key.short(), name.to_owned());
        Device { id, name, scope, invited, since_ms: now, seen_ms: now, revoked: false }
    }

    /// Makes an invite that can be taken once, by a device that may store `bytes_max` bytes (`None`: what fits). Durable when
    /// it returns.
    ///
    /// # Errors
    /// When too many wait, or the file cannot be written.
    pub fn invite(
        &self,
        secret: &InviteSecret,
        scope: Scope,
        bytes_max: Option<u64>,
    ) -> Result<(), DevicesError> {
        let now = (self.now_ms)();
        self.change(|Book { people: People { invites, .. }, quotas }| {
            invites.retain(|_, (_, until)| *until > now);
            quotas.invites.retain(|hash, _| invites.contains_key(hash));
            if invites.len() >= INVITES_MAX {
                return Err(DevicesError::TooManyInvites);
            }
            invites.insert(secret.hash(), (scope, now.saturating_add(INVITE_MS)));
            quotas.invites.extend(bytes_max.map(|bytes_max| (secret.hash(), bytes_max)));
            Ok(())
        })
    }

    /// What an invite lets in; `None` for one that is not known, was taken, or is too old.
    pub fn scope_of_invite(&self, secret: &InviteSecret) -> Option<Scope> {
        let now = (self.now_ms)();
        let open = self.lock();
        let invite = open.book.people.invites.get(&secret.hash());
        invite.filter(|(_, until)| *until > now).map(|(scope, _)| scope.clone())
    }

    /// Takes an invite: from now on the device is let in by its key. Durable when it returns.
    ///
    /// # Errors
    /// When the file cannot be written. `false` when the invite is void.
    pub fn redeem(
        &self,
        secret: &InviteSecret,
        key: &PublicKey,
        sight: &Sight<'_>,
    ) -> Result<bool, DevicesError> {
        let now = (self.now_ms)();
        let mut taken = false;
        self.change(|Book { people, quotas }| {
            let bytes_max = quotas.invites.remove(&secret.hash());
            let Some((scope, until)) = people.invites.remove(&secret.hash()) else { return Ok(()) };
            if until <= now {
                return Ok(());
            }
            taken = true;
            people.devices.insert(*key, self.device(key, sight.name, scope, true));
            // What it brought by an earlier invite is not forgotten by another.
            let before = quotas.devices.remove(key);
            let quota = |bytes_max| Quota { bytes_max, ..before.unwrap_or(Quota::of(0)) };
            quotas.devices.extend(bytes_max.map(|bytes_max| (*key, quota(bytes_max))));
            Ok(())
        })?;
        Ok(taken)
    }

    /// Lets a device in no more, named by its id (or the first digits of it) or by its name; it stays in the list. Its
    /// sessions end at once. Durable when it returns.
    ///
    /// # Errors
    /// When there is none or more than one, or the file cannot be written.
    pub fn revoke(&self, which: &str) -> Result<Device, DevicesError> {
        self.change(|Book { people, .. }| {
            let (_, device) = named(people, which)?;
            device.revoked = true;
            Ok(device.clone())
        })
    }

    /// Sets what a device may store in all, named as for [`revoke`](Self::revoke); `None`: what fits. Durable when it returns.
    ///
    /// # Errors
    /// As `revoke`, and [`DevicesError::Own`].
    pub fn set_quota(
        &self,
        which: &str,
        bytes_max: Option<u64>,
    ) -> Result<(Device, Option<Quota>), DevicesError> {
        self.change(|Book { people, quotas }| {
            let (key, device) = named(people, which)?;
            if !device.invited {
                return Err(DevicesError::Own(which.to_owned()));
            }
            match bytes_max {
                Some(bytes_max) => quotas.devices.entry(key).or_insert(Quota::of(0)).bytes_max = bytes_max,
                None => drop(quotas.devices.remove(&key)),
            }
            Ok((device.clone(), quotas.devices.get(&key).copied()))
        })
    }

    /// Writes down when devices were last seen and what they have brought, if that has changed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remember(&self) -> Result<(), DevicesError> {
        let mut open = self.lock();
        if std::mem::take(&mut open.is_newer) {
            self.write(&open.book)?;
            open.unwritten = 0;
        }
        Ok(())
    }

    /// Changes the book, on disk first.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Book) -> Result<T, DevicesError>,
    ) -> Result<T, DevicesError> {
        let mut open = self.lock();
        let mut book = open.book.clone();
        let done = change(&mut book)?;
        self.write(&book)?;
        *open = Open { book, ..Open::default() };
        drop(open);
        self.changes.send_modify(|number| *number += 1);
        Ok(done)
    }

    fn write(&self, book: &Book) -> Result<(), DevicesError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        storage::write_private(folder, FILE, &book.encode()?)
            .map_err(|error| DevicesError::Io(folder.join(FILE), error))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one device of that id or name. One that is revoked counts only when no other is called so.
fn named<'a>(people: &'a mut People, which: &str) -> Result<(PublicKey, &'a mut Device), DevicesError> {
    let matches = |(_, device): &(&PublicKey, &mut Device)| {
        device.name == which || (which.len() >= 4 && device.id.starts_with(which))
    };
    let mut found: Vec<_> = people.devices.iter_mut().filter(matches).collect();
    // A name is what a device says: another one's id, for one. Whoever types a whole id means that.
    if found.iter().any(|(_, device)| device.id == which) {
        found.retain(|(_, device)| device.id == which);
    }
    if found.iter().any(|(_, device)| !device.revoked) {
        found.retain(|(_, device)| !device.revoked);
    }
    let is_one = found.len() == 1;
    match found.pop() {
        None => Err(DevicesError::Unknown(which.to_owned())),
        Some((key, device)) if is_one => Ok((*key, device)),
        Some(_) => Err(DevicesError::Ambiguous(which.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    static CLOCK: AtomicU64 = AtomicU64::new(1_000);

    fn now() -> u64 {
        CLOCK.load(Ordering::SeqCst)
    }

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn secret(n: u8) -> InviteSecret {
        InviteSecret::from_bytes([n + 100; 16])
    }

    const ONE: Scope = Scope { share: None, read_only: true };

    #[test]
    fn an_invite_lets_one_device_in_and_the_book_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let devices = Devices::load(folder.path(), || 5).unwrap();
        devices.invite(&secret(1), ONE, None).unwrap();
        let devices = Devices::load(folder.path(), || 6).unwrap();
        assert_eq!(devices.scope_of_invite(&secret(1)), Some(ONE));
        assert!(!devices.redeem(&secret(2), &key(1), &Sight { name: "x" }).unwrap());
        assert!(devices.redeem(&secret(1), &key(1), &Sight { name: "laptop" }).unwrap());
        assert!(!devices.redeem(&secret(1), &key(2), &Sight { name: "thief" }).unwrap(), "twice");
        let devices = Devices::load(folder.path(), || 7).unwrap();
        assert_eq!(devices.scope_of_invited(&key(1)), Some(ONE));
        assert_eq!(devices.scope_of_invited(&key(2)), None);
        let stored = std::fs::read(folder.path().join(FILE)).unwrap();
        assert!(!stored.windows(16).any(|bytes| bytes == secret(1).as_bytes()), "only a hash is kept");
    }

    #[test]
    fn an_invite_is_void_after_a_day() {
        let devices = Devices::in_memory(now);
        devices.invite(&secret(1), ONE, None).unwrap();
        CLOCK.fetch_add(INVITE_MS, Ordering::SeqCst);
        assert_eq!(devices.scope_of_invite(&secret(1)), None);
        assert!(!devices.redeem(&secret(1), &key(1), &Sight { name: "late" }).unwrap());
    }

    #[test]
    fn who_is_revoked_stays_out_and_everybody_looks_again() {
        let devices = Devices::in_memory(|| 5);
        let changes = devices.changes();
        for (n, name) in [(1, "laptop"), (2, "desktop"), (3, "desktop")] {
            devices.saw(&key(n), &Sight { name });
        }
        assert!(matches!(devices.revoke("desktop"), Err(DevicesError::Ambiguous(_))));
        assert!(matches!(devices.revoke("phone"), Err(DevicesError::Unknown(_))));
        // Somebody calls himself by another one's id.
        devices.saw(&key(4), &Sight { name: &key(2).short() });
        devices.revoke(&key(2).short()).unwrap();
        assert!(devices.is_revoked(&key(2)) && !devices.is_revoked(&key(3)) && !devices.is_revoked(&key(4)));
        devices.revoke("desktop").unwrap();
        assert!(devices.is_revoked(&key(3)) && changes.has_changed().unwrap());
        devices.saw(&key(3), &Sight { name: "desktop" });
        assert!(devices.is_revoked(&key(3)));
    }

    #[test]
    fn a_damaged_book_is_no_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        Devices::load(folder.path(), || 5).unwrap().invite(&secret(1), ONE, None).unwrap();
        let path = folder.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(Devices::load(folder.path(), || 5), Err(DevicesError::Damaged(_))));
    }

    #[test]
    fn a_quota_comes_with_the_invite_and_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Devices::load(folder.path(), || 5).unwrap();
        let version = || std::fs::read(folder.path().join(FILE)).unwrap()[8];
        let devices = open();
        devices.invite(&secret(1), ONE, None).unwrap();
        assert_eq!(version(), 1, "what older programs read, as long as nobody has a quota");
        devices.invite(&secret(2), ONE, Some(100)).unwrap();
        assert_eq!(version(), 2);
        let devices = open();
        for n in [1, 2] {
            assert!(devices.redeem(&secret(n), &key(n), &Sight { name: "x" }).unwrap());
        }
        assert_eq!((devices.quota(&key(1)), devices.quota(&key(2))), (None, Some(Quota::of(100))));
        assert!(!devices.brought(&key(2), 60) && !devices.brought(&key(1), u64::MAX));
        devices.remember().unwrap();
        let devices = open();
        assert_eq!(devices.quota(&key(2)).unwrap().left(), 40);
        assert!(devices.brought(&key(2), UNWRITTEN_MAX), "so much has to be written down at once");
        assert_eq!(devices.quota(&key(2)).unwrap().left(), 0);
        // Another invite for the same device: another quota, the same bill.
        devices.invite(&secret(3), ONE, Some(UNWRITTEN_MAX + 70)).unwrap();
        assert!(devices.redeem(&secret(3), &key(2), &Sight { name: "x" }).unwrap());
        assert_eq!(open().quota(&key(2)).unwrap().left(), 10);
        let listed = open().list();
        assert_eq!(listed.iter().filter(|(_, quota)| quota.is_some()).count(), 1);
    }

    #[test]
    fn the_owner_changes_quotas_of_invited_devices_only() {
        let devices = Devices::in_memory(|| 5);
        devices.saw(&key(1), &Sight { name: "own" });
        devices.invite(&secret(1), ONE, None).unwrap();
        devices.redeem(&secret(1), &key(2), &Sight { name: "guest" }).unwrap();
        assert!(matches!(devices.set_quota("own", Some(5)), Err(DevicesError::Own(_))));
        assert!(matches!(devices.set_quota("nobody", Some(5)), Err(DevicesError::Unknown(_))));
        assert_eq!(devices.set_quota("guest", Some(50)).unwrap().1, Some(Quota::of(50)));
        devices.brought(&key(2), 30);
        assert_eq!(devices.set_quota("guest", Some(20)).unwrap().1.unwrap().left(), 0);
        assert_eq!(devices.set_quota("guest", None).unwrap().1, None);
    }
}
