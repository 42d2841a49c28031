"""Another node of a run on several.  follow."""

from typing import Annotated

import typer

from bench.commands.parts.options import Json, duration
from bench.commands.parts.output import print_json

Rendezvous = Annotated[str, typer.Option(help="HOST:PORT, as given to `run`.", show_default=False)]
Patience = Annotated[str, typer.Option(help="Wait so long for the run to listen there.")]


def follow(rendezvous: Rendezvous, patience: Patience = "10m", as_json: Json = False) -> None:
    """Lend this node to a `run --nodes N --rendezvous HOST:PORT` on another.

    Starts this node's ranks whenever that run measures a point on more ranks than its own node has.
    It ends with the run; nothing is written here."""
    from bench.measure.group.nodes import follow as follow_run

    groups = follow_run(rendezvous, duration(patience, "--patience"))
    if as_json:
        return print_json({"groups": groups})
    typer.echo(f"the run is over; {groups} groups had ranks here")
