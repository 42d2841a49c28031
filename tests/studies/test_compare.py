"""Verdicts on synthetic pairs at stated error rates, refusals, histories, and a real result against
a copy of itself."""

import json
import shutil

import numpy as np
import pytest

from bench.core.errors import UserError
from bench.measure.timing.clock import SLOWDOWN, CpuClock, SlowedClock, planted_slowdown
from bench.measure.timing.sampling import summarise
from bench.report.tables.comparison import comparison_document, comparison_markdown
from bench.results.records import CeilingsRecord, Probe, SentinelReading
from bench.results.store import RECORDS
from bench.studies.compare.history import compare_history
from bench.studies.compare.pair import compare
from bench.studies.compare.shared import THRESHOLD
from bench.studies.compare.spread import median_error, successive_sd
from bench.studies.compare.verdict import Comparison, judge
from support.records import count, environment, point_record

STAGES = 16
SESSION = 0.01  # what a stage's median moves by from one session to the next, everything else equal
POINT = point_record()


def timing(seconds: float, rng: np.random.Generator, n: int = 20, noise: float = 0.01):
    """Samples whose noise is autocorrelated, as neighbours in time are."""
    x = noise * rng.standard_normal(n)
    for i in range(1, n):
        x[i] = 0.6 * x[i - 1] + 0.8 * x[i]
    return summarise((seconds * np.exp(x)).tolist(), [seconds], "converged", True)


def result(
    rng: np.random.Generator,
    factors=1.0,
    *,
    session: float = SESSION,
    machine: float = 1.0,
    stages: int = STAGES,
    probes: int = 12,
    n: int = 20,
    started: str = "2026-01-01T00:00:00+00:00",
    **changed,
):
    """A result whose stages take 10 ms, 20 ms, ... times their factor; `machine` slows stages and
    probes alike."""
    where = environment().model_copy(update=changed)
    factors = np.broadcast_to(factors, stages)

    def moved() -> float:
        return machine * float(np.exp(session * rng.standard_normal()))

    ceilings = CeilingsRecord(
        fingerprint="c",
        suite="s",
        started_utc=started,
        wall_s=1.0,
        outcome="ok",
        reason=None,
        environment=where,
        probes=[
            Probe(
                kind="gemm",
                dtype="fp32",
                backend=None,
                shape={"m": i + 1, "n": 1, "k": 1},
                flops=1,
                bytes_moved=None,
                timing=timing(0.01 * moved(), rng),
            )
            for i in range(probes)
        ],
        telemetry=None,
    )
    return [
        *([ceilings] if probes else []),
        *(
            POINT.model_copy(
                update={
                    "fingerprint": f"p{i}",
                    "environment": where,
                    "started_utc": started,
                    "recipe": f"r{i}",
                    "timings": {
                        "denoise_step": timing(0.01 * (i + 1) * float(f) * moved(), rng, n)
                    },
                }
            )
            for i, f in enumerate(factors)
        ),
    ]


def verdicts(pairs) -> list[str]:
    return [c.verdict for pair in pairs for c in pair.changes]


def test_the_rule():
    assert judge(1.0, 0.97, 1.03, 0.05) == "SAME"
    assert judge(1.1, 1.06, 1.14, 0.05) == judge(1.1, 1.01, 1.2, 0.05) == "SLOWER"
    assert judge(0.9, 0.85, 0.99, 0.05) == "FASTER"
    assert (
        judge(1.04, 1.01, 1.07, 0.05) == "UNCLEAR"
    )  # surely slower, not surely by what is worth a look
    assert judge(1.1, 0.99, 1.2, 0.05) == "UNCLEAR"


def test_nothing_changed_is_hardly_ever_called_a_change():
    """Fewer than 5 % of comparisons, let alone of stages, with autocorrelated samples and sessions
    that differ."""
    rng = np.random.default_rng(1)
    pairs = [compare(result(rng), result(rng)) for _ in range(40)]
    assert sum(v in ("SLOWER", "FASTER") for v in verdicts(pairs)) <= 2  # of 640
    assert sum(p.verdict == "SLOWER" for p in pairs) <= 2  # of 40
    assert sum(v == "SAME" for v in verdicts(pairs)) > 100


@pytest.mark.parametrize(("factor", "verdict"), [(1.10, "SLOWER"), (1 / 1.10, "FASTER")])
def test_ten_per_cent_on_every_stage(factor, verdict):
    rng = np.random.default_rng(2)
    pairs = [compare(result(rng), result(rng, factor)) for _ in range(20)]
    assert np.mean([v == verdict for v in verdicts(pairs)]) > 0.9
    assert all(p.typical.verdict == verdict for p in pairs)
    assert np.median([c.ratio for p in pairs for c in p.changes]) == pytest.approx(factor, rel=0.01)
    assert {p.verdict for p in pairs} <= ({"SLOWER"} if factor > 1 else {"FASTER", "UNCLEAR"})


def test_one_stage_of_many_is_found_and_the_others_are_not_blamed():
    rng = np.random.default_rng(3)
    factors = np.where(np.arange(STAGES) == 5, 1.2, 1.0)
    pairs = [compare(result(rng), result(rng, factors)) for _ in range(10)]
    assert all(p.changes[5].verdict == "SLOWER" and p.verdict == "SLOWER" for p in pairs)
    assert sum(c.verdict == "SLOWER" for p in pairs for c in p.changes) <= 11


def test_a_machine_that_moved_is_not_the_codes_fault():
    """The probes, which run no code of ours, moved as much; a stage in a hundred moved by more than
    them, by chance."""
    rng = np.random.default_rng(4)
    pairs = [compare(result(rng), result(rng, machine=1.15)) for _ in range(10)]
    assert sum(v == "SLOWER" for v in verdicts(pairs)) <= 2  # of 160
    assert all(p.typical.verdict == "UNCLEAR" for p in pairs)
    assert np.mean([p.drift for p in pairs]) == pytest.approx(1.15, rel=0.01)


def test_the_sentinel_around_a_point_speaks_for_it_before_the_probes_do():
    def with_sentinel(records, seconds):
        return [
            r.model_copy(update={"sentinel": SentinelReading(before_s=seconds, after_s=seconds)})
            if r.fingerprint == "p3"
            else r
            for r in records
        ]

    rng = np.random.default_rng(5)
    factors = np.where(np.arange(STAGES) == 3, 1.3, 1.0)
    assert compare(result(rng), result(rng, factors)).changes[3].verdict == "SLOWER"
    pair = compare(with_sentinel(result(rng), 0.01), with_sentinel(result(rng, factors), 0.013))
    assert pair.changes[3].verdict == "UNCLEAR"
    assert pair.changes[3].drift == pytest.approx(1.3)


def test_without_probes_and_with_few_stages_the_floor_is_assumed_and_said_to_be():
    rng = np.random.default_rng(6)
    pair = compare(result(rng, stages=2, probes=0), result(rng, stages=2, probes=0))
    assert pair.floor_from.startswith("assumed")
    assert pair.typical is None
    assert "no ceilings" in pair.control


def test_an_unstable_stage_is_unclear_whatever_its_ratio():
    rng = np.random.default_rng(7)
    a, b = result(rng), result(rng, 3.0)
    wild = summarise([0.01, 0.02, 0.05, 0.01, 0.03], [0.01], "timeout", True)
    b[1] = b[1].model_copy(
        update={"timings": {"denoise_step": wild}, "outcome": "unstable", "reason": "wild"}
    )
    pair = compare(a, b)
    assert [c.verdict for c in pair.changes[:2]] == ["UNCLEAR", "SLOWER"]
    assert any("b: tiny tiny-clip r0: unstable" in w for w in pair.warnings)


def test_seeded():
    a, b = result(np.random.default_rng(8)), result(np.random.default_rng(9))
    assert compare(a, b) == compare(a, b)


def test_the_error_of_a_median_knows_that_neighbours_agree():
    rng = np.random.default_rng(10)
    alone = np.mean([median_error(timing(0.05, rng, n=60, noise=0.01), rng) for _ in range(30)])
    shuffled = np.mean(
        [
            median_error(
                summarise(
                    list(rng.permutation(timing(0.05, rng, n=60).samples_s)),
                    [1.0],
                    "converged",
                    True,
                ),
                rng,
            )
            for _ in range(30)
        ]
    )
    assert alone > 1.3 * shuffled
    assert median_error(summarise([1.0, 1.1, 1.2], [1.0], "timeout", True), rng) == pytest.approx(
        0.4 * np.log(1.2)
    )


def test_refusals():
    rng = np.random.default_rng(11)
    a = result(rng)
    with pytest.raises(
        UserError, match=r"environments differ: torch 2.13.0 / 2.14.0; .*--allow-different"
    ):
        compare(a, result(rng, torch="2.14.0"))
    with pytest.raises(UserError, match="threads 2 / 4"):
        compare(a, result(rng, threads=4))
    assert compare(a, result(rng, threads=4), allow_different=True).warnings == [
        "the environments differ: threads 2 / 4"
    ]
    assert compare(a, result(rng, code_version="later")).code_b == "later"
    with pytest.raises(UserError, match="--threshold 2 is not a share"):
        compare(a, a, threshold=2)
    with pytest.raises(UserError, match="no measured stage of a point in common"):
        compare(a, [r.model_copy(update={"fingerprint": r.fingerprint + "x"}) for r in a])


def test_points_of_one_side_alone_are_listed():
    rng = np.random.default_rng(12)
    pair = compare(result(rng), result(rng, stages=STAGES - 1))
    assert pair.only_a == [
        {
            "point": f"tiny tiny-clip r{STAGES - 1}",
            "stage": "denoise_step",
            "why": "not measured in the other",
        }
    ]
    assert pair.only_b == []


def test_threshold():
    rng = np.random.default_rng(13)
    a, b = result(rng, session=0.001, n=100), result(rng, 1.02, session=0.001, n=100)
    assert compare(a, b).threshold == THRESHOLD["cpu"]
    assert compare(a, b).verdict == "SAME"
    assert compare(a, b, threshold=0.01).verdict == "SLOWER"


def test_document_and_markdown():
    rng = np.random.default_rng(14)
    pair = compare(result(rng), result(rng, 1.2))
    document = json.loads(json.dumps(comparison_document(pair, ["A"], "B"), allow_nan=False))
    assert {"point", "stage", "a", "b", "ratio", "low", "high", "verdict"} <= set(
        document["points"][0]
    )
    assert document["verdict"] == "SLOWER"
    assert document["points"][0]["ratio"] == pytest.approx(
        document["points"][0]["b"] / document["points"][0]["a"]
    )
    text = comparison_markdown(pair)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + STAGES + 1
    assert {row.count("|") for row in rows} == {8}
    assert text.startswith("**SLOWER: 16 SLOWER")


def run_at(day: int, rng: np.random.Generator, factors=1.0, **kw):
    return result(rng, factors, started=f"2026-01-{day:02}T00:00:00+00:00", **kw)


def test_a_slow_regression_is_seen_in_a_history_and_not_from_run_to_run():
    rng = np.random.default_rng(15)
    runs = [run_at(day, rng, 1.025**day, session=0.004) for day in range(1, 7)]
    assert compare(runs[-2], runs[-1]).verdict in ("SAME", "UNCLEAR")
    seen = compare_history(runs[-1], runs[:-1])
    assert seen.verdict == "SLOWER"
    assert seen.typical.ratio == pytest.approx(1.025**3, rel=0.01)


def test_a_history_in_which_nothing_changed():
    rng = np.random.default_rng(16)
    found = [
        compare_history(run_at(9, rng), [run_at(day, rng) for day in range(1, 6)])
        for _ in range(20)
    ]
    assert sum(v in ("SLOWER", "FASTER") for v in verdicts(found)) <= 1  # of 320
    assert sum(f.verdict == "SLOWER" for f in found) <= 1
    slower = compare_history(run_at(9, rng, 1.1), [run_at(day, rng) for day in range(1, 6)])
    assert np.mean([c.verdict == "SLOWER" for c in slower.changes]) > 0.7


def test_a_history_is_of_one_cohort_and_of_earlier_runs():
    rng = np.random.default_rng(17)
    b = run_at(9, rng)
    others = [
        run_at(10, rng),
        run_at(1, rng, torch="2.0"),
        run_at(2, rng, gpu="h100-sxm"),
        [r.model_copy(update={"suite": "other"}) for r in run_at(3, rng)],
        [
            r.model_copy(update={"reason": "not a true time: slowed 2 times"})
            for r in run_at(4, rng)
        ],
    ]
    with pytest.raises(UserError, match="no earlier run of the same suite"):
        compare_history(b, others)
    alone = compare_history(b, [*others, run_at(4, rng, code_version="old")])
    assert alone.kind == "pair"
    assert alone.code_a == ["old"]
    many = compare_history(
        b, [*others, *(run_at(day, rng, code_version=f"v{day}") for day in range(1, 9))]
    )
    assert many.code_a == ["v4", "v5", "v6", "v7", "v8"]
    assert all(c.runs == 5 for c in many.changes)


def test_a_trend_hardly_widens_the_spread():
    x = 0.02 * np.arange(5)
    assert successive_sd(x) == pytest.approx(0.02 / np.sqrt(2))
    assert successive_sd(x) < x.std(ddof=1) / 2


# Real records and the command.


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


# The planted slow-down.


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

    from bench.measure.worker import jobs
    from bench.measure.worker.protocol import MeasureCeilings, MeasurePoint, MeasureTogether

    monkeypatch.setenv(SLOWDOWN, "1.2")
    clocks = {}

    def ceilings(device, clock, *rest, **kw):
        clocks["ceilings"] = clock
        return [], {}, []

    def point(p, counts, device, clock, *rest, **kw):
        clocks["point"] = clock
        return {}, None, {}

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


def test_two_cards_of_one_kind_are_compared_and_named():
    def on(records, card):
        return [
            r.model_copy(
                update={"environment": r.environment.model_copy(update={"device_uuid_hash": card})}
            )
            for r in records
        ]

    rng = np.random.default_rng(20)
    a, b = on(result(rng), "aaaa"), on(result(rng), "bbbb")
    assert (
        "measured on 2 cards of one kind: aaaa, bbbb; a ratio holds what those differ by"
        in compare(a, b).warnings
    )
    assert compare(a, on(result(rng), "aaaa")).warnings == []
    runs = [on(run_at(day, rng), card) for day, card in ((1, "aaaa"), (2, "bbbb"), (3, "aaaa"))]
    assert (
        "measured on 2 cards of one kind: aaaa, bbbb"
        in compare_history(on(run_at(9, rng), "aaaa"), runs).warnings[0]
    )
