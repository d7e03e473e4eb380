//! Names of conflict copies: `report (conflict from laptop 2026-11-22 19-30-05).txt`.

use crate::model::{Name, limits};

const MARK: &[u8] = b" (conflict from ";
/// Longer endings than this are part of the name, not a file type.
const EXTENSION_BYTES_MAX: usize = 17;

/// The name a copy of `original` gets. `when` is `DATE TIME`; `is_taken` answers whether a name is in use. A name that is
/// a conflict copy's already is not extended but renewed, so copies of copies do not grow. A name that would be longer
/// than 255 bytes is shortened before the mark, at a character.
pub fn conflict_name(original: &Name, device: &str, when: &str, is_taken: &dyn Fn(&Name) -> bool) -> Name {
    let (stem, extension) = split(original.as_bytes());
    let stem = without_mark(stem);
    let device: String =
        device.chars().map(|c| if c == '/' || c.is_control() || c == ')' { '_' } else { c }).collect();
    let mut count = 1u64;
    loop {
        let number = if count == 1 { String::new() } else { format!(" {count}") };
        let tail =
            [MARK, device.as_bytes(), b" ", when.as_bytes(), number.as_bytes(), b")", extension].concat();
        let room = limits::NAME_BYTES_MAX.saturating_sub(tail.len());
        let mut bytes = shorten(stem, room).to_vec();
        bytes.extend_from_slice(&tail);
        bytes.truncate(limits::NAME_BYTES_MAX);
        if let Ok(name) = Name::new(&bytes)
            && !is_taken(&name)
        {
            return name;
        }
        count += 1;
    }
}

/// The name that `copy` is a conflict copy of, if it has the form of one: stem without the mark, and ending.
pub(super) fn original_of(copy: &Name) -> Option<Vec<u8>> {
    let (stem, extension) = split(copy.as_bytes());
    let bare = without_mark(stem);
    (bare.len() < stem.len()).then(|| [bare, extension].concat())
}

/// Stem and ending (with its dot). A leading dot starts a hidden name, not an ending.
fn split(name: &[u8]) -> (&[u8], &[u8]) {
    let Some(dot) = name.iter().rposition(|b| *b == b'.').filter(|dot| *dot > 0) else { return (name, b"") };
    let (stem, extension) = name.split_at(dot);
    let is_type = extension.len() <= EXTENSION_BYTES_MAX && !extension.contains(&b')');
    if is_type { (stem, extension) } else { (name, b"") }
}

/// Cuts one ` (conflict from …)` off the end.
fn without_mark(stem: &[u8]) -> &[u8] {
    if stem.last() != Some(&b')') {
        return stem;
    }
    let at = stem.windows(MARK.len()).rposition(|window| window == MARK);
    match at {
        Some(at) if at > 0 => stem.split_at(at).0,
        _ => stem,
    }
}

/// At most `room` bytes, not ending inside a UTF-8 character.
fn shorten(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let mut cut = room;
    while cut > 0 && room - cut < 4 && stem.get(cut).is_some_and(|b| b & 0xc0 == 0x80) {
        cut -= 1;
    }
    stem.split_at(cut).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(name: &[u8], taken: &[&str]) -> String {
        let name = Name::new(name).unwrap();
        let is_taken = |n: &Name| taken.iter().any(|t| t.as_bytes() == n.as_bytes());
        conflict_name(&name, "pc", "2026-11-22 19-30-05", &is_taken).to_string()
    }

    #[test]
    fn the_mark_stands_before_the_ending() {
        assert_eq!(copy(b"a.txt", &[]), "a (conflict from pc 2026-11-22 19-30-05).txt");
        assert_eq!(copy(b"Makefile", &[]), "Makefile (conflict from pc 2026-11-22 19-30-05)");
        assert_eq!(copy(b".bashrc", &[]), ".bashrc (conflict from pc 2026-11-22 19-30-05)");
        assert_eq!(
            copy(b"x. a very long sentence", &[]),
            "x. a very long sentence (conflict from pc 2026-11-22 19-30-05)"
        );
    }

    #[test]
    fn copies_of_copies_do_not_grow() {
        let first = copy(b"a.txt", &[]);
        assert_eq!(copy(first.as_bytes(), &[&first]), "a (conflict from pc 2026-11-22 19-30-05 2).txt");
        assert_eq!(original_of(&Name::new(first.as_bytes()).unwrap()).unwrap(), b"a.txt");
        assert_eq!(original_of(&Name::new(b"a (b).txt").unwrap()), None);
    }

    #[test]
    fn a_name_of_255_bytes_is_shortened_at_a_character() {
        let copied = copy(&[b'x'; 255], &[]);
        assert_eq!(copied.len(), 255);
        assert!(copied.ends_with("(conflict from pc 2026-11-22 19-30-05)"));
        let umlauts = "ö".repeat(127);
        let copied = copy(umlauts.as_bytes(), &[]);
        assert!(copied.len() <= 255 && !copied.contains("\\x"), "{copied}");
    }

    #[test]
    fn a_hostile_device_name_stays_one_component() {
        let name = conflict_name(&Name::new(b"a").unwrap(), "../x)\n", "t", &|_| false);
        assert_eq!(name.as_bytes(), b"a (conflict from .._x__ t)");
    }
}
