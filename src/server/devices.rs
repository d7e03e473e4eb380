//! The devices that a server knows, and the invites that wait: `STORE/devices`, read at the start, written whole at every
//! change that must not be forgotten. Holds public keys and hashes only: who steals the file can let nobody in.
//!
//! ```text
//! 0    8  magic "DBLKDEVS"
//! 8    4  version 1, u32 LE
//! 12   n  codec-encoded `Book`
//! ..   8  checksum of everything before
//! ```
//! An invite that is taken and the device that takes it are one write; a revocation is durable before it is answered, and
//! every session looks again when the book changes. When a device was last seen is written now and then.

use super::gate::Sight;
use crate::auth::{InviteSecret, PublicKey, Scope};
use crate::model::codec;
use crate::model::hash::checksum8;
use crate::storage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

const MAGIC: &[u8; 8] = b"DBLKDEVS";
const VERSION: u32 = 1;
/// Name of the file in the store's folder.
const FILE: &str = "devices";
/// An invite that nobody took is void after this long, ms.
pub const INVITE_MS: u64 = 24 * 60 * 60 * 1000;
/// Devices remembered. Past it the owner's devices that were not seen for longest are forgotten: they may come back.
const DEVICES_MAX: usize = 4096;
/// Invites that wait at one time.
const INVITES_MAX: usize = 256;

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

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Book {
    devices: BTreeMap<PublicKey, Device>,
    /// Hash of the secret -> what it lets in, and until when.
    invites: BTreeMap<[u8; 32], (Scope, u64)>,
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
    /// Several have that name.
    #[error("several devices are called {0:?}; name one by its id, `dropblock devices` shows it")]
    Ambiguous(String),
}

/// See the module.
#[derive(Debug)]
pub struct Devices {
    /// The store's folder; `None` in tests.
    folder: Option<PathBuf>,
    book: Mutex<(Book, bool)>,
    changes: watch::Sender<u64>,
    now_ms: fn() -> u64,
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
            Ok(bytes) => parse(&bytes).ok_or(DevicesError::Damaged(path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Book::default(),
            Err(error) => return Err(DevicesError::Io(path, error)),
        };
        let (folder, book) = (Some(folder.to_owned()), Mutex::new((book, false)));
        Ok(Self { folder, book, changes: watch::channel(0).0, now_ms })
    }

    /// Tells of every change that may concern a session.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Everything known, by when it was first seen.
    pub fn list(&self) -> Vec<Device> {
        let mut devices: Vec<Device> = self.lock().0.devices.values().cloned().collect();
        devices.sort_by_key(|device| device.since_ms);
        devices
    }

    /// What a device may do; `None` when it is not let in by its key alone.
    pub fn scope_of_invited(&self, key: &PublicKey) -> Option<Scope> {
        let book = self.lock();
        let device = book.0.devices.get(key).filter(|device| device.invited && !device.revoked)?;
        Some(device.scope.clone())
    }

    /// True for a device that was revoked.
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.lock().0.devices.get(key).is_some_and(|device| device.revoked)
    }

    /// Notes that a device is here. One of the owner's that was not known is known from now on.
    pub fn saw(&self, key: &PublicKey, sight: &Sight<'_>) {
        let now = (self.now_ms)();
        let mut book = self.lock();
        book.1 = true;
        let devices = &mut book.0.devices;
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

    /// Makes an invite that can be taken once. Durable when it returns.
    ///
    /// # Errors
    /// When too many wait, or the file cannot be written.
    pub fn invite(&self, secret: &InviteSecret, scope: Scope) -> Result<(), DevicesError> {
        let now = (self.now_ms)();
        self.change(|book| {
            book.invites.retain(|_, (_, until)| *until > now);
            if book.invites.len() >= INVITES_MAX {
                return Err(DevicesError::TooManyInvites);
            }
            book.invites.insert(secret.hash(), (scope, now.saturating_add(INVITE_MS)));
            Ok(())
        })
    }

    /// What an invite lets in; `None` for one that is not known, was taken, or is too old.
    pub fn scope_of_invite(&self, secret: &InviteSecret) -> Option<Scope> {
        let now = (self.now_ms)();
        let book = self.lock();
        book.0.invites.get(&secret.hash()).filter(|(_, until)| *until > now).map(|(scope, _)| scope.clone())
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
        self.change(|book| {
            let Some((scope, until)) = book.invites.remove(&secret.hash()) else { return Ok(()) };
            if until <= now {
                return Ok(());
            }
            taken = true;
            book.devices.insert(*key, self.device(key, sight.name, scope, true));
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
        let mut revoked = None;
        self.change(|book| {
            let matches = |device: &&mut Device| {
                device.name == which || (which.len() >= 4 && device.id.starts_with(which))
            };
            let mut found: Vec<&mut Device> = book.devices.values_mut().filter(matches).collect();
            if found.iter().any(|device| !device.revoked) {
                found.retain(|device| !device.revoked);
            }
            match found.as_mut_slice() {
                [] => Err(DevicesError::Unknown(which.to_owned())),
                [device] => {
                    device.revoked = true;
                    revoked = Some(device.clone());
                    Ok(())
                }
                _ => Err(DevicesError::Ambiguous(which.to_owned())),
            }
        })?;
        revoked.ok_or_else(|| DevicesError::Unknown(which.to_owned()))
    }

    /// Writes down when devices were last seen, if that has changed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remember(&self) -> Result<(), DevicesError> {
        let mut book = self.lock();
        if std::mem::take(&mut book.1) {
            self.write(&book.0)?;
        }
        Ok(())
    }

    /// Changes the book, on disk first.
    fn change(&self, change: impl FnOnce(&mut Book) -> Result<(), DevicesError>) -> Result<(), DevicesError> {
        let mut book = self.lock();
        let mut next = book.0.clone();
        change(&mut next)?;
        self.write(&next)?;
        *book = (next, false);
        drop(book);
        self.changes.send_modify(|number| *number += 1);
        Ok(())
    }

    fn write(&self, book: &Book) -> Result<(), DevicesError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut bytes = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
        bytes.extend_from_slice(&codec::encode(book).map_err(|_| DevicesError::TooMany)?);
        let sum = checksum8(&[&bytes]);
        bytes.extend_from_slice(&sum);
        storage::write_private(folder, FILE, &bytes)
            .map_err(|error| DevicesError::Io(folder.join(FILE), error))
    }

    fn lock(&self) -> MutexGuard<'_, (Book, bool)> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(bytes: &[u8]) -> Option<Book> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    let body_ok = checksum8(&[body]) == *sum;
    let rest = body.strip_prefix(MAGIC.as_slice())?.strip_prefix(&VERSION.to_le_bytes())?;
    if body_ok { codec::decode(rest).ok() } else { None }
}

/// True for what stands in the file between its version and its checksum. For whoever feeds it any bytes (`fuzz/`).
pub fn probe(bytes: &[u8]) -> bool {
    let body = [MAGIC.as_slice(), &VERSION.to_le_bytes(), bytes].concat();
    parse(&[body.as_slice(), &checksum8(&[&body])].concat()).is_some()
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
        devices.invite(&secret(1), ONE).unwrap();
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
        devices.invite(&secret(1), ONE).unwrap();
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
        devices.revoke(&key(2).short()[..6]).unwrap();
        assert!(devices.is_revoked(&key(2)) && !devices.is_revoked(&key(3)));
        devices.revoke("desktop").unwrap();
        assert!(devices.is_revoked(&key(3)) && changes.has_changed().unwrap());
        devices.saw(&key(3), &Sight { name: "desktop" });
        assert!(devices.is_revoked(&key(3)));
    }

    #[test]
    fn a_damaged_book_is_no_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        Devices::load(folder.path(), || 5).unwrap().invite(&secret(1), ONE).unwrap();
        let path = folder.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(Devices::load(folder.path(), || 5), Err(DevicesError::Damaged(_))));
    }
}
