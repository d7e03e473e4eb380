"""Three hosts on one machine: A, hub and B are network namespaces, joined by two veth pairs.

    A  10.231.1.2 ---- 10.231.1.1  hub  10.231.2.1 ---- 10.231.2.2  B

A and B do not reach each other. Bytes are read from the counters of the hub's interfaces: both directions, everything
that any program sent, headers included. Segments are counted as the interface sees them: with offloading (the default
of veth, and of real cards) one header for up to 64 KiB. ARP and IPv6 are silent, so a quiet network counts zero.
Needs root and `ip` (iproute2). Everything is gone after `close`.
"""

import ctypes
import os
import re
import socket
import subprocess
import threading

HUB_FOR = {"a": "10.231.1.1", "b": "10.231.2.1"}
ADDRESS = {"a": "10.231.1.2", "b": "10.231.2.2"}
LINK = {"a": "to-a", "b": "to-b"}
MAC = {"a": ("02:00:00:00:01:02", "02:00:00:00:01:01"), "b": ("02:00:00:00:02:02", "02:00:00:00:02:01")}
CLONE_NEWNET = 0x40000000


class NetworkError(Exception):
    """The network could not be made; the text is one line."""


class Network:
    """The three namespaces. `hosts` are "a", "hub" and "b"."""

    def __init__(self):
        self.prefix = f"dbpeers{os.getpid()}"
        self.made = []
        self.counters = None

    def open(self):
        """Makes it all. Raises NetworkError."""
        if os.geteuid() != 0:
            raise NetworkError("network namespaces need root: run this with sudo")
        for host in ("a", "hub", "b"):
            self._ip("netns", "add", self.name(host))
            self.made.append(host)
        for host in self.made:
            self.inside(host, quiet_namespace)
            self._ip("-n", self.name(host), "link", "set", "lo", "up")
        for host in ("a", "b"):
            self._pair(host)
        self.counters = self.inside("hub", lambda: open("/proc/thread-self/net/dev", "rb", buffering=0))

    def _pair(self, host):
        own, hubs = MAC[host]
        self._ip("link", "add", "hub", "address", own, "netns", self.name(host), "type", "veth",
                 "peer", "name", LINK[host], "address", hubs, "netns", self.name("hub"))
        ends = ((host, "hub", ADDRESS[host], HUB_FOR[host], hubs), ("hub", LINK[host], HUB_FOR[host], ADDRESS[host], own))
        for at, device, address, other, other_mac in ends:
            self._ip("-n", self.name(at), "addr", "add", f"{address}/30", "dev", device)
            self._ip("-n", self.name(at), "link", "set", device, "up")
            self._ip("-n", self.name(at), "neigh", "replace", other, "lladdr", other_mac, "dev", device, "nud", "permanent")

    def _ip(self, *words):
        try:
            done = subprocess.run(["ip", *words], capture_output=True, text=True)
        except FileNotFoundError:
            raise NetworkError("`ip` is missing: apt-get install iproute2") from None
        if done.returncode != 0:
            raise NetworkError(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def name(self, host):
        return f"{self.prefix}-{host}"

    def enter(self, host):
        """The words that run a command on this host; the command keeps the process id."""
        return ["nsenter", f"--net=/run/netns/{self.name(host)}", "--"]

    def inside(self, host, action):
        """What `action()` returns when it is run on this host. Sockets and files it opens stay of that host."""
        result = []

        def run():
            try:
                with open(f"/run/netns/{self.name(host)}", "rb") as namespace:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                        raise NetworkError(f"setns: {os.strerror(ctypes.get_errno())}")
                result.append((action(), None))
            except Exception as error:  # handed to the caller's thread
                result.append((None, error))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        value, error = result[0]
        if error:
            raise error
        return value

    def socket(self, host):
        """A TCP socket of this host."""
        return self.inside(host, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))

    def read(self):
        """Bytes so far, both directions: {"a": A <-> hub, "b": hub <-> B, "lo": inside of the hub}."""
        text = os.pread(self.counters.fileno(), 65536, 0).decode()
        seen = {}
        for name, numbers in re.findall(r"^\s*(\S+):\s*(.*)$", text, re.M):
            values = numbers.split()
            received, sent = int(values[0]), int(values[8])
            if name == "lo":
                seen["lo"] = sent  # each packet is sent and received here
            elif name in LINK.values():
                seen[name.removeprefix("to-")] = received + sent
        return seen

    def processes(self):
        """Ids of what still runs on the three hosts: all of it was started by this program."""
        found = []
        for host in self.made:
            listed = subprocess.run(["ip", "netns", "pids", self.name(host)], capture_output=True, text=True)
            found += [int(word) for word in listed.stdout.split()]
        return [pid for pid in found if pid != os.getpid()]

    def close(self):
        """Removes the namespaces, and with them the links."""
        if self.counters:
            self.counters.close()
            self.counters = None
        for host in self.made:
            subprocess.run(["ip", "netns", "del", self.name(host)], capture_output=True)
        self.made = []


def quiet_namespace():
    """No IPv6 in the namespace of this thread: its neighbour discovery would be counted."""
    for scope in ("all", "default"):
        try:
            with open(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6", "w", encoding="ascii") as setting:
                setting.write("1")
        except FileNotFoundError:
            pass
