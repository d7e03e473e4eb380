//! kill -9 of a server while it brings a damaged store in order (R3, R24): whatever it was doing, the next start has all that
//! it had, clients bring what is damaged, and `check` is content in the end.

use crate::campaign::{Point, campaign};
use crate::support::disk::Folder;
use crate::support::world::{Server, World, assert_equal, wait_until};
use crate::support::{DEADLINE, random_bytes};
use crate::tracer;
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a server says when nothing is missing any more and its packs are in order.
const WHOLE: &str = "everything is there again";

/// A folder whose client has everything, and nothing that was replaced: nobody would have that.
fn filled() -> (World, Folder) {
    let world = World::new();
    let a = world.folder("a");
    a.write("large", random_bytes(1, 3_000_000));
    (0..20).for_each(|i| a.write(format!("small-{i}"), random_bytes(100 + i, 5_000)));
    world.sync(&a);
    (world, a)
}

fn packs(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.store().join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let mut packs: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "pack")).collect();
    packs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    packs
}

/// Bits, an end, or all of the largest pack.
fn damage(world: &World, point: &mut Point) {
    let pack = packs(world).pop().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let mut place = || 30 + point.below(bytes.len() as u64 - 30) as usize;
    match place() % 4 {
        0 => fs::remove_file(&pack).unwrap(),
        1 => fs::File::options().write(true).open(&pack).unwrap().set_len(place() as u64).unwrap(),
        _ => {
            let places = [place(), place(), place()];
            places.into_iter().for_each(|at| bytes[at] ^= 4);
            fs::write(&pack, bytes).unwrap();
        }
    }
}

/// Has everything read until the server is content; true when it was killed before.
fn repaired(world: &World, server: &mut Server) -> bool {
    let (start, mut clean) = (Instant::now(), 0);
    while server.process.is_running() {
        assert!(start.elapsed() < DEADLINE, "neither killed nor done");
        // A server that is killed meanwhile cannot answer, and the store may be free then: only added to in any case.
        let check = world.run(["check", "--repair", "--store", world.store().to_str().unwrap()]);
        clean += u32::from(check.code == Some(0));
        // Damage to what nobody needs is put in order without a word.
        if server.process.stderr().contains(WHOLE) || clean > 20 {
            tracer::signal(server, rustix::process::Signal::TERM);
            return server.process.outcome(DEADLINE).code.is_none();
        }
        sleep(Duration::from_millis(50));
    }
    true
}

#[test]
fn a_server_killed_while_it_repairs_its_store_goes_on() {
    if !tracer::is_there() {
        return;
    }
    let (mut held, mut calls) = (None, Vec::new());
    let (reached, made) = (Cell::new(0), Cell::new(0_u64));
    campaign("kill -9: server repairs", 6, |mut point| {
        let (mut world, a) = held.take().unwrap_or_else(filled);
        let log = world.path().join("trace");
        let any = ([127, 0, 0, 1], 0).into();
        if calls.is_empty() {
            world.stop_server();
            damage(&world, &mut point);
            let plain = world.serve_command(world.store(), any);
            let mut server = world.try_serve_as(tracer::watched(&plain, &log)).ok().unwrap();
            let client = world.live_at(&a, server.addr, &[]);
            repaired(&world, &mut server);
            client.kill();
            calls = tracer::calls(&log);
            world.serve();
        }
        world.stop_server();
        damage(&world, &mut point);
        let call = tracer::pick(&calls, &mut point);
        made.set(made.get() + 1);
        let plain = world.serve_command(world.store(), any);
        let killed = world.try_serve_as(tracer::killed_at(&plain, &log, &call)).map_or(true, |mut server| {
            let client = world.live_at(&a, server.addr, &[]);
            let killed = repaired(&world, &mut server);
            client.kill();
            killed
        });
        reached.set(reached.get() + u64::from(killed));
        world.serve();
        let client = world.live(&a);
        let check = |args: &[&str]| {
            world.run([&["check", "--store", world.store().to_str().unwrap()], args].concat())
        };
        wait_until("check is content", || check(&[]).code == Some(0));
        client.kill();
        check(&["--quick"]).code(0);
        let fresh = world.folder("fresh");
        world.sync(&fresh);
        assert_equal(&[&a, &fresh]);
        fs::remove_dir_all(fresh.path()).unwrap();
        held = Some((world, a));
    });
    let (reached, made) = (reached.get(), made.get());
    eprintln!("{reached} of {made} were killed; {} different calls", calls.len());
    assert!(reached * 2 >= made, "most of the kills never took place");
}
