"""Caches and drafts as recipes: what they execute, and what they do to the output."""

from types import SimpleNamespace

import pytest
import torch

from bench.core.load import load_point
from bench.count.closed.dit import dit_forward
from bench.measure.errors import Unsupported
from bench.measure.points import build as building
from bench.measure.points.build import build_calls, count_stages
from bench.measure.points.divergence import divergence_of
from bench.results.counts import StageCount
from support.measure.recipes import outputs, point

CPU = torch.device("cpu")


STAGES = ("trajectory", "vae_decode")


FIRST_BLOCK = {"kind": "first-block", "every": 2, "warmup": 1, "last": 0}


@pytest.mark.parametrize("guidance", ["sequential", "batched"])
def test_a_cached_trajectory_counts_what_it_executes(guidance):
    """Four steps, one in two computed; a reused one runs the first of two blocks."""
    plain = count_stages(point({"steps": 4, "guidance": guidance})).stages
    cached = count_stages(point({"steps": 4, "guidance": guidance, "cache": FIRST_BLOCK})).stages
    assert cached["denoise_step"] == plain["denoise_step"]
    saved = plain["trajectory"].flops - cached["trajectory"].flops
    one_block = dit_forward(point().model.denoiser, point().model.latent_shape(point().workload), 1)
    less = dit_forward(
        point({"denoiser": {"depth": 1}}).model.denoiser,
        point().model.latent_shape(point().workload),
        1,
    )
    assert saved == 2 * 2 * (
        sum(one_block.values()) - sum(less.values())
    )  # two steps, two answers each
    assert sum(cached["trajectory"].operators.calls) == cached["trajectory"].kernels


def test_a_drafted_trajectory_counts_both_models():
    drafted = {
        "steps": 5,
        "draft": {"denoiser": {"depth": 1}, "schedule": {"share": 0.4, "draft_runs": "early"}},
    }
    step = {
        depth: count_stages(point({"denoiser": {"depth": depth}})).stages["denoise_step"].flops
        for depth in (1, 2)
    }
    assert count_stages(point(drafted)).stages["trajectory"].flops == 2 * step[1] + 3 * step[2]


@pytest.mark.parametrize(
    "recipe",
    [
        {"steps": 4, "cache": FIRST_BLOCK},
        {"steps": 4, "cache": FIRST_BLOCK | {"kind": "taylor"}},
        {"steps": 4, "cache": FIRST_BLOCK | {"kind": "whole-step"}},
        {"steps": 4, "cache": FIRST_BLOCK, "guidance": "batched"},
        {
            "steps": 4,
            "draft": {"denoiser": {"depth": 1}, "schedule": {"share": 0.5, "draft_runs": "early"}},
        },
    ],
    ids=str,
)
def test_caches_and_drafts_diverge_and_repeat(recipe):
    base = outputs({"steps": 4})
    calls, _ = build_calls(point(recipe), CPU)
    with torch.inference_mode():
        calls["vae_decode"]()
        first, again = calls["trajectory"](), calls["trajectory"]()
    assert torch.equal(first, again)  # nothing is left of the first
    apart = divergence_of({"latents": first}, {"latents": base["latents"]})
    assert 1e-4 < apart.relative_l2 < 2


def test_a_cache_that_computes_every_step_changes_nothing(baseline):
    assert divergence_of(outputs({"cache": FIRST_BLOCK | {"every": 1}}), baseline).identical


def test_a_class_that_takes_no_cache_is_unsupported_with_the_reason(monkeypatch):
    public = load_point(
        "sana-video-2b",
        "480p-81f",
        "cache-first-block-bf16",
        {
            "workload.frames": 5,
            "workload.height": 64,
            "workload.width": 64,
            "denoiser.config.num_layers": 2,
        },
        ("trajectory",),
    )
    step = StageCount(
        **dict.fromkeys((name for name, f in StageCount.model_fields.items() if f.is_required()), 1)
        | {"uncounted_ops": {}}
    )
    monkeypatch.setattr(
        building, "count_point", lambda p: SimpleNamespace(stages={"denoise_step": step})
    )
    with pytest.raises(Unsupported, match="cache first-block: diffusers'"):
        count_stages(public)
