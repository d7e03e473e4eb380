//! Power cuts: what was acknowledged before the cut is in the store after it (R1); a folder that was cut never sends half a
//! file, and never forgets an edit that was on its disk (R9).

use crate::campaign::campaign;
use crate::image::Image;
use crate::support::disk::Folder;
use crate::support::tree::Tree;
use crate::support::world::World;
use crate::support::{DEADLINE, random_bytes, text};
use std::fs::File;
use std::thread::sleep;

/// The store's disk: 64 MiB have to stay free.
const STORE_MIB: u64 = 160;

/// A server whose store is on a disk that can be cut.
struct Powered {
    world: World,
    server: u32,
    a: Folder,
    traffic: Folder,
    // Last, so that the processes on it end first.
    disk: Image,
}

impl Powered {
    fn new() -> Option<Self> {
        let disk = Image::new(STORE_MIB)?;
        let mut world = World::inside(disk.sandbox());
        world.set_store(disk.mount.join("store"));
        world.serve();
        let (a, traffic) = (world.folder("a"), world.folder("traffic"));
        let server = world.server().process.pid();
        Some(Self { world, server, a, traffic, disk })
    }

    /// What is in the store after a cut, as a client that joins sees it.
    fn after(&self, cut: &Image) -> Tree {
        let mut world = World::inside(cut.sandbox());
        world.set_home_of(&self.world);
        world.set_store(cut.mount.join("store"));
        world.serve();
        let late = world.folder("late");
        world.sync(&late);
        late.tree()
    }
}

/// The tree without what is still under way when the power fails.
fn calm(mut tree: Tree) -> Tree {
    tree.0.retain(|path, _| !path.starts_with(b"traffic"));
    tree
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_of_the_server() {
    if !Image::works() {
        return;
    }
    let mut held: Option<Powered> = None;
    campaign("power cut: server", 40, |mut point| {
        // A new store every twenty rounds: its first moments matter too.
        let powered = held.take().filter(|_| point.seed % 20 != 0).or_else(Powered::new).unwrap();
        let (world, a) = (&powered.world, &powered.a);
        a.write("doc", text(point.seed, 30_000));
        a.write(format!("few/{}", point.below(8)), random_bytes(point.seed, point.below(300_000) as usize));
        if point.below(3) == 0 {
            a.many(&format!("many-{}", point.below(3)), 30);
        }
        if point.below(4) == 0 {
            a.remove("few");
        }
        world.sync(a);
        let acknowledged = calm(a.tree());
        let cut = if point.below(2) == 1 {
            // Later, with more on its way.
            let folder = &powered.traffic;
            folder.write(format!("traffic/{}", point.seed % 4), random_bytes(point.seed + 1, 1_500_000));
            folder.many(&format!("traffic/many-{}", point.seed % 4), 20);
            let _client = world.once_start(folder, &[]);
            sleep(point.wait(150));
            powered.disk.cut(&[powered.server])
        } else {
            powered.disk.cut(&[])
        };
        if let Some(difference) = acknowledged.difference(&calm(powered.after(&cut))) {
            panic!("acknowledged (left), there after the cut (right):\n{difference}");
        }
        held = Some(powered);
    });
}

/// A client whose folder is on a disk that can be cut, and another one that sees what it sends.
struct Cuttable {
    server: World,
    a: Folder,
    disk: Image,
}

impl Cuttable {
    fn new() -> Option<Self> {
        let disk = Image::new(96)?;
        let server = World::new();
        let a = server.folder("a");
        a.write("doc", text(1, 40_000));
        a.write("big", random_bytes(1, 2_000_000));
        server.sync(&a);
        Some(Self { server, a, disk })
    }

    /// A world on the disk as it is now, and the folder: as its processes name it, as the test does.
    fn on_disk(&self) -> (World, Folder, Folder) {
        let mut world = World::inside(self.disk.sandbox());
        world.set_home_of(&self.server);
        (world, Folder::at(self.disk.mount.join("b")), Folder::at(self.disk.seen().join("b")))
    }
}

/// What its user saves, as a program does that wants it to be on the disk.
fn save_durably(folder: &Folder, name: &str, content: &str) {
    folder.write(name, content);
    File::open(folder.join(name)).unwrap().sync_all().unwrap();
    File::open(folder.path()).unwrap().sync_all().unwrap();
}

#[test]
fn a_client_whose_power_is_cut_sends_no_half_file_and_loses_no_edit() {
    if !Image::works() {
        return;
    }
    let mut held: Option<Cuttable> = None;
    campaign("power cut: client", 20, |mut point| {
        let mut cuttable = held.take().or_else(Cuttable::new).unwrap();
        let (a, addr) = (&cuttable.a, cuttable.server.addr());
        {
            let (world, b, seen) = cuttable.on_disk();
            world.once_at(&b, addr, &[]).outcome(DEADLINE).code(0);
            // The user's own: some of it is on the disk before the cut.
            save_durably(&seen, &format!("mine-{}", point.seed % 5), &format!("mine {}", point.seed));
        }
        a.save("big", random_bytes(point.seed, 2_000_000 + point.below(3_000_000) as usize));
        a.save("doc", format!("{}\n{}", point.seed, text(1, 40_000)));
        a.many(&format!("many-{}", point.seed % 3), 1 + point.below(60) as usize);
        if point.below(3) == 0 && a.has("many-0") {
            a.remove("many-0");
        }
        cuttable.server.sync(a);
        let mut want = a.tree();
        let cut = {
            let (world, b, seen) = cuttable.on_disk();
            let mut client = world.once_at(&b, addr, &[]);
            sleep(point.wait(120));
            let cut = cuttable.disk.cut(&[client.pid()]);
            client.kill();
            let name = format!("mine-{}", point.seed % 5);
            want.0.insert(name.clone().into_bytes(), seen.item(&name).unwrap());
            cut
        };
        // From here on the disk that came back is the only one.
        cuttable.disk = cut;
        let (world, b, seen) = cuttable.on_disk();
        world.once_at(&b, addr, &[]).outcome(DEADLINE).code(0);
        cuttable.server.sync(&cuttable.a);
        for (folder, side) in [(&cuttable.a, "sent"), (&seen, "has")] {
            if let Some(difference) = want.difference(&folder.tree()) {
                panic!("it should be (left), the folder that was cut {side} (right):\n{difference}");
            }
        }
        drop(world);
        held = Some(cuttable);
    });
}
