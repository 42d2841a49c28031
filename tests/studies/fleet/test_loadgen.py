"""MLPerf's scenarios by MLCommons' LoadGen: its own log parsed, its summary equal to ours."""

import json
import time

import pytest

from bench.core.errors import UserError
from bench.studies.loadgen.published import mlperf_rows
from bench.studies.loadgen.scenarios import Asked, run_scenario
from bench.studies.loadgen.summary import parse
from support.cli import cli

SUMMARY = """================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : SingleStream
Mode     : PerformanceOnly
90th percentile latency (ns) : 2000000000
Result is : INVALID
  Min duration satisfied : NO
50.00 percentile latency (ns)   : 1000000000
99.90 percentile latency (ns)   : 3000000000
"""


def test_a_summary_is_read():
    found = parse(SUMMARY)
    assert (found.scenario, found.valid) == ("SingleStream", False)
    assert found.percentiles_s == pytest.approx({0.9: 2.0, 0.5: 1.0, 0.999: 3.0})
    assert found.samples_per_s is None


def test_offline_has_a_rate():
    assert parse(SUMMARY + "Samples per second: 0.0565\n").samples_per_s == 0.0565


def test_what_is_no_summary_is_one_line():
    with pytest.raises(UserError, match="expected LoadGen's summary"):
        parse("hello")


def test_the_published_rows():
    rows = {row.id: row for row in mlperf_rows()}
    assert {row.scenario for row in rows.values()} == {"SingleStream", "Offline"}
    # M0012: DGX B300, 0.0621886628 samples/s = 27.985 videos an hour and GPU
    assert 3600 / rows["M0012"].gpu_seconds == pytest.approx(27.985, rel=1e-3)


@pytest.mark.parametrize("scenario", ["single-stream", "offline", "server"])
def test_loadgen_and_this_side_agree(tmp_path, scenario):
    """A pipeline of 20 ms."""
    pytest.importorskip("mlperf_loadgen")
    asked = Asked(scenario, queries=25, min_s=0.5, target_qps=30.0)
    result = run_scenario(lambda: time.sleep(0.02), asked, tmp_path / scenario)
    own, said = result.own, result.summary
    assert len(own.latencies_s) >= 15
    assert (tmp_path / scenario / "mlperf_log_summary.txt").is_file()
    for share in (0.5, 0.9):
        # the two clocks start 1 ms apart at most
        assert own.percentile_s(share) == pytest.approx(said.percentiles_s[share], abs=5e-3)
    if scenario == "offline":
        assert own.samples_per_s == pytest.approx(said.samples_per_s, rel=0.05)


def test_a_pipeline_that_fails_ends_the_run(tmp_path):
    pytest.importorskip("mlperf_loadgen")

    def fails():
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        run_scenario(fails, Asked("single-stream", 3, 0.01, 100.0), tmp_path)


def test_the_command_on_tiny(tmp_path):
    pytest.importorskip("mlperf_loadgen")
    done = cli(
        *("loadgen", "tiny", "-w", "tiny-image", "--set", "recipe.dtype=fp32", "--device", "cpu"),
        *("--queries", "3", "--min-time", "1s", "--out", str(tmp_path), "--json"),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["scenario"] == "SingleStream"
    ours, theirs = (document[side]["percentiles_s"]["0.9"] for side in ("here", "loadgen"))
    assert ours == pytest.approx(theirs, rel=0.05, abs=5e-3)
    assert document["published"]


def test_mistakes_are_one_line():
    done = cli("loadgen", "tiny", "-w", "tiny-clip", "--scenario", "offlin")
    assert done.returncode == 2
    assert "did you mean offline?" in done.stderr
