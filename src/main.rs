//! The `dropblock` binary: the command line of the library's `cli` room.

use std::process::ExitCode;

fn main() -> ExitCode {
    dropblock::cli::run().into()
}
