"""The programs that are compared: one class each. `all_tools()` lists one object per line of the tables."""

from tools import copy, dropblock, rsync, stores, syncthing, unison


def all_tools():
    """Every tool, in the order of the tables, installed or not."""
    return [
        dropblock.Dropblock("dropblock", "dropblock once, TLS 1.3"),
        dropblock.Dropblock("dropblock-live", "dropblock live, TLS 1.3", live=True),
        dropblock.Dropblock("dropblock-plain", "dropblock once, plain, loopback", place="lo"),
        dropblock.Dropblock("dropblock-plain-live", "dropblock live, plain, loopback", place="lo", live=True),
        rsync.Rsync("rsync", "rsync -a --delete, plain", []),
        rsync.Rsync("rsync-z", "rsync -az --delete, plain", ["-z"]),
        rsync.Rsync("rsync-fsync", "rsync -a --delete --fsync, plain", ["--fsync"]),
        rsync.Rsync("rsync-lo", "rsync -a --delete, plain, loopback", [], place="lo"),
        unison.Unison("unison", "unison, plain socket"),
        syncthing.Syncthing("syncthing", "Syncthing live, TLS 1.3"),
        stores.Restic("restic", "restic, store on the same disk, no network"),
        stores.Casync("casync", "casync, store on the same disk, no network"),
        copy.Copy("copy", "floor: plain copy over a socket, fsync"),
    ]
