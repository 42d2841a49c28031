"""Options and arguments that several commands take."""

import functools
import inspect
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.commands.parts.output import say
from bench.core.errors import UserError, nearest
from bench.core.verbosity import verbosity


def completes(kind: str) -> Callable[[str], list[str]]:
    """Shell completion by the names in configs/<kind>.  Lists the folder and no more: it runs at
    each tab key."""

    def names(incomplete: str) -> list[str]:
        spec = find_spec("configs")
        assert spec is not None
        folder = Path(next(iter(spec.submodule_search_locations or []))) / kind
        return sorted(
            path.stem for path in folder.glob("*.yaml") if path.stem.startswith(incomplete)
        )

    return names


def recipe_option(meaning: str, name: str = "--recipe") -> Any:
    """An option that takes a recipe, or several; an old name is taken with a note."""

    def noted(given: Any) -> Any:
        from bench.core.presets import old_name

        named = given if isinstance(given, (list, tuple)) else [given]
        for note in filter(None, (old_name(recipe) for recipe in named if recipe)):
            say(f"note: {note}")
        return given

    return typer.Option(
        name,
        help=meaning,
        callback=noted,
        autocompletion=completes("recipes"),
        show_default=False,
    )


def names_yaml(given: Any) -> Any:
    """Note the YAML files that the user names: the Python classes in them may be imported."""
    words = given if isinstance(given, (list, tuple)) else [given]
    files = [word for word in words if isinstance(word, str) and word.endswith((".yaml", ".yml"))]
    for file in files:
        from bench.core.user.code import name_yaml

        name_yaml(file)
    return given


Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override a field, e.g. width=1024, workload.frames=17. Repeatable.",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="[MODEL=]DIR",
        help="Real weights: a folder in diffusers' layout, or of .safetensors files. Repeatable.",
    ),
]
ModelName = Annotated[
    str,
    typer.Argument(
        help="A name in configs/models, or a YAML file.",
        show_default=False,
        callback=names_yaml,
        autocompletion=completes("models"),
    ),
]
WorkloadName = Annotated[
    str,
    typer.Option(
        "--workload",
        "-w",
        help="A name in configs/workloads, or a YAML file.",
        autocompletion=completes("workloads"),
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="cuda, cuda:N or cpu; cuda where there is one by default.",
        autocompletion=lambda: ["cpu", "cuda"],
    ),
]
ResultDir = Annotated[
    Path, typer.Argument(help="A directory made by `ldt-bench run`.", show_default=False)
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress, notes or warnings; errors and results stay."),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Also what the measuring process prints, every warning, and how long it took.",
    ),
]


def go_with(mode: str, chosen: bool, options: dict[str, object]) -> None:
    """Raises UserError for an option that is given without the one it belongs to."""
    for option, value in options.items():
        if not chosen and value not in (None, [], False):
            raise UserError(f"{option} goes with {mode}")


def duration(text: str, option: str) -> float:
    """Seconds.  Raises UserError, naming the option."""
    from bench.core.units import parse_duration

    try:
        return parse_duration(text)
    except UserError as error:
        raise UserError(f"{option}: {error}") from None


def check_device(device: str | None) -> None:
    """Raises UserError for what is no device."""
    kind, colon, index = (device or "cpu").partition(":")
    numbered = not colon or (kind == "cuda" and index.isascii() and index.isdigit())
    if kind not in ("cpu", "cuda") or not numbered:
        raise UserError(
            f"--device {device!r} is not one of cpu, cuda, cuda:N{nearest(kind, ['cpu', 'cuda'])}"
        )


def check_cards(device: str | None, gpu: str | None) -> None:
    """Raises UserError for what is no device, or a card without a file."""
    check_device(device)
    check_gpu(gpu)


def check_gpu(gpu: str | None, option: str = "--gpu") -> None:
    """Raises UserError for a card without a file."""
    from bench.core.load import names

    if gpu is not None and gpu not in names("gpus"):
        raise UserError(
            f"{option} {gpu!r} is not one of"
            f" {', '.join(names('gpus'))}{nearest(gpu, names('gpus'))}"
        )


def set_verbosity(quiet: bool, verbose: bool) -> None:
    """Adds to what stood before the command.  Raises UserError where both are asked for."""
    verbosity.quiet, verbosity.verbose = verbosity.quiet or quiet, verbosity.verbose or verbose
    if verbosity.quiet and verbosity.verbose:
        raise UserError("--quiet and --verbose contradict one another")


def with_verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with --quiet and --verbose among its options, so that they may stand behind its
    name too."""

    @functools.wraps(command)
    def called(*args: Any, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        set_verbosity(quiet, verbose)
        return command(*args, **kwargs)

    signature = inspect.signature(command)
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
        )
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]
    parameters = [*signature.parameters.values(), *added]
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {**command.__annotations__, "quiet": Quiet, "verbose": Verbose}
    return called


Mesh = Annotated[
    str | None,
    typer.Option(
        "--parallel",
        metavar="AXIS=DEGREE,...",
        help="Run one model on several GPUs: degrees of cfg, ulysses, ring, tensor, data, vae, e.g."
        " ulysses=4,cfg=2.",
        show_default=False,
    ),
]


def mesh_of(text: str) -> dict[str, Any]:
    """The value of --parallel.  Raises UserError, with the nearest axis for an unknown one."""
    from models.parallel.spec import Parallel, parse_parallel

    try:
        given = parse_parallel(text)
    except ValueError as error:
        raise UserError(f"--parallel {error}") from None
    fields = list(Parallel.model_fields)
    unknown = next((name for name in given if name not in fields), None)
    if unknown is not None:
        raise UserError(
            f"--parallel: unknown axis {unknown!r}{nearest(unknown, fields)}; axes:"
            f" {', '.join(fields)}"
        )
    try:
        Parallel(**given)
    except ValueError as error:
        first = error.errors(include_url=False)[0]
        said = first["msg"].removeprefix("Value error, ")
        field = f" {first['loc'][0]}={first['input']}" if first["loc"] else ""
        raise UserError(f"--parallel{field}: {said}") from None
    return given
