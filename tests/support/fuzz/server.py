"""Fuzzed requests to the server of the explore page, byte by byte."""

import contextlib
import shutil
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from hypothesis import strategies as st

from bench.explore.whatif import Question
from support.fuzz.values import SCALARS, TEXT
from support.paths import ROOT

FOUND = {100, 200, 400, 403, 404, 405, 414, 431, 501, 503, 505}
FIELDS = [*Question.__dataclass_fields__, "other", ""]
ANSWERED = {"calibration": "cpu/real", "model": "tiny", "width": "64", "height": "64"}
ANSWERED |= {"seconds": "1", "fps": "8", "steps": "20"}
QUERIES = st.tuples(st.booleans(), st.dictionaries(st.sampled_from(FIELDS), SCALARS, max_size=3))
PATHS = st.one_of(
    st.sampled_from(["/", "/api/table", "/api/estimate", "/explore.js", "/../../etc/passwd", "*"]),
    TEXT,
)
HEADERS = st.dictionaries(
    st.sampled_from(["Host", "Sec-Fetch-Site", "Content-Length", "Connection", "Expect", "X"]),
    st.one_of(TEXT, st.sampled_from(["same-origin", "cross-site", "-1", "close", "100-continue"])),
    max_size=2,
)
REQUESTS = st.one_of(
    st.tuples(st.just("GET"), st.just("/api/estimate"), QUERIES, st.just({})),
    st.tuples(st.sampled_from(["GET", "HEAD", "POST", "", "é"]), PATHS, QUERIES, HEADERS),
)


def request(port: int, case: tuple) -> bytes:
    method, path, (good, fields), headers = case
    asked = (ANSWERED if good else {}) | {name: str(value) for name, value in fields.items()}
    encoded = [f"{name}={quote(text, safe='', errors='replace')}" for name, text in asked.items()]
    named = {"Host": f"127.0.0.1:{port}"} | headers
    lines = [f"{method} {path}?{'&'.join(encoded)} HTTP/1.1"]
    lines += [f"{name}: {text}" for name, text in named.items()]
    return "\r\n".join([*lines, "", ""]).encode(errors="replace")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Callable[[tuple], None]]:
    """A server of one committed result -> what sends it a case."""
    from bench.explore.server import ExploreServer
    from support.explore import InProcess

    tracebacks: list[str] = []

    class Watched(ExploreServer):
        def handle_error(self, request, client_address):
            tracebacks.append(traceback.format_exc())

    (calibrated,) = (ROOT / "results/cpu").glob("*_calibrate-cpu")
    kept = shutil.ignore_patterns("figures", "report.*")
    shutil.copytree(calibrated, folder / "results/cpu/real", ignore=kept)
    with Watched(folder / "results") as server:
        server.worker = InProcess(folder / "results")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        port = server.server_address[1]

        def send(case: tuple) -> None:
            reply = _exchanged(port, request(port, case))
            assert not tracebacks, tracebacks.pop()
            # The oldest HTTP has no status line: what is no request at all is answered in it.
            first = reply.split(b"\r\n", 1)[0].split(b" ")
            assert first[0] != b"HTTP/1.1" or int(first[1]) in FOUND, reply[:300]

        yield send
        server.shutdown()


def _exchanged(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        reply = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(2**16):
                reply += chunk
    return reply
