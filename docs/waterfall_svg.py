"""The README's waterfall as an SVG of a few lines: the same bytes on every machine, so that CI can
tell a stale one (matplotlib's differ by version and fonts), and it follows the reader's light or
dark theme."""

from collections.abc import Sequence
from html import escape
from math import log10

from bench.studies.pencil.waterfall import Bar

COLOURS = {
    "claimed": "#7a7a7a",
    "counted": "#0072b2",
    "measured": "#009e73",
    "fitted": "#d55e00",
    "extrapolated": "#b6588f",
}
"""Okabe and Ito's, the greys and pinks darkened to 3:1 on white."""
WIDTH, ROW, LEFT, RIGHT, TOP = 760, 46, 16, 190, 40


def draw(bars: Sequence[Bar]) -> str:
    """One bar a factor on a logarithmic axis, what it is above it, its value and factor behind
    it."""
    low, high = log10(min(b.value for b in bars)) - 0.6, log10(max(b.value for b in bars))
    length = WIDTH - LEFT - RIGHT
    height = TOP + ROW * len(bars) + 34
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'font-family="system-ui, sans-serif" font-size="14">'
        ),
        "<title>Minutes of video per H100-hour, factor by factor</title>",
        "<style>text { fill: #1c1c1c } .back { fill: #ffffff } .factor { font-size: 13px }",
        (
            "@media (prefers-color-scheme: dark) { text { fill: #e8e8e8 } .back { fill: #15181c }"
            " }</style>"
        ),
        f'<rect class="back" width="{WIDTH}" height="{height}" rx="6"/>',
        (
            f'<text x="{LEFT}" y="24" font-weight="600">Minutes of video per H100-hour (sora-20b,'
            " one minute at 512x512; log scale)</text>"
        ),
    ]
    for i, bar in enumerate(bars):
        y = TOP + ROW * i
        span = max(length * (log10(bar.value) - low) / (high - low), 2)
        times = f"  (×{bar.multiplier:.3g})" if i else ""
        lines += [
            f'<text class="factor" x="{LEFT}" y="{y + 14}">{escape(bar.factor)}</text>',
            f'<rect x="{LEFT}" y="{y + 20}" width="{span:.1f}" height="16"'
            f' fill="{COLOURS[bar.provenance]}"' + (' opacity="0.6"/>' if bar.extra else "/>"),
            (
                f'<text x="{LEFT + span + 8:.1f}" y="{y + 33}">{bar.value:.3g}{times}'
                f" {bar.provenance}</text>"
            ),
        ]
    x, y = LEFT, height - 12
    for word in dict.fromkeys(b.provenance for b in bars):
        lines += [
            f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{COLOURS[word]}"/>',
            f'<text class="factor" x="{x + 17}" y="{y}">{word}</text>',
        ]
        x += 34 + 8 * len(word)
    return "\n".join([*lines, "</svg>", ""])
