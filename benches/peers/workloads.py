"""The workloads: five bases (a folder that is made once) and, for each, the changes that are made to it in turn.

A session of a tool takes one base, syncs it to an empty hub and an empty B, and then syncs each change. So every tool
meets the same changes in the same order. A step is prepared beside the folder first (a large file is rewritten there), so
that the change itself is one instant: `prepare(folder, scratch)` returns `commit`, and `commit()` makes the change and
returns (paths changed, paths gone), relative to the folder.
"""

import os
import shutil
import stat

import content
from content import MIB

LONG_AGO = 1_600_000_000  # seconds; time of change of all that a base holds


class Step:
    """`row`: its name; `what`: the line of the table; `kind`: first, change, again (nothing), latency, appends, idle."""

    def __init__(self, row, what, kind="change", prepare=None):
        self.row, self.what, self.kind, self.prepare = row, what, kind, prepare


class Base:
    """`make(folder)` fills an empty folder."""

    def __init__(self, name, make, steps):
        self.name, self.make, self.steps = name, make, steps


class Sizes:
    """How large all is. `part` is 1, or 16 for a quick run."""

    def __init__(self, part=1):
        self.large = 1024 * MIB // part
        self.image = 1024 * MIB // part
        self.database = 200 * MIB // part
        self.small_files = max(10_000 // part, 400)
        self.folder_files = max(2_000 // part, 100)
        self.texts = max(500 // part, 20)
        self.tree = 173_000_000 // part
        self.source = 17_000_000 // part
        self.archive = 66_000_000 // part
        self.plain_text = 10_000_000 // part
        self.places = max(100 // part, 8)
        self.packages = max(26_000 // part, 400)
        self.rows = max(1_000 // part, 60)
        self.tar_files = max(20 // part, 4)


def human(size):
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift:
            value = size / (1 << shift)
            return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"
    return f"{size} B"


def age(folder):
    """Gives everything below one old time, so that no tool takes it for just changed."""
    for top, _, names in os.walk(folder):
        for name in names:
            os.utime(os.path.join(top, name), (LONG_AGO, LONG_AGO), follow_symlinks=False)


# --- one large file

def rewritten(change):
    """A step that makes big.bin anew beside the folder and moves it there, as editors do. `change(source, target)`."""
    def prepare(folder, scratch):
        fresh = f"{scratch}/big.bin"
        with open(f"{folder}/big.bin", "rb") as source, open(fresh, "wb") as target:
            change(source, target)

        def commit():
            os.replace(fresh, f"{folder}/big.bin")
            return ["big.bin"], []
        return commit
    return prepare


def insert_front(source, target):
    target.write(b"!")
    shutil.copyfileobj(source, target, MIB)


def delete_middle(source, target):
    half = os.fstat(source.fileno()).st_size // 2
    for start, count in ((0, half), (half + MIB, half)):
        source.seek(start)
        while count > 0:
            part = source.read(min(MIB, count))
            if not part:
                break
            target.write(part)
            count -= len(part)


def overwrite(places):
    def prepare(folder, _scratch):
        rng = content.random_of("overwrite")
        size = os.path.getsize(f"{folder}/big.bin")
        changes = [(rng.randrange(size - 4096), rng.randbytes(4096)) for _ in range(places)]

        def commit():
            with open(f"{folder}/big.bin", "r+b") as file:
                for at, fresh in changes:
                    file.seek(at)
                    file.write(fresh)
            return ["big.bin"], []
        return commit
    return prepare


def append(folder, _scratch):
    fresh = content.random_of("append").randbytes(MIB)

    def commit():
        with open(f"{folder}/big.bin", "ab") as file:
            file.write(fresh)
        return ["big.bin"], []
    return commit


def rename_large(folder, _scratch):
    def commit():
        os.rename(f"{folder}/big.bin", f"{folder}/renamed.bin")
        return ["renamed.bin"], ["big.bin"]
    return commit


def copy_large(folder, scratch):
    name = next(name for name in sorted(os.listdir(folder)) if name.endswith(".bin"))
    shutil.copyfile(f"{folder}/{name}", f"{scratch}/copy.bin")

    def commit():
        os.rename(f"{scratch}/copy.bin", f"{folder}/copy.bin")
        return ["copy.bin"], []
    return commit


def large(sizes):
    def make(folder):
        content.random_file(f"{folder}/big.bin", sizes.large, "large")
    size = human(sizes.large)
    return Base("large", make, [
        Step("large", f"one random file of {size}, first sync", "first"),
        Step("noop-large", f"nothing changed, {size}", "again"),
        Step("insert", f"1 byte inserted at the front of {size}", prepare=rewritten(insert_front)),
        Step("overwrite", f"{sizes.places} random places of 4 KiB overwritten in {size}", prepare=overwrite(sizes.places)),
        Step("append", f"1 MiB appended to {size}", prepare=append),
        Step("delete", f"1 MiB deleted in the middle of {size}", prepare=rewritten(delete_middle)),
        Step("rename-large", f"a file of {size} renamed", prepare=rename_large),
        Step("copy-large", f"a file of {size} copied", prepare=copy_large),
    ])


def image(sizes):
    def make(folder):
        content.image(f"{folder}/disk.img", sizes.image)
    return Base("image", make, [
        Step("image", f"a disk image of {human(sizes.image)} (holes, text, random), first sync", "first"),
    ])


# --- many files

def make_small(sizes):
    """small_files files of 1 to 30 KiB in folders of 100, each second one a text; texts/; notes/text.txt of 40 KiB."""
    def make(folder):
        rng = content.random_of("small")
        for i in range(sizes.small_files):
            where = f"{folder}/g{i // sizes.folder_files}/{i // 100:03}"
            if i % 100 == 0 or i % sizes.folder_files == 0:
                os.makedirs(where, exist_ok=True)
            length = int(1024 + 29_696 * rng.random() ** 2.63)
            body = content.text(rng, length) if i % 2 else rng.randbytes(length)
            with open(f"{where}/file-{i:06}", "wb") as out:
                out.write(body)
        os.makedirs(f"{folder}/texts")
        os.makedirs(f"{folder}/notes")
        for i in range(sizes.texts):
            with open(f"{folder}/texts/text-{i:04}.txt", "wb") as out:
                out.write(content.text(rng, 10 << 10))
        with open(f"{folder}/notes/text.txt", "wb") as out:
            out.write(content.text(rng, 40 << 10))
    return make


def save(path, body):
    with open(path, "wb") as file:
        file.write(body)


def edit_line(folder, _scratch):
    with open(f"{folder}/notes/text.txt", "rb") as file:
        lines = file.read().split(b"\n")
    lines[len(lines) // 3] = b"this line was written anew by somebody who had something to say"

    def commit():
        save(f"{folder}/notes/text.txt", b"\n".join(lines))
        return ["notes/text.txt"], []
    return commit


def edit_words(folder, _scratch):
    fresh = {}
    rng = content.random_of("edit words")
    for name in sorted(os.listdir(f"{folder}/texts")):
        with open(f"{folder}/texts/{name}", "rb") as file:
            words = file.read().split(b" ")
        words[rng.randrange(len(words))] = rng.choice(content.WORDS).encode()
        fresh[f"texts/{name}"] = b" ".join(words)

    def commit():
        for path, body in fresh.items():
            save(f"{folder}/{path}", body)
        return list(fresh), []
    return commit


def create_one(folder, _scratch):
    def commit():
        save(f"{folder}/notes/one", b"1")
        return ["notes/one"], []
    return commit


def create_hundred(folder, scratch):
    rng = content.random_of("hundred")
    os.makedirs(f"{scratch}/hundred")
    for i in range(100):
        save(f"{scratch}/hundred/{i:03}", rng.randbytes(1000))

    def commit():
        os.rename(f"{scratch}/hundred", f"{folder}/hundred")
        return ["hundred", *(f"hundred/{i:03}" for i in range(100))], []
    return commit


def below(folder, top):
    """All paths of folder/top, as they would be called below `folder`."""
    found = [top]
    for where, folders, names in os.walk(f"{folder}/{top}"):
        found += [os.path.relpath(os.path.join(where, name), folder) for name in (*folders, *names)]
    return found


def rename_folder(folder, _scratch):
    moved = ["renamed" + path[2:] for path in below(folder, "g0")]

    def commit():
        os.rename(f"{folder}/g0", f"{folder}/renamed")
        return moved, ["g0"]
    return commit


def copy_folder(folder, scratch):
    shutil.copytree(f"{folder}/g1", f"{scratch}/copied")
    paths = ["copied" + path[2:] for path in below(folder, "g1")]

    def commit():
        os.rename(f"{scratch}/copied", f"{folder}/copied")
        return paths, []
    return commit


def small(sizes):
    files = sizes.small_files + sizes.texts + 1
    return Base("small", make_small(sizes), [
        Step("small", f"{files:,} small files, first sync", "first"),
        Step("noop-small", f"nothing changed, {files:,} files", "again"),
        Step("text-line", f"one line of a text of 40 KiB, {files:,} files", prepare=edit_line),
        Step("words", f"one word in each of {sizes.texts} texts of 10 KiB", prepare=edit_words),
        Step("create-1", "a file of 1 byte created", prepare=create_one),
        Step("hundred", "100 files of 1 KB created", prepare=create_hundred),
        Step("rename-folder", f"a folder of {sizes.folder_files:,} files renamed", prepare=rename_folder),
        Step("copy-folder", f"a folder of {sizes.folder_files:,} files copied", prepare=copy_folder),
        Step("latency", "4 KiB written, close() on A until complete on B, live", "latency"),
        Step("appends", "1 KB appended each second to a file of 1 MB, live", "appends"),
        Step("idle", "nothing changes, both live", "idle"),
    ])


def real_tree(sizes, source):
    """The files of `source` in order of names up to `sizes.tree` bytes, with plain modes (0644, 0755)."""
    def make(folder):
        total = 0
        for where, folders, names in os.walk(source):
            folders.sort()
            target = os.path.join(folder, os.path.relpath(where, source))
            os.makedirs(target, exist_ok=True)
            for name in sorted(names):
                path = os.path.join(where, name)
                about = os.lstat(path)
                if stat.S_ISLNK(about.st_mode):
                    os.symlink(os.readlink(path), os.path.join(target, name))
                elif stat.S_ISREG(about.st_mode) and total + about.st_size <= sizes.tree:
                    shutil.copyfile(path, os.path.join(target, name))
                    os.chmod(os.path.join(target, name), 0o755 if about.st_mode & 0o100 else 0o644)
                    total += about.st_size
            if total > sizes.tree * 0.98:
                break
    return Base("tree", make, [
        Step("tree", f"real files below {source}, first sync", "first"),
        Step("noop-tree", f"nothing changed, real files below {source}", "again"),
    ])
