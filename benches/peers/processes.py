"""Starting and ending the programs under test, and the memory they hold.

Every process is started in a group of its own and ended by that id; nothing is ever ended by name.
"""

import os
import signal
import subprocess
import threading
import time


class CommandFailed(Exception):
    """A command ended with another code than 0, or not in time; the text is one line with its last words."""


class Done:
    """A command that has ended: `seconds` from start to end, what it wrote to stdout, most memory in bytes."""

    def __init__(self, seconds, output, peak_bytes):
        self.seconds, self.output, self.peak_bytes = seconds, output, peak_bytes


class Processes:
    """All that was started and has not been ended."""

    def __init__(self, network):
        self.network = network
        self.running = []

    def start(self, words, host, home, log, stdin=None, stdout=None, cwd=None, extra=None):
        """Starts `words` on a host ("a", "hub", "b"), with `home` as HOME; what it says goes to the file `log`."""
        os.makedirs(home, exist_ok=True)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "HOME": home, "LANG": "C.UTF-8",
            "XDG_CONFIG_HOME": f"{home}/config", "XDG_STATE_HOME": f"{home}/state", "XDG_CACHE_HOME": f"{home}/cache",
            **(extra or {}),
        }
        with open(log, "ab") as said:
            process = subprocess.Popen(
                self.network.enter(host) + words, env=environment, cwd=cwd, start_new_session=True,
                stdin=stdin or subprocess.DEVNULL, stdout=stdout or said, stderr=said,
            )
        self.running.append(process)
        return process

    def run(self, words, host, home, log, timeout_seconds, watch=(), good=(0,), input_text=None, keep_output=False, **more):
        """Runs it to its end. `watch`: process ids whose memory is looked at too. Raises CommandFailed."""
        begin = time.perf_counter()
        process = self.start(
            words, host, home, log, stdin=subprocess.PIPE if input_text is not None else None,
            stdout=subprocess.PIPE if keep_output else None, **more,
        )
        memory = Memory([process.pid, *watch])
        late = threading.Timer(timeout_seconds, self._kill, [process])
        late.daemon = True
        late.start()
        try:
            if input_text is None and not keep_output:
                output = ""
                process.wait()
            else:
                given = None if input_text is None else input_text.encode()
                output = (process.communicate(given)[0] or b"").decode(errors="replace")
            seconds = time.perf_counter() - begin
        finally:
            late.cancel()
            peaks = memory.stop()
            self.end(process)
        if process.returncode not in good:
            how = f"ended with {process.returncode}" if seconds < timeout_seconds else f"not done in {timeout_seconds:.0f} s"
            raise CommandFailed(f"{os.path.basename(words[0])} {how}: {last_words(log)}")
        return Done(seconds, output, peaks.get(process.pid, 0))

    def end(self, process, wait_seconds=10):
        """Asks it to end, then its group to be gone."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(wait_seconds)
            except subprocess.TimeoutExpired:
                pass
        self._kill(process)
        process.wait()
        if process in self.running:
            self.running.remove(process)

    @staticmethod
    def _kill(process):
        try:
            os.killpg(process.pid, signal.SIGKILL)  # its group bears its id: start_new_session
        except (ProcessLookupError, PermissionError):
            pass

    def end_all(self):
        """Ends what is left; what has left its group is found by its namespace."""
        for process in list(self.running):
            self.end(process, wait_seconds=3)
        for pid in self.network.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Memory:
    """Most memory (resident, bytes) of processes and what they started, looked at every 20 ms until `stop`."""

    def __init__(self, pids):
        self.pids = [pid for pid in pids if pid]
        self.peaks = {pid: {} for pid in self.pids}
        self.enough = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self):
        while not self.enough.wait(0.02):
            self._once()

    def _once(self):
        for root in self.pids:
            for pid in family(root):
                kib = status_kib(pid, "VmHWM:")
                if kib:
                    self.peaks[root][pid] = max(kib, self.peaks[root].get(pid, 0))

    def stop(self):
        """{pid: bytes}; a process with children counts as the sum of the peaks of all."""
        self.enough.set()
        self.thread.join()
        self._once()
        return {root: 1024 * sum(seen.values()) for root, seen in self.peaks.items()}


def family(pid):
    """The process and all below it that still live."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        try:
            with open(f"/proc/{one}/task/{one}/children", encoding="ascii") as listed:
                todo += [int(word) for word in listed.read().split()]
        except OSError:
            pass
    return found


def status_kib(pid, field):
    """A memory figure of /proc/PID/status, KiB; 0 when the process is gone, or still this program before its exec."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            lines = status.readlines()
    except OSError:
        return 0
    if lines and lines[0].split()[-1] in ("nsenter", OWN_NAME):
        return 0
    for line in lines:
        if line.startswith(field):
            return int(line.split()[1])
    return 0


def last_words(log, bytes_max=400):
    """The end of a log in one line."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - bytes_max))
            return " / ".join(file.read().decode(errors="replace").split("\n")[-4:]).strip(" /")
    except OSError:
        return "it said nothing"


def wait_until(fact, seconds, what, every_seconds=0.01):
    """Waits until `fact()` is true. Raises CommandFailed after `seconds`."""
    end = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > end:
            raise CommandFailed(f"{what}: not within {seconds:.0f} s")
        time.sleep(every_seconds)


with open("/proc/self/comm", encoding="utf-8") as _own:
    OWN_NAME = _own.read().strip()
