"""The text of report.md."""

from typing import Any

import jinja2

from bench.report.figures.drawing import Picture
from bench.report.numbers import without_exponents
from bench.report.render import markdown_text, to_markdown


def markdown(shown: dict[str, Any], pictures: dict[str, Picture], for_print: bool) -> str:
    """shown: of `bench.report.contents`; for_print: the figures have a PDF too."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.report", "."),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    environment.filters |= {
        "people": without_exponents,
        "text": markdown_text,
        "table": to_markdown,
    }
    template = environment.get_template("report.md.j2")
    return template.render(**shown, pictures=pictures, for_print=for_print)
