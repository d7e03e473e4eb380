//! What a change costs on the network: from one client to the server, and from there to another.

use super::disk::Folder;
use super::proxy::Proxy;
use super::world::{Client, World, wait_tree, wait_until};
use rustix::process::Signal;
use std::cell::RefCell;

/// Two live clients, each behind a proxy that counts. Polls are rare, so that they do not count.
pub struct Line {
    a: End,
    b: End,
    _world: World,
}

/// One of the two.
struct End {
    client: RefCell<Client>,
    proxy: Proxy,
    folder: Folder,
}

/// Bytes, both ways.
#[derive(Clone, Copy)]
pub struct Cost {
    /// Between the first client and the server.
    pub push: u64,
    /// Between the server and the second client.
    pub pull: u64,
}

impl Line {
    /// Starts with what `prepare` makes, in sync on both sides.
    pub fn with(prepare: impl Fn(&Folder)) -> Self {
        let world = World::new();
        let start = |name: &str, prepare: &dyn Fn(&Folder)| {
            let (proxy, folder) = (Proxy::to(world.addr()), world.folder(name));
            prepare(&folder);
            let client = RefCell::new(world.live_at(&folder, proxy.addr, &["--poll", "3600"]));
            End { client, proxy, folder }
        };
        let (a, b) = (start("a", &prepare), start("b", &|_| ()));
        for (from, to) in [(&a, &b), (&b, &a)] {
            from.folder.write("connected", from.folder.name());
            wait_tree(&[&to.folder], &from.folder.tree());
        }
        Self { a, b, _world: world }
    }

    /// What passes until both folders are equal after `change` and nothing passes any more.
    pub fn cost(&self, name: &str, change: impl FnOnce(&Folder)) -> Cost {
        Self::cost_between(name, &self.a, &self.b, change)
    }

    /// The same for a change that the second client makes.
    pub fn cost_back(&self, name: &str, change: impl FnOnce(&Folder)) -> Cost {
        Self::cost_between(name, &self.b, &self.a, change)
    }

    /// The client stands still meanwhile: a change that it meets half made is two, and what those cost is chance.
    fn cost_between(name: &str, from: &End, to: &End, change: impl FnOnce(&Folder)) -> Cost {
        let before = (from.proxy.bytes_when_quiet(), to.proxy.bytes_when_quiet());
        let each = (from.proxy.up(), from.proxy.down(), to.proxy.down(), to.proxy.up());
        from.client.borrow_mut().process.signal(Signal::STOP);
        change(&from.folder);
        from.client.borrow_mut().process.signal(Signal::CONT);
        wait_until("the change arrives", || from.folder.tree() == to.folder.tree());
        let cost = Cost {
            push: from.proxy.bytes_when_quiet() - before.0,
            pull: to.proxy.bytes_when_quiet() - before.1,
        };
        eprintln!(
            "| {name} | {} | {} + {} | {} | {} + {} |",
            cost.push,
            from.proxy.up() - each.0,
            from.proxy.down() - each.1,
            cost.pull,
            to.proxy.down() - each.2,
            to.proxy.up() - each.3
        );
        cost
    }
}

impl Cost {
    #[track_caller]
    pub fn at_most(self, push_max: u64, pull_max: u64) {
        assert!(self.push <= push_max, "{} bytes to the server, not {push_max}", self.push);
        assert!(self.pull <= pull_max, "{} bytes to the other client, not {pull_max}", self.pull);
    }
}
