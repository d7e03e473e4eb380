//! A device that may store only so much.

use crate::support::random_bytes;
use crate::support::world::{World, assert_equal, wait_until};

/// 1 MB of what does not compress.
const MB: usize = 1_000_000;

#[test]
fn what_is_over_the_quota_of_a_device_waits_and_everything_else_goes_on() {
    let mut world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    a.write("theirs", random_bytes(1, 5 * MB));
    world.sync(&a);
    world.join(&b, &world.invite(&["--quota", "3MB"])).code(0);
    world.once_joined(&b).code(0);
    assert_equal(&[&a, &b]);
    assert!(world.devices().contains("default, read and write, 0 B of 3.0 MB used"), "{}", world.devices());
    // What fits goes, what does not waits, and that is said in one line that names it and says who can help.
    b.write("fits", random_bytes(2, 2 * MB));
    world.once_joined(&b).code(0);
    b.write("over", random_bytes(3, 2 * MB));
    b.rename("fits", "moved");
    b.remove("theirs");
    for _ in 0..2 {
        let line = world.once_joined(&b).code(1).refusal();
        assert!(line.contains("quota") && line.contains("over not sent"), "{line}");
    }
    world.sync(&a);
    assert!(a.has("moved") && !a.has("theirs") && !a.has("over"));
    assert!(b.has("over"));
    // Others are not concerned, and what they change still comes.
    a.write("more", random_bytes(4, 4 * MB));
    world.sync(&a);
    world.once_joined(&b).code(1);
    assert!(b.has("more"));
    // It is remembered.
    let used = |world: &World| {
        let text = world.run(["devices", "--json", "--store", &world.store_arg()]).code(0).stdout;
        let line =
            text.lines().find(|line| line.contains("used_bytes")).expect("a device with a quota").to_owned();
        let number = line.split("\"used_bytes\":").nth(1).unwrap();
        number.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().unwrap()
    };
    let before = used(&world);
    assert!((2 * MB..3 * MB + MB / 10).contains(&before), "{before}");
    let addr = world.addr();
    world.stop_server();
    assert_eq!(used(&world), before, "no server runs, and it is known");
    world.serve_again(addr);
    let line = world.once_joined(&b).code(1).refusal();
    assert!(line.contains("quota"), "{line}");
    // A client that stays says it once, and sends what waits as soon as the owner gives more.
    let live = world.live(&b);
    b.mkdir("from b");
    wait_until("goes on", || {
        world.sync(&a);
        a.has("from b")
    });
    let said = live.process.stderr();
    assert_eq!(said.matches("used up its quota").count(), 1, "not once:\n{said}");
    let quota = |size: &str| world.run(["quota", "--store", &world.store_arg(), &b.name(), size]);
    let told = quota("10MB").code(0).stderr;
    assert!(told.contains("may store 10.0 MB in all"), "{told}");
    wait_until("sent", || live.process.stderr().contains("is in sync"));
    live.stop();
    world.sync(&a);
    assert_equal(&[&a, &b]);
    // No bound any more, and nothing that has one.
    quota("none").code(0);
    assert!(!world.devices().contains("used"), "{}", world.devices());
    b.write("large", random_bytes(5, 12 * MB));
    world.once_joined(&b).code(0);
    let line = world.run(["quota", "--store", &world.store_arg(), "a", "1GB"]).code(1).refusal();
    assert!(line.contains("own user"), "{line}");
}

/// A good way past its quota a device may not even change what brings nothing: it keeps that, says so, and goes on.
#[test]
fn far_past_the_quota_changes_wait_too_and_the_client_goes_on() {
    let world = World::new();
    let (a, b) = (world.folder("a"), world.folder("b"));
    world.join(&b, &world.invite(&["--quota", "100MB"])).code(0);
    b.write("large", random_bytes(1, 70 * MB));
    b.mkdir("stays");
    world.once_joined(&b).code(0);
    let quota = |size: &str| world.run(["quota", "--store", &world.store_arg(), &b.name(), size]).code(0);
    quota("1MB");
    b.rename("large", "renamed");
    b.mkdir("made");
    b.remove("stays");
    for _ in 0..2 {
        let line = world.once_joined(&b).code(1).refusal();
        assert!(line.contains("used up its quota") && line.contains("not sent"), "{line}");
    }
    // News still come, and what waits here is not undone by them.
    a.write("of a", random_bytes(2, 1000));
    world.sync(&a);
    assert!(a.has("large") && a.has("stays") && !a.has("made"));
    let live = world.live(&b);
    wait_until("comes", || b.has("of a") && live.process.stderr().contains("changes wait here"));
    assert!(b.has("renamed") && b.has("made") && !b.has("stays") && !b.has("large"));
    quota("none");
    wait_until("goes on", || {
        world.sync(&a);
        a.has("made") && a.has("renamed") && !a.has("stays")
    });
    let said = live.process.stderr();
    assert_eq!(said.matches("changes wait here").count(), 1, "not once:\n{said}");
    assert!(!said.contains("refused the request"), "{said}");
    live.stop();
    assert_equal(&[&a, &b]);
}
