"""Programs that keep a deduplicated store: restic and casync. The store lies on the same disk: no network is involved.

"A <-> hub" is how many bytes the files of the store grew by, "hub <-> B" is not known; "push" is making the snapshot, "total"
with bringing all of it back into an empty folder.
"""

import os

import trees
from tools.base import Tool


class Store(Tool):
    live = False

    def __init__(self, name, label):
        super().__init__(name, label, place="disk")

    def takes(self, base, step):
        return step.kind in ("first", "change")

    def hub_folder(self):
        return None

    def store_bytes(self):
        return trees.size(self.s.hub)[1]

    def pull(self):
        trees.remove(self.s.b)  # a snapshot is brought back into an empty folder
        os.makedirs(self.s.b)
        return self.bring_back()

    def bring_back(self):
        raise NotImplementedError


class Restic(Store):
    program = "restic"
    install = "apt-get install restic"
    durable = True

    def version(self):
        return self.first_line([self.path(), "version"])

    def _run(self, *words, cwd=None):
        extra = {"RESTIC_PASSWORD": "peers", "RESTIC_REPOSITORY": self.s.hub}
        return self.s.run([self.path(), "-q", *words], "hub", self.s.home("a"), cwd=cwd, extra=extra).peak_bytes

    def open(self):
        self._run("init", "--repository-version", "2")

    def push(self):
        return self._run("backup", ".", cwd=self.s.a)

    def bring_back(self):
        return self._run("restore", "latest", "--target", self.s.b)


class Casync(Store):
    program = "casync"
    install = "apt-get install casync"

    def _run(self, *words):
        return self.s.run([self.path(), *words], "hub", self.s.home("a")).peak_bytes

    def _index(self):
        return f"{self.s.hub}/now.caidx"

    def push(self):
        return self._run("make", "--with=unix", f"--store={self.s.hub}/store.castr", self._index(), self.s.a)

    def bring_back(self):
        return self._run("extract", f"--store={self.s.hub}/store.castr", self._index(), self.s.b)
