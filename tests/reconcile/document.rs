//! The document and the tests name the same rows.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Numbers of the rows: `| R-07 | …` in the document, `fn r07_…` in tests.
fn rows(text: &str, before: &str, after: char) -> Vec<u8> {
    let starts = text.lines().filter_map(|line| line.trim_start().strip_prefix(before));
    let numbers = starts.filter_map(|rest| rest.split_once(after)).filter(|(number, _)| number.len() == 2);
    numbers.filter_map(|(number, _)| number.parse().ok()).collect()
}

#[test]
fn every_row_of_the_document_has_a_test_and_every_test_a_row() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(top.join("docs/RECONCILE.md")).unwrap();
    let written = rows(&document, "| R-", ' ');
    let unique: BTreeSet<u8> = written.iter().copied().collect();
    assert_eq!(unique.len(), written.len(), "a row number is used twice");
    let mut tested = BTreeSet::new();
    for entry in fs::read_dir(top.join("tests/reconcile")).unwrap() {
        tested.extend(rows(&fs::read_to_string(entry.unwrap().path()).unwrap(), "fn r", '_'));
    }
    assert_eq!(unique, tested);
}
