"""Folders as wholes: copied, compared byte by byte, waited for."""

import os
import shutil
import stat
import subprocess
import time

from processes import CommandFailed

PART_BYTES = 1 << 20
# What tools keep for themselves at the top of a synced folder.
OWN_OF_TOOLS = {".dropblock", ".stfolder", ".stversions"}


class Differs(Exception):
    """Two folders are not the same; the text names the first difference."""


def walk(top):
    """Yields (path relative to top, lstat) of all below, tools' own left out, in order of names."""
    todo = [""]
    while todo:
        folder = todo.pop()
        with os.scandir(os.path.join(top, folder)) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            if not folder and entry.name in OWN_OF_TOOLS:
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            about = entry.stat(follow_symlinks=False)
            yield path, about
            if stat.S_ISDIR(about.st_mode):
                todo.append(path)


def same(left, right):
    """Checks that names, kinds, permissions, link targets and every byte are equal. Raises Differs."""
    here, there = dict(walk(left)), dict(walk(right))
    if here.keys() != there.keys():
        odd = sorted(here.keys() ^ there.keys())
        raise Differs(f"{len(odd)} paths are in one only, the first: {odd[0]}")
    for path, about in here.items():
        other = there[path]
        if about.st_mode != other.st_mode:
            raise Differs(f"{path}: mode {about.st_mode:o} and {other.st_mode:o}")
        one, two = os.path.join(left, path), os.path.join(right, path)
        if stat.S_ISLNK(about.st_mode):
            if os.readlink(one) != os.readlink(two):
                raise Differs(f"{path}: links to two places")
        elif stat.S_ISREG(about.st_mode):
            if about.st_size != other.st_size:
                raise Differs(f"{path}: {about.st_size} and {other.st_size} bytes")
            same_bytes(one, two, path)


def same_bytes(one, two, path):
    with open(one, "rb", buffering=0) as left, open(two, "rb", buffering=0) as right:
        at = 0
        while True:
            part = left.read(PART_BYTES)
            if part != right.read(PART_BYTES):
                raise Differs(f"{path}: differs between byte {at} and {at + PART_BYTES}")
            if not part:
                return
            at += len(part)


def size(top):
    """(files, bytes) below a folder."""
    files = total = 0
    for _, about in walk(top):
        if stat.S_ISREG(about.st_mode):
            files, total = files + 1, total + about.st_size
    return files, total


def disk_bytes(top):
    """What all below takes on disk, bytes (blocks of the file system, tools' own included)."""
    total = 0
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def copy(source, target):
    """Copies a folder, with times, modes, links and holes."""
    subprocess.run(["cp", "-a", "--sparse=auto", f"{source}/.", target], check=True)


def remove(path):
    """Removes a folder or a file if it is there."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    else:
        shutil.rmtree(path, ignore_errors=True)


def settle(top):
    """Writes out what the file system of `top` still holds in memory, so that no run pays for the one before."""
    subprocess.run(["sync", "-f", top], check=True)


class Awaited:
    """What must become true in B after a change: for each path its kind, size and time of change; and what is gone.

    A cheap look that leads to the end of a live run: contents are compared byte by byte afterwards.
    """

    def __init__(self, source, changed, gone=()):
        self.wanted = [(path, os.lstat(os.path.join(source, path))) for path in changed]
        self.gone = list(gone)

    def wait(self, target, seconds, every_seconds=0.001):
        """Returns when all is there. Raises CommandFailed."""
        end = time.monotonic() + seconds
        todo = [("gone", path, None) for path in self.gone] + [("there", path, about) for path, about in reversed(self.wanted)]
        while todo:
            how, path, about = todo[-1]
            if self._true(how, os.path.join(target, path), about):
                todo.pop()
                continue
            if time.monotonic() > end:
                raise CommandFailed(f"{path} did not arrive within {seconds:.0f} s")
            time.sleep(every_seconds)

    @staticmethod
    def _true(how, path, about):
        try:
            seen = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return how == "gone"
        if how == "gone" or stat.S_IFMT(seen.st_mode) != stat.S_IFMT(about.st_mode):
            return False
        if not stat.S_ISREG(about.st_mode):
            return True
        return seen.st_size == about.st_size and seen.st_mtime_ns == about.st_mtime_ns
