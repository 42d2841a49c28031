"""Options and arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from bench.core.errors import UserError, nearest

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Set = Annotated[list[str] | None, typer.Option(
    "--set", metavar="PATH=VALUE", help="Override a field, e.g. width=1024, workload.frames=17. Repeatable.")]
WorkloadName = Annotated[str, typer.Option("--workload", "-w", help="A name in configs/workloads, or a YAML file.")]
Device = Annotated[str | None, typer.Option("--device", help="cuda or cpu; cuda where there is one by default.")]
ResultDir = Annotated[Path, typer.Argument(help="A directory made by `ldt-bench run`.", show_default=False)]


def check_device(device: str | None) -> None:
    if device not in (None, "cpu", "cuda"):
        raise UserError(f"--device {device!r} is not one of cpu, cuda{nearest(device, ['cpu', 'cuda'])}")
