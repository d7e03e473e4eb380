//! What `gc`, `check` and `stats` share: the store is opened here, or the server that has it open is asked.

use super::failure::{Exit, Failure, causes};
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

/// Has a request carried out, by the server that serves the store or here.
pub fn carry_out(folder: &Path, request: Request) -> Result<Reply, Refused> {
    if !folder.join("store.toml").exists() {
        let line =
            format!("{}: there is no store; name the folder that `serve --store` uses", folder.display());
        return Err(Failure::new(Exit::NoStore, line).into());
    }
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
        Err(error @ (StorageError::Damaged { .. } | StorageError::JournalCut { .. })) => {
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

/// A time as people say it: `0`, `90s`, `30m`, `12h`, `7d`, `4w`; in ms.
pub fn time_ms(text: &str) -> Result<u64, String> {
    let wrong = || "a number and s, m, h, d or w, like 90s or 7d".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms: u64 = match text.strip_prefix(digits) {
        Some("" | "s") => 1000,
        Some("m") => 60_000,
        Some("h") => 3_600_000,
        Some("d") => 86_400_000,
        Some("w") => 7 * 86_400_000,
        _ => return Err(wrong()),
    };
    digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).ok_or_else(wrong)
}

/// A string of JSON.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let read = ["0", "90s", "90", "30m", "12h", "7d", "4w"].map(|text| time_ms(text).unwrap() / 1000);
        assert_eq!(read, [0, 90, 90, 1800, 43_200, 604_800, 2_419_200]);
        assert!(["", "d", "1y", "-1d", "1.5h", "99999999999999999999w"].iter().all(|t| time_ms(t).is_err()));
    }

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
