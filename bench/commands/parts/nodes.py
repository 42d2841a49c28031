"""On which GPUs and nodes a run measures its meshes."""

from typing import Annotated, Any

import typer

from bench.commands.parts.options import go_with
from bench.core.errors import UserError
from models.parallel.spec import MAX_RANKS

Gpus = Annotated[
    int | None,
    typer.Option(
        help="GPUs of one model, of all nodes: a suite's `parallel: all` is every mesh of so many.",
        show_default=False,
    ),
]
NodeCount = Annotated[
    int | None,
    typer.Option("--nodes", help="With --gpus: on so many nodes, alike.", show_default=False),
]
Rendezvous = Annotated[
    str | None,
    typer.Option(
        help="With --nodes: HOST:PORT of this node; on each other, `ldt-bench follow`.",
        show_default=False,
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        metavar="ENGINE",
        help="Measure on a cluster: ray (of this machine), ray://HOST:PORT, slurm://PARTITION/SHARDS.",
        show_default=False,
    ),
]


def on_engine(on: str | None, here: Any) -> Any:
    """The run that was asked for, here or on a cluster's engine.  Raises UserError for an engine
    that there is not, and for what it cannot take."""
    if on is None:
        return here
    from bench.run.engines.on_ray import RayRun, parse_on
    from bench.run.engines.on_slurm import SCHEME, SlurmRun, parse_slurm

    of_here = {"--budget": here.budget_s, "--nodes": here.nodes, "--shard": here.suite.shard}
    go_with("a run of this machine, not with --on", False, of_here)
    if on.startswith(SCHEME):
        partition, count = parse_slurm(on)
        go_with("a run of one machine", False, {"--weights": here.suite.weights})
        go_with("a new array of shards", here.resume is None, {"--resume": here.resume})
        return SlurmRun(
            suite=here.suite,
            device=here.device,
            partition=partition,
            count=count,
            root=here.root,
        )
    return RayRun(
        suite=here.suite,
        device=here.device,
        address=parse_on(on),
        root=here.root,
        resume=here.resume,
        mix_environments=here.mix_environments,
    )


def on_gpus(suite: Any, gpus: int | None, nodes: int | None) -> Any:
    """The suite's meshes on so many GPUs.  Raises UserError for a suite that names its own."""
    if gpus is None:
        return suite
    if not 2 <= gpus <= MAX_RANKS:
        raise UserError(f"--gpus {gpus}: expected 2 to {MAX_RANKS}")
    every = any(entry.parallel == "all" for entry in suite.points)
    if not every and nodes is None:
        raise UserError(
            f"--gpus {gpus}: suite {suite.name} names its meshes itself; scaling measures every"
            " mesh of so many"
        )
    return suite.model_copy(update={"gpus": gpus}) if every else suite


def nodes_of(gpus: int | None, nodes: int | None, rendezvous: str | None) -> Any:
    """What groups span.  Raises UserError where GPUs do not fill alike nodes."""
    if nodes is None:
        go_with("--nodes", False, {"--rendezvous": rendezvous})
        return None
    from bench.measure.group.nodes import Nodes, parse_address

    if gpus is None or rendezvous is None:
        raise UserError(f"--nodes {nodes} goes with --gpus, of all of them, and --rendezvous")
    if nodes < 2 or gpus % nodes:
        raise UserError(f"--nodes {nodes}: expected 2 or more that share {gpus} GPUs evenly")
    parse_address(rendezvous)
    return Nodes(rendezvous, nodes, gpus // nodes)
