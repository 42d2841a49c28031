"""All results on one page: served on this machine, or exported."""

import time
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.parts.options import Json
from bench.commands.parts.output import print_json, say
from bench.core.errors import UserError, nearest


def explore(
    results: Annotated[
        Path | None,
        typer.Option(
            help="Where the results are; ./results where there is one.", show_default=False
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(help="On 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write one file that needs no server instead.", show_default=False
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            show_default=False,
            help=(
                "With --export: a model that every source is asked about; repeatable. By default"
                " well-known ones by published evidence, and each device's headline model."
            ),
        ),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(
            help="With --export: carry own records over to this card too; repeatable.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """A page that answers how many minutes of video a GPU makes per hour, beside all results.
    Ctrl-C ends it.

    An answer counts exactly that point; an exported page interpolates between counted lengths, and
    says so."""
    if results is not None and not results.is_dir():
        raise UserError(f"--results {results}: no such directory; `ldt-bench run` makes one")
    results = results or Path("results")
    if export is not None:
        return _export(results, export, model or [], gpu or [], as_json)
    if model or gpu:
        raise UserError("--model and --gpu go with --export; the served page offers all of them")
    from bench.explore.server import ExploreServer

    with ExploreServer(results, port) as server:
        print_json({"url": server.url}) if as_json else typer.echo(server.url)
        say("this machine alone can open it; Ctrl-C ends it")
        if browser:
            webbrowser.open(server.url)
        server.serve_forever()


def _export(results: Path, path: Path, models: list[str], gpus: list[str], as_json: bool) -> None:
    from bench.core.load import names
    from bench.explore.data import read_table
    from bench.explore.grid import asked_of, grid
    from bench.explore.page import document, exported_page, report_links
    from bench.explore.published import published_source
    from bench.report.progress import SuiteProgress
    from bench.results.store import disk_faults, write_whole

    if path.is_dir():
        raise UserError(f"--export {path}: expected a file, found a directory")
    for option, given, kind in (("--model", models, "models"), ("--gpu", gpus, "gpus")):
        for name in given:
            if name not in names(kind):
                raise UserError(
                    f"{option} {name!r} is not a preset{nearest(name, names(kind))} (`ldt-bench"
                    f" list {kind}`)"
                )
    started, table = time.monotonic(), read_table(results)
    with SuiteProgress("what-if grid") as progress:
        sources = [*table.calibrations, published_source()]
        cells = grid(results, asked_of(sources, models, gpus), progress.watch)
    page = exported_page(document(table, cells, report_links(results, path)))
    with disk_faults(path, measured=False):
        write_whole(path, page)
    said = {
        "page": str(path),
        "points": len(table),
        "cells": len(cells["cells"]),
        "cells_missing": len(cells["missing"]),
        "bytes": len(page.encode()),
        "wall_s": time.monotonic() - started,
    }
    if as_json:
        return print_json(said)
    typer.echo(str(path))
    say(
        f"{said['points']} points, {said['cells']} what-if cells ({said['cells_missing']} cannot be"
        f" predicted), {said['bytes'] / 1e6:.1f} MB"
    )
