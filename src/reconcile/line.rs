//! Who waits for what while disk operations are ordered. A task that cannot be done yet says why, and its turn comes again
//! when that has changed: later in the same round when it stands behind the task that changed it, else in the next. That
//! is the order of rounds over all that is left, without the rounds.

use crate::model::{Name, NodeId, NodeState};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Something to be done with the structure of the tree.
#[derive(Debug, Clone, Copy)]
pub enum Task {
    /// A folder is made, or a node gets to its place.
    Arrive(NodeId),
    /// A folder goes.
    Remove(NodeId),
}

impl Task {
    /// The node it is about.
    pub const fn id(self) -> NodeId {
        match self {
            Self::Arrive(id) | Self::Remove(id) => id,
        }
    }
}

/// Why a task cannot be done yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cause {
    /// This folder is not there.
    Absent(NodeId),
    /// Something has this name in this folder.
    Taken(NodeId, Name),
    /// This folder holds something.
    Full(NodeId),
    /// How folders lie in each other.
    Folders,
}

/// The tasks that are left.
#[derive(Debug)]
pub struct Line {
    tasks: Vec<Task>,
    left: BTreeSet<usize>,
    to_arrive: HashSet<NodeId>,
    this_round: BTreeSet<usize>,
    next_round: BTreeSet<usize>,
    /// The task whose turn it was last.
    at: usize,
    waiting: HashMap<Cause, Vec<usize>>,
    /// How much the folders that shall go hold.
    held: HashMap<NodeId, usize>,
    /// Arrivals before this one wait for nothing that could be parked.
    first: usize,
}

impl Line {
    /// All tasks, in their order; `held` says how much is in a folder.
    pub fn new(tasks: Vec<Task>, held: impl Fn(NodeId) -> usize) -> Self {
        let left: BTreeSet<usize> = (0..tasks.len()).collect();
        let to_arrive = tasks.iter().filter(|task| matches!(task, Task::Arrive(_))).map(|task| task.id());
        let to_go = tasks.iter().filter(|task| matches!(task, Task::Remove(_)));
        Self {
            to_arrive: to_arrive.collect(),
            held: to_go.map(|task| (task.id(), held(task.id()))).collect(),
            this_round: left.clone(),
            left,
            next_round: BTreeSet::new(),
            at: 0,
            waiting: HashMap::new(),
            first: 0,
            tasks,
        }
    }

    /// The next task to try. `None`: all that are left wait.
    pub fn next(&mut self) -> Option<(usize, Task)> {
        if self.this_round.is_empty() {
            std::mem::swap(&mut self.this_round, &mut self.next_round);
        }
        self.at = self.this_round.pop_first()?;
        Some((self.at, *self.tasks.get(self.at)?))
    }

    /// Nothing moves any more, and something will be taken out of the way: what that frees comes in its order.
    pub const fn start_over(&mut self) {
        self.at = usize::MAX;
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// A task is done.
    pub fn done(&mut self, number: usize) {
        self.left.remove(&number);
        if let Some(Task::Arrive(id)) = self.tasks.get(number) {
            self.to_arrive.remove(id);
        }
    }

    /// A task cannot be done.
    pub fn wait(&mut self, number: usize, cause: Cause) {
        self.waiting.entry(cause).or_default().push(number);
    }

    /// A node is elsewhere, came or went.
    pub fn changed(&mut self, id: NodeId, was: Option<&NodeState>, is: Option<&NodeState>) {
        if let Some(is) = is
            && let Some(held) = self.held.get_mut(&is.parent)
        {
            *held += 1;
        }
        if let Some(was) = was {
            self.wake(&Cause::Taken(was.parent, was.name.clone()));
            if let Some(held) = self.held.get_mut(&was.parent) {
                *held = held.saturating_sub(1);
                if *held == 0 {
                    self.wake(&Cause::Full(was.parent));
                }
            }
        }
        if was.or(is).is_some_and(|state| state.kind.is_folder()) {
            self.wake(&Cause::Absent(id));
            self.wake(&Cause::Folders);
            self.first = 0;
        }
    }

    fn wake(&mut self, cause: &Cause) {
        for number in self.waiting.remove(cause).unwrap_or_default() {
            if number > self.at {
                self.this_round.insert(number);
            } else {
                self.next_round.insert(number);
            }
        }
    }

    /// True when a node has not arrived yet.
    pub fn is_to_arrive(&self, id: NodeId) -> bool {
        self.to_arrive.contains(&id)
    }

    /// The nodes that have not arrived, in their order.
    pub fn arrivals(&self) -> impl Iterator<Item = NodeId> {
        self.arrivals_from(0).map(|(_, id)| id)
    }

    fn arrivals_from(&self, first: usize) -> impl Iterator<Item = (usize, NodeId)> {
        self.left.range(first..).filter_map(|number| match self.tasks.get(*number)? {
            Task::Arrive(id) => Some((*number, *id)),
            Task::Remove(_) => None,
        })
    }

    /// The first answer that `find` has for a node that has not arrived. Nodes it had none for are not asked about again
    /// before a folder changes: of those that hold names there are only ever fewer.
    pub fn first_arrival(&mut self, find: impl Fn(&Self, NodeId) -> Option<NodeId>) -> Option<NodeId> {
        let found = self.arrivals_from(self.first).find_map(|(number, id)| Some((number, find(self, id)?)));
        self.first = found.map_or(self.tasks.len(), |(number, _)| number);
        found.map(|(_, out)| out)
    }
}
