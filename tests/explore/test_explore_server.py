"""The explore page's server, the file it is exported to, and the command."""

import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from bench.core.errors import EnvironmentFault, UserError
from bench.explore import grid as explore_grid
from bench.explore import page as explore_page
from bench.explore import worker as explore_worker
from bench.explore.data import read_table
from bench.explore.grid import asked_of
from bench.explore.published import published_source
from bench.explore.server import ExploreServer
from bench.explore.whatif import Answers
from bench.studies.pencil import demand
from support.explore import EVIL, InProcess, ask, evil, lines, rewrite
from support.paths import ROOT


@pytest.fixture
def server(results):
    with ExploreServer(results) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


def get(
    server, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return reply.status, dict(reply.getheaders()), body


def test_only_this_machine_is_served(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert get(server, "/")[0] == 200
    for host in (
        "evil.example",
        "evil.example:80",
        f"127.0.0.1.evil.example:{server.server_address[1]}",
        "127.0.0.1",
        "",
    ):
        assert get(server, "/api/table", Host=host)[0] == 403


def test_every_answer_forbids_other_sources(server):
    for path in ("/", "/explore.js", "/api/table", "/nothing"):
        headers = get(server, path)[1]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "unsafe-inline" not in headers["Content-Security-Policy"].split("script-src")[1]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/cpu/real/records.jsonl",
        "/explore.html.j2",
        "/explore.js/../../cli.py",
        "/..%5c..%5cetc",
        "/api",
        "/api/table/x",
        "/explore_server.py",
    ],
)
def test_nothing_else_is_served(server, path):
    assert get(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_changed(server, method):
    assert get(server, "/api/table", method)[0] == 501


def test_the_table_is_read_again_when_a_file_changed(server, results):
    first = json.loads(get(server, "/api/table")[2])
    assert first["rows"] == len(read_table(results))
    assert first["grid"] is None
    assert first["choices"]["demand"]["minutes_per_day"] == demand.Demand().minutes_per_day
    rewrite(results, [r for r in lines(results) if r["kind"] == "point"][:1], "cpu/more")
    assert json.loads(get(server, "/api/table")[2])["rows"] == first["rows"] + 1


def test_an_estimate_by_the_server(server, results):
    server.worker = InProcess(results)
    query = "calibration=cpu%2Freal&model=tiny&width=64&height=64&seconds=2&fps=8&steps=20"
    status, _, body = get(server, f"/api/estimate?{query}")
    assert status == 200
    assert json.loads(body) == json.loads(json.dumps(Answers(results).with_cards(ask())))
    status, _, body = get(server, f"/api/estimate?{query}&model=%3Cscript%3E")
    assert (status, "unknown model" in json.loads(body)["error"]) == (400, True)
    assert get(server, "/api/estimate?" + "a" * 5000)[0] == 400
    assert get(server, "/api/estimate")[0] == 400


@pytest.mark.slow
def test_the_worker_answers_and_drops_what_is_outdated(results):
    worker = explore_worker.Worker(results)
    try:
        assert worker.ask(ask()) == Answers(results).with_cards(ask())
        with pytest.raises(UserError, match="did you mean tiny"):
            worker.ask(ask(model="tiney"))
    finally:
        worker.close()


def test_a_port_that_is_taken_is_the_machines_fault(server, results):
    with pytest.raises(EnvironmentFault, match="leave --port out"):
        ExploreServer(results, server.server_address[1])


class Loads(HTMLParser):
    """What a page would load, and the scripts in it."""

    def __init__(self):
        super().__init__()
        self.loads, self.scripts, self.policy = [], 0, ""

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.scripts += tag == "script"
        self.loads += [
            v
            for k, v in attributes.items()
            if k in ("src", "href", "srcset", "data", "action", "poster") and v
        ]
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]


def test_an_exported_page_needs_nothing_and_runs_nothing_of_a_record(results):
    evil(results)
    page = explore_page.exported_page(explore_page.document(read_table(results), None))
    assert EVIL not in page
    assert "<img" not in page.split('id="data">')[1].split("</script>")[0]
    seen = Loads()
    seen.feed(page)
    assert seen.loads == ["data:,", "#question"]  # no favicon is asked for; a place in the page
    assert seen.scripts == 4  # data, plotly, DataTables, ours
    assert seen.policy.startswith("default-src 'none'")
    assert "connect-src" not in seen.policy
    assert seen.policy.count("'sha256-") == 3
    for name in explore_page.STYLES:
        assert "@import" not in explore_page.asset(name)
        assert "url(http" not in explore_page.asset(name).replace('"', "")
    shown = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert EVIL in shown["columns"]["model"]["words"]


def test_the_scripts_of_others_are_as_their_makers_publish_them():
    """vendor/README.md has their hashes; a changed byte is no longer theirs."""
    folder = Path(explore_page.__file__).parent / "vendor"
    told = re.findall(r"`([0-9a-f]{64})`", (folder / "README.md").read_text())
    files = ("plotly.js", "datatables.js", "datatables.css")
    assert told == [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files]
    assert "globalThis.DataTable=" in explore_page.asset("tables.js")


def test_a_page_without_results_still_answers(here, tmp_path, monkeypatch):
    """A user of pip has no results yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explore_grid, "MODELS", ("wan2.1-t2v-14b",))
    monkeypatch.setattr(explore_grid, "PROCESSES", 1)
    code, out, err = here("explore", "--export", str(tmp_path / "page.html"), "--json")
    assert code == 0, err
    assert (json.loads(out)["points"], json.loads(out)["cells"] > 50) == (0, True)


def test_an_exported_page_links_the_reports_beside_it(results, tmp_path):
    """As the project's site has them: the page above the results."""
    (results / "cpu/real/report.html").write_text("report")
    rewrite(results, [], "cpu/javascript:alert(1)")
    (results / "cpu/javascript:alert(1)/report.html").write_text("report")
    links = explore_page.report_links(results, results.parent / "index.html")
    assert links["cpu/real"] == "./results/cpu/real/report.html"
    assert all(link.startswith("./") for link in links.values())
    assert all((results.parent / unquote(link)).is_file() for link in links.values())
    assert len(links) == 2
    shown = explore_page.document(read_table(results), None, links)
    assert shown["reports"] == links


def test_a_hundred_results_are_under_three_megabytes(results, monkeypatch):
    """By default, with the grid of all models and cards."""
    for i in range(100):
        points = [r for r in lines(results) if r["kind"] == "point"] * 5
        records = [point | {"fingerprint": f"{i} {k}"} for k, point in enumerate(points)]
        rewrite(results, records, f"h100-sxm/{i}")
    asked = asked_of([published_source()], ["wan2.1-t2v-14b"], [])
    one = explore_grid.grid(results, asked, processes=1)
    models = len(explore_grid.MODELS)
    one["cells"] = one["cells"] * models
    table = read_table(results)
    assert len(table) > 2000
    page = explore_page.exported_page(explore_page.document(table, one))
    assert len(page.encode()) < 3e6


def test_export_by_the_command(here, results, tmp_path, monkeypatch):
    monkeypatch.setattr(explore_grid, "sizes_of", lambda model: [(64, 64)])
    monkeypatch.setattr(explore_grid, "SECONDS", (0.5, 1.0))
    monkeypatch.setattr(explore_grid, "SECONDS_TO_COUNT", (0.5, 1.0))
    monkeypatch.setattr(explore_grid, "PROCESSES", 1)
    monkeypatch.setattr(explore_grid, "GUIDANCES", ("cfg",))
    page = tmp_path / "page.html"
    code, out, err = here(
        "explore", "--results", str(results), "--export", str(page), "-m", "tiny", "--json"
    )
    assert code == 0, err
    said = json.loads(out)
    assert said["bytes"] == page.stat().st_size
    by_records, by_others = 1, len(published_source()["cards"])
    assert (said["cells"], said["cells_missing"]) == (by_records + by_others, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--results", "/nowhere"], "no such directory"),
        (["--export", "x.html", "--results", ".", "-m", "tiney"], "did you mean tiny"),
        (["--results", ".", "--gpu", "h100-sxm"], "go with --export"),
        (["--results", ".", "--export", "."], "expected a file, found a directory"),
    ],
)
def test_mistakes_are_said_in_one_line(here, arguments, said):
    code, _, err = here("explore", *arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_a_line_that_is_no_address_is_400(server):
    """`GET http://[ HTTP/1.1` printed a traceback once."""
    import socket

    host = f"127.0.0.1:{server.server_address[1]}"
    with socket.create_connection(server.server_address[:2], timeout=10) as raw:
        raw.sendall(f"GET http://[ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200)]
)
def test_another_site_asks_for_nothing(server, site, status):
    assert get(server, "/api/table", **{"Sec-Fetch-Site": site})[0] == status


def test_two_hundred_connections_at_once_are_answered(server):
    """23 of 200 were not, with a listen backlog of five."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda _: get(server, "/explore.js")[0], range(200)))
    assert answers == [200] * 200


def test_ctrl_c_ends_an_export_and_its_processes(tmp_path):
    """It waited for ever once: the pool's processes had taken the signal too."""
    page = tmp_path / "page.html"
    asked = [sys.executable, "-m", "bench.cli", "explore", "--export", str(page)]
    ran = subprocess.Popen(
        asked, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    assert ran.stderr.readline().startswith("[0/")  # the processes compute
    os.killpg(ran.pid, signal.SIGINT)
    _, said = ran.communicate(timeout=30)
    assert ran.returncode == 130
    assert "Traceback" not in said
    assert not page.exists()
    assert ends(ran.pid)  # none of its group is left


def ends(group: int, within_s: float = 10.0) -> bool:
    """Multiprocessing's own tracker takes a moment to see that the others are gone."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
