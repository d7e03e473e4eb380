"""One session: one tool, one base, from an empty hub and an empty B through all steps, each measured and checked."""

import os
import time

import trees
from content import random_of
from network import ADDRESS, HUB_FOR
from processes import CommandFailed, Memory

# A live tool is done when B is complete and no more than this passed on both links for so long.
QUIET_BYTES, QUIET_SECONDS, QUIET_SECONDS_MAX = 1024, 0.3, 10

# Times after this one, in seconds, were set by the clock and not by the workloads.
JUST_NOW = 1_700_000_000


class Session:
    """The folders and hosts of one session. What a tool says goes to `log`; HOME of each host is below `work`."""

    def __init__(self, tool, base, template, work, network, processes, settings):
        self.tool, self.base, self.template, self.work = tool, base, template, work
        self.network, self.processes, self.settings = network, processes, settings
        self.a, self.hub, self.b, self.scratch = (f"{work}/{name}" for name in ("a", "hub", "b", "scratch"))
        self.log = f"{work}/log"
        self.second = JUST_NOW - 100_000

    # --- what tools ask for

    def home(self, host):
        return f"{self.work}/home-{host}"

    def hub_address(self, host):
        """The hub's address as A ("a") or B ("b") sees it."""
        return HUB_FOR[host]

    def address(self, host):
        return ADDRESS[host]

    def run(self, words, host, home, **more):
        return self.processes.run(words, host, home, self.log, self.settings.timeout, **more)

    def accepts(self, host, address, port):
        """True when something listens there."""
        with self.network.socket(host) as wire:
            wire.settimeout(1)
            return wire.connect_ex((address, port)) == 0

    # --- the session

    def steps(self, rows):
        """Yields (step, figures, error): a dictionary of what was measured, or one line why it failed (the last then)."""
        for folder in (self.a, self.hub, self.b, self.scratch):
            os.makedirs(folder)
        trees.copy(self.template, self.a)
        self.tool.s = self
        step = self.base.steps[0]
        try:
            self.tool.open()
            if self.tool.live:
                self.tool.go_live_on_b()
            for step in self.base.steps:
                wanted = step.row in rows
                if not self.tool.takes(self.base, step) or not (wanted or step.kind == "first"):
                    continue
                figures = self._measure(step)
                self._check()
                if wanted:
                    yield step, figures, None
                trees.remove(self.scratch)
                os.makedirs(self.scratch)
        except (CommandFailed, trees.Differs, OSError) as error:
            yield step, None, f"{type(error).__name__}: {error}"

    def _measure(self, step):
        watched = Memory([self.tool.hub_pid(), self.tool.client_pid()])
        try:
            if step.kind == "latency":
                figures = self._latency()
            elif step.kind == "idle":
                figures = self._idle()
            elif step.kind == "appends":
                figures = self._appends()
            else:
                figures = self._live(step) if self.tool.live else self._once(step)
        finally:
            peaks = watched.stop()
        figures["hub_peak_bytes"] = peaks.get(self.tool.hub_pid(), 0) or None
        if self.tool.live:
            # Of the first step A was not there yet when the watch began.
            late = Memory([self.tool.client_pid()]).stop()
            figures["client_peak_bytes"] = max(peaks.get(self.tool.client_pid(), 0), late.get(self.tool.client_pid(), 0)) or None
        figures["hub_disk_bytes"] = trees.disk_bytes(self.hub)
        return figures

    def _prepare(self, step):
        """Prepares the step's change. Returns `commit`, which makes it and returns (paths changed, paths gone)."""
        if step.prepare is None:
            return lambda: ([], [])
        commit = step.prepare(self.a, self.scratch)
        trees.settle(self.work)
        return commit

    def _space_out(self, changed):
        """Gives what was just written a time ten seconds after that of the change before.

        Tools that look at times take a file of the same size whose time moved by a second or so for unchanged; changes that
        follow one another so fast are this harness's doing. Not done under the eyes of live tools.
        """
        self.second += 10
        for path in changed:
            whole = os.path.join(self.a, path)
            if os.lstat(whole).st_mtime > JUST_NOW and not os.path.isdir(whole):
                os.utime(whole, (self.second, self.second), follow_symlinks=False)

    def _once(self, step):
        changed, _ = self._prepare(step)()
        self._space_out(changed)
        trees.settle(self.work)
        grown = self.tool.store_bytes()
        counts = [self.network.read()]
        begin = time.perf_counter()
        push_peak = self.tool.push()
        pushed = time.perf_counter()
        counts.append(self._quiet(0.02))
        again = time.perf_counter()
        pull_peak = self.tool.pull()
        pulled = time.perf_counter()
        counts.append(self._quiet(0.02))
        figures = self._bytes(*counts)
        if grown is not None:
            figures = {"a_hub_bytes": self.tool.store_bytes() - grown, "hub_b_bytes": None}
        push_seconds = pushed - begin
        return {
            **figures, "push_seconds": push_seconds, "total_seconds": push_seconds + pulled - again,
            "client_peak_bytes": max(push_peak, pull_peak) or None,
        }

    def _bytes(self, before, middle, after):
        """On loopback both links are one counter: the passes follow one another, so it is read between them."""
        if self.tool.place == "lo":
            return {"a_hub_bytes": middle["lo"] - before["lo"], "hub_b_bytes": after["lo"] - middle["lo"]}
        return {"a_hub_bytes": after["a"] - before["a"], "hub_b_bytes": after["b"] - before["b"]}

    def _live_bytes(self, before, after):
        if self.tool.place == "lo":
            return {"a_hub_bytes": None, "hub_b_bytes": None, "both_bytes": after["lo"] - before["lo"]}
        return self._bytes(before, before, after)

    def _live(self, step):
        """From the last instant of the change (of the first sync: from the start of A's program) until B has all of it."""
        if step.kind == "first":
            awaited = trees.Awaited(self.a, [path for path, _ in trees.walk(self.a)])
            trees.settle(self.work)
            before = self.network.read()
            begin = time.perf_counter()
            self.tool.go_live_on_a()
        else:
            commit = self._prepare(step)
            before = self._quiet(QUIET_SECONDS)
            changed = commit()
            begin = time.perf_counter()
            awaited = trees.Awaited(self.a, *changed)
        awaited.wait(self.b, self.settings.timeout)
        total = time.perf_counter() - begin
        after = self._quiet(QUIET_SECONDS)
        return {**self._live_bytes(before, after), "push_seconds": None, "total_seconds": total}

    def _quiet(self, seconds):
        """Waits until next to nothing passes any more. Returns the counters."""
        end = time.monotonic() + QUIET_SECONDS_MAX
        before = self.network.read()
        while True:
            time.sleep(seconds)
            now = self.network.read()
            if sum(now.values()) - sum(before.values()) <= QUIET_BYTES or time.monotonic() > end:
                return now
            before = now

    def _latency(self):
        """Single changes one after another; figures in seconds over all of them, bytes for each of them."""
        os.makedirs(f"{self.a}/hot", exist_ok=True)
        self._one_change(0)
        time.sleep(2)
        before = self.network.read()
        times = []
        for number in range(self.settings.changes):
            times.append(self._one_change(number))
            time.sleep(0.03)
        after = self._quiet(QUIET_SECONDS)
        times.sort()
        figures = {name: value and value // len(times) for name, value in self._live_bytes(before, after).items()}
        at = lambda part: times[min(len(times) - 1, int(len(times) * part))]
        return {**figures, "push_seconds": None, "total_seconds": at(0.5), "p50_seconds": at(0.5), "p99_seconds": at(0.99),
                "worst_seconds": times[-1]}

    def _one_change(self, number):
        name, body = f"hot/file-{number % 20:02}", os.urandom(4096)
        with open(f"{self.a}/{name}", "wb") as file:
            file.write(body)
        begin = time.perf_counter()
        while not self._holds(f"{self.b}/{name}", body):
            if time.perf_counter() - begin > min(60, self.settings.timeout):
                raise CommandFailed(f"change {number} of {name} did not arrive within a minute")
            time.sleep(0.0005)
        return time.perf_counter() - begin

    @staticmethod
    def _holds(path, body):
        try:
            with open(path, "rb") as file:
                return file.read() == body
        except FileNotFoundError:
            return False

    def _appends(self):
        """1 KB each second at the end of a file of 1 MB: all bytes on the wire, and those for each byte appended."""
        rng, path = random_of("appends"), f"{self.a}/notes/appended"
        with open(path, "wb") as file:
            file.write(rng.randbytes(1_000_000))
        trees.Awaited(self.a, ["notes/appended"]).wait(self.b, self.settings.timeout)
        before = self._quiet(QUIET_SECONDS)
        for _ in range(self.settings.appends):
            with open(path, "ab") as file:
                file.write(rng.randbytes(1000))
            time.sleep(1)
        trees.Awaited(self.a, ["notes/appended"]).wait(self.b, self.settings.timeout)
        figures = self._live_bytes(before, self._quiet(QUIET_SECONDS))
        moved = figures["both_bytes"] / 2 if "both_bytes" in figures else figures["a_hub_bytes"]
        return {**figures, "push_seconds": None, "total_seconds": None, "traffic_to_data": moved / (1000 * self.settings.appends)}

    def _idle(self):
        """Bytes of one minute in which nothing changes, taken from a shorter time."""
        self._quiet(QUIET_SECONDS)
        before = self.network.read()
        begin = time.perf_counter()
        time.sleep(self.settings.idle_seconds)
        minutes = (time.perf_counter() - begin) / 60
        figures = self._live_bytes(before, self.network.read())
        return {**{name: value and round(value / minutes) for name, value in figures.items()}, "push_seconds": None,
                "total_seconds": None}

    def _check(self):
        """B, and the hub where it keeps a plain folder, hold what A holds: names, kinds, modes, links, every byte."""
        trees.same(self.a, self.b)
        if self.tool.hub_folder():
            trees.same(self.a, self.tool.hub_folder())
