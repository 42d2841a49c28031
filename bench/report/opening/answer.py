"""The question that a result was measured for, and its answer: a number, a sentence, and what that
rests on."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench.calibrate.scaling.check import errors, measured_steps
from bench.core.units import minutes_an_hour, plain, seconds
from bench.report.figures.drawing import spread_of
from bench.report.result import Result
from bench.results.video import MEASURED
from bench.studies.ablations.gains import Ablation

Subject = Literal["video", "ablations", "ranks", "points"]


@dataclass(frozen=True)
class Answer:
    """Provenance: of the number, by its word."""

    question: str
    number: str | None
    """The figure that answers; None where no single one does."""
    unit: str
    """What stands beside the number."""
    provenance: str | None
    sentence: str
    """The answer in words."""
    evidence: tuple[str, ...]
    """Its interval, its samples, its held-out error: one line each."""


def subject_of(result: Result) -> Subject:
    """What the suite is about, by what it measured."""
    if result.ablations and result.calibration is None:
        return "ablations"
    if measured_steps(result.points):
        return "ranks"
    return "video" if result.headline is not None else "points"


def answer_of(result: Result) -> Answer:
    by_subject: dict[Subject, Callable[[Result], Answer]] = {
        "video": _of_video,
        "ablations": _of_recipes,
        "ranks": _of_ranks,
        "points": _of_points,
    }
    return by_subject[subject_of(result)](result)


def doubt_of(result: Result) -> str | None:
    """A mark to stand beside the number; None where the machine was steady."""
    if result.unsteady is None or result.sentinel is None:
        return None
    return f"machine not steady: off by up to {result.sentinel[1]:.0%}"


def _device(result: Result) -> str:
    gpu = result.environment.gpu
    return "this CPU" if gpu == "cpu" else f"one {gpu}"


def _of_video(result: Result) -> Answer:
    h = result.headline
    assert h is not None
    q, unit = h.minutes_per_gpu_hour, minutes_an_hour(h.gpu)
    made = f"{h.model} on {h.workload} ({h.recipe})"
    interval = "interval of the medians" if h.provenance == "measured" else "90 % interval"
    return Answer(
        question=f"How many minutes of video does an hour of {_device(result)} make?",
        number=plain(q.value),
        unit=unit,
        provenance=h.provenance,
        sentence=f"{made} makes {plain(q.value)} ({plain(q.low)} to {plain(q.high)})"
        f" {unit}, on {result.environment.device_name}.",
        evidence=(
            f"{plain(q.low)} to {plain(q.high)}, {interval}",
            *_samples(result),
            *_held_out(result),
        ),
    )


def _samples(result: Result) -> list[str]:
    """n of the headline's own stages, where they were timed."""
    h = result.headline
    own = [
        t.n
        for r in result.points
        if h is not None and (r.model, r.workload, r.recipe) == (h.model, h.workload, h.recipe)
        for t in r.timings.values()
    ]
    return [f"{spread_of(own)} calls of a stage"] if own else []


def _held_out(result: Result) -> list[str]:
    error = result.fit.leave_one_out if result.fit else None
    if error is None:
        return ["no held-out error: nothing is predicted here"]
    return [
        f"held-out error of a step {error.mean:.1%} on average, {error.worst:.1%} at worst"
        f" (n = {error.n}): it comes from points the fit never saw"
    ]


def _of_recipes(result: Result) -> Answer:
    base = result.ablations[0].baseline
    most = Counter((r.model, r.workload) for r in result.ablations).most_common(1)[0][0]
    rows = [r for r in result.ablations if (r.model, r.workload) == most]
    ranked = [
        r for r in rows if r.speed_up and r.speed_up_provenance == "measured" and not r.unsteady
    ]
    asked = f"Which recipe makes more video per hour than {base}, and how far does its output move?"
    if not ranked:
        said = f"None of {len(rows)} recipes was measured well enough beside {base}."
        return Answer(asked, None, "", None, said, ())
    best = max(ranked, key=_gain)
    alike = max((r for r in ranked if r.fewer_steps <= 1), key=_gain, default=None)
    said = f"{best.recipe} is the fastest of {len(ranked)} recipes: {_times(best)}."
    if best.fewer_steps > 1:
        said += f" It takes {plain(best.fewer_steps)} times fewer steps."
        if alike is not None:
            said += f" With as many steps {alike.recipe} is: {_times(alike)}."
    q = best.speed_up
    assert q is not None
    return Answer(
        question=asked,
        number=f"{plain(q.value)} ×",
        unit=f"the minutes of video per hour of {base}",
        provenance="measured",
        sentence=said,
        evidence=(
            f"{plain(q.low)} to {plain(q.high)}, interval of the ratio"
            f" {'in turns with the baseline' if best.in_turns else 'not in turns'}",
            _moved(best),
            "weights are random: whether a picture is as good cannot be told",
        ),
    )


def _gain(row: Ablation) -> float:
    return row.speed_up.value if row.speed_up else 0.0


def _times(row: Ablation) -> str:
    return f"{plain(_gain(row))} times the minutes of {row.baseline}"


def _moved(row: Ablation) -> str:
    if row.divergence is None:
        return "how far its output moves was not measured"
    if row.divergence.identical:
        return "its output is the baseline's, bit for bit"
    return f"its latents move by {plain(row.divergence.relative_l2, 2)} (relative L2)"


def _of_ranks(result: Result) -> Answer:
    steps = measured_steps(result.points)
    best = max(steps, key=lambda step: step.efficiency)
    found = errors(steps)
    held_out, before = found["held_out"], found["before"]
    said = [
        f"trust the held-out error, {held_out.mean:.1%} on average: from points the fit never saw"
        if held_out
        else "no held-out error: no other step to predict it from"
    ]
    if before is not None:
        said.append(f"predicted before they were measured: off by {before.mean:.1%} on average")
    group = best.record.group
    assert group is not None
    return Answer(
        question="What do several ranks keep of one rank's speed, and was it foreseen?",
        number=f"{best.efficiency:.0%}",
        unit="of one rank's efficiency, the best mesh",
        provenance="measured",
        sentence=f"{group.mesh} keeps most, {best.efficiency:.0%}, of {len(steps)} steps on"
        f" several ranks ({best.record.model} on {best.record.workload}).",
        evidence=(f"n = {len(steps)} steps", *said),
    )


def _of_points(result: Result) -> Answer:
    measured = [r for r in result.points if r.outcome in MEASURED]
    taken = {
        stage: [r.timings[stage] for r in measured if stage in r.timings]
        for stage in dict.fromkeys(s for r in measured for s in r.timings)
    }
    spans = [f"{stage} {_span([t.median_s for t in some])}" for stage, some in taken.items()]
    n = [t.n for some in taken.values() for t in some]
    unstable = sum(r.outcome == "unstable" for r in measured)
    return Answer(
        question=f"How long does each stage of these {len(result.points)} points take?",
        number=None,
        unit="",
        provenance="measured" if n else None,
        sentence=f"One call takes {', '.join(spans)}, by the point."
        if spans
        else "No point was measured.",
        evidence=(
            *([f"{spread_of(n)} calls of a stage, {unstable} points unstable"] if n else []),
            f"no headline: {result.headline_missing}",
            "how wrong predictions of these points were: ldt-bench calibrate RESULT --against this"
            " directory",
        ),
    )


def _span(values: list[float]) -> str:
    low, high = seconds(min(values)), seconds(max(values))
    return low if low == high else f"{low} to {high}"
