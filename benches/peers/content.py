"""What the files of the workloads hold: random bytes, texts, source code, an image of a machine's disk, a database.

Everything follows from the name given to `random_of`: the same bytes on every machine and in every round.
"""

import itertools
import os
import random
import sqlite3
import tarfile

MIB = 1 << 20
SEED = "dropblock-peers-1"


def random_of(name):
    """A generator of its own for everything that has a name."""
    return random.Random(f"{SEED}:{name}")


def _vocabulary(rng, count, longest):
    letters, weights = "etaoinshrdlucmfwypvbgk", [12, 9, 8, 8, 7, 7, 6, 6, 6, 4, 4, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 1]
    return ["".join(rng.choices(letters, weights, k=rng.randint(2, longest))) for _ in range(count)]


def _zipf(count):
    """Cumulative weights 1/1 + 1/2 + ...: few words make most of a text."""
    return list(itertools.accumulate(1 / (rank + 2) for rank in range(count)))


WORDS = _vocabulary(random_of("words"), 12_000, 9)
WORDS_WEIGHT = _zipf(len(WORDS))
NAMES = _vocabulary(random_of("names"), 3_000, 14)
NAMES_WEIGHT = _zipf(len(NAMES))
LINES = [
    "    let {} = {}.{}(&{});", "    if {}.is_{}() && {} < {} {{", "        return Err({}::{}({}, {}));", "    }}", "", "}}",
    "    // The {} of {} must not {} its {}.", "pub fn {}({}: &{}) -> {} {{", "    {}.{}.push({} + {});",
    "use crate::{}::{}::{}_{};", "    for {} in {}.{}.iter() {{  // {}", "        {} += {}[{}] * {};",
    "    assert_eq!({}, {}.{}({}));", "    {}: Option<{}<{}, {}>>,",
]


def text(rng, size):
    """`size` bytes of words in lines."""
    words = rng.choices(WORDS, cum_weights=WORDS_WEIGHT, k=size // 5 + 16)
    lines = [" ".join(words[at:at + 12]) for at in range(0, len(words), 12)]
    return ("\n".join(lines) + "\n").encode().ljust(size, b".")[:size]


def source(rng, size):
    """`size` bytes that look like a program; ends inside of a line."""
    count = size // 22 + 16
    names = iter(rng.choices(NAMES, cum_weights=NAMES_WEIGHT, k=4 * count))
    lines = (line.format(next(names), next(names), next(names), next(names)) for line in rng.choices(LINES, k=count))
    return "\n".join(lines).encode().ljust(size, b"\n")[:size]


def random_file(path, size, name):
    """A file that cannot be compressed."""
    rng = random_of(name)
    with open(path, "wb") as out:
        for at in range(0, size, MIB):
            out.write(rng.randbytes(min(MIB, size - at)))


def image(path, size):
    """An image of a disk: by bytes about 55 % holes, 22 % random, 18 % text, 5 % copies of what came before."""
    rng = random_of("image")
    kept = rng.randbytes(256 << 10)
    with open(path, "wb") as out:
        at = 0
        while at < size:
            part = min(rng.choice((64, 128, 256, 512, 1024, 2048)) << 10, size - at)
            kind = rng.choices(("hole", "random", "text", "copy"), (55, 22, 18, 5))[0]
            if kind == "random":
                kept = rng.randbytes(part)
                out.write(kept)
            elif kind == "text":
                out.write(source(rng, part))
            elif kind == "copy":
                part = min(part, len(kept))
                out.write(kept[:part])
            else:
                out.seek(part, os.SEEK_CUR)
            at += part
        out.truncate(size)


def source_tree(top, size, name):
    """About `size` bytes of source files of 0.5 to 40 KiB, 40 to a folder."""
    rng = random_of(name)
    total = count = 0
    while total < size:
        folder = f"{top}/part{count // 400:02}/{NAMES[count // 40 % len(NAMES)]}-{count // 40}"
        os.makedirs(folder, exist_ok=True)
        length = int(512 + 40_448 * rng.random() ** 3)
        with open(f"{folder}/{NAMES[-1 - count % 2_000]}_{count}.rs", "wb") as out:
            out.write(b"// Part of an example. See the file LICENSE beside this tree.\n" + source(rng, length))
        total, count = total + length, count + 1


def all_files(top):
    """Paths of all files below, in order of names."""
    found = [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names]
    return sorted(found)


def edit_lines(path, rng, edits):
    """Changes, adds or removes some lines of a text, in place."""
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    for _ in range(edits):
        at = rng.randrange(len(lines))
        how = rng.randrange(3)
        if how == 0:
            lines[at] = source(rng, rng.randint(20, 60)).replace(b"\n", b" ")
        elif how == 1:
            lines[at:at] = source(rng, rng.randint(60, 240)).split(b"\n")
        else:
            del lines[at:at + rng.randint(1, 3)]
        lines = lines or [b""]
    with open(path, "wb") as file:
        file.write(b"\n".join(lines))


def tar(folder, path):
    """An archive of a folder, as `tar` makes it: in order of names, with the times of the files."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for one in all_files(folder):
            about = archive.gettarinfo(one, os.path.relpath(one, folder))
            about.uid = about.gid = 1000
            about.uname = about.gname = "user"
            with open(one, "rb") as file:
                archive.addfile(about, file)


def database(path, size):
    """A SQLite file of about `size` bytes: people with a score, which has an index."""
    rng = random_of("database")
    base = sqlite3.connect(path)
    base.execute("pragma journal_mode = memory")
    base.execute("pragma synchronous = off")
    base.execute("create table people (id integer primary key, name text, mail text, score integer, seen integer, notes text)")
    count = size // 330
    rows = ((i, _person(rng), f"{_person(rng)}@example.org", rng.randrange(10**9), 1_700_000_000 + i, text(rng, 240).decode())
            for i in range(count))
    base.executemany("insert into people values (?, ?, ?, ?, ?, ?)", rows)
    base.execute("create index by_score on people (score)")
    base.commit()
    base.close()


def _person(rng):
    return f"{rng.choice(NAMES)} {rng.choice(NAMES)}"


def update_rows(path, count):
    """Gives `count` rows, anywhere, a new score and time, in one transaction; the journal stays in memory."""
    rng = random_of("rows")
    base = sqlite3.connect(path)
    base.execute("pragma journal_mode = memory")
    base.execute("pragma synchronous = off")
    rows = base.execute("select count(*) from people").fetchone()[0]
    for _ in range(count):
        change = (rng.randrange(10**9), 1_800_000_000 + rng.randrange(10**6), rng.randrange(rows))
        base.execute("update people set score = ?, seen = ? where id = ?", change)
    base.commit()
    base.close()


def packages(rng, count):
    """Stanzas of a list of packages, as a distribution publishes it: about 460 bytes each, in order of names."""
    stanzas = []
    for number in range(count):
        name = f"{NAMES[number * len(NAMES) // count]}-{number}"
        needs = ", ".join(f"{rng.choice(NAMES)} (>= {rng.randrange(9)}.{rng.randrange(40)})" for _ in range(rng.randint(1, 9)))
        stanzas.append([
            f"Package: {name}", f"Version: {rng.randrange(12)}.{rng.randrange(60)}-{rng.randrange(9)}", "Architecture: amd64",
            f"Maintainer: {rng.choice(NAMES)} {rng.choice(NAMES)} <{rng.choice(NAMES)}@example.org>", f"Depends: {needs}",
            f"Description: {text(rng, 60).decode().replace(chr(10), ' ')}", f"Filename: pool/main/{name[0]}/{name}.deb",
            f"Size: {rng.randrange(10**7)}", f"MD5sum: {rng.randbytes(16).hex()}", f"SHA256: {rng.randbytes(32).hex()}", "", "",
        ])
    return stanzas


def next_day(rng, stanzas):
    """0.4 % of the packages have a new version, a few are new or gone."""
    fresh = []
    for stanza in stanzas:
        chance = rng.random()
        if chance < 0.004:
            stanza = list(stanza)
            stanza[1] += "+b1"
            stanza[7] = f"Size: {rng.randrange(10**7)}"
            stanza[8:10] = [f"MD5sum: {rng.randbytes(16).hex()}", f"SHA256: {rng.randbytes(32).hex()}"]
        if chance < 0.9995:
            fresh.append(stanza)
        if chance > 0.999:
            fresh.append([stanza[0] + "-extra", *packages(rng, 1)[0][1:]])
    return fresh


def joined(stanzas):
    return "\n".join(line for stanza in stanzas for line in stanza).encode()
