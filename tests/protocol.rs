//! A server over loopback, and clients that speak to it frame by frame: what `docs/PROTOCOL.md` promises.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "protocol/blocks.rs"]
mod blocks;
#[path = "protocol/changes.rs"]
mod changes;
#[path = "protocol/deltas.rs"]
mod deltas;
#[path = "protocol/faults.rs"]
mod faults;
#[path = "protocol/folding.rs"]
mod folding;
#[path = "protocol/handshake.rs"]
mod handshake;
#[path = "protocol/history.rs"]
mod history;
#[path = "protocol/proofs.rs"]
mod proofs;
#[path = "protocol/quotas.rs"]
mod quotas;
#[path = "protocol/strangers.rs"]
mod strangers;
#[path = "protocol/support.rs"]
mod support;
