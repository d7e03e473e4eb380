//! `dropblock restore`: make a path, or the whole share, what it was.
//!
//! Without a running sync the folder is synced first, so that what is in it is in the history before anything changes,
//! and synced again afterwards, so that it shows the result. A running sync does both by itself.

use super::failure::{Exit, Failure};
use super::json::Object;
use super::text::{self, Voice};
use super::{place, sync, when};
use crate::client::restore::{Report, Wish, count};
use crate::model::past::Moment;
use crate::model::path::escape;
use crate::model::{IdSource, RelPath, Seq};
use crate::reconcile::restore::Step;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Make a file, a folder or the whole share what it was.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: place::Place,

    /// What to restore, as seen from the folder, deleted or not; `.` for the whole share
    path: PathBuf,

    #[command(flatten)]
    point: Point,

    /// Put a copy there instead, as seen from the folder
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,

    /// Restore what is still kept when some of it is not; that stays as it is now
    #[arg(long)]
    partial: bool,

    /// Show what would change, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// What is changed, one JSON object per line
    #[arg(long)]
    json: bool,

    /// Restore even when most files are gone from the folder; their deletes are not sent
    #[arg(long)]
    allow_mass_delete: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Point {
    /// As it was then: 2h (ago), 3d, "2026-11-20 14:00", or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = at)]
    at: Option<At>,

    /// As it was with this version; `dropblock log` shows the numbers
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

/// A moment, and how it was written.
#[derive(Debug, Clone)]
struct At(Moment, String);

fn at(text: &str) -> Result<At, String> {
    when::moment(text).map(|moment| At(moment, text.to_owned()))
}

impl Point {
    fn moment(&self) -> (Moment, String) {
        match (&self.at, self.version) {
            (Some(At(moment @ Moment::Age(_), text)), _) => {
                (*moment, format!("{} ago", escape(text.as_bytes())))
            }
            (Some(At(moment, text)), _) => (*moment, format!("at {}", escape(text.as_bytes()))),
            (None, version) => {
                let version = version.unwrap_or(0);
                (Moment::Commit(Seq(version)), format!("with version {version}"))
            }
        }
    }
}

pub fn run(args: Args, voice: Voice) -> Result<Exit, Failure> {
    args.place.wall_in();
    let runtime = super::runtime()?;
    let done = runtime.block_on(async {
        let stop = super::stop_signal()?;
        tokio::select! {
            done = restore(&args, voice) => done,
            () = stop => Err(Failure::new(
                Exit::Interrupted,
                "interrupted; a part may be restored, run it again for the rest",
            )),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    done
}

async fn restore(args: &Args, voice: Voice) -> Result<Exit, Failure> {
    let account = args.place.account()?;
    let (point, when) = args.point.moment();
    let wish = Wish {
        path: place::path(&account, &args.path)?,
        point,
        when,
        to: args.to.as_deref().map(|to| place::path(&account, to)).transpose()?,
        partial: args.partial,
    };
    let mut ids = IdSource::new(super::seed()?);
    if args.dry_run {
        let historian = args.place.open(&account).await?;
        let report = historian.plan(&wish, &mut ids).await.map_err(|error| place::failure(&error))?;
        historian.close().await;
        tell_steps(args, &report.steps);
        voice.say(&format!("would {}; nothing was changed", summary(&wish, &report, "restore")));
        return Ok(told_lost(&report));
    }
    // What is wrong with the question is said before anything is sent.
    let historian = args.place.open(&account).await?;
    historian.plan(&wish, &mut ids).await.map_err(|error| place::failure(&error))?;
    let alone = synced(args, &account.share, &wish, &[], Voice { quiet: true }).await?.is_some();
    if !alone && args.allow_mass_delete {
        historian.close().await;
        let line = "a sync is running in this folder: stop it first. --allow-mass-delete is for a folder that the guard holds, \
             and a sync that is held brings nothing to it; nothing was changed";
        return Err(Failure::new(Exit::Locked, line));
    }
    let report = historian.restore(&wish, &mut ids).await.map_err(|error| place::failure(&error))?;
    historian.close().await;
    if args.json {
        tell_steps(args, &report.steps);
    }
    let done = told_lost(&report);
    if report.steps.is_empty() {
        let but = if report.lost.is_empty() { "" } else { ", but for what is lost" };
        voice.say(&format!("{} is what it was {}{but}: nothing to restore", name(&wish.path), wish.when));
        return Ok(done);
    }
    let mut line = summary(&wish, &report, "restored");
    if !alone {
        line.push_str("; the sync that is running brings it to the folder, unless it is held");
    }
    let was_there =
        !report.steps.iter().any(|step| step.from.is_none() && step.to.as_ref() == Some(&wish.path));
    if wish.to.is_none() && was_there {
        let (folder, path) = (quoted(&args.place.folder), quoted(&args.path));
        let server = args.place.server.as_ref();
        let server = server.map(|server| format!(" --server {server}")).unwrap_or_default();
        line.push_str(&format!(
            "; undo: dropblock restore {folder} {path} --version {}{server}",
            report.before
        ));
    }
    voice.say(&line);
    if alone {
        let exit = synced(args, &account.share, &wish, &report.steps, voice).await?.unwrap_or(Exit::Ok);
        return Ok(if exit == Exit::Ok { done } else { exit });
    }
    Ok(done)
}

/// Names what could not be restored.
fn told_lost(report: &Report) -> Exit {
    if report.lost.is_empty() {
        return Exit::Ok;
    }
    for path in report.lost.iter().take(LOST_SHOWN) {
        text::warn(&format!("{path}: not restored, its content is not kept any more"));
    }
    let more = report.lost.len().saturating_sub(LOST_SHOWN);
    if more > 0 {
        text::warn(&format!("and {more} other files"));
    }
    Exit::Partial
}

/// Files named of those that could not be restored.
const LOST_SHOWN: usize = 20;

/// A path as a shell takes it, whatever bytes it is made of.
fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    // It would be taken for a flag.
    let front = if bytes.starts_with(b"-") { "./" } else { "" };
    let plain = |c: char| c.is_alphanumeric() || "./-_+,:@%".contains(c);
    match path.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(plain) => format!("{front}{text}"),
        Some(text) if escape(bytes) == text => format!("'{front}{}'", text.replace('\'', "'\\''")),
        _ => {
            let mut quoted = format!("$'{front}");
            for byte in bytes {
                match byte {
                    b'\'' | b'\\' => quoted.extend(['\\', char::from(*byte)]),
                    b' '..=b'~' => quoted.push(char::from(*byte)),
                    _ => quoted.push_str(&format!("\\x{byte:02x}")),
                }
            }
            quoted + "'"
        }
    }
}

/// Syncs the folder once; `None` when a running sync has it.
///
/// In a folder that the guard holds, what is gone stays as it is on both sides, except for what is restored: no delete is sent
/// that nobody has allowed.
async fn synced(
    args: &Args,
    share: &str,
    wish: &Wish,
    steps: &[Step],
    voice: Voice,
) -> Result<Option<Exit>, Failure> {
    let place = wish.to.as_ref().unwrap_or(&wish.path);
    let elsewhere =
        steps.iter().filter_map(|step| step.from.as_ref()).filter(|from| !from.starts_with(place));
    let back = || std::iter::once(place).chain(elsewhere).cloned().collect();
    let once = sync::Args::once(
        args.place.folder.clone(),
        args.place.server(),
        share.to_owned(),
        args.place.device_name(),
        args.place.tls,
    );
    match sync::once_leaving(&once, args.allow_mass_delete.then(back), voice).await {
        Ok(exit) => Ok(Some(exit)),
        Err(failure) if failure.exit == Exit::Locked => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn name(path: &RelPath) -> String {
    if path.is_root() { "the share".to_owned() } else { path.to_string() }
}

fn summary(wish: &Wish, report: &Report, verb: &str) -> String {
    let [made, changed, moved, deleted] = count(&report.steps);
    let to = wish.to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
    format!(
        "{verb} {} as it was with version {} ({}){to}: {made} created, {changed} changed, {moved} moved, {deleted} deleted",
        name(&wish.path),
        report.version,
        when::shown(report.time_ms),
    )
}

fn tell_steps(args: &Args, steps: &[Step]) {
    for step in steps {
        let [what, ..] = match count(std::slice::from_ref(step)) {
            [1, ..] => ["create"],
            [_, 1, ..] => ["change"],
            [_, _, 1, _] => ["move"],
            _ => ["delete"],
        };
        let path = step.to.as_ref().or(step.from.as_ref()).map(ToString::to_string).unwrap_or_default();
        let from = step.from.as_ref().filter(|_| what == "move").map(ToString::to_string);
        text::data(&if args.json {
            Object::default()
                .text("change", what)
                .text("path", &path)
                .maybe_text("from", from.as_deref())
                .line()
        } else {
            let arrow = from.map(|from| format!("{from} -> ")).unwrap_or_default();
            format!("{what:<6}  {arrow}{path}")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_can_be_pasted_into_a_shell() {
        let paths = ["notes/a-1.txt", "my notes", "it's", "$(rm x)", "-dash", "- d", "a\\b", "a\nb", "ü"];
        let shown = paths.map(|path| quoted(Path::new(path)));
        let want = [
            "notes/a-1.txt",
            "'my notes'",
            "'it'\\''s'",
            "'$(rm x)'",
            "./-dash",
            "'./- d'",
            "$'a\\\\b'",
            "$'a\\x0ab'",
            "ü",
        ];
        assert_eq!(shown, want);
        let odd = std::ffi::OsStr::from_bytes(b"a'\xff");
        assert_eq!(quoted(Path::new(odd)), "$'a\\'\\xff'");
    }
}
