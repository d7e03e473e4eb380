//! `dropblock stats`: what a store holds and what that takes.

use super::failure::{Exit, Failure};
use super::json::Object;
use super::tend::{self, Which};
use super::text;
use crate::server::control::{Reply, Request};
use crate::storage::{ShareStats, Stats};

/// Show what a store holds and what that takes on disk.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let reply = tend::carry_out(&args.which.store, Request::Stats);
    let Reply::Stats(stats) = reply.map_err(tend::Refused::into_failure)? else {
        return Err(tend::odd_reply());
    };
    if args.which.json {
        text::data(&json(&stats));
    } else {
        lines(&stats).iter().for_each(|line| text::data(line));
    }
    Ok(Exit::Ok)
}

fn lines(stats: &Stats) -> Vec<String> {
    let ratio = |permille: Option<u64>| {
        permille.map_or_else(|| "-".to_owned(), |n| format!("{}.{:02}", n / 1000, n % 1000 / 10))
    };
    let mut lines: Vec<String> = stats.shares.iter().map(share_line).collect();
    let blocks = text::count(stats.blocks, "block", "blocks");
    let packs = text::count(stats.packs, "pack", "packs");
    let garbage = text::count(stats.garbage_blocks, "block", "blocks");
    lines.push(format!("logical      {}", text::bytes(stats.logical_bytes)));
    lines.push(format!("stored       {} in {blocks} in {packs}", text::bytes(stats.stored_bytes)));
    let least = |counted: bool| if counted { "" } else { "at least " };
    let (current, all) = (stats.unread_current == 0, stats.is_complete());
    lines.push(format!("  current    {}{}", least(current), text::bytes(stats.current_stored_bytes)));
    lines.push(format!(
        "  history    {}{} (kept {})",
        least(all),
        text::bytes(stats.history_stored_bytes),
        text::keep_time(stats.keep_ms)
    ));
    if all {
        lines.push(format!("  garbage    {} in {garbage}", text::bytes(stats.garbage_bytes)));
    } else {
        lines.push("  garbage    unknown".to_owned());
    }
    lines.push(format!("dedup        {}", ratio(stats.dedup_permille().filter(|_| current))));
    lines.push(format!("compression  {}", ratio(stats.compression_permille())));
    if stats.aside_files > 0 {
        let files = text::count(stats.aside_files, "file", "files");
        let bytes = text::bytes(stats.aside_bytes);
        lines.push(format!("set aside    {bytes} of damaged bytes in {files}: packs/*.bad, may be deleted"));
    }
    if !all {
        let versions = text::count(stats.unread_current + stats.unread_history, "version", "versions");
        lines.push(format!(
            "incomplete   the chunk lists of {versions} cannot be read, so what they need is not counted; see dropblock check"
        ));
    }
    if stats.damaged_blocks > 0 {
        lines.push(format!("damaged      {} blocks; see dropblock check", stats.damaged_blocks));
    }
    lines
}

fn share_line(share: &ShareStats) -> String {
    format!(
        "share {}: {}, {}, {}, {}, {} with a journal of {}",
        crate::model::path::escape(share.name.as_bytes()),
        text::bytes(share.logical_bytes),
        text::count(share.files, "file", "files"),
        text::count(share.folders, "folder", "folders"),
        text::count(share.symlinks, "symlink", "symlinks"),
        text::count(share.commits, "commit", "commits"),
        text::bytes(share.journal_bytes)
    )
}

fn json(stats: &Stats) -> String {
    let share = |share: &ShareStats| {
        Object::default()
            .text("name", &share.name)
            .number("files", share.files)
            .number("folders", share.folders)
            .number("symlinks", share.symlinks)
            .number("logical_bytes", share.logical_bytes)
            .number("commits", share.commits)
            .number("journal_bytes", share.journal_bytes)
            .line()
    };
    let shares: Vec<String> = stats.shares.iter().map(share).collect();
    let permille = |n: Option<u64>| n.map_or_else(|| "null".to_owned(), |n| n.to_string());
    let known = |n: u64| if stats.is_complete() { n.to_string() } else { "null".to_owned() };
    Object::default()
        .number("v", 1)
        .number("logical_bytes", stats.logical_bytes)
        .number("unique_bytes", stats.unique_bytes)
        .number("stored_bytes", stats.stored_bytes)
        .number("current_stored_bytes", stats.current_stored_bytes)
        .number("history_stored_bytes", stats.history_stored_bytes)
        .raw("garbage_bytes", &known(stats.garbage_bytes))
        .number("packs", stats.packs)
        .number("blocks", stats.blocks)
        .raw("garbage_blocks", &known(stats.garbage_blocks))
        .number("condemned_blocks", stats.condemned_blocks)
        .number("damaged_blocks", stats.damaged_blocks)
        .raw("dedup_permille", &permille(stats.dedup_permille().filter(|_| stats.unread_current == 0)))
        .raw("compression_permille", &permille(stats.compression_permille()))
        .number("keep_ms", stats.keep_ms)
        .number("unread_current", stats.unread_current)
        .number("unread_history", stats.unread_history)
        .number("aside_files", stats.aside_files)
        .number("aside_bytes", stats.aside_bytes)
        .raw("shares", &format!("[{}]", shares.join(",")))
        .line()
}
