//! `dropblock check`: is everything in a store that should be, and is it what was written?

use super::failure::{Exit, Failure, causes};
use super::identity;
use super::json::Object;
use super::tend::{self, Refused, Which};
use super::text::{self, Voice};
use crate::server::control::{Reply, Request};
use crate::server::devices::Devices;
use crate::storage::{CheckOptions, CheckReport, Finding};

/// Look whether a store is whole.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,

    /// Only look whether everything is there, without reading it all
    #[arg(long)]
    quick: bool,

    /// Put right what can be put right by adding; nothing is ever deleted
    #[arg(long)]
    repair: bool,
}

pub fn run(args: &Args, voice: Voice) -> Result<Exit, Failure> {
    let options = CheckOptions { quick: args.quick, repair: args.repair, gentle: false };
    let mut report = match tend::carry_out(&args.which.store, Request::Check(options)) {
        Ok(Reply::Check(report)) => report,
        Ok(_) => return Err(tend::odd_reply()),
        Err(Refused::Damaged(text)) => {
            CheckReport { findings: vec![Finding::Journal { text }], ..CheckReport::default() }
        }
        Err(Refused::Failed(failure)) => return Err(failure),
    };
    let devices = Devices::load(&args.which.store, identity::now_ms).err().map(|error| causes(&error));
    let beside = identity::damage(&args.which.store).into_iter().chain(devices);
    report.findings.extend(beside.map(|text| Finding::File { text }));
    for finding in &report.findings {
        text::data(&if args.which.json { json(finding) } else { finding.to_string() });
    }
    if args.which.json {
        text::data(&sums(&report));
    }
    let looked = format!(
        "{}, {} of them read, {}",
        text::count(report.blocks, "block", "blocks"),
        text::bytes(report.bytes),
        text::count(report.contents, "content", "contents")
    );
    if report.is_clean() {
        let repaired = match report.repaired {
            0 => String::new(),
            n => format!("; {} repaired", text::count(n, "block", "blocks")),
        };
        let harmless = match report.harmless {
            0 => String::new(),
            1 => "; one damaged or missing place in packs, which nothing needs".to_owned(),
            n => format!("; {n} damaged or missing places in packs, which nothing needs"),
        };
        voice.say(&format!("clean: {looked}{repaired}{harmless}"));
        return Ok(Exit::Ok);
    }
    let mut line = format!("damaged: {} findings ({looked})", report.findings.len() as u64 + report.more);
    if report.more > 0 {
        line.push_str(&format!("; {} are not listed", report.more));
    }
    if args.repair {
        line.push_str(&format!("; {} repaired here", text::count(report.repaired, "block", "blocks")));
    }
    if report.wanted > 0 {
        line.push_str("; clients that hold what is missing are asked for it while the server runs");
    } else if !args.repair
        && report
            .findings
            .iter()
            .any(|finding| !matches!(finding, Finding::Journal { .. } | Finding::File { .. }))
    {
        line.push_str("; --repair puts right what it can");
    }
    Err(Failure::new(Exit::Damaged, line))
}

fn json(finding: &Finding) -> String {
    let line = |kind| Object::default().number("v", 1).text("finding", kind);
    match finding {
        Finding::Journal { text } => line("journal").text("text", text),
        Finding::File { text } => line("file").text("text", text),
        Finding::PackMissing { pack } => line("pack_missing").number("pack", u64::from(*pack)),
        Finding::PackDamaged { pack, from, to } => {
            line("pack_damaged").number("pack", u64::from(*pack)).number("from", *from).number("to", *to)
        }
        Finding::Block { hash, place: None } => line("block").text("hash", &hash.to_hex()),
        Finding::Block { hash, place: Some((pack, offset)) } => line("block")
            .text("hash", &hash.to_hex())
            .number("pack", u64::from(*pack))
            .number("offset", u64::from(*offset)),
        Finding::Version { share, path, version, current, blocks } => line("version")
            .text("share", share)
            .text("path", path)
            .number("version", version.0)
            .flag("current", *current)
            .number("missing_blocks", *blocks),
    }
    .line()
}

fn sums(report: &CheckReport) -> String {
    Object::default()
        .number("v", 1)
        .number("findings", report.findings.len() as u64 + report.more)
        .number("blocks", report.blocks)
        .number("read_bytes", report.bytes)
        .number("contents", report.contents)
        .number("unindexed", report.unindexed)
        .number("repaired", report.repaired)
        .number("wanted", report.wanted)
        .number("harmless", report.harmless)
        .line()
}
