"""Tables of the page as data: columns that say their provenance, cells that say more on hover, keys
to sort by."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, log10

from bench.calibrate.calibration import Fit
from bench.core.units import SECONDS_PER_MINUTE, seconds, si
from bench.report.figures.device import datasheet_rate
from bench.report.result import Result
from bench.report.tables import ablations as ablation_tables
from bench.report.tables import device as device_tables
from bench.report.tables.common import error_rows, training_row

JOULES_PER_KWH = 3.6e6
BELIEF = "the records say no more of it than what was assumed before"


@dataclass(frozen=True)
class Column:
    """A heading; `provenance` is that of its numbers, None for words."""

    title: str
    provenance: str | None = None
    number: bool = False


@dataclass(frozen=True)
class Cell:
    """What is read, and what is said on hover: how this very number came to be."""

    text: str
    how: str | None = None
    provenance: str | None = None
    """Where it differs from the column's."""

    @property
    def key(self) -> float | None:
        return sort_key(self.text)


@dataclass(frozen=True)
class Grid:
    """One table; the first column names its rows."""

    caption: str
    columns: list[Column]
    rows: list[list[Cell]]


_SI = {
    "E": 1e18,
    "P": 1e15,
    "T": 1e12,
    "G": 1e9,
    "M": 1e6,
    "k": 1e3,
    "m": 1e-3,
    "µ": 1e-6,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
_UNITS = r"(?:FLOP/s|FLOP|B/s|B|Hz|W|J|s)"
_TIMES = {"min": 60.0, "h": 3600.0}


def sort_key(text: str) -> float | None:
    """The number a text begins with, in its base unit: '28.5 ms (…)' -> 0.0285, '1,024' -> 1024.0;
    None for words."""
    match = re.match(
        rf"([-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?)\s*(?:(min|h)\b|([EPTGMkmµ]i?)(?={_UNITS}))?", text
    )
    if match is None:
        return None
    value = float(match[1].replace(",", ""))
    return value * (
        _TIMES.get(match[2], 1.0) if match[2] else _SI.get(match[3], 1.0) if match[3] else 1.0
    )


def grid(caption: str, columns: Sequence[Column], rows: Iterable[Iterable[str | Cell]]) -> Grid:
    return Grid(
        caption,
        list(columns),
        [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows],
    )


def measured(title: str) -> Column:
    return Column(title, "measured", True)


def counted(title: str) -> Column:
    return Column(title, "counted", True)


def fitted(title: str) -> Column:
    return Column(title, "fitted", True)


def points(result: Result) -> Grid:
    """Every stage of every point, and why a point has none."""
    rows = []
    for r in result.points:
        for stage, t in r.timings.items():
            notes = (
                t.stop,
                device_tables.throttling((r.telemetry or {}).get(stage)),
                device_tables.launching(t),
            )
            how = f"median of n = {t.n} calls, stopped: {t.stop}; {t.confidence:.0%} interval"
            rate = si(r.counts[stage].flops / t.median_s, "FLOP/s")
            rows.append(
                [
                    r.label,
                    stage,
                    Cell(f"{r.tokens:,}", "tokens of one sample"),
                    Cell(seconds(t.median_s), how),
                    Cell(
                        f"{seconds(t.low_s)} to {seconds(t.high_s)}",
                        f"interval at {t.confidence:.0%}",
                    ),
                    str(t.n),
                    Cell(
                        si(r.counts[stage].flops, "FLOP"),
                        "of one call; 1 multiply-accumulate = 2 FLOPs",
                    ),
                    Cell(rate, "counted FLOPs over the measured median"),
                    "; ".join(filter(None, notes)),
                ]
            )
        if r.outcome != "ok" or r.reason:
            rows.append(
                [r.label, "", Cell(f"{r.tokens:,}"), "", "", "", "", "", f"{r.outcome}: {r.reason}"]
            )
    return grid(
        "Measured points",
        [
            Column("point"),
            Column("stage"),
            counted("tokens"),
            measured("median"),
            measured("interval"),
            measured("n"),
            counted("work"),
            measured("rate"),
            Column("outcome, note"),
        ],
        rows,
    )


def predictions(fit: Fit) -> Grid:
    """What the fit says of each stage, and what a fit without it said."""

    def error(predicted: float | None, measured_s: float) -> str:
        return "–" if predicted is None else f"{predicted / measured_s - 1:+.1%}"

    return grid(
        f"Predicted and measured seconds, {fit.title}",
        [
            Column("point"),
            Column("stage"),
            measured("measured"),
            fitted("held out"),
            fitted("error, held out"),
            fitted("in the fit"),
            fitted("error, in the fit"),
        ],
        [
            [
                s.point,
                s.stage,
                seconds(s.measured_s),
                (
                    Cell("–", "nothing else has that class of work")
                    if s.held_out_s is None
                    else Cell(
                        seconds(s.held_out_s), "predicted by a fit that had not seen this point"
                    )
                ),
                error(s.held_out_s, s.measured_s),
                seconds(s.fitted_s),
                error(s.fitted_s, s.measured_s),
            ]
            for s in fit.stages
        ],
    )


def latency(result: Result) -> Grid:
    """One denoising step: measured, by the cost model, and by one rate for all FLOPs."""
    rows = []
    for fit in result.fits:
        for s in fit.stages:
            if s.stage == "denoise_step" and fit.constant_mfu_flops_per_s:
                flat = s.flops / fit.constant_mfu_flops_per_s
                rows.append(
                    [
                        s.point,
                        Cell(f"{s.tokens:,}", "tokens of one sample"),
                        seconds(s.measured_s),
                        *(
                            Cell(f"{t / s.measured_s - 1:+.1%}", seconds(t))
                            for t in (s.fitted_s, flat)
                        ),
                    ]
                )
    return grid(
        "One denoising step (all its forwards)",
        [
            Column("point"),
            counted("tokens"),
            measured("measured"),
            fitted("cost model's error"),
            fitted("one MFU's error"),
        ],
        rows,
    )


def errors(fit: Fit) -> Grid:
    """Held-out errors beside the baseline's and the noise floor."""
    return grid(
        f"Error of predicted denoise steps that the fit had not seen, {fit.title}",
        [Column("how"), fitted("median"), fitted("mean"), fitted("worst"), fitted("points")],
        error_rows(fit),
    )


def parameters(fit: Fit) -> Grid:
    """Every parameter that the cost model has, whatever they are."""
    rows = []
    for name, p in fit.parameters.items():
        if p.value is None:
            rows.append(
                [
                    name,
                    Cell("not measured", "no measured stage had work of this class"),
                    "",
                    p.unit,
                    "",
                ]
            )
        else:
            rows.append(
                [
                    name,
                    f"{p.value:.3g}",
                    f"{p.low:.3g} to {p.high:.3g}",
                    p.unit,
                    (
                        "at its bound"
                        if p.at_bound
                        else ""
                        if p.identified
                        else Cell("mostly belief", BELIEF)
                    ),
                ]
            )
    if fit.training is not None:
        name, value, low, high, unit, note = training_row(fit.training)
        rows.append([name, value, f"{low} to {high}", unit, note])
    return grid(
        f"Cost model of {fit.title}",
        [
            Column("parameter"),
            fitted("value"),
            fitted("90 % interval"),
            Column("unit"),
            Column("note"),
        ],
        rows,
    )


def waterfall(result: Result) -> Grid:
    """Each bar's own provenance is in its cells."""
    return grid(
        "Minutes of video per GPU-hour, factor by factor",
        [
            Column("factor"),
            Column("times", None, True),
            Column("minutes per GPU-hour", None, True),
            Column("provenance"),
        ],
        [
            [
                b.factor,
                Cell(f"{b.multiplier:.3g}", provenance=b.provenance),
                Cell(f"{b.value:.3g}", provenance=b.provenance),
                b.provenance,
            ]
            for b in result.bars
        ],
    )


def work(result: Result) -> Grid:
    """FLOPs by operator class of one call of each stage."""
    kinds = ("linear", "attention", "conv", "other")
    rows = []
    for r in result.points:
        for stage in r.timings:
            c = r.counts[stage]
            shares = [
                Cell(
                    f"{100 * getattr(c, f'{k}_flops') / c.flops:.1f} %",
                    si(getattr(c, f"{k}_flops"), "FLOP"),
                )
                for k in kinds
            ]
            rows.append(
                [
                    r.label,
                    stage,
                    Cell(si(c.flops, "FLOP"), f"{c.flops:,} FLOP"),
                    *shares,
                    f"{si(c.bytes_modelled_min, 'B')} to {si(c.bytes_modelled_max, 'B')}",
                    (
                        f"{c.flops / max(c.bytes_modelled_max, 1):.3g} to"
                        f" {c.flops / max(c.bytes_modelled_min, 1):.3g}"
                    ),
                ]
            )
    return grid(
        "Work by operator class of one call",
        [
            Column("point"),
            Column("stage"),
            counted("FLOPs"),
            *(counted(k) for k in kinds),
            counted("bytes, modelled (fused to unfused)"),
            counted("FLOPs per byte"),
        ],
        rows,
    )


def stage_split(result: Result) -> Grid:
    """Seconds of a whole video by stage, its energy where that was read."""
    stages = list(dict.fromkeys(s for v in result.whole_videos for s in v.seconds))
    rows = []
    for v in result.whole_videos:
        cells = [
            (
                Cell(
                    seconds(v.seconds[s]),
                    f"{v.seconds[s] / v.total.value:.1%} of the video; calls x median of one",
                )
                if s in v.seconds
                else "–"
            )
            for s in stages
        ]
        kwh = (
            "–"
            if v.joules is None
            else f"{v.joules / JOULES_PER_KWH / (v.video_s / SECONDS_PER_MINUTE):.3g}"
        )
        minutes = v.video_s / SECONDS_PER_MINUTE * 3600
        rows.append(
            [
                v.record.label,
                *cells,
                seconds(v.total.value),
                f"{seconds(v.total.low)} to {seconds(v.total.high)}",
                Cell(
                    f"{minutes / v.total.value:.3g}",
                    f"{minutes / v.total.high:.3g} to {minutes / v.total.low:.3g}",
                ),
                Cell(
                    kwh,
                    "energy counter, all calls" if v.joules is not None else "no energy reading",
                ),
            ]
        )
    return grid(
        "A whole batch of videos, stage by stage",
        [
            Column("point"),
            *(measured(s) for s in stages),
            measured("sum"),
            measured("interval"),
            measured("minutes of video per GPU-hour"),
            measured("kWh per minute of video"),
        ],
        rows,
    )


def ceilings(result: Result) -> Grid:
    """Every probe against the datasheet."""
    rows = []
    for p in result.ceilings.probes:
        compute = p.flops is not None
        sheet = datasheet_rate(result, p.kind, p.dtype)
        unit = "FLOP/s" if compute else "B/s"
        rows.append(
            [
                p.kind,
                " ".join(filter(None, (p.dtype, device_tables.backend(p)))),
                " ".join(f"{k}={v:,}" for k, v in p.shape.items()),
                Cell(
                    si(p.rate, unit), f"median of n = {p.timing.n} calls, stopped: {p.timing.stop}"
                ),
                Cell(si(sheet, unit), result.gpu.source) if sheet else Cell("–", "none is known"),
                f"{100 * p.rate / sheet:.3g} %" if sheet else "–",
                str(p.timing.n),
            ]
        )
    return grid(
        f"Ceilings of {result.environment.device_name}",
        [
            Column("probe"),
            Column("dtype"),
            Column("shape"),
            measured("rate"),
            Column("datasheet", "claimed", True),
            measured("share of datasheet"),
            measured("n"),
        ],
        rows,
    )


def bandwidth(result: Result) -> Grid:
    return grid(
        "Memory bandwidth by size of an array",
        [
            counted("array"),
            Column("dtype"),
            *(measured(k) for k in ("copy", "triad", "read", "write")),
        ],
        device_tables.bandwidth_rows(result.ceilings),
    )


def memory(result: Result) -> Grid:
    return grid(
        "Memory by stage",
        [
            Column("point"),
            Column("stage"),
            counted("weights"),
            counted("weights and peak of activations, modelled"),
            measured("peak allocated"),
            measured("reserved"),
            measured("device in use after"),
            measured("activations (derived)"),
        ],
        device_tables.memory_rows(result.points),
    )


def clocks(result: Result) -> Grid:
    return grid(
        "Clocks, power and temperature",
        [
            Column("point"),
            Column("stage"),
            measured("samples"),
            measured("SM clock, median (range)"),
            measured("memory clock"),
            measured("power reading"),
            measured("temperature"),
            Column("clocks held down", "measured"),
        ],
        device_tables.clock_rows(result.points),
    )


def launches(result: Result) -> Grid:
    return grid(
        "Launches: the same call replayed as a CUDA graph",
        [
            Column("point"),
            Column("stage"),
            measured("eager"),
            measured("graph replay"),
            measured("gap"),
            Column("host bound"),
        ],
        device_tables.launch_rows(result.points),
    )


def attention(result: Result) -> Grid:
    return grid(
        "Attention: which kernel ran",
        [
            Column("point"),
            Column("backend that ran", "measured"),
            Column("chosen by"),
            Column("longest kernel"),
            Column("candidates, seconds to the second attention's end", "measured"),
        ],
        device_tables.attention_rows(result.points),
    )


def traffic(result: Result) -> Grid:
    return grid(
        "Traffic, utilisation and energy",
        [
            Column("point"),
            Column("stage"),
            counted("modelled bytes over time (fused to unfused)"),
            measured("DRAM utilisation (GPM)"),
            measured("DRAM bytes/s (derived: utilisation x datasheet)"),
            measured("tensor pipes busy (GPM)"),
            measured("energy of a call (counter)"),
        ],
        device_tables.traffic_rows(result.points),
    )


def ablations(result: Result) -> Grid:
    """Each recipe beside its baseline; a counted speed-up says so itself."""
    name, speed, *others = ablation_tables.COLUMNS
    return grid(
        "Recipes beside their baseline (* on the front of speed and divergence)",
        [Column(name), measured(speed), *map(measured, others)],
        ablation_tables.ablation_rows(result.ablations),
    )


def combinations(result: Result) -> Grid:
    return grid(
        "Combined, beside the product of the parts",
        [
            Column("recipe"),
            Column("parts"),
            measured("product of their speed-ups (derived)"),
            measured("together"),
            measured("together / product"),
        ],
        ablation_tables.combination_rows(result.ablations),
    )


def panel(result: Result) -> Grid:
    return grid(
        "The panel's speed-ups",
        [
            Column("claimed", "claimed"),
            measured("fastest here"),
            measured("fastest with as many steps"),
            Column("verdict on speed"),
            Column("on quality"),
        ],
        ablation_tables.claim_rows(result.ablations, result.environment.device),
    )


def claims(result: Result) -> Grid:
    """Published claims beside ours, from the ledger's document."""
    rows = []
    for c in result.claims["claims"]:
        source = f"{c['source']}; accepted within {c['tolerance']:.0%}"
        ours = ratio = Cell("–", "cannot be told from here")
        if c["ours"] is not None:
            ours = Cell(f"{_between(c['ours'])} ({c['provenance']})", provenance=c["provenance"])
        if c["ratio"] is not None:
            ratio = Cell(plain(c["ratio"]["value"]), "ours over claimed", c["provenance"])
        name = c["quantity"] if c["id"] == c["claim"] else f"{c['id']}: {c['quantity']}"
        rows.append(
            [
                name,
                Cell(f"{_between(c['claimed'])} {c['unit']}", source),
                ours,
                ratio,
                c["verdict"],
                c["why"],
            ]
        )
    return grid(
        "Published claims against ours",
        [
            Column("claim"),
            Column("claimed", "claimed", True),
            Column("ours", None, True),
            Column("ours / claimed", None, True),
            Column("verdict"),
            Column("why"),
        ],
        rows,
    )


def _between(quantity: float | dict[str, float | None]) -> str:
    """A value, with its ends where it has any; an open end is a bound."""
    if not isinstance(quantity, dict):
        return plain(quantity)
    value, low, high = (quantity[end] for end in ("value", "low", "high"))
    if high is None:
        return f"at least {plain(low)}"
    if not low:
        return f"at most {plain(high)}"
    if low == high:
        return plain(low)
    return (
        f"{plain(low)} to {plain(high)}"
        if value is None
        else f"{plain(value)} ({plain(low)} to {plain(high)})"
    )


def environment(result: Result) -> Grid:
    return grid(
        "Environment",
        [Column("what"), Column("value")],
        [
            [key, "–" if value is None else str(value)]
            for key, value in result.environment.model_dump().items()
        ],
    )


def plain(value: float) -> str:
    """Three digits without an exponent, from a millionth to a billion: 0.0000392, 79.5, 128,000."""
    if not 1e-6 <= abs(value) < 1e9:  # and zero
        return f"{value:.3g}"
    digits = max(0, 2 - floor(log10(abs(value))))
    rounded = float(f"{value:.3g}")
    text = f"{rounded:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
