"""Two models on one trajectory: each alone at the ends, the switch where it should be, and work
that adds up."""

import pytest
import torch

from bench.core.load import load
from bench.core.specs.model import Model
from bench.count.closed import dit as closed_form
from models.caching.apply import apply_cache
from models.caching.schedules import CacheConfig, DraftConfig
from models.diffusion.draft import denoise_drafted, drafted_evaluations
from models.diffusion.trajectory import Guided, denoise, evaluation_times
from models.pipeline import build_pipeline
from models.stages import example_inputs
from support.models.caching import CPU, SHAPE, built, euler, guided


def draft(share, draft_runs="early"):
    return DraftConfig(share=share, draft_runs=draft_runs)


@pytest.fixture(scope="module")
def pair():
    """(draft, large): one and four blocks, each with its own inputs' conditions."""
    (small, inputs), (large, _) = built(depth=1), built(depth=4)
    return guided(small, inputs), guided(large, inputs), inputs.latents


def flops(model):
    return sum(closed_form.dit_forward(model.denoiser.config, SHAPE, 1).values())


@pytest.mark.parametrize("runs", ["early", "late"])
@pytest.mark.parametrize("sampler", ["euler", "heun", "flow-heun"])
def test_a_share_of_0_or_1_is_one_model_alone_bit_for_bit(pair, runs, sampler, one_thread):
    small, large, noise = pair
    with torch.inference_mode():
        for share, alone in ((0.0, large), (1.0, small)):
            mixed = denoise_drafted(small, large, noise, euler(3, sampler), draft(share, runs))
            assert torch.equal(mixed.latents, denoise(alone, noise, euler(3, sampler)))
            forwards = 2 * len(evaluation_times(euler(3, sampler)))
            assert (mixed.draft_forwards, mixed.large_forwards) == (
                (0, forwards) if share == 0 else (forwards, 0)
            )


@pytest.mark.parametrize("runs", ["early", "late"])
def test_the_switch_is_two_trajectories_joined(pair, runs, one_thread):
    """Euler has no memory: 2 steps of one model, then 3 of the other, by hand."""
    small, large, noise = pair
    with torch.inference_mode():
        mixed = denoise_drafted(small, large, noise, euler(5), draft(0.4, runs))
        x = noise
        for i, t in enumerate(evaluation_times(euler(5))):
            model = small if (i < 2 if runs == "early" else i >= 3) else large
            time = torch.full((1,), t)
            cond, base = (
                model.denoiser(x, time, **c)[:, : x.shape[1]]
                for c in (model.condition, model.unconditional)
            )
            x = x - 0.2 * (base + 5.0 * (cond - base))
    torch.testing.assert_close(mixed.latents, x, rtol=1e-5, atol=1e-5)
    assert (mixed.draft_forwards, mixed.large_forwards) == (4, 6)
    assert mixed.flops(flops(small), flops(large)) == 4 * flops(small) + 6 * flops(large)


def test_a_step_of_two_evaluations_is_not_divided():
    assert drafted_evaluations(draft(0.5), euler(4, "heun")) == (True,) * 4 + (False,) * 4
    assert drafted_evaluations(draft(1 / 3), euler(3, "flow-heun")) == (
        True,
        True,
        False,
        False,
        False,
    )
    assert drafted_evaluations(draft(1 / 3, "late"), euler(3, "flow-heun")) == (False,) * 4 + (
        True,
    )


def test_the_large_model_may_run_under_a_cache(pair, one_thread):
    small, large, noise = pair
    cache = apply_cache(large.denoiser, CacheConfig(kind="first-block", every=2, warmup=1, last=0))
    try:
        with torch.inference_mode():
            denoise_drafted(small, large, noise, euler(5), draft(0.4))
        assert [e.computed for e in cache.executed if e.branch == "conditional"] == [
            True,
            False,
            True,
        ]
    finally:
        cache.remove()


def test_a_draft_of_other_channels_or_a_wrong_config_says_so(pair, one_thread):
    _, large, noise = pair

    def other(x, t, **condition):
        return large.denoiser(x, t, **condition)[:, :1]

    with pytest.raises(ValueError, match="share is 1.5"):
        draft(1.5)
    with pytest.raises(ValueError, match="draft_runs 'first' is not one of early, late"):
        draft(0.5, "first")
    other.at, other.cache = large.denoiser.at, None
    with (
        pytest.raises(ValueError, match="must have the large model's channels"),
        torch.inference_mode(),
    ):
        denoise_drafted(
            Guided(other, large.condition, large.unconditional, 1.0),
            large,
            noise,
            euler(2),
            draft(0.5),
        )


def test_public_experts_are_told_the_time(one_thread):
    """Wan 2.2's second expert takes over below its boundary, also where only some of the times are
    the model's."""
    from support.models.zoo_reduced import reduced

    model, workload = reduced("wan2.2-t2v-a14b")
    pipeline = build_pipeline(
        model.denoiser, model.vae, (), device=CPU, dtype=torch.float32, seed=0, stages=["forward"]
    )
    inputs = example_inputs(
        pipeline,
        batch=1,
        channels=model.denoiser.in_channels,
        latent_shape=model.latent_shape(workload),
        device=CPU,
        dtype=torch.float32,
        seed=1,
    )
    ran = []
    for i, expert in enumerate(pipeline.denoiser.experts):
        expert.register_forward_hook(lambda *_, i=i: ran.append(i))
    both = Guided(pipeline.denoiser, inputs.condition, None, 1.0)
    with torch.inference_mode():
        denoise_drafted(both, both, inputs.latents, euler(8), draft(0.25))
    boundary = load(Model, "wan2.2-t2v-a14b").denoiser.boundary
    assert ran == [0 if t >= boundary else 1 for t in evaluation_times(euler(8))]
