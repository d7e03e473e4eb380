//! How a command ends.

use std::process::ExitCode;

/// Exit codes; the README lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, everything durable.
    Ok,
    /// Any failure without a number of its own.
    General,
    /// The command line is wrong.
    Usage,
    /// `check` found damage.
    Damaged,
    /// Held by the mass-delete guard, or some files were skipped; the rest is done.
    Partial,
    /// There is no store there.
    NoStore,
    /// Another process has the store or the folder.
    Locked,
    /// Not allowed to talk to this server, or to open this share.
    NotAuthorised,
    /// The server did not answer in time.
    TimedOut,
    /// Stopped by the user in the middle of a job.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        let code = match exit {
            Exit::Ok => 0,
            Exit::General => 1,
            Exit::Usage | Exit::Damaged => 2,
            Exit::Partial => 3,
            Exit::NoStore => 10,
            Exit::Locked => 11,
            Exit::NotAuthorised => 12,
            Exit::TimedOut => 30,
            Exit::Interrupted => 130,
        };
        Self::from(code)
    }
}

/// Why a command failed, as one line: `what: path: cause; what to do`.
#[derive(Debug, thiserror::Error)]
#[error("{line}")]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// For people.
    pub line: String,
}

impl Failure {
    /// A failure with a code of its own.
    pub fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, line: line.into() }
    }

    /// A failure without a number of its own: an error with all its causes.
    pub fn general(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Exit::General, causes(error))
    }
}

/// An error and its causes, `a: b: c`, without saying the same twice.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}
