"""A disk of its own for each session: a new ext4 with a journal, in a sparse file of the work folder.

Times of many small files depend on what was deleted before: ext4 does not use inodes again that went in the last minutes, and without
a journal it looks through all of them for each new file. So every session begins on the same empty file system, whichever
the machine has. The file is read and written past the page cache (direct I/O), so nothing is held in memory twice.
Needs root, `mkfs.ext4` (e2fsprogs), `losetup` and `mount`, and a kernel with loop devices.
"""

import os
import subprocess
import time

UMOUNT_TRIES = 50


class DiskError(Exception):
    """A disk could not be made or let go; the text is one line."""


class OwnDisk:
    """An empty file system, mounted at `place` from `open` to `close`. `size`: bytes that it holds at most."""

    kind = "ext4, new for each session, in a file"

    def __init__(self, place, size):
        self.place, self.size = place, size
        self.image = f"{place}.disk"
        self.mounted = False

    def open(self):
        """Raises DiskError, and leaves nothing then."""
        os.makedirs(self.place)
        with open(self.image, "wb") as image:
            image.truncate(self.size)
        try:
            done("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", self.image)
            device = done("losetup", "--find", "--show", "--direct-io=on", self.image).strip()
            try:
                # Tables of inodes are not prepared in the background: that would be in somebody's time.
                done("mount", "-o", "noatime,noinit_itable", device, self.place)
                self.mounted = True
            finally:
                done("losetup", "--detach", device)  # of a mounted one: when it is unmounted
            os.chmod(self.place, 0o755)
            os.rmdir(f"{self.place}/lost+found")
        except DiskError:
            self.close()
            raise

    def close(self):
        """Raises DiskError when somebody still uses it."""
        for again in reversed(range(UMOUNT_TRIES if self.mounted else 0)):
            try:
                done("umount", self.place)
                break
            except DiskError:  # what was just killed may not be gone yet
                if not again:
                    raise
                time.sleep(0.1)
        self.mounted = False
        os.unlink(self.image)
        os.rmdir(self.place)


def done(*words):
    """What the command printed. Raises DiskError when it fails or is missing."""
    try:
        ended = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        raise DiskError(f"`{words[0]}` is missing") from None
    if ended.returncode != 0:
        said = (ended.stderr.strip().splitlines() or ["failed"])[-1]
        raise DiskError(f"{' '.join(words)}: {said}")
    return ended.stdout


def can_be_made(work):
    """Tries it with a small one. Returns None, or one line why not."""
    disk = OwnDisk(f"{work}/try", 64 << 20)
    try:
        disk.open()
        disk.close()
    except DiskError as error:
        return str(error)
    return None
