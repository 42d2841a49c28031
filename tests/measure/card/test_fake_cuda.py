"""Every model under every recipe on a fake CUDA card (tests/support/measure/fake_cuda.py).

The harness builds each point and runs each of its stages; where tensors of host and card meet, or a
step waits for a value of the card, that raises here.

By default each structure of a model and each kind of recipe; with `-m slow` every model under every
recipe, and at the size that its authors run.  The same as a table:

    python tests/tools/fake_cuda.py [--slow]
"""

from typing import get_args

import pytest
import torch

from bench.core.load import load, load_point
from bench.core.specs.model import Model, Stage
from bench.measure.errors import Unsupported
from bench.measure.points.build import build_calls
from support.measure.every_point import (
    MODELS,
    NOT_RUN,
    NOT_TRACED,
    RECIPES,
    WAITS,
    all_stages,
    every_recipe,
    kind,
    own_point,
    plan,
    point_of,
    public,
    public_point,
    run,
    structure,
    summary,
)
from support.measure.fake_cuda import card

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
DEFAULT = plan(slow=False)


@pytest.mark.parametrize(
    ("model", "recipe", "stages"), DEFAULT, ids=lambda x: x if isinstance(x, str) else ""
)
def test_runs_on_a_card(model, recipe, stages):
    run(point_of(model, recipe, stages), model, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_recipe_on_a_card(model):
    """The harness skips a cache that diffusers' hooks cannot put on a class, and what an
    auto-regressive model has no steps for; tests/models/test_caching.py holds which ones those are.
    What dynamo does not trace here is on a list, and still does not."""
    run(point_of(model, "eager-bf16", all_stages(model)), model, "eager-bf16")
    kinds, raised, _ = NOT_TRACED.get(model, ((), "", ""))
    others = (name for name in RECIPES if name != "eager-bf16")
    for _, recipe, stages in every_recipe((model,), others):
        point = point_of(model, recipe, stages)
        if point.recipe.compile in kinds:
            with pytest.raises((Exception, Unsupported), match=f"{raised}|hook"):
                run(point, model, recipe)
            continue
        try:
            run(point, model, recipe)
        except Unsupported:
            if point.model.autoregressive:
                continue  # a cache and a CUDA graph are of a denoiser's steps
            if not public(model) or point.recipe.cache is None:
                raise


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
    assert {kind(name) for name in recipes} == {kind(name) for name in (*RECIPES, *NOT_RUN)}
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
