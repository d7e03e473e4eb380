//! The rules of the source tree that no compiler checks: layers, owners of outside crates, file lengths, nothing
//! unfinished, nothing forgotten.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file of the source, lines. Past it a file is more than one thing.
const FILE_LINES_MAX: usize = 500;

/// Each room and the rooms it may import.
const ROOMS: [(&str, &[&str]); 13] = [
    ("model", &[]),
    ("auth", &["model"]),
    ("chunk", &["model"]),
    ("block", &["model"]),
    ("manifest", &["model", "chunk", "block"]),
    ("tree", &["model", "chunk", "block", "manifest"]),
    ("reconcile", &["model", "chunk", "block", "manifest", "tree"]),
    ("wire", &["model", "auth", "chunk", "block", "manifest", "tree", "reconcile"]),
    ("storage", PURE),
    ("folder", PURE),
    ("server", &["model", "auth", "chunk", "block", "manifest", "tree", "reconcile", "wire", "storage"]),
    ("client", &["model", "auth", "chunk", "block", "manifest", "tree", "reconcile", "wire", "folder"]),
    (
        "cli",
        &[
            "model",
            "auth",
            "chunk",
            "block",
            "manifest",
            "tree",
            "reconcile",
            "wire",
            "storage",
            "folder",
            "server",
            "client",
        ],
    ),
];
const PURE: &[&str] = &["model", "chunk", "block", "manifest", "tree", "reconcile"];

/// Each outside crate that has one owner, and where it may be named: a file, or a folder that ends in `/`.
const OWNERS: [(&str, &[&str]); 13] = [
    ("landlock", &["src/cli/wall.rs"]),
    ("ring", &["src/auth/keys.rs"]),
    ("rustls", &["src/wire/tls.rs"]),
    ("tokio_rustls", &["src/wire/tls.rs"]),
    ("blake3", &["src/model/hash.rs"]),
    ("bincode", &["src/model/codec.rs"]),
    ("fastcdc", &["src/chunk/chunker.rs"]),
    ("zstd", &["src/block/seal.rs"]),
    ("sled", &["src/storage/sled.rs", "src/storage/sled/"]),
    ("notify", &["src/folder/watch.rs"]),
    ("indicatif", &["src/cli/progress.rs"]),
    ("jiff", &["src/cli/"]),
    ("clap", &["src/cli/", "src/main.rs"]),
];

/// The top of the repository.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `dir` (relative to the top) with one of these extensions, in order.
fn files(dir: &str, extensions: &[&str]) -> Vec<PathBuf> {
    fn walk(dir: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, extensions, found);
            } else if extensions.is_empty()
                || path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e))
            {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&top().join(dir), extensions, &mut found);
    found.sort();
    found
}

/// A path as the tables above name it.
fn short(path: &Path) -> String {
    path.strip_prefix(top()).unwrap().to_string_lossy().into_owned()
}

/// The lines that are code: without comments, and without the module of tests that ends a file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end]
        .lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.split("//").next().unwrap_or("")))
        .filter(|(_, line)| !line.trim().is_empty())
}

/// The source of the program itself, without files that hold only tests.
fn sources() -> Vec<PathBuf> {
    let mut found = files("src", &["rs"]);
    found.retain(|path| !path.ends_with("tests.rs") && !path.iter().any(|part| part == "tests"));
    found
}

/// The words that directly follow `prefix` in a line, also inside `{a::…, b::…}`.
fn named_after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let word = |text: &'a str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        &text[..end]
    };
    let mut names = Vec::new();
    for (at, _) in line.match_indices(prefix) {
        let rest = &line[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => names.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        ' ' => {}
                        _ if start => {
                            names.push(word(&list[i..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

#[test]
fn a_room_imports_only_rooms_of_a_lower_layer() {
    let rooms: BTreeMap<&str, &[&str]> = ROOMS.into_iter().collect();
    let mut wrong = Vec::new();
    for path in sources() {
        let name = short(&path);
        let Some((room, _)) = name.strip_prefix("src/").unwrap().split_once('/') else { continue };
        let Some(allowed) = rooms.get(room) else {
            wrong.push(format!("{name}: the room {room} has no layer in tests/tidy.rs"));
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        for (line, code) in code(&text) {
            for used in named_after(code, "crate::").into_iter().filter(|used| rooms.contains_key(used)) {
                if used != room && !allowed.contains(&used) {
                    wrong.push(format!("{name}:{line}: {room} imports {used}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_outside_crate_is_named_only_by_its_owner() {
    let mut wrong = Vec::new();
    for path in sources() {
        let name = short(&path);
        let text = fs::read_to_string(&path).unwrap();
        for (line, code) in code(&text) {
            for (krate, owners) in OWNERS {
                let allowed = owners.iter().any(|o| name == *o || (o.ends_with('/') && name.starts_with(o)));
                if !allowed && names_crate(code, krate) {
                    wrong.push(format!("{name}:{line}: only {owners:?} may name {krate}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// True when a line uses `krate::…` or `use krate;`, as the crate and not as a module of ours.
fn names_crate(code: &str, krate: &str) -> bool {
    let path = format!("{krate}::");
    let as_path = code.match_indices(&path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let inside = code[..at].ends_with("::") && !code[..at].ends_with(" ::");
        !inside && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    });
    as_path && !code.contains(&format!("self::{krate}")) || code.trim() == format!("use {krate};")
}

#[test]
fn no_file_of_the_source_is_longer_than_a_person_can_hold() {
    let mut wrong = Vec::new();
    for path in files("src", &["rs"]) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines", short(&path)));
        }
    }
    assert!(wrong.is_empty(), "longer than {FILE_LINES_MAX} lines:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_first_what_it_is() {
    let mut wrong = Vec::new();
    for path in ["src", "tests", "benches"].iter().flat_map(|dir| files(dir, &["rs"])) {
        let text = fs::read_to_string(&path).unwrap();
        if !text.starts_with("//! ") {
            wrong.push(short(&path));
        }
        if text.starts_with("//! Placeholder") || text.starts_with("//! placeholder") {
            eprintln!("still a placeholder: {}", short(&path));
        }
    }
    assert!(wrong.is_empty(), "no module doc: {wrong:?}");
}

#[test]
fn nothing_is_left_unfinished() {
    // In parts, so that this file does not find itself.
    let marks: Vec<String> =
        [("to", "do!("), ("unimple", "mented!("), ("FIX", "ME"), ("XX", "X:"), ("TO", "DO")]
            .map(|(a, b)| format!("{a}{b}"))
            .into();
    let mut wrong = Vec::new();
    for path in ["src", "tests", "benches", "fuzz"].iter().flat_map(|dir| files(dir, &["rs"])) {
        let text = fs::read_to_string(&path).unwrap();
        for (line, content) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| content.contains(mark.as_str())) {
                wrong.push(format!("{}:{}: {mark}", short(&path), line + 1));
            }
            if content.trim() == "#[ignore]" {
                wrong.push(format!("{}:{}: a test switched off without a reason", short(&path), line + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_frozen_sample_is_named_by_a_test() {
    let mut tests = String::new();
    for path in ["src", "tests"].iter().flat_map(|dir| files(dir, &["rs"])) {
        tests.push_str(&fs::read_to_string(path).unwrap());
    }
    let forgotten: Vec<String> = files("tests/data", &[])
        .iter()
        .filter(|path| !path.ends_with("README.md"))
        // A sample may be a whole folder; then the folder is what is named.
        .filter(|path| {
            !path
                .strip_prefix(top().join("tests/data"))
                .unwrap()
                .iter()
                .any(|part| tests.contains(&*part.to_string_lossy()))
        })
        .map(|path| short(path))
        .collect();
    assert!(forgotten.is_empty(), "no test names {forgotten:?}");
}

#[test]
fn every_test_file_belongs_to_a_test_program() {
    let mut forgotten = Vec::new();
    for path in files("tests", &["rs"]) {
        let name = short(&path);
        let parts: Vec<&str> = name.split('/').collect();
        // `tests/x.rs` is a program; `tests/x/y.rs` is named by `tests/x.rs`, or by the `mod.rs` beside it.
        let [_, folder, rest @ ..] = parts.as_slice() else { continue };
        if rest.is_empty() || rest == ["mod.rs"] {
            continue;
        }
        let parents = [
            format!("tests/{folder}.rs"),
            format!("tests/{folder}/mod.rs"),
            format!("tests/{folder}/main.rs"),
        ];
        let stem = path.file_stem().unwrap().to_string_lossy();
        let named = parents
            .iter()
            .filter_map(|p| fs::read_to_string(top().join(p)).ok())
            .any(|text| text.contains(&format!("mod {stem};")));
        if !named && stem != "main" && stem != "mod" {
            forgotten.push(name);
        }
    }
    assert!(forgotten.is_empty(), "no test program runs {forgotten:?}");
}

#[test]
fn every_dependency_has_a_line_that_says_why() {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).unwrap();
    let record = fs::read_to_string(top().join("docs/adr/0001-dependencies.md")).unwrap();
    let mut in_dependencies = false;
    let mut crates = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && let Some((name, _)) = line.split_once('=') {
            crates.insert(name.trim());
        }
    }
    assert!(crates.len() > 10, "no dependencies found in Cargo.toml");
    let missing: Vec<_> = crates.iter().filter(|name| !record.contains(&format!("| `{name}`"))).collect();
    assert!(missing.is_empty(), "docs/adr/0001-dependencies.md says nothing of {missing:?}");
}

#[test]
fn the_gate_runs_the_test_command_of_the_readme() {
    let gate = fs::read_to_string(top().join(".ci/run")).unwrap();
    let Ok(readme) = fs::read_to_string(top().join("README.md")) else {
        eprintln!("no README.md yet");
        return;
    };
    let commands: Vec<&str> =
        readme.lines().map(str::trim).filter(|line| line.starts_with("cargo test")).collect();
    assert!(!commands.is_empty(), "README.md has no line that starts with `cargo test`");
    for command in commands {
        let command = command.split('#').next().unwrap().trim();
        assert!(gate.contains(command), ".ci/run does not run `{command}`");
    }
}

/// Keys that a peer chooses must not tell where they go: tables have random keys, each its own.
#[test]
fn tables_are_those_of_the_standard_library_or_our_own_with_random_keys() {
    let hashers =
        ["BuildHasherDefault", "DefaultHasher", "with_hasher", "ahash", "fxhash", "FxHash", "rustc_hash"];
    let mut wrong = Vec::new();
    for path in files("src", &["rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let named = hashers.iter().filter(|hasher| text.contains(**hasher));
        wrong.extend(named.map(|hasher| format!("{}: {hasher}", short(&path))));
        if text.contains("BuildHasher") && short(&path) != "src/model/id_map.rs" {
            wrong.push(format!("{}: a hasher of its own", short(&path)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn no_file_names_a_machine() {
    let homes = [("/ho", "me/"), ("/wo", "rk/"), ("/Us", "ers/")].map(|(a, b)| format!("{a}{b}"));
    let mut wrong = Vec::new();
    for path in ["src", "tests", "benches", "docs", ".ci"].iter().flat_map(|dir| files(dir, &[])) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for home in &homes {
            if text.contains(home.as_str()) {
                wrong.push(format!("{}: {home}", short(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
