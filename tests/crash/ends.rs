//! Ends: SIGTERM with many transfers under way (R24), and second programs on what is taken, also right after a kill (R23).

use crate::campaign::campaign;
use crate::support::DEADLINE;
use crate::support::random_bytes;
use crate::support::world::World;
use rustix::process::Signal;
use std::thread::sleep;
use std::time::Instant;

#[test]
fn sigterm_with_a_hundred_transfers_under_way_ends_with_0_and_loses_no_acknowledged_file() {
    let mut slowest = 0.0_f32;
    campaign("SIGTERM: 8 clients, 120 files under way", 2, |mut point| {
        let mut world = World::new();
        let folders = world.folders(8);
        for (i, folder) in folders.iter().enumerate() {
            for file in 0..15 {
                let bytes = random_bytes(point.seed * 1000 + (i * 20 + file) as u64, 400_000);
                folder.write(format!("{i}/{file}"), bytes);
            }
        }
        let mut clients: Vec<_> = folders.iter().map(|folder| world.once_start(folder, &[])).collect();
        sleep(point.wait(400));
        let server = world.server();
        server.process.signal(Signal::TERM);
        let start = Instant::now();
        server.process.outcome(DEADLINE).code(0);
        slowest = slowest.max(start.elapsed().as_secs_f32());
        let done: Vec<bool> =
            clients.iter_mut().map(|client| client.outcome(DEADLINE).code == Some(0)).collect();
        world.serve();
        let late = world.folder("late");
        world.sync(&late);
        for (i, folder) in folders.iter().enumerate().filter(|(i, _)| done[*i]) {
            for file in 0..15 {
                let name = format!("{i}/{file}");
                assert!(late.item(&name) == folder.item(&name), "{name} was acknowledged and is lost");
            }
        }
        // Who was not told so brings it now.
        folders.iter().for_each(|folder| drop(world.sync(folder)));
        world.sync(&late);
        assert_eq!(late.tree().names().len(), 8 * 16);
    });
    // Said, not asserted: the machine may be busy. The promise is 5 s.
    eprintln!("SIGTERM: the slowest end took {slowest:.2} s");
}

#[test]
fn of_two_programs_that_start_at_once_on_one_place_one_works_and_one_is_refused() {
    campaign("two at once: store and folder", 6, |point| {
        let mut world = World::empty();
        let start = || world.start("server", world.serve_command(world.store(), ([127, 0, 0, 1], 0).into()));
        let mut servers = [start(), start()];
        let mut refused = None;
        while refused.is_none() {
            refused = (0..2).find(|i| !servers[*i].is_running());
            sleep(std::time::Duration::from_millis(2));
        }
        servers[refused.unwrap()].outcome(DEADLINE).code(11).one_line();
        let other = &mut servers[1 - refused.unwrap()];
        other.wait_output("listening on ");
        drop(servers);
        world.serve();
        let a = world.folder("a");
        a.many("d", 20);
        a.write("big", random_bytes(point.seed, 3_000_000));
        let mut clients: Vec<_> = (0..3).map(|_| world.once_start(&a, &[])).collect();
        let codes: Vec<_> = clients.iter_mut().map(|client| client.outcome(DEADLINE).code).collect();
        // One after the other is as good.
        assert!(codes.contains(&Some(0)), "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 11))), "{codes:?}");
    });
}
