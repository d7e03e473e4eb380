//! `dropblock check`: is everything in a store that should be, and is it what was written?

use super::failure::{Exit, Failure};
use super::tend::{self, Refused, Which, quoted};
use super::text::{self, Voice};
use crate::server::control::{Reply, Request};
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
    let report = match tend::carry_out(&args.which.store, Request::Check(options)) {
        Ok(Reply::Check(report)) => report,
        Ok(_) => return Err(tend::odd_reply()),
        Err(Refused::Damaged(text)) => {
            CheckReport { findings: vec![Finding::Journal { text }], ..CheckReport::default() }
        }
        Err(Refused::Failed(failure)) => return Err(failure),
    };
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
        voice.say(&format!("clean: {looked}{repaired}"));
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
    } else if !args.repair {
        line.push_str("; --repair puts right what it can");
    }
    Err(Failure::new(Exit::Damaged, line))
}

fn json(finding: &Finding) -> String {
    match finding {
        Finding::Journal { text } => format!("{{\"v\":1,\"finding\":\"journal\",\"text\":{}}}", quoted(text)),
        Finding::PackMissing { pack } => format!("{{\"v\":1,\"finding\":\"pack_missing\",\"pack\":{pack}}}"),
        Finding::PackDamaged { pack, from, to } => {
            format!("{{\"v\":1,\"finding\":\"pack_damaged\",\"pack\":{pack},\"from\":{from},\"to\":{to}}}")
        }
        Finding::Block { hash, place } => {
            let (pack, offset) = place.map_or(("null".to_owned(), "null".to_owned()), |(pack, offset)| {
                (pack.to_string(), offset.to_string())
            });
            format!(
                "{{\"v\":1,\"finding\":\"block\",\"hash\":\"{hash}\",\"pack\":{pack},\"offset\":{offset}}}"
            )
        }
        Finding::Version { share, path, version, current, blocks } => format!(
            "{{\"v\":1,\"finding\":\"version\",\"share\":{},\"path\":{},\"version\":{version},\"current\":{current},\"missing_blocks\":{blocks}}}",
            quoted(share),
            quoted(path)
        ),
    }
}

fn sums(report: &CheckReport) -> String {
    format!(
        "{{\"v\":1,\"findings\":{},\"blocks\":{},\"read_bytes\":{},\"contents\":{},\"unindexed\":{},\"repaired\":{},\"wanted\":{}}}",
        report.findings.len() as u64 + report.more,
        report.blocks,
        report.bytes,
        report.contents,
        report.unindexed,
        report.repaired,
        report.wanted
    )
}
