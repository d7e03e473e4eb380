//! strace: which calls a run makes, and runs that are killed at, or given an error by, the n-th of one kind.

use crate::campaign::Point;
use crate::support::skipped;
use crate::support::world::Server;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The calls that change a disk or tell somebody something. `openat` counts where it makes a file.
const CALLS: &str = "openat,write,writev,pwrite64,pwritev,fdatasync,fsync,sync_file_range,syncfs,rename,renameat,\
renameat2,link,linkat,unlink,unlinkat,rmdir,ftruncate,fallocate,utimensat,fchmod,fchmodat,mkdir,mkdirat,symlinkat,\
copy_file_range,sendto";

/// A call, and the how-many-th of its kind that a thread makes.
pub type Call = (String, u32);

/// True when strace works here; else says so.
pub fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    let there = *THERE.get_or_init(|| {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=openat"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "true"]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    });
    if !there {
        skipped("needs strace and setpriv");
    }
    there
}

/// `command`, traced. When the tracer is killed, so is what it traces.
fn traced(command: &Command, log: &Path, inject: Option<&str>) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o"]).arg(log).arg("-e").arg(format!("trace={CALLS}"));
    if let Some(inject) = inject {
        traced.arg("-e").arg(format!("inject={inject}"));
    }
    traced.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    traced.env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            traced.env(name, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        traced.current_dir(dir);
    }
    traced
}

/// Only watched.
pub fn watched(command: &Command, log: &Path) -> Command {
    traced(command, log, None)
}

/// kill -9 at the call.
pub fn killed_at(command: &Command, log: &Path, (name, when): &Call) -> Command {
    traced(command, log, Some(&format!("{name}:signal=KILL:when={when}")))
}

/// The call fails; with `on`, every later one of its kind too.
pub fn failing_at(command: &Command, log: &Path, (name, when): &Call, error: &str, on: bool) -> Command {
    let on = if on { "+" } else { "" };
    traced(command, log, Some(&format!("{name}:error={error}:when={when}{on}")))
}

/// The n-th `write` to one file fails. (Most others go to pipes and to the terminal, not to a disk.)
pub fn failing_write(command: &Command, log: &Path, path: &Path, when: u32, error: &str) -> Command {
    let plain = traced(command, log, Some(&format!("write:error={error}:when={when}")));
    let mut only = Command::new(plain.get_program());
    only.arg("-P").arg(path).args(plain.get_args()).env_clear();
    only.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = plain.get_current_dir() {
        only.current_dir(dir);
    }
    only
}

/// True when a call was made to fail.
pub fn has_injected(log: &Path) -> bool {
    std::fs::read_to_string(log).unwrap_or_default().contains("(INJECTED)")
}

/// The calls in a log, each once.
pub fn calls(log: &Path) -> Vec<Call> {
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let count = counts.entry((thread.to_owned(), name.to_owned())).or_default();
        *count += 1;
        if name != "openat" || rest.contains("O_CREAT") {
            found.insert((name.to_owned(), *count));
        }
    }
    assert!(!found.is_empty(), "nothing was traced");
    found.into_iter().collect()
}

/// One of the calls: first which kind, so that a kind that is made often does not crowd out the others.
pub fn pick(calls: &[Call], point: &mut Point) -> Call {
    let kinds: BTreeSet<&str> = calls.iter().map(|(name, _)| name.as_str()).collect();
    let kinds: Vec<_> = kinds.into_iter().collect();
    // In turn when seeds count up.
    let kind = kinds[(point.seed % kinds.len() as u64) as usize];
    let of_kind: Vec<&Call> = calls.iter().filter(|(name, _)| name == kind).collect();
    (*point.pick(&of_kind)).clone()
}

/// Sends a signal to the server behind its tracer.
pub fn signal(server: &mut Server, signal: Signal) {
    let tracer = server.process.pid();
    let children = std::fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children"));
    for pid in children.unwrap_or_default().split_whitespace() {
        let _ = kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), signal);
    }
}
