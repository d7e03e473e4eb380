//! `dropblock log`: what became of a path, latest first.

use super::failure::{Exit, Failure};
use super::json::Object;
use super::text::{self, Voice};
use super::{place, when};
use crate::model::past::{Shape, Version};
use crate::model::path::escape;
use crate::model::{Kind, RelPath};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A search that finds nothing for so long says how far it has come.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// Show the versions of a file, a folder or the whole share.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: place::Place,

    /// What to show, as seen from the folder, deleted or not [default: everything]
    path: Option<PathBuf>,

    /// Show at most so many versions
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,

    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, voice: Voice) -> Result<Exit, Failure> {
    args.place.wall_in();
    let runtime = super::runtime()?;
    let shown = runtime.block_on(show(&args, voice));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    shown
}

async fn show(args: &Args, voice: Voice) -> Result<Exit, Failure> {
    let account = args.place.account()?;
    let path = place::path(&account, args.path.as_deref().unwrap_or(".".as_ref()))?;
    let historian = args.place.open(&account).await?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut before = None;
    let mut any = false;
    let mut told = Instant::now();
    while left > 0 {
        let page = historian.versions(&path, before).await.map_err(|error| place::failure(&error))?;
        for version in page.versions.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            any = true;
            left -= 1;
            text::data(&if args.json { json_line(version) } else { line(version) });
        }
        before = page.rest;
        // The versions of a folder are looked for among those of the whole share.
        if let Some((seq, _)) = before.filter(|_| page.versions.is_empty() && told.elapsed() > QUIET_MAX) {
            voice.say(&format!("looking further back, at version {}", seq.0));
            told = Instant::now();
        }
        if before.is_none() {
            break;
        }
    }
    historian.close().await;
    if !any && path.is_root() {
        voice.say("nothing has happened in this share yet");
    } else if !any && args.limit != Some(0) {
        let error = crate::client::history::HistoryError::NeverWas(path);
        return Err(place::failure(&error));
    }
    Ok(Exit::Ok)
}

fn path_of(shape: &Shape) -> RelPath {
    RelPath::from_names(shape.path.clone())
}

/// What happened, in words.
fn what(version: &Version) -> &'static str {
    match (&version.before, &version.after) {
        (None, _) => "created",
        (Some(_), None) => "deleted",
        (Some(before), Some(after)) => {
            let moved = before.path != after.path;
            let edited = !before.kind.same_content(&after.kind);
            match (moved, edited) {
                (true, true) => "moved and edited",
                (true, false) => "moved",
                (false, true) => "edited",
                (false, false) => "touched",
            }
        }
    }
}

fn size(kind: &Kind) -> Option<u64> {
    match kind {
        Kind::File { content, .. } => Some(content.size),
        Kind::Symlink { target, .. } => Some(target.len() as u64),
        Kind::Folder => None,
    }
}

fn sort(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "file",
        Kind::Folder => "folder",
        Kind::Symlink { .. } => "link",
    }
}

/// `    12  2026-11-20 14:03:11  laptop    edited   1.2 KB  docs/a.txt`.
fn line(version: &Version) -> String {
    let Some(last) = version.after.as_ref().or(version.before.as_ref()) else { return String::new() };
    let size = match (&version.after, size(&last.kind)) {
        (Some(_), Some(bytes)) => text::bytes(bytes),
        _ => "-".to_owned(),
    };
    let folder = if last.kind.is_folder() { "/" } else { "" };
    let from = match (&version.before, &version.after) {
        (Some(before), Some(after)) if before.path != after.path => {
            format!("{}{folder} -> ", short(&path_of(before)))
        }
        _ => String::new(),
    };
    let gone = if version.kept || last.kind.content().is_none() { "" } else { "  (not restorable)" };
    format!(
        "{:>6}  {}  {:<12}  {:<8} {:>8}  {from}{}{folder}{gone}",
        version.seq.0,
        when::shown(version.time_ms),
        escape(version.device.as_bytes()),
        what(version),
        size,
        short(&path_of(last)),
    )
}

/// Longest path that is shown whole to people, characters.
const PATH_CHARS_MAX: usize = 400;
/// What is shown of a longer one.
const PATH_FRONT: usize = 100;
const PATH_END: usize = 250;

/// A path for people: of one that would fill the screen the front and the end. `--json` has it whole.
fn short(path: &RelPath) -> String {
    let text = path.to_string();
    let count = text.chars().count();
    if count <= PATH_CHARS_MAX {
        return text;
    }
    let front: String = text.chars().take(PATH_FRONT).collect();
    let end: String = text.chars().skip(count - PATH_END).collect();
    format!("{front}[… {} more …]{end}", count - PATH_FRONT - PATH_END)
}

fn json_line(version: &Version) -> String {
    let Some(last) = version.after.as_ref().or(version.before.as_ref()) else { return "{}".to_owned() };
    let from = version.before.as_ref().filter(|before| before.path != last.path);
    let mut object = Object::default()
        .number("version", version.seq.0)
        .text("time", &when::rfc3339(version.time_ms))
        .text("device", &version.device)
        .text("change", what(version))
        .text("kind", sort(&last.kind))
        .text("path", &path_of(last).to_string())
        .maybe_text("from", from.map(|from| path_of(from).to_string()).as_deref());
    if let (Some(_), Some(size)) = (&version.after, size(&last.kind)) {
        object = object.number("size", size);
    }
    object.flag("restorable", version.after.is_some() && version.kept).line()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_would_fill_the_screen_is_cut_in_its_middle() {
        let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
        assert_eq!(short(&path("a/b\u{e9}.txt")), "a/b\u{e9}.txt");
        let deep = format!("top/{}name.txt", "\u{e9}\u{e9}/".repeat(5_000));
        let shown = short(&path(&deep));
        assert!(shown.starts_with("top/\u{e9}") && shown.ends_with("/name.txt"), "{shown}");
        assert!(shown.chars().count() < PATH_CHARS_MAX && shown.contains("[… 14662 more …]"), "{shown}");
    }
}
