"""Every model under every recipe on a CUDA card that is a fake (tests/support/fake_cuda.py).

The harness builds each point and runs each of its stages; where tensors of host and card meet, or a
step waits for a value of the card, that raises here.

By default each structure of a model and each kind of recipe; with `-m slow` every model under every
recipe, and at the size that its authors run.  The same as a table:

    PYTHONPATH=tests python tests/measure/card/test_fake_cuda.py [--slow]
"""

import contextlib
import dataclasses
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import get_args
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.load import check_point, load, load_point, names
from bench.core.specs.model import DIFFUSION_STAGES, TOKEN_STAGES, Model, Stage, needs_condition
from bench.core.specs.point import Point
from bench.core.specs.recipe import FIRST_FIELDS, Recipe
from bench.core.specs.workload import Workload
from bench.count.point import DTYPES
from bench.measure.points.build import build_calls
from models.public import meta as zoo_meta
from models.spec import DiffusersDenoiser, DiffusersVAE, DiTConfig
from support.fake_cuda import CUDA, card
from support.zoo_reduced import REDUCED, reduced

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
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
RECIPES = [name for name in names("recipes") if name not in NOT_RUN]
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


DEFAULT = plan(slow=False)


@pytest.mark.parametrize(
    ("model", "recipe", "stages"), DEFAULT, ids=lambda x: x if isinstance(x, str) else ""
)
def test_runs_on_a_card(model, recipe, stages):
    run(point_of(model, recipe, stages), model, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_recipe_on_a_card(model):
    run(point_of(model, "eager-bf16", all_stages(model)), model, "eager-bf16")
    for _, recipe, stages in every_recipe(
        (model,), (name for name in RECIPES if name != "eager-bf16")
    ):
        run(point_of(model, recipe, stages), model, recipe)


@pytest.mark.parametrize(
    ("model", "workload", "stages"),
    [
        ("sora-20b", "sora-1min-512", ("denoise_step",)),
        ("wan2.1-t2v-14b", "720p-81f", ("denoise_step",)),
    ],
)
def test_two_blocks_at_the_size_that_is_asked_for(model, workload, stages):
    """Products of more than 2^31 numbers, in shapes alone."""
    depth = "denoiser.config.num_layers" if public(model) else "denoiser.depth"
    point = load_point(model, workload, "eager-bf16-cudnn", {depth: 2}, stages)
    run(point, model, "eager-bf16-cudnn")


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in MODELS if name.startswith("sora-")])
def test_own_models_at_the_size_that_is_asked_for(model):
    run(
        load_point(
            model,
            "sora-1min-512",
            "eager-bf16-cudnn-chunks",
            {"denoiser.depth": 2},
            ("denoise_step", "vae_decode"),
        ),
        model,
        "eager-bf16-cudnn-chunks",
    )


@pytest.mark.parametrize("recipe", NOT_RUN)
def test_what_cannot_be_run_so_still_cannot(recipe):
    """One that runs now is to be taken off the list."""
    with pytest.raises(Exception, match=NOT_RUN[recipe][0]):
        run(own_point("tiny", recipe, ("denoise_step",)), "tiny", recipe)


@pytest.mark.parametrize("model", WAITS)
def test_what_waits_for_the_card_still_does(model):
    """The host stands still in each step of these; one that no longer does is to be taken off the
    list."""
    with (
        pytest.raises(
            Exception, match=r"DataDependent|Dynamic|aten\.(_local_scalar_dense|nonzero)"
        ),
        card() as device,
    ):
        calls, _ = build_calls(public_point(model, "eager-bf16"), device)
        with torch.inference_mode():
            calls["denoise_step"]()


def test_nothing_is_left_out():
    """Every kind of recipe, structure and stage has run, or is on the list."""
    recipes = {recipe for _, recipe, _ in DEFAULT} | set(NOT_RUN)
    assert {kind(name) for name in recipes} == {kind(name) for name in names("recipes")}
    stages_of_denoisers = {
        m for m, _, stages in DEFAULT if {"denoise_step", "decode_token"} & set(stages)
    }
    for part, seen in (
        ("denoiser", stages_of_denoisers),
        ("vae", {m for m, _, s in DEFAULT if "vae_decode" in s}),
    ):
        assert {structure(getattr(load(Model, name), part)) for name in seen} == {
            structure(getattr(load(Model, name), part)) for name in MODELS
        }
    assert {stage for _, _, stages in DEFAULT for stage in stages} == set(get_args(Stage))
    print("\n" + summary(DEFAULT))


def summary(runs: list[Run]) -> str:
    """How many of what, and what is not run."""
    lines = [
        f"{len({m for m, _, _ in runs})} models x {len({r for _, r, _ in runs})} recipes in"
        f" {len(runs)} points, {sum(len(stages) for _, _, stages in runs)} stages"
    ]
    lines += [f"not run: {name}: {why}" for name, (_, why) in NOT_RUN.items()]
    lines += [f"in part: {name}: {what}" for name, what in RUN_IN_PART.items()]
    lines += [f"waits for the card in each step: {name}: {why}" for name, why in WAITS.items()]
    return "\n".join(lines)


def main() -> None:
    """The table: models down, how many stages ran and what failed."""
    planned = plan(slow="--slow" in sys.argv)
    failed: dict[str, list[str]] = defaultdict(list)
    for model, recipe, stages in planned:
        try:
            run(point_of(model, recipe, stages), model, recipe)
        except Exception as error:
            failed[model].append(
                f"{recipe}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
            )
    for model in dict.fromkeys(m for m, _, _ in planned):
        recipes = {r for m, r, _ in RAN if m == model}
        print(
            f"{model:24} {len(recipes):4} recipes"
            f" {sum(n for (m, _, _), n in RAN.items() if m == model):5} stages",
            *(f"\n    FAILED {line}" for line in failed[model]),
        )
    print(
        f"\nran {sum(RAN.values())} stages on fake CUDA, torch {torch.__version__}; planned:"
        f" {summary(planned)}"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))
    main()
