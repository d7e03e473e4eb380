//! Who may talk to whom: nothing to set up for one user on one machine, an invite for everybody else, and no secret where
//! others could read it.

use crate::support::disk::Folder;
use crate::support::process::Outcome;
use crate::support::sandbox::{Sandbox, is_root};
use crate::support::world::{World, assert_equal, free_addr, wait_until};
use crate::support::{DEADLINE, random_bytes, skipped};
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command with a line on stdin.
fn told(mut command: Command, line: &str) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl World {
    pub fn store_arg(&self) -> String {
        self.store().to_str().unwrap().to_owned()
    }

    pub fn invite(&self, more: &[&str]) -> String {
        let store = self.store_arg();
        let mut args = vec!["invite", "--store", &store];
        args.extend_from_slice(more);
        let invited = self.run(args).code(0);
        let lines: Vec<&str> = invited.stdout.lines().collect();
        assert_eq!(lines.len(), 1, "one line: {lines:?}");
        lines[0].to_owned()
    }

    pub fn join(&self, folder: &Folder, line: &str) -> Outcome {
        let mut command = self.command(["join".as_ref(), folder.path().as_os_str()]);
        command.args(["--device", &folder.name()]);
        told(command, line)
    }

    /// `sync --once` of a folder that was joined: it knows where to go.
    pub fn once_joined(&self, folder: &Folder) -> Outcome {
        self.run(["sync".as_ref(), folder.path().as_os_str(), "--once".as_ref()])
    }

    pub fn devices(&self) -> String {
        self.run(["devices", "--store", &self.store_arg()]).code(0).stdout
    }

    fn revoke(&self, device: &str) -> Outcome {
        self.run(["revoke", "--store", &self.store_arg(), device])
    }
}

/// The secret part of an invite.
fn secret_of(line: &str) -> &str {
    line.rsplit_once('.').unwrap().1
}

#[test]
fn several_servers_of_one_user_on_free_ports_need_no_set_up() {
    let world = World::new();
    let other = world.try_serve(&world.path().join("other"), SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "of the first");
    b.write("x", "of the second");
    world.sync(&a);
    world.once_at(&b, other.addr, &[]).outcome(DEADLINE).code(0);
    let c = world.folder("c");
    world.once_at(&c, other.addr, &[]).outcome(DEADLINE).code(0);
    assert_eq!(c.text("x"), "of the second");
    world.sync(&a);
    assert_eq!(a.text("x"), "of the first");
}

#[test]
fn another_home_a_closed_one_or_none_is_no_obstacle_for_the_same_user() {
    let mut world = World::inside(Sandbox::unprivileged());
    let closed = world.folder("closed");
    world.sandbox().forbid(closed.path());
    let env: [&dyn Fn(&mut Command); 4] = [
        &|command| {
            command.env("HOME", world.path().join("home/state"));
        },
        &|command| {
            command.env("HOME", closed.path());
        },
        &|command| {
            command.env_remove("HOME");
        },
        &|_| {},
    ];
    let bare = |command: &mut Command| {
        for name in ["XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
    };
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    for (number, of_server) in env.iter().enumerate() {
        let mut serve = world.serve_command(&world.path().join(format!("home/store{number}")), free);
        bare(&mut serve);
        of_server(&mut serve);
        let server = world.try_serve_as(serve).unwrap();
        for (other, of_client) in env.iter().enumerate() {
            let folder = world.folder(&format!("f{number}-{other}"));
            folder.write(format!("{other}"), "x");
            world.sandbox().give(folder.path());
            let mut sync = world.sync_command(&folder, server.addr, &["--once"]);
            bare(&mut sync);
            of_client(&mut sync);
            world.start("once", sync).outcome(DEADLINE).code(0);
            assert!(folder.has("0"), "server {number}, client {other}");
        }
    }
    fs::set_permissions(closed.path(), PermissionsExt::from_mode(0o755)).unwrap();
    world.serve();
}

#[test]
fn another_user_of_the_machine_is_refused_and_told_what_to_do() {
    if !is_root() {
        return skipped("needs root");
    }
    let world = World::new();
    let other = World::inside(Sandbox::unprivileged());
    let (a, b) = (world.folder("a"), other.folder("b"));
    a.write("secret", "secret");
    b.write("mine", "mine");
    other.sandbox().give(b.path());
    world.sync(&a);
    for more in [&[][..], &["--tls", "always"]] {
        let line = other.once_at(&b, world.addr(), more).outcome(DEADLINE).code(12).refusal();
        assert!(line.contains("invite") && line.contains(&world.addr().to_string()), "{line}");
    }
    assert!(!b.has("secret"));
    world.sync(&a);
    assert!(!a.has("mine"));
    // The other way round root could look, but is not asked to.
    let mut theirs = World::inside(Sandbox::unprivileged());
    theirs.serve();
    world.once_at(&a, theirs.addr(), &[]).outcome(DEADLINE).code(12).refusal();
    // With an invite it is one more device.
    let line = world.invite(&[]);
    let mut join = other.command(["join".as_ref(), b.path().as_os_str()]);
    join.args(["--device", "b"]);
    told(join, &line).code(0);
    other.once_joined(&b).code(0);
    assert_eq!(b.text("secret"), "secret");
}

#[test]
fn an_invite_lets_one_device_in_with_its_own_key_until_it_is_revoked() {
    let world = World::new();
    let (a, b, c) = (world.folder("a"), world.folder("b"), world.folder("c"));
    a.write("x", "1");
    world.sync(&a);
    let line = world.invite(&[]);
    assert!(line.starts_with("dropblock://") && line.contains(&world.addr().to_string()), "{line}");
    world.join(&b, &line).code(0);
    world.once_joined(&b).code(0);
    assert_equal(&[&a, &b]);
    let again = world.join(&c, &line).code(12).refusal();
    assert!(again.contains("does not take this invite"), "{again}");
    assert!(!c.join(".dropblock/server").exists(), "a folder that did not join belongs to nobody");
    // The same folder may paste it again: it has joined.
    world.join(&b, &line).code(0);
    let listed = world.devices();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("invited") && listed.contains("own"), "{listed}");
    let joined = ["sync".as_ref(), b.path().as_os_str()];
    let mut live = world.start("live", world.command(joined));
    b.write("y", "2");
    wait_until("it arrives", || world.once(&a).code == Some(0) && a.has("y"));
    world.revoke("b").code(0);
    let ended = live.outcome(DEADLINE).code(12);
    assert!(ended.stderr.contains("revoked"), "{}", ended.stderr);
    let refused = world.once_joined(&b).code(12).refusal();
    assert!(refused.contains("invite"), "{refused}");
    world.sync(&a);
    assert!(world.devices().contains("revoked"));
    world.revoke("nobody").refusal();
}

#[test]
fn invites_devices_and_revocations_work_without_a_server_and_outlive_it() {
    let mut world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "1");
    world.sync(&a);
    let addr = world.addr();
    world.stop_server();
    let line = world.invite(&["--read-only"]);
    assert!(line.contains(&addr.to_string()), "where it listened last: {line}");
    world.join(&b, &line).code_in(&[1]).refusal();
    world.serve_again(addr);
    world.join(&b, &line).code(0);
    world.kill_server();
    world.serve_again(addr);
    world.once_joined(&b).code(0);
    world.stop_server();
    world.revoke("b").code(0);
    assert!(world.devices().contains("read-only"));
    world.serve_again(addr);
    world.once_joined(&b).code(12).refusal();
}

/// What was refused is not remembered as the folder's share.
#[test]
fn a_share_that_is_mistyped_once_is_forgotten() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "1");
    world.sync(&a);
    world.join(&b, &world.invite(&[])).code(0);
    let wrong =
        ["sync".as_ref(), b.path().as_os_str(), "--once".as_ref(), "--share".as_ref(), "other".as_ref()];
    world.run(wrong).code(12).refusal();
    world.once_joined(&b).code(0);
    assert_equal(&[&a, &b]);
}

#[test]
fn a_read_only_device_receives_and_what_it_changes_stays_with_it() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "1");
    a.write("d/y", "1");
    world.sync(&a);
    world.join(&b, &world.invite(&["--read-only"])).code(0);
    world.once_joined(&b).code(0);
    assert_equal(&[&a, &b]);
    b.write("x", "mine");
    b.write("new", "mine");
    let told = world.once_joined(&b).code(3).stderr;
    assert!(told.contains("x: changed here and not sent") && told.contains("new: changed here"), "{told}");
    a.write("d/y", "2");
    a.write("x", "2");
    world.sync(&a);
    world.once_joined(&b).code(3);
    assert_eq!((b.text("d/y"), b.text("x"), b.text("new")), ("2".into(), "2".into(), "mine".into()));
    let kept = b.tree().contents();
    assert_eq!(kept.iter().filter(|text| text.contains("mine")).count(), 2, "both of its own: {kept:?}");
    world.sync(&a);
    assert!(!a.has("new"));
    assert_eq!(a.text("x"), "2");
}

/// It may be the only one that has what the server has lost.
#[test]
fn a_read_only_device_gives_back_what_the_server_has_lost_and_nothing_else() {
    let mut world = World::new();
    let (a, b, fresh) = (world.folder("a"), world.folder("b"), world.folder("fresh"));
    // The list of its chunks has two levels.
    a.write("large", random_bytes(1, 14_000_000));
    a.write("small", "1");
    world.sync(&a);
    world.join(&b, &world.invite(&["--read-only"])).code(0);
    world.once_joined(&b).code(0);
    let addr = world.addr();
    world.stop_server();
    std::fs::remove_file(world.store().join("packs/00000001.pack")).unwrap();
    world.serve_again(addr);
    b.write("new", "mine");
    world.once_joined(&b).code(3);
    world.sync(&fresh);
    assert_equal(&[&a, &fresh]);
    let check = world.run(["check", "--store", &world.store_arg()]).code(0);
    assert!(check.stderr.contains("clean"), "{check:?}");
}

/// Both kinds of what stays: a folder that cannot go for what is in it, and what this device may not send.
#[test]
fn a_read_only_device_keeps_a_folder_that_holds_a_fifo_and_is_told_of_its_own_change_only() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("d/f", "1");
    world.sync(&a);
    world.join(&b, &world.invite(&["--read-only"])).code(0);
    world.once_joined(&b).code(0);
    b.fifo("d/p");
    b.write("new", "mine");
    a.remove("d");
    a.write("other", "1");
    world.sync(&a);
    let told = world.once_joined(&b).code(3).stderr;
    assert!(
        told.contains("d: deleted elsewhere") && told.contains("new: changed here and not sent"),
        "{told}"
    );
    assert!(!told.contains("in the way"), "{told}");
    assert_eq!(b.tree().names(), ["d", "d/p", "new", "other"]);
    b.remove("new");
    world.once_joined(&b).code(0);
    world.sync(&a);
    assert_eq!(a.tree().names(), ["other"]);
}

#[test]
fn shares_are_separate_trees_and_an_invite_opens_one_of_them() {
    let world = World::new();
    let (a, b, c) = (world.folder("a"), world.folder("b"), world.folder("c"));
    a.write("x", "of one");
    b.write("x", "of two");
    world.once_with(&a, &["--share", "one"]).code(0);
    world.once_with(&b, &["--share", "my two"]).code(0);
    world.once_with(&a, &["--share", "one"]).code(0);
    assert_eq!((a.text("x"), b.text("x")), ("of one".into(), "of two".into()));
    world.join(&c, &world.invite(&["--share", "my two"])).code(0);
    world.once_joined(&c).code(0);
    assert_eq!(c.text("x"), "of two");
    // Its key is good, for that share.
    for share in ["one", "three"] {
        let d = world.folder(share);
        fs::create_dir(d.join(".dropblock")).unwrap();
        for name in ["device.key", "server"] {
            fs::copy(c.join(".dropblock").join(name), d.join(".dropblock").join(name)).unwrap();
        }
        let refused = world.run([
            "sync".as_ref(),
            d.path().as_os_str(),
            "--once".as_ref(),
            "--share".as_ref(),
            share.as_ref(),
        ]);
        let line = refused.code(12).refusal();
        assert!(line.contains("may not open that share"), "{line}");
        assert!(!d.has("x"));
    }
}

#[test]
fn a_folder_remembers_its_share_also_when_its_state_is_lost() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "1");
    world.once_with(&a, &["--share", "photos"]).code(0);
    a.write("x", "2");
    world.sync(&a);
    // Joined to the default share, it would be poured into that one.
    fs::write(a.join(".dropblock/state"), "garbage").unwrap();
    a.write("y", "3");
    world.sync(&a);
    world.once_with(&b, &["--share", "photos"]).code(0);
    assert_equal(&[&a, &b]);
    assert_eq!(b.text("x"), "2");
    let line = world.once_with(&a, &["--share", "default"]).code(1).refusal();
    assert!(line.contains("belongs to the share \"photos\""), "{line}");
    // A folder of before has no note; it gets one.
    fs::remove_file(b.join(".dropblock/share")).unwrap();
    world.sync(&b);
    assert_eq!(fs::read_to_string(b.join(".dropblock/share")).unwrap(), "photos\n");
}

#[test]
fn a_folder_synced_by_a_version_without_keys_just_goes_on() {
    let world = World::new();
    let a = world.folder("a");
    a.write("x", "1");
    world.sync(&a);
    for name in ["device.key", "server"] {
        fs::remove_file(a.join(".dropblock").join(name)).unwrap();
    }
    a.write("x", "2");
    let said = world.sync(&a).stderr;
    assert!(said.contains("1 change sent"), "{said}");
    assert!(a.join(".dropblock/device.key").exists() && a.join(".dropblock/server").exists());
}

#[test]
fn everything_works_inside_tls_too() {
    let mut world = World::empty();
    let mut serve = world.serve_command(world.store(), SocketAddr::from(([127, 0, 0, 1], 0)));
    serve.args(["--tls", "always"]);
    let server = world.try_serve_as(serve).unwrap();
    world.set_server(server);
    let (a, b, c) = (world.folder("a"), world.folder("b"), world.folder("c"));
    a.many("d", 50);
    a.write("big", crate::support::random_bytes(3, 5_000_000));
    world.sync(&a);
    world.once_with(&b, &["--tls", "always"]).code(0);
    world.join(&c, &world.invite(&[])).code(0);
    world.once_joined(&c).code(0);
    assert_equal(&[&a, &b, &c]);
    assert!(world.run(["log".as_ref(), c.path().as_os_str()]).code(0).stdout.contains("big"));
}

#[test]
fn a_server_with_another_key_is_not_the_one_that_was_joined() {
    let mut world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "1");
    world.sync(&a);
    world.join(&b, &world.invite(&[])).code(0);
    world.once_joined(&b).code(0);
    let addr = world.addr();
    world.stop_server();
    let other = world.path().join("other");
    let server = world.try_serve(&other, addr).unwrap();
    world.set_server(server);
    let line = world.once_joined(&b).code(12).refusal();
    assert!(line.contains("this is server"), "{line}");
    // A folder of the server's own user goes on: the new one is that user's too. Nothing is deleted.
    world.sync(&a);
    assert_eq!(a.text("x"), "1");
}

/// Files that others can read or write, below a path.
fn open_to_others(path: &Path, found: &mut Vec<String>) {
    let meta = path.symlink_metadata().unwrap();
    if !meta.is_symlink() && meta.mode() & 0o077 != 0 {
        found.push(format!("{} {:o}", path.display(), meta.mode()));
    }
    if meta.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| open_to_others(&entry.unwrap().path(), found));
    }
}

#[test]
fn no_secret_is_in_arguments_environment_logs_or_files_that_others_can_read() {
    let mut world = World::empty();
    let mut serve = world.serve_command(world.store(), SocketAddr::from(([127, 0, 0, 1], 0)));
    serve.env("RUST_LOG", "trace");
    let server = world.try_serve_as(serve).unwrap();
    world.set_server(server);
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("x", "1");
    let mut first = world.sync_command(&a, world.addr(), &["--once"]);
    first.env("RUST_LOG", "trace");
    let first = world.start("first", first).outcome(DEADLINE).code(0);
    let line = world.invite(&[]);
    let mut join = world.command(["join".as_ref(), b.path().as_os_str()]);
    join.env("RUST_LOG", "trace");
    let joined = told(join, &line).code(0);
    let mut live = world.command(["sync".as_ref(), b.path().as_os_str()]);
    live.env("RUST_LOG", "trace");
    let mut live = world.start("live", live);
    live.wait_output("in sync");
    let last_line = |path: &Path| fs::read_to_string(path).unwrap().lines().last().unwrap().to_owned();
    let config = world.path().join("home/config/dropblock/local");
    let credential = fs::read_dir(&config).unwrap().next().unwrap().unwrap().path();
    let secrets = [
        secret_of(&line).to_owned(),
        last_line(&credential),
        last_line(&world.store().join("identity")),
        last_line(&a.join(".dropblock/device.key")),
        last_line(&b.join(".dropblock/device.key")),
    ];
    assert!(secrets.iter().all(|secret| secret.len() >= 26), "{secrets:?}");
    let mut places = vec![
        ("server's log", world.server().process.stderr() + &world.server().process.stdout()),
        ("client's log", first.stderr + &first.stdout),
        ("join's log", joined.stderr + &joined.stdout),
        ("live client's log", live.stderr()),
    ];
    for pid in [world.server().process.pid(), live.pid()] {
        for what in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            places.push((what, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    for (place, text) in &places {
        assert!(!text.is_empty() || place.contains("join"), "nothing to look at: {place}");
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{place} holds a secret");
        }
    }
    // The store keeps no key of a device, and of an invite a hash.
    let devices = fs::read(world.store().join("devices")).unwrap();
    for secret in &secrets {
        assert!(!devices.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
    let mut open = Vec::new();
    for place in [world.store(), &config, &a.join(".dropblock"), &b.join(".dropblock")] {
        open_to_others(place, &mut open);
    }
    assert!(open.is_empty(), "{open:#?}");
}

#[test]
fn connections_that_prove_nothing_hold_little_memory_and_are_closed() {
    let mut world = World::new();
    let a = world.folder("a");
    a.write("x", "1");
    world.sync(&a);
    let before = world.server().process.memory_bytes_max().unwrap();
    let addr = world.addr();
    let mut crowd: Vec<TcpStream> = Vec::new();
    for number in 0..200u32 {
        let mut stream = TcpStream::connect(addr).unwrap();
        let begun: &[u8] = match number % 3 {
            0 => &[],
            // The length of the largest frame, and a part of it.
            1 => &[0x00, 0x0f, 0, 0, 0, 0, 0, 0, 9],
            // The beginning of TLS.
            _ => &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        };
        stream.write_all(begun).unwrap();
        crowd.push(stream);
    }
    a.write("x", "2");
    world.sync(&a);
    let after = world.server().process.memory_bytes_max().unwrap();
    assert!(after - before <= 200 * 64 * 1024 + 4 * 1024 * 1024, "{before} {after}");
    for stream in &mut crowd {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = std::io::Read::read_to_end(stream, &mut rest);
        assert!(rest.len() <= 1024, "{}", rest.len());
    }
    world.sync(&a);
}

/// A program that takes the port while the server is away, and answers everything with this; until somebody has knocked.
fn squat(addr: SocketAddr, answer: &[u8]) {
    let start = Instant::now();
    let listener = loop {
        match TcpListener::bind(addr) {
            Ok(listener) => break listener,
            Err(error) => assert!(start.elapsed() < DEADLINE, "{addr}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    for _ in 0..2 {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(answer).unwrap();
    }
}

#[test]
fn a_squatter_on_the_port_of_a_server_that_restarts_ends_no_client() {
    let mut world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    let mut live = world.live(&a);
    live.process.wait_output("in sync");
    let addr = world.addr();
    // Nonsense; and a goodbye that says "not allowed".
    let goodbye = [15, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2, 7, 4, b'a', b'w', b'a', b'y'];
    for (name, answer) in [("x", &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]), ("y", &goodbye)] {
        world.stop_server();
        squat(addr, answer);
        world.serve_again(addr);
        assert!(live.process.is_running(), "{}", live.process.stderr());
        a.write(name, "x");
        wait_until("it goes on", || world.once(&b).code == Some(0) && b.has(name));
    }
}

#[test]
fn what_is_no_invite_is_refused_and_nothing_is_made() {
    let world = World::empty();
    let place = world.path().join("new");
    for line in ["", "hello", "dropblock://x/y#z", "https://127.0.0.1:1/default"] {
        let refused = told(world.command(["join".as_ref(), place.as_os_str()]), line).code(1).refusal();
        assert!(refused.contains("dropblock://"), "{refused}");
    }
    assert!(!place.exists());
    // Nobody there.
    let line = format!("dropblock://{}/default#{}.{}", free_addr(), "a".repeat(52), "a".repeat(26));
    told(world.command(["join".as_ref(), place.as_os_str()]), &line).code(1).refusal();
    // An argument would be seen by everybody on the machine.
    world.run(["join".as_ref(), place.as_os_str(), line.as_ref()]).code(2);
}
