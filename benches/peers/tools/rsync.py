"""rsync: a daemon on the hub; A pushes into its module, B pulls from it."""

import os

from processes import wait_until
from tools.base import Tool

PORT = 8730
LOOPBACK = "127.0.0.1"


class Rsync(Tool):
    program = "rsync"
    install = "apt-get install rsync"

    def __init__(self, name, label, options, place="veth"):
        super().__init__(name, label, place)
        self.options = options
        self.durable = "--fsync" in options
        self.daemon = None

    def open(self):
        config = f"{self.s.work}/rsyncd.conf"
        with open(config, "w", encoding="utf-8") as out:
            # Without chroot absolute links would arrive as relative ones.
            out.write(f"use chroot = yes\nmunge symlinks = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n")
            out.write(f"[hub]\npath = {self.s.hub}\nread only = no\n")
        words = [self.path(), "--daemon", "--no-detach", f"--config={config}", f"--port={PORT}", f"--log-file={self.s.log}"]
        self.daemon = self.s.processes.start(words, "hub", self.s.home("hub"), self.s.log)
        wait_until(lambda: self.s.accepts(self.host("a"), self._hub("a"), PORT), 30, "rsync --daemon: listening")

    def _hub(self, host):
        return LOOPBACK if self.place == "lo" else self.s.hub_address(host)

    def push(self):
        return self._pass("a", f"{self.s.a}/", f"rsync://{self._hub('a')}:{PORT}/hub/")

    def pull(self):
        return self._pass("b", f"rsync://{self._hub('b')}:{PORT}/hub/", f"{self.s.b}/")

    def _pass(self, host, source, target):
        words = [self.path(), "-a", "--delete", *self.options, source, target]
        return self.s.run(words, self.host(host), self.s.home(host)).peak_bytes

    def hub_pid(self):
        return self.daemon.pid
