"""profile.json, profile.html and the icicle of a profile."""

from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
from markupsafe import Markup

from bench.report.figures.drawing import FORMATS, STYLE, save
from bench.report.html import inline_svg
from bench.report.numbers import traffic, work_rate
from bench.report.profile.icicle import icicle
from bench.report.profile.tables import modules_table, operators_table, profile_line
from bench.report.render import html_tag, to_html
from bench.results.profile import Profile
from bench.results.store import disk_faults, write_whole

NAME, PAGE = "profile.json", "profile.html"


def write_profile(directory: Path, profile: Profile) -> dict[str, str]:
    """-> the files by what they are.  Raises UserError and EnvironmentFault as other writes do."""
    with disk_faults(directory):
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / NAME, profile.model_dump_json(indent=1))
        with plt.style.context(STYLE):
            title = f"{profile.stage} by module"
            picture = save(icicle(profile), directory, "icicle", title, FORMATS)
        svg = inline_svg((directory / "icicle.svg").read_text(encoding="utf-8"), picture)
        loader = jinja2.PackageLoader("bench.report", ".")
        environment = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
        )
        environment.filters |= {"table": to_html, "tag": html_tag}
        text = environment.get_template("profile.html.j2").render(
            profile=profile,
            line=profile_line(profile),
            picture=picture,
            svg=svg,
            modules=modules_table(profile),
            operators=operators_table(profile),
            gemm=work_rate(profile.rates.gemm_flops_per_s),
            copy=f"{traffic(profile.rates.copy_bytes_per_s)}/s",
            style=Markup(loader.get_source(environment, "report.css")[0]),
        )
        write_whole(directory / PAGE, text)
    return {"profile": str(directory / NAME), "page": str(directory / PAGE)}
