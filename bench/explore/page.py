"""The explore page: served in parts, or exported as one file that needs neither server nor network.

plotly draws, DataTables holds the table, the browser's own controls ask; both libraries travel in
vendor/.  Nothing of a record reaches the markup: the page is fixed, data come as JSON, and our
scripts write them as text.
"""

import base64
import hashlib
import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from bench.explore.choices import choices
from bench.explore.data import Table, result_directories
from bench.explore.published import published_source
from bench.results.store import PAGE

POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; img-src"
    " data: blob:; script-src "
)
SERVED_POLICY = (
    POLICY.replace("style-src", "style-src 'self'")
    + "'self'; connect-src 'self'; frame-ancestors 'none'"
)
SCRIPTS = ("plotly.js", "tables.js", "explore.js")
STYLES = ("tables.css", "explore.css")
SCRIPT_PARTS = ("words", "points", "ask", "link", "answer", "compare", "start")
"""js/*.js, which are one module together, in this order."""


def document(
    table: Table, grid: dict[str, Any] | None = None, reports: dict[str, str] | None = None
) -> dict[str, Any]:
    """All that the page shows; what others published is one more source of answers.  reports: by
    result, as `report_links` gives them."""
    sources = [*table.calibrations, published_source()]
    return {
        **table.document(),
        "calibrations": sources,
        "choices": choices(),
        "grid": grid,
        "reports": reports or {},
    }


def report_links(results: Path, page: Path) -> dict[str, str]:
    """Result -> its report.html as seen from an exported page.  "./" before it, so that no
    directory's name is taken for a scheme."""
    found = {}
    for directory in result_directories(results):
        report = directory / PAGE
        if report.is_file():
            seen = os.path.relpath(report.resolve(), page.parent.resolve())
            found[directory.relative_to(results).as_posix()] = f"./{quote(seen)}"
    return found


def served_page() -> bytes:
    """With links to served_files."""
    return _render(policy=None, styles=[], scripts=[], data=None, links=True).encode()


def served_files() -> dict[str, tuple[bytes, str]]:
    """Path -> content and type."""
    return {
        f"/{name}": (
            asset(name).encode(),
            f"text/{'css' if name.endswith('css') else 'javascript'}; charset=utf-8",
        )
        for name in (*SCRIPTS, *STYLES)
    }


def exported_page(shown: dict[str, Any]) -> str:
    """One file: scripts, styles and data inline; a content policy names the scripts' hashes and no
    network."""
    scripts = [_inside_script(asset(name)) for name in SCRIPTS]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    data = json.dumps(shown, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return _render(
        policy=POLICY + hashes,
        styles=[asset(name) for name in STYLES],
        scripts=scripts,
        data=data,
        links=False,
    )


def asset(name: str) -> str:
    """A script or style of the page."""
    if name == "explore.js":
        return "\n".join(_text("js", f"{part}.js") for part in SCRIPT_PARTS)
    if name == "explore.css":
        return _text(name)
    if name == "plotly.js":
        return _text("vendor", name)
    if name == "tables.css":
        return _text("vendor", "datatables.css")
    export = re.compile(r"export\s*\{[^}]*?\b([\w$]+) as default\b[^}]*\};?")
    return export.sub(r"globalThis.DataTable=\1;", _text("vendor", "datatables.js"), count=1)


def _text(*path: str) -> str:
    return resources.files("bench.explore").joinpath(*path).read_text(encoding="utf-8")


def _inside_script(text: str) -> str:
    """So that the HTML parser sees only the end that is ours; in a string or a pattern `\\` before
    them changes nothing."""
    return (
        text.replace("<!--", "<\\!--")
        .replace("<script", "<\\script")
        .replace("</script", "<\\/script")
    )


def _render(
    policy: str | None, styles: list[str], scripts: list[str], data: str | None, links: bool
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.explore", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("explore.html.j2").render(
        policy=policy,
        styles=[Markup(s) for s in styles],
        scripts=[Markup(s) for s in scripts],  # ours and packages'
        data=None if data is None else Markup(data),
        style_links=STYLES if links else [],
        script_links=SCRIPTS if links else [],
    )
