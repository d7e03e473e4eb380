//! What `invite`, `devices` and `revoke` share: the server that has the store open is asked, or the store is opened here.

use super::failure::{Exit, Failure, causes};
use super::identity;
use super::wall::{self, May};
use crate::server::Devices;
use crate::server::control::{self, Reply, Request};
use crate::server::office::{self, Ask, Told};
use crate::storage::{StorageError, Store, StoreOptions};
use std::path::Path;

/// Has it done.
pub fn ask(folder: &Path, ask: Ask) -> Result<Told, Failure> {
    super::tend::find_store(folder)?;
    wall::raise(&[(folder, May::Write)]);
    // What is written is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // First the server: opening a store that nobody serves is the slower way.
    let request = Request::Devices(ask.clone());
    let reply = match control::ask(folder, &request) {
        Ok(Some(reply)) => reply,
        Ok(None) => here(folder, ask)?,
        Err(error) => {
            let line = format!("{}: the server does not answer: {error}", folder.display());
            return Err(Failure::new(Exit::General, line));
        }
    };
    match reply {
        Reply::Devices(told) => Ok(told),
        Reply::Failed(line) => Err(Failure::new(Exit::General, line)),
        _ => Err(super::tend::odd_reply()),
    }
}

/// Without a server; the store is open meanwhile, so that none can start.
fn here(folder: &Path, ask: Ask) -> Result<Reply, Failure> {
    let store = Store::open(folder, StoreOptions::default()).map_err(|error| match error {
        StorageError::Locked(_) => Failure::new(Exit::Locked, error.to_string()),
        error => Failure::new(Exit::General, causes(&error)),
    })?;
    let devices = Devices::load(folder, identity::now_ms).map_err(|error| Failure::general(&error))?;
    // An invite names the server's key: from now on there is one.
    identity::key(folder)?;
    let reply = office::carry_out(&devices, ask);
    store.close().map_err(|error| Failure::general(&error))?;
    Ok(reply)
}

/// An answer to another question.
pub fn odd_reply() -> Failure {
    super::tend::odd_reply()
}
