//! What `log` and `restore` have in common: which folder, which share of which server, which path in it.

use super::failure::{Exit, Failure, causes};
use super::keyring::{self, TlsArg};
use super::sync;
use super::wall::{self, May};
use crate::client::history::{Ask, Historian, HistoryError};
use crate::folder::Account;
use crate::model::path::escape;
use crate::model::{Name, RelPath};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Where to ask.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// A folder that is synced; a sync of it may be running
    pub folder: PathBuf,

    /// Address of the hub [default: where the folder's invite leads, or 127.0.0.1:7420]
    #[arg(long, value_name = "ADDR:PORT", value_parser = sync::server, env = "DROPBLOCK_SERVER")]
    pub server: Option<String>,

    /// When to encrypt
    #[arg(long, value_name = "WHEN", default_value = "auto", env = "DROPBLOCK_TLS")]
    pub tls: TlsArg,

    /// Name of the share on the hub [default: the folder's]
    #[arg(long, value_name = "NAME", value_parser = sync::share_name, env = "DROPBLOCK_SHARE")]
    pub share: Option<String>,

    /// Name of this device [default: the host's name]
    #[arg(long, value_name = "NAME", value_parser = sync::device_name, env = "DROPBLOCK_DEVICE")]
    pub device: Option<String>,
}

impl Place {
    /// From here on this process writes only in the folder.
    pub fn wall_in(&self) {
        wall::raise(&[(&self.folder, May::Write)]);
    }

    /// Whose folder it is.
    pub fn account(&self) -> Result<Account, Failure> {
        let account = Account::read(&self.folder).map_err(|error| Failure::general(&error))?;
        match &self.share {
            Some(asked) if *asked != account.share => Err(Failure::new(
                Exit::General,
                format!(
                    "{} belongs to the share {:?}, not {asked:?}",
                    escape(self.folder.as_os_str().as_bytes()),
                    account.share
                ),
            )),
            _ => Ok(account),
        }
    }

    /// Connects to the server of the folder.
    pub async fn open(&self, account: &Account) -> Result<Historian, Failure> {
        let ask = Ask {
            server: self.server(),
            dialer: keyring::dialer(&self.folder, self.tls)?,
            share: account.share.clone(),
            store: account.store,
            device: account.device,
            device_name: self.device_name(),
        };
        Historian::open(ask).await.map_err(|error| failure(&error))
    }

    /// As given, or where the folder's server is.
    pub fn server(&self) -> String {
        keyring::address(self.server.as_deref(), &self.folder)
    }

    /// As given, or the host's.
    pub fn device_name(&self) -> String {
        keyring::device_name(self.device.as_deref(), &self.folder)
    }
}

/// The path of a share that an argument names: relative to the folder, or absolute and inside it.
pub fn path(account: &Account, given: &Path) -> Result<RelPath, Failure> {
    let wrong = |why: &str| {
        let shown = escape(given.as_os_str().as_bytes());
        Failure::new(Exit::General, format!("{shown}: {why}"))
    };
    let outside = "not inside the folder; name it as seen from there";
    let inside = match given.is_absolute() {
        true => given.strip_prefix(&account.folder).map_err(|_| wrong(outside))?,
        false => given,
    };
    let mut names = Vec::new();
    for part in inside.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => {
                names.push(Name::new(name.as_bytes()).map_err(|error| wrong(&error.to_string()))?);
            }
            _ => return Err(wrong(outside)),
        }
    }
    if names.first().is_some_and(Name::is_private_dir) {
        return Err(wrong("that folder is dropblock's own, and not synced"));
    }
    Ok(RelPath::from_names(names))
}

/// How a question about the past failed.
pub fn failure(error: &HistoryError) -> Failure {
    match error {
        HistoryError::Client(error) => sync::failure(error),
        HistoryError::NotKept { lost, left, .. } if *left > 0 => Failure::new(
            Exit::General,
            format!("{error}; so it is with {lost} files, and --partial restores the other {left} things"),
        ),
        error => Failure::new(Exit::General, causes(error)),
    }
}
