"""report.html: one file that needs no network, no server and no script to be read.

Everything is inlined: style, script, figures.  Names are the user's, so every string is escaped by
jinja2, matplotlib escapes what it writes into an SVG, and a content policy lets no script run but
the one whose hash it names.
"""

import base64
import hashlib
import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from bench.report.figures.drawing import BLUE, INK, PAPER, PROVENANCES, Picture
from bench.report.result import Result
from bench.report.tables import device as device_tables
from bench.report.tables import grids
from bench.report.tables.common import gemm_ceiling
from bench.results.store import PAGE, write_whole

MEANINGS = {
    "counted": "from the model's own operators; exact, no device needed",
    "measured": "timed or read on this device, with n and an interval",
    "fitted": "by the cost model, from this result's measurements, with its held-out error",
    "extrapolated": "fitted, but outside what was measured; the warnings say by how much",
    "claimed": "published by somebody else, with its source",
}


def write_page(result: Result, pictures: dict[str, Picture]) -> Path:
    """Write report.html beside the records -> its path.  The pictures' SVGs are in figures/."""
    path = result.directory / PAGE
    write_whole(path, page(result, pictures))
    return path


def page(result: Result, pictures: dict[str, Picture]) -> str:
    """The whole document."""
    loader = jinja2.PackageLoader("bench.report", ".")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = (loader.get_source(environment, f"report.{kind}")[0] for kind in ("js", "css"))
    shown: set[str] = set()

    def take(name: str) -> Picture | None:
        shown.add(name)
        return pictures.get(name)

    def svg(picture: Picture) -> Markup:
        text = (result.directory / "figures" / f"{picture.name}.svg").read_text(encoding="utf-8")
        return inline_svg(text, picture)

    return environment.get_template("report.html.j2").render(
        result=result,
        picture=take,
        svg=svg,
        rest=lambda: [p for name, p in pictures.items() if name not in shown],
        grids=grids,
        plain=grids.plain,
        gaps=device_tables.gaps(result.points),
        memory_gaps=_memory_gaps(result),
        has_attention=bool(device_tables.attention_rows(result.points)),
        launches=device_tables.launch_rows(result.points),
        no_replays=device_tables.no_replays(result.points),
        has_clocks=bool(device_tables.clock_rows(result.points)),
        has_memory=bool(device_tables.memory_rows(result.points)),
        gemm_ceiling=gemm_ceiling(result.ceilings) if result.ceilings else None,
        provenances=PROVENANCES,
        meanings=MEANINGS,
        dollars=_dollars(result),
        script=Markup(script),
        style=Markup(style),  # ours, read from the package
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def inline_svg(text: str, picture: Picture) -> Markup:
    """A figure's SVG as a part of the page: names of its own, ink and paper that follow the theme,
    no metadata."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(
        r"<title>.*?</title>\s*", "", text, flags=re.DOTALL
    )  # a browser would show it on every hover
    text = re.sub(r'\b(id="|url\(#|href="#)', lambda m: f"{m[1]}{picture.name}-", text)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', head)
    assert box is not None
    rest = (
        rest.replace(INK, "currentColor")
        .replace(PAPER, "var(--paper)")
        .replace(BLUE.lower(), "var(--blue)")
    )
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' {box[0]} role="img" aria-labelledby="{picture.name}-title"'
        f' aria-describedby="{picture.name}-caption">'
    ) + Markup(rest)


def _dollars(result: Result) -> tuple[float, float] | None:
    """USD a minute of video, low and high, by the card's price range; None where it has none."""
    price = result.gpu.price_usd_per_hour if result.gpu else None
    if price is None or result.headline is None:
        return None
    minutes = result.headline.minutes_per_gpu_hour
    return (price.low / minutes.high, price.high / minutes.low) if minutes.low else None


def _memory_gaps(result: Result) -> list[str]:
    return list(
        dict.fromkeys(
            r.memory.reason for r in result.points if r.memory is not None and r.memory.reason
        )
    )
