"""The tables and the figure of docs/parallel.md: three models on 1 to 8 H100s, as `predict --gpus`
has them.  The figure is an SVG of a few lines, so that CI can tell a stale one."""

import functools
from math import log10

from h100_plan import table

from bench.calibrate.evidence.forecast import forecast, usual_conditions
from bench.calibrate.scaling.choose import all_meshes, ranked
from bench.calibrate.scaling.evidence import scaling_evidence
from bench.calibrate.scaling.forecast import Base, MeshForecast, base_of_forecast
from bench.core.load import load_point
from bench.count.cache import CountCache
from bench.report.forecasts import dollars
from bench.report.numbers import three
from bench.report.tables.forecasts import mesh_name

GPU = "h100-sxm"
COUNTS = (1, 2, 4, 8)
POINTS = (
    ("wan2.1-t2v-14b", "720p-81f", "#0072b2"),
    ("hunyuanvideo", "720p-129f", "#009e73"),
    ("sora-20b", "sora-1min-512", "#d55e00"),
)
"""Model, workload and colour (Okabe and Ito)."""
HELD_OUT_HEAD = ["left out", "cards", "rows", "mean error", "constant efficiency", "inside 90 %"]
PANEL, GAP, LEFT, TOP, HEIGHT = 300, 90, 60, 48, 220


@functools.cache
def best_meshes() -> dict[str, list[tuple[Base, MeshForecast]]]:
    """Model -> the fastest mesh of each number of cards."""
    counts, out = CountCache(), {}
    for model, workload, _ in POINTS:
        point = load_point(model, workload, "eager-bf16")
        alone = forecast(point, GPU, usual_conditions(model), counts)
        base = base_of_forecast(alone, counts)
        out[model] = [(base, ranked(all_meshes(base, n), "latency")[0]) for n in COUNTS]
    return out


def meshes_block(found: object) -> str:
    """Seconds, dollars and the mesh of each."""
    head = ["model", "GPUs", "fastest mesh", "seconds (90 %)", "a minute", "efficiency", ""]
    rows = [
        (
            f"{model} {base.point.workload.name}",
            str(m.parallel.ranks),
            mesh_name(m),
            f"{three(m.video_s.value)} ({three(m.video_s.low)} to {three(m.video_s.high)})",
            dollars(m.usd_per_minute).removesuffix(" per minute"),
            f"{m.efficiency:.0%}",
            m.provenance,
        )
        for model, best in best_meshes().items()
        for base, m in best
    ]
    return table(head, rows)


def mesh_errors_block(found: object) -> str:
    """How right they were, of rows that the fit never saw."""
    fitted = scaling_evidence()
    words = {
        True: "The source has its own row on one card",
        False: "One card is a forecast too",
    }
    text = f"{fitted.n} rows of {len(fitted.sources)} sources.\n"
    for own_base, title in words.items():
        rows = [
            (
                f"a {e.by}",
                "all" if e.cards is None else str(e.cards),
                str(e.n),
                f"{e.error:.1%}",
                "–" if e.constant is None else f"{e.constant:.1%}",
                f"{e.inside:.0%}",
            )
            for e in fitted.held_out
            if e.own_base == own_base
        ]
        text += f"\n{title}:\n\n" + table(HELD_OUT_HEAD, rows)
    return text


def draw() -> str:
    """Seconds a video, and dollars a minute at the price's middle, against GPUs -> SVG."""
    width, height = LEFT + 2 * PANEL + GAP + 20, TOP + HEIGHT + 70
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'font-family="system-ui, sans-serif" font-size="13">'
        ),
        "<title>Seconds a video and dollars a minute against H100s, three models</title>",
        "<style>text { fill: #1c1c1c } .back { fill: #ffffff } .axis { stroke: #7a7a7a }",
        (
            "@media (prefers-color-scheme: dark) { text { fill: #e8e8e8 } .back { fill: #15181c }"
            " }</style>"
        ),
        f'<rect class="back" width="{width}" height="{height}" rx="6"/>',
    ]
    best = best_meshes()
    seconds = {model: [m.video_s.value for _, m in rows] for model, rows in best.items()}
    usd = {
        model: [m.usd_per_minute.value for _, m in rows if m.usd_per_minute is not None]
        for model, rows in best.items()
    }
    lines += _panel(LEFT, "seconds a video", seconds)
    lines += _panel(LEFT + PANEL + GAP, "$ a minute of video", usd)
    x = LEFT
    for model, _, colour in POINTS:
        lines.append(f'<rect x="{x}" y="{height - 24}" width="12" height="12" fill="{colour}"/>')
        lines.append(f'<text x="{x + 17}" y="{height - 14}">{model}</text>')
        x += 40 + 8 * len(model)
    return "\n".join([*lines, "</svg>", ""])


def _panel(left: int, title: str, curves: dict[str, list[float]]) -> list[str]:
    """Both axes logarithmic."""
    values = [value for curve in curves.values() for value in curve]
    low, high = log10(min(values)) - 0.1, log10(max(values)) + 0.1
    bottom = TOP + HEIGHT

    def across(n: int) -> float:
        return left + PANEL * log10(n) / log10(COUNTS[-1])

    def up(value: float) -> float:
        return bottom - HEIGHT * (log10(value) - low) / (high - low)

    lines = [
        f'<text x="{left}" y="{TOP - 20}" font-weight="600">{title} (log scale)</text>',
        f'<line class="axis" x1="{left}" y1="{bottom}" x2="{left + PANEL}" y2="{bottom}"/>',
    ]
    lines += [
        f'<text x="{across(n):.1f}" y="{bottom + 18}" text-anchor="middle">{n}</text>'
        for n in COUNTS
    ]
    for model, _, colour in POINTS:
        curve = curves[model]
        points = " ".join(
            f"{across(n):.1f},{up(v):.1f}" for n, v in zip(COUNTS, curve, strict=True)
        )
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        ends = ((COUNTS[0], curve[0], "start"), (COUNTS[-1], curve[-1], "end"))
        lines += [
            f'<text x="{across(n):.1f}" y="{up(value) - 7:.1f}" text-anchor="{anchor}">'
            f"{three(value)}</text>"
            for n, value, anchor in ends
        ]
    return lines
