//! Both commands as a user runs them: real processes, real folders, nothing known of the inside.
//!
//! One fact per test. Every test has its own machine (`support::world`): home, store, folders, a server on a free port.
//! No test asserts a time; the only deadlines are those that tell a hang. Subsets: `cargo test --test blackbox conflicts`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod support;

#[path = "blackbox/access.rs"]
mod access;
#[path = "blackbox/bad_input.rs"]
mod bad_input;
#[path = "blackbox/bytes.rs"]
mod bytes;
#[path = "blackbox/changes.rs"]
mod changes;
#[path = "blackbox/conflicts.rs"]
mod conflicts;
#[path = "blackbox/costs.rs"]
mod costs;
#[path = "blackbox/deltas.rs"]
mod deltas;
#[path = "blackbox/guard.rs"]
mod guard;
#[path = "blackbox/history.rs"]
mod history;
#[path = "blackbox/joining.rs"]
mod joining;
#[path = "blackbox/large.rs"]
mod large;
#[path = "blackbox/live.rs"]
mod live;
#[path = "blackbox/maintenance.rs"]
mod maintenance;
#[path = "blackbox/metadata.rs"]
mod metadata;
#[path = "blackbox/names.rs"]
mod names;
#[path = "blackbox/once.rs"]
mod once;
#[path = "blackbox/quotas.rs"]
mod quotas;
#[path = "blackbox/races.rs"]
mod races;
#[path = "blackbox/renames.rs"]
mod renames;
#[path = "blackbox/repair.rs"]
mod repair;
#[path = "blackbox/restarts.rs"]
mod restarts;
