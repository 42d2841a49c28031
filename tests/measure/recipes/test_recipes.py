"""Recipes: what each needs, what it does to the output, and that what must be exact is."""

import pytest
import torch

from bench.core.load import expand, load
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite
from bench.measure.points.against import Pair, measure_against
from bench.measure.points.build import count_stages
from bench.measure.points.divergence import divergence_of
from bench.measure.recipes import apply as execution
from bench.measure.recipes.quantise import block_linears, pruned, ternary, weight_bytes
from bench.measure.timing.clock import clock_for
from support.measure.recipes import needs_torchao, outputs, point
from support.plans import PLAN

CPU = torch.device("cpu")


STAGES = ("trajectory", "vae_decode")


QUICK = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})


def test_fields_that_came_later_change_no_fingerprint_until_they_say_something():
    plain = load(Recipe, "eager-fp32")
    assert plain.identity() == {
        "dtype": "fp32",
        "attention": "auto",
        "vae_chunk": None,
        "vae_tile": None,
    }
    assert plain.model_copy(update={"steps": 8}).identity() == {**plain.identity(), "steps": 8}
    before = {name: getattr(plain, name) for name in ("name", "description", "dtype", "attention")}
    assert Recipe.model_validate(before) == plain


@pytest.mark.parametrize(
    "recipe",
    [
        {"guidance": "batched"},
        {"guidance": "packed"},
        {"vae_chunk": 1},
        {"vae_chunk": 2},
        {"attention": "fastest"},
    ],
    ids=str,
)
def test_what_must_be_exact_is(recipe, baseline):
    apart = divergence_of(outputs(recipe), baseline)
    assert apart.relative_l2 < 1e-5  # float32 sums in another order
    assert apart.cosine > 1 - 1e-9
    assert apart.psnr_db is None or apart.psnr_db > 100


def test_a_sample_of_a_batch_is_what_it_would_be_alone(baseline):
    apart = divergence_of(outputs({"batch": 2}), baseline)
    assert apart.samples == 1
    assert apart.relative_l2 < 1e-5


@pytest.mark.parametrize(
    ("recipe", "least", "most"),
    [
        ({"dtype": "bf16"}, 1e-3, 0.05),
        ({"quantise": "ternary"}, 0.1, 2.0),
        pytest.param({"quantise": "int8-weight"}, 1e-4, 0.05, marks=needs_torchao),
        pytest.param({"quantise": "int8-dynamic"}, 1e-4, 0.1, marks=needs_torchao),
        ({"guidance": "distilled"}, 0.1, 10.0),
        ({"steps": 1}, 0.05, 10.0),
        ({"denoiser": {"attention": "factorised"}}, 0.01, 2.0),
    ],
    ids=str,
)
def test_what_changes_the_arithmetic_shows_in_the_output(recipe, least, most, baseline):
    apart = divergence_of(outputs(recipe), baseline)
    assert least < apart.relative_l2 < most
    assert not apart.identical


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "lcm"])
def test_every_sampler_ends_in_finite_latents_that_repeat(sampler):
    made = [outputs({"sampler": sampler})["latents"] for _ in range(2)]
    assert made[0].isfinite().all()
    assert torch.equal(*made)


def test_divergence_is_what_its_names_say():
    a = torch.zeros(1, 1, 1, 1, 4)
    a[..., 0] = 3.0
    b = a.clone()
    b[..., 1] = 4.0  # right angle: |b - a| / |a| = 4/3, cosine 3/5
    apart = divergence_of({"latents": b, "video": b}, {"latents": a, "video": a})
    assert apart.relative_l2 == pytest.approx(4 / 3)
    assert apart.cosine == pytest.approx(0.6)
    assert apart.psnr_db == pytest.approx(10 * torch.tensor(3.0**2 / (4.0**2 / 4)).log10().item())
    same = divergence_of({"latents": a, "video": a}, {"latents": a, "video": a})
    assert (same.identical, same.relative_l2, same.psnr_db) == (True, 0.0, None)


def test_ternary_and_two_of_four():
    w = torch.tensor([[1.0, -0.1, 0.4, -2.5]])  # mean magnitude 1
    assert torch.equal(ternary(w), torch.tensor([[1.0, 0.0, 0.0, -1.0]]))
    assert torch.equal(pruned(w), torch.tensor([[1.0, 0.0, 0.0, -2.5]]))


@needs_torchao
def test_int8_weights_take_a_byte():
    from models.pipeline import build_pipeline

    spec = point({"quantise": "int8-weight"})
    pipeline = build_pipeline(
        spec.model.denoiser,
        spec.model.vae,
        (),
        device=CPU,
        dtype=torch.float32,
        seed=0,
        stages=("forward",),
    )
    linears = sum(m.weight.numel() for m in block_linears(pipeline.denoiser))
    before = weight_bytes(pipeline.denoiser)
    execution.carry_out(pipeline, spec.recipe)
    saved = before - weight_bytes(pipeline.denoiser)
    assert 2.9 * linears < saved < 3 * linears  # four bytes become one, and a scale for each row


def counted(recipe: dict | None = None) -> dict[str, int]:
    return {stage: c.flops for stage, c in count_stages(point(recipe)).stages.items()}


def test_counts_follow_the_recipe():
    plain = counted()
    assert plain["denoise_step"] == 2 * plain["forward"]
    assert plain["trajectory"] == 2 * plain["denoise_step"]  # two steps
    assert counted({"guidance": "batched"}) == counted({"guidance": "packed"}) == plain
    learned = counted({"guidance": "distilled"})
    assert learned["denoise_step"] == learned["forward"] == plain["forward"]
    assert counted({"steps": 8, "sampler": "lcm"})["trajectory"] == 8 * plain["denoise_step"]
    assert counted({"batch": 3})["forward"] == 3 * plain["forward"]
    kernels = [
        count_stages(point({"guidance": g})).stages["denoise_step"].kernels
        for g in ("sequential", "batched")
    ]
    assert kernels[1] < 0.7 * kernels[0]


def test_a_point_beside_its_baseline_has_both_timings_and_a_divergence():
    ours, base = point({"guidance": "batched"}), point()
    heard = []
    measured, against = measure_against(
        Pair(ours, base, count_stages(ours), count_stages(base)),
        CPU,
        clock_for(CPU),
        QUICK,
        prior={},
        on_round=lambda stage, samples: heard.append(stage),
    )
    timings, memory, telemetry = measured.readings
    assert set(timings) == set(against.timings) == set(telemetry) == set(heard) == set(STAGES)
    assert against.in_turns
    assert against.divergence.relative_l2 < 1e-5
    assert Point.model_validate(against.point) == base
    assert memory.weights > 0


def test_a_baseline_that_does_not_fit_beside_follows(monkeypatch):
    from bench.measure.points import against as module

    monkeypatch.setattr(module, "free_memory", lambda device: 1000)
    ours, base = point({"steps": 1}), point()
    _, against = measure_against(
        Pair(ours, base, count_stages(ours), count_stages(base)),
        CPU,
        clock_for(CPU),
        QUICK,
        prior={},
        on_round=lambda *_: None,
    )
    assert not against.in_turns
    assert "the baseline needs" in against.reason
    assert set(against.timings) == set(STAGES)


@pytest.mark.parametrize("name", ["ablations", "ablations-cpu"])
def test_every_recipe_of_the_suites_has_a_baseline_but_the_baseline(name):
    suite = load(Suite, name)
    points = expand(suite)
    alone = [expanded.point for expanded in points if expanded.baseline is None]
    assert [p.recipe.name for p in alone] == [suite.headline.recipe]
    assert not suite.calibrate
    for p, base in ((e.point, e.baseline or e.point) for e in points):
        assert (p.model.name, p.workload.name, p.stages) == (
            base.model.name,
            base.workload.name,
            base.stages,
        )


def test_the_existing_recipes_have_the_fingerprints_they_had():
    assert load(Recipe, "fast-bf16").identity() == {
        "dtype": "bf16",
        "attention": "auto",
        "vae_chunk": None,
        "vae_tile": None,
        "quantise": "fp8",
        "compile": "regional",
        "guidance": "distilled",
        "steps": 4,
        "sampler": "lcm",
    }
