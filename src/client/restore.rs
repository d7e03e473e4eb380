//! Restoring: finds what a path was, decides by `reconcile::restore`, and commits that as ordinary changes. No content
//! moves: the server holds it. Every client, this folder's too, receives the changes like any others.

use super::history::{Historian, HistoryError, tree_of};
use crate::model::past::{Found, Moment, PastNode};
use crate::model::{FileContent, IdSource, Name, Node, NodeId, Refusal, RelPath, Seq};
use crate::reconcile::restore::{Place, Restore, Step, missing_folders, plan};
use crate::tree::Tree;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Rounds in which nothing more could be committed before it is given up.
const IDLE_ROUNDS_MAX: u32 = 5;

/// What to restore.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What; the root for the whole share.
    pub path: RelPath,
    /// From when. A commit that the log printed for something means that.
    pub point: Moment,
    /// The point as people say it: "at …".
    pub when: String,
    /// A copy at this place instead.
    pub to: Option<RelPath>,
    /// Also when the content of some of it is lost.
    pub partial: bool,
}

/// What a restore does, or did.
#[derive(Debug, Clone)]
pub struct Report {
    /// The commit whose state was restored.
    pub version: Seq,
    /// When that was made, ms since 1970.
    pub time_ms: u64,
    /// The head before the restore: restoring to it undoes it.
    pub before: Seq,
    /// What is to be done, or was.
    pub steps: Vec<Step>,
    /// Files that do not get the content that they had then: it is lost.
    pub lost: BTreeSet<RelPath>,
}

/// What was at the path: the top, and all below it.
struct Then {
    tree: Tree,
    top: NodeId,
    /// Files whose content is lost, or may be.
    unkept: HashSet<NodeId>,
}

/// What is at the place now, and the steps that lead there.
struct Now {
    tree: Tree,
    place: Option<Place>,
    /// Folders that have to be made first.
    folders: Vec<Step>,
}

impl Historian {
    /// What a restore would do. Nothing is changed.
    pub async fn plan(&self, wish: &Wish, ids: &mut IdSource) -> Result<Report, HistoryError> {
        if self.connection.welcome().is_read_only() {
            return Err(HistoryError::ReadOnly);
        }
        let found = self.point(wish).await?;
        let then = self.then(wish, found).await?;
        let (steps, lost) = self.steps(wish, &then, found, ids).await?;
        Ok(Report { steps, lost, ..Report::of(found) })
    }

    /// Restores. What others change meanwhile is looked at again.
    pub async fn restore(&self, wish: &Wish, ids: &mut IdSource) -> Result<Report, HistoryError> {
        let mut found = self.point(wish).await?;
        let then = self.then(wish, found).await?;
        let mut report = Report::of(found);
        let mut idle = 0;
        while idle < IDLE_ROUNDS_MAX {
            let (steps, lost) = self.steps(wish, &then, found, ids).await?;
            report.lost.extend(lost);
            let (done, whole) = self.commit(wish, steps).await?;
            idle = if done.is_empty() { idle + 1 } else { 0 };
            report.steps.extend(done);
            if whole {
                return Ok(report);
            }
            if wish.to.is_some() {
                // A second round would take the first one's copy for something that is in the way.
                break;
            }
            found.head = self.find(Moment::Now).await?.head;
        }
        Err(HistoryError::Restless(wish.to.clone().unwrap_or_else(|| wish.path.clone())))
    }

    /// Commits in batches; returns what was taken, and whether that is everything.
    async fn commit(&self, wish: &Wish, steps: Vec<Step>) -> Result<(Vec<Step>, bool), HistoryError> {
        let mut done = Vec::with_capacity(steps.len());
        let mut whole = true;
        let mut steps = steps.into_iter().peekable();
        for batch in super::commit::batches(steps.clone().map(|step| step.change).collect()) {
            let committed = self.connection.commit(batch.clone(), &[]).await?;
            let mut refused = committed.refused.iter().peekable();
            for (number, _) in (0u32..).zip(&batch) {
                let Some(step) = steps.next() else { break };
                match refused.next_if(|(place, _)| *place == number) {
                    None => done.push(step),
                    Some((_, Refusal::MissingBlocks)) => {
                        return Err(HistoryError::BlocksLost(step.to.unwrap_or_else(|| wish.path.clone())));
                    }
                    Some(_) => whole = false,
                }
            }
        }
        Ok((done, whole))
    }

    /// The commit that the wish names.
    async fn point(&self, wish: &Wish) -> Result<Found, HistoryError> {
        let found = self.find(wish.point).await?;
        match wish.point {
            Moment::Commit(asked) if asked == Seq::ZERO || asked != found.seq => {
                Err(HistoryError::NoVersion { asked, head: found.head })
            }
            _ if found.seq == Seq::ZERO => Err(HistoryError::TooEarly(wish.when.clone())),
            _ => Ok(found),
        }
    }

    /// What the path was, with all below it.
    async fn then(&self, wish: &Wish, found: Found) -> Result<Then, HistoryError> {
        if wish.path.is_root() {
            let nodes = self.below(found.seq, NodeId::ROOT).await?;
            return Ok(Then::new(NodeId::ROOT, &nodes));
        }
        let top = self.top(wish, found).await?;
        let id = top.node.id;
        let mut nodes = vec![top];
        if nodes.iter().any(|top| top.node.state.as_ref().is_some_and(|state| state.kind.is_folder())) {
            nodes.extend(self.below(found.seq, id).await?);
        }
        Ok(Then::new(id, &nodes))
    }

    /// The node that the path means at that commit. What had the whole path then comes first; else what has the path now,
    /// or the name in what has the front of the path now, so that things are followed through renames. A version that the
    /// log printed for one of them means that one.
    async fn top(&self, wish: &Wish, found: Found) -> Result<PastNode, HistoryError> {
        let names = wish.path.names();
        let mut candidates = Vec::new();
        let was = self.along(found.seq, NodeId::ROOT, names).await?;
        candidates.extend(if was.len() == names.len() { was.last().cloned() } else { None });
        let is = self.along(found.head, NodeId::ROOT, names).await?;
        if let Some(now) = is.get(names.len().saturating_sub(1)) {
            candidates.extend(self.nodes(found.seq, &[now.node.id]).await?.into_values());
        }
        for length in (1..names.len()).rev() {
            let (Some(front), Some(rest)) = (is.get(length - 1), names.get(length..)) else { continue };
            let below = self.along(found.seq, front.node.id, rest).await?;
            candidates.extend(if below.len() == rest.len() { below.last().cloned() } else { None });
        }
        candidates.retain(|past| past.node.state.is_some());
        let named = match wish.point {
            // What had the path then is meant, whatever else that commit changed.
            Moment::Commit(version) if was.len() < names.len() => {
                candidates.iter().position(|past| past.node.version == version)
            }
            _ => None,
        };
        if candidates.is_empty() {
            let ever = self.versions(&wish.path, None).await?;
            if ever.versions.is_empty() && ever.rest.is_none() {
                return Err(HistoryError::NeverWas(wish.path.clone()));
            }
            return Err(HistoryError::NotThere { path: wish.path.clone(), when: wish.when.clone() });
        }
        Ok(candidates.swap_remove(named.unwrap_or(0)))
    }

    /// What has to be done so that the wish is true, given the share at `found.head`.
    async fn steps(
        &self,
        wish: &Wish,
        then: &Then,
        found: Found,
        ids: &mut IdSource,
    ) -> Result<(Vec<Step>, BTreeSet<RelPath>), HistoryError> {
        let now = self.now(wish, found, ids).await?;
        let olds: Vec<NodeId> = then.tree.iter().map(|(id, _)| id).collect();
        let standing: HashMap<NodeId, Node> = match wish.to {
            Some(_) => HashMap::new(),
            None => {
                let nodes = self.nodes(found.head, &olds).await?;
                nodes.into_iter().map(|(id, past)| (id, past.node)).collect()
            }
        };
        let none = HashSet::new();
        let restore = Restore {
            then: &then.tree,
            top: then.top,
            now: &now.tree,
            standing: &standing,
            place: now.place,
            copy: wish.to.is_some(),
            lost: &none,
        };
        let mut planned = plan(&restore, ids);
        let lost: BTreeSet<RelPath> = then.lost_in(&planned, &now.tree).cloned().collect();
        if let Some(path) = lost.first() {
            let left = planned.len() - lost.len();
            if !wish.partial || left == 0 {
                return Err(HistoryError::NotKept { path: path.clone(), lost: lost.len(), left });
            }
            planned = plan(&Restore { lost: &then.unkept, ..restore }, ids);
        }
        let mut steps = now.folders;
        steps.extend(planned);
        Ok((steps, lost))
    }

    /// What is at the place now.
    async fn now(&self, wish: &Wish, found: Found, ids: &mut IdSource) -> Result<Now, HistoryError> {
        let path = wish.to.as_ref().unwrap_or(&wish.path);
        let Some((folder, name)) = path.split_last() else {
            if wish.to.is_some() {
                return Err(HistoryError::Exists(path.clone()));
            }
            let nodes = self.below(found.head, NodeId::ROOT).await?;
            let tree = tree_of(nodes.iter().map(|past| &past.node));
            return Ok(Now { tree, place: None, folders: Vec::new() });
        };
        let along = self.along(found.head, NodeId::ROOT, path.names()).await?;
        let (above, holder) = match along.get(folder.names().len()) {
            Some(holder) => (along.get(..folder.names().len()).unwrap_or_default(), Some(holder)),
            None => (along.as_slice(), None),
        };
        let is_file = |past: &PastNode| past.node.state.as_ref().is_some_and(|s| !s.kind.is_folder());
        if let Some(length) = above.iter().position(is_file) {
            let names = folder.names().get(..=length).unwrap_or_default();
            return Err(HistoryError::InTheWay(RelPath::from_names(names.to_vec())));
        }
        if wish.to.is_some() && holder.is_some() {
            return Err(HistoryError::Exists(path.clone()));
        }
        let (folders, parent) = self.folders(wish, found, &folder, above, ids).await?;
        let mut nodes: Vec<PastNode> = holder.cloned().into_iter().collect();
        if let Some(holder) = holder.filter(|holder| !is_file(holder)) {
            nodes.extend(self.below(found.head, holder.node.id).await?);
        }
        let tree = tree_of(nodes.iter().map(|past| &past.node));
        Ok(Now { tree, place: Some(Place { parent, name: name.clone(), path: path.clone() }), folders })
    }

    /// The folders above the place that are missing now, and the innermost one.
    async fn folders(
        &self,
        wish: &Wish,
        found: Found,
        folder: &RelPath,
        above: &[PastNode],
        ids: &mut IdSource,
    ) -> Result<(Vec<Step>, NodeId), HistoryError> {
        let parent = above.last().map_or(NodeId::ROOT, |past| past.node.id);
        let (there, missing) = folder.names().split_at(above.len().min(folder.names().len()));
        if missing.is_empty() {
            return Ok((Vec::new(), parent));
        }
        let mut deleted: Vec<Option<Node>> = Vec::new();
        if wish.to.is_none() {
            let was = self.along(found.seq, NodeId::ROOT, folder.names()).await?;
            let was: Vec<NodeId> = was.iter().skip(there.len()).map(|past| past.node.id).collect();
            let standing = self.nodes(found.head, &was).await?;
            deleted.extend(was.iter().map(|id| standing.get(id).map(|past| past.node.clone())));
        }
        let there: Vec<Name> = there.to_vec();
        Ok(missing_folders(parent, &RelPath::from_names(there), missing, &deleted, ids))
    }
}

impl Report {
    /// Before anything is done.
    const fn of(found: Found) -> Self {
        Self {
            version: found.seq,
            time_ms: found.time_ms,
            before: found.head,
            steps: Vec::new(),
            lost: BTreeSet::new(),
        }
    }
}

impl Then {
    fn new(top: NodeId, nodes: &[PastNode]) -> Self {
        let unkept = nodes.iter().filter(|past| !past.kept && past_has_content(past));
        let unkept = unkept.map(|past| past.node.id).collect();
        Self { tree: tree_of(nodes.iter().map(|past| &past.node)), top, unkept }
    }

    /// Where steps bring back a content that is lost. What stands as it was needs none.
    fn lost_in<'s>(&self, steps: &'s [Step], now: &Tree) -> impl Iterator<Item = &'s RelPath> {
        let content_of = |tree: &Tree, id| tree.get(id).and_then(|node| node.state.kind.content().cloned());
        let lost: HashSet<FileContent> =
            self.unkept.iter().filter_map(|id| content_of(&self.tree, *id)).collect();
        let needs = move |step: &Step, stands: Option<FileContent>| {
            let content = step.change.state.as_ref().and_then(|state| state.kind.content());
            content.is_some_and(|content| lost.contains(content) && stands.as_ref() != Some(content))
        };
        let steps = steps.iter().map(move |step| (step, content_of(now, step.change.id)));
        steps
            .filter(move |(step, stands)| needs(step, stands.clone()))
            .filter_map(|(step, _)| step.to.as_ref())
    }
}

/// A folder or a link needs nothing that could be collected.
fn past_has_content(past: &PastNode) -> bool {
    past.node.state.as_ref().is_some_and(|state| state.kind.content().is_some())
}

/// What the steps do, counted: made, changed, moved, deleted.
pub fn count(steps: &[Step]) -> [u64; 4] {
    let mut counts = [0; 4];
    for step in steps {
        let place = match (&step.from, &step.to) {
            (None, _) => 0,
            (Some(from), Some(to)) if from == to => 1,
            (Some(_), Some(_)) => 2,
            (Some(_), None) => 3,
        };
        if let Some(count) = counts.get_mut(place) {
            *count += 1;
        }
    }
    counts
}
