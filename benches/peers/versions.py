"""Workloads of things that come in versions: a source tree, an archive of one, a database."""

import os
import shutil
import tarfile

import content
from workloads import LONG_AGO, Base, Step, human, save


def database(sizes):
    def make(folder):
        content.database(f"{folder}/people.sqlite", sizes.database)

    def update(folder, _scratch):
        def commit():
            content.update_rows(f"{folder}/people.sqlite", sizes.rows)
            return ["people.sqlite"], []
        return commit

    size = human(sizes.database)
    return Base("database", make, [
        Step("database", f"a SQLite file of {size}, first sync", "first"),
        Step("rows", f"{sizes.rows:,} rows updated (one column has an index) in a SQLite file of {size}", prepare=update),
    ])


def next_version(folder, scratch):
    """src/ becomes the next version: 15 % of the files edited, two folders moved, 3 % new, 1 % gone, made beside it.

    Returns `commit`, which swaps the trees by two renames: what lies below src/ is a new file, as after unpacking.
    """
    rng = content.random_of("next")
    fresh = f"{scratch}/src"
    os.makedirs(fresh)
    before = content.all_files(f"{folder}/src")
    folders = sorted({os.path.dirname(path) for path in before})
    moved = set(rng.sample(folders, k=max(1, len(folders) // 20)))
    for path in before:
        chance = rng.random()
        if chance < 0.01:
            continue
        where = os.path.dirname(path)
        inside = os.path.relpath(path, f"{folder}/src")
        if where in moved:
            inside = f"moved/{inside}"
        target = f"{fresh}/{inside}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(path, "rb") as file:
            save(target, file.read())
        if chance < 0.16:
            content.edit_lines(target, rng, rng.randint(1, 6))
        if chance > 0.97:
            save(target.replace(".rs", "_new.rs"), content.source(rng, int(512 + 30_000 * rng.random() ** 3)))
    now = [os.path.relpath(path, scratch) for path in content.all_files(fresh)]
    gone = sorted({os.path.relpath(path, folder) for path in before} - set(now))

    def commit():
        os.rename(f"{folder}/src", f"{scratch}/src-before")
        os.rename(fresh, f"{folder}/src")
        return now, gone
    return commit


def archive_again(sizes):
    """The archive is unpacked beside the folder, some of its files are edited, and all is archived again."""
    def prepare(folder, scratch):
        tree = f"{scratch}/tree"
        with tarfile.open(f"{folder}/archive.tar") as archive:
            archive.extractall(tree)
        rng = content.random_of("tar")
        for path in rng.sample(content.all_files(tree), k=sizes.tar_files):
            content.edit_lines(path, rng, 2)
            os.utime(path, (LONG_AGO, LONG_AGO))
        content.tar(tree, f"{scratch}/archive.tar")

        def commit():
            os.replace(f"{scratch}/archive.tar", f"{folder}/archive.tar")
            return ["archive.tar"], []
        return commit
    return prepare


def create_text(sizes):
    def prepare(folder, scratch):
        save(f"{scratch}/text.txt", content.text(content.random_of("plain text"), sizes.plain_text))

        def commit():
            os.rename(f"{scratch}/text.txt", f"{folder}/text.txt")
            return ["text.txt"], []
        return commit
    return prepare


def packages_again(sizes):
    def prepare(folder, scratch):
        before = content.packages(content.random_of("packages"), sizes.packages)
        save(f"{scratch}/Packages", content.joined(content.next_day(content.random_of("next day"), before)))

        def commit():
            os.replace(f"{scratch}/Packages", f"{folder}/Packages")
            return ["Packages"], []
        return commit
    return prepare


def source(sizes):
    """src/ is a source tree, archive.tar holds another one, Packages is a list of packages."""
    def make(folder):
        content.source_tree(f"{folder}/src", sizes.source, "source")
        tree = f"{folder}.tree"
        content.source_tree(tree, sizes.archive, "archive")
        for path in content.all_files(tree):
            os.utime(path, (LONG_AGO, LONG_AGO))
        content.tar(tree, f"{folder}/archive.tar")
        shutil.rmtree(tree)
        save(f"{folder}/Packages", content.joined(content.packages(content.random_of("packages"), sizes.packages)))

    return Base("source", make, [
        Step("source", f"a source tree of {human(sizes.source)} and a tar of {human(sizes.archive)}, first sync", "first"),
        Step("next", f"next version of a source tree of {human(sizes.source)}, unpacked anew", prepare=next_version),
        Step("tar", f"a tar of {human(sizes.archive)} made again after {sizes.tar_files} of its files changed",
             prepare=archive_again(sizes)),
        Step("packages", f"the next day's list of {sizes.packages:,} packages", prepare=packages_again(sizes)),
        Step("text", f"a text of {human(sizes.plain_text)} created", prepare=create_text(sizes)),
    ])
