"""A web server on this machine that serves a folder, and fails as it is told to."""

import http.server
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Fault = str
"""One word for what goes wrong with a request, see `_Handler.do_GET`."""


class ShardServer(http.server.ThreadingHTTPServer):
    """Serves `folder`; `faults` of a file are met one a request, then it is served as it should be."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.served: Counter[str] = Counter()
        """Whole answers, by file."""
        self.asked: Counter[str] = Counter()
        self.slow_s = 0.0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/shards"

    def fault_of(self, name: str) -> Fault | None:
        with self.lock:
            self.asked[name] += 1
            waiting = self.faults.get(name, [])
            return waiting.pop(0) if waiting else self.always.get(name)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing when a client has left."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ShardServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = os.path.basename(self.path)
        fault = self.server.fault_of(name)
        path = self.server.folder / name
        if fault in ("500", "503", "403"):
            self.send_error(int(fault))
        elif not path.is_file():
            self.send_error(404)
        else:
            time.sleep(self.server.slow_s)
            self.serve(name, path.read_bytes(), fault)

    def serve(self, name: str, data: bytes, fault: Fault | None) -> None:
        whole = data
        if fault == "page":
            data = whole = b"<html>our servers are very sorry</html>"
        if fault == "wrong":
            data = whole = bytes(len(data))
        if fault == "short":
            data = whole = data[: len(data) // 2]
        if fault == "more":
            data = whole = data + bytes(1 << 20)
        if fault in ("cut", "stall"):
            data = data[: len(data) // 2]
        first = self.range_of(len(whole))
        self.send_response(200 if first is None else 206)
        self.send_header("Content-Length", str(len(whole) - (first or 0)))
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}")
        self.end_headers()
        self.wfile.write(data[first or 0 :])
        self.wfile.flush()
        if fault == "stall":
            time.sleep(30)
        if fault in ("cut", "stall"):
            self.close_connection = True
            return
        with self.server.lock:
            self.server.served[name] += 1

    def range_of(self, size: int) -> int | None:
        asked = self.headers.get("Range", "")
        return min(int(asked.removeprefix("bytes=").partition("-")[0]), size) if asked else None

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[ShardServer]:
    """Serve a folder while the block runs."""
    server = ShardServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
