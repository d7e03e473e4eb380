"""dropblock: `serve` on the hub; A and B are let in by `invite` and `join`, or on loopback by being the same user's.

Between hosts everything is inside TLS 1.3. Plain sessions exist on loopback only, where all three are processes of one
host: those runs are compared with rsync on the same loopback.
"""

import os
import re

from processes import wait_until
from tools.base import Tool

PORT = 7420
# Of the hub, as A and as B see it.
LOOPBACK = "127.0.0.1"


class Dropblock(Tool):
    """`live`: `sync` runs for good on A and B; otherwise `sync --once` on A, then on B."""

    install = "cargo build --release, or DROPBLOCK=/path/to/dropblock"
    durable = True

    def __init__(self, name, label, place="veth", live=False):
        super().__init__(name, label, place)
        self.live = live
        self.server = None
        self.clients = {}

    def path(self):
        top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../..")
        found = os.environ.get("DROPBLOCK") or os.path.join(top, "target/release/dropblock")
        return os.path.realpath(found) if os.access(found, os.X_OK) else None

    def open(self):
        self.clients = {}
        said = f"{self.s.work}/serve.out"
        listen = f"{LOOPBACK}:{PORT}" if self.place == "lo" else f"0.0.0.0:{PORT}"
        with open(said, "wb") as out:
            words = [self.path(), "-q", "serve", "--store", self.s.hub, "--listen", listen]
            self.server = self.s.processes.start(words, "hub", self._home("hub"), self.s.log, stdout=out)
        wait_until(lambda: re.search(rb"listening on", open(said, "rb").read()), 30, "dropblock serve: listening")
        if self.place != "lo":
            for host, folder in (("a", self.s.a), ("b", self.s.b)):
                self._join(host, folder)

    def _home(self, host):
        """On loopback all are processes of one user, with one home."""
        return self.s.home("hub" if self.place == "lo" else host)

    def _join(self, host, folder):
        address = f"{self.s.hub_address(host)}:{PORT}"
        words = [self.path(), "-q", "invite", "--store", self.s.hub, "--address", address]
        invite = self.s.run(words, "hub", self._home("hub"), keep_output=True).output
        self.s.run([self.path(), "-q", "join", folder, "--device", host], self.host(host), self._home(host), input_text=invite)

    def _sync(self, host, folder):
        words = [self.path(), "-q", "sync", folder, "--device", host]
        if self.place == "lo":
            words += ["--server", f"{LOOPBACK}:{PORT}"]
        return words

    def push(self):
        return self._once("a", self.s.a)

    def pull(self):
        return self._once("b", self.s.b)

    def _once(self, host, folder):
        return self.s.run([*self._sync(host, folder), "--once"], self.host(host), self._home(host)).peak_bytes

    def go_live_on_b(self):
        self._start("b", self.s.b)

    def go_live_on_a(self):
        self._start("a", self.s.a)

    def _start(self, host, folder):
        self.clients[host] = self.s.processes.start(self._sync(host, folder), self.host(host), self._home(host), self.s.log)

    def client_pid(self):
        return self.clients["a"].pid if "a" in self.clients else None

    def hub_pid(self):
        return self.server.pid

    def hub_folder(self):
        return None
