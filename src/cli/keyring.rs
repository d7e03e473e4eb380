//! What a synced folder knows of itself and of its server: `.dropblock/device.key` and `.dropblock/server`.

use super::credentials;
use super::failure::Failure;
use crate::auth::{DeviceKey, Fingerprint, InviteSecret, Secret};
use crate::folder::FolderError;
use crate::folder::private::Private;
use crate::wire::{Dial, Keyring, Pin, SecureDialer, Tls, WireError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Where `serve` listens when nobody says.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:7420";
const KEY_FILE: &str = "device.key";
const SERVER_FILE: &str = "server";
const SERVER_TITLE: &str = "dropblock server v1";

/// The server of a folder, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Which.
    pub server: Fingerprint,
    /// By invite; then address and share are known too.
    pub invited: Option<Place>,
}

/// Where an invite leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `host:port`.
    pub address: String,
    /// The share.
    pub share: String,
    /// As the device was called when it joined.
    pub device: String,
}

impl Known {
    /// The server that a folder belongs to, if it was ever synced by a version that writes it down.
    pub fn of(folder: &Path) -> Option<Self> {
        let text = Private::open(folder, false).and_then(|private| private.read(SERVER_FILE)).ok()??;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some(SERVER_TITLE) {
            return None;
        }
        let mut value = |key: &str| {
            let (name, value) = lines.next()?.split_once(' ')?;
            (name == key).then(|| value.to_owned())
        };
        let server = Fingerprint::parse(&value("fingerprint")?)?;
        let invited = match value("address") {
            Some(address) => Some(Place { address, share: value("share")?, device: value("device")? }),
            None => None,
        };
        Some(Self { server, invited })
    }

    /// Writes it down.
    pub fn save(&self, private: &Private) -> Result<(), Failure> {
        let mut text = format!("{SERVER_TITLE}\nfingerprint {}\n", self.server);
        if let Some(Place { address, share, device }) = &self.invited {
            text.push_str(&format!("address {address}\nshare {share}\ndevice {device}\n"));
        }
        private.write(SERVER_FILE, &text).map_err(|error| Failure::general(&error))
    }

    /// Forgets it.
    pub fn forget(private: &Private) -> Result<(), Failure> {
        private.remove(SERVER_FILE).map_err(|error| Failure::general(&error))
    }
}

/// The keyring of one folder.
pub struct FolderKeyring {
    folder: PathBuf,
    fresh: DeviceKey,
    device: OnceLock<DeviceKey>,
    known: Mutex<Option<Known>>,
}

impl FolderKeyring {
    /// The keyring of a folder, which need not be there yet.
    pub fn new(folder: &Path) -> Result<Self, Failure> {
        let fresh = DeviceKey::from_seed(super::seed()?).map_err(|error| Failure::general(&error))?;
        let known = Mutex::new(Known::of(folder));
        Ok(Self { folder: folder.to_owned(), fresh, device: OnceLock::new(), known })
    }

    /// The key in the folder, or a new one, which is written there.
    fn stored(&self) -> Result<DeviceKey, FolderError> {
        let private = Private::open(&self.folder, false)?;
        if let Some(key) = private.read(KEY_FILE)?.and_then(|text| DeviceKey::from_text(&text).ok()) {
            return Ok(key);
        }
        private.write(KEY_FILE, &format!("{}\n", self.fresh.to_text()))?;
        Ok(self.fresh.clone())
    }

    /// Writes the key down, if it is not there yet.
    ///
    /// # Errors
    /// When that fails: a device that is invited must know its key for ever.
    pub fn keep(&self) -> Result<(), Failure> {
        let key = self.stored().map_err(|error| Failure::general(&error))?;
        let _ = self.device.set(key);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keyring for FolderKeyring {
    fn secrets(&self, server: &Fingerprint) -> Vec<Secret> {
        credentials::find(server)
    }

    fn pin(&self) -> Option<Pin> {
        self.known().as_ref().map(|known| Pin { server: known.server, invited: known.invited.is_some() })
    }

    fn device(&self) -> &DeviceKey {
        // Without a place for it (a full disk, say) it is a new device each time; its owner is let in all the same.
        self.device.get_or_init(|| {
            self.stored().unwrap_or_else(|error| {
                tracing::debug!(%error, "the device's key is not kept");
                self.fresh.clone()
            })
        })
    }

    fn nonce(&self) -> Result<[u8; 32], WireError> {
        super::seed().map_err(|failure| WireError::Io(std::io::Error::other(failure.line)))
    }

    fn machine(&self) -> Vec<u8> {
        credentials::machine()
    }

    fn met(&self, server: &Fingerprint) {
        let mut known = self.known();
        if known.as_ref().is_some_and(|known| known.server == *server || known.invited.is_some()) {
            return;
        }
        let now = Known { server: *server, invited: None };
        match Private::open(&self.folder, false).map(|private| now.save(&private)) {
            Ok(Ok(())) => *known = Some(now),
            _ => tracing::debug!(%server, "the folder's server was not written down"),
        }
    }
}

/// When to encrypt, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TlsArg {
    /// Everywhere but between processes of one user on this machine
    Auto,
    /// There too
    Always,
}

impl From<TlsArg> for Tls {
    fn from(arg: TlsArg) -> Self {
        match arg {
            TlsArg::Auto => Self::Auto,
            TlsArg::Always => Self::Always,
        }
    }
}

/// How a folder's server is reached.
pub fn dialer(folder: &Path, tls: TlsArg) -> Result<Arc<dyn Dial>, Failure> {
    let keyring = Arc::new(FolderKeyring::new(folder)?);
    Ok(Arc::new(SecureDialer { keyring, tls: tls.into(), invite: None }))
}

/// How a server is reached for the first time, by invite.
pub fn invited(keyring: Arc<FolderKeyring>, invite: Option<InviteSecret>) -> Arc<dyn Dial> {
    Arc::new(SecureDialer { keyring, tls: Tls::Always, invite })
}

/// What a folder's server is called when nobody says: where its invite leads, or the usual place here.
pub fn address(given: Option<&str>, folder: &Path) -> String {
    let invited = || Known::of(folder).and_then(|known| known.invited).map(|place| place.address);
    given.map(str::to_owned).or_else(invited).unwrap_or_else(|| DEFAULT_ADDRESS.to_owned())
}

/// The share that was said, or that the invite is for. `None`: the one that the folder belongs to.
pub fn share(given: Option<&str>, folder: &Path) -> Option<String> {
    let invited = || Known::of(folder).and_then(|known| known.invited).map(|place| place.share);
    given.map(str::to_owned).or_else(invited)
}

/// What the device is called when nobody says: as when it joined, or like its host.
pub fn device_name(given: Option<&str>, folder: &Path) -> String {
    let invited = || Known::of(folder).and_then(|known| known.invited).map(|place| place.device);
    given.map(str::to_owned).or_else(invited).unwrap_or_else(super::sync::host_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_remembers_its_key_and_its_server() {
        let dir = tempfile::tempdir().unwrap();
        Private::open(dir.path(), true).unwrap();
        let keyring = FolderKeyring::new(dir.path()).unwrap();
        let (key, server) = (keyring.device().public(), Fingerprint::from_bytes([4; 32]));
        keyring.met(&server);
        let again = FolderKeyring::new(dir.path()).unwrap();
        assert_eq!(again.device().public(), key);
        assert_eq!(again.pin(), Some(Pin { server, invited: false }));
        let place = Place { address: "hub:1".into(), share: "my photos".into(), device: "my laptop".into() };
        let known = Known { server, invited: Some(place) };
        known.save(&Private::open(dir.path(), false).unwrap()).unwrap();
        assert_eq!(Known::of(dir.path()), Some(known));
        // An invited folder stays with its server.
        FolderKeyring::new(dir.path()).unwrap().met(&Fingerprint::from_bytes([5; 32]));
        assert_eq!(Known::of(dir.path()).unwrap().server, server);
    }
}
