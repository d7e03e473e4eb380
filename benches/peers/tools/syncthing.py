"""Syncthing: three of them, A and B know only the hub. No relays, discovery, port mapping, reports or upgrades; the
watcher's delay is the smallest that this version takes (1 s, or 0.1 s where fractions are understood)."""

import http.client
import json
import os
import re
import xml.etree.ElementTree as xml

from processes import wait_until
from tools.base import Tool

PORT = 22000
GUI = "127.0.0.1:8384"
KEY = "peers"
OFF = {
    "globalAnnounceEnabled": "false", "localAnnounceEnabled": "false", "relaysEnabled": "false", "natEnabled": "false",
    "startBrowser": "false", "urAccepted": "-1", "urSeen": "9999", "crashReportingEnabled": "false", "autoUpgradeIntervalH": "0",
    "setLowPriority": "false", "reconnectionIntervalS": "1", "stunServer": "", "stunKeepaliveStartS": "0",
    "progressUpdateIntervalS": "-1", "announceLANAddresses": "false",
}


class Syncthing(Tool):
    program = "syncthing"
    install = "apt-get install syncthing"
    live = True

    def __init__(self, name, label):
        super().__init__(name, label)
        self.running = {}
        self.ids = {}

    def _delay_seconds(self):
        found = re.search(r"v(\d+)\.(\d+)", self.version())
        return "0.1" if found and (int(found[1]), int(found[2])) >= (1, 25) else "1"

    def open(self):
        self.running, self.ids = {}, {}
        for host in ("a", "hub", "b"):
            home = self._config(host)
            self.s.run([self.path(), "generate", f"--home={home}", "--no-default-folder"], "hub", self.s.home(host))
            self.ids[host] = xml.parse(f"{home}/config.xml").getroot().find("device").get("id")
        for host in ("a", "hub", "b"):
            self._configure(host)
        self._start("hub")

    def _config(self, host):
        return f"{self.s.home(host)}/syncthing"

    def _configure(self, host):
        path = f"{self._config(host)}/config.xml"
        tree = xml.parse(path)
        root = tree.getroot()
        options = root.find("options")
        for name, value in OFF.items():
            field = options.find(name)
            if field is not None:
                field.text = value
        options.find("listenAddress").text = f"tcp://0.0.0.0:{PORT}" if host == "hub" else f"tcp://{self.s.address(host)}:{PORT}"
        gui = root.find("gui")
        gui.find("address").text, gui.find("apikey").text = GUI, KEY
        for device in root.findall("device"):
            root.remove(device)
        known = ["a", "hub", "b"] if host == "hub" else [host, "hub"]
        for other in known:
            device = xml.SubElement(root, "device", id=self.ids[other], name=other, compression="metadata")
            where = f"tcp://{self.s.hub_address(host)}:{PORT}" if other == "hub" and host != "hub" else "dynamic"
            xml.SubElement(device, "address").text = where
        folder = xml.SubElement(root, "folder", id="peers", label="peers", path=self._folder(host), type="sendreceive",
                                rescanIntervalS="3600", fsWatcherEnabled="true", fsWatcherDelayS=self._delay_seconds())
        for other in known:
            xml.SubElement(folder, "device", id=self.ids[other])
        os.makedirs(f"{self._folder(host)}/.stfolder", exist_ok=True)
        tree.write(path)

    def _folder(self, host):
        return {"a": self.s.a, "hub": self.s.hub, "b": self.s.b}[host]

    def _start(self, host):
        words = [self.path(), "serve", f"--home={self._config(host)}", "--no-browser", "--no-restart"]
        extra = {"STNOUPGRADE": "1", "STNORESTART": "1"}
        self.running[host] = self.s.processes.start(words, host, self.s.home(host), self.s.log, extra=extra)

    def _ask(self, host, what):
        """The answer of the REST interface, or None while there is none."""
        try:
            wire = self.s.network.socket(host)
            wire.settimeout(5)
            wire.connect(("127.0.0.1", 8384))
            asking = http.client.HTTPConnection(GUI)
            asking.sock = wire
            asking.request("GET", f"/rest/{what}", headers={"X-API-Key": KEY})
            return json.loads(asking.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException):
            return None

    def _connected(self, host, other):
        told = self._ask(host, "system/connections") or {}
        return told.get("connections", {}).get(self.ids[other], {}).get("connected", False)

    def go_live_on_b(self):
        self._start("b")
        wait_until(lambda: self._connected("hub", "b"), 60, "syncthing: B and hub connected", 0.1)

    def go_live_on_a(self):
        self._start("a")

    def client_pid(self):
        return self.running["a"].pid if "a" in self.running else None

    def hub_pid(self):
        return self.running["hub"].pid
