//! What `gc`, `check` and `stats` share: the store is opened here, or the server that has it open is asked.

use super::failure::{Exit, Failure, causes};
use super::wall::{self, May};
use crate::server::control::{self, Reply, Request};
use crate::storage::{Brake, StorageError, Store, StoreOptions};
use std::path::{Path, PathBuf};

/// Which store.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Folder of the store
    #[arg(long, value_name = "FOLDER", env = "DROPBLOCK_STORE")]
    pub store: PathBuf,

    /// One JSON object per line on stdout
    #[arg(long)]
    pub json: bool,
}

/// Why a command came to nothing.
pub enum Refused {
    /// The store itself is not what it should be.
    Damaged(String),
    /// Anything else.
    Failed(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Sees that there is a store, so that none is made by mistake.
pub fn find_store(folder: &Path) -> Result<(), Failure> {
    let (exit, why) = match folder.join("store.toml").try_exists() {
        Ok(true) => return Ok(()),
        Ok(false) => {
            (Exit::NoStore, "there is no store; name the folder that `serve --store` uses".to_owned())
        }
        Err(error) => (Exit::General, format!("{error}; run this as the user who runs the server")),
    };
    Err(Failure::new(exit, format!("{}: {why}", folder.display())))
}

/// Has a request carried out, by the server that serves the store or here.
pub fn carry_out(folder: &Path, request: Request) -> Result<Reply, Refused> {
    find_store(folder)?;
    wall::raise(&[(folder, May::Write)]);
    // What is written is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let reply = match Store::open(folder, StoreOptions::default()) {
        Ok(store) => {
            let reply = control::carry_out(&store, request, &Brake::default());
            store.close().map_err(|error| Failure::general(&error))?;
            reply
        }
        Err(error @ StorageError::Locked(_)) => match control::ask(folder, &request) {
            Ok(Some(reply)) => reply,
            Ok(None) => return Err(Failure::new(Exit::Locked, error.to_string()).into()),
            Err(error) => {
                let line = format!("{}: the server does not answer: {error}", folder.display());
                return Err(Failure::new(Exit::General, line).into());
            }
        },
        Err(
            error @ (StorageError::Damaged { .. }
            | StorageError::JournalCut { .. }
            | StorageError::JournalMissing { .. }),
        ) => {
            return Err(Refused::Damaged(causes(&error)));
        }
        Err(error) => return Err(Failure::new(Exit::General, causes(&error)).into()),
    };
    match reply {
        Reply::Failed(line) => Err(Failure::new(Exit::General, line).into()),
        done => Ok(done),
    }
}

impl Refused {
    /// For commands to which damage is a failure like any other.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Damaged(line) => Failure::new(Exit::General, line),
            Self::Failed(failure) => failure,
        }
    }
}

/// An answer to another question.
pub fn odd_reply() -> Failure {
    Failure::new(Exit::General, "the server answered something else")
}
