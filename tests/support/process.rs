//! Processes of dropblock: started with their own environment, watched through files, killed on drop by their own id.

use super::DEADLINE;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A process that runs now, or has ended and was not looked at yet.
pub struct Running {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// How a process ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All it wrote.
    pub stdout: String,
    /// All it wrote.
    pub stderr: String,
}

impl Running {
    /// Starts `command`; what it writes goes to two files at `log`.
    pub fn start(name: &str, mut command: Command, log: PathBuf) -> Self {
        let (stdout, stderr) = (log.with_extension("out"), log.with_extension("err"));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        let mut child = command.spawn();
        // A copy of the program is "busy" while another test's fork still holds its writing end.
        for _ in 0..100 {
            if !child.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ExecutableFileBusy) {
                break;
            }
            sleep(Duration::from_millis(10));
            child = command.spawn();
        }
        let child = child.unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Self { name: name.to_owned(), child, ended: None, stdout, stderr }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// What it wrote so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// True until it has ended.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_none()
    }

    /// Sends a signal; nothing happens when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
            kill_process(pid, signal).unwrap();
        }
    }

    /// Waits for the end; a process that outlives the deadline is killed and fails the test.
    pub fn outcome(&mut self, deadline: Duration) -> Outcome {
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() > deadline {
                self.kill();
                panic!("{} hung: not ended after {deadline:?}; stderr:\n{}", self.name, self.stderr());
            }
            sleep(Duration::from_millis(5));
        }
        let code = self.ended.and_then(|status| status.code());
        Outcome { code, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Waits until either output contains `text`.
    pub fn wait_output(&mut self, text: &str) {
        let start = Instant::now();
        while !self.stderr().contains(text) && !self.stdout().contains(text) {
            let running = self.is_running();
            assert!(
                running && start.elapsed() < DEADLINE,
                "{} never said {text:?} (running: {running}); stderr:\n{}",
                self.name,
                self.stderr()
            );
            sleep(Duration::from_millis(10));
        }
    }

    /// Most memory it ever held, bytes; `None` when it has ended.
    pub fn memory_bytes_max(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let (out, err) = (self.stdout(), self.stderr());
            let tail = |text: &str| last_lines(text, 15);
            eprintln!("--- {}\n  stdout:\n{}  stderr:\n{}", self.name, tail(&out), tail(&err));
        }
    }
}

/// The last `count` lines, indented.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines[from..].iter().map(|line| format!("    {line}\n")).collect()
}

impl Outcome {
    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, want: i32) -> Self {
        assert_eq!(self.code, Some(want), "stderr:\n{}stdout:\n{}", self.stderr, self.stdout);
        self
    }

    /// Asserts an end with one of these exit codes.
    #[track_caller]
    pub fn code_in(self, want: &[i32]) -> Self {
        assert!(
            self.code.is_some_and(|code| want.contains(&code)),
            "exit {:?} is none of {want:?}; stderr:\n{}",
            self.code,
            self.stderr
        );
        self
    }

    /// Asserts a failure that says so in exactly one line on stderr, and returns that line.
    #[track_caller]
    pub fn refusal(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "exit {:?}; stderr:\n{}", self.code, self.stderr);
        self.one_line()
    }

    /// Asserts that stderr holds exactly one line, ours and printable, and returns it.
    #[track_caller]
    pub fn one_line(self) -> String {
        let line = self.stderr.trim_end_matches('\n');
        assert!(line.starts_with("dropblock: "), "not our line: {:?}", self.stderr);
        assert!(!line.contains('\n'), "more than one line:\n{}", self.stderr);
        assert!(!line.chars().any(char::is_control), "control characters: {line:?}");
        line.to_owned()
    }
}

/// The address in the line that says the server is ready, once it is there.
pub fn listening_on(output: &str) -> Option<SocketAddr> {
    let (_, rest) = output.split_once("listening on ")?;
    // A line that is still being written has no end yet.
    let (line, _) = rest.split_once('\n')?;
    line.split_whitespace().next()?.parse().ok()
}
