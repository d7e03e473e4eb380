//! The mass-delete guard: a folder that was emptied by accident (an unmounted disk, `rm -rf`) must not empty the share.

/// Why nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Files that were synced and are gone.
    pub missing: usize,
    /// Files that were synced.
    pub tracked: usize,
}

/// Files that must be missing at least; smaller trees are never held.
pub const MISSING_MIN: usize = 100;

/// Holds when more than 90 % of the tracked files, and at least 100, are gone at once.
pub fn mass_delete(missing: usize, tracked: usize) -> Option<Held> {
    let most = missing.saturating_mul(10) > tracked.saturating_mul(9);
    (most && missing >= MISSING_MIN).then_some(Held { missing, tracked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_nine_tenths_and_at_least_a_hundred_are_held() {
        assert!(mass_delete(100, 100).is_some());
        assert!(mass_delete(99, 99).is_none());
        assert!(mass_delete(900, 1000).is_none());
        assert!(mass_delete(901, 1000).is_some());
        assert!(mass_delete(0, 0).is_none());
    }
}
