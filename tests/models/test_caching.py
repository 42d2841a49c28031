"""Caches: exact where all is computed, exact in what they leave out, and forgetful between branches
and trajectories."""

import pytest
import torch
from torch import nn

from bench.core.load import load
from bench.core.specs.model import Model
from bench.count.closed import dit as closed_form
from bench.count.trajectory import evaluation_flops
from models.caching.apply import apply_cache
from models.caching.own import BlockCache, Extrapolated, blocks_run
from models.caching.schedules import CacheConfig
from models.denoiser import Denoiser
from models.diffusion.trajectory import Guided, denoise, evaluation_times, step_of
from models.pipeline import build_pipeline
from models.stages import example_inputs
from support.models.caching import CPU, META, SHAPE, built, euler, guided
from support.models.zoo_reduced import REDUCED, reduced

OWN = ("first-block", "taylor", "whole-step")
PUBLIC = ("first-block", "taylor", "magcache", "pab", "fastercache")


def config(kind="first-block", every=3, warmup=2, last=1):
    return CacheConfig(kind=kind, every=every, warmup=warmup, last=last)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, "11001001001 1"),
        ({"every": 1}, "111111111111"),
        ({"warmup": 0}, "100100100101"),
        ({"every": 100, "last": 3}, "110000000111"),
        ({"warmup": 12}, "111111111111"),
    ],
)
def test_the_schedule_by_hand(kwargs, expected):
    """Warm-up 2, then one in 3 counted from the warm-up's last (index 1: 4, 7, 10), then the
    last."""
    assert "".join(str(int(c)) for c in config(**kwargs).schedule(12)) == expected.replace(" ", "")


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"kind": "firstblock"}, "is not one of first-block"),
        ({"every": 0}, "every is 0"),
        ({"warmup": -1}, "warmup is -1"),
    ],
)
def test_a_wrong_config_says_so(kwargs, said):
    with pytest.raises(ValueError, match=said):
        config(**kwargs)


@pytest.mark.parametrize(
    "name", ["tiny", "tiny-joint", "tiny-cross", "tiny-factorised", "tiny-control"]
)
@pytest.mark.parametrize("kind", OWN)
def test_with_every_evaluation_computed_the_model_is_the_plain_one_bit_for_bit(
    name, kind, one_thread
):
    denoiser, inputs = built(name, depth=2) if name == "tiny-control" else built(name)
    with torch.inference_mode():
        plain = denoise(guided(denoiser, inputs), inputs.latents, euler(3))
        names = list(denoiser.state_dict())
        cache = apply_cache(denoiser, config(kind, every=1))
        assert torch.equal(denoise(guided(denoiser, inputs), inputs.latents, euler(3)), plain)
        cache.remove()
        assert list(denoiser.state_dict()) == names
        assert "forward" not in vars(denoiser)
        assert torch.equal(denoise(guided(denoiser, inputs), inputs.latents, euler(3)), plain)


@pytest.mark.parametrize(("kind", "reused"), [("first-block", 1), ("taylor", 1), ("whole-step", 0)])
def test_calls_of_blocks_are_exact(kind, reused, one_thread):
    denoiser, inputs = built()
    calls = []
    for i, block in enumerate(denoiser.blocks):
        block.attn.register_forward_hook(lambda *_, i=i: calls.append(i))
    cache = apply_cache(denoiser, config(kind))
    with torch.inference_mode():
        denoise(guided(denoiser, inputs), inputs.latents, euler(8))
    # 8 evaluations a branch: 0 1 . . 4 . . 7 computed, so 4 of 8, twice
    assert [e.computed for e in cache.executed if e.branch == "unconditional"] == [
        c in "1" for c in "11001001"
    ]
    assert len(calls) == blocks_run(denoiser, cache.executed) == 2 * (4 * 4 + 4 * reused)
    assert calls.count(0) == 2 * (4 + 4 * reused)


def test_state_leaks_neither_between_trajectories_nor_branches(one_thread):
    denoiser, inputs = built()
    with torch.inference_mode():
        apply_cache(denoiser, config())
        first = denoise(guided(denoiser, inputs), inputs.latents, euler(6))
        denoise(guided(denoiser, inputs), torch.randn_like(inputs.latents), euler(5))
        assert torch.equal(denoise(guided(denoiser, inputs), inputs.latents, euler(6)), first)
        # each branch alone gives what it gives beside the other
        alone, beside = {}, {}
        for branch, condition in (
            ("conditional", inputs.condition),
            ("unconditional", inputs.unconditional),
        ):
            denoiser.cache.begin(4)
            with denoiser.cache.branch(branch):
                alone[branch] = [
                    denoiser(inputs.latents * (1 - i / 8), inputs.t, **condition) for i in range(4)
                ]
        denoiser.cache.begin(4)
        for i in range(4):
            for branch, condition in (
                ("conditional", inputs.condition),
                ("unconditional", inputs.unconditional),
            ):
                with denoiser.cache.branch(branch):
                    beside.setdefault(branch, []).append(
                        denoiser(inputs.latents * (1 - i / 8), inputs.t, **condition)
                    )
    for branch in alone:
        assert all(map(torch.equal, alone[branch], beside[branch]))


def test_packed_requests_and_more_evaluations_than_begun(one_thread):
    denoiser, inputs = built()
    with torch.inference_mode():
        plain = denoiser.forward_packed([inputs.latents], inputs.t, [inputs.condition])[0]
        cache = apply_cache(denoiser, config())
        with pytest.raises(ValueError, match="call begin"):
            denoiser(inputs.latents, inputs.t, **inputs.condition)
        cache.begin(1)
        denoiser(inputs.latents, inputs.t, **inputs.condition)
        assert torch.equal(
            denoiser.forward_packed([inputs.latents], inputs.t, [inputs.condition])[0], plain
        )
        with pytest.raises(ValueError, match="told of 1"):
            denoiser(inputs.latents, inputs.t, **inputs.condition)
        with pytest.raises(ValueError, match="a cache already"):
            apply_cache(denoiser, config("taylor"))


class Linear(Denoiser):
    """What the blocks after the first add is linear in t: 3 + 2 t."""

    class Block(nn.Module):
        def __init__(self, rest):
            super().__init__()
            self.rest = rest

        def forward(self, x, text, t):
            return (x + 3 + 2 * t if self.rest else x * 0.5), text

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([self.Block(False), self.Block(True), self.Block(True)])

    def compute(self, x, t):
        text = None
        for block in self.blocks:
            x, text = block(x, text, t)
        return x


def test_taylor_is_exact_for_what_is_linear_in_the_evaluation():
    denoiser = Linear().double()
    cache, x = (
        BlockCache(denoiser, config("taylor", every=4, warmup=2, last=0)),
        torch.randn(2, 3, dtype=torch.float64),
    )
    cache.begin(6)
    for i in range(6):
        expected = 0.5 * x * i + 2 * (3 + 0.5 * i)
        torch.testing.assert_close(
            denoiser(x * i, torch.tensor(0.25 * i)), expected, rtol=0, atol=1e-12
        )
    assert [e.computed for e in cache.executed] == [True, True, False, False, False, True]


def test_extrapolation_over_uneven_gaps():
    line = Extrapolated(order=1)
    line.store(2, torch.tensor(10.0))
    assert line.at(3) == 10  # one point: no slope
    line.store(5, torch.tensor(16.0))  # 2 an evaluation
    assert line.at(7) == 20
    line.store(9, torch.tensor(16.0))  # the two last count: flat
    assert line.at(11) == 16
    with pytest.raises(ValueError, match="rise"):
        line.store(9, torch.tensor(0.0))


@pytest.mark.parametrize("kind", OWN)
def test_counted_flops_are_the_closed_forms_less_what_is_left_out(kind):
    denoiser, inputs = built(device=META)
    flops = evaluation_flops(denoiser, config(kind), inputs.latents, inputs.t, inputs.condition)
    whole = sum(closed_form.dit_forward(denoiser.config, SHAPE, 1).values())
    shallow = load(Model, "tiny", {"denoiser.depth": 3}).denoiser
    block = whole - sum(closed_form.dit_forward(shallow, SHAPE, 1).values())
    assert flops.computed == whole
    assert flops.reused == (0 if kind == "whole-step" else whole - 3 * block)
    cache = apply_cache(denoiser, config(kind))
    denoise(guided(denoiser, inputs), inputs.latents, euler(8))
    assert flops.of(cache.executed) == 2 * (4 * flops.computed + 4 * flops.reused)


def test_own_models_refuse_what_is_diffusers():
    with pytest.raises(
        ValueError, match="for public models; own ones take first-block, taylor, whole-step"
    ):
        apply_cache(built()[0], config("pab"))
    with pytest.raises(ValueError, match="1 block has none to leave out"):
        apply_cache(built(depth=1)[0], config())


CLASSES = {reduced(name)[0].denoiser.diffusers: name for name in REDUCED}
NO_CACHE = {
    "DiTTransformer2DModel",
    "CosmosTransformer3DModel",
    "SanaVideoTransformer3DModel",
}  # no CacheMixin
NO_BLOCKS = NO_CACHE | {
    "HunyuanVideo15Transformer3DModel",
    "LTX2VideoTransformer3DModel",
    "AllegroTransformer3DModel",
    "SkyReelsV2Transformer3DModel",
    "LatteTransformer3DModel",
}
REFUSED = {kind: NO_BLOCKS if kind in ("first-block", "magcache") else NO_CACHE for kind in PUBLIC}


@pytest.mark.parametrize("name", CLASSES.values(), ids=CLASSES)
def test_public_models_run_under_diffusers_hooks_or_say_why_not(name, one_thread):
    model, workload = reduced(name)
    pipeline = build_pipeline(
        model.denoiser, model.vae, (), device=CPU, dtype=torch.float32, seed=0, stages=["forward"]
    )
    inputs = example_inputs(
        pipeline,
        batch=workload.batch,
        channels=model.denoiser.in_channels,
        latent_shape=model.latent_shape(workload),
        device=CPU,
        dtype=torch.float32,
        seed=1,
    )
    denoiser, clips = pipeline.denoiser, [inputs.latents * (1 - i / 8) for i in range(4)]

    def trajectory(condition):
        return [denoiser(x, inputs.t * (1 - i / 10), **condition) for i, x in enumerate(clips)]

    with torch.inference_mode():
        plain = trajectory(inputs.condition)
        for kind in PUBLIC:
            if model.denoiser.diffusers in REFUSED[kind]:
                with pytest.raises(
                    ValueError,
                    match=f"^cache {kind}: .*(CacheMixin|not registered|different shapes)",
                ):
                    apply_cache(denoiser, config(kind))
                assert torch.equal(
                    denoiser(clips[0], inputs.t, **inputs.condition), plain[0]
                )  # no hook is left behind
                continue
            cache = apply_cache(denoiser, config(kind, every=2, warmup=1, last=0))  # 1 . 1 .
            cache.begin(4)
            cached = trajectory(inputs.condition)
            assert [torch.equal(a, b) for a, b in zip(cached, plain, strict=True)] == [
                True,
                False,
                True,
                False,
            ], kind
            with cache.branch("unconditional"):  # the other branch begins anew: computed, and equal
                assert torch.equal(denoiser(clips[0], inputs.t, **inputs.condition), plain[0]), kind
            cache.begin(4)
            assert all(map(torch.equal, trajectory(inputs.condition), cached)), kind
            cache.remove()
            assert torch.equal(denoiser(clips[1], inputs.t * 0.9, **inputs.condition), plain[1]), (
                kind
            )


@pytest.mark.parametrize("kind", PUBLIC)
def test_public_caches_leave_work_out(kind):
    model, workload = reduced("wan2.1-t2v-1.3b")
    pipeline = build_pipeline(
        model.denoiser, model.vae, (), device=META, dtype=torch.float32, seed=0
    )
    inputs = example_inputs(
        pipeline,
        batch=1,
        channels=model.denoiser.in_channels,
        latent_shape=model.latent_shape(workload),
        device=META,
        dtype=torch.float32,
        seed=1,
    )
    flops = evaluation_flops(
        pipeline.denoiser, config(kind), inputs.latents, inputs.t, inputs.condition
    )
    assert 0 < flops.reused < flops.computed


def test_an_expert_that_takes_over_is_computed_first(one_thread):
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
    cache = apply_cache(pipeline.denoiser, config(every=100, warmup=1, last=0))
    with torch.inference_mode():
        denoise(Guided(pipeline.denoiser, inputs.condition, None, 1.0), inputs.latents, euler(8))
    switch = next(
        i for i, t in enumerate(evaluation_times(euler(8))) if t < model.denoiser.boundary
    )
    assert 0 < switch < 8
    assert [e.computed for e in cache.executed] == [i in (0, switch) for i in range(8)]


def test_evaluation_times_of_one_and_two_stages():
    assert evaluation_times(euler(4)) == (1.0, 0.75, 0.5, 0.25)
    heun = euler(2, "heun")
    assert evaluation_times(heun) == (1.0, 0.5, 0.5, 0.0)
    assert [step_of(i, heun) for i in range(4)] == [0, 0, 1, 1]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", OWN)
def test_a_cached_trajectory_never_waits_for_the_gpu(kind):
    denoiser, inputs = built(device=torch.device("cuda"))
    apply_cache(denoiser, config(kind))
    model = guided(denoiser, inputs)
    with torch.inference_mode():
        first = denoise(model, inputs.latents, euler(6))  # fills what is kept per shape
        torch.cuda.set_sync_debug_mode("error")
        try:
            again = denoise(model, inputs.latents, euler(6))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(again, first)
