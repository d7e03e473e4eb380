//! The server's key, `STORE/identity`, and where it listened last, `STORE/address`.

use super::failure::{Exit, Failure};
use crate::auth::ServerKey;
use crate::storage;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const FILE: &str = "identity";
const ADDRESS: &str = "address";
/// First line of the file.
const TITLE: &str = "dropblock server key v1";

fn failed(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::General, format!("{}: {error}", path.display()))
}

/// The key of a store that may not be open yet, if it has one that can be used.
pub fn known(store: &Path) -> Option<ServerKey> {
    let text = fs::read_to_string(store.join(FILE)).ok()?;
    ServerKey::from_text(text.strip_prefix(TITLE)?).ok()
}

const NO_KEY: &str = "is not a server's key: put back a copy, or remove it to get a new one, after which every device must be let in again";

/// What is wrong with the key of a store. To have none yet is not.
pub fn damage(store: &Path) -> Option<String> {
    let path = store.join(FILE);
    (path.exists() && known(store).is_none()).then(|| format!("{}: {NO_KEY}", path.display()))
}

/// The key of a store that is open here; made when there is none.
pub fn key(store: &Path) -> Result<ServerKey, Failure> {
    let path = store.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let key = text.strip_prefix(TITLE).and_then(|key| ServerKey::from_text(key).ok());
            let key = key.ok_or_else(|| failed(&path, NO_KEY))?;
            let mode = fs::metadata(&path).map_err(|error| failed(&path, error))?.mode();
            if mode & 0o077 != 0 {
                // As after a careless copy. What was readable may have been read.
                tracing::warn!(path = %path.display(), "others could read the server's key");
                let private = fs::Permissions::from_mode(0o600);
                fs::set_permissions(&path, private).map_err(|error| failed(&path, error))?;
            }
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = ServerKey::from_seed(super::seed()?).map_err(|error| failed(&path, error))?;
            let text = format!("{TITLE}\n{}\n", key.to_text());
            storage::write_private(store, FILE, text.as_bytes()).map_err(|error| failed(&path, error))?;
            Ok(key)
        }
        Err(error) => Err(failed(&path, error)),
    }
}

/// For invites that are made while no server runs. Without it they say the usual address.
pub fn remember_address(store: &Path, address: &SocketAddr) {
    let text = format!("{address}\n");
    if fs::read_to_string(store.join(ADDRESS)).is_ok_and(|known| known == text) {
        return;
    }
    if let Err(error) = storage::write_private(store, ADDRESS, text.as_bytes()) {
        tracing::debug!(%error, "the address was not written down");
    }
}

/// Where the server listened last.
pub fn last_address(store: &Path) -> Option<SocketAddr> {
    fs::read_to_string(store.join(ADDRESS)).ok()?.trim().parse().ok()
}

/// Wall clock, ms since 1970.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
