//! The command line: one file per subcommand. The only room that reads the environment and the terminal.
//!
//! Conventions: human text on stderr, data on stdout, one line for an error, exit codes as in [`Exit`].

mod demo;
mod failure;
mod log;
mod progress;
mod serve;
mod sync;
mod text;

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
    /// Show it all on a temporary store and three folders, and clean up
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
        Command::Demo(args) => demo::run(&args, voice),
    };
    match done {
        Ok(exit) => exit,
        Err(failure) => {
            text::error(&failure);
            failure.exit
        }
    }
}
