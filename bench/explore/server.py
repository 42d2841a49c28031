"""The explore page on 127.0.0.1: a few fixed paths, only GET, nothing from the disk by name.

Other pages in the same browser cannot read it: no CORS header is sent, and a request whose Host is
not this machine's (DNS rebinding) is refused.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from bench.core.errors import EnvironmentFault, UserError
from bench.explore import data as explore_data
from bench.explore import page as explore_page
from bench.explore.whatif import Question
from bench.explore.worker import Superseded, Worker

LOOPBACK = "127.0.0.1"
MAX_QUERY = 4096


class ExploreServer(ThreadingHTTPServer):
    """Serves one results directory.  port 0: a free one."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512  # a browser's connections, and a test's, may come all at once

    def __init__(self, results: Path, port: int = 0):
        self.results, self.worker = results, Worker(results)
        self.page, self.files = explore_page.served_page(), explore_page.served_files()
        self._table: tuple[Any, bytes] | None = None
        self._lock = threading.Lock()
        try:
            super().__init__((LOOPBACK, port), Handler)
        except (OSError, OverflowError) as error:
            raise EnvironmentFault(
                f"port {port} cannot be had:"
                f" {(getattr(error, 'strerror', None) or str(error)).lower()}; leave --port out for"
                " a free one"
            ) from None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def table(self) -> bytes:
        """The table as JSON, read again when a file of it changed."""
        with self._lock:
            now = explore_data.state(self.results)
            if self._table is None or self._table[0] != now:
                self._table = (
                    now,
                    dump(explore_page.document(explore_data.read_table(self.results))),
                )
            return self._table[1]

    def server_close(self) -> None:
        self.worker.close()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closed the connection is no error; all else keeps its traceback."""
        if not isinstance(sys.exc_info()[1], (BrokenPipeError, ConnectionResetError)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """GET of the page, its files, /api/table and /api/estimate; all else is 404 or 501."""

    server: ExploreServer
    server_version, sys_version = "ldt-bench", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{LOOPBACK}:{port}", f"localhost:{port}"):
            return self._send(403, b"this page is this machine's alone", "text/plain")
        if self.headers.get("Sec-Fetch-Site") not in (None, "same-origin", "none"):
            return self._send(403, b"another site asks for it", "text/plain")
        try:
            path, query = urlsplit(self.path).path, urlsplit(self.path).query
        except ValueError:  # http://[
            return self._send(400, b"not an address", "text/plain")
        if path == "/":
            return self._send(200, self.server.page, "text/html; charset=utf-8")
        if path in self.server.files:
            return self._send(200, *self.server.files[path], cache="private, max-age=3600")
        try:
            if path == "/api/table":
                return self._send(200, self.server.table(), "application/json")
            if path == "/api/estimate":
                return self._estimate(query)
        except (BrokenPipeError, ConnectionResetError):
            raise
        except (UserError, EnvironmentFault) as error:
            return self._send(
                400 if isinstance(error, UserError) else 503,
                dump({"error": str(error)}),
                "application/json",
            )
        except (
            Exception
        ) as error:  # a bug, or counters that disagree: said on the page, and the server lives
            self.server.handle_error(self.request, self.client_address)
            return self._send(
                500, dump({"error": f"{type(error).__name__}: {error}"}), "application/json"
            )
        return self._send(404, b"not found", "text/plain")

    def _estimate(self, query: str) -> None:
        if len(query) > MAX_QUERY:
            raise UserError(f"a question of {len(query)} characters; at most {MAX_QUERY} are taken")
        try:
            answer = self.server.worker.ask(Question.of(dict(parse_qsl(query))))
        except Superseded:
            return self._send(409, dump({"error": "a newer question came"}), "application/json")
        self._send(200, dump(answer), "application/json")

    def _send(self, status: int, body: bytes, kind: str, cache: str = "no-store") -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": cache,
            "Content-Security-Policy": explore_page.SERVED_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: the terminal is the user's."""


def dump(document: Any) -> bytes:
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
