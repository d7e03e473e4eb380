//! Observing: from a scan to what differs locally. Files that look different are read, and their blocks go to the server
//! on the way, so that a large file is read once.

use super::large::LARGE_BYTES_MIN;
use super::read::{Job, Outcome};
use super::session::Session;
use super::upload::OnFull;
use super::{ClientError, News, Phase, upload};
use crate::folder::scan::{Entry, Found, Scan, Scope, scan};
use crate::folder::watch::Hint;
use crate::folder::{ShownPath, Stamp, Update};
use crate::model::{Kind, NodeId, NodeState, RelPath};
use crate::reconcile::mass_delete;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// From this many files gone on, a scan waits until the burst is over and looks at everything, so that the guard sees
/// the whole of it.
const GONE_MANY: usize = 10;
/// A moved file of this size is not read again when its inode, size and time are as before.
const TRUSTED_MOVE_BYTES_MIN: u64 = 1024 * 1024;

/// What names a store, and how long it is at most.
const STORE_FILE: &[u8] = b"store.toml";
const STORE_FILE_BYTES_MAX: u64 = 4096;

/// True for what is at one of these paths, below or above it.
fn belongs(path: &RelPath, paths: &[RelPath]) -> bool {
    paths.iter().any(|one| path.names().iter().zip(one.names()).all(|(a, b)| a == b))
}

impl Session<'_> {
    /// Looks at the disk and takes in what differs from the base.
    ///
    /// # Errors
    /// [`ClientError::Held`] when most files are gone; then nothing was taken in.
    pub(super) async fn observe(&mut self, scope: Scope) -> Result<(), ClientError> {
        // Differences that did not settle are found again as a whole: their ids and folders hang together.
        // So are nodes that a walk of the base does not come by.
        let in_order =
            self.client.cycle.local().is_empty() && self.client.state.base.unreachable().next().is_none();
        let scope = if in_order { scope } else { Scope::Full };
        self.client.progress.start(Phase::Looking, 0, 0);
        let mut seen = self.look(&scope)?;
        if !self.once && seen.missing >= GONE_MANY {
            self.client.trigger.quiet(Duration::from_millis(250), Duration::from_secs(10)).await;
            seen = self.look(&Scope::Full)?;
        }
        // What the server deleted too is not sent: this client was killed while it carried that out.
        let (base, cycle) = (&self.client.state.base, &self.client.cycle);
        let is_file = |id| base.get(id).is_some_and(|node| !node.state.kind.is_folder());
        let agreed = seen.gone.iter().filter(|id| is_file(**id) && cycle.is_deleted_there(**id)).count();
        let (missing, tracked) = (seen.missing.saturating_sub(agreed), seen.tracked.saturating_sub(agreed));
        let may_go = self.client.config.allow_mass_delete || self.client.state.is_copied();
        let mut back = BTreeSet::new();
        if let Some(paths) = &self.client.leaves {
            // Also when the guard would not hold: what came back may have made the difference.
            let base = &self.client.state.base;
            let gone = seen.gone.drain(..);
            back = gone.filter(|id| base.path_of(*id).is_some_and(|at| belongs(&at, paths))).collect();
        } else if let Some(held) = mass_delete(missing, tracked).filter(|_| !may_go) {
            let folder = ShownPath::from(self.client.folder.path()).to_string();
            return Err(ClientError::Held { held, folder });
        }
        let whole = matches!(scope, Scope::Full);
        self.take_in(seen, whole).await?;
        if whole && self.client.state.is_copied() {
            self.join_copy()?;
        } else if !back.is_empty() {
            self.join_again(&back)?;
        }
        Ok(())
    }

    /// In a copy of a synced folder what is missing may never have been copied, and what differs may be half of a file: neither
    /// is anything that a user did. It is joined with the share like a folder that was never synced.
    fn join_copy(&mut self) -> Result<(), ClientError> {
        let differing: BTreeSet<NodeId> = self.client.cycle.local().keys().copied().collect();
        let count = self.join_again(&differing)?;
        if count > 0 {
            self.client.news(News::Copied(count));
        }
        Ok(())
    }

    /// Joins these nodes and all below them with the share, as if they had never been synced; returns how many that were.
    fn join_again(&mut self, nodes: &BTreeSet<NodeId>) -> Result<usize, ClientError> {
        let client = &mut *self.client;
        let count = client.state.join_copy(nodes)?;
        client.cycle.forget_local();
        client.cycle.forget_remote();
        client.looks.clear();
        client.index_roots();
        self.inline_out.clear();
        self.read_from_start();
        Ok(count)
    }

    fn look(&mut self, scope: &Scope) -> Result<Scan, ClientError> {
        let client = &mut *self.client;
        let (folder, state, cycle) = (&client.folder, &client.state, &mut client.cycle);
        let start = Instant::now();
        let seen = folder.work().here(|| scan(folder, state, scope, cycle.ids()))?;
        self.looking_took += start.elapsed();
        if matches!(scope, Scope::Full) {
            self.client.twins.clear();
            self.client.forget_settled_problems();
        }
        Ok(seen)
    }

    /// An edit through one name of a hard link is reported for that name only. Has the folders of its other names looked
    /// at, once for each look of the file.
    fn look_at_twins(&mut self, found: &[Found]) {
        let client = &mut *self.client;
        for found in found.iter().filter(|found| found.touched) {
            let Entry::File { stamp } = &found.entry else { continue };
            for twin in client.state.owners(stamp.identity()).filter(|twin| *twin != found.id) {
                if client.state.stamp(twin) != Some(stamp)
                    && client.twins.insert(twin, *stamp) != Some(*stamp)
                {
                    let parent = client.state.base.get(twin).map(|node| node.state.parent);
                    let dir = parent.and_then(|parent| client.state.base.path_of(parent));
                    client.trigger.hint(dir.map_or(Hint::Rescan, Hint::Dirty));
                }
            }
        }
    }

    async fn take_in(&mut self, seen: Scan, whole: bool) -> Result<(), ClientError> {
        self.client.cycle.forget_local();
        self.client.looks.clear();
        self.client.held.clear();
        for problem in &seen.problems {
            self.read_again_later(&problem.path);
            self.client.problem(problem.path.to_string(), problem.to_string());
        }
        if !seen.special.is_empty() && !self.client.told_special {
            self.client.told_special = true;
            self.client.news(News::Special(seen.special));
        }
        for id in seen.gone {
            self.client.made_by_user(id);
            self.client.cycle.observe(&self.client.state.base, id, None);
        }
        self.look_at_twins(&seen.found);
        let mut files = HashMap::new();
        let mut looks = Vec::new();
        for found in seen.found {
            match self.known_kind(&found) {
                Some(kind) => self.take_node(&found, kind, *found.entry.stamp(), &mut looks),
                None => drop(files.insert(found.id, found)),
            }
        }
        if whole {
            self.no_room.keep_only(&files.values().map(|found| found.entry.stamp().identity()).collect());
        }
        self.tell_no_room();
        self.take_large(&mut files, &mut looks);
        let jobs = self.jobs(&files);
        self.refuse_own_store(&jobs)?;
        let bytes = files.values().map(|found| found.entry.stamp().size).fold(0, u64::saturating_add);
        self.client.progress.start(Phase::Sending, files.len() as u64, bytes);
        let uploaded = self.send(jobs, &files).await?;
        self.inline_out = uploaded.inline;
        for (job, outcome) in uploaded.files {
            if let Some(found) = files.remove(&job.id) {
                self.take_file(&found, &job.path, outcome, &mut looks);
            }
        }
        // Those that wait for room were not read.
        self.client.held.extend(files.into_keys());
        self.client.progress.start(Phase::Idle, 0, 0);
        if !looks.is_empty() {
            let base = &self.client.state.base;
            let looked = looks.iter().filter_map(Update::node);
            let looked: Vec<_> = looked.map(|id| (id, base.get(id).cloned())).collect();
            self.client.sync_users(&looked)?;
            self.client.state.save(looks, false)?;
        }
        Ok(())
    }

    /// Reads files and sends their blocks. What the server had no room for last time is tried after everything else, only
    /// until it refuses again, and not at all in a one-time sync. Files that are not read wait for room.
    async fn send(
        &mut self,
        jobs: Vec<Job>,
        files: &HashMap<NodeId, Found>,
    ) -> Result<upload::Uploaded, ClientError> {
        let stamp = |job: &Job| files.get(&job.id).map(|found| *found.entry.stamp());
        let (waiting, fresh): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| stamp(job).is_some_and(|stamp| self.no_room.holds(&stamp)));
        let mut uploaded = self.upload(fresh, OnFull::ReadOn).await?;
        self.no_room.meet(uploaded.full.clone());
        if waiting.is_empty() || self.once {
            return Ok(uploaded);
        }
        let places: Vec<_> =
            waiting.iter().filter_map(|job| Some((job.id, stamp(job)?, job.path.clone()))).collect();
        let mut again = self.upload(waiting, OnFull::Stop).await?;
        // Only one of the two may ride in the commit.
        let inline = std::mem::take(&mut again.inline);
        let taken = upload::put(&self.connection, self.client.folder.work(), inline).await?;
        again.full = again.full.or(taken.full);
        again.stored |= taken.stored;
        self.no_room.meet(again.full.clone());
        if again.full.is_some() && !again.stored {
            return Ok(uploaded);
        }
        for (id, stamp, path) in places {
            if !again.files.iter().any(|(job, _)| job.id == id) {
                self.no_room.add(stamp, path);
            }
        }
        uploaded.files.append(&mut again.files);
        Ok(uploaded)
    }

    async fn upload(&self, jobs: Vec<Job>, on_full: OnFull) -> Result<upload::Uploaded, ClientError> {
        let client = &*self.client;
        let (progress, threads) = (&*client.progress, client.config.threads);
        upload::upload(&self.connection, &client.folder, jobs, threads, &client.counters, progress, on_full)
            .await
    }

    /// Takes large files out of the files to read: those whose content is known by now are taken in, the others are read
    /// beside the cycles, and left alone until then.
    fn take_large(&mut self, files: &mut HashMap<NodeId, Found>, looks: &mut Vec<Update>) {
        if self.once {
            return;
        }
        let is_large = |found: &Found| found.entry.stamp().size >= LARGE_BYTES_MIN;
        let large: HashMap<NodeId, Found> = files.extract_if(|_, found| is_large(found)).collect();
        for job in self.jobs(&large) {
            let Some(found) = large.get(&job.id) else { continue };
            let stamp = *found.entry.stamp();
            match self.large.content_of(&stamp) {
                Some(content) => {
                    let kind = Kind::File { content, mtime_ns: stamp.mtime_ns, exec: stamp.exec };
                    self.large.forget_read(&stamp);
                    self.take_node(found, kind, stamp, looks);
                }
                None => {
                    self.client.held.insert(job.id);
                    let (folder, counters) = (&self.client.folder, &self.client.counters);
                    self.large.read(&self.connection, folder, job, &stamp, counters);
                }
            }
        }
    }

    /// What a found name is, unless its bytes must be read to know.
    fn known_kind(&self, found: &Found) -> Option<Kind> {
        let base = self.client.state.base.get(found.id).map(|node| &node.state.kind);
        match &found.entry {
            Entry::Folder { .. } => Some(Kind::Folder),
            Entry::Symlink { stamp, target } => {
                Some(Kind::Symlink { target: target.clone(), mtime_ns: stamp.mtime_ns })
            }
            Entry::File { stamp } => {
                let old = self.client.state.stamp(found.id);
                let same = !found.touched
                    || (found.moved
                        && stamp.size >= TRUSTED_MOVE_BYTES_MIN
                        && old.is_some_and(|old| old.same_bytes(stamp)));
                match base {
                    Some(Kind::File { content, .. }) if same => Some(Kind::File {
                        content: content.clone(),
                        mtime_ns: stamp.mtime_ns,
                        exec: stamp.exec,
                    }),
                    _ => None,
                }
            }
        }
    }

    /// Nothing of the store that this session fills may go into it.
    fn refuse_own_store(&self, jobs: &[Job]) -> Result<(), ClientError> {
        let id = self.connection.welcome().store.to_string();
        for job in jobs {
            let Some((store, _)) = job.path.split_last().filter(|(_, name)| name.as_bytes() == STORE_FILE)
            else {
                continue;
            };
            let Ok(Some((file, stamp))) = self.client.folder.open_file(&job.path) else { continue };
            let mut text = vec![0; usize::try_from(stamp.size.min(STORE_FILE_BYTES_MAX)).unwrap_or(0)];
            if file.read_exact_at(&mut text, 0).is_ok() && String::from_utf8_lossy(&text).contains(&id) {
                return Err(ClientError::StoreInside {
                    path: format!("{}/{store}", ShownPath::from(self.client.folder.path())),
                });
            }
        }
        Ok(())
    }

    /// Files to read, folders' order kept so that reading goes through the disk once.
    fn jobs(&self, files: &HashMap<NodeId, Found>) -> Vec<Job> {
        let disk = self.client.cycle.disk(&self.client.state.base);
        let mut jobs: Vec<Job> = files
            .values()
            .filter_map(|found| {
                let path = disk.path_of(found.parent)?.join(&found.name);
                let base =
                    self.client.state.base.get(found.id).and_then(|node| node.state.kind.content()).cloned();
                let base = base.filter(|_| !self.client.reupload.contains(&found.id));
                Some(Job { id: found.id, path, bases: base.into_iter().collect() })
            })
            .collect();
        self.add_origins(files, &mut jobs);
        jobs.sort_by(|a, b| a.path.cmp(&b.path));
        jobs
    }

    fn take_file(&mut self, found: &Found, path: &RelPath, outcome: Outcome, looks: &mut Vec<Update>) {
        match outcome {
            Outcome::Read { content, stamp, rests_in } => {
                let unrested = !rests_in.is_zero();
                self.client.unreadable.remove(path);
                let kind = Kind::File { content, mtime_ns: stamp.mtime_ns, exec: stamp.exec };
                if unrested {
                    self.look_again_soon(path, rests_in);
                }
                let stamp = if unrested { stamp.distrusted() } else { stamp };
                self.take_node(found, kind, stamp, looks);
            }
            Outcome::Gone => self.look_again(Some(path)),
            Outcome::Changing => {
                self.client.held.insert(found.id);
                self.look_again(Some(path));
                let line = format!("{path}: changes while it is read; left for later");
                self.client.problem(path.to_string(), line);
            }
            Outcome::Unreadable(error) => {
                self.client.held.insert(found.id);
                self.read_again_later(path);
                self.client.problem(path.to_string(), crate::client::error::line(&error));
            }
        }
    }

    fn take_node(&mut self, found: &Found, kind: Kind, stamp: Stamp, looks: &mut Vec<Update>) {
        let state = NodeState { parent: found.parent, name: found.name.clone(), kind };
        self.client.made_by_user(found.id);
        let base = &self.client.state.base;
        if base.get(found.id).is_some_and(|node| node.state == state) {
            looks.push(Update::Look(found.id, stamp));
        } else {
            self.client.cycle.observe(base, found.id, Some(state));
            self.client.looks.insert(found.id, stamp);
        }
    }
}
