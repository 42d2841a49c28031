"""The whole way, as a user runs it: what is measured, what is an outcome, what is said at the
end."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

import bench.measure.worker.jobs
from bench.core.errors import UserError
from bench.core.load import load
from bench.core.specs.suite import Suite
from bench.measure.errors import Unsupported
from bench.measure.worker.jobs import Session, answer
from bench.measure.worker.protocol import MeasureCeilings
from bench.report.documents import run_failed
from bench.results.records import OUTCOMES, CeilingsRecord
from bench.results.store import RECORDS, SAMPLES, point_records, read_records
from bench.run.jobs import suite_jobs
from support.cli import FIVE_POINTS, variant
from support.paths import ROOT
from support.records import ceilings_record, point_record


def test_the_last_line_on_stdout_is_the_summary(measured):
    directory, done = measured
    summary = json.loads(done.stdout.splitlines()[-1])
    assert Path(summary["result_dir"]) == directory
    assert Path(summary["report"]).is_file()
    assert set(summary["outcomes"]) == set(OUTCOMES)
    assert (
        summary["outcomes"]["ok"] + summary["outcomes"]["unstable"] == 6
    )  # the machine may be busy
    headline = summary["headline"]
    assert (headline["model"], headline["workload"], headline["gpu"]) == (
        "tiny",
        "tiny-image",
        "cpu",
    )
    assert headline["provenance"] == "measured"
    minutes = headline["minutes_per_gpu_hour"]
    assert 0 < minutes["low"] <= minutes["value"] <= minutes["high"]


def test_the_headline_is_the_sum_of_its_measured_stages(measured):
    directory, done = measured
    headline = json.loads(done.stdout.splitlines()[-1])["headline"]
    record = point_records(read_records(directory))[0]
    t = {stage: timing.median_s for stage, timing in record.timings.items()}
    video_s = (
        20 * t["denoise_step"] + t["vae_decode"] + t["text_encode"]
    )  # tiny-image: 20 steps, no guidance
    assert headline["video_s"]["value"] == pytest.approx(video_s)
    assert headline["minutes_per_gpu_hour"]["value"] == pytest.approx(
        1 / 8 / 60 * 3600 / video_s
    )  # one frame at 8 fps


def test_records_hold_raw_samples_environment_and_counts(measured):
    directory, _ = measured
    records = read_records(directory)
    assert isinstance(records[0], CeilingsRecord)
    assert {p.kind for p in records[0].probes} == {
        "gemm",
        "attention",
        "conv3d",
        "copy",
        "triad",
        "read",
        "write",
        "fresh_write",
        "activation",
        "small_conv3d",
    }
    rounds = [json.loads(line) for line in (directory / SAMPLES).read_text().splitlines()]
    for record in point_records(records):
        assert record.environment.device == "cpu"
        assert record.environment.torch
        assert record.environment.code_version
        assert record.memory.peak_allocated > record.memory.weights
        for stage, timing in record.timings.items():
            assert timing.n == len(timing.samples_s) >= 3
            assert timing.warmup_s
            flushed = [
                s
                for r in rounds
                if (r["fingerprint"], r["stage"]) == (record.fingerprint, stage)
                for s in r["samples_s"]
            ]
            assert flushed == timing.samples_s
            assert record.counts[stage].flops > 0
    text = (directory / RECORDS).read_text()
    for private in (os.uname().nodename, str(Path.home()), str(ROOT)):
        assert private not in text or len(private) < 4


def test_calibration_and_report_are_there(all_draws, measured, here):
    directory, _ = measured
    made = (directory / "calibration.json").stat().st_mtime
    if made > (directory / "report.md").stat().st_mtime:
        here("report", str(directory))  # another test calibrated anew
    report = (directory / "report.md").read_text()
    for words in (
        "(measured)",
        "interval of the medians",
        "leave one out",
        "baseline",
        "claimed",
        "To reproduce",
    ):
        assert words in report
    for figure in ("latency_vs_tokens", "predicted_vs_measured", "waterfall"):
        assert f"figures/{figure}.png" in report
        assert (directory / "figures" / f"{figure}.png").stat().st_size > 5000
        assert (directory / "figures" / f"{figure}.svg").read_text().startswith("<?xml")
    page = (directory / "report.html").read_text()
    assert "leave one out" in page
    assert len(page) < 1_000_000
    assert here("report", str(directory))[0] == 0
    printed = (directory / "report.md").read_text()
    assert "[PDF](figures/waterfall.pdf)" in printed  # which `run` leaves out
    assert (directory / "figures/waterfall.pdf").stat().st_size > 5000
    without = re.compile(r", \[PDF\]\([^)]*\)")
    assert without.sub("", printed) == without.sub("", report)


def summary_of(printed: str) -> dict:
    """The JSON document that a run ends with."""
    return json.loads(printed.splitlines()[-1])


def outcomes(printed: str) -> dict[str, str]:
    directory = Path(summary_of(printed)["result_dir"])
    return {r.label: f"{r.outcome}: {r.reason}" for r in point_records(read_records(directory))}


def test_what_cannot_run_is_an_outcome_and_the_suite_goes_on(tmp_path, here, only_svg):
    """Out of memory and an attention backend without a device, then a point that works; the report
    says it all."""
    suite = variant(
        tmp_path,
        points=[
            {
                "model": "tiny",
                "workload": "tiny-image",
                "recipe": "eager-fp32",
                "set": {"denoiser.width": 2**18},
            },
            {
                "model": "tiny",
                "workload": "tiny-image",
                "recipe": "eager-fp32",
                "set": {"recipe.attention": "cudnn"},
            },
            {"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"},
        ],
    )
    code, out, err = here("run", str(suite), "--device", "cpu", "--out", str(tmp_path))
    assert code == 0, err
    oom, unsupported, ok = outcomes(out).values()
    assert oom.startswith("oom: needs at least")
    assert unsupported == "skipped_unsupported: attention cudnn needs CUDA"
    assert ok.startswith(("ok", "unstable"))
    summary = summary_of(out)
    assert summary["outcomes"]["oom"] == summary["outcomes"]["skipped_unsupported"] == 1
    assert "not calibrated" in err  # no ceilings here
    assert "oom: needs at least" in Path(summary["report"]).read_text()


def test_a_point_over_its_time_is_stopped_and_the_next_one_runs(tmp_path, unreported):
    slow = {
        "model": "tiny",
        "workload": "tiny-image",
        "recipe": "eager-fp32",
        "set": {"denoiser.width": 2048, "denoiser.depth": 32, "workload.batch": 64},
    }
    suite = variant(
        tmp_path,
        point_timeout_s=8.0,
        points=[slow, {"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"}],
    )
    code, out, _ = unreported("run", str(suite), "--device", "cpu", "--out", str(tmp_path))
    assert code == 1  # a timeout is no result
    first, second = outcomes(out).values()
    assert first == "timeout: stopped after 8 s"
    assert second.startswith(("ok", "unstable"))


def test_budget_skips_and_says_so_and_resume_measures_the_rest(tmp_path, unreported):
    suite = variant(tmp_path)
    on_cpu = ("run", "--device", "cpu")
    code, out, err = unreported(*on_cpu, str(suite), "--out", str(tmp_path), "--budget", "0.001s")
    assert code == 1, err  # nothing was measured
    assert set(outcomes(out).values()) == {"skipped_budget: the budget is spent"}
    # Its own suite.json says the suite.
    code, out, err = unreported(*on_cpu, "--resume", summary_of(out)["result_dir"])
    assert code == 0, err
    counted = summary_of(out)["outcomes"]
    assert counted["ok"] + counted["unstable"] == 5


def test_a_suites_point_that_cannot_be_run_is_named_before_anything_is_measured(tmp_path, here):
    suite = variant(
        tmp_path,
        points=[
            {
                "model": "tiny",
                "workload": "tiny-clip",
                "recipe": "eager-fp32",
                "set": {"workload.frames": 20},
            }
        ],
    )
    code, _, err = here("run", str(suite), "--device", "cpu", "--out", str(tmp_path / "out"))
    assert code == 2
    assert "nearest: 17 or 21" in err
    assert not (tmp_path / "out").exists()


def test_a_headline_is_its_own_point_and_needs_no_fit(tmp_path, unreported):
    """A user's YAML called like a preset is not the preset; a measured headline stands where too
    little is there to fit."""
    (tmp_path / "tiny.yaml").write_text(
        "extends: tiny\ndescription: another\ndenoiser: {depth: 1}\n"
    )
    stages = ["denoise_step", "vae_decode", "text_encode"]
    point = {"workload": "tiny-image", "recipe": "eager-fp32", "stages": stages}
    suite = variant(
        tmp_path,
        points=[{"model": str(tmp_path / "tiny.yaml"), **point}],
        headline={"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"},
    )
    _, out, _ = unreported("run", str(suite), "--device", "cpu", "--out", str(tmp_path))
    assert summary_of(out)["headline"] is None
    suite = variant(
        tmp_path,
        "own",
        points=[{"model": "tiny", **point}],
        headline={"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"},
    )
    _, out, _ = unreported("run", str(suite), "--device", "cpu", "--out", str(tmp_path))
    assert summary_of(out)["headline"]["provenance"] == "measured"
    both = variant(
        tmp_path,
        "both",
        points=[{"model": m, **point} for m in ("tiny", str(tmp_path / "tiny.yaml"))],
    )
    with pytest.raises(
        UserError, match="two different points are called tiny tiny-image eager-fp32"
    ):
        suite_jobs(load(Suite, str(both)))


def test_points_that_do_not_go_together_go_alone(tmp_path, unreported):
    points = [{**p, "together": True} for p in FIVE_POINTS[:2]]
    points.append({**points[1], "set": {"recipe.attention": "cudnn"}})  # not on a CPU
    suite = variant(tmp_path, points=points)
    _, out, _ = unreported("run", str(suite), "--device", "cpu", "--out", str(tmp_path))
    assert [o.split(":")[0] for o in outcomes(out).values()].count("skipped_unsupported") == 1
    records = point_records(read_records(Path(summary_of(out)["result_dir"])))
    measured = [r for r in records if r.outcome in ("ok", "unstable")]
    assert len(measured) == 2
    assert all(r.memory.peak_allocated for r in measured)


@pytest.mark.parametrize(
    ("outcomes_", "failed"),
    [
        (["ok"], False),
        (["ok", "oom", "skipped_budget", "skipped_unsupported"], False),
        (["ok", "unstable"], False),
        (["ok", "error"], True),
        (["ok", "timeout"], True),
        (["oom"], True),
        (["skipped_budget"], True),
        ([], True),
    ],
)
def test_a_run_fails_where_something_failed_or_nothing_was_measured(outcomes_, failed):
    records = [
        point_record().model_copy(update={"fingerprint": str(i), "outcome": o})
        for i, o in enumerate(outcomes_)
    ]
    ceilings = ceilings_record("ceilings")
    assert run_failed([ceilings, *records]) is failed
    assert run_failed([ceilings.model_copy(update={"outcome": "error"}), *records])
    assert (
        run_failed(
            [*(r.model_copy(update={"outcome": "error"}) for r in records), ceilings, *records]
        )
        is failed
    )


def test_ceilings_leave_out_a_backend_that_the_device_lacks(monkeypatch):
    probed = []
    monkeypatch.setattr(
        bench.measure.worker.jobs,
        "measure_ceilings",
        lambda *args, **_: probed.append(args[3]) or ([], {}, []),
    )

    def ceilings(*recipes):
        plan = {"target_relative_half_width": 0.5, "min_samples": 3, "max_samples": 6, "max_s": 0.2}
        request = MeasureCeilings(sampling=plan, recipes=recipes)
        return answer(request, Session(torch.device("cpu"), None)).left_out

    assert ceilings(["fp32", "auto"], ["bf16", "cudnn"]) == "left out: attention cudnn needs CUDA"
    assert probed == [[("fp32", "auto")]]
    assert ceilings(["fp32", "auto"]) is None
    with pytest.raises(Unsupported, match="attention cudnn needs CUDA"):
        ceilings(["bf16", "cudnn"])
