"""Measured points: their times, their work, and a whole video stage by stage."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bench.core.quantity import Quantity
from bench.core.specs.model import DIFFUSION_STAGES
from bench.core.units import MINUTES_AN_HOUR, seconds
from bench.measure.timing.sampling import stalls
from bench.report.numbers import percent, precise_seconds, three, traffic, whole, work, work_rate
from bench.report.result import WholeVideo
from bench.report.tables.device import attending, grouped, launching, throttling
from bench.report.tables.table import Cell, Table, counted, measured, number, quantity, span, table
from bench.results.readings import Timing
from bench.results.records import PointRecord
from bench.results.video import kwh_per_minute

if TYPE_CHECKING:
    from bench.report.figures.rates import Rate

OPERATORS = ("linear", "attention", "conv", "other")


def points_table(records: Iterable[PointRecord]) -> Table:
    """Every stage of every point, and why a point has none."""
    rows = []
    for r in records:
        rows += [_stage_cells(r, stage) for stage in r.timings]
        if r.outcome != "ok" or r.reason:
            tokens = number(r.tokens, whole)
            rows.append([r.label, "", tokens, "", "", "", "", "", f"{r.outcome}: {r.reason}"])
    return table(
        "Measured points",
        [
            "point",
            "stage",
            counted("tokens"),
            measured("median"),
            measured("interval"),
            measured("n"),
            counted("work", detail=True),
            measured("rate"),
            "outcome, note",
        ],
        rows,
        note="intervals at 95 %, or the range of fewer than six samples",
    )


def _stage_cells(record: PointRecord, stage: str) -> list[Cell | str]:
    t, flops = record.timings[stage], record.counts[stage].flops
    telemetry = (record.telemetry or {}).get(stage)
    attention = attending(record) if stage in DIFFUSION_STAGES else ""
    by_card = (throttling(telemetry), launching(t), attention, grouped(record, stage))
    notes = (t.stop, stalling(t), *by_card)
    sure = f"{t.confidence:.0%} interval"
    return [
        record.label,
        stage,
        number(record.tokens, whole, "tokens of one sample"),
        number(t.median_s, precise_seconds, f"n = {t.n} calls, stopped: {t.stop}; {sure}"),
        span(t.low_s, t.high_s, precise_seconds, sure),
        number(t.n, whole),
        number(flops, work, "one call; 1 multiply-accumulate = 2 FLOPs"),
        number(flops / t.median_s, work_rate, "counted FLOPs over the measured median"),
        "; ".join(filter(None, notes)),
    ]


def stalling(timing: Timing) -> str:
    """'1 of 40 samples stalled, for 5 s at most'; '' where none did."""
    found = stalls(timing)
    if not found:
        return ""
    return f"{len(found)} of {timing.n} samples stalled, for {seconds(max(found))} at most"


def work_table(records: Iterable[PointRecord]) -> Table:
    """FLOPs by operator class of one call of each stage."""
    return table(
        "Work of one call by operator class",
        [
            "point",
            "stage",
            counted("FLOPs"),
            *map(counted, OPERATORS),
            counted("bytes, modelled (fused to unfused)"),
            counted("FLOPs per byte"),
        ],
        [_work_cells(r, stage) for r in records for stage in r.timings],
    )


def _work_cells(record: PointRecord, stage: str) -> list[Cell | str]:
    count = record.counts[stage]
    fused, unfused = count.bytes_modelled_min, count.bytes_modelled_max
    flops = [getattr(count, f"{operator}_flops") for operator in OPERATORS]
    return [
        record.label,
        stage,
        number(count.flops, work, f"{count.flops:,} FLOP"),
        *(number(f / count.flops, percent(), work(f)) for f in flops),
        span(fused, unfused, traffic),
        span(count.flops / max(unfused, 1), count.flops / max(fused, 1)),
    ]


def whole_videos_table(videos: Sequence[WholeVideo]) -> Table:
    """Seconds of a whole video by stage, and its energy where that was read."""
    stages = list(dict.fromkeys(stage for video in videos for stage in video.seconds))
    return table(
        "A whole batch of videos, stage by stage",
        [
            "point",
            *map(measured, stages),
            measured("sum"),
            measured("interval"),
            measured("made in one go"),
            measured("rest"),
            measured(MINUTES_AN_HOUR),
            measured("kWh per minute of video"),
        ],
        [_video_cells(video, stages) for video in videos],
    )


def _video_cells(video: WholeVideo, stages: list[str]) -> list[Cell | str]:
    total, made = video.total, video.minutes
    cells = []
    for stage in stages:
        s = video.seconds.get(stage)
        share = "" if s is None else f"{s / total.value:.1%} of the video; calls x median of one"
        cells.append(number(s, seconds, share))
    joules = None if video.joules is None else Quantity.exactly(video.joules)
    kwh = None if joules is None else kwh_per_minute(joules, video.video_s).value
    return [
        video.record.label,
        *cells,
        number(total.value, seconds),
        span(total.low, total.high, seconds),
        *_in_one_go(video.record),
        number(made.value, three, span(made.low, made.high).text),
        number(kwh, three, "no energy reading" if kwh is None else "energy counter, all calls"),
    ]


def _in_one_go(record: PointRecord) -> list[Cell | str]:
    """A whole video timed once, and the share of it that no stage explains."""
    whole_video, missing = record.end_to_end, record.end_to_end_missing or "not made"
    if whole_video is None:
        return [number(None, seconds, missing), number(None, percent(), missing)]
    rest, total = whole_video.rest_s, whole_video.video_s
    return [
        number(total, seconds, "text to pixels, once"),
        number(rest / total, percent(), f"{seconds(abs(rest))} {'less' * (rest < 0)}".strip()),
    ]


def cold_starts_table(records: Iterable[PointRecord]) -> Table:
    """Seconds until a point's first sample: building it, and each stage's first call."""
    started = [(r, r.cold_start) for r in records if r.cold_start is not None]
    stages = list(dict.fromkeys(stage for _, cold in started for stage in cold.first_s))
    return table(
        "Cold starts: what comes before the first sample",
        [
            "point",
            measured("built"),
            *(measured(f"first {stage}") for stage in stages),
            "weights",
            "process",
        ],
        [
            [
                r.label,
                number(cold.build_s, seconds),
                *(number(cold.first_s.get(stage), seconds) for stage in stages),
                "real" if r.real_weights else "random",
                "new" if cold.process_is_new else "used before",
            ]
            for r, cold in started
        ],
        note="each once; compilation is in a first call",
    )


def rates_table(video: str, rates: Iterable["Rate"]) -> Table:
    """Minutes per hour of one video by recipe or card, and dollars per minute where a price is
    known."""
    rates = list(rates)
    usd = [measured("USD per minute of video")] if any(rate.usd for rate in rates) else []
    return table(
        f"{video}: by recipe or card",
        ["recipe or card", measured("minutes of video per hour"), *usd],
        [
            [rate.name, quantity(rate.minutes), *([quantity(rate.usd)] if usd else [])]
            for rate in rates
        ],
        note="intervals of the medians" + (", and of the price" if usd else ""),
    )
