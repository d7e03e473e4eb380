//! A server and clients with ideal disks, for rows that take more than one merge to see.

use crate::disk::carry_out;
use crate::script::{ORIGIN, diff, patched, picture, run};
use dropblock::model::{Change, IdSource, Name, Node, NodeId, Seq};
use dropblock::reconcile::{Origin, Sides, reconcile};
use dropblock::tree::{Nodes, Tree, TreeNode, judge};
use std::collections::BTreeMap;
use std::convert::Infallible;

/// What the server keeps: latest versions, with tombstones.
#[derive(Default)]
pub struct Server {
    nodes: BTreeMap<NodeId, Node>,
    head: u64,
}

impl Nodes for Server {
    type Error = Infallible;
    fn node(&self, id: NodeId) -> Result<Option<Node>, Infallible> {
        Ok(self.nodes.get(&id).cloned())
    }
    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>, Infallible> {
        let at = |n: &&Node| n.state.as_ref().is_some_and(|s| s.parent == parent && s.name == *name);
        Ok(self.nodes.values().find(at).map(|n| n.id))
    }
    fn any_child(&self, parent: NodeId, is: &mut dyn FnMut(NodeId) -> bool) -> Result<bool, Infallible> {
        let inside = |n: &&Node| n.state.as_ref().is_some_and(|s| s.parent == parent);
        Ok(self.nodes.values().filter(inside).any(|n| is(n.id)))
    }
}

impl Server {
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        for node in self.nodes.values() {
            if let Some(state) = &node.state {
                tree.insert(node.id, TreeNode { version: node.version, state: state.clone() });
            }
        }
        tree
    }

    /// Commits what differs between the server and `goal`; every change must stand.
    pub fn commit(&mut self, goal: &Tree) {
        let version = |id| self.nodes.get(&id).map_or(Seq::ZERO, |node| node.version);
        let changes: Vec<Change> = diff(&self.tree(), goal)
            .into_iter()
            .map(|(id, state)| Change { id, base: version(id), state })
            .collect();
        if changes.is_empty() {
            return;
        }
        let verdicts = judge(self, &changes, &vec![true; changes.len()]).unwrap();
        for (change, verdict) in changes.iter().zip(verdicts) {
            assert_eq!(verdict, None, "refused: {change:?}");
        }
        self.head += 1;
        for Change { id, state, .. } in changes {
            self.nodes.insert(id, Node { id, version: Seq(self.head), state });
        }
    }
}

/// A client: what it agreed on with the server last, and its disk.
struct Client {
    device: &'static str,
    base: Tree,
    disk: Tree,
}

/// One share and its clients.
pub struct Share {
    server: Server,
    clients: Vec<Client>,
    ids: IdSource,
}

impl Share {
    /// Clients with these device names, all in sync with `base`.
    pub fn new(base: &str, devices: &[&'static str]) -> Self {
        let mut ids = IdSource::new([9; 32]);
        let mut tree = Tree::new();
        run(&mut tree, base, &mut ids);
        let mut server = Server::default();
        server.commit(&tree);
        let client = |device: &&'static str| Client { device, base: tree.clone(), disk: tree.clone() };
        Self { server, clients: devices.iter().map(client).collect(), ids }
    }

    /// A user does something on a client's disk.
    pub fn act(&mut self, client: usize, script: &str) -> &mut Self {
        run(&mut self.clients[client].disk, script, &mut self.ids);
        self
    }

    /// A client loses its private state: it no longer knows any base, and its files get new ids.
    pub fn forget(&mut self, client: usize) -> &mut Self {
        let client = &mut self.clients[client];
        let script = picture(&client.disk).join(" ");
        client.base = Tree::new();
        client.disk = Tree::new();
        run(&mut client.disk, &script, &mut self.ids);
        self
    }

    /// One cycle of a client: scan, merge, apply, commit.
    pub fn sync(&mut self, client: usize) -> &mut Self {
        let client = &mut self.clients[client];
        let (local, remote) = (diff(&client.base, &client.disk), diff(&client.base, &self.server.tree()));
        let sides = Sides { base: &client.base, local: &local, remote: &remote };
        let origin = Origin { device: client.device, ..ORIGIN };
        let merge = reconcile(sides, origin, &mut self.ids);
        let goal = patched(&client.base, &merge.nodes);
        let disk = carry_out(&client.base, &merge);
        assert_eq!(picture(&disk), picture(&goal));
        self.server.commit(&goal);
        client.base = goal.clone();
        client.disk = goal;
        self
    }

    fn sync_all(&mut self) {
        for client in 0..self.clients.len() {
            self.sync(client);
        }
    }

    /// Everyone syncs until nothing moves; then all disks must be equal. Returns what they hold.
    pub fn settle(&mut self) -> String {
        (0..3).for_each(|_| self.sync_all());
        let head = self.server.head;
        self.sync_all();
        assert_eq!(self.server.head, head, "changes go on by themselves");
        let settled = picture(&self.server.tree());
        for client in &self.clients {
            assert_eq!(picture(&client.disk), settled);
        }
        settled.join(" ")
    }
}
