"""The sections of a report: those that have something to show, what the result is about first, and
what is not in it."""

from collections.abc import Container, Mapping
from dataclasses import dataclass

from bench.report.opening.answer import Subject, subject_of
from bench.report.result import Result
from bench.report.tables.device import gaps, memory_gaps, no_replays
from bench.report.tables.table import Table

FIRST: dict[Subject, tuple[str, ...]] = {
    "video": ("waterfall", "movers", "recipes"),
    "ablations": ("ablations", "recipes"),
    "ranks": ("ranks", "accuracy"),
    "points": ("points", "latency"),
}
"""What a result of each subject begins with."""

CARRIES = 0.05
"""Of the headline's seconds: a parameter that scales less stands in the folded table."""


@dataclass(frozen=True)
class Section:
    """One heading of the report."""

    id: str
    nav: str
    title: str
    missing: str | None = None
    """Why it has nothing to show; None where it is shown."""


def sections(
    result: Result, tables: Mapping[str, Table], pictures: Container[str]
) -> tuple[list[Section], list[str]]:
    """-> those to show in order, and in words what is not in this result."""
    every = [*_of_fit(result, pictures), *_of_measurement(result, tables, pictures)]
    first = FIRST[subject_of(result)]
    shown = [s for s in every if s.missing is None]
    shown.sort(key=lambda s: first.index(s.id) if s.id in first else len(first))
    left_out = [f"{s.nav.lower()} ({s.missing})" for s in every if s.missing]
    return shown, left_out


def lead(result: Result, pictures: Container[str]) -> list[str]:
    """Names of the two figures that stand beside the answer."""
    of_video = ["waterfall", "stage_split", "tornado"]
    if result.environment.gpu == "cpu":  # the waterfall begins at an H100
        of_video.remove("waterfall")
    wanted = {
        "video": [*of_video, "predicted_vs_measured", "latency_vs_tokens"],
        "ablations": ["rates", "ablations"],
        "ranks": ["predicted_vs_measured", "latency_vs_tokens"],
        "points": ["latency_vs_tokens", "memory"],
    }[subject_of(result)]
    return [name for name in wanted if name in pictures][:2]


def _of_fit(result: Result, pictures: Container[str]) -> list[Section]:
    """What a calibration brings."""
    not_calibrated = None if result.fits else "not calibrated"
    pencil = "Where '5 minutes per H100-hour' goes wrong"
    missing = None if result.reference else result.reference_missing
    no_headline = None if result.swings else result.headline_missing or "no headline"
    choice = None if "rates" in pictures else "one recipe and one card made whole videos"
    return [
        Section("waterfall", "The pencil estimate", pencil, missing),
        Section("movers", "What moves the headline", "What moves the headline most", no_headline),
        Section("recipes", "Recipes and cards", "Minutes and dollars, by recipe or card", choice),
        Section("accuracy", "Accuracy", "Predicted and measured", not_calibrated),
    ]


def _of_measurement(
    result: Result, tables: Mapping[str, Table], pictures: Container[str]
) -> list[Section]:
    def there(name: str) -> bool:
        return name in tables and bool(tables[name].rows)

    def unless(shown: bool, why: str) -> str | None:
        return None if shown else why

    points = result.points
    whole = unless(there("whole_videos") or there("cold_starts"), "no point had every stage timed")
    read = unless(there("clocks") or there("launches"), "; ".join(_not_read(result)))
    claims = unless(result.judges_claims, result.no_claims)
    latency = _drawn("latency_vs_tokens", pictures)
    if "latency_vs_tokens" in lead(result, pictures) and not there("latency"):
        latency = SILENT
    probed = unless(result.ceilings is not None, "this suite probes none")
    found = [
        Section(
            "ablations",
            "Ablations",
            "Ablations: recipes beside their baseline",
            _own(there("ablations")),
        ),
        Section("ranks", "Several ranks", "Several ranks", _own(there("steps_on_ranks"))),
        Section("cards", "Cards", "Cards beside one another", _own(there("cards"))),
        Section("latency", "Latency", "Latency against tokens", latency),
        Section("roofline", "Roofline", "Roofline by operator class", _drawn("roofline", pictures)),
        Section("stages", "Whole videos", "Where a video's time goes", whole),
        Section(
            "memory", "Memory", "Memory", unless(there("memory"), _reasons(memory_gaps(points)))
        ),
        Section("energy", "Energy and clocks", "Energy and clocks", read),
        Section("ceilings", "Ceilings", "Ceilings against the datasheet", probed),
        Section("claims", "Claims", "What others claim", claims),
        Section("points", "All points", "All measured points", unless(there("points"), "none ran")),
    ]
    return [s for s in found if s.missing != SILENT]


SILENT = "-"
"""Left out without a word: what the suite was never meant to have, or what stands beside the
answer."""


def _own(shown: bool) -> str | None:
    return None if shown else SILENT


def _drawn(name: str, pictures: Container[str]) -> str | None:
    return None if name in pictures else "nothing to draw it from"


def _not_read(result: Result) -> list[str]:
    return [*gaps(result.points), *(f"no replay of {why}" for why in no_replays(result.points))]


def _reasons(reasons: list[str]) -> str:
    return "; ".join(reasons) or "not read"
