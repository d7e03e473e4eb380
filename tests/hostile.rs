//! Peers that mean harm, with the real frame codec: a server that lies to real clients, clients that abuse a real server,
//! a local program that swaps folders for links. `docs/SAFETY.md` names the threat that each test holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod support;

#[path = "hostile/crowd.rs"]
mod crowd;
#[path = "hostile/device.rs"]
mod device;
#[path = "hostile/guest.rs"]
mod guest;
#[path = "hostile/guests.rs"]
mod guests;
#[path = "hostile/liar.rs"]
mod liar;
#[path = "hostile/lies.rs"]
mod lies;
#[path = "hostile/sizes.rs"]
mod sizes;
#[path = "hostile/swaps.rs"]
mod swaps;
#[path = "hostile/wall.rs"]
mod wall;
