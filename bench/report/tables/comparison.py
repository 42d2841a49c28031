"""A comparison of results, and the findings of `verify`, as documents, tables and Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import one_line
from bench.core.units import plain, seconds
from bench.report.numbers import digits, whole
from bench.report.render import to_markdown
from bench.report.tables.table import Cell, Table, measured, number, numbers, span, table
from bench.studies.compare.revisions import StepChange
from bench.studies.compare.verdict import Change, Comparison
from bench.studies.gate.baseline import Baseline
from bench.studies.gate.changes import Change as GateChange
from bench.studies.verify.findings import Finding


def comparison_document(c: Comparison, a: list[str], b: str) -> dict[str, Any]:
    """`compare --json`.  a, b: the directories; a has several where b is held against a history."""
    return {
        "kind": c.kind,
        "a": a if c.kind == "history" else a[0],
        "b": b,
        "points": [vars(change) for change in c.changes],
        "typical": vars(c.typical) if c.typical else None,
        "verdict": c.verdict,
        "counts": c.counts,
        "only_a": c.only_a,
        "only_b": c.only_b,
        "threshold": c.threshold,
        "threshold_from": c.threshold_from,
        "floor": c.floor,
        "floor_from": c.floor_from,
        "drift": c.drift,
        "control": c.control,
        "code_version": {"a": c.code_a if c.kind == "history" else c.code_a[0], "b": c.code_b},
        "provenance": "measured",
        "warnings": c.warnings,
    }


def comparison_table(c: Comparison) -> Table:
    """Seconds of b over seconds of a, and their typical ratio."""
    rows = [[change.point, change.stage, *_cells(change)] for change in c.changes]
    if c.typical:
        rows.append(["median of all", "", *_cells(c.typical)])
    return table(
        f"b / a, seconds of b over seconds of a: {c.verdict}",
        [
            "point",
            "stage",
            measured("a"),
            measured("b"),
            measured("b / a"),
            measured("interval"),
            "verdict",
        ],
        rows,
        note="intervals hold together with 95 %",
    )


def _cells(change: Change) -> list[Cell | str]:
    return [
        *(number(s, seconds) if s is not None else "" for s in (change.a, change.b)),
        number(change.ratio, _ratio),
        span(change.low, change.high, _ratio),
        change.verdict,
    ]


def _ratio(value: float) -> str:
    return f"{value:.3f}"


LOUD = 1.1  # a machine that is so much slower in one run says little of the code


def machine_words(drift: float, control: str) -> str:
    """How much slower the machine alone was in one of the runs."""
    slower, run = (drift, "b") if drift >= 1 else (1 / drift, "a")
    if slower < 1.005:
        return f"the machine was as fast in both runs ({control})"
    if slower < LOUD:
        return f"the machine was {slower - 1:.1%} slower in run {run} ({control})"
    said = f"the machine was {plain(slower, 2)} times slower in run {run} ({control})"
    return f"{said}; measure again when it is idle"


def comparison_lines(c: Comparison) -> list[str]:
    """The grounds of the table, one line each."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n in c.counts.items() if n)
    codes = ", ".join(dict.fromkeys(c.code_a))
    lines = [
        f"{c.verdict}: {counts}; SAME is within ±{c.threshold:.1%} ({c.threshold_from})",
        f"noise floor {c.floor:.1%} ({c.floor_from}); {machine_words(c.drift, c.control)}",
        f"code: a {codes}; b {c.code_b}",
    ]
    for side, only in (("a", c.only_a), ("b", c.only_b)):
        lines += [f"only in {side}: {o['point']} {o['stage']}: {o['why']}" for o in only]
    return lines


def comparison_markdown(c: Comparison) -> str:
    """A table for a comment on a change."""
    head, *notes = comparison_lines(c)
    lines = [f"**{head}**", "", to_markdown(comparison_table(c)), ""]
    return "\n".join([*lines, *(f"- {one_line(note)}" for note in [*notes, *c.warnings])])


SHOWN = 20  # of what differs; --json has all


def findings_table(title: str, found: Sequence[Finding]) -> Table:
    """What agrees in one line each, then what differs."""
    wrong = [finding for finding in found if finding.verdict == "differs"]
    rest = [finding for finding in found if finding.verdict != "differs"]
    shown = [*rest, *wrong[:SHOWN]]
    return table(
        title,
        ["check", "verdict", numbers("held"), "where", "why"],
        [[f.check, f.verdict, number(f.n, whole), f.where, f.said] for f in shown],
        note=f"{len(wrong)} figures differ" if wrong else "nothing differs",
    )


def findings_document(directory: Path, found: Sequence[Finding]) -> dict[str, Any]:
    """`verify --json`."""
    return {
        "result_dir": str(directory),
        "agrees": not any(f.verdict == "differs" for f in found),
        "findings": [vars(f) for f in found],
    }


def changes_table(baseline: Baseline, found: Sequence[GateChange]) -> Table:
    """What `check` found."""
    title = f"{len(baseline.points)} points against the baseline"
    return table(
        title,
        ["point", "what", numbers("baseline", "counted"), numbers("now", "counted"), "change"],
        [[c.point, c.what, number(c.before, whole), number(c.now, whole), c.words] for c in found],
        note="nothing differs" if not found else f"{len(found)} numbers differ",
    )


def steps_table(steps: Sequence[StepChange], failed: Sequence[bool]) -> Table:
    """Step times of two revisions."""
    limit = ", ".join(f"{share:.0%}" for share in dict.fromkeys(s.threshold for s in steps))
    return table(
        "b / a, seconds of b over seconds of a, in turns",
        [
            "point",
            "stage",
            numbers("FLOPs", "counted"),
            measured("a"),
            measured("b"),
            measured("b / a"),
            measured("interval"),
            measured("pairs"),
            "verdict",
        ],
        [
            [
                s.point,
                s.stage,
                number(s.flops_b / s.flops_a - 1, lambda share: f"{share:+.1%}"),
                number(s.a_s, seconds),
                number(s.b_s, seconds),
                number(s.ratio, digits(3)),
                span(s.low, s.high, digits(3)),
                number(s.pairs, whole),
                f"{s.verdict}{' FAIL' * fails}",
            ]
            for s, fails in zip(steps, failed, strict=True)
        ],
        note=f"pairs of processes; threshold {limit}, intervals of 99 %",
    )


def step_words(step: StepChange, fails: bool) -> str:
    """E.g. "denoise_step 1.14 (1.12 to 1.16) FAIL"."""
    three = digits(3)
    said = f"{step.stage} {three(step.ratio)} ({three(step.low)} to {three(step.high)})"
    verdict = "FAIL" if fails else "ok"
    unclear = ", UNCLEAR" * (step.verdict == "UNCLEAR")
    return f"{step.point}: {said} {verdict}{unclear}"


def changes_document(
    baseline: Baseline,
    found: Sequence[GateChange],
    steps: Sequence[StepChange] = (),
    failed: Sequence[bool] = (),
) -> dict[str, Any]:
    """`check --json`."""
    return {
        "verdict": "FAIL" if found or any(failed) else "ok",
        "points": [point.label for point in baseline.points],
        "changes": [vars(c) | {"share": c.share} for c in found],
        "steps": steps_document(steps, failed),
    }


def steps_document(steps: Sequence[StepChange], failed: Sequence[bool]) -> list[dict[str, Any]]:
    """Step times of two revisions."""
    return [
        vars(step) | {"fails": fails, "provenance": "measured"}
        for step, fails in zip(steps, failed, strict=True)
    ]


def changes_markdown(
    baseline: Baseline,
    found: Sequence[GateChange],
    steps: Sequence[StepChange] = (),
    failed: Sequence[bool] = (),
) -> str:
    """For a comment on a pull request."""
    count = len(baseline.points)
    verdict = "FAIL" if found or any(failed) else "ok"
    said = [f"FLOPs, parameters and bytes of {count} points are equal."]
    if found:
        said = [f"{len(found)} numbers of {count} points differ."]
    if steps:
        said.append(f"{sum(failed)} of {len(steps)} steps fail.")
    parts = [f"**ldt-bench check: {verdict}.** {' '.join(said)}"]
    parts += [to_markdown(changes_table(baseline, found))] if found else []
    parts += [to_markdown(steps_table(steps, failed))] if steps else []
    return "\n\n".join(parts) + "\n"
