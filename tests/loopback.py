"""A file server on the loopback that can fail in the ways real ones do."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves `files`. `faults[name]` is what goes wrong with the next requests for it, one entry each: an HTTP status,
    "cut" (half of the body, then the connection closes), "stall" (half of it, then silence) or "page" (text/html).
    """

    daemon_threads = True
    request_queue_size = 64  # a connection beyond it waits a second

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list] = defaultdict(list)
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, name: str) -> list[str | None]:
        """The Range headers of the requests for one file."""
        return [byte_range for asked, byte_range in self.requests if asked == name]


class Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # 40 ms a request otherwise

    def do_GET(self):
        name, byte_range = self.path.lstrip("/"), self.headers["Range"]
        self.server.requests.append((name, byte_range))
        fault = self.server.faults[name].pop(0) if self.server.faults[name] else None
        if isinstance(fault, int) or name not in self.server.files:
            return self.send_error(fault or 404)
        content = self.server.files[name]
        start = int(byte_range[len("bytes=") : -1]) if byte_range and self.server.ranges else 0
        if start and start >= len(content):
            return self.answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": 0})
        kind = "text/html" if fault == "page" else "application/octet-stream"
        headers = {"Content-Type": kind, "Content-Length": len(content) - start}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, headers)
        end = (start + len(content)) // 2 if fault in ("cut", "stall") else len(content)
        self.wfile.write(content[start:end])
        if fault == "stall":
            time.sleep(60)

    def answer(self, status: int, headers: dict) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()

    def log_message(self, *arguments):
        pass


@contextmanager
def running() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
