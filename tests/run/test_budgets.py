"""What a budget measures on an H100, in which order, and what it leaves out: a step of 57 s among
points of 2 s.

Worker and time are fakes: a job takes the seconds that are written here, and nothing else
passes."""

from types import SimpleNamespace

import pytest

from bench.core.errors import UserError
from bench.core.load import load, suite_points
from bench.core.specs.suite import Suite
from bench.core.units import parse_duration
from bench.measure.timing.sampling import summarise
from bench.measure.worker.process import JobFailed
from bench.measure.worker.protocol import (
    CeilingsReply,
    CountPoint,
    CountReply,
    MeasureCeilings,
    PlanProbes,
    PointReply,
    ProbesReply,
)
from bench.results.environment import Environment
from bench.results.store import read_records
from bench.run import basis
from bench.run import budget as budgets
from bench.run import forecast as forecasting
from bench.run import record as recording
from bench.run import suite as running
from bench.run.forecast import Forecaster
from support.records import counted, environment

START_S, COUNT_S, CEILINGS_S, SHORT_S, DECODER_S, BUILD_S = 15.0, 0.5, 40.0, 2.0, 30.0, 8.0
RATE = 34.09e15 / 57.0  # FLOP/s
ANCHOR = "sora-20b sora-1min-512 eager-bf16-cudnn-chunks"


class Card:
    """A worker on an H100 whose full-depth step takes `step_s`.  It counts as the real one does,
    roughly."""

    def __init__(self, step_s: float):
        self.step_s, self.t, self.begun, self.limits = step_s, 0.0, [], {}
        fields = environment().model_dump() | {
            "gpu": "h100-sxm",
            "device": "cuda",
            "device_name": "NVIDIA H100 80GB HBM3",
        }
        self._environment = Environment.model_validate(fields)

    def __enter__(self):
        self.t += START_S
        return self

    def __exit__(self, *exc): ...

    @property
    def environment(self):
        return self._environment

    def chatter(self) -> bytes:
        return b""

    def run(self, request, timeout_s, on_round=None):
        if isinstance(request, PlanProbes):
            return ProbesReply(probes=[])
        if isinstance(request, MeasureCeilings):
            return self._spend(CEILINGS_S, timeout_s, "ceilings", CeilingsReply())
        point = request.point.model_dump(mode="json")
        counts = {stage: self._count(point, stage) for stage in point["stages"]}
        if isinstance(request, CountPoint):
            self.t += COUNT_S
            whole = "denoise_step" in point["stages"]
            return CountReply(counts=counts, weights=40 * 10**9 if whole else 10**9)
        name = label(point)
        seconds = (
            SHORT_S
            if not self._whole(point)
            else BUILD_S + 3 * self.step_s
            if "denoise_step" in point["stages"]
            else DECODER_S
        )
        calls = {
            stage: sum(v for k, v in count.items() if k.endswith("_flops")) / RATE
            for stage, count in counts.items()
        }
        timings = {
            stage: summarise([s] * 3, [s], "converged", True).model_dump()
            for stage, s in calls.items()
        }
        return self._spend(seconds, timeout_s, name, PointReply(counts=counts, timings=timings))

    def _spend(self, seconds, timeout_s, name, answer):
        self.begun.append(name)
        self.limits[name] = timeout_s
        self.t += min(seconds, timeout_s)
        if seconds > timeout_s:
            raise JobFailed("timeout", f"stopped after {timeout_s:.0f} s")
        return answer

    @staticmethod
    def _whole(point) -> bool:
        """All 42 blocks at 184,320 tokens, or the decoder of the whole minute."""
        return point["workload"]["frames"] == 1440 and point["model"]["denoiser"].get("depth") == 42

    def _count(self, point, stage):
        if not self._whole(point) or stage == "text_encode":
            return counted(linear_flops=10**13)
        return (
            counted(linear_flops=4_870 * 10**12, attention_flops=29_220 * 10**12)
            if stage == "denoise_step"
            else counted(conv_flops=5_900 * 10**12)
        )


def label(point) -> str:
    return (
        f"{point['model']['name']} {point['workload']['name']} {point['recipe']['name']}"
        f" {','.join(point['stages'])}"
    )


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """measure(suite, budget, step_s) -> (the card, outcome by label in the order of the records,
    what was left out)."""

    def nothing_published(gpu: str) -> None:
        raise UserError(gpu)  # these tests are of budgets, at the rule of thumb

    monkeypatch.setattr(basis, "read_card", nothing_published)

    def run(name: str, budget: str | None, step_s: float = 57.0):
        card, suite = Card(step_s), load(Suite, name)
        clock = SimpleNamespace(monotonic=lambda: card.t)
        for module in (budgets, forecasting, recording):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(running, "Worker", lambda device, **how: card)
        forecast = Forecaster(suite, tmp_path, None)
        directory = running.SuiteRun(
            suite=suite,
            device="cuda",
            root=tmp_path,
            forecast=forecast,
            budget_s=None if budget is None else parse_duration(budget),
        ).measure()
        records = read_records(directory)
        outcomes = {
            "ceilings" if r.kind == "ceilings" else label(r.point): r.outcome for r in records
        }
        return card, outcomes, forecast.skipped(records)

    return run


def planned(name: str) -> list[str]:
    suite = load(Suite, name)
    return (["ceilings"] if suite.ceilings else []) + [
        label(p.model_dump(mode="json")) for p in suite_points(suite)
    ]


STEP, DECODER = f"{ANCHOR} denoise_step", f"{ANCHOR} vae_decode,text_encode"


@pytest.mark.parametrize("budget", ["4m", "8m", "10m", None])
def test_the_anchors_own_suite_measures_it_in_any_of_these_budgets(measure, budget):
    card, outcomes, skipped = measure("h100-anchor", budget)
    assert card.begun == planned("h100-anchor") == [STEP, DECODER]
    assert outcomes == {STEP: "ok", DECODER: "ok"}
    assert skipped == []
    # start, a count each, 40 GB built and three calls, the decoder: under four minutes
    assert card.t == START_S + 2 * COUNT_S + BUILD_S + 3 * 57 + DECODER_S < 240


@pytest.mark.parametrize(("budget", "measured"), [("4m", False), ("8m", True), ("10m", True)])
def test_the_whole_suite_keeps_its_order_and_never_loses_the_anchor_in_silence(
    measure, budget, measured
):
    """Ceilings and 23 short points take about 100 s with their counts; a step, by the rule of thumb
    at its low end, 190 s."""
    card, outcomes, skipped = measure("h100", budget)
    order = planned("h100")
    assert list(outcomes) == order
    assert order[-2:] == [STEP, DECODER]
    assert card.begun == [name for name in order if measured or name != STEP]
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "ok"} == (
        {} if measured else {STEP: "skipped_budget"}
    )
    assert card.t < parse_duration(budget)
    if measured:
        assert skipped == []
        return
    (left_out,) = skipped
    assert left_out["point"] == ANCHOR
    assert 300 < left_out["predicted_s"] < 400
    assert left_out["reason"].startswith("predicted to take 5.")
    assert "at the least" in left_out["reason"]


@pytest.mark.parametrize(
    ("budget", "step_s", "begun", "why"),
    [
        (
            "2m",
            57.0,
            [DECODER],
            "predicted to take",
        ),  # it cannot fit: the decoder is not lost to it
        ("4m", 100.0, [STEP], "cut off when the budget was up"),  # a slower card than was thought
    ],
)
def test_an_anchor_that_does_not_fit_is_listed_with_its_seconds_and_its_reason(
    measure, budget, step_s, begun, why
):
    _, outcomes, skipped = measure("h100-anchor", budget, step_s)
    assert outcomes[STEP] == "skipped_budget"
    (row,) = [row for row in skipped if row["reason"].startswith(why)]
    assert (row["point"], 300 < row["predicted_s"] < 400) == (ANCHOR, True)
    card, _, _ = measure("h100-anchor", budget, step_s)
    assert card.begun == begun


def test_without_a_budget_a_card_at_half_the_speed_still_ends_its_three_calls(measure):
    """Its 3 x 150 s are more than the suite's own limit of 300 s, which follows the prediction."""
    card, outcomes, _ = measure("h100-anchor", None, step_s=150.0)
    assert outcomes[STEP] == "ok"
    assert card.limits[STEP] > BUILD_S + 3 * 150
    assert card.limits[DECODER] == load(Suite, "h100-anchor").point_timeout_s


def test_the_long_suite_is_the_two_shorter_ones():
    whole, rates, anchor = (planned(name) for name in ("h100", "h100-rates", "h100-anchor"))
    assert whole == rates + anchor
