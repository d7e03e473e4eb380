"""What a tool is to the harness."""

import shutil
import subprocess


class Tool:
    """One line of the tables: a program with its settings.

    `place`: "veth" (three hosts), "lo" (A, hub and B are processes on the hub's own loopback), "disk" (no network).
    `live`: it runs all the time and finds changes by itself; otherwise `push` (A -> hub) and `pull` (hub -> B) do one pass.
    A session sets `self.s` (see session.py) before `open`.
    """

    program = ""
    install = ""
    live = False
    durable = False  # what it has acknowledged is synced to the disk

    def __init__(self, name, label, place="veth"):
        self.name, self.label, self.place = name, label, place
        self.s = None

    def path(self):
        """Where the program is, or None."""
        return shutil.which(self.program)

    def version(self):
        """Its version, one line."""
        return self.first_line([self.path(), "--version"])

    @staticmethod
    def first_line(words):
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        return next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), "unknown")

    def takes(self, base, step):
        """True when this tool has a run of that step."""
        return step.kind != "again" if self.live else step.kind in ("first", "change", "again")

    def host(self, host):
        """On which of the three hosts the part of `host` ("a", "hub", "b") runs."""
        return "hub" if self.place != "veth" else host

    # --- a session, in this order

    def open(self):
        """Starts the hub and sets up A and B. Not timed, not counted."""

    def push(self):
        """A -> hub, one pass, to its end. Returns the client's most memory, bytes."""
        raise NotImplementedError

    def pull(self):
        """hub -> B, one pass, to its end. Returns the client's most memory, bytes."""
        raise NotImplementedError

    def go_live_on_b(self):
        """Starts B for good, with an empty folder. Not timed. Live tools only."""

    def go_live_on_a(self):
        """Starts A for good; the time of the first sync begins with it. Live tools only."""

    def client_pid(self):
        """The process of A, where it stays."""
        return None

    def hub_pid(self):
        """The process of the hub, where there is one."""
        return None

    def hub_folder(self):
        """The hub's copy as a plain folder to be compared too, or None when it keeps a store."""
        return self.s.hub

    def store_bytes(self):
        """Growth of the store is counted instead of the network: the store's bytes, or None."""
        return None
