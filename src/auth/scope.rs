//! What a device may do.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Which share, and whether it may be changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scope {
    /// The only share it may open; `None`: any, also new ones.
    pub share: Option<String>,
    /// It may look and never change.
    pub read_only: bool,
}

impl Scope {
    /// Everything: the server's own user.
    pub const OWNER: Self = Self { share: None, read_only: false };

    /// True when the share may be opened.
    pub fn admits(&self, share: &str) -> bool {
        self.share.as_deref().is_none_or(|only| only == share)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.share.as_deref().unwrap_or("every share");
        write!(f, "{share}, {}", if self.read_only { "read-only" } else { "read and write" })
    }
}
