//! Crashes of the real programs: killed at any system call, cut from power, given errors by the disk, robbed and bent.
//!
//! Each test is a *campaign*: the same check at many points, each named by a seed. Without anything said it makes as many
//! points as the gate can afford; `DROPBLOCK_CRASH_SECONDS=n` makes it go on for n seconds with points by chance. A point
//! that fails prints the command that does it again. `docs/SAFETY.md` says which promise is refuted where.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, clippy::cast_possible_truncation)]

mod support;

#[path = "crash/campaign.rs"]
mod campaign;
#[path = "crash/cuts.rs"]
mod cuts;
#[path = "crash/damage.rs"]
mod damage;
#[path = "crash/ends.rs"]
mod ends;
#[path = "crash/faults.rs"]
mod faults;
#[path = "crash/full.rs"]
mod full;
#[path = "crash/image.rs"]
mod image;
#[path = "crash/kills.rs"]
mod kills;
#[path = "crash/memory.rs"]
mod memory;
#[path = "crash/overflow.rs"]
mod overflow;
#[path = "crash/prefixes.rs"]
mod prefixes;
#[path = "crash/readers.rs"]
mod readers;
#[path = "crash/recording.rs"]
mod recording;
#[path = "crash/repairs.rs"]
mod repairs;
#[path = "crash/samples.rs"]
mod samples;
#[path = "crash/scenario.rs"]
mod scenario;
#[path = "crash/tracer.rs"]
mod tracer;
