//! The second wall, without the first: what a process that was talked into anything could still do.

use crate::support::skipped;
use crate::support::world::World;
use dropblock::cli::wall::{May, raise};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File};
use std::io::ErrorKind::PermissionDenied;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs in a thread of its own, because there is no way back.
fn behind_a_wall(may_write: &Path, deed: impl FnOnce() + Send) -> bool {
    std::thread::scope(|scope| {
        let walled = scope.spawn(|| {
            let stands = raise(&[(may_write, May::Write)]);
            if stands {
                deed();
            }
            stands
        });
        walled.join().unwrap()
    })
}

#[test]
fn whoever_is_walled_in_writes_in_one_place_and_runs_nothing() {
    let top = tempfile::tempdir().unwrap();
    let (inside, outside) = (top.path().join("inside"), top.path().join("outside"));
    fs::create_dir_all(inside.join("a/b")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("f"), "untouched").unwrap();
    fs::hard_link(outside.join("f"), top.path().join("other-name")).unwrap();
    let stands = behind_a_wall(&inside, || {
        let denied = |what: &str, done: std::io::Result<()>| {
            assert_eq!(done.map_err(|error| error.kind()), Err(PermissionDenied), "{what}");
        };
        // All that syncing does.
        fs::write(inside.join("a/f"), "1").unwrap();
        fs::rename(inside.join("a/f"), inside.join("a/b/f")).unwrap();
        fs::write(inside.join("g"), "2").unwrap();
        renameat_with(CWD, inside.join("g"), CWD, inside.join("a/b/f"), RenameFlags::EXCHANGE).unwrap();
        fs::hard_link(inside.join("g"), inside.join("a/h")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", inside.join("link")).unwrap();
        File::options().write(true).open(inside.join("g")).unwrap().set_len(0).unwrap();
        fs::create_dir(inside.join("a/c")).unwrap();
        fs::remove_dir(inside.join("a/c")).unwrap();
        fs::remove_file(inside.join("a/h")).unwrap();
        assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "untouched", "reading is free");
        // And nothing else, by whatever way.
        std::os::unix::fs::symlink(&outside, inside.join("out")).unwrap();
        for way in [outside.clone(), inside.join("out"), inside.join("../outside")] {
            denied("a new file", fs::write(way.join("new"), "x"));
            denied("a file that is there", fs::write(way.join("f"), "x"));
            denied("appending", File::options().append(true).open(way.join("f")).map(drop));
            denied("a folder", fs::create_dir(way.join("d")));
            denied("a link", std::os::unix::fs::symlink("x", way.join("l")));
            denied("removing", fs::remove_file(way.join("f")));
        }
        // Between two places the system says that they are not on one disk.
        assert!(fs::rename(inside.join("g"), outside.join("g")).is_err());
        assert!(fs::hard_link(outside.join("f"), inside.join("f")).is_err());
        assert!(fs::rename(outside.join("f"), inside.join("f")).is_err());
        let shell = Command::new("/bin/sh").args(["-c", "true"]).status();
        assert_eq!(shell.map_err(|error| error.kind()).unwrap_err(), PermissionDenied, "a program");
        fs::copy("/bin/true", inside.join("own")).unwrap();
        let own = Command::new(inside.join("own")).status();
        assert_eq!(own.map_err(|error| error.kind()).unwrap_err(), PermissionDenied, "a program that came");
    });
    if !stands {
        return skipped("needs Landlock in the kernel");
    }
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

/// The threads of a process that may gain no rights by running a program: the mark that a wall leaves.
fn walled(pid: u32) -> Vec<bool> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("status")).unwrap_or_default().contains("NoNewPrivs:\t1")
    };
    tasks.map(|task| of(task.unwrap())).collect()
}

#[test]
fn every_thread_of_server_and_client_is_walled_in() {
    let top = tempfile::tempdir().unwrap();
    if !behind_a_wall(top.path(), || {}) {
        return skipped("needs Landlock in the kernel");
    }
    let mut world = World::new();
    let a = world.folder("a");
    a.many("d", 30);
    let mut live = world.live(&a);
    live.process.wait_output("in sync");
    for (what, pid) in [("server", world.server().process.pid()), ("client", live.process.pid())] {
        let threads = walled(pid);
        assert!(threads.len() > 1 && threads.iter().all(|walled| *walled), "{what}: {threads:?}");
    }
    // And says so to whoever asks.
    let b = world.folder("b");
    let said = world.once_with(&b, &["-v"]).code(0).stderr;
    assert!(said.contains("walled in"), "{said}");
}

/// They take what a server or a store says, too.
#[test]
fn every_command_walls_itself_in_and_works() {
    let top = tempfile::tempdir().unwrap();
    if !behind_a_wall(top.path(), || {}) {
        return skipped("needs Landlock in the kernel");
    }
    let mut world = World::new();
    let a = world.folder("a");
    a.write("f", "1");
    world.sync(&a);
    a.write("f", "2");
    world.sync(&a);
    let (folder, store) = (a.path().to_str().unwrap().to_owned(), world.store().to_str().unwrap().to_owned());
    let run = |world: &World, args: &[&str]| {
        let said = world.run([args, &["-v"]].concat()).code(0);
        assert!(said.stderr.contains("walled in"), "{args:?}: {}", said.stderr);
        said.stdout
    };
    let addr = world.addr().to_string();
    let log = run(&world, &["log", &folder, "f", "--server", &addr]);
    assert_eq!(log.lines().count(), 2, "{log}");
    run(&world, &["restore", &folder, "f", "--version", "1", "--server", &addr]);
    assert_eq!(a.text("f"), "1");
    let of_store = |world: &World| {
        for command in ["check", "stats", "gc", "devices", "invite"] {
            run(world, &[command, "--store", &store]);
        }
    };
    of_store(&world);
    let invite = run(&world, &["invite", "--store", &store]);
    let b = world.folder("b");
    let mut join = world.command(["join".as_ref(), b.path().as_os_str(), "-v".as_ref()]);
    let mut join = join.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    join.stdin.take().unwrap().write_all(invite.as_bytes()).unwrap();
    let joined = join.wait_with_output().unwrap();
    assert!(
        joined.status.success() && String::from_utf8_lossy(&joined.stderr).contains("walled in"),
        "{joined:?}"
    );
    world.stop_server();
    of_store(&world);
    let devices = run(&world, &["devices", "--store", &store]);
    let id = devices.split_whitespace().next().unwrap();
    run(&world, &["revoke", "--store", &store, id]);
}
