//! Golden files: the one place that compares with them, and that rewrites them when asked to.

use std::path::Path;

/// Compares `found` with `tests/data/name`, or writes it there when `DROPBLOCK_REWRITE_GOLDEN` is set.
pub fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    if std::env::var_os("DROPBLOCK_REWRITE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (golden, found)) in golden.lines().zip(found.lines()).enumerate() {
        assert_eq!(golden, found, "{name}, line {}: a stored format has changed", number + 1);
    }
    assert_eq!(golden.lines().count(), found.lines().count(), "{name}: lines are missing");
}
