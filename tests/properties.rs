//! Properties that hold for any input, across rooms: one file here per subject, one binary to build.
//!
//! Golden files in `tests/data` pin stored formats. `DROPBLOCK_REWRITE_GOLDEN=1 cargo test --test properties` writes
//! them anew; a changed golden file is a changed format, and needs a new version number and a line in CHANGELOG.md.

// Says to clippy that everything here is a test, where a panic is the report.
#[cfg(test)]
#[path = "properties/chunks.rs"]
mod chunks;
#[cfg(test)]
#[path = "properties/golden.rs"]
mod golden;
#[cfg(test)]
#[path = "properties/manifests.rs"]
mod manifests;
#[cfg(test)]
#[path = "properties/sample.rs"]
mod sample;
