//! Properties that hold for any input, across rooms: one file here per subject, one binary to build.
//!
//! Golden files in `tests/data` pin stored formats. `DROPBLOCK_REWRITE_GOLDEN=1 cargo test --test properties` writes
//! them anew; a changed golden file is a changed format, and needs a new version number and a line in CHANGELOG.md.

#[path = "properties/chunks.rs"]
mod chunks;
#[path = "properties/codec.rs"]
mod codec;
#[path = "properties/golden.rs"]
mod golden;
#[path = "properties/manifests.rs"]
mod manifests;
#[path = "properties/reconcile.rs"]
mod reconcile;
#[path = "properties/sample.rs"]
mod sample;
