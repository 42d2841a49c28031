"""report.html: one file that needs no network, no server and no script to be read.

Everything is inlined: style, script, figures.  Names are the user's, so every string is escaped by
jinja2, matplotlib escapes what it writes into an SVG, and a content policy lets no script run but
the one whose hash it names.
"""

import base64
import hashlib
import re
from typing import Any

import jinja2
from markupsafe import Markup

from bench.core.units import minutes_an_hour
from bench.report.figures.drawing import BLUE, INK, PAPER, Picture
from bench.report.numbers import plain, without_exponents
from bench.report.opening.answer import subject_of
from bench.report.render import brief, html_tag, to_html
from bench.report.result import Result
from bench.report.tables.table import PROVENANCES


def page(shown: dict[str, Any], pictures: dict[str, Picture]) -> str:
    """The whole document.  shown: of `bench.report.contents`; the SVGs lie in figures/."""
    result: Result = shown["result"]
    loader = jinja2.PackageLoader("bench.report", ".")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "table": to_html,
        "tag": html_tag,
        "brief": brief,
        "people": without_exponents,
    }
    script, style = (loader.get_source(environment, f"report.{kind}")[0] for kind in ("js", "css"))
    taken: set[str] = set()

    def take(name: str) -> Picture | None:
        """Each once: where it comes first."""
        if name in taken:
            return None
        taken.add(name)
        return pictures.get(name)

    def svg(picture: Picture) -> Markup:
        text = (result.directory / "figures" / f"{picture.name}.svg").read_text(encoding="utf-8")
        return inline_svg(text, picture)

    return environment.get_template("report.html.j2").render(
        **shown,
        picture=take,
        svg=svg,
        rest=lambda: [p for name, p in pictures.items() if name not in taken],
        plain=plain,
        minutes_unit=minutes_an_hour(result.environment.gpu),
        about=subject_of(result),
        provenances=PROVENANCES,
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
    # A browser would show the title on every hover.
    text = re.sub(r"<title>.*?</title>\s*", "", text, flags=re.DOTALL)
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
