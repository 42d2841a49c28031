"""Every model under every recipe, as points that are built and run on a fake card."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from unittest.mock import patch

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.load import check_point, load, load_point, names
from bench.core.specs.model import DIFFUSION_STAGES, TOKEN_STAGES, Model, needs_condition
from bench.core.specs.point import Point
from bench.core.specs.recipe import FIRST_FIELDS, Recipe
from bench.core.specs.workload import Workload
from bench.count.point import DTYPES
from bench.measure.points.build import build_calls
from models.public import meta as zoo_meta
from models.spec import DiffusersDenoiser, DiffusersVAE, DiTConfig
from support.measure.fake_cuda import CUDA, card
from support.models.zoo_reduced import REDUCED, reduced

NOT_RUN = {  # recipe -> (what it raises, why)
    "sparse-bf16": (
        "_cslt_compress|empty_strided|CUDA error|driver",
        "torch._cslt_compress has no shape function",
    ),
    "offload-weights-bf16": (
        "device must be `meta`",
        "diffusers swaps `.data` of parameters between two devices, which fake tensors do not take",
    ),
    "cudnn-benchmark-bf16": (
        "'CUDA' backend|NVIDIA driver|driver version",
        "its calls run on a thread of their own, and a fake card is one thread's",
    ),
    "eager-bf16-flash3": (
        "flash_attn_interface|activate_flash_attention_impl",
        "FlashAttention-3 is not here",
    ),
    "eager-bf16-fp8-attention": (
        "flash_attn_interface|activate_flash_attention_impl",
        "FlashAttention-3 is not here",
    ),
    "eager-bf16-sage": ("sageattention", "SageAttention is not installed"),
}
NOT_TRACED = {  # model -> (settings of `compile`, what it raises, why)
    "ltx-2": (
        ("full", "autotune"),
        "torch._C.Generator",
        "dynamo looks into the generator, and a fake card's is a class of ours",
    ),
    "mochi-1": (
        ("full", "autotune"),
        "Tensor device mismatch",
        "dynamo takes a time embedding to be on the host, where eager calls put it on the card",
    ),
    "sora-20b-windowed": (
        ("regional",),
        "does not support item assignment",
        "can_compile() is no question that dynamo traces, and then tiles are; a card takes"
        " FlexAttention there",
    ),
}
NOT_TRACED["tiny-windowed"] = NOT_TRACED["sora-20b-windowed"]
RUN_IN_PART = {  # what of it is not run
    "compile": "dynamo traces it; Inductor's Triton kernels want a card",
    "train_step": (
        "forward and loss; autograd's engine asks the driver for a stream before it goes backward"
    ),
    "attention": "shapes of SDPA; which kernel a backend has is for the card to say",
}
WAITS = {  # public models whose diffusers class waits for the card in each step
    "hunyuanvideo-1.5": "torch.all(image == 0).item(), and tokens sorted by boolean masks",
    "mochi-1": "nonzero of the prompt's mask",
}
TINY = {"workload.frames": 5, "workload.height": 32, "workload.width": 32}
RAN: Counter[tuple[str, str, str]] = Counter()  # (model, recipe, stage)


@cache
def public(name: str) -> bool:
    return isinstance(load(Model, name).denoiser, DiffusersDenoiser)


def own_point(model: str, recipe: str, stages: tuple[str, ...] | None = None) -> Point:
    """At most two blocks, a small clip, two steps.  Raises UserError where the two do not go
    together."""
    denoiser = load(Model, model).denoiser
    image = model.startswith("dit-")
    sizes = {} if image else TINY
    if isinstance(denoiser, DiTConfig):
        sizes = sizes | {"denoiser.depth": max(2, denoiser.control_blocks)}
    else:
        sizes = sizes | {"denoiser.depth": 2}
    executed = load(Recipe, recipe)
    sizes |= {"recipe.steps": 2} if executed.steps else {"workload.steps": 2}
    return load_point(model, "image-256" if image else "tiny-video", recipe, sizes, stages)


def public_point(model: str, recipe: str, stages: tuple[str, ...] = DIFFUSION_STAGES[:1]) -> Point:
    """The reduced copy.  Raises UserError where the two do not go together."""
    executed = load(Recipe, recipe, {"steps": 2} if load(Recipe, recipe).steps else {})
    named, workload = reduced(model)
    try:
        built, asked = executed.applied(named, workload.model_copy(update={"steps": 2}))
    except ValueError as error:
        raise UserError(str(error)) from None
    point = Point(model=built, workload=asked, recipe=executed, stages=stages)
    check_point(point)
    return point


def point_of(model: str, recipe: str, stages: tuple[str, ...]) -> Point:
    return (public_point if model in REDUCED else own_point)(model, recipe, stages)


def stages_of(model: str, recipe: str) -> tuple[str, ...]:
    """The stages that a recipe changes: a trajectory where steps depend on one another, the VAE
    where it says how."""
    executed, named = load(Recipe, recipe), load(Model, model)
    if executed.offload == "activations":
        return ("train_step",) if not named.autoregressive else ()
    if named.autoregressive:
        return TOKEN_STAGES
    along = executed.cache is not None or executed.draft is not None or executed.steps is not None
    vae = any(
        getattr(executed, field)
        for field in type(executed).model_fields
        if field.startswith("vae_")
    )
    return ("denoise_step", *(["trajectory"] if along else []), *(["vae_decode"] if vae else []))


def all_stages(model: str) -> tuple[str, ...]:
    """Every stage that the model has."""
    named = load(Model, model)
    first = (
        TOKEN_STAGES
        if named.autoregressive
        else DIFFUSION_STAGES
        if not public(model)
        else DIFFUSION_STAGES[:2]
    )
    text = ("text_encode",) if named.text_encoders else ()
    given = ("condition_encode",) if needs_condition(named, load(Workload, "tiny-video")) else ()
    return (*first, "vae_decode", "vae_encode", *text, *given)


@contextlib.contextmanager
def _no_wait(model: str) -> Iterator[None]:
    """A class of WAITS goes on as it does on meta: every token is valid."""
    with contextlib.ExitStack() as stack:
        if model == "hunyuanvideo-1.5":
            stack.enter_context(
                patch.object(zoo_meta, "known_masks", lambda x: zoo_meta._KnownMasks())
            )
        if model == "mochi-1":
            stack.enter_context(patch.object(torch, "nonzero", _all_of))
        yield


def _all_of(mask: Tensor, **settings: object) -> Tensor:
    return torch.arange(mask.numel(), device=mask.device)[:, None]


def run(point: Point, model: str, recipe: str) -> None:
    """Build the point by the harness's own code and run its stages, as measure_point does; then
    look at what came out."""
    with card() as device, _no_wait(model):
        calls, _ = build_calls(point, device)
        with torch.inference_mode():
            for stage in point.stages:
                check(point, stage, calls[stage]())
                RAN[model, recipe, stage] += 1


def check(point: Point, stage: str, out: object) -> None:
    """Device, dtype and shape of a stage's output."""
    model, workload = point.model, point.workload
    batch, latent = workload.batch, model.latent_shape(workload)
    dtype = DTYPES[point.recipe.dtype]
    if stage in ("condition_encode", "text_encode"):
        assert isinstance(out, list)
        assert out
        assert all(x.device == CUDA and x.dtype == dtype and x.shape[0] == batch for x in out)
        if stage == "text_encode":
            assert [tuple(x.shape[1:]) for x in out] == [
                (e.tokens, e.width) for e in model.text_encoders
            ]
        return
    assert isinstance(out, Tensor)
    assert out.device == CUDA, f"{stage} is on {out.device}"
    if stage in TOKEN_STAGES:
        assert out.dtype == torch.long
        assert out.shape[0] == batch
    elif stage == "train_step":
        assert out.shape == ()
    else:
        assert out.dtype == dtype, f"{stage} is {out.dtype}"
        pixels = (batch, 3, workload.frames, workload.height, workload.width)
        assert tuple(out.shape) == (
            pixels if stage == "vae_decode" else (batch, model.vae.latent_channels, *latent)
        )


def structure(config: object) -> object:
    """What tells the code paths of two denoisers or VAEs apart; their sizes do not."""
    if isinstance(config, DiffusersDenoiser):
        return config.diffusers, config.experts, config.timestep_per_token
    if isinstance(config, DiffusersVAE):
        return config.diffusers
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return type(config), *(
        (name, value if isinstance(value, (str, bool)) else not value)
        for name, value in sorted(fields.items())
    )


def kind(name: str) -> object:
    """What tells two recipes' code paths apart; how many steps or samples does not, nor a dtype
    beside a technique."""
    fields = load(Recipe, name).identity()
    plain = fields.keys() <= {*FIRST_FIELDS}
    if fields.get("compile") == "autotune":  # Inductor's affair, which is not run
        fields["compile"] = "full"
    return repr(
        {
            k: None if k in ("steps", "batch") or (k == "dtype" and not plain) else v
            for k, v in fields.items()
        }
    )


def firsts(items: Iterable[str], key: Callable[[str], object]) -> list[str]:
    """The first of each key."""
    seen: dict[object, str] = {}
    for item in items:
        seen.setdefault(key(item), item)
    return list(seen.values())


MODELS = [
    name for name in names("models") if name != "wan-tiny"
]  # a public class without a reduced copy
RECIPES = [
    name for preset in names("recipes") if (name := load(Recipe, preset).name) not in NOT_RUN
]
HOSTS = ("tiny", "wan2.1-t2v-1.3b")  # of every recipe, whichever of them takes it

Run = tuple[str, str, tuple[str, ...]]
"""Model, recipe, stages."""


def every_stage() -> list[Run]:
    """One model for each structure of a denoiser and of a VAE; `tiny` with all that it has."""
    denoisers = firsts(MODELS, lambda name: structure(load(Model, name).denoiser))
    vaes = firsts(MODELS, lambda name: structure(load(Model, name).vae))
    runs = []
    for model in MODELS:
        alone = [s for s in all_stages(model) if s in ("denoise_step", "train_step", *TOKEN_STAGES)]
        stages = [
            s
            for s in all_stages(model)
            if model == "tiny"
            or (s in alone and model in denoisers)
            or (s.startswith("vae") and model in vaes)
            or s == "condition_encode"
        ]
        if stages:
            runs.append((model, "eager-bf16", tuple(stages)))
    return runs


def every_recipe(models: tuple[str, ...], recipes: Iterable[str]) -> list[Run]:
    """Each recipe on those of the models that take it; the stages that it changes."""
    runs = []
    for recipe in recipes:
        for model in models:
            with contextlib.suppress(UserError):
                stages = stages_of(model, recipe)
                if stages and point_of(model, recipe, stages):
                    runs.append((model, recipe, stages))
    return runs


def plan(slow: bool) -> list[Run]:
    """Every run."""
    if slow:
        return [
            *((model, "eager-bf16", all_stages(model)) for model in MODELS),
            *every_recipe(tuple(MODELS), (name for name in RECIPES if name != "eager-bf16")),
        ]
    one_each = firsts((name for name in RECIPES if name != "eager-bf16"), kind)
    on_hosts = every_recipe(HOSTS, one_each)
    return every_stage() + [
        (m, r, s) for m, r, s in on_hosts if m == next(x for x, y, _ in on_hosts if y == r)
    ]


def summary(runs: list[Run]) -> str:
    """How many of what, and what is not run."""
    lines = [
        f"{len({m for m, _, _ in runs})} models x {len({r for _, r, _ in runs})} recipes in"
        f" {len(runs)} points, {sum(len(stages) for _, _, stages in runs)} stages"
    ]
    lines += [f"not run: {name}: {why}" for name, (_, why) in NOT_RUN.items()]
    lines += [
        f"not traced: {model}, compile {' and '.join(kinds)}: {why}"
        for model, (kinds, _, why) in NOT_TRACED.items()
    ]
    lines += [f"in part: {name}: {what}" for name, what in RUN_IN_PART.items()]
    lines += [f"waits for the card in each step: {name}: {why}" for name, why in WAITS.items()]
    return "\n".join(lines)
