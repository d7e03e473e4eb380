//! What could not be placed, and why as far as a look tells.

use super::ClientError;
use super::session::Session;

/// Of so many it is said why: each is a look at a whole folder.
const LOOKED_AT_MAX: usize = 100;

impl Session<'_> {
    /// Says what could not be placed.
    pub(super) fn tell_left(&mut self) {
        if let Some(path) = self.garbled.take().map(|path| path.to_string()) {
            let line = ClientError::Garbled { path: path.clone() }.to_string();
            self.client.problem(path, line);
        }
        for (number, (_, path)) in std::mem::take(&mut self.left).into_iter().enumerate() {
            let folder = &self.client.folder;
            let taken =
                if number < LOOKED_AT_MAX { folder.work().here(|| folder.taken_by(&path)) } else { Ok(None) };
            let line = match taken {
                Ok(Some(name)) => format!(
                    "{path}: on this disk that name is the same as {name}, which is there; it waits until one of them is called otherwise"
                ),
                _ => format!("{path}: something that is not synced is in the way, or it keeps changing"),
            };
            self.client.problem(path.to_string(), line);
        }
    }
}
