"""The pencil estimate under other assumptions: what a reader would put in, counted beside it.

`sora-20b` and its minute are changed with the assumptions: the width, so that the parameters come
as near as whole heads allow; frames, sides, steps of the workload.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from bench.core.errors import UserError, brief, nearest
from bench.core.load import load
from bench.core.reference import MODEL, WORKLOAD
from bench.core.specs.model import Model, with_denoiser
from bench.core.specs.workload import Workload
from bench.count.closed import dit as closed_form
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.demand import Demand, Headroom

Part = Literal["chain", "demand", "headroom", "workload"]
IMAGE_SIDE = 512  # of the DiT image that the chain scales from
MOST_HEADS = 512


@dataclass(frozen=True)
class Name:
    """Something that may be set."""

    part: Part
    field: str
    unit: str
    least: float
    most: float
    whole: bool = False


NAMES: dict[str, Name] = {
    "params": Name("chain", "sora_params", "parameters of the video model", 1e8, 1e12),
    "seconds": Name("workload", "seconds", "s of video", 1, 600, whole=True),
    "fps": Name("workload", "fps", "frames a second", 1, 120, whole=True),
    "height": Name("workload", "height", "pixels", 64, 4096, whole=True),
    "width": Name("workload", "width", "pixels", 64, 4096, whole=True),
    "steps": Name("workload", "steps", "denoising steps", 1, 10_000, whole=True),
    "flops_per_s": Name("chain", "h100_flops_per_s", "FLOP/s of the card, at 100 %", 1e9, 1e18),
    "data_low": Name("chain", "data_low", "x DiT's training images, low", 1e-3, 1e6),
    "data_high": Name("chain", "data_high", "x DiT's training images, high", 1e-3, 1e6),
    "video_share": Name("chain", "video_share", "of the training data, 0 to 1", 0.001, 1),
    **{f.name: Name("demand", f.name, "of the demand", 1e-6, 1e12) for f in fields(Demand)},
    **{f.name: Name("headroom", f.name, "of the fleet", 1e-3, 1e3) for f in fields(Headroom)},
}
"""By the name that --set takes."""


@dataclass(frozen=True)
class Scenario:
    """Assumptions, and the model and the workload that are counted for them."""

    a: Assumptions
    demand: Demand
    headroom: Headroom
    model: Model
    workload: Workload
    changed: Mapping[str, float]
    """What was set: assumed by the reader."""

    @property
    def is_published(self) -> bool:
        """Are these the assumptions that were printed?"""
        return not self.changed


def published_scenario() -> Scenario:
    """As printed."""
    return Scenario(
        Assumptions(),
        Demand(),
        Headroom(),
        load(Model, MODEL),
        load(Workload, WORKLOAD),
        {},
    )


def scenario(changes: Mapping[str, Any]) -> Scenario:
    """The published assumptions with some of them changed.  Raises UserError for an unknown name, a
    value that is no number or outside its range, and a size that the model does not take."""
    values = {name: _checked(name, value) for name, value in changes.items()}
    base = published_scenario()
    if not values:
        return base
    video = {**_video(base.workload), **_of(values, "workload")}
    chain = _of(values, "chain")
    params = chain.get("sora_params", base.a.sora_params)
    model, workload = _sized(base.model, params), _workload(base.workload, video)
    _check_taken(model, workload)
    pixels = video["height"] * video["width"] / IMAGE_SIDE**2
    a = replace(
        base.a,
        **chain,
        params_ratio=base.a.params_ratio * params / base.a.sora_params,
        video_s=int(video["seconds"]),
        fps=int(video["fps"]),
        steps=int(video["steps"]),
        pixels_ratio=pixels,
    )
    return Scenario(
        a=replace(a, sora_video_printed=a.sora_video),
        demand=replace(base.demand, **_of(values, "demand")),
        headroom=replace(base.headroom, **_of(values, "headroom")),
        model=model,
        workload=workload,
        changed=values,
    )


def _checked(name: str, value: Any) -> float:
    known = NAMES.get(name)
    if known is None:
        raise UserError(
            f"--set {brief(name)} is not one of {', '.join(NAMES)}{nearest(name, NAMES)}"
        )
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not known.least <= value <= known.most:
        raise UserError(
            f"--set {name}={brief(str(value))}: expected a number from {known.least:g} to"
            f" {known.most:g} ({known.unit})"
        )
    if known.whole and value != int(value):
        raise UserError(f"--set {name}={value}: expected a whole number ({known.unit})")
    return float(value)


def _of(values: Mapping[str, float], part: Part) -> dict[str, float]:
    return {NAMES[n].field: value for n, value in values.items() if NAMES[n].part == part}


def _video(workload: Workload) -> dict[str, float]:
    return {
        "seconds": workload.frames / workload.fps,
        "fps": workload.fps,
        "height": workload.height,
        "width": workload.width,
        "steps": workload.steps,
    }


def _workload(workload: Workload, video: Mapping[str, float]) -> Workload:
    changed = {
        "frames": round(video["seconds"] * video["fps"]),
        "fps": video["fps"],
        "height": int(video["height"]),
        "width": int(video["width"]),
        "steps": int(video["steps"]),
    }
    name = ",".join(f"{key}={value:g}" for key, value in changed.items())
    return workload.model_copy(update=changed | {"name": f"{workload.name}[{name}]"})


def _sized(model: Model, params: float) -> Model:
    """The model at the width whose parameters are nearest."""
    head_dim = model.denoiser.head_dim

    def at(heads: int) -> Model:
        return with_denoiser(model, {"width": heads * head_dim, "num_heads": heads})

    best = min(
        range(1, MOST_HEADS + 1),
        key=lambda heads: abs(closed_form.dit_parameters(at(heads).denoiser) - params),
    )
    chosen = at(best)
    if chosen.denoiser.width == model.denoiser.width:
        return model
    return chosen.model_copy(update={"name": f"{model.name}[width={best * head_dim}]"})


def _check_taken(model: Model, workload: Workload) -> None:
    """Raises UserError, with what the model takes, for sides or frames that it does not."""
    try:
        model.tokens(workload)
    except ValueError as error:
        raise UserError(f"--set: the counted model {model.name} does not take this: {error}") from (
            None
        )
