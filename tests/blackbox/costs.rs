//! What typical changes cost on the network: from the first client to the server, and from there to a second client, both
//! ways each, counted by proxies outside the processes.
//!
//! Each row asserts a bound near what it costs, and says on stderr what it did cost: `cargo test --test blackbox costs --
//! --nocapture --test-threads 1` prints the table. With `DROPBLOCK_COSTS=full` the files have the sizes of published
//! comparisons (1 GiB, 200 MiB, 10,000 files); otherwise they are small enough to run with the other tests.

use crate::support::disk::Folder;
use crate::support::line::{Cost, Line};
use crate::support::{random_bytes, skipped, text};
use std::process::Command;

const MIB: usize = 1 << 20;

/// True when the sizes are those of the published table.
fn full() -> bool {
    std::env::var_os("DROPBLOCK_COSTS").is_some_and(|value| value == "full")
}

/// One size for the tests and one for the table.
fn sized(test: usize, table: usize) -> usize {
    if full() { table } else { test }
}

/// Overwrites one word of a text in place of another of the same length.
fn change_word(folder: &Folder, name: &str, at: usize) {
    let text = folder.text(name);
    let start = at + text[at..].find(' ').unwrap() + 1;
    let end = start + text[start..].find(|c: char| !c.is_ascii_alphabetic()).unwrap();
    folder.write(name, format!("{}changed{}", &text[..start], &text[end..]));
}

#[test]
fn one_line_edited_in_a_text_of_40_kib() {
    let line = Line::with(|a| {
        a.write("t", text(1, 40 * 1024));
        a.many("others", sized(500, 10_000));
    });
    let edit = |a: &Folder| {
        let old = a.text("t");
        let at = old[20_000..].find('\n').unwrap() + 20_001;
        let end = at + old[at..].find('\n').unwrap();
        a.save("t", format!("{}a line that was not here before{}", &old[..at], &old[end..]));
    };
    line.cost("one line edited in a text of 40 KiB", edit).at_most(1_000, 1_000);
    line.cost_back("the same on the other side", |b| change_word(b, "t", 3_000)).at_most(1_000, 1_000);
}

#[test]
fn one_word_in_each_of_many_texts_of_10_kib() {
    let count = sized(100, 500);
    let line = Line::with(|a| {
        for i in 0..count {
            a.write(format!("texts/{i}.txt"), text(i as u64 + 9, 10 * 1024));
        }
    });
    let cost = line.cost(&format!("one word in each of {count} texts of 10 KiB"), |a| {
        for i in 0..count {
            change_word(a, &format!("texts/{i}.txt"), 20 * (i + 3) % 9_000);
        }
    });
    cost.at_most(count as u64 * 300 + 1_000, count as u64 * 300 + 1_000);
}

#[test]
fn one_byte_inserted_at_the_front_of_a_large_file() {
    let len = sized(64 * MIB, 1024 * MIB);
    let bytes = random_bytes(2, len);
    let line = Line::with(|a| a.write("b", &bytes));
    let cost = line.cost(&format!("1 byte at the front of {} MiB", len / MIB), |a| {
        a.save("b", [b"!".as_slice(), &bytes].concat());
    });
    cost.at_most(16_000, 16_000);
}

#[test]
fn many_random_places_of_4_kib_overwritten_in_a_large_file() {
    let len = sized(64 * MIB, 1024 * MIB);
    let places = sized(20, 100);
    let line = Line::with(|a| a.write("b", random_bytes(3, len)));
    let cost = line.cost(&format!("{places} places of 4 KiB in {} MiB", len / MIB), |a| {
        let noise = random_bytes(4, places * 8);
        for (i, eight) in noise.chunks(8).enumerate() {
            let at = u64::from_le_bytes(eight.try_into().unwrap()) % (len as u64 - 4096);
            a.patch("b", at, random_bytes(100 + i as u64, 4096));
        }
    });
    let places = places as u64;
    cost.at_most(places * 6_000, places * 6_000);
}

/// Changes two bytes in a row at or after `at`, so that the sum of the grain around them stays what it was (their weights
/// are to each other as the multiplier of `block::sketch` is to 1). Unless a grain ends between them: choose another place.
fn change_under_the_same_sum(bytes: &mut [u8], at: usize) {
    const MULTIPLIER: i32 = 0x6F4B;
    let turns = |change: i32, other: i32| change != 0 && (change * MULTIPLIER + other) % 0x1_0000 == 0;
    let changes = || (-255..=255).flat_map(|one| (-255..=255).map(move |other| (one, other)));
    let pairs: Vec<_> = changes().filter(|(one, other)| turns(*one, *other)).collect();
    let changed = (at..bytes.len() - 1).find_map(|place| {
        let fits = pairs.iter().find_map(|(one, other)| {
            let one = u8::try_from(i32::from(bytes[place]) + one).ok()?;
            Some([one, u8::try_from(i32::from(bytes[place + 1]) + other).ok()?])
        })?;
        Some((place, fits))
    });
    let (place, pair) = changed.unwrap();
    bytes[place..place + 2].copy_from_slice(&pair);
}

/// What the sender takes for unchanged by chance: that block goes again in full, and no other does.
#[test]
fn a_change_under_an_equal_sum_beside_many_others() {
    let line = Line::with(|a| a.write("f", random_bytes(65, 4 * MIB)));
    let mut changed = random_bytes(65, 4 * MIB);
    let places = 30;
    (0..places).for_each(|i| changed[100_000 * (i + 1)] ^= 1);
    change_under_the_same_sum(&mut changed, 50_000);
    let cost = line.cost(&format!("1 byte at {places} places, and 2 with an equal sum"), |a| {
        a.write("f", &changed);
    });
    let block = 80_000;
    cost.at_most(places as u64 * 250 + block, places as u64 * 250 + block);
    assert!(cost.push > 10_000, "the sums were not equal: {}", cost.push);
}

/// Runs a script with an SQL engine, always with the same random numbers; false when none is here. Its journal stays in
/// memory: as a file beside the database it would be synced too, if it lives long enough to be seen.
fn sql(folder: &Folder, name: &str, script: &str) -> bool {
    let path = folder.join(name);
    let python = "import random, sqlite3, sys
random.seed(7)
db = sqlite3.connect(sys.argv[1])
db.create_function('random', 0, lambda: random.getrandbits(63))
db.create_function('randomblob', 1, random.randbytes)
db.execute('pragma journal_mode=memory')
db.executescript(sys.argv[2])
db.commit()";
    let done = Command::new("python3").arg("-c").arg(python).arg(&path).arg(script).status();
    done.is_ok_and(|status| status.success())
}

#[test]
fn a_mib_cut_out_of_the_middle_of_a_large_file() {
    let mib = sized(24, 1024);
    let line = Line::with(|a| a.write("f", random_bytes(61, mib * MIB)));
    let cost = line.cost(&format!("1 MiB cut out of the middle of {mib} MiB"), |a| {
        let mut bytes = a.read("f");
        bytes.drain(mib * MIB / 2..mib * MIB / 2 + MIB);
        a.write("f", bytes);
    });
    cost.at_most(8_000, 12_000);
}

#[test]
fn equal_files_made_at_once_come_once() {
    let line = Line::with(|_| ());
    // Moved in whole: one that is seen half written is another content.
    let move_in = |a: &Folder, name: &str, count: u32, bytes: &[u8]| {
        let outside = a.path().parent().unwrap().join(format!("outside-{name}"));
        std::fs::create_dir(&outside).unwrap();
        (0..count).for_each(|i| std::fs::write(outside.join(i.to_string()), bytes).unwrap());
        std::fs::rename(outside, a.path().join(name)).unwrap();
    };
    let bytes = random_bytes(62, 2_000_000);
    let cost = line.cost("10 equal files of 2 MB", |a| move_in(a, "equal", 10, &bytes));
    cost.at_most(2_100_000, 2_100_000);
    let large = random_bytes(63, 33 * MIB);
    let cost = line.cost("3 equal files of 33 MiB", |a| move_in(a, "large", 3, &large));
    cost.at_most(35_000_000, 35_000_000);
}

/// None of them is there yet, so neither can be made from the other before it is fetched.
#[test]
fn files_made_at_once_that_share_most_of_their_bytes() {
    let line = Line::with(|_| {});
    let common = random_bytes(31, 4_000_000);
    let cost = line.cost("3 files of 4.2 MB with 4.0 MB in common", |a| {
        for n in 0..3 {
            a.write(
                format!("{n}"),
                [random_bytes(40 + n, 100_000), common.clone(), random_bytes(50 + n, 100_000)].concat(),
            );
        }
    });
    cost.at_most(5_200_000, 5_200_000);
}

/// As an archive that is unpacked anew: the old folder goes and one like it comes, in one change.
#[test]
fn a_folder_replaced_by_one_with_the_same_files_elsewhere() {
    let fill = |a: &Folder, top: &str| {
        a.write(format!("{top}/large"), random_bytes(64, 2_000_000));
        (0..40).for_each(|i| a.write(format!("{top}/{i}"), random_bytes(100 + i, 20_000)));
    };
    let line = Line::with(|a| fill(a, "old/files"));
    let cost = line.cost("a folder of 2.8 MB gone, and made anew elsewhere", |a| {
        let aside = a.path().parent().unwrap().join("aside");
        let made = Folder::at(&aside);
        fill(&made, "moved");
        std::fs::remove_dir_all(a.join("old")).unwrap();
        std::fs::rename(aside, a.join("old")).unwrap();
    });
    cost.at_most(30_000, 30_000);
}

#[test]
fn rows_updated_in_a_database() {
    let (mib, rows) = (sized(20, 200), sized(100, 1_000));
    let made = std::cell::Cell::new(false);
    let line = Line::with(|a| {
        let count = mib * MIB / 340;
        let fill = format!(
            "create table t (id integer primary key, name text, body text, amount integer);
             with recursive n(i) as (select 1 union all select i + 1 from n where i < {count})
             insert into t select i, 'name ' || i, hex(randomblob(140)), abs(random()) % 100000 from n;"
        );
        made.set(sql(a, "db", &fill));
    });
    if !made.get() {
        return skipped("no python3 with sqlite3");
    }
    let cost = line.cost(&format!("{rows} rows updated in a database of {mib} MiB"), |a| {
        let update = format!(
            "update t set amount = abs(random()) % 100000, name = 'eman ' || id
             where id in (select 1 + abs(random()) % (select max(id) from t) from t limit {rows});"
        );
        assert!(sql(a, "db", &update));
    });
    let rows = rows as u64;
    cost.at_most(rows * 300 + 4_000, rows * 300 + 4_000);
}

/// The header of one member of an archive in the manner of tar.
fn tar_header(name: &str, len: usize, time: usize) -> Vec<u8> {
    let mut header = format!("{name:\0<100}0000644\0000000\0000000\0{len:011o}\0{time:011o}\0").into_bytes();
    header.resize(512, 0);
    header
}

fn tar(files: &[(String, Vec<u8>)], time: usize, touched: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, (name, bytes)) in files.iter().enumerate() {
        out.extend(tar_header(name, bytes.len(), if touched(i) { time } else { 1_700_000_000 }));
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out
}

#[test]
fn an_archive_made_again_after_a_few_files_changed() {
    let count = sized(800, 3_200);
    let mut files: Vec<(String, Vec<u8>)> = (0..count)
        .map(|i| (format!("tree/{}/file-{i}.txt", i % 40), text(i as u64, 5_000 + i * 7_919 % 30_000).into()))
        .collect();
    let line = Line::with(|a| a.write("all.tar", tar(&files, 0, |_| false)));
    let step = count / 20;
    for i in (0..count).step_by(step) {
        let at = files[i].1.len() / 2;
        files[i].1.splice(at..at, *b" some new words in the middle ");
    }
    let again = tar(&files, 1_800_000_000, |i| i % step == 0);
    let mib = again.len() / MIB;
    let cost =
        line.cost(&format!("{mib} MiB of tar made again, 20 files changed"), |a| a.save("all.tar", &again));
    cost.at_most(40_000, 40_000);
}

/// A tree of sources, or the one of an environment variable.
fn source_tree(folder: &Folder, version: u64, variable: &str, count: usize) {
    if let Some(path) = std::env::var_os(variable) {
        let copied = Command::new("cp").arg("-rT").arg(path).arg(folder.join("src")).status();
        assert!(copied.unwrap().success());
        return;
    }
    for i in 0..count {
        let mut lines: Vec<String> =
            text(i as u64, 2_000 + i * 613 % 20_000).lines().map(str::to_owned).collect();
        if version > 0 && i % 3 == 0 {
            for k in 0..4 {
                let at = (i * 31 + k * 67) % lines.len();
                lines[at] = format!("line {at} of version {version}, written anew");
            }
            lines.insert(lines.len() / 3, "one more line".to_owned());
        }
        folder.write(format!("src/{}/module_{i}.rs", i % 20), lines.join("\n"));
    }
}

#[test]
fn the_next_version_of_a_source_tree() {
    let count = sized(150, 1_500);
    let line = Line::with(|a| source_tree(a, 0, "DROPBLOCK_COSTS_OLD", count));
    let cost = line.cost("the next version of a source tree, in place", |a| {
        source_tree(a, 1, "DROPBLOCK_COSTS_NEW", count);
    });
    if std::env::var_os("DROPBLOCK_COSTS_NEW").is_none() {
        cost.at_most(count as u64 * 260, count as u64 * 260);
    }
}

#[test]
fn the_next_version_of_a_source_tree_in_a_folder_of_its_own() {
    let count = sized(150, 1_500);
    let line = Line::with(|a| source_tree(a, 0, "DROPBLOCK_COSTS_OLD", count));
    let cost = line.cost("the next version of a source tree, in a new folder", |a| {
        a.mkdir("next");
        let next = Folder::at(a.join("next"));
        source_tree(&next, 1, "DROPBLOCK_COSTS_NEW", count);
    });
    if std::env::var_os("DROPBLOCK_COSTS_NEW").is_none() {
        cost.at_most(count as u64 * 300, count as u64 * 300);
    }
}

#[test]
fn a_file_of_one_byte_is_made() {
    let line = Line::with(|_| {});
    line.cost("a file of 1 byte", |a| a.write("x", "x")).at_most(500, 500);
}

#[test]
fn a_hundred_files_of_1_kb_are_made() {
    let line = Line::with(|_| {});
    let cost = line.cost("100 files of 1 KB", |a| {
        for i in 0..100 {
            a.write(format!("f{i:02}"), random_bytes(i, 1_000));
        }
    });
    // The proxies make the sessions go inside TLS, which adds 22 bytes to each record (ADR 0010).
    let tls = 20 * 22;
    cost.at_most(110_000 + tls, 110_000 + tls);
}

#[test]
fn a_file_of_1_mb_grows() {
    let line = Line::with(|a| a.write("log", random_bytes(5, 1_000_000)));
    let (mut push, mut pull) = (0, 0);
    for i in 0..5 {
        let cost = line.cost("1 KB appended to 1 MB", |a| a.append("log", random_bytes(50 + i, 1_000)));
        push += cost.push;
        pull += cost.pull;
    }
    Cost { push, pull }.at_most(5 * 1_500, 5 * 1_500);
}

#[test]
fn renames() {
    let line = Line::with(|a| {
        a.write("big", random_bytes(6, sized(16, 1024) * MIB));
        a.many("d", sized(500, 2_000));
    });
    line.cost("a large file renamed", |a| a.rename("big", "renamed")).at_most(1_000, 1_000);
    line.cost("a folder of many files renamed", |a| a.rename("d", "e")).at_most(1_000, 1_000);
}

#[test]
fn a_large_file_is_copied() {
    let mib = sized(64, 1024);
    let line = Line::with(|a| a.write("big", random_bytes(7, mib * MIB)));
    line.cost(&format!("a file of {mib} MiB copied"), |a| a.copy("big", "copy")).at_most(8_000, 8_000);
    let cost = line.cost("the copy edited", |a| a.patch("copy", 9_999_999, random_bytes(8, 1_000)));
    cost.at_most(8_000, 8_000);
    let cost = line.cost("the file copied, and the copy edited at once", |a| {
        a.copy("big", "copy2");
        a.patch("copy2", 5_555_555, random_bytes(9, 1_000));
    });
    cost.at_most(12_000, 12_000);
}

#[test]
fn a_file_renamed_and_edited_at_once() {
    let line = Line::with(|a| a.write("report draft.txt", text(8, 40 * 1024)));
    let cost = line.cost("a text of 40 KiB renamed and edited at once", |a| {
        let old = a.text("report draft.txt");
        a.write("report final.txt", format!("{}\nthe end\n", old));
        a.remove("report draft.txt");
    });
    cost.at_most(1_500, 1_500);
}
