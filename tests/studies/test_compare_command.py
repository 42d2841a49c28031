"""`compare` on real results, and slowdowns that are planted."""

import json
import shutil

import numpy as np
import pytest

from bench.measure.timing.clock import SLOWDOWN, CpuClock, SlowedClock, planted_slowdown
from bench.measure.timing.sampling import summarise
from bench.results.store import RECORDS
from bench.studies.compare.pair import compare
from bench.studies.compare.verdict import Comparison
from support.records import count, point_record
from support.studies.compare import result, run_at

STAGES = 16


POINT = point_record()


def rewrite(source, target, factor: float, **changed) -> None:
    """A copy of a result whose points take `factor` times as long, with a thousandth of the
    scatter: what else the machine does during the tests is to decide nothing."""
    shutil.copytree(source, target)
    lines = []
    for line in (source / RECORDS).read_text().splitlines():
        record = json.loads(line)
        record["environment"].update(changed)
        record.update({"outcome": "ok", "reason": None} if record["outcome"] == "unstable" else {})
        for stage, t in record.get("timings", {}).items():
            calm = [factor * t["median_s"] * (s / t["median_s"]) ** 0.001 for s in t["samples_s"]]
            record["timings"][stage] = summarise(
                calm, t["warmup_s"], "converged", True
            ).model_dump()
        lines.append(json.dumps(record))
    (target / RECORDS).write_text("\n".join(lines) + "\n")


def test_a_real_result_and_copies_of_it(measured, tmp_path, here):
    rewrite(measured[0], tmp_path / "a", 1.0)
    for name, factor, verdicts, exit_code in (
        ("same", 1.0, {"SAME", "UNCLEAR"}, 0),
        ("slow", 1.1, {"SLOWER"}, 1),
        ("fast", 0.9, {"FASTER"}, 0),
    ):
        rewrite(measured[0], tmp_path / name, factor, code_version=name)
        code, out, _ = here("compare", str(tmp_path / "a"), str(tmp_path / name), "--json")
        document = json.loads(out)
        assert {p["verdict"] for p in document["points"]} <= verdicts
        assert all(p["ratio"] == pytest.approx(factor) for p in document["points"])
        assert len(document["points"]) == 9
        assert code == exit_code
        assert document["code_version"]["b"] == name


def test_the_command(tmp_path, here):
    rng = np.random.default_rng(20)

    def write(name, *args, **kw) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / RECORDS).write_text(
            "".join(r.model_dump_json() + "\n" for r in result(rng, *args, **kw))
        )
        return str(tmp_path / name)

    a, slow, elsewhere = write("a"), write("slow", 1.5), write("elsewhere", threads=99)
    code, out, _ = here("compare", a, slow)
    assert code == 1
    assert "noise floor" in out
    assert "SLOWER: 16 SLOWER; SAME is within ±5.0% (default on cpu)" in out
    code, out, _ = here("compare", a, slow, "--markdown")
    assert code == 1
    assert "| point | stage | a (measured) | b (measured) | b / a (measured) |" in out
    code, out, err = here("compare", a, elsewhere, "--json")
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "threads" in err
    code, out, err = here("compare", a, elsewhere, "--allow-different")
    assert code == 0
    assert "warning: the environments differ: threads" in err
    for wrong in (
        ["compare", a, str(tmp_path)],
        ["compare", a],
        ["compare", a, a, "--history", str(tmp_path)],
        ["compare", a, "--history", str(tmp_path / "nowhere")],
        ["compare", a, "--allow-different"],
        ["compare", a, a, "--threshold", "5"],
    ):
        code, _, err = here(*wrong)
        assert code == 2, err
        assert err.splitlines()[-1].startswith("error: ")


def test_the_command_with_a_history(tmp_path, here):
    rng = np.random.default_rng(18)
    for day in range(1, 8):
        folder = tmp_path / "cpu" / f"run{day}"
        folder.mkdir(parents=True)
        run = run_at(day, rng, 1.2 if day == 7 else 1.0, stages=6)
        (folder / RECORDS).write_text("".join(r.model_dump_json() + "\n" for r in run))
    (tmp_path / "cpu" / "broken").mkdir()
    (tmp_path / "cpu" / "broken" / RECORDS).write_text("{}\n")
    last = str(tmp_path / "cpu" / "run7")
    code, out, err = here("compare", last, "--json")
    document = json.loads(out)
    assert code == 1
    assert document["kind"] == "history"
    assert document["points"][0]["runs"] == 5
    assert "warning: left out" in err
    assert here("compare", last, "--history", str(tmp_path / "cpu"), "--json")[1] == out
    assert here("compare", str(tmp_path / "cpu" / "run6"))[0] == 0


def test_a_planted_slowdown_waits_for_its_share(monkeypatch):
    """On a clock that moves by a tick when it is read."""
    import torch

    ticks = iter(range(10**6))
    monkeypatch.setattr("bench.measure.timing.clock.time.perf_counter", lambda: next(ticks) * 1e-3)

    def call() -> None:
        for _ in range(98):
            next(ticks)

    assert CpuClock().time(call) == pytest.approx(0.099)
    slowed = SlowedClock(CpuClock(), 1.5, torch.device("cpu")).time(call)
    assert slowed == pytest.approx(1.5 * 0.1, rel=0.05)


def test_a_planted_slowdown_is_said_and_checked(monkeypatch):
    import torch

    clock, device = CpuClock(), torch.device("cpu")
    monkeypatch.delenv(SLOWDOWN, raising=False)
    assert planted_slowdown(clock, device) == (clock, None)
    monkeypatch.setenv(SLOWDOWN, "1.10")
    slowed, note = planted_slowdown(clock, device)
    assert slowed.factor == 1.1
    assert note == "not a true time: slowed 1.1 times by LDT_BENCH_TEST_SLOWDOWN, a test hook"
    for wrong in ("x", "0.5", "nan", "inf"):
        monkeypatch.setenv(SLOWDOWN, wrong)
        with pytest.raises(ValueError, match="is not a factor from 1 to 100"):
            planted_slowdown(clock, device)


def test_a_planted_slowdown_is_in_the_record_and_the_ceilings_are_spared(monkeypatch):
    import torch

    from bench.measure.points.single import Measured
    from bench.measure.worker import jobs
    from bench.measure.worker.protocol import MeasureCeilings, MeasurePoint, MeasureTogether
    from bench.results.readings import ColdStart

    monkeypatch.setenv(SLOWDOWN, "1.2")
    clocks = {}

    def ceilings(device, clock, *rest, **kw):
        clocks["ceilings"] = clock
        return [], {}, []

    def point(p, counts, device, clock, *rest, **kw):
        clocks["point"] = clock
        return Measured(
            {}, None, {}, ColdStart(build_s=1.0, first_s={}, process_is_new=False), None, None
        )

    def together(points, counts, device, clock, *rest, **kw):
        clocks["together"] = clock
        return []

    class Counts:
        tokens, stages = 1, {"denoise_step": count(linear_flops=1)}

    monkeypatch.setattr("bench.measure.worker.jobs.measure_ceilings", ceilings)
    monkeypatch.setattr("bench.measure.worker.jobs.measure_point", point)
    monkeypatch.setattr("bench.measure.worker.jobs.measure_together", together)
    monkeypatch.setattr("bench.measure.worker.jobs.count_stages", lambda p: Counts)
    plan = {"target_relative_half_width": 0.1, "min_samples": 3, "max_samples": 3, "max_s": 1.0}
    session = jobs.Session(torch.device("cpu"), CpuClock())
    jobs.answer(MeasureCeilings(recipes=[("fp32", "auto")], sampling=plan), session)
    done = jobs.answer(MeasurePoint(point=POINT.point, sampling=plan), session)
    turns = jobs.answer(MeasureTogether(points=[], sampling=plan, prior=[]), session)
    assert isinstance(clocks["ceilings"], CpuClock)
    assert isinstance(clocks["point"], SlowedClock)
    assert isinstance(clocks["together"], SlowedClock)
    assert done.note == turns.note
    assert done.note.startswith("not a true time")


def test_comparison_says_a_planted_slowdown():
    rng = np.random.default_rng(19)
    note = "not a true time: slowed 1.1 times by LDT_BENCH_TEST_SLOWDOWN, a test hook"
    b = [r if r.kind == "ceilings" else r.model_copy(update={"reason": note}) for r in result(rng)]
    pair: Comparison = compare(result(rng), b)
    assert pair.warnings == [f"b: tiny tiny-clip r0 and 15 more: {note}"]
