//! `dropblock sync`: keep a folder equal to the hub, once or for good.

use super::failure::{Exit, Failure, causes};
use super::keyring::{self, TlsArg};
use super::progress::Display;
use super::text::{self, Voice};
use super::wall::{self, May};
use crate::client::{Client, ClientError, Config, Done, News};
use crate::folder::FolderError;
use crate::folder::fs::raise_open_files;
use crate::model::RelPath;
use crate::model::counters::Counters;
use crate::model::limits;
use crate::model::path::escape;
use crate::wire::{ErrorCode, WireError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Files that a client may have open at once, if the system lets it: small ones on their way have no name, and are there
/// for as long as they are open.
const OPEN_FILES_WANTED: u64 = 16_384;

/// Keep a folder equal to the hub.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to sync; made when it is missing
    folder: PathBuf,

    /// Address of the hub [default: where the folder's invite leads, or 127.0.0.1:7420]
    #[arg(long, value_name = "ADDR:PORT", value_parser = server, env = "DROPBLOCK_SERVER")]
    server: Option<String>,

    /// Sync both ways until nothing is left, then exit
    #[arg(long)]
    once: bool,

    /// Seconds between two polls
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, env = "DROPBLOCK_POLL")]
    poll: Duration,

    /// Name of this device, used in the names of conflict copies [default: the host's name]
    #[arg(long, value_name = "NAME", value_parser = device_name, env = "DROPBLOCK_DEVICE")]
    device: Option<String>,

    /// Name of the share on the hub [default: the folder's or the invite's, at first "default"]
    #[arg(long, value_name = "NAME", value_parser = share_name, env = "DROPBLOCK_SHARE")]
    share: Option<String>,

    /// When to encrypt
    #[arg(long, value_name = "WHEN", default_value = "auto", env = "DROPBLOCK_TLS")]
    tls: TlsArg,

    /// Send deletes even when most files are gone
    #[arg(long)]
    allow_mass_delete: bool,
}

pub fn run(args: Args, voice: Voice) -> Result<Exit, Failure> {
    refuse_store(&args.folder)?;
    wall_in(&args.folder);
    let runtime = super::runtime()?;
    let ended = runtime.block_on(sync(args, voice));
    // A read that hangs on a dead disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    ended
}

impl Args {
    /// A one-time sync on behalf of another command.
    pub fn once(folder: PathBuf, server: String, share: String, device: String, tls: TlsArg) -> Self {
        let (poll, server, share) = (Duration::from_secs(1), Some(server), Some(share));
        let allow_mass_delete = false;
        Self { folder, server, once: true, poll, device: Some(device), share, tls, allow_mass_delete }
    }

    fn server(&self) -> String {
        keyring::address(self.server.as_deref(), &self.folder)
    }
}

/// From here on this process writes only in the folder.
pub fn wall_in(folder: &Path) {
    // It has to be there for the wall. Whatever is wrong with it, opening it says so.
    let _ = std::fs::create_dir(folder);
    wall::raise(&[(folder, May::Write)]);
}

async fn sync(args: Args, voice: Voice) -> Result<Exit, Failure> {
    raise_open_files(OPEN_FILES_WANTED);
    let stop = super::stop_signal()?;
    if args.once {
        return tokio::select! {
            ended = once(&args, voice) => ended,
            () = stop => Err(Failure::new(Exit::Interrupted, "interrupted; the next run goes on from here")),
        };
    }
    let display = Display::new(voice);
    let mut client = open(&args, voice, &display)?;
    let counters = client.counters();
    display.show(client.progress(), counters);
    let ended = client.run_forever(stop).await;
    display.end();
    match ended {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(gave_up(client, &error)),
    }
}

/// Syncs both ways until nothing is left.
pub async fn once(args: &Args, voice: Voice) -> Result<Exit, Failure> {
    once_leaving(args, None, voice).await
}

/// The same; with paths, what is gone from the folder is left alone, but for these, which come back.
pub async fn once_leaving(args: &Args, back: Option<Vec<RelPath>>, voice: Voice) -> Result<Exit, Failure> {
    let display = Display::new(voice);
    let start = Instant::now();
    let mut client = open(args, voice, &display)?;
    if let Some(back) = back {
        client.leave_deleted(back);
    }
    let counters = client.counters();
    display.show(client.progress(), counters.clone());
    // Also when this is dropped in the middle.
    let _end = Ending(&display);
    let ended = client.run_once().await;
    display.end();
    let done = match ended {
        Ok(done) => done,
        Err(error) => return Err(gave_up(client, &error)),
    };
    Ok(summary(args, voice, &done, &counters, start.elapsed()))
}

/// The end of a client by an error.
fn gave_up(client: Client, error: &ClientError) -> Failure {
    client.forget_if_unused(error);
    failure(error)
}

struct Ending<'a>(&'a Display);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn open(args: &Args, voice: Voice, display: &Display) -> Result<Client, Failure> {
    let connected = Arc::new(AtomicBool::new(false));
    let config = Config {
        server: args.server(),
        share: keyring::share(args.share.as_deref(), &args.folder),
        device_name: keyring::device_name(args.device.as_deref(), &args.folder),
        poll: args.poll,
        allow_mass_delete: args.allow_mass_delete,
        threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8),
        now: Arc::new(|| jiff::Zoned::now().strftime("%Y-%m-%d %H-%M-%S").to_string()),
        dialer: keyring::dialer(&args.folder, args.tls)?,
        seed: super::seed()?,
        news: teller(args, voice, display, connected),
    };
    let now_ns = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    Client::open(&args.folder, config, now_ns).map_err(|error| failure(&error))
}

/// The last line of a one-time sync.
fn summary(args: &Args, voice: Voice, done: &Done, counters: &Counters, time: Duration) -> Exit {
    let conflicts = match counters.conflicts.get() {
        0 => String::new(),
        n => format!(", {}", text::count(n, "conflict copy", "conflict copies")),
    };
    let state = if done.problems.is_empty() { "in sync with" } else { "synced with" };
    let skipped = match done.problems.len() {
        0 => String::new(),
        n => format!(", {} skipped", text::count(n as u64, "path", "paths")),
    };
    voice.say(&format!(
        "{state} {}: {} sent, {} received{conflicts}{skipped}; {} out, {} in, {}",
        args.server(),
        text::count(counters.nodes_sent.get(), "change", "changes"),
        counters.nodes_received.get(),
        text::bytes(counters.wire_bytes_sent.get()),
        text::bytes(counters.wire_bytes_received.get()),
        text::duration(time),
    ));
    if done.problems.is_empty() { Exit::Ok } else { Exit::Partial }
}

/// Turns what happens into lines.
fn teller(
    args: &Args,
    voice: Voice,
    display: &Display,
    connected: Arc<AtomicBool>,
) -> Arc<dyn Fn(News) + Send + Sync> {
    let (server, once, display) = (args.server(), args.once, display.clone());
    let folder = escape(args.folder.as_os_str().as_encoded_bytes());
    // The last loss, and whether it was one of the connection.
    let lost: Mutex<Option<(String, bool)>> = Mutex::new(None);
    Arc::new(move |news| {
        let line = match news {
            News::Connected => {
                // After a full disk the connection is not the news.
                let mut last = lost.lock().unwrap_or_else(PoisonError::into_inner);
                if !last.as_ref().is_some_and(|(_, connection)| *connection) {
                    return;
                }
                *last = None;
                if !connected.swap(true, Ordering::Relaxed) {
                    return;
                }
                format!("connected to {server} again")
            }
            News::Lost(error) => {
                let connection = !matches!(error, ClientError::Folder(_));
                let line = reason(&error);
                let mut last = lost.lock().unwrap_or_else(PoisonError::into_inner);
                let known = last.as_ref().is_some_and(|(said, was)| *said == line || (*was && connection));
                *last = Some((line.clone(), connection));
                if known {
                    return;
                }
                format!("{line}; trying again until it works")
            }
            News::InSync if once => return,
            News::InSync => {
                connected.store(true, Ordering::Relaxed);
                *lost.lock().unwrap_or_else(PoisonError::into_inner) = None;
                format!("{folder} is in sync with {server}")
            }
            News::Conflict(path) => format!("two versions met; the other one is kept as {path}"),
            News::Problem(line) => format!("skipped: {line}"),
            News::Special(paths) => {
                let shown: Vec<String> = paths.iter().take(3).map(ToString::to_string).collect();
                let more = if paths.len() > 3 { ", …" } else { "" };
                format!("left alone (sockets, fifos and devices are not synced): {}{more}", shown.join(", "))
            }
            News::Stays(path) => {
                format!(
                    "{path}: deleted elsewhere, stays here until nothing that is not synced is left in it"
                )
            }
            News::Held(error) => causes(&error),
            News::Rejoining => {
                format!(
                    "{server} does not know this folder's past (another store, or an older copy): joining both, deleting nothing"
                )
            }
            News::Copied(count) => {
                format!(
                    "this is a copy of a synced folder, and {count} files or folders are missing or differ: nothing is deleted, what differs is kept beside the share's version"
                )
            }
            News::Recovered(paths) => {
                format!(
                    "an earlier run was interrupted: {} put back",
                    text::count(paths.len() as u64, "path", "paths")
                )
            }
            News::StateSetAside(name) => {
                format!(
                    "the state in {folder}/.dropblock was damaged and is kept as {name}; joining as at first sync"
                )
            }
            News::WatchLimited(advice) => advice.to_owned(),
        };
        display.line(voice, &line);
    })
}

pub fn failure(error: &ClientError) -> Failure {
    let exit = match error {
        ClientError::Folder(FolderError::Locked { .. }) => Exit::Locked,
        ClientError::Held { .. } | ClientError::Folder(FolderError::Replaced { .. }) => Exit::Partial,
        ClientError::Wire { source, .. } | ClientError::Connection(source) => match source.code() {
            ErrorCode::Auth => Exit::NotAuthorised,
            ErrorCode::Opening => Exit::TimedOut,
            _ if source.is_timeout() => Exit::TimedOut,
            _ => Exit::General,
        },
        _ => Exit::General,
    };
    Failure::new(exit, reason(error))
}

/// What happened and what to do about it.
fn reason(error: &ClientError) -> String {
    let line = causes(error);
    match error {
        ClientError::Unreachable { .. } => format!("{line}; is `dropblock serve` running there?"),
        ClientError::Wire { server, .. } if error.is_opening() => {
            format!("{server} is still opening its store, which takes long after a crash")
        }
        ClientError::Wire { source: WireError::Stranger(_), .. } => {
            format!("{line}; run as the user who runs it, or ask that user for a `dropblock invite`")
        }
        ClientError::Wire { source: WireError::OtherServer { .. }, .. } => {
            format!("{line}; if its store was made anew, ask its owner for a new `dropblock invite`")
        }
        ClientError::Wire { source, .. } if is_nonsense(source) => {
            format!("{line}; is it a dropblock server?")
        }
        ClientError::Folder(FolderError::NoSpace { .. }) => {
            format!("{line}; nothing was lost, free some and run again")
        }
        ClientError::Folder(FolderError::Replaced { .. }) => {
            format!("{line}: nothing of that was sent; put it back, or run again to sync what is there now")
        }
        _ => line,
    }
}

fn is_nonsense(error: &WireError) -> bool {
    let said_so = matches!(error, WireError::Goodbye { .. } | WireError::Failed { .. });
    let is_server =
        matches!(error, WireError::Version { .. } | WireError::OldServer | WireError::Unproved(_));
    !said_so && !is_server
}

pub fn host_name() -> String {
    let name = crate::folder::fs::host_name();
    device_name(&name).unwrap_or_else(|_| "device".to_owned())
}

pub fn device_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= limits::DEVICE_NAME_BYTES_MAX
        && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("1 to 64 bytes without control characters".to_owned()) }
}

pub fn share_name(text: &str) -> Result<String, String> {
    if crate::wire::handshake::is_share_name(text) {
        Ok(text.to_owned())
    } else {
        Err("1 to 64 bytes without control characters and slashes".to_owned())
    }
}

pub fn server(text: &str) -> Result<String, String> {
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(text.to_owned()),
        _ => Err("HOST:PORT, for example 127.0.0.1:7420".to_owned()),
    }
}

/// The folder of a running hub is not one to sync.
pub fn refuse_store(folder: &std::path::Path) -> Result<(), Failure> {
    let is_store = folder.join("store.toml").is_file() && folder.join("packs").is_dir();
    if is_store {
        let shown = escape(folder.as_os_str().as_encoded_bytes());
        return Err(Failure::new(
            Exit::General,
            format!("{shown} is the store of a hub; name a folder of files to sync"),
        ));
    }
    Ok(())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if (0.01..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("between 0.01 and 86400 seconds".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_went_silent_in_the_middle_did_not_answer_in_time() {
        let silent = || WireError::Timeout { what: "sign of life", ms: 1 };
        let lost = WireError::Lost(Arc::new(WireError::Lost(Arc::new(silent()))));
        for error in [ClientError::Connection(silent()), ClientError::Connection(lost)] {
            assert_eq!(failure(&error).exit, Exit::TimedOut);
        }
        let ended = ClientError::Connection(WireError::Lost(Arc::new(WireError::Ended)));
        assert_eq!(failure(&ended).exit, Exit::General);
    }
}
