"""The explore page: its table, its answers, its server, and the file it is exported to."""

import http.client
import importlib.util
import json
import shutil
import threading
from html.parser import HTMLParser

import pytest

from bench.calibrate.estimate import estimate
from bench.calibrate.read import read_calibration
from bench.core.errors import EnvironmentFault, UserError
from bench.explore import data as explore_data
from bench.explore import grid as explore_grid
from bench.explore import page as explore_page
from bench.explore import whatif as explore_whatif
from bench.explore.data import read_table
from bench.explore.grid import grid, left_out_errors
from bench.explore.server import ExploreServer
from bench.explore.whatif import Answers
from bench.results.store import point_records, read_records
from bench.studies.pencil import demand
from support.explore import EVIL, InProcess, ask, evil, lines, rewrite

# The table


def test_the_table_says_what_the_records_say(results):
    table, records = read_table(results), point_records(read_records(results / "cpu/real"))
    assert len(table) == len(records)
    assert table.problems == []
    for i, record in enumerate(records):
        row = {name: column[i] for name, column in table.columns.items()}
        assert (row["model"], row["workload"], row["tokens"]) == (
            record.model,
            record.workload,
            record.tokens,
        )
        step = record.timings["denoise_step"]
        assert (row["step_s"], row["step_low_s"], row["step_high_s"], row["n"]) == (
            step.median_s,
            step.low_s,
            step.high_s,
            step.n,
        )
        assert row["flops_per_s"] == record.counts["denoise_step"].flops / step.median_s
        assert row["result"] == "cpu/real"


def test_a_whole_video_is_the_sum_of_its_stages(results):
    table = read_table(results)
    i = next(i for i, m in enumerate(table.columns["minutes"]) if m is not None)
    record = point_records(read_records(results / "cpu/real"))[i]
    workload, stages = (
        record.point["workload"],
        {name: t.median_s for name, t in record.timings.items()},
    )
    seconds = workload["steps"] * stages["denoise_step"] + stages["vae_decode"]
    seconds += stages["text_encode"] * (2 if workload["guidance"] == "cfg" else 1)
    assert table.columns["video_s"][i] == pytest.approx(seconds)
    assert table.columns["minutes"][i] == pytest.approx(
        workload["frames"] / workload["fps"] * 60 / seconds
    )
    assert (
        table.columns["minutes_low"][i]
        < table.columns["minutes"][i]
        < table.columns["minutes_high"][i]
    )


@pytest.mark.parametrize(
    "broken",
    [
        '{"schema_version":1,"kind"',
        "[]\n",
        '{"schema_version":1,"kind":"point"}\n',
        "\0\xff\n",
        "9" * 5000 + "\n",
        "[" * 100_000 + "\n",
    ],
)
def test_a_broken_line_is_said_and_the_rest_is_read(results, broken):
    whole = lines(results)
    rewrite(results, [*whole, broken])
    table = read_table(results)
    assert len(table) == sum(r["kind"] == "point" for r in whole)
    assert len(table.problems) == 1
    assert table.problems[0].startswith(f"cpu/real/records.jsonl:{len(whole) + 1}: left out")


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 99},
        {"timings": {"denoise_step": {"median_s": 0.0, "low_s": 0.0, "high_s": 0.0, "n": 1}}},
        {"point": None},
        {"model": 7},
        {"tokens": "many"},
    ],
)
def test_a_record_that_cannot_be_shown_is_said(results, change):
    records = lines(results)
    point = next(r for r in records if r["kind"] == "point")
    point |= change
    rewrite(results, records)
    assert len(read_table(results).problems) == 1


def test_the_last_record_of_a_point_counts(results):
    records = lines(results)
    again = json.loads(json.dumps(next(r for r in records if r["kind"] == "point")))
    again["timings"]["denoise_step"]["median_s"] = 123.0
    before = len(read_table(results))
    rewrite(results, [*records, again])
    assert len(read_table(results)) == before
    assert 123.0 in read_table(results).columns["step_s"]


def test_words_are_named_once(results):
    document = read_table(results).document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    models = document["columns"]["model"]
    assert len(models["words"]) == len(set(models["words"])) < len(models["codes"])
    assert document["calibrations"][0]["id"] == "cpu/real"


def test_hidden_directories_and_links_are_left_out(results, tmp_path):
    shutil.copytree(results / "cpu", results / ".hidden")
    (tmp_path / "outside").mkdir()
    shutil.copytree(results / "cpu", tmp_path / "outside" / "cpu")
    (results / "link").symlink_to(tmp_path / "outside")
    assert set(read_table(results).columns["result"]) == {"cpu/real"}


# What if


def test_an_answer_is_the_estimate_of_that_point(results):
    answer, question = Answers(results).answer(ask()), ask()
    expected = estimate(question.point("eager-fp32"), read_calibration(results / "cpu/real"))
    assert answer["minutes_per_gpu_hour"] == expected.minutes_per_gpu_hour.as_dict()
    assert answer["step_s"] == expected.step_s.as_dict()
    assert answer["provenance"] == expected.provenance
    assert answer["warnings"] == expected.warnings
    assert answer["frames"] == 17  # 16 are asked; the VAE takes 4 k + 1


def test_steps_and_frame_rate_need_no_new_count(results, monkeypatch):
    import bench.count.point as count

    real, counted = count.count_point, []
    monkeypatch.setattr(count, "count_point", lambda point: (counted.append(point), real(point))[1])
    answers = Answers(results)
    first, more = answers.answer(ask()), answers.answer(ask(steps="40"))
    answers.answer(ask(fps="16", seconds="1"))
    assert len(counted) == 1
    assert more["step_s"]["value"] == pytest.approx(first["step_s"]["value"])
    fresh = Answers(results).answer(ask(steps="40"))
    assert fresh == more
    assert len(counted) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"model": "../../etc/passwd"}, "unknown model"),
        ({"model": "/tmp/x.yaml"}, "unknown model"),
        ({"model": "tiney"}, "did you mean tiny"),
        ({"calibration": "../../etc"}, "no result"),
        ({"calibration": "cpu"}, "no result"),
        ({"calibration": "/"}, "no result"),
        ({"recipe": "fp99"}, "not calibrated"),
        ({"gpu": "h1000"}, "did you mean"),
        ({"guidance": "yes"}, "none, cfg"),
        ({"width": "65"}, "65"),
        ({"frames": "7"}, "unknown field"),
        ({"width": "ten"}, "not a number"),
        ({"steps": "-1"}, "between"),
        ({"seconds": "nan"}, "between"),
        ({"fps": "inf"}, "between"),
        ({"width": "999968", "height": "999968", "seconds": "1000"}, "pixels"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(results, words, said):
    with pytest.raises(UserError, match=said):
        Answers(results).answer(ask(**words))


def test_the_grid_holds_exact_answers_and_says_how_well_it_interpolates(results, monkeypatch):
    monkeypatch.setattr(explore_grid, "SIZES", ((64, 64), (65, 64)))
    monkeypatch.setattr(explore_grid, "SECONDS", (0.5, 1.0, 2.0))
    monkeypatch.setattr(explore_grid, "GUIDANCES", ("none",))
    cells = grid(results, read_table(results).calibrations, ["tiny"], [None])
    assert {(c["width"], c["guidance"]) for c in cells["cells"]} == {(64, "none")}
    assert {(c["width"], c["guidance"]) for c in cells["missing"]} == {(65, "none")}
    assert all("65" in c["reason"] for c in cells["missing"])
    node = cells["cells"][0]["nodes"][1]
    exact = Answers(results).answer(ask(fps="24", seconds="1", steps="50"))
    assert node["frames"] == exact["frames"] == 25
    assert node["step"][0] * 50 + node["rest"][0] == pytest.approx(exact["video_s"]["value"])
    assert cells["left_out_errors"]["n"] == 1
    assert 0 < cells["left_out_errors"]["worst"] < 1


def test_a_cpus_calibration_answers_for_no_gpu_and_the_panel_offers_none(results, monkeypatch):
    """Refused before anything is counted; an exported page has the reason in the place of the
    cell."""
    monkeypatch.setattr(Answers, "_count", lambda self, point: pytest.fail("counted in vain"))
    refused = (
        r"^a calibration of cpu .* is not carried over to h100-sxm: .*; give a result measured"
    )
    with pytest.raises(UserError, match=refused):
        Answers(results).answer(ask(gpu="h100-sxm"))
    monkeypatch.undo()
    (calibration,) = read_table(results).calibrations
    assert (calibration["kind"], calibration["default_recipe"]) == ("cpu", "eager-fp32")
    offered = [
        g["name"] for g in explore_grid.choices()["gpus"] if g["kind"] == calibration["kind"]
    ]
    assert offered == ["cpu"]
    monkeypatch.setattr(explore_grid, "SIZES", ((64, 64),))
    monkeypatch.setattr(explore_grid, "GUIDANCES", ("none",))
    cells = grid(results, [calibration], ["tiny"], ["h100-sxm"])
    assert cells["cells"] == []
    assert "is not carried over to h100-sxm" in cells["missing"][0]["reason"]


def test_left_out_errors_are_those_of_a_power_law():
    nodes = [{"frames": f, "step": [float(f) ** 1.5] * 3} for f in (10, 20, 40, 80)]
    assert left_out_errors([{"nodes": nodes}])["worst"] == pytest.approx(0, abs=1e-12)
    nodes[1]["step"][0] *= 2
    errors = left_out_errors([{"nodes": nodes}])
    assert errors["worst"] == pytest.approx(0.5)  # a half of the doubled one is foreseen, and its
    assert errors["mean"] == pytest.approx(
        (0.5 + 2**0.5 - 1) / 2
    )  # neighbour by the root of two too much


# The server


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
    assert json.loads(body) == json.loads(json.dumps(Answers(results).answer(ask())))
    status, _, body = get(server, f"/api/estimate?{query}&model=%3Cscript%3E")
    assert (status, "unknown model" in json.loads(body)["error"]) == (400, True)
    assert get(server, "/api/estimate?" + "a" * 5000)[0] == 400
    assert get(server, "/api/estimate")[0] == 400


@pytest.mark.slow
def test_the_worker_answers_and_drops_what_is_outdated(results):
    worker = explore_whatif.Worker(results)
    try:
        assert worker.ask(ask()) == Answers(results).answer(ask())
        with pytest.raises(UserError, match="did you mean tiny"):
            worker.ask(ask(model="tiney"))
    finally:
        worker.close()


def test_a_port_that_is_taken_is_the_machines_fault(server, results):
    with pytest.raises(EnvironmentFault, match="leave --port out"):
        ExploreServer(results, server.server_address[1])


# The exported file


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
    assert seen.loads == ["data:,"]  # no favicon is asked for
    assert seen.scripts == 4  # data, plotly, DataTables, ours
    assert seen.policy.startswith("default-src 'none'")
    assert "connect-src" not in seen.policy
    assert seen.policy.count("'sha256-") == 3
    for name in explore_page.STYLES:
        assert "@import" not in explore_page.asset(name)
        assert "url(http" not in explore_page.asset(name).replace('"', "")
    shown = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert EVIL in shown["columns"]["model"]["words"]


def test_export_by_the_command(here, results, tmp_path, monkeypatch):
    monkeypatch.setattr(explore_grid, "SIZES", ((64, 64),))
    monkeypatch.setattr(explore_grid, "SECONDS", (0.5, 1.0))
    monkeypatch.setattr(explore_grid, "GUIDANCES", ("cfg",))
    page = tmp_path / "page.html"
    code, out, err = here(
        "explore", "--results", str(results), "--export", str(page), "-m", "tiny", "--json"
    )
    assert code == 0, err
    said = json.loads(out)
    assert said["bytes"] == page.stat().st_size
    assert (said["cells"], said["cells_missing"]) == (1, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--results", "/nowhere"], "no such directory"),
        (["--export", "x.html", "--results", ".", "-m", "tiney"], "did you mean tiny"),
        (["--results", ".", "--gpu", "h100-sxm"], "go with --export"),
    ],
)
def test_mistakes_are_said_in_one_line(here, arguments, said):
    code, _, err = here("explore", *arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("package", ["plotly", "itables", "msgspec"])
def test_a_missing_package_is_said_with_the_line_that_brings_it(
    here, results, monkeypatch, package
):
    if package == "msgspec":
        monkeypatch.setattr(explore_data, "msgspec", None)
    else:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *rest: None if name == package else find(name, *rest),
        )
    code, _, err = here("explore", "--results", str(results), "--no-browser")
    assert code == 3
    assert f"needs the package {package}: pip install 'ldt-bench[explore]'" in err
