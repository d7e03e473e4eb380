//! Properties that hold for any input, across rooms: one file here per subject, one binary to build.
//!
//! Golden files in `tests/data` pin stored formats. `DROPBLOCK_REWRITE_GOLDEN=1 cargo test --test properties` writes
//! them anew; a changed golden file is a changed format, and needs a new version number and a line in CHANGELOG.md.

#[cfg(test)]
#[path = "properties/chunks.rs"]
mod chunks;
#[cfg(test)]
#[path = "properties/codec.rs"]
mod codec;
#[cfg(test)]
#[path = "properties/golden.rs"]
mod golden;
#[cfg(test)]
#[path = "properties/manifests.rs"]
mod manifests;
#[cfg(test)]
#[path = "properties/openings.rs"]
mod openings;
#[cfg(test)]
#[path = "properties/reconcile.rs"]
mod reconcile;
#[cfg(test)]
#[path = "properties/restore.rs"]
mod restore;
#[cfg(test)]
#[path = "properties/sample.rs"]
mod sample;
