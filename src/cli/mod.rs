//! The command line: one file per subcommand. The only room that reads the environment and the terminal.
//!
//! Conventions: human text on stderr, data on stdout, one line for an error, exit codes as in [`Exit`].

mod check;
mod credentials;
mod demo;
mod devices;
mod failure;
mod gc;
mod history;
mod identity;
mod invite;
mod join;
mod json;
mod keyring;
mod log;
mod office;
mod place;
mod progress;
mod restore;
mod serve;
mod size;
mod stats;
mod sync;
mod tend;
mod text;
pub mod wall;
mod when;

pub use failure::{Exit, Failure};

use clap::{ArgAction, Parser, Subcommand};

/// Keeps a folder the same on every machine and moves only the blocks that changed.
#[derive(Debug, Parser)]
#[command(name = "dropblock", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// Say more; twice: every file; three times: every block
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,

    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the hub: keep the store and serve clients
    Serve(serve::Args),
    /// Keep a folder equal to the hub
    Sync(sync::Args),
    /// Let one more device in: print an invite for it
    Invite(invite::Args),
    /// Join a folder to a server by an invite, which is read from stdin
    Join(join::Args),
    /// List the devices that a server knows
    Devices(devices::ListArgs),
    /// Let a device in no more; a session of it ends at once
    Revoke(devices::RevokeArgs),
    /// Set how much an invited device may store in all
    Quota(devices::QuotaArgs),
    /// Look whether a store is whole
    Check(check::Args),
    /// Give back the space of what no version needs any more
    Gc(gc::Args),
    /// Show what a store holds and what that takes on disk
    Stats(stats::Args),
    /// Show the versions of a file, a folder or the whole share
    Log(history::Args),
    /// Make a file, a folder or the whole share what it was
    Restore(restore::Args),
    /// Show it all: a server, three folders and what moves between them
    Demo(demo::Args),
}

/// Runs the command line. The result is the process's exit code.
pub fn run() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    log::start(cli.verbose, cli.quiet);
    let voice = text::Voice { quiet: cli.quiet };
    let done = match cli.command {
        Command::Serve(args) => serve::run(args, voice),
        Command::Sync(args) => sync::run(args, voice),
        Command::Invite(args) => invite::run(&args, voice),
        Command::Join(args) => join::run(&args, voice),
        Command::Devices(args) => devices::list(&args, voice),
        Command::Revoke(args) => devices::revoke(&args, voice),
        Command::Quota(args) => devices::quota(&args, voice),
        Command::Check(args) => check::run(&args, voice),
        Command::Gc(args) => gc::run(&args, voice),
        Command::Stats(args) => stats::run(&args),
        Command::Log(args) => history::run(args, voice),
        Command::Restore(args) => restore::run(args, voice),
        Command::Demo(args) => demo::run(args, voice),
    };
    match done {
        Ok(exit) => exit,
        Err(mut failure) => {
            if std::env::current_dir().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                failure.line.push_str("; the working directory was deleted: change to another one");
            }
            text::error(&failure);
            failure.exit
        }
    }
}

/// The async runtime of a command.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::General, format!("cannot start: {error}")))
}

/// Ends at the first SIGTERM or SIGINT. The second one ends the process at once.
fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let fail = |error| Failure::new(Exit::General, format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut sender = Some(sender);
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            match sender.take() {
                Some(first) => drop(first.send(())),
                None => std::process::exit(130),
            }
        }
    });
    Ok(async move {
        let _ = receiver.await;
    })
}

/// Random bytes from the system.
fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::new(Exit::General, format!("no random bytes: {error}")))?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        super::Cli::command().debug_assert();
    }
}
