"""The floor: one large file through a socket into a file that is then synced to disk; no names, no checks, no deltas."""

import os
import threading

from tools.base import Tool

PORT = 9100
PART_BYTES = 1 << 20


class Copy(Tool):
    durable = True

    def path(self):
        return "built in"

    def version(self):
        return "sendfile, recv, fsync"

    def takes(self, base, step):
        return step.kind == "first" and base.name in ("large", "image", "database")

    def push(self):
        return self._send("a", self.s.a, "hub", self.s.hub)

    def pull(self):
        return self._send("hub", self.s.hub, "b", self.s.b)

    def _send(self, source_host, source, target_host, target):
        name = os.listdir(source)[0]
        address = self.s.hub_address("a") if target_host == "hub" else self.s.address("b")
        with self.s.network.socket(target_host) as listener, self.s.network.socket(source_host) as sender:
            listener.bind((address, PORT))
            listener.listen(1)
            receiver = threading.Thread(target=self._receive, args=(listener, f"{target}/{name}"))
            receiver.start()
            sender.connect((address, PORT))
            with open(f"{source}/{name}", "rb") as file:
                sender.sendfile(file)
            sender.close()
            receiver.join()
        return 0

    @staticmethod
    def _receive(listener, path):
        connection, _ = listener.accept()
        part = bytearray(PART_BYTES)
        with connection, open(path, "wb", buffering=0) as file:
            while count := connection.recv_into(part):
                file.write(memoryview(part)[:count])
            os.fsync(file.fileno())
