//! History: which replaced versions stay restorable, and for how long.
//!
//! A version is restorable while it was the current one at any instant of the keep time: one that was replaced five
//! minutes ago is, however old it is. Everything follows from one number, the [`floor`]: the commit that was the last
//! one when the keep time began. A version is kept when it still stands or was replaced *after* the floor.
//!
//! Times are those of the server's clock at each commit. A clock that falls back must not make a version look older than
//! it is, so what counts is the latest time up to a commit: it never goes back, and errs towards keeping.

use super::error::{At, StorageError};
use super::sled::{CommitInfo, Index};
use super::timeline::Timeline;
use super::{BoxFuture, Result, ShareId, file};
use crate::model::past::{Found, Look, Moment, Seen, Versions};
use crate::model::{BlockHash, FileContent, Name, Node, NodeId, Seq};
use std::path::Path;

/// Keep time when nobody said another: 30 days, ms.
pub const KEEP_MS_DEFAULT: u64 = 30 * 86_400_000;
/// Holds the keep time of a store, beside `store.toml`.
const KEEP_FILE: &str = "keep";

/// Tells the past of shares. Commits are never lost from it: contents are, when they are no longer kept.
pub trait History: Send + Sync {
    /// Where a moment lies.
    fn moment(&self, share: ShareId, at: Moment) -> BoxFuture<'_, Result<Found>>;

    /// At most `max` versions of everything that ever stood at `path` or below it, before one, latest first. A node that
    /// stands there now is followed through all its names; one that left, until it did. Empty to the end for a path
    /// that never was.
    fn versions(
        &self,
        share: ShareId,
        path: Vec<Name>,
        before: Option<(Seq, NodeId)>,
        max: usize,
    ) -> BoxFuture<'_, Result<Versions>>;

    /// Looks at the share as it was after commit `at` (the head, for one that is not there yet); at most about `max` nodes.
    fn look(&self, share: ShareId, at: Seq, look: Look, max: usize) -> BoxFuture<'_, Result<Seen>>;
}

/// The keep time of the store in `home`, ms. What `serve --keep` said last, or the default.
///
/// # Errors
/// A file that does not say it: nothing may be collected then.
pub fn read_keep(home: &Path) -> Result<u64> {
    let path = home.join(KEEP_FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(KEEP_MS_DEFAULT),
        other => other.at("read", &path)?,
    };
    let value = |wanted: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == wanted).then(|| value.trim().strip_prefix('"')?.strip_suffix('"'))?
        })
    };
    let keep_ms: Option<u64> = value("keep_ms").and_then(|value| value.parse().ok());
    // A digit that is another one would throw away what is to be kept. Older files have no sum.
    let is_said = |keep_ms: &u64| value("sum").is_none_or(|sum| sum == keep_sum(*keep_ms));
    keep_ms.filter(is_said).ok_or(StorageError::Damaged { path, offset: 0 })
}

fn keep_sum(keep_ms: u64) -> String {
    BlockHash::of(keep_ms.to_string().as_bytes()).to_hex().chars().take(16).collect()
}

/// Remembers another keep time, durably.
pub fn write_keep(home: &Path, keep_ms: u64) -> Result<()> {
    let text = format!(
        "# How long replaced versions stay restorable; set by `dropblock serve --keep`.\nkeep_ms = \"{keep_ms}\"\nsum = \"{}\"\n",
        keep_sum(keep_ms)
    );
    file::write_whole(home, KEEP_FILE, text.as_bytes()).at("write", &home.join(KEEP_FILE))
}

/// The last commit that was there when the keep time began: the share as it was after this commit, and after every later
/// one, can be restored. With a keep time of 0 that is the head.
pub fn floor(index: &Index, share: ShareId, now_ms: u64, keep_ms: u64) -> Result<Seq> {
    let head = index.last_commit(share)?;
    floor_by(head, now_ms, keep_ms, |seq| index.commit(share, seq))
}

/// [`floor`] over any place that knows the commits up to `head`.
pub(super) fn floor_by(
    head: Seq,
    now_ms: u64,
    keep_ms: u64,
    commit: impl Fn(Seq) -> Result<Option<CommitInfo>>,
) -> Result<Seq> {
    match now_ms.checked_sub(keep_ms) {
        _ if keep_ms == 0 => Ok(head),
        Some(begin_ms) => last_until(head, begin_ms, commit),
        // Before the clock's own beginning nothing happened.
        None => Ok(Seq::ZERO),
    }
}

/// Answers [`History::moment`].
pub(super) fn find(line: &impl Timeline, head: Seq, now_ms: u64, keep_ms: u64, at: Moment) -> Result<Found> {
    let commit = |seq| line.commit(seq);
    let seq = match at {
        Moment::Now => head,
        Moment::Commit(seq) => seq.min(head),
        Moment::Time(time_ms) => last_until(head, time_ms, commit)?,
        Moment::Age(age_ms) => match now_ms.checked_sub(age_ms) {
            Some(time_ms) => last_until(head, time_ms, commit)?,
            None => Seq::ZERO,
        },
    };
    let time_ms = line.commit(seq)?.map_or(0, |commit| commit.time_ms);
    Ok(Found { head, seq, time_ms, floor: floor_by(head, now_ms, keep_ms, commit)? })
}

/// The last commit of those up to `head` that was there at a time; 0 when none was.
fn last_until(head: Seq, time_ms: u64, commit: impl Fn(Seq) -> Result<Option<CommitInfo>>) -> Result<Seq> {
    // Everything up to `low` is in time, nothing from `high` on.
    let (mut low, mut high) = (0, head.0.saturating_add(1));
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let found = commit(Seq(middle))?.ok_or_else(|| {
            StorageError::Index(std::io::Error::new(std::io::ErrorKind::NotFound, "a commit is missing"))
        })?;
        if found.time_max_ms <= time_ms { low = middle } else { high = middle }
    }
    Ok(Seq(low))
}

/// The contents of every version of a share that is still restorable, those that stand included. A content comes once per
/// version that has it. What is not among them, over all shares, may be collected.
///
/// May run while commits go on: a version that is replaced meanwhile is in the past before it leaves what stands, and
/// what stands is read first.
///
/// # Errors
/// Any error means that contents may be missing from what came before it.
pub fn retained(
    index: &Index,
    share: ShareId,
    now_ms: u64,
    keep_ms: u64,
) -> Result<impl Iterator<Item = Result<FileContent>> + use<>> {
    let floor = floor(index, share, now_ms, keep_ms)?;
    let past = index.all_replaced(share).filter_map(move |replaced| match replaced {
        Ok(replaced) => (replaced.by > floor).then_some(Ok(replaced.node)),
        Err(error) => Some(Err(error)),
    });
    let contents = |node: Result<Node>| match node {
        Ok(node) => node.state.and_then(|state| state.kind.content().cloned()).map(Ok),
        Err(error) => Some(Err(error)),
    };
    Ok(index.standing(share).chain(past).filter_map(contents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BlockHash, ChainHash, Kind, Name, NodeId, NodeState, Root};
    use crate::storage::sled::Applied;
    use std::time::Duration;

    const SHARE: ShareId = ShareId::from_bytes([1; 16]);
    const DAY: u64 = 86_400_000;

    fn content(text: &str) -> FileContent {
        let root = Root { params: 1, level: 0, hash: BlockHash::of(text.as_bytes()) };
        FileContent { size: text.len() as u64, root }
    }

    fn node(n: u8, version: u64, text: Option<&str>) -> Node {
        let state = text.map(|text| NodeState {
            parent: NodeId::ROOT,
            name: Name::new(&[b'a' + n]).unwrap(),
            kind: Kind::File { content: content(text), mtime_ns: 0, exec: false },
        });
        Node { id: NodeId::from_bytes([n; 16]), version: Seq(version), state }
    }

    fn index(commits: &[(u64, Node)]) -> (tempfile::TempDir, Index) {
        let folder = tempfile::tempdir().unwrap();
        let (index, _) = Index::open(folder.path(), Duration::from_secs(30)).unwrap();
        for (seq, (time_ms, node)) in (1..).zip(commits) {
            let chain = ChainHash::default();
            let nodes = std::slice::from_ref(node);
            let commit = Applied { seq: Seq(seq), time_ms: *time_ms, device: "d", chain, offset: 0, nodes };
            index.apply(SHARE, &commit).unwrap();
        }
        (folder, index)
    }

    fn kept(index: &Index, now_ms: u64, keep_ms: u64) -> Vec<u64> {
        let found = retained(index, SHARE, now_ms, keep_ms).unwrap();
        let mut sizes: Vec<u64> = found.map(|content| content.unwrap().size).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn a_version_is_kept_while_it_was_current_within_the_keep_time() {
        // Sizes tell them apart: 1 until day 10, 2 until day 60, 3 still; and 4 deleted on day 20.
        let (_folder, index) = index(&[
            (0, node(1, 1, Some("1"))),
            (5 * DAY, node(2, 2, Some("4444"))),
            (10 * DAY, node(1, 3, Some("22"))),
            (20 * DAY, node(2, 4, None)),
            (60 * DAY, node(1, 5, Some("333"))),
        ]);
        let now = 60 * DAY + 300_000;
        assert_eq!(kept(&index, now, 30 * DAY), [2, 3], "22 was current until five minutes ago");
        assert_eq!(kept(&index, now, 0), [3]);
        assert_eq!(kept(&index, now, 41 * DAY), [2, 3, 4]);
        assert_eq!(kept(&index, now, 1000 * DAY), [1, 2, 3, 4]);
        assert_eq!(kept(&index, 90 * DAY + 1, 30 * DAY), [3]);
        assert_eq!(kept(&index, 90 * DAY - 1, 30 * DAY), [2, 3]);
        assert!(retained(&index, ShareId::from_bytes([2; 16]), now, 0).unwrap().next().is_none());
    }

    #[test]
    fn a_clock_that_falls_back_drops_nothing_early() {
        let (_folder, index) = index(&[
            (100 * DAY, node(1, 1, Some("1"))),
            (100 * DAY, node(1, 2, Some("22"))),
            // The machine woke up in 1970.
            (5, node(1, 3, Some("333"))),
            (100 * DAY + 1, node(1, 4, Some("4444"))),
        ]);
        assert_eq!(kept(&index, 110 * DAY, 30 * DAY), [1, 2, 3, 4]);
    }

    #[test]
    fn the_keep_time_is_remembered_and_a_file_that_does_not_say_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_keep(folder.path()).unwrap(), KEEP_MS_DEFAULT);
        write_keep(folder.path(), 0).unwrap();
        assert_eq!(read_keep(folder.path()).unwrap(), 0);
        write_keep(folder.path(), 8_000_000).unwrap();
        let bytes = std::fs::read(folder.path().join(KEEP_FILE)).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(folder.path().join(KEEP_FILE), bent).unwrap();
            assert!(matches!(read_keep(folder.path()), Ok(8_000_000) | Err(_)), "bit {bit}");
        }
        for text in ["", "keep_ms = \"-1\"\n", "keep_ms = 5\n"] {
            std::fs::write(folder.path().join(KEEP_FILE), text).unwrap();
            assert!(matches!(read_keep(folder.path()), Err(StorageError::Damaged { .. })), "{text:?}");
        }
    }
}
