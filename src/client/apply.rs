//! Applying a plan to the folder: structure first, then contents in batches. While one batch is made durable and swapped
//! in, the next is fetched.

use super::cycle::Plan;
use super::download::{Fetcher, Wanted};
use super::large::LARGE_BYTES_MIN;
use super::origin::ABOVE_MAX;
use super::place::{self, Placing, Report};
use super::session::Session;
use super::similar::{self, New};
use super::{ClientError, News, Phase};
use crate::folder::stage::Staged;
use crate::folder::{FolderError, Stamp, Update};
use crate::model::{BlockHash, FileContent, Kind, NodeId, NodeState, RelPath};
use crate::reconcile::DiskOp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A batch of files ends at this many…
const BATCH_FILES: usize = 2000;
/// …or bytes.
const BATCH_BYTES: u64 = 64 * 1024 * 1024;

/// A content to be put in place, apart from its bytes.
struct Place {
    id: NodeId,
    state: NodeState,
    path: RelPath,
    expect: Option<crate::folder::Stamp>,
    copy: Option<(NodeId, NodeState, RelPath)>,
    sources: Vec<(RelPath, FileContent)>,
    like: Option<(RelPath, FileContent)>,
}

/// What is here and may hold bytes of what comes, beside the agreed files.
struct Near {
    /// Files that new ones may be like.
    guesses: HashMap<NodeId, Vec<(NodeId, FileContent)>>,
    /// Equal files that went in the same plan, by the roots of their contents.
    trashed: HashMap<BlockHash, (RelPath, FileContent)>,
}

impl Session<'_> {
    /// Carries out the disk operations of a plan. What could not be done stays a difference.
    pub(super) async fn apply(&mut self, plan: &Plan) -> Result<(), ClientError> {
        if plan.ops.is_empty() {
            return Ok(());
        }
        self.announce_structure(plan)?;
        let leaving = self.leaving(plan);
        let report = self.structure(plan)?;
        let touched = report.touched.clone();
        self.absorb(report);
        let folder = self.client.folder.clone();
        folder.work().here(|| folder.sync_folders(&touched))?;
        self.agree(true)?;
        let near = Near { guesses: self.guess(plan), trashed: self.trashed(leaving) };
        self.contents(plan, &near).await
    }

    /// Files that go, and that others which come are equal to: where they are, by the roots of their contents.
    fn leaving(&self, plan: &Plan) -> Vec<(RelPath, FileContent)> {
        let wanted = plan.ops.iter().filter_map(|op| match op {
            DiskOp::Place { state, .. } => state.kind.content().map(|content| content.root.hash),
            _ => None,
        });
        let wanted: HashSet<BlockHash> = wanted.collect();
        let disk = self.client.cycle.disk(&self.client.state.base);
        let leaving = plan.ops.iter().filter_map(|op| {
            let DiskOp::Trash { id } = op else { return None };
            let content = disk.state(*id)?.kind.content().filter(|old| wanted.contains(&old.root.hash))?;
            Some((disk.path_of(*id)?, content.clone()))
        });
        leaving.collect()
    }

    /// Where they are now that they have gone.
    fn trashed(&self, leaving: Vec<(RelPath, FileContent)>) -> HashMap<BlockHash, (RelPath, FileContent)> {
        if leaving.is_empty() {
            return HashMap::new();
        }
        let trash = self.client.folder.trashed();
        let found = leaving
            .into_iter()
            .filter_map(|(path, content)| Some((content.root.hash, (trash.get(&path)?.clone(), content))));
        found.collect()
    }

    fn structure(&self, plan: &Plan) -> Result<Report, FolderError> {
        let client = &*self.client;
        let mut disk = client.cycle.disk(&client.state.base);
        let mut names = super::rescue_names(&client.config);
        client.folder.work().here(|| {
            place::structure(&client.folder, &plan.ops, &mut disk, &|id| client.stamp(id), &mut names)
        })
    }

    /// Takes in what operations did.
    fn absorb(&mut self, report: Report) {
        for (id, state, stamp) in report.done {
            tracing::trace!(?id, ?state, "on disk");
            self.client.counters.nodes_received.add(1);
            self.client.progress.add_files(1);
            match stamp {
                Some(stamp) => drop(self.client.looks.insert(id, stamp)),
                None => drop(self.client.looks.remove(&id)),
            }
            self.client.cycle.observe(&self.client.state.base, id, state);
        }
        report.placed.into_iter().for_each(|id| self.client.made_by_us(id));
        report.copied.into_iter().for_each(|id| self.client.made_by_user(id));
        for id in report.left {
            tracing::trace!(?id, "left");
            let shown = self.shown(id);
            self.left.insert(id, shown);
            self.again = true;
        }
        for (id, path) in report.stays {
            self.stays.insert(id);
            if self.client.told_stays.insert(id) {
                self.client.news(News::Stays(path));
            }
        }
        for dir in report.dirty {
            self.look_again_in(dir);
        }
        for error in report.problems {
            let line = super::error::line(&error);
            self.client.problem(line.clone(), line);
        }
    }

    /// The path that a node has, or was to have, for people; that of the top when it has none.
    fn shown(&self, id: NodeId) -> RelPath {
        let disk = self.client.cycle.disk(&self.client.state.base);
        let place = self.client.cycle.remote_state(id).or_else(|| disk.state(id));
        let path = place.and_then(|state| Some(disk.path_of(state.parent)?.join(&state.name)));
        path.unwrap_or_else(RelPath::root)
    }

    async fn contents(&mut self, plan: &Plan, near: &Near) -> Result<(), ClientError> {
        let places = plan.ops.iter().filter_map(|op| match op {
            DiskOp::Place { id, state, copy } => Some((*id, state, copy.as_ref())),
            _ => None,
        });
        let (mut files, mut bytes) = (0, 0u64);
        for (_, state, _) in places.clone() {
            files += 1;
            // Sizes are what somebody says they are.
            bytes = bytes.saturating_add(state.kind.content().map_or(0, |content| content.size));
        }
        if files == 0 {
            return Ok(());
        }
        // Of equal files the first is fetched; once it is in place the others are made from it.
        let mut met = HashSet::new();
        let is_first = |place: &(NodeId, &NodeState, Option<&(NodeId, NodeState)>)| {
            place.1.kind.content().is_none_or(|content| content.size == 0 || met.insert(content.root.hash))
        };
        let (first, equal): (Vec<_>, Vec<_>) = places.partition(is_first);
        self.client.progress.start(Phase::Receiving, files, bytes);
        let progress = self.client.progress.clone();
        let fetcher = Fetcher {
            connection: self.connection.clone(),
            folder: self.client.folder.clone(),
            counters: self.client.counters.clone(),
            inline: Arc::new(std::mem::take(&mut self.inline_in)),
            fresh: Arc::default(),
            on_bytes: Arc::new(move |bytes| progress.add_bytes(bytes)),
        };
        for places in [first, equal] {
            self.place_in_batches(&mut places.into_iter(), near, &fetcher).await?;
        }
        self.client.progress.start(Phase::Idle, 0, 0);
        Ok(())
    }

    /// While one batch is made durable and swapped in, the next is fetched. All are in place at the end.
    async fn place_in_batches<'p>(
        &mut self,
        places: &mut impl Iterator<Item = (NodeId, &'p NodeState, Option<&'p (NodeId, NodeState)>)>,
        near: &Near,
        fetcher: &Fetcher,
    ) -> Result<(), ClientError> {
        let mut under_way: Option<JoinHandle<Result<Report, FolderError>>> = None;
        while let Some(batch) = self.next_batch(places, near) {
            let ready = self.fetch(fetcher, batch).await;
            // Whatever happened to this batch, the one before is in place and must be recorded.
            self.join(under_way.take()).await?;
            let ready = ready?;
            self.announce(&ready)?;
            let (folder, device, when) = (
                self.client.folder.clone(),
                self.client.config.device_name.clone(),
                (self.client.config.now)(),
            );
            self.client.placing.send_replace(true);
            under_way = Some(folder.work().beside(move || place::place_all(&folder, ready, &device, &when)));
        }
        self.join(under_way).await
    }

    /// Writes down which folders are about to be made, and what is about to be moved: carried out but not recorded, it must not
    /// look like the user's own.
    fn announce_structure(&mut self, plan: &Plan) -> Result<(), FolderError> {
        let client = &*self.client;
        let disk = client.cycle.disk(&client.state.base);
        let intents = plan.ops.iter().filter_map(|op| match op {
            DiskOp::Move { id, .. } => {
                let goal = plan.merge.nodes.get(id)?.as_ref()?;
                let node = client
                    .cycle
                    .agreed_by(*id, goal)
                    .filter(|_| disk.state(*id).is_some_and(|now| now.kind == goal.kind))?;
                Some(Update::Intend { id: *id, node, stamp: client.stamp(*id)? })
            }
            DiskOp::MakeFolder { id, parent, name } => {
                let goal = NodeState { parent: *parent, name: name.clone(), kind: Kind::Folder };
                let node = client.cycle.agreed_by(*id, &goal)?;
                Some(Update::Intend { id: *id, node, stamp: Stamp::NONE })
            }
            _ => None,
        });
        let intents = intents.collect();
        self.client.save_nodes(intents, false)
    }

    /// Writes down what is about to be put in place, so that a program that ends in between does not take it for the
    /// user's work when it starts again.
    fn announce(&mut self, ready: &[Placing]) -> Result<(), FolderError> {
        let cycle = &self.client.cycle;
        let intents = ready.iter().filter_map(|placing| {
            let node = cycle.agreed_by(placing.id, &placing.state)?;
            Some(Update::Intend { id: placing.id, node, stamp: placing.staged.stamp })
        });
        let intents = intents.collect();
        self.client.save_nodes(intents, false)
    }

    async fn join(
        &mut self,
        batch: Option<JoinHandle<Result<Report, FolderError>>>,
    ) -> Result<(), ClientError> {
        let Some(batch) = batch else { return Ok(()) };
        let report = batch.await.map_err(|_| ClientError::Stopped)??;
        self.absorb(report);
        self.agree(true)?;
        self.client.placing.send_replace(false);
        Ok(())
    }

    /// The next contents to place, with their paths now that the structure stands; a large file is a batch of its own, or
    /// shares one with small files before it. `None` after the last.
    ///
    /// Places that are not as expected are not fetched for: they are left.
    fn next_batch<'p>(
        &mut self,
        places: &mut impl Iterator<Item = (NodeId, &'p NodeState, Option<&'p (NodeId, NodeState)>)>,
        near: &Near,
    ) -> Option<Vec<Place>> {
        let client = &*self.client;
        let disk = client.cycle.disk(&client.state.base);
        let path_in = |state: &NodeState| Some(disk.path_of(state.parent)?.join(&state.name));
        let mut beside = client.folder.nearby();
        let (mut batch, mut bytes, mut ended) = (Vec::new(), 0u64, true);
        for (id, state, copy) in places {
            let Some(path) = path_in(state) else { continue };
            let now = disk.state(id);
            // A place that is taken by something without a look is not ours to replace.
            let expect = now.and_then(|_| client.stamp(id));
            if copy.is_none() && beside.look(&path).map(|meta| meta.stamp) != expect {
                self.left.insert(id, path);
                self.again = true;
                continue;
            }
            let copy = copy.and_then(|(copy, state)| Some((*copy, state.clone(), path_in(state)?)));
            let mut sources = Vec::new();
            let old = now.and_then(|now| now.kind.content()).map(|old| (path.clone(), old.clone()));
            let guessed = near.guesses.get(&id).into_iter().flatten();
            let guessed = guessed.filter_map(|(id, content)| Some((disk.path_of(*id)?, content.clone())));
            let known: Vec<_> = old.into_iter().chain(guessed).collect();
            let like = known.iter().find(|(_, old)| old.root.level == 0 && old.size > 0).cloned();
            sources.extend(known.into_iter().filter(|(_, old)| old.root.level > 0));
            if let Some(content) = state.kind.content() {
                let twin = client.twin_of(content).and_then(|twin| disk.path_of(twin));
                sources.extend(twin.map(|path| (path, content.clone())));
                sources
                    .extend(near.trashed.get(&content.root.hash).filter(|(_, old)| old == content).cloned());
            }
            if let Some(content) = state.kind.content().filter(|content| content.root.level == 0) {
                sources.retain(|(_, here)| here == content);
            }
            bytes = bytes.saturating_add(state.kind.content().map_or(0, |content| content.size));
            batch.push(Place { id, state: state.clone(), path, expect, copy, sources, like });
            if batch.len() >= BATCH_FILES || bytes >= BATCH_BYTES {
                ended = false;
                break;
            }
        }
        (!batch.is_empty() || !ended).then_some(batch)
    }

    /// Files here that files new to this folder may be like.
    fn guess(&self, plan: &Plan) -> HashMap<NodeId, Vec<(NodeId, FileContent)>> {
        let client = &*self.client;
        let disk = client.cycle.disk(&client.state.base);
        let new = plan.ops.iter().filter_map(|op| {
            let DiskOp::Place { id, state, .. } = op else { return None };
            let size = state.kind.content()?.size;
            if disk.state(*id).is_some_and(|now| now.kind.content().is_some()) {
                return None;
            }
            let above = disk.path_of(state.parent)?.names().iter().rev().take(ABOVE_MAX).cloned().collect();
            Some(New { id: *id, parent: state.parent, name: state.name.clone(), above, size })
        });
        similar::guess(&client.state.base, &new.collect::<Vec<_>>())
    }

    async fn fetch(&mut self, fetcher: &Fetcher, batch: Vec<Place>) -> Result<Vec<Placing>, ClientError> {
        let mut wanted = Vec::new();
        let mut staged: HashMap<NodeId, Staged> = HashMap::new();
        for place in &batch {
            match &place.state.kind {
                Kind::File { content, mtime_ns, exec } => {
                    let want = Wanted {
                        id: place.id,
                        path: place.path.clone(),
                        content: content.clone(),
                        exec: *exec,
                        mtime_ns: *mtime_ns,
                        sources: place.sources.clone(),
                        like: place.like.clone(),
                    };
                    if self.once || content.size < LARGE_BYTES_MIN {
                        wanted.push(want);
                    } else if let Some(file) = self.large.take_fetched(&self.client.folder, place.id, content)
                    {
                        staged.insert(place.id, file);
                    } else if !self.large.fetches_equal(place.id, content) {
                        self.large.fetch(fetcher, want);
                    }
                }
                Kind::Symlink { target, mtime_ns } => {
                    match self.client.folder.stage_symlink(place.id, target, *mtime_ns) {
                        Ok(link) => drop(staged.insert(place.id, link)),
                        Err(error) if place::concerns_all(&error) => return Err(error.into()),
                        // A filesystem without symlinks, or with shorter ones.
                        Err(error) => {
                            let line = super::error::line(&error);
                            self.client.problem(line.clone(), line);
                        }
                    }
                }
                Kind::Folder => {}
            }
        }
        let mut failed: HashMap<NodeId, ClientError> = HashMap::new();
        for (id, fetched) in fetcher.fetch(wanted).await? {
            match fetched {
                Ok(file) => drop(staged.insert(id, file)),
                Err(error) => drop(failed.insert(id, error)),
            }
        }
        let mut ready = Vec::with_capacity(batch.len());
        for place in batch {
            if let Some(error) = failed.get(&place.id) {
                let path = place.path.to_string();
                match error {
                    ClientError::Folder(FolderError::NoSpace { .. }) => self.client.has_no_room(&path),
                    error => self.client.problem(path, super::error::line(error)),
                }
                continue;
            }
            let Some(file) = staged.remove(&place.id) else { continue };
            if let Some((_, _, path)) = &place.copy {
                self.client.counters.conflicts.add(1);
                self.client.news(News::Conflict(path.clone()));
            }
            let Place { id, state, path, expect, copy, .. } = place;
            ready.push(Placing { id, state, path, staged: file, expect, copy });
        }
        Ok(ready)
    }
}
