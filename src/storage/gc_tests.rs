//! The plan by example, and a model of everything that can happen around a collection, in any order: no block that a
//! version names, and none that a session was told about, is ever gone.

use super::gc::{Condemned, Due, GcOptions, Plan, Survey, plan, record_bytes};
use super::lease::Leases;
use super::mark::{Marked, Unreadable};
use super::pack_file::{FILE_HEADER, Location, Place};
use crate::model::{BlockHash, FileContent, Root, SessionId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const KEEP_MS: u64 = 50;

fn block(n: u8) -> BlockHash {
    BlockHash::from_bytes([n; 32])
}

fn at(pack: u32, slot: u32) -> Location {
    Location { place: Place { pack, offset: FILE_HEADER + slot * 1064 }, payload_len: 1000, plain_len: 1000 }
}

fn mark(marked: &mut Marked, blocks: impl IntoIterator<Item = u8>) {
    for n in blocks {
        let content = FileContent { size: 1, root: Root { params: 1, level: 0, hash: block(n) } };
        marked.add::<Unreadable>(&content, &mut |_| Ok(None)).unwrap();
    }
}

fn options(grace_ms: u64, sparse_percent: u8) -> GcOptions {
    GcOptions { grace_ms, sparse_percent, dry_run: false, gentle: false }
}

#[test]
fn only_ripe_garbage_of_sparse_packs_goes_and_drops_come_first() {
    // Pack 1: half ripe. 2: all ripe. 3: one of ten ripe. 4: garbage seen for the first time. 5: open.
    let mut blocks = vec![(block(10), at(1, 0)), (block(11), at(1, 1)), (block(20), at(2, 0))];
    blocks.extend((0..10).map(|n| (block(30 + n), at(3, u32::from(n)))));
    blocks.extend([(block(40), at(4, 0)), (block(50), at(5, 0))]);
    let mut marked = Marked::default();
    mark(&mut marked, [10].into_iter().chain(31..40));
    let condemned: Condemned = [11, 20, 30, 50].map(|n| (block(n), 0)).into();
    let packs: BTreeMap<u32, u64> = [(1, 2), (2, 1), (3, 10), (4, 1), (5, 1)]
        .map(|(n, count)| (n, u64::from(FILE_HEADER) + count * 1064))
        .into();
    let leased = Default::default();
    let survey = Survey {
        marked: &marked,
        leased: Some(&leased),
        condemned: &condemned,
        packs: &packs,
        open: 5,
        now_ms: 100,
        condemns: true,
    };
    let made = plan(&survey, blocks, &options(100, 25));
    let numbers: Vec<u32> = made.packs.iter().map(|pack| pack.number).collect();
    assert_eq!(numbers, [2, 1]);
    assert_eq!(made.goes.iter().collect::<BTreeSet<_>>(), [block(11), block(20)].iter().collect());
    assert_eq!((made.sums.dropped_packs, made.sums.rewritten_packs, made.sums.moved_bytes), (1, 1, 1064));
    assert_eq!((made.sums.garbage_blocks, made.sums.new_blocks, made.sums.waiting_blocks), (5, 1, 1));
    assert_eq!(made.sums.next_ripe_ms, 200);
    assert_eq!(made.condemned.len(), 5);
}

#[test]
fn to_finish_is_to_delete_what_was_condemned_and_to_condemn_nothing() {
    let marked = Marked::default();
    let condemned = [(block(1), 50), (block(2), 60)].into_iter().collect();
    let packs = BTreeMap::from([(1, u64::from(FILE_HEADER) + 2128), (2, u64::from(FILE_HEADER) + 1064)]);
    let leased = Default::default();
    let survey = Survey {
        marked: &marked,
        leased: Some(&leased),
        condemned: &condemned,
        packs: &packs,
        open: 3,
        now_ms: 155,
        condemns: false,
    };
    let blocks = [(block(1), at(1, 0)), (block(2), at(1, 1)), (block(3), at(2, 0))];
    let plan = plan(&survey, blocks, &options(100, 25));
    assert_eq!(plan.goes, [block(1)]);
    assert_eq!(plan.condemned.len(), 2, "the third was never seen before, and still was not");
    let due = Due::of(&plan.condemned, &options(100, 25)).unwrap();
    assert_eq!((due.at_ms, due.options.grace_ms), (160, 100), "when all of them are ripe");
    assert_eq!(Due::of(&Condemned::default(), &options(100, 25)), None);
}

#[test]
fn records_that_nothing_points_at_make_a_pack_sparse() {
    let mut marked = Marked::default();
    mark(&mut marked, [1]);
    let packs = BTreeMap::from([(1, 10_000)]);
    let (leased, condemned) = Default::default();
    let survey = Survey {
        marked: &marked,
        leased: Some(&leased),
        condemned: &condemned,
        packs: &packs,
        open: 2,
        now_ms: 1,
        condemns: true,
    };
    let made = plan(&survey, [(block(1), at(1, 0))], &options(0, 50));
    assert_eq!(made.packs.len(), 1);
    assert_eq!(made.sums.garbage_bytes, 10_000 - u64::from(FILE_HEADER) - record_bytes(&at(1, 0)));
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_ripe() {
    let packs = BTreeMap::from([(1, 2000)]);
    let (leased, marked) = Default::default();
    let condemned: Condemned = [(block(1), 5000)].into();
    let survey = Survey {
        marked: &marked,
        leased: Some(&leased),
        condemned: &condemned,
        packs: &packs,
        open: 2,
        now_ms: 10,
        condemns: true,
    };
    let made = plan(&survey, [(block(1), at(1, 0))], &options(100, 1));
    assert!(made.goes.is_empty());
    assert_eq!(made.condemned.get(&block(1)), Some(&10));
}

#[derive(Debug, Clone)]
enum Event {
    Ask(u8, Vec<u8>),
    Put(u8, Vec<u8>),
    Commit(u8, u8, Vec<u8>),
    Delete(u8),
    End(u8),
    Tick(u8),
    Crash,
    GcStart(u8, u8),
    GcDoom,
    GcLearn,
    GcForget(u8),
    GcEnd,
}

#[derive(Debug, Default)]
struct Run {
    plan: Plan,
    marked: Marked,
    /// Commits since the mark.
    tail: Vec<Vec<u8>>,
    doomed: bool,
    learned: bool,
    done: usize,
}

#[derive(Debug)]
struct Model {
    index: BTreeMap<u8, Location>,
    packs: BTreeMap<u32, u64>,
    open: u32,
    current: BTreeMap<u8, Vec<u8>>,
    replaced: Vec<(u64, Vec<u8>)>,
    leases: Leases,
    promised: BTreeMap<u8, BTreeSet<u8>>,
    /// How many sessions of each client ended: an id is never used twice.
    ended: BTreeMap<u8, u8>,
    condemned: Condemned,
    now_ms: u64,
    run: Option<Run>,
    deleted: usize,
}

impl Model {
    fn new() -> Self {
        Self {
            index: BTreeMap::new(),
            packs: BTreeMap::from([(1, u64::from(FILE_HEADER))]),
            open: 1,
            current: BTreeMap::new(),
            replaced: Vec::new(),
            leases: Leases::default(),
            promised: BTreeMap::new(),
            ended: BTreeMap::new(),
            condemned: Condemned::default(),
            now_ms: 1000,
            run: None,
            deleted: 0,
        }
    }

    fn session(&self, n: u8) -> SessionId {
        let mut id = [n; 16];
        id[0] = self.ended.get(&n).copied().unwrap_or(0);
        SessionId::from_bytes(id)
    }

    fn needed(&self) -> BTreeSet<u8> {
        let kept = self.replaced.iter().filter(|(when, _)| *when > self.now_ms - KEEP_MS);
        self.current.values().chain(kept.map(|(_, blocks)| blocks)).flatten().copied().collect()
    }

    fn store(&mut self, n: u8) {
        self.leases.save(&block(n));
        if self.index.contains_key(&n) {
            return;
        }
        let len = self.packs.entry(self.open).or_insert(u64::from(FILE_HEADER));
        let slot = (*len - u64::from(FILE_HEADER)) / 1064;
        self.index.insert(n, at(self.open, u32::try_from(slot).unwrap()));
        *len += 1064;
        if slot >= 2 {
            self.open += 1;
        }
    }

    fn replace(&mut self, node: u8, new: Option<Vec<u8>>) {
        let old = match new {
            Some(new) => self.current.insert(node, new),
            None => self.current.remove(&node),
        };
        self.replaced.extend(old.map(|old| (self.now_ms, old)));
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Ask(who, blocks) => {
                let hashes: Vec<BlockHash> = blocks.iter().map(|n| block(*n)).collect();
                self.leases.take(self.session(who), &hashes, self.now_ms);
                let held = blocks.into_iter().filter(|n| self.index.contains_key(n));
                let held: Vec<u8> = held.collect();
                self.promised.entry(who).or_default().extend(held);
            }
            Event::Put(who, blocks) => {
                let hashes: Vec<BlockHash> = blocks.iter().map(|n| block(*n)).collect();
                self.leases.take(self.session(who), &hashes, self.now_ms);
                blocks.iter().for_each(|n| self.store(*n));
                self.promised.entry(who).or_default().extend(blocks);
            }
            Event::Commit(who, node, blocks) => {
                let session = self.session(who);
                let old = self.current.get(&node).cloned().unwrap_or_default();
                // What the version before has is not looked at.
                let looked: Vec<u8> = blocks.iter().filter(|n| !old.contains(n)).copied().collect();
                let named: Vec<BlockHash> = looked
                    .iter()
                    .map(|n| block(*n))
                    .filter(|hash| self.leases.named(session, hash))
                    .collect();
                if looked.iter().all(|n| self.index.contains_key(n)) {
                    self.leases.settle(session, &named);
                    if let Some(promised) = self.promised.get_mut(&who) {
                        promised.retain(|n| !looked.contains(n));
                    }
                    if let Some(run) = self.run.as_mut().filter(|run| !run.doomed) {
                        run.tail.push(blocks.clone());
                    }
                    self.replace(node, Some(blocks));
                }
            }
            Event::Delete(node) => self.replace(node, None),
            Event::End(who) => {
                self.leases.end(self.session(who), self.now_ms);
                self.promised.remove(&who);
                *self.ended.entry(who).or_default() += 1;
            }
            Event::Tick(ms) => self.now_ms += u64::from(ms),
            Event::Crash => {
                self.leases = Leases::default();
                self.promised.clear();
                self.run = None;
            }
            Event::GcStart(grace, sparse) => self.start(u64::from(grace), sparse.clamp(1, 100)),
            Event::GcDoom => {
                if let Some(run) = self.run.as_mut().filter(|run| !run.doomed) {
                    run.doomed = true;
                    self.leases.doom(run.plan.goes.iter().copied());
                }
            }
            Event::GcLearn => {
                if let Some(run) = self.run.as_mut().filter(|run| run.doomed) {
                    mark(&mut run.marked, std::mem::take(&mut run.tail).into_iter().flatten());
                    self.leases.save_marked(&run.marked);
                    run.learned = true;
                }
            }
            Event::GcForget(count) => {
                if let Some(run) = self.run.as_mut().filter(|run| run.learned) {
                    let batch: Vec<BlockHash> =
                        run.plan.goes.iter().skip(run.done).take(usize::from(count)).copied().collect();
                    run.done += batch.len();
                    for hash in self.leases.forget(&batch) {
                        self.index.remove(&hash.as_bytes()[0]);
                        self.condemned.remove(&hash);
                        self.deleted += 1;
                    }
                }
            }
            Event::GcEnd => {
                self.leases.absolve();
                self.run = None;
            }
        }
    }

    fn start(&mut self, grace_ms: u64, sparse: u8) {
        if self.run.is_some() {
            return;
        }
        self.leases.prune(self.now_ms, grace_ms);
        let mut marked = Marked::default();
        mark(&mut marked, self.needed());
        let leased = self.leases.all();
        let survey = Survey {
            marked: &marked,
            leased: leased.as_ref(),
            condemned: &self.condemned,
            packs: &self.packs,
            open: self.open,
            now_ms: self.now_ms,
            condemns: true,
        };
        let blocks = self.index.iter().map(|(n, location)| (block(*n), *location));
        let plan = plan(&survey, blocks, &options(grace_ms, sparse));
        self.condemned.clone_from(&plan.condemned);
        self.run = Some(Run { plan, marked, ..Run::default() });
    }

    fn check(&self) {
        for n in self.needed() {
            assert!(self.index.contains_key(&n), "block {n} is needed by a version");
        }
        for (who, blocks) in &self.promised {
            for n in blocks {
                assert!(self.index.contains_key(n), "block {n} was promised to session {who}");
            }
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let blocks = || prop::collection::vec(0u8..14, 1..4);
    prop_oneof![
        3 => (0u8..3, blocks()).prop_map(|(who, blocks)| Event::Ask(who, blocks)),
        4 => (0u8..3, blocks()).prop_map(|(who, blocks)| Event::Put(who, blocks)),
        5 => (0u8..3, 0u8..4, blocks()).prop_map(|(who, node, blocks)| Event::Commit(who, node, blocks)),
        2 => (0u8..4).prop_map(Event::Delete),
        1 => (0u8..3).prop_map(Event::End),
        2 => (0u8..60).prop_map(Event::Tick),
        1 => Just(Event::Crash),
        3 => (prop_oneof![Just(0u8), 0u8..60], any::<u8>()).prop_map(|(grace, sparse)| Event::GcStart(grace, sparse)),
        3 => Just(Event::GcDoom),
        3 => Just(Event::GcLearn),
        5 => (1u8..5).prop_map(Event::GcForget),
        1 => Just(Event::GcEnd),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_needed_or_promised_is_ever_deleted(events in prop::collection::vec(event(), 1..120)) {
        let mut model = Model::new();
        for event in events {
            model.step(event);
            model.check();
        }
    }
}

#[test]
fn the_model_does_delete() {
    let mut model = Model::new();
    let script = [
        Event::Put(0, vec![1, 2, 3]),
        Event::Commit(0, 1, vec![1, 2, 3]),
        Event::Delete(1),
        Event::End(0),
        Event::Put(1, vec![4, 5, 6]),
        Event::Tick(51),
        Event::GcStart(0, 1),
        Event::GcDoom,
        Event::GcLearn,
        Event::GcForget(9),
    ];
    for event in script {
        model.step(event);
        model.check();
    }
    assert_eq!(model.deleted, 3);
}
