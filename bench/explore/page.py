"""The explore page: served in parts, or exported as one file that needs neither server nor network.

plotly draws, DataTables (as the package itables bundles it) holds the table, the browser's own
controls ask.  Both packages carry their JavaScript in their wheels.  Nothing of a record reaches
the markup: the page is fixed, data come as JSON, and explore.js writes them as text.
"""

import base64
import hashlib
import importlib.util
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bench.core.errors import EnvironmentFault
from bench.explore.data import PIP_LINE, Table, needs
from bench.explore.grid import choices
from bench.explore.published import published_source

# plotly's WebGL traces compile their shaders' wrappers with Function(); no page or record adds a
# script all the same.
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; img-src"
    " data: blob:; script-src 'unsafe-eval' "
)
SERVED_POLICY = (
    POLICY.replace("style-src", "style-src 'self'")
    + "'self'; connect-src 'self'; frame-ancestors 'none'"
)
SCRIPTS = ("plotly.js", "tables.js", "explore.js")
STYLES = ("tables.css", "explore.css")


def document(table: Table, grid: dict[str, Any] | None = None) -> dict[str, Any]:
    """All that the page shows; what others published is one more source of answers."""
    sources = [*table.calibrations, published_source()]
    return {**table.document(), "calibrations": sources, "choices": choices(), "grid": grid}


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
    """A script or style of the page.  Raises EnvironmentFault where its package is missing."""
    if name == "plotly.js":
        return _packaged("plotly", "package_data/plotly.min.js")
    if name == "tables.css":
        return _packaged("itables", "html/dt_bundle.css")
    if name == "tables.js":
        text, n = re.subn(
            r"export\s*\{[^}]*?\b([\w$]+) as default\b[^}]*\};?",
            r"globalThis.DataTable=\1;",
            _packaged("itables", "html/dt_bundle.js"),
        )
        if n != 1:
            raise EnvironmentFault(
                f"itables exports its DataTables in another way than is known here: {PIP_LINE}"
            )
        return text
    return (resources.files("bench.explore") / name).read_text(encoding="utf-8")


def _packaged(package: str, path: str) -> str:
    """Read from the installed package without importing it (itables would want pandas)."""
    spec = importlib.util.find_spec(package)
    needs(package, spec)
    assert spec is not None
    for folder in spec.submodule_search_locations or []:
        if (Path(folder) / path).is_file():
            return (Path(folder) / path).read_text(encoding="utf-8")
    raise EnvironmentFault(f"{package} has no {path}: {PIP_LINE}")


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
