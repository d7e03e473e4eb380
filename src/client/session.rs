//! One session with the server: shake hands, poll, and cycles until both sides are equal.

use super::cycle::Agreed;
use super::trigger::Unrested;
use super::{Client, ClientError};
use crate::folder::scan::Scope;
use crate::folder::watch::Hint;
use crate::folder::{Cursor, Sent, Stamp, Update};
use crate::model::{BlockHash, NodeId, RelPath, Seq, limits};
use crate::reconcile::Origin;
use crate::wire::{Connection, Head, Position, Push, Pushes, WireError};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Blocks of pushes that wait for their cycle, bytes at most; further ones are asked for like any other.
const INLINE_IN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Rounds of a one-time sync without any progress before it gives up on what is left.
const IDLE_ROUNDS_MAX: u32 = 5;
/// Rounds of a one-time sync that wait for files which were written to an instant ago.
const UNRESTED_ROUNDS_MAX: u32 = 10;
/// Rounds of a one-time sync, one after the other, in which the server lacks what was sent to it.
const GARBLED_ROUNDS_MAX: u32 = 5;
/// Rounds of a one-time sync in all.
const ROUNDS_MAX: u32 = 1000;
/// What cannot be read is tried again after this long, and then after twice as long each time.
const REREAD_PAUSE: Duration = Duration::from_secs(1);
/// That often.
const REREADS_MAX: u32 = 6;

/// An open session.
pub(super) struct Session<'a> {
    pub(super) client: &'a mut Client,
    pub(super) connection: Connection,
    pub(super) once: bool,
    /// How far the share's list was read.
    at: Position,
    /// The head at `at`.
    head: Head,
    /// Own commits beyond `at`: the head before each -> after.
    own: BTreeMap<Seq, Head>,
    /// Deleted before this client was born: of no interest.
    tombstones_after: Seq,
    /// Blocks that came with pushes.
    pub(super) inline_in: HashMap<BlockHash, Bytes>,
    inline_in_bytes: usize,
    /// Large files under way.
    pub(super) large: super::large::Large,
    /// Blocks that ride in the next commit.
    pub(super) inline_out: Vec<super::upload::Outgoing>,
    /// Something was refused or left: the next cycle follows at once.
    pub(super) again: bool,
    /// What the server had no room for: it is looked at again, whatever comes between.
    pub(super) no_room: super::no_room::NoRoom,
    /// A file that the server lacks blocks of although all were sent.
    pub(super) garbled: Option<RelPath>,
    /// Files were read that had changed an instant before.
    unrested: Option<Unrested>,
    /// Nodes that could not be placed in the last cycle.
    pub(super) left: BTreeMap<NodeId, RelPath>,
    /// Folders that are gone on the server and hold only what is not synced. The server's word stays a difference: it is
    /// carried out once they are empty, and the next session, which reads on from before it, knows it too.
    pub(super) stays: BTreeSet<NodeId>,
    /// The head has moved past `at` by more than is known.
    pub(super) must_poll: bool,
    /// The base took in what this client itself had sent: everything is looked at against it first.
    recognised: bool,
    /// A whole list was read in this session.
    listed: bool,
    /// How long this cycle looked at the disk, without what it read and waited for.
    pub(super) looking_took: Duration,
    /// Blocks that the server asks for.
    pub(super) repairs: super::repair::Repairs,
}

impl<'a> Session<'a> {
    /// Connects and learns where both sides stand.
    pub(super) async fn open(client: &'a mut Client, once: bool) -> Result<(Self, Pushes), ClientError> {
        let cursor = client.state.head().map(|at| Head { journal: at.journal, seq: at.seq, chain: at.chain });
        let (connection, pushes) = client.greet(once).await?;
        let welcome = connection.welcome().clone();
        let other_store = client.state.store.is_some_and(|store| store != welcome.store);
        // Also when it says that it knows, and shows a head from before.
        let knows = |at: Head| welcome.cursor_known && welcome.head.may_follow(&at);
        if other_store || cursor.is_some_and(|at| !knows(at)) {
            client.rejoin()?;
        }
        // Not before: a share that lets this device in, of a store that is there.
        if client.state.store != Some(welcome.store) || client.state.share.is_none() {
            let (share, device) = (Some(client.share.clone()), client.state.device);
            client.state.save(vec![Update::Account { store: Some(welcome.store), share, device }], true)?;
        }
        client.folder.note_share(&client.share);
        client.cycle.forget_remote();
        client.is_behind = false;
        client.met_head = None;
        client.hear_of(&welcome.head);
        // Where the last session ended in between; what is not in the folder would look deleted.
        let mut names = super::rescue_names(&client.config);
        client.folder.put_back_parked(&|id| client.state.base.path_of(id), &mut names)?;
        client.folder.settle_intents(&mut client.state)?;
        let at = client.state.cursor.map_or(Position::START, |cursor| Position::after(cursor.seq));
        let first = client.state.cursor.is_none() && client.state.base.is_empty();
        let session = Session {
            client,
            connection,
            once,
            at,
            head: welcome.head,
            own: BTreeMap::new(),
            tombstones_after: if first { welcome.head.seq } else { Seq::ZERO },
            inline_in: HashMap::new(),
            inline_in_bytes: 0,
            large: super::large::Large::default(),
            inline_out: Vec::new(),
            again: false,
            no_room: super::no_room::NoRoom::default(),
            garbled: None,
            unrested: None,
            left: BTreeMap::new(),
            stays: BTreeSet::new(),
            must_poll: true,
            recognised: false,
            listed: false,
            looking_took: Duration::ZERO,
            repairs: super::repair::Repairs::default(),
        };
        Ok((session, pushes))
    }

    /// Reads everything that changed since the last look.
    ///
    /// # Cancel safety
    /// Safe: half a list is never planned with, because `must_poll` stands until the list is complete.
    pub(super) async fn poll(&mut self) -> Result<(), ClientError> {
        self.must_poll = true;
        loop {
            let page =
                self.connection.poll(self.at, limits::NODES_PER_PAGE_MAX, self.tombstones_after).await?;
            if page.head.is_some_and(|head| !head.may_follow(&self.head)) {
                return Err(WireError::OtherPast.into());
            }
            self.client.cycle.remote_changed(&self.client.state.base, page.nodes);
            self.at = page.next;
            if let Some(head) = page.head {
                self.client.hear_of(&head);
                self.head = head;
            }
            if page.complete {
                self.at = Position::after(self.head.seq);
                self.own = self.own.split_off(&self.head.seq);
                self.must_poll = false;
                return self.recognise();
            }
        }
    }

    /// Reads the share's list again, and looks at everything before anything is decided.
    pub(super) fn read_from_start(&mut self) {
        self.at = Position::START;
        self.tombstones_after = Seq::ZERO;
        self.must_poll = true;
        self.again = true;
        self.client.trigger.hint(Hint::Rescan);
    }

    /// Agrees on what this client had sent and the server has, although the answer never came.
    fn recognise(&mut self) -> Result<(), ClientError> {
        let client = &mut *self.client;
        let flat: Vec<(NodeId, &Sent)> = client
            .state
            .sent()
            .iter()
            .flat_map(|(id, list)| list.iter().rev().map(move |sent| (*id, sent)))
            .collect();
        let states: Vec<_> = flat.iter().map(|(id, sent)| (*id, sent.state.as_ref())).collect();
        let recognised = client.cycle.recognise(&client.state.base, &states);
        if recognised.is_empty() {
            return self.forget_sent();
        }
        let (batch, agreed): (Vec<Update>, Vec<Agreed>) = recognised
            .into_iter()
            .map(|(index, (id, node))| {
                let update = match node.clone() {
                    Some(node) => {
                        Update::Put { id, node, stamp: flat.get(index).and_then(|(_, sent)| sent.stamp) }
                    }
                    None => Update::Remove(id),
                };
                (update, (id, node))
            })
            .unzip();
        // Also what the process before this one had sent: it may have ended before it synced the files.
        agreed.iter().for_each(|(id, _)| client.made_by_user(*id));
        if let Err(error) = client.sync_users(&agreed).and_then(|()| client.save_nodes(batch, false)) {
            client.is_behind = true;
            return Err(error.into());
        }
        client.index_roots();
        // Differences from the base were seen against the old one.
        self.recognised = true;
        client.trigger.hint(Hint::Rescan);
        Ok(())
    }

    /// What is still unanswered at the second list of a session was never taken. Kept on, it would claim a change that
    /// another device makes later. The first list may be older than a commit that was still on its way.
    fn forget_sent(&mut self) -> Result<(), ClientError> {
        let sent = self.client.state.sent();
        if std::mem::replace(&mut self.listed, true) && !sent.is_empty() {
            let unsent = sent.iter().flat_map(|(id, list)| list.iter().map(|_| Update::Unsent(*id)));
            let unsent = unsent.collect();
            self.client.state.save(unsent, false)?;
        }
        Ok(())
    }

    /// Reads what changed, and takes what was pushed until then: what the server asks for must be known before anything is
    /// replaced.
    pub(super) async fn hear(&mut self, pushes: &mut Pushes) -> Result<(), ClientError> {
        if self.must_poll {
            self.poll().await?;
        }
        self.take_pushes(pushes);
        Ok(())
    }

    /// Takes all pushes that are here already.
    pub(super) fn take_pushes(&mut self, pushes: &mut Pushes) {
        while let Some(push) = pushes.try_next() {
            self.take_push(push);
        }
    }

    /// Takes a push. True when it brought something to do.
    pub(super) fn take_push(&mut self, push: Push) -> bool {
        let (prev, head, nodes, blocks) = match push {
            Push::Changed { prev, head, nodes, blocks } => (prev, head, nodes, blocks),
            Push::Wanted(hashes) => {
                super::repair::start(self, hashes);
                return false;
            }
            Push::Behind => {
                self.must_poll = true;
                return true;
            }
        };
        if head.journal != self.head.journal || head.seq <= self.at.seq {
            return false;
        }
        let work = self.client.folder.work();
        let opened = work.here(|| super::pushed::open(self.client, &self.inline_in, &nodes, &blocks));
        self.client.hear_of(&head);
        self.client.cycle.remote_changed(&self.client.state.base, nodes);
        for block in opened {
            if self.inline_in_bytes < INLINE_IN_BYTES_MAX {
                self.inline_in_bytes += block.bytes().len();
                self.client.counters.blocks_received.add(1);
                self.client.counters.block_bytes_received.add_len(block.bytes().len());
                self.inline_in.insert(block.hash(), block.into_bytes());
            }
        }
        self.moved_head(prev, head);
        true
    }

    /// The journal went from `prev` to `head`, by this client or another. Without a gap the position follows.
    pub(super) fn moved_head(&mut self, prev: Seq, head: Head) {
        if head.seq <= self.at.seq {
            return;
        }
        self.own.insert(prev, head);
        // In the middle of a list the rest of it is still to come.
        while self.at.node.is_none()
            && let Some(next) = self.own.remove(&self.at.seq)
        {
            self.head = next;
            self.at = Position::after(next.seq);
        }
        self.must_poll |= !self.own.is_empty();
    }

    /// One round: look, decide, apply, commit.
    pub(super) async fn cycle(&mut self, scope: Option<Scope>) -> Result<(), ClientError> {
        self.again = false;
        self.garbled = None;
        self.no_room.begin();
        self.unrested = None;
        self.looking_took = Duration::ZERO;
        self.left.clear();
        self.stays.clear();
        if self.must_poll {
            self.poll().await?;
        }
        let scope = if self.recognised { Some(Scope::Full) } else { scope };
        if let Some(scope) = scope {
            self.observe(scope).await?;
            self.recognised = false;
        }
        self.agree(true)?;
        let when = (self.client.config.now)();
        let client = &mut *self.client;
        let origin = Origin { device: &client.config.device_name, when: &when };
        let plan = client.cycle.plan(&client.state.base, origin, &client.held);
        trace(client, &plan);
        for (from, to) in &plan.merge.adopted {
            if let Some(stamp) = client.stamp(*from) {
                client.looks.remove(from);
                client.looks.insert(*to, stamp);
            }
            if client.unsynced.remove(from) {
                client.unsynced.insert(*to);
            }
        }
        if !plan.ops.is_empty() {
            self.repairs.finish().await;
        }
        // What fails on the way in must not hold up what goes out.
        let applied = self.apply(&plan).await;
        self.agree(true)?;
        self.commit(&plan).await?;
        applied?;
        self.inline_in_bytes = 0;
        self.inline_in.clear();
        self.agree(false)
    }

    /// Saves what both sides have alike, and how far the journal was read once everything of it is on disk.
    pub(super) fn agree(&mut self, durable: bool) -> Result<(), ClientError> {
        let client = &mut *self.client;
        let agreed = client.cycle.agree(&client.state.base);
        client.save(agreed, durable)?;
        let cursor = Cursor { journal: self.head.journal, seq: self.head.seq, chain: self.head.chain };
        // What was agreed and could not be saved must come again from the old cursor.
        let whole = client.cycle.has_applied_all()
            && !client.is_behind
            && !self.must_poll
            && self.at == Position::after(self.head.seq);
        if whole && client.state.cursor != Some(cursor) {
            client.state.save(vec![Update::Cursor(Some(cursor))], false)?;
        }
        Ok(())
    }

    /// Has the folder that holds a path looked at again.
    pub(super) fn look_again(&mut self, path: Option<&RelPath>) {
        match path.and_then(RelPath::split_last) {
            Some((parent, _)) => self.look_again_in(parent),
            None => self.client.trigger.hint(Hint::Rescan),
        }
    }

    /// Has a file read again once it has rested.
    pub(super) fn look_again_soon(&mut self, path: &RelPath, rests_in: Duration) {
        self.unrested.get_or_insert_with(Unrested::new).add(path, rests_in);
        self.look_again_after(rests_in + Duration::from_millis(50), path);
    }

    /// Has a path that cannot be read tried again: a disk that failed for a moment reports no change. Less and less often;
    /// in the end the regular looks do.
    pub(super) fn read_again_later(&mut self, path: &RelPath) {
        let failures = self.client.unreadable.entry(path.clone()).or_default();
        *failures += 1;
        if *failures <= REREADS_MAX {
            let pause = REREAD_PAUSE * 2_u32.pow(*failures - 1);
            self.look_again_after(pause, path);
        }
    }

    fn look_again_after(&self, pause: Duration, path: &RelPath) {
        let Some((parent, _)) = path.split_last().filter(|_| !self.once) else { return };
        let trigger = self.client.trigger.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            trigger.hint(Hint::Dirty(parent));
        });
    }

    /// Has a folder looked at again.
    pub(super) fn look_again_in(&mut self, dir: RelPath) {
        self.again = true;
        self.client.trigger.hint(Hint::Dirty(dir));
    }

    /// True when nothing differs, and nothing asks for another look.
    pub(super) fn is_settled(&self) -> bool {
        self.client.cycle.is_settled(&self.stays) && !self.again
    }

    /// The same, or this device may look and not change, or the server has no room for any change: what differs here stays so,
    /// and is said.
    fn has_done_its_part(&self) -> bool {
        let keeps = self.connection.welcome().is_read_only() || self.no_room.changes.is_some();
        self.is_settled() || keeps && self.client.cycle.has_applied_but(&self.stays) && !self.again
    }

    /// Rounds until nothing differs, or what is left does not get less.
    pub(super) async fn until_equal(&mut self, pushes: &mut Pushes) -> Result<(), ClientError> {
        let (mut idle, mut unrested_rounds, mut garbled_rounds) = (0, 0, 0);
        let (mut last, mut scope) = (None, Scope::Full);
        for _ in 0..ROUNDS_MAX {
            let _ = self.client.trigger.take();
            self.hear(pushes).await?;
            self.cycle(Some(std::mem::replace(&mut scope, Scope::Full))).await?;
            if let Some(path) = &self.garbled {
                garbled_rounds += 1;
                if garbled_rounds >= GARBLED_ROUNDS_MAX {
                    return Err(ClientError::Garbled { path: path.to_string() });
                }
            } else {
                garbled_rounds = 0;
            }
            if let Some(unrested) = self.unrested.take().filter(|_| unrested_rounds < UNRESTED_ROUNDS_MAX) {
                unrested_rounds += 1;
                tokio::time::sleep_until(unrested.until).await;
                if !self.again {
                    scope = Scope::Dirs(unrested.folders);
                }
                self.must_poll = true;
                continue;
            }
            if self.has_done_its_part() {
                self.poll().await?;
                if self.has_done_its_part() {
                    return self.agree(true);
                }
            }
            let now = (self.client.cycle.local().clone(), self.head.seq);
            idle = if last.as_ref() == Some(&now) { idle + 1 } else { 0 };
            if idle >= IDLE_ROUNDS_MAX {
                self.tell_left();
                return if self.client.problems.is_empty() { Err(ClientError::Restless) } else { Ok(()) };
            }
            last = Some(now);
            if self.again || idle > 0 {
                tokio::time::sleep(Duration::from_millis(20 << idle)).await;
            }
            self.must_poll = true;
        }
        Err(ClientError::Restless)
    }

    /// The server has no room for the new blocks of a file, which looks like this.
    pub(super) fn waits_for_room(&mut self, stamp: Stamp, path: RelPath, why: String) {
        self.no_room.why = why;
        self.no_room.add(stamp, path);
        self.tell_no_room();
    }

    /// Says so once; a one-time sync says it at its end.
    pub(super) fn tell_no_room(&mut self) {
        if !self.once && !self.no_room.is_empty() {
            let why = &self.no_room.why;
            let line = format!("{why}: new content waits here until there is room, everything else goes on");
            self.client.problem(line.clone(), line);
        }
    }

    /// Drops chunk lists of files that are gone.
    pub(super) fn prune(&self) {
        let client = &*self.client;
        let files = client.state.base.iter().filter_map(|(_, node)| node.state.kind.content());
        let keep = files.filter(|content| content.root.level > 0).map(|content| content.root.hash).collect();
        let folder = &client.folder;
        if let Err(error) = folder.work().here(|| folder.prune_manifests(&keep)) {
            tracing::debug!(%error, "chunk lists not pruned");
        }
        if let Err(error) = folder.work().here(|| folder.prune_sketches(&keep)) {
            tracing::debug!(%error, "sketches not pruned");
        }
    }
}

/// For whoever wants to know why: what differs, what shall be, and how to get there.
fn trace(client: &Client, plan: &super::cycle::Plan) {
    for (id, state) in client.cycle.local() {
        tracing::trace!(?id, ?state, "here");
    }
    for (id, state) in &plan.merge.nodes {
        tracing::trace!(?id, there = ?client.cycle.remote_state(*id), ?state, "shall be");
    }
    for (id, of) in &plan.merge.copies {
        tracing::trace!(?id, ?of, "copy");
    }
    for (from, to) in &plan.merge.adopted {
        tracing::trace!(?from, ?to, "one node");
    }
    for op in &plan.ops {
        tracing::trace!(?op, "to do");
    }
}
