"""unison: a server on a plain socket on the hub, which keeps a plain folder; A syncs with it, then B does."""

from processes import wait_until
from tools.base import Tool

PORT = 5050
# Quiet, no questions, times kept; big deletes are wanted here.
OPTIONS = ["-ui", "text", "-batch", "-auto", "-silent", "-contactquietly", "-times", "-perms", "-1", "-confirmbigdel=false",
           "-log=false"]


class Unison(Tool):
    program = "unison"
    install = "apt-get install unison"

    def __init__(self, name, label):
        super().__init__(name, label)
        self.server = None

    def version(self):
        return self.first_line([self.path(), "-version"])

    def open(self):
        self.server = self.s.processes.start([self.path(), "-socket", str(PORT)], "hub", self.s.home("hub"), self.s.log)
        wait_until(lambda: self.s.accepts("hub", "127.0.0.1", PORT), 30, "unison -socket: listening")

    def push(self):
        return self._pass("a", self.s.a)

    def pull(self):
        return self._pass("b", self.s.b)

    def _pass(self, host, folder):
        words = [self.path(), folder, f"socket://{self.s.hub_address(host)}:{PORT}/{self.s.hub}", *OPTIONS]
        return self.s.run(words, host, self.s.home(host)).peak_bytes

    def hub_pid(self):
        return self.server.pid
