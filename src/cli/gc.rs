//! `dropblock gc`: give back the space of what no version needs any more.

use super::failure::{Exit, Failure};
use super::json::Object;
use super::tend::{self, Which};
use super::text::{self, Voice};
use crate::server::control::{Reply, Request};
use crate::storage::{GcOptions, GcReport};
use std::time::Duration;

/// Give back the space of what no version needs any more.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,

    /// Show what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Garbage stays for this long after a run has seen it first
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = super::when::duration_ms)]
    grace: u64,

    /// A pack file is rewritten when at least this much of it is garbage, percent
    #[arg(long, value_name = "PERCENT", default_value_t = GcOptions::SPARSE_PERCENT, value_parser = clap::value_parser!(u8).range(1..=100))]
    sparse: u8,
}

pub fn run(args: &Args, voice: Voice) -> Result<Exit, Failure> {
    let options =
        GcOptions { grace_ms: args.grace, sparse_percent: args.sparse, dry_run: args.dry_run, gentle: false };
    let reply = tend::carry_out(&args.which.store, Request::Gc(options));
    let Reply::Gc(report) = reply.map_err(tend::Refused::into_failure)? else {
        return Err(tend::odd_reply());
    };
    if args.which.json {
        text::data(&json(&report));
    } else {
        show(&report, voice);
    }
    if report.damaged_packs.is_empty() {
        return Ok(Exit::Ok);
    }
    let packs: Vec<String> = report.damaged_packs.iter().map(u32::to_string).collect();
    let line = format!("damage in pack {}: left as it is; see dropblock check", packs.join(", "));
    Err(Failure::new(Exit::Partial, line))
}

fn show(report: &GcReport, voice: Voice) {
    let sums = &report.sums;
    let blocks = |n| text::count(n, "block", "blocks");
    text::data(&format!("live      {} in {}", text::bytes(sums.live_bytes), blocks(sums.live_blocks)));
    if sums.leased_blocks > 0 {
        // Or nobody would know why nothing is freed.
        text::data(&format!(
            "in use    {} in {} of the live ones: sent, or asked about, by clients that have not committed yet",
            text::bytes(sums.leased_bytes),
            blocks(sums.leased_blocks)
        ));
    }
    text::data(&format!("garbage   {} in {}", text::bytes(sums.garbage_bytes), blocks(sums.garbage_blocks)));
    if sums.waiting_blocks > 0 {
        text::data(&format!(
            "waiting   {} in {}",
            text::bytes(sums.waiting_bytes),
            blocks(sums.waiting_blocks)
        ));
    }
    let packs = text::count(sums.dropped_packs, "pack", "packs");
    let plan = format!(
        "{packs} dropped, {} rewritten ({} moved)",
        sums.rewritten_packs,
        text::bytes(sums.moved_bytes)
    );
    if report.dry_run {
        text::data(&format!("plan      {plan}, {} freed", text::bytes(sums.freed_bytes)));
        for pack in &report.packs {
            text::data(&format!(
                "  pack {:08}  {} of {} freed",
                pack.number,
                text::bytes(pack.freed_bytes()),
                text::bytes(pack.file_bytes)
            ));
        }
        voice.say("nothing was changed");
        return;
    }
    text::data(&format!(
        "done      {plan}, {} freed, {} deleted",
        text::bytes(report.freed_bytes),
        blocks(report.deleted_blocks)
    ));
    if sums.waiting_blocks > 0 {
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_millis(sums.next_ripe_ms).saturating_sub(now_ms);
        voice.say(&format!(
            "what waits is garbage of less than the grace time; in {} a server deletes it by itself, or another run does",
            text::duration(left)
        ));
    }
}

fn json(report: &GcReport) -> String {
    let sums = &report.sums;
    Object::default()
        .number("v", 1)
        .flag("dry_run", report.dry_run)
        .number("live_blocks", sums.live_blocks)
        .number("live_bytes", sums.live_bytes)
        .number("leased_blocks", sums.leased_blocks)
        .number("leased_bytes", sums.leased_bytes)
        .number("garbage_blocks", sums.garbage_blocks)
        .number("garbage_bytes", sums.garbage_bytes)
        .number("new_blocks", sums.new_blocks)
        .number("waiting_blocks", sums.waiting_blocks)
        .number("waiting_bytes", sums.waiting_bytes)
        .number("dropped_packs", sums.dropped_packs)
        .number("rewritten_packs", sums.rewritten_packs)
        .number("moved_bytes", sums.moved_bytes)
        .number("planned_bytes", sums.freed_bytes)
        .number("deleted_blocks", report.deleted_blocks)
        .number("removed_packs", report.removed_packs)
        .number("freed_bytes", report.freed_bytes)
        .raw("damaged_packs", &format!("{:?}", report.damaged_packs))
        .line()
}
