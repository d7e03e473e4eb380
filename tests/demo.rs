//! `dropblock demo` as a user runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod support;

use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;
use support::process::Running;
use support::{DEADLINE, LONG_DEADLINE};

/// Starts the demo with a small file in a temporary folder of its own.
fn demo(place: &Path) -> Running {
    let temp = place.join("tmp");
    fs::create_dir(&temp).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dropblock"));
    command.args(["demo", "--size", "2"]).env("TMPDIR", &temp);
    Running::start("demo", command, place.join("demo"))
}

/// Nothing is in the temporary folder, and no process runs that was started in it.
#[track_caller]
fn assert_tidy(place: &Path) {
    let temp = place.join("tmp");
    assert_eq!(fs::read_dir(&temp).unwrap().count(), 0, "files are left");
    let temp = temp.to_str().unwrap();
    for process in fs::read_dir("/proc").unwrap() {
        let line = fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(temp), "a process is left");
    }
}

#[test]
fn the_demo_ends_with_three_equal_folders_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let outcome = demo(place.path()).outcome(LONG_DEADLINE).code(0);
    assert_eq!(outcome.stdout.lines().last(), Some("all three folders are equal"), "{}", outcome.stdout);
    // A line for the head, one for each step, and the last.
    assert_eq!(outcome.stdout.lines().count(), 10, "{}", outcome.stdout);
    assert_tidy(place.path());
}

#[test]
fn an_interrupted_demo_ends_its_processes_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut demo = demo(place.path());
    demo.wait_output("create a random file");
    demo.signal(Signal::INT);
    assert_eq!(demo.outcome(DEADLINE).code(130).stderr.lines().last(), Some("dropblock: interrupted"));
    assert_tidy(place.path());
}
